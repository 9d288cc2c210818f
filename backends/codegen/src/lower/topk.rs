//! Top-k: by a search for the worst element that is picked, or by counting, for each element, those that come before it.

use super::quad::fours_of;
use super::row::lanes;
use super::*;
use crate::emit::Emitter;
use selvedge_ir::ops::Topk;
use selvedge_shaders::kernels::row::Lanes;
use selvedge_shaders::kernels::topk::{Topk as TopkKernel, TopkSelect};
use std::fmt;

/// Length up to which rows are counted through.
const SHORT: u64 = 32;

/// How the best of a row are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Each element counts those that come before it.
    Count,
    /// By a search.
    Select(Lanes),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Count => write!(f, "count"),
            Way::Select(lanes) => write!(f, "select {lanes}"),
        }
    }
}

pub(super) fn lower<'a>(
    lowering: &mut Lowering<'a, '_>,
    epilogue: Epilogue<'a>,
    topk: &Topk,
    x: ValueId,
) -> Result<Vec<Job<'a>>, Diagnostic> {
    let (context, target) = (lowering.context, lowering.target);
    let mut row_sizes = context.sizes(x);
    let len = row_sizes.remove(topk.axis);
    let rows: u64 = row_sizes.iter().product();
    let element = Element::of(context.dtype(x));
    let (Ok(all_rows), Ok(all), Ok(k)) = (u32::try_from(rows), u32::try_from(len), u32::try_from(topk.k)) else {
        return count(lowering, epilogue, topk, x, None);
    };
    let (largest, rolled) = (topk.largest, !target.gpu);
    let kernel = move |rows, lanes| TopkSelect { rows, len: all, k, largest, element, lanes, rolled };
    let mut ways = vec![Way::Count];
    if len > SHORT {
        let fits = |lanes: &Lanes| kernel(all_rows, *lanes).check(&limits(target)).is_ok();
        let select: Vec<Way> = lanes(target, len, true).into_iter().filter(fits).map(Way::Select).collect();
        ways.splice(0..0, select);
    }
    let key = format!("topk r{rows} l{len} k{k} {}", context.dtype(x));
    let Way::Select(lanes) = lowering.tuning.pick(&key, &ways) else {
        return count(lowering, epilogue, topk, x, Some((key, Way::Count.to_string())));
    };
    let (axis, dtype) = (topk.axis, context.dtype(x));
    let emit = move |range: Range<u64>, access: &mut Access| {
        let (row, root) = (part(&range, "row"), epilogue.unit.root());
        let place = |k: &Index| {
            let mut at = coordinates(&row, &row_sizes);
            at.insert(axis, k.clone());
            at
        };
        let mut e = Emitter::new(context, access);
        let load = |e: &mut Emitter, k: &Index| Ok(to_element(dtype, e.value(x, &place(k))?));
        let value = fours_of(&mut e, element.wgsl(), &Index::var("quad", len.div_ceil(4)), len, &load)?;
        e.line(format!("return {value};"));
        let signature = format!("fn load(row: u32, quad: u32) -> vec4<{}>", element.wgsl());
        let mut hooks = function(&signature, &e.finish());
        let body = epilogue.store(access, &place(&Index::var("rank", k as u64)), "index")?;
        hooks += &function("fn store(row: u32, rank: u32, index: i32)", &body);
        let rows = extent(context, root, range.end - range.start)?;
        let mut shader = shader(&epilogue, target, &kernel(rows, lanes), hooks)?;
        shader.subgroups = matches!(lanes, Lanes::Subgroup { .. });
        shader.choice = Some((key.clone(), Way::Select(lanes).to_string()));
        Ok(shader)
    };
    Ok(vec![Job { outer: rows, summed: 0, flops: rows * len * 16, emit: Box::new(emit) }])
}

/// Each element counts those that come before it; the best k are stored by rank. `choice` names the kernels as one that was chosen.
fn count<'a>(
    lowering: &mut Lowering<'a, '_>,
    epilogue: Epilogue<'a>,
    topk: &Topk,
    x: ValueId,
    choice: Option<(String, String)>,
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
        let (epilogue, row_sizes, choice) = (epilogue.clone(), row_sizes.clone(), choice.clone());
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
            Ok(Shader { choice: choice.clone(), ..shader(&epilogue, target, &kernel, hooks)? })
        };
        jobs.push(Job { outer: rows, summed: 0, flops: rows * len * (to - from), emit: Box::new(emit) });
    }
    Ok(jobs)
}
