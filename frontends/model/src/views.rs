//! Operations that only move elements: shapes, axes, slices, joins.

use crate::tensor::Tensor;
use selvedge_ir::ops::{Concat, Pad, Reshape, Slice, Transpose};
use selvedge_ir::scalar::F64;
use selvedge_ir::{Diagnostic, Dim, Shape};

impl Tensor {
    /// The same elements in row-major order under another shape.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        if self.ty().is_some_and(|t| t.shape == shape) {
            return self.clone();
        }
        self.graph().push(Reshape { shape }, &[self])
    }
    /// Joins the axes first..=last into one.
    #[track_caller]
    pub fn flatten(&self, first: isize, last: isize) -> Tensor {
        let (Some(first), Some(last)) = (self.axis(first), self.axis(last)) else { return self.graph().poison() };
        let mut dims = self.shape().0;
        let joined = dims[first..=last.max(first)].iter().fold(Dim::new(1), |a, b| &a * b);
        dims.splice(first..=last.max(first), [joined]);
        self.reshape(Shape(dims))
    }
    /// Splits one axis into several of these extents.
    #[track_caller]
    pub fn unflatten(&self, axis: isize, sizes: &[usize]) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.graph().poison() };
        let mut dims = self.shape().0;
        dims.splice(axis..=axis, sizes.iter().map(|&n| Dim::new(n)));
        self.reshape(Shape(dims))
    }
    /// Adds an axis of extent 1 at a place (of the result; −1 is last).
    #[track_caller]
    pub fn unsqueeze(&self, axis: isize) -> Tensor {
        let Some(ty) = self.ty() else { return self.clone() };
        let index = if axis < 0 { axis + ty.rank() as isize + 1 } else { axis };
        if !(0..=ty.rank() as isize).contains(&index) {
            return self.fail(Diagnostic::new("M3", format!("an axis cannot be added at {axis} of {ty}")));
        }
        let mut dims = ty.shape.0;
        dims.insert(index as usize, Dim::new(1));
        self.reshape(Shape(dims))
    }
    /// Removes an axis of extent 1.
    #[track_caller]
    pub fn squeeze(&self, axis: isize) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.graph().poison() };
        let mut dims = self.shape().0;
        dims.remove(axis);
        self.reshape(Shape(dims))
    }
    /// Result axis i is this tensor's axis `perm[i]`.
    #[track_caller]
    pub fn permute<const N: usize>(&self, perm: [isize; N]) -> Tensor {
        let Some(perm) = perm.into_iter().map(|axis| self.axis(axis)).collect::<Option<Vec<usize>>>() else {
            return self.graph().poison();
        };
        self.graph().push(Transpose { perm }, &[self])
    }
    /// Exchanges two axes.
    #[track_caller]
    pub fn transpose(&self, a: isize, b: isize) -> Tensor {
        let (Some(a), Some(b)) = (self.axis(a), self.axis(b)) else { return self.graph().poison() };
        let mut perm: Vec<usize> = (0..self.rank()).collect();
        perm.swap(a, b);
        self.graph().push(Transpose { perm }, &[self])
    }
    /// Every `step`-th element of an axis from `start` up to (not including) `end`.
    #[track_caller]
    pub fn slice(&self, axis: isize, start: usize, end: usize, step: usize) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.graph().poison() };
        let Some(sizes) = self.shape().get() else {
            return self
                .fail(Diagnostic::new("M3", format!("{} is sliced before its symbols are known", self.shape())));
        };
        let (mut starts, mut ends) = (vec![0; sizes.len()], sizes);
        (starts[axis], ends[axis]) = (start, end);
        let mut steps = vec![1; starts.len()];
        steps[axis] = step;
        self.graph().push(Slice { start: starts, end: ends, step: steps }, &[self])
    }
    /// `length` elements of an axis from `start`.
    #[track_caller]
    pub fn narrow(&self, axis: isize, start: usize, length: usize) -> Tensor {
        self.slice(axis, start, start.saturating_add(length), 1)
    }
    /// Cuts an axis into N equal parts: `let [shift, scale, gate] = m.chunk(-1);`.
    #[track_caller]
    pub fn chunk<const N: usize>(&self, axis: isize) -> [Tensor; N] {
        let parts = self.chunks(N, axis);
        parts.try_into().expect("chunks gives as many parts as asked for")
    }
    /// Cuts an axis into `n` equal parts.
    #[track_caller]
    pub fn chunks(&self, n: usize, axis: isize) -> Vec<Tensor> {
        let extent = self.size(axis);
        if self.id().is_none() || self.axis(axis).is_none() {
            return vec![self.graph().poison(); n];
        }
        if n == 0 || !extent.is_multiple_of(n) {
            let what =
                Diagnostic::new("M3", format!("axis {axis} of {} cannot be cut into {n} equal parts", self.shape()));
            return vec![self.fail(what.expected_found(format!("a multiple of {n}"), extent)); n];
        }
        let length = extent / n;
        let mut parts = Vec::with_capacity(n);
        for i in 0..n {
            parts.push(self.narrow(axis, i * length, length));
        }
        parts
    }
    /// Cuts an axis into parts of these lengths, which must fill it.
    #[track_caller]
    pub fn split(&self, axis: isize, lengths: &[usize]) -> Vec<Tensor> {
        let (extent, sum) = (self.size(axis), lengths.iter().sum::<usize>());
        if self.id().is_some() && self.axis(axis).is_some() && extent != sum {
            let what =
                Diagnostic::new("M3", format!("the parts {lengths:?} do not fill axis {axis} of {}", self.shape()));
            self.fail(what.expected_found(extent, sum));
            return vec![self.graph().poison(); lengths.len()];
        }
        let mut start = 0;
        let mut parts = Vec::with_capacity(lengths.len());
        for &length in lengths {
            parts.push(self.narrow(axis, start, length));
            start += length;
        }
        parts
    }
    /// Adds elements of one value (before, after) each axis.
    #[track_caller]
    pub fn pad(&self, padding: &[(usize, usize)], value: f64) -> Tensor {
        self.graph().push(Pad { padding: padding.to_vec(), value: F64(value) }, &[self])
    }
    /// Turns an axis around: index i becomes n − 1 − i.
    #[track_caller]
    pub fn flip(&self, axis: isize) -> Tensor {
        let n = self.size(axis);
        let Some(axis) = self.axis(axis) else { return self.graph().poison() };
        let indices = self.graph().arange(selvedge_ir::DType::I32, n);
        let reversed = (n as f64 - 1.0) - indices;
        self.gather(&reversed, axis as isize, 0)
    }
}

/// Joins tensors along an axis.
///
/// # Panics
/// If there is no tensor.
#[track_caller]
pub fn concat(tensors: &[&Tensor], axis: isize) -> Tensor {
    let first = tensors.first().expect("a concatenation has at least one operand");
    match first.axis(axis) {
        Some(axis) => first.graph().push(Concat { axis }, tensors),
        None => first.graph().poison(),
    }
}

/// Joins tensors of one shape along a new axis.
///
/// # Panics
/// If there is no tensor.
#[track_caller]
pub fn stack(tensors: &[&Tensor], axis: isize) -> Tensor {
    let mut with_axis = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        with_axis.push(tensor.unsqueeze(axis));
    }
    concat(&with_axis.iter().collect::<Vec<_>>(), axis)
}
