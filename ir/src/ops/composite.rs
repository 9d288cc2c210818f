//! Composites: each is its expansion. Here are the driver and the words that expansions are written in.
use super::*;
use crate::dim::Dim;
use crate::func::{Builder, Function, ValueId};
use crate::interp::{self, Precision, Reference};
use crate::op::{Composite, TypeError};
use crate::scalar::{Binary, BodyBuilder, ScalarId};
use crate::tensor::Tensor;

impl<T: Composite> Operator for T {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let function = expanded(self, args)?;
        Ok(function.ty(function.returns[0].value).clone())
    }
    fn eval(&self, args: &[&Tensor], _: &TensorType, precision: Precision) -> Tensor {
        let types: Vec<&TensorType> = args.iter().map(|a| &a.ty).collect();
        let function = expanded(self, &types).expect("the operands' types were inferred from");
        interp::evaluate_pure(&function, args, precision, &Reference)
    }
}

/// The expansion as a function of one output, `y`; its parameters are `a0`, `a1` …
fn expanded(op: &dyn Composite, args: &[&TensorType]) -> Result<Function, TypeError> {
    let mut b = Builder::new("expansion");
    let ids: Vec<ValueId> = args.iter().enumerate().map(|(i, ty)| b.input(format!("a{i}"), (*ty).clone())).collect();
    let result = op.expand(&mut b, &ids)?;
    b.output("y", result);
    Ok(b.finish())
}

impl Op {
    /// The composite behind this operator; `None` for the core.
    fn as_composite(&self) -> Option<&dyn Composite> {
        match self {
            Op::Softmax(op) => Some(op),
            Op::LayerNorm(op) => Some(op),
            Op::RmsNorm(op) => Some(op),
            Op::GroupNorm(op) => Some(op),
            Op::Attention(op) => Some(op),
            Op::LocalAttention(op) => Some(op),
            Op::Rope(op) => Some(op),
            Op::PoolTokens(op) => Some(op),
            Op::Resize(op) => Some(op),
            Op::Input(_)
            | Op::Weight(_)
            | Op::State(_)
            | Op::Const(_)
            | Op::Iota(_)
            | Op::Map(_)
            | Op::Reduce(_)
            | Op::Contract(_)
            | Op::Window(_)
            | Op::Scan(_)
            | Op::Transpose(_)
            | Op::Reshape(_)
            | Op::Broadcast(_)
            | Op::Slice(_)
            | Op::Pad(_)
            | Op::Concat(_)
            | Op::Gather(_)
            | Op::Scatter(_)
            | Op::Topk(_) => None,
        }
    }
    /// Emits a composite's expansion into `b`; `None` for a core operator.
    ///
    /// # Errors
    /// The violated constraint of the composite.
    pub fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Option<Result<ValueId, TypeError>> {
        self.as_composite().map(|op| op.expand(b, args))
    }
    /// A composite's expansion as a function of its operands (one output, `y`); `None` for a core operator.
    ///
    /// # Errors
    /// The violated constraint of the composite.
    pub fn expansion(&self, args: &[&TensorType]) -> Option<Result<Function, TypeError>> {
        self.as_composite().map(|op| expanded(op, args))
    }
}

/// The words of expansions. Their checks were made before by the composite, so an error here is reported as its C1.
pub(super) struct Emit<'a> {
    pub(super) b: &'a mut Builder,
}

