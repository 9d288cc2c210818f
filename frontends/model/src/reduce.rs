//! Reductions, cumulative scans, softmax and norms.

use crate::tensor::{Axes, Tensor};
use selvedge_ir::ops::{GroupNorm, LayerNorm, Reduce, ReduceKind, RmsNorm, Scan, ScanKind, Softmax};
use selvedge_ir::scalar::F64;
use selvedge_ir::{DType, Dim, Shape};

macro_rules! reductions {
    ($($(#[doc = $doc:literal])+ $method:ident $keep:ident = $kind:ident;)*) => {
        impl Tensor { $(
            $(#[doc = $doc])+
            #[track_caller]
            pub fn $method(&self, axes: impl Axes) -> Tensor { self.reduce(ReduceKind::$kind, &axes.axes(), false) }
            $(#[doc = $doc])+
            /// The axes stay, with extent 1.
            #[track_caller]
            pub fn $keep(&self, axes: impl Axes) -> Tensor { self.reduce(ReduceKind::$kind, &axes.axes(), true) }
        )* }
    };
}
reductions! {
    /// Σ over axes, accumulated in f32.
    sum sum_keepdim = Sum;
    /// Π over axes.
    prod prod_keepdim = Prod;
    /// Largest over axes.
    max max_keepdim = Max;
    /// Smallest over axes.
    min min_keepdim = Min;
    /// Index of the largest along one axis, as i32; ties go to the lowest index.
    argmax argmax_keepdim = Argmax;
    /// Index of the smallest along one axis, as i32; ties go to the lowest index.
    argmin argmin_keepdim = Argmin;
}

impl Tensor {
    #[track_caller]
    fn reduce(&self, kind: ReduceKind, axes: &[isize], keepdim: bool) -> Tensor {
        let Some(mut axes) = axes.iter().map(|&a| self.axis(a)).collect::<Option<Vec<usize>>>() else {
            return self.graph().poison();
        };
        axes.sort();
        let mut kept = self.shape();
        axes.iter().for_each(|&a| kept.0[a] = Dim::new(1));
        let reduced = self.graph().push(Reduce { kind, axes }, &[self]);
        if keepdim { reduced.reshape(kept) } else { reduced }
    }
    #[track_caller]
    fn mean_over(&self, axes: &[isize], keepdim: bool) -> Tensor {
        let mut count = 1.0;
        for &axis in axes {
            count *= self.size(axis) as f64;
        }
        // The sum of halves may leave their range where the mean does not.
        let sum = self.cast(DType::F32).reduce(ReduceKind::Sum, axes, keepdim);
        (sum / count).cast(self.dtype())
    }
    /// Mean of a float tensor over axes, accumulated in f32.
    #[track_caller]
    pub fn mean(&self, axes: impl Axes) -> Tensor {
        self.mean_over(&axes.axes(), false)
    }
    /// Mean of a float tensor over axes, which stay with extent 1.
    #[track_caller]
    pub fn mean_keepdim(&self, axes: impl Axes) -> Tensor {
        self.mean_over(&axes.axes(), true)
    }

    /// Running sum along an axis.
    #[track_caller]
    pub fn cumsum(&self, axis: isize) -> Tensor {
        self.scan(ScanKind::Sum, axis, false, false)
    }
    /// Accumulates along an axis, from the end with `reverse`; an `exclusive` result leaves its own element out.
    #[track_caller]
    pub fn scan(&self, kind: ScanKind, axis: isize, reverse: bool, exclusive: bool) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.graph().poison() };
        self.graph().push(Scan { kind, axis, reverse, exclusive }, &[self])
    }

    /// eˣ / Σ eˣ along an axis.
    #[track_caller]
    pub fn softmax(&self, axis: isize) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.graph().poison() };
        self.graph().push(Softmax { axis }, &[self])
    }
    /// (x − mean) / √(variance + eps) over the last axis, times scale, plus bias (both of the last axis' extent).
    #[track_caller]
    pub fn layer_norm(&self, scale: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Tensor {
        let op = LayerNorm { eps: F64(eps) };
        let (scale, bias) = (scale.map(|s| s.cast(self.dtype())), bias.map(|b| b.cast(self.dtype())));
        match (&scale, &bias) {
            (Some(scale), Some(bias)) => self.graph().push(op, &[self, scale, bias]),
            (Some(scale), None) => self.graph().push(op, &[self, scale]),
            (None, Some(bias)) => self.graph().push(op, &[self]) + bias,
            (None, None) => self.graph().push(op, &[self]),
        }
    }
    /// x / √(mean(x²) + eps) over the last axis, times scale (of its extent).
    #[track_caller]
    pub fn rms_norm(&self, scale: Option<&Tensor>, eps: f64) -> Tensor {
        let op = RmsNorm { eps: F64(eps) };
        match scale.map(|s| s.cast(self.dtype())) {
            Some(scale) => self.graph().push(op, &[self, &scale]),
            None => self.graph().push(op, &[self]),
        }
    }
    /// Normalises [N, C, spatial…] over each group of channels and all spatial axes; scale and bias are [C].
    #[track_caller]
    pub fn group_norm(&self, groups: usize, scale: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Tensor {
        let op = GroupNorm { groups, eps: F64(eps) };
        let (scale, bias) = (scale.map(|s| s.cast(self.dtype())), bias.map(|b| b.cast(self.dtype())));
        match (&scale, &bias) {
            (Some(scale), Some(bias)) => self.graph().push(op, &[self, scale, bias]),
            (Some(scale), None) => self.graph().push(op, &[self, scale]),
            (None, None) => self.graph().push(op, &[self]),
            (None, Some(bias)) => self.graph().push(op, &[self]).add_channels(bias),
        }
    }
    /// [N, C, spatial…] plus a vector [C], in this tensor's dtype.
    #[track_caller]
    pub fn add_channels(&self, vector: &Tensor) -> Tensor {
        let Some(ty) = self.ty() else { return self.clone() };
        let mut dims = vec![vector.dim(0)];
        dims.resize(ty.rank().saturating_sub(1).max(1), Dim::new(1));
        (self + vector.reshape(Shape(dims))).cast(ty.dtype)
    }
}
