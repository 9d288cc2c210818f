//! Views as strided copies: transpose, broadcast, slice, pad and concat move whole runs, not elements.

use rayon::prelude::*;
use selvedge_ir::shape::strides;
use selvedge_ir::{DType, Data, Tensor, TensorType};

/// Copies `source[offset + Σ iᵢ·strideᵢ]` to a dense row-major tensor of these extents.
pub fn gather_strided<T: Copy + Send + Sync + Default>(
    source: &[T],
    offset: usize,
    sizes: &[usize],
    source_strides: &[usize],
) -> Vec<T> {
    let total: usize = sizes.iter().product();
    let mut out = vec![T::default(); total];
    if total == 0 {
        return out;
    }
    let axes = collapse(sizes, source_strides);
    let (outer, (inner, step)) = match axes.split_last() {
        Some((last, outer)) => (outer, *last),
        None => (&[][..], (1, 0)),
    };
    let rows_per_task = 16_384usize.div_ceil(inner);
    out.par_chunks_mut(rows_per_task * inner).enumerate().for_each(|(task, chunk)| {
        for (row, to) in chunk.chunks_mut(inner).enumerate() {
            let (mut at, mut rest) = (offset, task * rows_per_task + row);
            for &(size, stride) in outer.iter().rev() {
                at += (rest % size) * stride;
                rest /= size;
            }
            match step {
                0 => to.fill(source[at]),
                1 => to.copy_from_slice(&source[at..at + inner]),
                _ => to.iter_mut().zip(source[at..].iter().step_by(step)).for_each(|(t, s)| *t = *s),
            }
        }
    });
    out
}

/// Extents and strides without unit axes, neighbours merged.
fn collapse(sizes: &[usize], strides: &[usize]) -> Vec<(usize, usize)> {
    let mut axes: Vec<(usize, usize)> = Vec::new();
    for (&size, &stride) in sizes.iter().zip(strides).filter(|(size, _)| **size != 1) {
        match axes.last_mut() {
            Some(last) if last.1 == stride * size => *last = (last.0 * size, stride),
            _ => axes.push((size, stride)),
        }
    }
    axes
}

/// The elements of a view of `x`, dense.
pub fn view(x: &Tensor, offset: usize, source_strides: &[usize], out: &TensorType) -> Tensor {
    let sizes = out.shape.sizes();
    let data = match &x.data {
        Data::F32(v) => Data::F32(gather_strided(v, offset, &sizes, source_strides)),
        Data::F64(v) => Data::F64(gather_strided(v, offset, &sizes, source_strides)),
        Data::I32(v) => Data::I32(gather_strided(v, offset, &sizes, source_strides)),
        Data::U32(v) => Data::U32(gather_strided(v, offset, &sizes, source_strides)),
        Data::Bool(v) => Data::Bool(gather_strided(v, offset, &sizes, source_strides)),
    };
    Tensor::new(out.clone(), data)
}

/// `transpose`.
pub fn transpose(x: &Tensor, perm: &[usize], out: &TensorType) -> Tensor {
    let from = strides(&x.sizes());
    let by: Vec<usize> = perm.iter().map(|&p| from[p]).collect();
    view(x, 0, &by, out)
}

/// `broadcast`: stretched and new axes have stride 0.
pub fn broadcast(x: &Tensor, axes: &[usize], out: &TensorType) -> Tensor {
    let mut by = vec![0; out.rank()];
    for ((&axis, size), stride) in axes.iter().zip(x.sizes()).zip(strides(&x.sizes())) {
        by[axis] = if size == 1 { 0 } else { stride };
    }
    view(x, 0, &by, out)
}

/// `slice`.
pub fn slice(x: &Tensor, start: &[usize], step: &[usize], out: &TensorType) -> Tensor {
    let from = strides(&x.sizes());
    let offset = if out.elements() == Some(0) { 0 } else { start.iter().zip(&from).map(|(a, b)| a * b).sum() };
    let by: Vec<usize> = from.iter().zip(step).map(|(a, b)| a * b).collect();
    view(x, offset, &by, out)
}

/// `concat`.
pub fn concat(parts: &[&Tensor], axis: usize, out: &TensorType) -> Option<Tensor> {
    fn join<T: Copy + Default + Send + Sync>(parts: &[(&[T], usize)], outer: usize) -> Vec<T> {
        let row: usize = parts.iter().map(|(_, width)| width).sum();
        let mut to = vec![T::default(); row * outer];
        if row == 0 {
            return to;
        }
        to.par_chunks_mut(row).with_min_len(16_384usize.div_ceil(row)).enumerate().for_each(|(i, row)| {
            let mut at = 0;
            for &(data, width) in parts {
                row[at..at + width].copy_from_slice(&data[i * width..(i + 1) * width]);
                at += width;
            }
        });
        to
    }
    let outer: usize = out.shape.sizes()[..axis].iter().product();
    let widths: Vec<usize> = parts.iter().map(|p| p.sizes()[axis..].iter().product()).collect();
    macro_rules! all {
        ($variant:ident) => {{
            let mut slices = Vec::with_capacity(parts.len());
            for (part, &width) in parts.iter().zip(&widths) {
                let Data::$variant(v) = &part.data else { return None };
                slices.push((v.as_slice(), width));
            }
            Data::$variant(join(&slices, outer))
        }};
    }
    let data = match &parts.first()?.data {
        Data::F32(_) => all!(F32),
        Data::F64(_) => all!(F64),
        Data::I32(_) => all!(I32),
        Data::U32(_) => all!(U32),
        Data::Bool(_) => all!(Bool),
    };
    Some(Tensor::new(out.clone(), data))
}

/// `pad`: the value everywhere, then the operand's rows.
pub fn pad(x: &Tensor, padding: &[(usize, usize)], value: f64, out: &TensorType) -> Option<Tensor> {
    let Data::F32(from) = &x.data else { return None };
    let (inner_sizes, sizes) = (x.sizes(), out.shape.sizes());
    let fill = match out.dtype {
        DType::F32 | DType::F16 | DType::BF16 => out.dtype.round(value as f32),
        DType::I32 | DType::U32 | DType::Bool | DType::Packed(_) => return None,
    };
    let mut to = vec![fill; sizes.iter().product()];
    let Some((&row, outer)) = inner_sizes.split_last() else {
        return Some(Tensor::new(out.clone(), Data::F32(from.clone())));
    };
    if from.is_empty() {
        return Some(Tensor::new(out.clone(), Data::F32(to)));
    }
    let by = strides(&sizes);
    for (i, source) in from.chunks_exact(row).enumerate() {
        let (mut at, mut rest) = (padding[outer.len()].0, i);
        for axis in (0..outer.len()).rev() {
            at += (rest % outer[axis] + padding[axis].0) * by[axis];
            rest /= outer[axis];
        }
        to[at..at + row].copy_from_slice(source);
    }
    Some(Tensor::new(out.clone(), Data::F32(to)))
}
