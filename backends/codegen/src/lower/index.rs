//! Scatter: each result looks for the updates of its index.

use super::*;
use crate::emit::Emitter;
use selvedge_ir::ops::{Scatter, ScatterKind};
use selvedge_shaders::kernels::scatter::{Scatter as ScatterKernel, Write};

/// Each result looks through the updates of its batch, in order.
pub(super) fn lower<'a>(
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
