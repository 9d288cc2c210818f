//! Attention. Scores and softmax are f32 whatever the operands' dtype; the result is rounded once.
use super::composite::Emit;
use super::*;
use crate::dim::Dim;
use crate::func::{Builder, ValueId};
use crate::op::{Composite, TypeError};
use crate::scalar::{Binary, BodyBuilder, Scalar, ScalarId, Unary};

/// What a masked score is set to: finite, and its exponential is 0.
const MASKED: f64 = -1e30;

/// C1 of both attentions; returns [B,H,N,M].
fn scores_shape(b: &Builder, args: &[ValueId]) -> Result<Shape, TypeError> {
    let [q, k, v] = [b.ty(args[0]), b.ty(args[1]), b.ty(args[2])];
    for (what, ty) in [("q", q), ("k", k), ("v", v)] {
        check::rank(1, what, ty, 4)?;
        check::float(1, what, ty)?;
        if ty.dtype != q.dtype {
            return Err(TypeError::new(1, format!("{what} has another dtype than q")).expected_found(q.dtype, ty.dtype));
        }
    }
    let same = |what: &str, wanted: &Dim, found: &Dim| {
        if wanted == found {
            Ok(())
        } else {
            Err(TypeError::new(1, format!("{what} differ: q {q}, k {k}, v {v}")).expected_found(wanted, found))
        }
    };
    let (q, k, v) = (&q.shape.0, &k.shape.0, &v.shape.0);
    same("the batches of q and k", &q[0], &k[0])?;
    same("the batches of q and v", &q[0], &v[0])?;
    same("the heads of q and k", &q[1], &k[1])?;
    same("the heads of q and v", &q[1], &v[1])?;
    same("the head sizes of q and k", &q[3], &k[3])?;
    same("the numbers of keys and values", &k[2], &v[2])?;
    if k[2].get() == Some(0) {
        return Err(TypeError::new(1, "there are no keys").expected_found("at least 1", 0));
    }
    Ok(Shape(vec![q[0].clone(), q[1].clone(), q[2].clone(), k[2].clone()]))
}

fn contract(e: &mut Emit, spec: &str, a: ValueId, b: ValueId, dtype: DType) -> Result<ValueId, TypeError> {
    let spec = ContractSpec::parse(spec).expect("a literal spec");
    e.put(Contract { spec, dtype }, &[a, b])
}

fn scaled_scores(e: &mut Emit, q: ValueId, k: ValueId, scale: F64) -> Result<ValueId, TypeError> {
    let scores = contract(e, "bhnd,bhmd->bhnm", q, k, DType::F32)?;
    e.map(&[scores], |b, a| {
        let scale = b.float(scale.0);
        b.binary(Binary::Mul, a[0], scale)
    })
}

fn weighted(e: &mut Emit, weights: ValueId, v: ValueId) -> Result<ValueId, TypeError> {
    let dtype = e.ty(v).dtype;
    contract(e, "bhnm,bhmd->bhnd", weights, v, dtype)
}

/// Query and key indices of every score, as i32.
fn indices(e: &mut Emit, shape: &Shape) -> Result<[ValueId; 2], TypeError> {
    let ty = TensorType::new(DType::I32, shape.clone());
    Ok([e.put(Iota { axis: 2, ty: ty.clone() }, &[])?, e.put(Iota { axis: 3, ty }, &[])?])
}

fn masked(e: &mut Emit, scores: ValueId, keep: ValueId) -> Result<ValueId, TypeError> {
    e.map(&[scores, keep], |b, a| {
        let low = b.float(MASKED);
        b.select(a[1], a[0], low)
    })
}

impl Composite for Attention {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let shape = scores_shape(b, args)?;
        let mask = args.get(3).copied();
        if let Some(mask) = mask {
            check_mask(b.ty(mask), b.ty(args[0]).dtype, &shape)?;
        }
        let mut e = Emit { b };
        let mut scores = scaled_scores(&mut e, args[0], args[1], self.scale)?;
        // Where the mask is true; only a mask can leave a row with nothing kept, as query 0 sees key 0.
        let mut keep = None;
        if let Some(mask) = mask {
            let whole = e.broadcast(mask, shape.clone(), vec![0, 1, 2, 3])?;
            if e.ty(mask).dtype == DType::Bool {
                keep = Some(whole);
            } else {
                let whole = e.cast(whole, DType::F32)?;
                scores = e.put(Map { body: Body::binary(Binary::Add) }, &[scores, whole])?;
            }
        }
        if self.causal {
            let [i, j] = indices(&mut e, &shape)?;
            let seen = e.put(Map { body: Body::binary(Binary::Le) }, &[j, i])?;
            match keep {
                Some(mask) => keep = Some(e.put(Map { body: Body::binary(Binary::And) }, &[mask, seen])?),
                None => scores = masked(&mut e, scores, seen)?,
            }
        }
        if let Some(keep) = keep {
            scores = masked(&mut e, scores, keep)?;
        }
        let weights = e.softmax(scores, 3, keep)?;
        weighted(&mut e, weights, args[2])
    }
}

