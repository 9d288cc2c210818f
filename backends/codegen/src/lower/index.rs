//! Scatter and top-k: kernels that compare indices or ranks.

use super::*;
use crate::emit::Emitter;
use selvedge_ir::ops::{Scatter, ScatterKind, Topk};
use selvedge_shaders::kernels::scatter::{Scatter as ScatterKernel, Write};
use selvedge_shaders::kernels::topk::Topk as TopkKernel;

/// Each result looks through the updates of its batch, in order.
pub(super) fn scatter<'a>(
    lowering: &mut Lowering<'a, '_>,
    epilogue: Epilogue<'a>,
    scatter: &Scatter,
    args: &[ValueId],
) -> Result<Vec<Job<'a>>, Diagnostic> {
    let (context, target) = (lowering.context, lowering.target);
    let (x, indices, updates) = (args[0], args[1], args[2]);
    let (sizes, axis, batch) = (context.sizes(x), scatter.axis, scatter.batch);
    let rest = context.sizes(indices)[batch..].to_vec();
    let (count, len): (u64, u64) = (sizes.iter().product(), rest.iter().product());
    let dtype = context.dtype(x);
    let element = Element::of(dtype);
    let kind = match scatter.kind {
        ScatterKind::Add => Write::Add,
        ScatterKind::Set => Write::Set,
    };
    let bounds = chunks(len, (target.max_iterations as u64).saturating_sub(16).min(lowering.chunk));
    let scratch = (bounds.len() > 1).then(|| (lowering.scratch)("partial", running(element), count));
    let mut jobs: Vec<Job<'a>> = Vec::new();
    for (from, to) in bounds {
        let (epilogue, sizes, rest) = (epilogue.clone(), sizes.clone(), rest.clone());
        let flops = count * (to - from);
        let emit = move |range: Range<u64>, access: &mut Access| {
            let (i, a, root) = (part(&range, "i"), element.wgsl(), epilogue.unit.root());
            let at = coordinates(&i, &sizes);
            let (j, line) = chunked("j", (from, to));
            let j = coordinates(&j, &rest);
            let mut hooks = String::new();
            let mut e = Emitter::new(context, access);
            let initial = match scratch {
                Some(scratch) if from > 0 => e.load(scratch, &i),
                Some(_) | None => {
                    let value = e.value(x, &at)?;
                    to_element(dtype, value)
                }
            };
            e.line(format!("return {initial};"));
            hooks += &function(&format!("fn initial(i: u32) -> {a}"), &e.finish());

            let mut e = Emitter::new(context, access);
            line.iter().for_each(|l| e.line(l.clone()));
            let mut index = at[..batch].to_vec();
            index.extend(j.clone());
            let picked = e.value(indices, &index)?;
            let here = e.index(&at[axis]);
            let here = if context.dtype(indices) == DType::I32 { format!("i32({here})") } else { format!("({here})") };
            e.line(format!("return {picked} == {here};"));
            hooks += &function("fn hits(i: u32, j: u32) -> bool", &e.finish());

            let mut e = Emitter::new(context, access);
            line.iter().for_each(|l| e.line(l.clone()));
            let mut index = at[..axis].to_vec();
            index.extend(j);
            index.extend_from_slice(&at[axis + 1..]);
            let value = e.value(updates, &index)?;
            e.line(format!("return {};", to_element(dtype, value)));
            hooks += &function(&format!("fn update(i: u32, j: u32) -> {a}"), &e.finish());

            let body = match scratch {
                Some(scratch) if to < len => {
                    let mut e = Emitter::new(context, access);
                    e.store(scratch, &i, "value");
                    e.finish()
                }
                Some(_) | None => epilogue.store(access, &at, &from_element(dtype, "value"))?,
            };
            hooks += &function(&format!("fn store(i: u32, value: {a})"), &body);
            let kernel = ScatterKernel {
                count: extent(context, root, range.end - range.start)?,
                updates: extent(context, root, len)?,
                from: extent(context, root, from)?,
                to: extent(context, root, to)?,
                kind,
                element,
                wg: workgroup(target, 64),
            };
            shader(&epilogue, target, &kernel, hooks)
        };
        jobs.push(Job { outer: count, summed: to - from, flops, emit: Box::new(emit) });
    }
    Ok(jobs)
}

/// Each element counts those that come before it; the best k are stored by rank.
pub(super) fn topk<'a>(
    lowering: &mut Lowering<'a, '_>,
    epilogue: Epilogue<'a>,
    topk: &Topk,
    x: ValueId,
) -> Result<Vec<Job<'a>>, Diagnostic> {
    let (context, target) = (lowering.context, lowering.target);
    let (sizes, axis, dtype, k) = (context.sizes(x), topk.axis, context.dtype(x), topk.k as u64);
    let (len, largest) = (sizes[axis], topk.largest);
    let mut row_sizes = sizes;
    row_sizes.remove(axis);
    let rows: u64 = row_sizes.iter().product();
    let element = Element::of(dtype);
    let bounds = chunks(len, (target.max_iterations as u64).saturating_sub(16));
    let scratch = (bounds.len() > 1).then(|| (lowering.scratch)("ranks", DType::U32, rows * len));
    let mut jobs: Vec<Job<'a>> = Vec::new();
    for (from, to) in bounds {
        let (epilogue, row_sizes) = (epilogue.clone(), row_sizes.clone());
        let emit = move |range: Range<u64>, access: &mut Access| {
            let (row, root) = (part(&range, "row"), epilogue.unit.root());
            let place = |name: &str, size: u64| {
                let mut at = coordinates(&row, &row_sizes);
                at.insert(axis, Index::var(name, size));
                at
            };
            let mut hooks = String::new();
            let mut e = Emitter::new(context, access);
            let value = e.value(x, &place("k", len))?;
            e.line(format!("return {};", to_element(dtype, value)));
            hooks += &function(&format!("fn load(row: u32, k: u32) -> {}", element.wgsl()), &e.finish());
            let rank_at = linear(&[row.clone(), Index::var("i", len)], &[rows, len]);
            let mut e = Emitter::new(context, access);
            let partial = match scratch {
                Some(scratch) if from > 0 => e.load(scratch, &rank_at),
                Some(_) | None => "0u".to_string(),
            };
            e.line(format!("return {partial};"));
            hooks += &function("fn partial(row: u32, i: u32) -> u32", &e.finish());
            let mut e = Emitter::new(context, access);
            if let Some(scratch) = scratch.filter(|_| to < len) {
                e.store(scratch, &rank_at, "count");
            }
            hooks += &function("fn carry(row: u32, i: u32, count: u32)", &e.finish());
            let body = match to < len {
                true => String::new(),
                false => epilogue.store(access, &place("rank", k), "index")?,
            };
            hooks += &function("fn store(row: u32, rank: u32, index: i32)", &body);
            let kernel = TopkKernel {
                rows: extent(context, root, range.end - range.start)?,
                len: extent(context, root, len)?,
                k: extent(context, root, k)?,
                from: extent(context, root, from)?,
                to: extent(context, root, to)?,
                largest,
                element,
                wg: workgroup(target, 64),
            };
            shader(&epilogue, target, &kernel, hooks)
        };
        jobs.push(Job { outer: rows, summed: 0, flops: rows * len * (to - from), emit: Box::new(emit) });
    }
    Ok(jobs)
}
