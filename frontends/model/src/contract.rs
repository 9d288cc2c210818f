//! Products: matmul, einsum, attention, rotary positions, convolution, pooling, resizing.

use crate::tensor::Tensor;
use selvedge_ir::ops::{
    Attention, Contract, LocalAttention, LocalKind, PoolTokens, Resize, ResizeKind, Rope, Window, WindowKind,
};
use selvedge_ir::scalar::F64;
use selvedge_ir::spec::ContractSpec;
use selvedge_ir::{DType, Diagnostic, Shape};

/// How a window moves; a list of one entry holds for all spatial axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowOptions {
    /// Steps between windows.
    pub stride: Vec<usize>,
    /// Zeros (before, after) each spatial axis.
    pub padding: Vec<(usize, usize)>,
    /// Steps between taps.
    pub dilation: Vec<usize>,
    /// Channel groups of a convolution.
    pub groups: usize,
}
impl Default for WindowOptions {
    fn default() -> Self {
        WindowOptions { stride: vec![1], padding: vec![(0, 0)], dilation: vec![1], groups: 1 }
    }
}
impl WindowOptions {
    /// Stride 1, no padding, no dilation, one group.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets the steps between windows, one an axis or one for all.
    pub fn stride(mut self, stride: &[usize]) -> Self {
        self.stride = stride.to_vec();
        self
    }
    /// Sets the zeros on both sides of each spatial axis, one an axis or one for all.
    pub fn padding(mut self, padding: &[usize]) -> Self {
        self.padding = padding.iter().map(|&p| (p, p)).collect();
        self
    }
    /// Sets the steps between taps, one an axis or one for all.
    pub fn dilation(mut self, dilation: &[usize]) -> Self {
        self.dilation = dilation.to_vec();
        self
    }
    /// Sets the number of channel groups.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }
    fn window(&self, kind: WindowKind, size: &[usize]) -> Window {
        fn each<T: Copy>(list: &[T], rank: usize) -> Vec<T> {
            if let [one] = list { vec![*one; rank] } else { list.to_vec() }
        }
        let rank = size.len();
        Window {
            kind,
            size: size.to_vec(),
            stride: each(&self.stride, rank),
            padding: each(&self.padding, rank),
            dilation: each(&self.dilation, rank),
            groups: self.groups,
        }
    }
}

/// f32, unless both dtypes are one narrower float.
fn product_dtype(a: DType, b: DType) -> DType {
    if a == b && a.is_float() { a } else { DType::F32 }
}

