//! Reductions over a run of axes, in parallel over what is kept.

use super::layout::gather_strided;
use rayon::prelude::*;
use selvedge_ir::ops::{Reduce, ReduceKind};
use selvedge_ir::shape::strides;
use selvedge_ir::{Data, Tensor, TensorType};

/// Partial accumulators of a sum: fixes the order of additions and lets them run side by side.
const LANES: usize = 16;

/// The reduction's value for f32 data; `None` for other data and for kinds that give indices.
pub fn eval(op: &Reduce, x: &Tensor, out: &TensorType) -> Option<Tensor> {
    let Data::F32(v) = &x.data else { return None };
    let combine = match op.kind {
        ReduceKind::Sum => sum,
        ReduceKind::Max => |row: &[f32]| extreme(row, f32::NEG_INFINITY, f32::max),
        ReduceKind::Min => |row: &[f32]| extreme(row, f32::INFINITY, f32::min),
        ReduceKind::Prod | ReduceKind::Argmax | ReduceKind::Argmin => return None,
    };
    let sizes = x.sizes();
    let reduced: usize = op.axes.iter().map(|&a| sizes[a]).product();
    if reduced == 0 || v.is_empty() {
        return None;
    }
    let trailing = op.axes.iter().copied().eq(sizes.len() - op.axes.len()..sizes.len());
    let moved;
    let rows: &[f32] = if trailing {
        v
    } else {
        let from = strides(&sizes);
        let order: Vec<usize> =
            (0..sizes.len()).filter(|a| !op.axes.contains(a)).chain(op.axes.iter().copied()).collect();
        let new_sizes: Vec<usize> = order.iter().map(|&a| sizes[a]).collect();
        let new_strides: Vec<usize> = order.iter().map(|&a| from[a]).collect();
        moved = gather_strided(v, 0, &new_sizes, &new_strides);
        &moved
    };
    let mut result = vec![0f32; rows.len() / reduced];
    result
        .par_iter_mut()
        .with_min_len(16_384usize.div_ceil(reduced))
        .zip(rows.par_chunks_exact(reduced))
        .for_each(|(to, row)| *to = out.dtype.round(combine(row)));
    Some(Tensor::new(out.clone(), Data::F32(result)))
}

/// Sum of a row.
pub fn sum(row: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(l, x)| *l += x);
    }
    lanes.iter_mut().zip(rest).for_each(|(l, x)| *l += x);
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

/// Largest or smallest of a row.
pub fn extreme(row: &[f32], start: f32, pick: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(l, x)| *l = pick(*l, *x));
    }
    lanes.iter_mut().zip(rest).for_each(|(l, x)| *l = pick(*l, *x));
    lanes.into_iter().fold(start, pick)
}
