//! Softmax and normalisations. Statistics are taken in f32 whatever the operand's dtype; the result is rounded once.
use super::composite::Emit;
use super::*;
use crate::dim::Dim;
use crate::func::{Builder, ValueId};
use crate::op::{Composite, TypeError};
use crate::scalar::{Binary, Unary};

impl Composite for Softmax {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let ty = b.ty(args[0]).clone();
        let extent = check::axis(1, &ty, self.axis)?;
        if extent.get() == Some(0) {
            return Err(TypeError::new(1, format!("axis {} of {ty} is empty", self.axis)));
        }
        check::float(1, "the operand", &ty)?;
        let mut e = Emit { b };
        let x = e.cast(args[0], DType::F32)?;
        let y = e.softmax(x, self.axis, None)?;
        e.cast(y, ty.dtype)
    }
}

/// The last axis, after the checks of C1.
fn last_axis(b: &Builder, args: &[ValueId]) -> Result<usize, TypeError> {
    let ty = b.ty(args[0]);
    check::float(1, "`x`", ty)?;
    let Some(axis) = ty.rank().checked_sub(1) else {
        return Err(TypeError::new(1, "`x` must have rank 1 at least").expected_found("an axis to normalise", ty));
    };
    channel_vectors(b, args, axis)?;
    Ok(axis)
}

/// Scale and bias are float vectors of the extent of `axis`.
fn channel_vectors(b: &Builder, args: &[ValueId], axis: usize) -> Result<(), TypeError> {
    let x = b.ty(args[0]);
    for (what, &id) in ["scale", "bias"].iter().zip(&args[1..]) {
        let ty = b.ty(id);
        check::float(1, what, ty)?;
        if ty.shape.0 != [x.shape.0[axis].clone()] {
            return Err(TypeError::new(1, format!("{what} must be a vector along axis {axis} of {x}"))
                .expected_found(format!("[{}]", x.shape.0[axis]), ty));
        }
    }
    Ok(())
}

/// x · factor (· scale (+ bias)) as one map, rounded to `dtype`; scale and bias run along `axis`.
fn scaled(
    e: &mut Emit,
    centred: ValueId,
    spread: ValueId,
    eps: F64,
    vectors: &[ValueId],
    axis: usize,
    dtype: DType,
) -> Result<ValueId, TypeError> {
    let shape = e.ty(centred).shape;
    let mut operands = vec![centred, spread];
    for &v in vectors {
        let v = e.cast(v, DType::F32)?;
        operands.push(e.broadcast(v, shape.clone(), vec![axis])?);
    }
    e.map(&operands, |b, a| {
        let eps = b.float(eps.0);
        let sum = b.binary(Binary::Add, a[1], eps);
        let factor = b.unary(Unary::Rsqrt, sum);
        let mut y = b.binary(Binary::Mul, a[0], factor);
        if let Some(&scale) = a.get(2) {
            y = b.binary(Binary::Mul, y, scale);
        }
        if let Some(&bias) = a.get(3) {
            y = b.binary(Binary::Add, y, bias);
        }
        if dtype == DType::F32 { y } else { b.cast(dtype, y) }
    })
}

/// x − mean and the mean of its square, both along `axis`.
fn centred(e: &mut Emit, x: ValueId, axis: usize) -> Result<(ValueId, ValueId), TypeError> {
    let mean = e.mean_kept(x, axis)?;
    let centred = e.put(Map { body: Body::binary(Binary::Sub) }, &[x, mean])?;
    Ok((centred, mean_square(e, centred, axis)?))
}

fn mean_square(e: &mut Emit, x: ValueId, axis: usize) -> Result<ValueId, TypeError> {
    let square = e.map(&[x], |b, a| b.binary(Binary::Mul, a[0], a[0]))?;
    e.mean_kept(square, axis)
}

impl Composite for LayerNorm {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let axis = last_axis(b, args)?;
        let dtype = b.ty(args[0]).dtype;
        let mut e = Emit { b };
        let x = e.cast(args[0], DType::F32)?;
        let (centred, variance) = centred(&mut e, x, axis)?;
        scaled(&mut e, centred, variance, self.eps, &args[1..], axis, dtype)
    }
}

impl Composite for RmsNorm {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let axis = last_axis(b, args)?;
        let dtype = b.ty(args[0]).dtype;
        let mut e = Emit { b };
        let x = e.cast(args[0], DType::F32)?;
        let spread = mean_square(&mut e, x, axis)?;
        scaled(&mut e, x, spread, self.eps, &args[1..], axis, dtype)
    }
}

impl Composite for GroupNorm {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let ty = b.ty(args[0]).clone();
        check::float(1, "`x`", &ty)?;
        if ty.rank() < 2 {
            return Err(TypeError::new(1, "`x` must have rank 2 at least").expected_found("[N, C, spatial…]", &ty));
        }
        let channels = &ty.shape.0[1];
        let groups = Dim::new(self.groups);
        let Some(per_group) = channels.div_exact(&groups) else {
            return Err(TypeError::new(1, "groups must divide the channels")
                .expected_found(format!("a divisor of {channels}"), self.groups));
        };
        channel_vectors(b, args, 1)?;
        let spatial = ty.shape.0[2..].iter().fold(per_group, |a, d| &a * d);
        let grouped = Shape(vec![ty.shape.0[0].clone(), groups, spatial]);
        let mut e = Emit { b };
        let x = e.cast(args[0], DType::F32)?;
        let x = e.reshape(x, grouped)?;
        let (centred, variance) = centred(&mut e, x, 2)?;
        let centred = e.reshape(centred, ty.shape.clone())?;
        let variance = e.reshape(variance, ty.shape.clone())?;
        scaled(&mut e, centred, variance, self.eps, &args[1..], 1, ty.dtype)
    }
}
