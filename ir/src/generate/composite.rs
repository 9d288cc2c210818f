//! Random composites on what is there.
use super::body::TAME;
use super::emit::{Emit, Fact};
use crate::dtype::DType;
use crate::func::ValueId;
use crate::ops::*;
use crate::scalar::F64;
use crate::shape::{Shape, TensorType};

/// Large, as rows may be constant.
const EPS: F64 = F64(1e-2);
/// Normalised values.
const SMALL: Fact = Fact { bound: TAME, exact: false };

impl Emit<'_> {
    /// A float that is not empty, of a rank in low..=high.
    fn float(&mut self, low: usize, high: usize) -> Option<ValueId> {
        self.find(|t, _| {
            t.dtype.is_float() && (low..=high).contains(&t.rank()) && !t.shape.0.iter().any(|d| d.get() == Some(0))
        })
    }
    fn sizes(&self, x: ValueId) -> Vec<usize> {
        self.ty(x).shape.sizes()
    }
    fn float_type(&mut self, dims: &[usize]) -> TensorType {
        let dtype = *self.rng.pick(&[DType::F32, DType::F32, DType::F16, DType::BF16]);
        TensorType { dtype, shape: Shape::new(dims) }
    }
    /// `x`, then scale and bias as far as there is luck, at most `most` vectors.
    fn with_vectors(&mut self, x: ValueId, channels: usize, most: usize) -> Vec<ValueId> {
        let mut args = vec![x];
        for _ in 0..self.rng.between(0, most) {
            args.push(self.leaf_like(&TensorType::new(DType::F32, [channels])));
        }
        args
    }
    pub(super) fn softmax(&mut self) -> Option<ValueId> {
        let x = self.float(1, 6)?;
        let axis = self.rng.below(self.ty(x).rank());
        self.push(Softmax { axis }.into(), &[x], SMALL)
    }
    pub(super) fn layer_norm(&mut self) -> Option<ValueId> {
        let x = self.float(1, 6)?;
        let args = self.with_vectors(x, *self.sizes(x).last()?, 2);
        self.push(LayerNorm { eps: EPS }.into(), &args, SMALL)
    }
    pub(super) fn rms_norm(&mut self) -> Option<ValueId> {
        let x = self.float(1, 6)?;
        let args = self.with_vectors(x, *self.sizes(x).last()?, 1);
        self.push(RmsNorm { eps: EPS }.into(), &args, SMALL)
    }
    pub(super) fn group_norm(&mut self) -> Option<ValueId> {
        let x = self.float(2, 6)?;
        let channels = self.sizes(x)[1];
        let divisors: Vec<usize> = (1..=channels).filter(|g| channels.is_multiple_of(*g)).collect();
        let groups = *self.rng.pick(&divisors);
        let args = self.with_vectors(x, channels, 2);
        self.push(GroupNorm { groups, eps: EPS }.into(), &args, SMALL)
    }
    pub(super) fn attention(&mut self) -> Option<ValueId> {
        let [batch, heads, n, m, size, values] = [(); 6].map(|()| self.rng.between(1, 4));
        let q = self.float_type(&[batch, heads, n, size]);
        let of = |dims: &[usize]| TensorType { dtype: q.dtype, shape: Shape::new(dims) };
        let mut args =
            vec![self.like(&q), self.like(&of(&[batch, heads, m, size])), self.like(&of(&[batch, heads, m, values]))];
        if self.rng.chance(0.5) {
            let shape = [batch, heads, n, m].map(|d| if self.rng.chance(0.3) { 1 } else { d });
            let dtype = if self.rng.chance(0.5) { DType::Bool } else { q.dtype };
            args.push(self.like(&TensorType { dtype, shape: Shape::new(&shape) }));
        }
        let causal = self.rng.chance(0.3);
        let bound = self.fact(args[2]).bound;
        self.push(Attention { scale: F64(0.25), causal }.into(), &args, Fact { bound, exact: false })
    }
    pub(super) fn local_attention(&mut self) -> Option<ValueId> {
        let [heads, height, width, size] = [(); 4].map(|()| self.rng.between(1, 3));
        let text = self.rng.between(0, 2);
        let ty = self.float_type(&[1, heads, text + height * width, size]);
        let args = [(); 3].map(|()| self.like(&ty));
        let shape = *self.rng.pick(LocalKind::ALL);
        let radius = self.rng.between(0, 3);
        let bound = self.fact(args[2]).bound;
        let op = LocalAttention { scale: F64(0.5), text, height, width, radius, shape };
        self.push(op.into(), &args, Fact { bound, exact: false })
    }
    pub(super) fn rope(&mut self) -> Option<ValueId> {
        let [batch, heads, n, half] = [(); 4].map(|()| self.rng.between(1, 3));
        let ty = self.float_type(&[batch, heads, n, 2 * half]);
        let x = self.like(&ty);
        let table = TensorType { dtype: ty.dtype, shape: Shape::new(&[n, 2 * half]) };
        let (cos, sin) = (self.leaf_like(&table), self.leaf_like(&table));
        let bound = 4.0 * self.fact(x).bound;
        let interleaved = self.rng.chance(0.5);
        self.push(Rope { interleaved }.into(), &[x, cos, sin], Fact { bound, exact: false })
    }
    pub(super) fn pool_tokens(&mut self) -> Option<ValueId> {
        let [batch, rows, columns, channels] = [(); 4].map(|()| self.rng.between(1, 3));
        let block = self.rng.between(1, 2);
        let (height, width) = (rows * block, columns * block);
        let ty = self.float_type(&[batch, height * width, channels]);
        let x = self.like(&ty);
        let fact = Fact { exact: false, ..self.fact(x) };
        self.push(PoolTokens { height, width, block }.into(), &[x], fact)
    }
    pub(super) fn resize(&mut self) -> Option<ValueId> {
        let x = self.float(3, 4)?;
        let size = (2..self.ty(x).rank()).map(|_| self.rng.between(1, 5)).collect();
        let kind = *self.rng.pick(ResizeKind::ALL);
        let exact = self.fact(x).exact && kind == ResizeKind::Nearest;
        let fact = Fact { exact, ..self.fact(x) };
        self.push(Resize { kind, size }.into(), &[x], fact)
    }
}