fn check_mask(mask: &TensorType, dtype: DType, shape: &Shape) -> Result<(), TypeError> {
    if mask.dtype != DType::Bool && mask.dtype != dtype {
        return Err(TypeError::new(2, "the mask must be bool or the operands' dtype")
            .expected_found(format!("bool or {dtype}"), mask.dtype));
    }
    check::rank(2, "the mask", mask, 4)?;
    if mask.shape.0.iter().zip(&shape.0).any(|(m, s)| m != s && !m.is_one()) {
        return Err(TypeError::new(2, "the mask does not broadcast to the scores").expected_found(shape, &mask.shape));
    }
    Ok(())
}

impl Composite for LocalAttention {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let shape = scores_shape(b, args)?;
        let tokens = self.height.checked_mul(self.width).and_then(|grid| grid.checked_add(self.text));
        let tokens = tokens.filter(|&t| i32::try_from(t).is_ok()).ok_or_else(|| {
            TypeError::new(1, format!("{} × {} + {} tokens are too many", self.height, self.width, self.text))
        })?;
        for (what, axis) in [("queries", 2), ("keys", 3)] {
            if shape.0[axis] != Dim::new(tokens) {
                return Err(TypeError::new(1, format!("the {what} must be text + height·width"))
                    .expected_found(tokens, &shape.0[axis]));
            }
        }
        let mut e = Emit { b };
        let scores = scaled_scores(&mut e, args[0], args[1], self.scale)?;
        let [i, j] = indices(&mut e, &shape)?;
        let keep = e.map(&[i, j], |b, a| self.seen(b, a[0], a[1]))?;
        let scores = masked(&mut e, scores, keep)?;
        // Every query sees itself unless the radius is 0.
        let rows_may_be_empty = self.text == 0 && self.radius == 0;
        let weights = e.softmax(scores, 3, rows_may_be_empty.then_some(keep))?;
        weighted(&mut e, weights, args[2])
    }
}

impl LocalAttention {
    /// Does query `i` see key `j`? A text token on either side, or a window distance within the radius.
    fn seen(&self, b: &mut BodyBuilder, i: ScalarId, j: ScalarId) -> ScalarId {
        let int = |b: &mut BodyBuilder, n: usize| b.add(Scalar::Int(i32::try_from(n).unwrap_or(i32::MAX)));
        let text = int(b, self.text);
        let width = int(b, self.width.max(1));
        let (pi, pj) = (b.binary(Binary::Sub, i, text), b.binary(Binary::Sub, j, text));
        let [dy, dx] = [Binary::Div, Binary::Rem].map(|op| {
            let (a, c) = (b.binary(op, pi, width), b.binary(op, pj, width));
            b.binary(Binary::Sub, a, c)
        });
        let near = match self.shape {
            LocalKind::Circle => {
                let (yy, xx) = (b.binary(Binary::Mul, dy, dy), b.binary(Binary::Mul, dx, dx));
                let distance = b.binary(Binary::Add, yy, xx);
                let limit = int(b, self.radius.saturating_mul(self.radius));
                b.binary(Binary::Lt, distance, limit)
            }
            LocalKind::Square => {
                let radius = int(b, self.radius);
                let (ay, ax) = (b.unary(Unary::Abs, dy), b.unary(Unary::Abs, dx));
                let (ny, nx) = (b.binary(Binary::Lt, ay, radius), b.binary(Binary::Lt, ax, radius));
                b.binary(Binary::And, ny, nx)
            }
        };
        if self.text == 0 {
            return near;
        }
        let (ti, tj) = (b.binary(Binary::Lt, i, text), b.binary(Binary::Lt, j, text));
        let dense = b.binary(Binary::Or, ti, tj);
        b.binary(Binary::Or, dense, near)
    }
}
