//! Data-dependent indexing: gather, scatter, top-k.

use crate::tensor::Tensor;
use selvedge_ir::ops::{Gather, Scatter, ScatterKind, Topk};

impl Tensor {
    /// Picks slices along `axis` by i32 or u32 indices that share `batch` leading axes:
    /// the result is x[..axis] ++ indices[batch..] ++ x[axis+1..]. Indices are clamped.
    #[track_caller]
    pub fn gather(&self, indices: &Tensor, axis: isize, batch: usize) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.graph().poison() };
        self.graph().push(Gather { axis, batch }, &[self, indices])
    }
    /// Rows of this table [rows, …] by index; the result is indices ++ [ …].
    #[track_caller]
    pub fn embedding(&self, indices: &Tensor) -> Tensor {
        self.gather(indices, 0, 0)
    }
    /// Element along `axis` by index: `indices` has this tensor's shape except along `axis` (PyTorch's `gather`).
    #[track_caller]
    pub fn take_along(&self, indices: &Tensor, axis: isize) -> Tensor {
        let Some(at) = self.axis(axis) else { return self.graph().poison() };
        let last = self.rank() - 1;
        if at == last {
            return self.gather(indices, axis, last);
        }
        let (from, to) = (at as isize, last as isize);
        self.transpose(from, to).gather(&indices.transpose(from, to), -1, last).transpose(from, to)
    }
    /// Adds `updates` into this tensor along `axis`, in index order; shapes as [`Tensor::gather`]'s result.
    #[track_caller]
    pub fn scatter_add(&self, indices: &Tensor, updates: &Tensor, axis: isize, batch: usize) -> Tensor {
        self.scatter(ScatterKind::Add, indices, updates, axis, batch)
    }
    /// Overwrites slices of this tensor along `axis`; the last update in index order wins.
    #[track_caller]
    pub fn scatter_set(&self, indices: &Tensor, updates: &Tensor, axis: isize, batch: usize) -> Tensor {
        self.scatter(ScatterKind::Set, indices, updates, axis, batch)
    }
    #[track_caller]
    fn scatter(&self, kind: ScatterKind, indices: &Tensor, updates: &Tensor, axis: isize, batch: usize) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.graph().poison() };
        self.graph().push(Scatter { kind, axis, batch }, &[self, indices, updates])
    }
    /// The k largest values along an axis, best first, and their indices (i32).
    #[track_caller]
    pub fn topk(&self, k: usize, axis: isize) -> (Tensor, Tensor) {
        let indices = self.topk_indices(k, axis, true);
        (self.take_along(&indices, axis), indices)
    }
    /// Indices (i32) of the k largest or smallest values along an axis, best first; ties go to the lowest index.
    #[track_caller]
    pub fn topk_indices(&self, k: usize, axis: isize, largest: bool) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.graph().poison() };
        self.graph().push(Topk { k, axis, largest }, &[self])
    }
}