impl Tensor {
    /// Sums products over matched axes, `q.einsum("bhnd,bhmd->bhnm", &k)`. A letter is in both operands (summed, or kept as
    /// batch) or in one operand and the result. The result is f32 unless both dtypes are equal.
    #[track_caller]
    pub fn einsum(&self, spec: &str, other: &Tensor) -> Tensor {
        self.einsum_as(spec, other, product_dtype(self.dtype(), other.dtype()))
    }
    /// [`Tensor::einsum`] with the result in a dtype.
    #[track_caller]
    pub fn einsum_as(&self, spec: &str, other: &Tensor, dtype: DType) -> Tensor {
        match ContractSpec::parse(spec) {
            Ok(spec) => self.contract(spec, other, dtype),
            Err(message) => {
                let what = format!("`{spec}` of {} and {}: {message}", self.shape(), other.shape());
                self.fail(Diagnostic::new("M10", what).help("write it as \"bik,kj->bij\""))
            }
        }
    }
    #[track_caller]
    fn contract(&self, spec: ContractSpec, other: &Tensor, dtype: DType) -> Tensor {
        let (a, b) = (self.unpacked(), other.unpacked());
        self.graph().push(Contract { spec, dtype }, &[&a, &b])
    }
    /// Packed weights as f32; other tensors as they are.
    #[track_caller]
    fn unpacked(&self) -> Tensor {
        if matches!(self.dtype(), DType::Packed(_)) { self.cast(DType::F32) } else { self.clone() }
    }
    /// The matrix product over the last two axes; leading axes broadcast, vectors act as NumPy's `matmul` has it.
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        let (Some(a), Some(b)) = (self.ty(), other.ty()) else { return self.graph().poison() };
        if a.rank() == 0 || b.rank() == 0 {
            let what = format!("matmul of {} and {}", a.shape, b.shape);
            return self.fail(Diagnostic::new("M1", what).expected_found("at least one axis each", "a scalar"));
        }
        let (a_batch, b_batch) = (a.rank().saturating_sub(2), b.rank().saturating_sub(2));
        let (m, k, n) = (100u8, 101, 102);
        // Leading axes of both operands are matched from the right; one operand alone keeps its own.
        let (mut left, mut right) = (self.clone(), other.clone());
        if a_batch > 0 && b_batch > 0 {
            let (a_lead, b_lead) = (Shape(a.shape.0[..a_batch].to_vec()), Shape(b.shape.0[..b_batch].to_vec()));
            let Some(lead) = a_lead.broadcast(&b_lead) else {
                let what = format!("the leading axes of {} and {} do not broadcast together", a.shape, b.shape);
                return self.fail(Diagnostic::new("M1", what).expected_found(a_lead, b_lead));
            };
            let full = |tail: &[selvedge_ir::Dim]| Shape(lead.0.iter().chain(tail).cloned().collect());
            left = left.broadcast_to(full(&a.shape.0[a_batch..]));
            right = right.broadcast_to(full(&b.shape.0[b_batch..]));
        }
        let (a_batch, b_batch) = (left.rank().saturating_sub(2) as u8, right.rank().saturating_sub(2) as u8);
        let batch = 0..a_batch.max(b_batch);
        let rows = (a.rank() > 1).then_some(m);
        let columns = (b.rank() > 1).then_some(n);
        let a_letters: Vec<u8> = (0..a_batch).chain(rows).chain([k]).collect();
        let b_letters: Vec<u8> = (0..b_batch).chain([k]).chain(columns).collect();
        let out: Vec<u8> = batch.chain(rows).chain(columns).collect();
        match ContractSpec::new(&a_letters, &b_letters, &out) {
            Ok(spec) => left.contract(spec, &right, product_dtype(a.dtype, b.dtype)),
            Err(message) => self.fail(Diagnostic::new("M10", message)),
        }
    }
    /// x·Wᵀ over the last axis, W as a linear layer's weight [out, in]; the result has x's dtype.
    #[track_caller]
    pub fn linear(&self, weight: &Tensor) -> Tensor {
        let Some(ty) = self.ty() else { return self.clone() };
        let (rank, k, n) = (ty.rank() as u8, 100u8, 101u8);
        if rank == 0 {
            return self.fail(Diagnostic::new("M1", format!("a linear layer of {ty}")));
        }
        let a: Vec<u8> = (0..rank - 1).chain([k]).collect();
        let out: Vec<u8> = (0..rank - 1).chain([n]).collect();
        match ContractSpec::new(&a, &[n, k], &out) {
            Ok(spec) => self.contract(spec, weight, ty.dtype),
            Err(message) => self.fail(Diagnostic::new("M10", message)),
        }
    }

    /// softmax(q·kᵀ·scale)·v for q [B,H,N,D] (this), k [B,H,M,D], v [B,H,M,E].
    #[track_caller]
    pub fn attention(&self, k: &Tensor, v: &Tensor, scale: f64) -> Tensor {
        self.attention_with(k, v, scale, None, false)
    }
    /// Attention with a mask that broadcasts to [B,H,N,M] from rank 4 (bool keeps where true, a float is added), or causal.
    #[track_caller]
    pub fn attention_with(&self, k: &Tensor, v: &Tensor, scale: f64, mask: Option<&Tensor>, causal: bool) -> Tensor {
        let op = Attention { scale: F64(scale), causal };
        match mask {
            Some(mask) => self.graph().push(op, &[self, k, v, mask]),
            None => self.graph().push(op, &[self, k, v]),
        }
    }
    /// Attention on `text` dense tokens and a height × width grid: an image query sees the text and the keys within `radius`.
    #[allow(clippy::too_many_arguments)] // the operator's attributes
    #[track_caller]
    pub fn local_attention(
        &self,
        k: &Tensor,
        v: &Tensor,
        scale: f64,
        text: usize,
        grid: (usize, usize),
        radius: usize,
        shape: LocalKind,
    ) -> Tensor {
        let (height, width) = grid;
        self.graph().push(LocalAttention { scale: F64(scale), text, height, width, radius, shape }, &[self, k, v])
    }
    /// Rotates pairs of the last axis of [B,H,N,D] by tables [N,D]; `interleaved` pairs are neighbours.
    #[track_caller]
    pub fn rope(&self, cos: &Tensor, sin: &Tensor, interleaved: bool) -> Tensor {
        self.graph().push(Rope { interleaved }, &[self, cos, sin])
    }

    /// Cross-correlation of [N,C,spatial…] with a kernel [O,C/groups,size…].
    #[track_caller]
    pub fn conv(&self, kernel: &Tensor, options: &WindowOptions) -> Tensor {
        let Some(ty) = kernel.ty() else { return self.graph().poison() };
        let Some(size) = ty.shape.get().and_then(|s| s.get(2..).map(<[usize]>::to_vec)) else {
            return self.fail(
                Diagnostic::new("M1", format!("a kernel {ty} for {}", self.shape()))
                    .expected_found("[O,C/groups,size…]", &ty.shape),
            );
        };
        let kernel = kernel.unpacked();
        self.graph().push(options.window(WindowKind::Conv, &size), &[self, &kernel])
    }
    /// Σ over windows of [N,C,spatial…]; padding counts as 0.
    #[track_caller]
    pub fn sum_pool(&self, size: &[usize], options: &WindowOptions) -> Tensor {
        self.graph().push(options.window(WindowKind::Sum, size), &[self])
    }
    /// Mean over windows of [N,C,spatial…]; padding counts as 0 and is counted.
    #[track_caller]
    pub fn avg_pool(&self, size: &[usize], options: &WindowOptions) -> Tensor {
        self.sum_pool(size, options) / size.iter().product::<usize>() as f64
    }
    /// Largest over windows of [N,C,spatial…]; padding is left out.
    #[track_caller]
    pub fn max_pool(&self, size: &[usize], options: &WindowOptions) -> Tensor {
        self.graph().push(options.window(WindowKind::Max, size), &[self])
    }
    /// Resizes the spatial axes of [N,C,spatial…].
    #[track_caller]
    pub fn resize(&self, kind: ResizeKind, size: &[usize]) -> Tensor {
        self.graph().push(Resize { kind, size: size.to_vec() }, &[self])
    }
    /// Mean over blocks of a token grid: [B,height·width,C] to [B,(height/block)·(width/block),C].
    #[track_caller]
    pub fn pool_tokens(&self, grid: (usize, usize), block: usize) -> Tensor {
        self.graph().push(PoolTokens { height: grid.0, width: grid.1, block }, &[self])
    }
}