impl Emit<'_> {
    pub(super) fn ty(&self, x: ValueId) -> TensorType {
        self.b.ty(x).clone()
    }
    pub(super) fn put(&mut self, op: impl Into<Op>, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let op = op.into();
        let name = op.kind().text();
        self.b.push(op, args).map_err(|e| TypeError {
            constraint: 1,
            message: format!("in the expansion, {name} C{}: {}", e.constraint, e.message),
            ..e
        })
    }
    /// A map; the closure writes the body for arguments `ids[0..args.len()]`.
    pub(super) fn map(
        &mut self,
        args: &[ValueId],
        body: impl FnOnce(&mut BodyBuilder, &[ScalarId]) -> ScalarId,
    ) -> Result<ValueId, TypeError> {
        let body = Body::build(args.len(), |b| {
            let ids: Vec<ScalarId> = (0..args.len()).map(|i| b.arg(i)).collect();
            body(b, &ids)
        });
        self.put(Map { body }, args)
    }
    /// A cast, left out if nothing changes.
    pub(super) fn cast(&mut self, x: ValueId, dtype: DType) -> Result<ValueId, TypeError> {
        if self.b.ty(x).dtype == dtype { Ok(x) } else { self.put(Map { body: Body::cast(dtype) }, &[x]) }
    }
    pub(super) fn reduce(&mut self, kind: ReduceKind, x: ValueId, axes: &[usize]) -> Result<ValueId, TypeError> {
        self.put(Reduce { kind, axes: axes.to_vec() }, &[x])
    }
    /// Reduces one axis and repeats the result along it.
    pub(super) fn reduce_kept(&mut self, kind: ReduceKind, x: ValueId, axis: usize) -> Result<ValueId, TypeError> {
        let shape = self.ty(x).shape;
        let reduced = self.reduce(kind, x, &[axis])?;
        let axes = (0..shape.rank()).filter(|&a| a != axis).collect();
        self.broadcast(reduced, shape, axes)
    }
    pub(super) fn broadcast(&mut self, x: ValueId, shape: Shape, axes: Vec<usize>) -> Result<ValueId, TypeError> {
        if self.b.ty(x).shape == shape { Ok(x) } else { self.put(Broadcast { shape, axes }, &[x]) }
    }
    pub(super) fn reshape(&mut self, x: ValueId, shape: Shape) -> Result<ValueId, TypeError> {
        if self.b.ty(x).shape == shape { Ok(x) } else { self.put(Reshape { shape }, &[x]) }
    }
    /// Elements start..end of one axis.
    pub(super) fn slice(&mut self, x: ValueId, axis: usize, start: usize, end: usize) -> Result<ValueId, TypeError> {
        let slice = Slice::of_axis(&self.ty(x), axis, start, end);
        self.put(slice, &[x])
    }
    /// An f32 (or i32) constant.
    pub(super) fn constant(&mut self, tensor: &Tensor) -> Result<ValueId, TypeError> {
        self.put(Const { data: Literal::from(tensor), ty: tensor.ty.clone() }, &[])
    }
    /// The mean along one axis, repeated along it: Σx / n.
    pub(super) fn mean_kept(&mut self, x: ValueId, axis: usize) -> Result<ValueId, TypeError> {
        let ty = self.ty(x);
        let axes: Vec<usize> = (0..ty.rank()).filter(|&a| a != axis).collect();
        let sum = self.reduce(ReduceKind::Sum, x, &[axis])?;
        let mean = match ty.shape.0[axis].get() {
            Some(n) => self.divide(sum, n)?,
            None => {
                // The extent is a symbol: counted by a sum of ones, so that the type is known already.
                let one = self.constant(&Tensor::f32(&[], vec![1.0]))?;
                let ones = self.broadcast(one, Shape(vec![ty.shape.0[axis].clone()]), Vec::new())?;
                let count = self.reduce(ReduceKind::Sum, ones, &[0])?;
                let count = self.broadcast(count, self.ty(sum).shape, Vec::new())?;
                self.put(Map { body: Body::binary(Binary::Div) }, &[sum, count])?
            }
        };
        self.broadcast(mean, ty.shape, axes)
    }
    /// x / n.
    pub(super) fn divide(&mut self, x: ValueId, n: usize) -> Result<ValueId, TypeError> {
        self.map(&[x], |b, a| {
            let n = b.float(n as f64);
            b.binary(Binary::Div, a[0], n)
        })
    }
    /// eˣ / Σ eˣ along an axis, from x − max, in f32. With `keep`, the rest counts as 0, and a row with nothing
    /// kept gives 0.
    pub(super) fn softmax(&mut self, x: ValueId, axis: usize, keep: Option<ValueId>) -> Result<ValueId, TypeError> {
        use crate::scalar::Unary;
        let max = self.reduce_kept(ReduceKind::Max, x, axis)?;
        let Some(keep) = keep else {
            let e = self.map(&[x, max], |b, a| {
                let d = b.binary(Binary::Sub, a[0], a[1]);
                b.unary(Unary::Exp, d)
            })?;
            let sum = self.reduce_kept(ReduceKind::Sum, e, axis)?;
            return self.put(Map { body: Body::binary(Binary::Div) }, &[e, sum]);
        };
        let e = self.map(&[x, max, keep], |b, a| {
            let d = b.binary(Binary::Sub, a[0], a[1]);
            let e = b.unary(Unary::Exp, d);
            let zero = b.float(0.0);
            b.select(a[2], e, zero)
        })?;
        let sum = self.reduce_kept(ReduceKind::Sum, e, axis)?;
        // A row that keeps anything sums to at least e⁰ = 1.
        self.map(&[e, sum], |b, a| {
            let one = b.float(1.0);
            let sum = b.binary(Binary::Max, a[1], one);
            b.binary(Binary::Div, a[0], sum)
        })
    }
}

/// The extent of an axis as a number.
pub(super) fn known(constraint: u32, what: &str, dim: &Dim) -> Result<usize, TypeError> {
    dim.get()
        .ok_or_else(|| TypeError::new(constraint, format!("{what} must be a number")).expected_found("a number", dim))
}
