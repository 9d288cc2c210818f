//! Convolution as matrix products over unfolded patches, a bounded number of positions at a time.

use super::gemm::Product;
use rayon::prelude::*;
use selvedge_ir::ops::{Window, WindowKind};
use selvedge_ir::shape::strides;
use selvedge_ir::{Data, Tensor, TensorType};

/// Elements of an unfolded block: a few hundred KiB, so that it stays in the second-level cache.
const BLOCK: usize = 1 << 16;

/// The convolution's value; `None` for pooling and data not held as f32.
pub fn eval(op: &Window, x: &Tensor, kernel: Option<&Tensor>, out: &TensorType) -> Option<Tensor> {
    match op.kind {
        WindowKind::Conv => {}
        WindowKind::Sum | WindowKind::Max => return None,
    }
    let kernel = kernel?;
    let (Data::F32(data), Data::F32(weights)) = (&x.data, &kernel.data) else { return None };
    let (sizes, out_sizes) = (x.sizes(), out.shape.sizes());
    let (inputs, outputs) = (sizes[1] / op.groups, out_sizes[1] / op.groups);
    let space = &sizes[2..];
    let taps: usize = op.size.iter().product();
    let depth = inputs * taps;
    let positions: usize = out_sizes[2..].iter().product();
    let mut result = vec![0f32; out_sizes.iter().product()];
    if result.is_empty() || depth == 0 {
        return None;
    }
    let plane: usize = space.iter().product();
    let unfold = Unfold { op, space, space_strides: strides(space), out_space: &out_sizes[2..] };
    let columns = (BLOCK / depth).clamp(1, positions);
    // One task for each image and group: its outputs are contiguous.
    result.par_chunks_exact_mut(outputs * positions).enumerate().for_each(|(task, to)| {
        let (image, group) = (task / op.groups, task % op.groups);
        let source = &data[(image * sizes[1] + group * inputs) * plane..][..inputs * plane];
        let weights = &weights[group * outputs * depth..][..outputs * depth];
        let mut block = vec![0f32; depth * columns];
        for first in (0..positions).step_by(columns) {
            let count = columns.min(positions - first);
            for row in 0..depth {
                let (channel, tap) = (row / taps, row % taps);
                let channel = &source[channel * plane..][..plane];
                unfold.row(channel, tap, first, &mut block[row * columns..][..count]);
            }
            Product {
                m: outputs,
                n: count,
                k: depth,
                c: (positions, 1),
                a: (depth, 1),
                b: (columns, 1),
                outer: Vec::new(),
                accumulate: false,
            }
            .run(&mut to[first..], weights, &block);
        }
        if out.dtype.bits() < 32 {
            to.iter_mut().for_each(|v| *v = out.dtype.round(*v));
        }
    });
    Some(Tensor::new(out.clone(), Data::F32(result)))
}

struct Unfold<'a> {
    op: &'a Window,
    space: &'a [usize],
    space_strides: Vec<usize>,
    out_space: &'a [usize],
}

impl Unfold<'_> {
    /// What one tap sees at consecutive output positions; 0 in the padding.
    fn row(&self, channel: &[f32], tap: usize, first: usize, to: &mut [f32]) {
        let mut shift = vec![0usize; self.space.len()];
        let mut rest = tap;
        for axis in (0..shift.len()).rev() {
            shift[axis] = (rest % self.op.size[axis]) * self.op.dilation[axis];
            rest /= self.op.size[axis];
        }
        for (i, to) in to.iter_mut().enumerate() {
            let (mut at, mut rest, mut inside) = (0usize, first + i, true);
            for axis in (0..shift.len()).rev() {
                let position = rest % self.out_space[axis];
                rest /= self.out_space[axis];
                let index = position * self.op.stride[axis] + shift[axis];
                match index.checked_sub(self.op.padding[axis].0) {
                    Some(index) if index < self.space[axis] => at += index * self.space_strides[axis],
                    _ => inside = false,
                }
            }
            *to = if inside { channel[at] } else { 0.0 };
        }
    }
}
