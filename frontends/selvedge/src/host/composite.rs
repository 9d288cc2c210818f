//! Composites in one pass over the data, for f32: the interpreter expands the others.

use super::gemm::Product;
use super::{math, reduce};
use rayon::prelude::*;
use selvedge_ir::ops::Attention;
use selvedge_ir::{DType, Data, Tensor, TensorType};

fn plain(x: &Tensor) -> Option<&[f32]> {
    match (&x.data, x.ty.dtype) {
        (Data::F32(v), DType::F32) => Some(v),
        _ => None,
    }
}

/// Softmax in place: eˣ⁻ᵐᵃˣ over its sum.
fn softmax_row(row: &mut [f32]) {
    let max = reduce::extreme(row, f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = math::exp(*x - max));
    let scale = 1.0 / reduce::sum(row);
    row.iter_mut().for_each(|x| *x *= scale);
}

/// `softmax` along the last axis.
pub fn softmax(x: &Tensor, axis: usize, out: &TensorType) -> Option<Tensor> {
    let mut v = plain(x)?.to_vec();
    let width = *x.sizes().last()?;
    if axis + 1 != x.ty.rank() || width == 0 {
        return None;
    }
    v.par_chunks_exact_mut(width).with_min_len(8192usize.div_ceil(width)).for_each(softmax_row);
    Some(Tensor::new(out.clone(), Data::F32(v)))
}

/// `layer_norm` (`centre`) and `rms_norm` over the last axis.
pub fn norm(
    x: &Tensor,
    scale: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
    centre: bool,
    out: &TensorType,
) -> Option<Tensor> {
    let mut v = plain(x)?.to_vec();
    let scale = match scale {
        Some(t) => Some(plain(t)?),
        None => None,
    };
    let bias = match bias {
        Some(t) => Some(plain(t)?),
        None => None,
    };
    let width = *x.sizes().last()?;
    if width == 0 {
        return None;
    }
    v.par_chunks_exact_mut(width).with_min_len(8192usize.div_ceil(width)).for_each(|row| {
        if centre {
            let mean = reduce::sum(row) / width as f32;
            row.iter_mut().for_each(|x| *x -= mean);
        }
        let mut squares = [0f32; 16];
        for chunk in row.chunks(16) {
            squares.iter_mut().zip(chunk).for_each(|(s, x)| *s += x * x);
        }
        let variance = reduce::sum(&squares) / width as f32;
        let factor = 1.0 / (variance + eps as f32).sqrt();
        row.iter_mut().for_each(|x| *x *= factor);
        if let Some(scale) = scale {
            row.iter_mut().zip(scale).for_each(|(x, s)| *x *= s);
        }
        if let Some(bias) = bias {
            row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
    });
    Some(Tensor::new(out.clone(), Data::F32(v)))
}

/// `attention` without a mask: each head's score matrix stays in cache, a block of queries at a time.
pub fn attention(op: &Attention, q: &Tensor, k: &Tensor, v: &Tensor, out: &TensorType) -> Option<Tensor> {
    let (x, y, z) = (plain(q)?, plain(k)?, plain(v)?);
    let [b, h, n, d] = <[usize; 4]>::try_from(q.sizes()).ok()?;
    let (m, e) = (k.sizes()[2], v.sizes()[3]);
    if [b, h, n, d, m, e].contains(&0) {
        return None;
    }
    let scale = op.scale.0 as f32;
    const QUERIES: usize = 64;
    let mut result = vec![0f32; b * h * n * e];
    result.par_chunks_exact_mut(n * e).enumerate().for_each(|(head, to)| {
        let (x, y, z) = (&x[head * n * d..][..n * d], &y[head * m * d..][..m * d], &z[head * m * e..][..m * e]);
        let mut scores = vec![0f32; QUERIES.min(n) * m];
        for first in (0..n).step_by(QUERIES) {
            let rows = QUERIES.min(n - first);
            let product = |m, n, k, a, b| Product { m, n, k, c: (n, 1), a, b, outer: Vec::new(), accumulate: false };
            product(rows, m, d, (d, 1), (1, d)).run_alone(&mut scores, &x[first * d..], y);
            for (i, row) in scores.chunks_exact_mut(m).take(rows).enumerate() {
                row.iter_mut().for_each(|s| *s *= scale);
                let seen = if op.causal { (first + i + 1).min(m) } else { m };
                softmax_row(&mut row[..seen]);
                row[seen..].fill(0.0);
            }
            product(rows, e, m, (m, 1), (e, 1)).run_alone(&mut to[first * e..], &scores, z);
        }
    });
    Some(Tensor::new(out.clone(), Data::F32(result)))
}
