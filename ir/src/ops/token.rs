//! Rotary embedding, token pooling and resizing.
use super::composite::{Emit, known};
use super::*;
use crate::dim::Dim;
use crate::func::{Builder, ValueId};
use crate::op::{Composite, TypeError};
use crate::scalar::{Binary, Unary};
use crate::tensor::Tensor;

impl Composite for Rope {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let ty = b.ty(args[0]).clone();
        check::rank(1, "`x`", &ty, 4)?;
        check::float(1, "`x`", &ty)?;
        let size = known(1, "the head size", &ty.shape.0[3])?;
        if size % 2 != 0 {
            return Err(TypeError::new(1, "the head size must be even").expected_found("pairs", size));
        }
        let table = TensorType { dtype: ty.dtype, shape: Shape(ty.shape.0[2..].to_vec()) };
        for (what, id) in [("cos", args[1]), ("sin", args[2])] {
            if *b.ty(id) != table {
                return Err(TypeError::new(1, format!("{what} does not fit x {ty}")).expected_found(&table, b.ty(id)));
            }
        }
        let mut e = Emit { b };
        let x = args[0];
        let turned = if self.interleaved {
            let mut pairs = ty.shape.clone();
            pairs.0[3] = Dim::new(size / 2);
            pairs.0.push(Dim::new(2));
            let split = e.reshape(x, pairs)?;
            let swapped = swapped(&mut e, split, 4, 1)?;
            e.reshape(swapped, ty.shape.clone())?
        } else {
            swapped(&mut e, x, 3, size / 2)?
        };
        let cos = e.broadcast(args[1], ty.shape.clone(), vec![2, 3])?;
        let sin = e.broadcast(args[2], ty.shape.clone(), vec![2, 3])?;
        e.map(&[x, turned, cos, sin], |b, a| {
            let (xc, rs) = (b.binary(Binary::Mul, a[0], a[2]), b.binary(Binary::Mul, a[1], a[3]));
            b.binary(Binary::Add, xc, rs)
        })
    }
}

/// (first, second) half of an axis to (−second, first).
fn swapped(e: &mut Emit, x: ValueId, axis: usize, half: usize) -> Result<ValueId, TypeError> {
    let first = e.slice(x, axis, 0, half)?;
    let second = e.slice(x, axis, half, 2 * half)?;
    let negated = e.put(Map { body: Body::unary(Unary::Neg) }, &[second])?;
    e.put(Concat { axis }, &[negated, first])
}

impl Composite for PoolTokens {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let ty = b.ty(args[0]).clone();
        check::rank(1, "`x`", &ty, 3)?;
        check::float(1, "`x`", &ty)?;
        let block = self.block;
        if block == 0 || !self.height.is_multiple_of(block) || !self.width.is_multiple_of(block) {
            return Err(TypeError::new(1, "the block must divide both sides of the grid")
                .expected_found(format!("a divisor of {} and {}", self.height, self.width), block));
        }
        let tokens = self.height.saturating_mul(self.width);
        if ty.shape.0[1].get() != Some(tokens) {
            return Err(TypeError::new(1, "the tokens do not fill the grid").expected_found(tokens, &ty.shape.0[1]));
        }
        let (batch, channels) = (ty.shape.0[0].clone(), ty.shape.0[2].clone());
        let (rows, columns) = (self.height / block, self.width / block);
        let [r, s, c] = [rows, block, columns].map(Dim::new);
        let mut e = Emit { b };
        let x = e.cast(args[0], DType::F32)?;
        let blocks = e.reshape(x, Shape(vec![batch.clone(), r, s.clone(), c, s, channels.clone()]))?;
        let sum = e.reduce(ReduceKind::Sum, blocks, &[2, 4])?;
        let mean = e.divide(sum, block * block)?;
        let mean = e.reshape(mean, Shape(vec![batch, Dim::new(rows * columns), channels]))?;
        e.cast(mean, ty.dtype)
    }
}

/// Largest extent of `resize`: its expansion holds a table of indices for each axis.
const LARGEST_RESIZED: usize = 1 << 16;

impl Composite for Resize {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let ty = b.ty(args[0]).clone();
        check::rank(1, "`x`", &ty, self.size.len() + 2)?;
        check::float(1, "`x`", &ty)?;
        let Some(sizes) = ty.shape.get() else {
            return Err(TypeError::new(1, "resize takes shapes without symbols").expected_found("numbers", &ty.shape));
        };
        if sizes.contains(&0) || self.size.contains(&0) {
            return Err(TypeError::new(1, "no extent may be 0").expected_found("positive extents", &ty.shape));
        }
        if let Some(n) = sizes[2..].iter().chain(&self.size).find(|&&n| n > LARGEST_RESIZED) {
            return Err(TypeError::new(1, "an extent is too large to resize")
                .expected_found(format!("at most {LARGEST_RESIZED}"), n));
        }
        let mut e = Emit { b };
        let linear = self.kind == ResizeKind::Linear;
        let mut y = if linear { e.cast(args[0], DType::F32)? } else { args[0] };
        for (i, &to) in self.size.iter().enumerate() {
            let (axis, from) = (i + 2, sizes[i + 2]);
            if from == to {
                continue;
            }
            y = match self.kind {
                ResizeKind::Nearest => pick(&mut e, y, axis, (0..to).map(|o| o * from / to).collect())?,
                ResizeKind::Linear => lerp(&mut e, y, axis, from, to)?,
            };
        }
        e.cast(y, ty.dtype)
    }
}

/// Elements of an axis by constant indices.
fn pick(e: &mut Emit, x: ValueId, axis: usize, indices: Vec<usize>) -> Result<ValueId, TypeError> {
    let indices = e.constant(&Tensor::i32(&[indices.len()], indices.into_iter().map(|i| i as i32).collect()))?;
    e.put(Gather { axis, batch: 0 }, &[x, indices])
}

/// Linear interpolation along one axis: half-pixel centres, clamped at the edges.
fn lerp(e: &mut Emit, x: ValueId, axis: usize, from: usize, to: usize) -> Result<ValueId, TypeError> {
    let source = |o: usize| ((o as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, (from - 1) as f64);
    let low: Vec<usize> = (0..to).map(|o| source(o) as usize).collect();
    let high = low.iter().map(|&i| (i + 1).min(from - 1)).collect();
    let part: Vec<f32> = (0..to).map(|o| (source(o) - low[o] as f64) as f32).collect();
    let a = pick(e, x, axis, low)?;
    let b = pick(e, x, axis, high)?;
    let part = e.constant(&Tensor::f32(&[to], part))?;
    let part = e.broadcast(part, e.ty(a).shape, vec![axis])?;
    // (1 − t)·a + t·b gives a itself at t = 0.
    e.map(&[a, b, part], |s, v| {
        let one = s.float(1.0);
        let rest = s.binary(Binary::Sub, one, v[2]);
        let (low, high) = (s.binary(Binary::Mul, rest, v[0]), s.binary(Binary::Mul, v[2], v[1]));
        s.binary(Binary::Add, low, high)
    })
}
