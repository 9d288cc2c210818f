//! Words that rules are written in.

use crate::saturate::{Classes, Id, Match, Refusal, Term};
use selvedge_ir::ops::{Broadcast, Map, Reduce, ReduceKind, Reshape, Transpose};
use selvedge_ir::scalar::{Binary, Body, Scalar, Unary};
use selvedge_ir::{DType, Op, Shape};

/// c of a body x ∘ c.
pub(super) fn literal(body: &Body, op: Binary) -> Option<f64> {
    match body.nodes() {
        [Scalar::Arg(0), Scalar::Float(c), Scalar::Binary(found, 0, 1)] if *found == op => Some(c.0),
        _ => None,
    }
}

/// c of a body c ∘ x.
pub(super) fn literal_first(body: &Body, op: Binary) -> Option<f64> {
    match body.nodes() {
        [Scalar::Float(c), Scalar::Arg(0), Scalar::Binary(found, 0, 1)] if *found == op => Some(c.0),
        _ => None,
    }
}

/// The literal of the bound body `name`, x ∘ c.
pub(super) fn number(m: &Match, name: &str, op: Binary) -> Result<f64, Refusal> {
    literal(&m.attr::<Body>(name), op).ok_or_else(|| format!("not {} by a number", op.text()).into())
}

/// The law is about reals: maps of f16 and bf16 round in between, integers wrap.
pub(super) fn in_f32(m: &Match) -> Result<(), Refusal> {
    if m.root_ty().dtype == DType::F32 { Ok(()) } else { Err("not computed in f32".into()) }
}

/// A map of a body.
pub(super) fn map<const N: usize>(body: Body, args: [Term; N]) -> Term {
    Term::op(Map { body }, args)
}

/// One primitive of one argument.
pub(super) fn unary(op: Unary, x: Term) -> Term {
    map(Body::unary(op), [x])
}

/// One primitive of two arguments.
pub(super) fn binary(op: Binary, x: Term, y: Term) -> Term {
    map(Body::binary(op), [x, y])
}

/// x ∘ c.
pub(super) fn by(op: Binary, x: Term, c: f64) -> Term {
    let body = Body::build(1, |b| {
        let (x, c) = (b.arg(0), b.float(c));
        b.binary(op, x, c)
    });
    map(body, [x])
}

/// x · x.
pub(super) fn square(x: Term) -> Term {
    let body = Body::build(1, |b| {
        let x = b.arg(0);
        b.binary(Binary::Mul, x, x)
    });
    map(body, [x])
}

/// Σ over axes.
pub(super) fn sum(axes: &[usize], x: Term) -> Term {
    Term::op(Reduce { kind: ReduceKind::Sum, axes: axes.to_vec() }, [x])
}

/// A broadcast with the bound attributes `shape` and `axes`.
pub(super) fn repeated(m: &Match, shape: &str, axes: &str, x: Term) -> Term {
    Term::op(Broadcast { shape: m.attr(shape), axes: m.attr(axes) }, [x])
}

/// The axes of a rank that are not in the list.
pub(super) fn others(axes: &[usize], rank: usize) -> Vec<usize> {
    (0..rank).filter(|a| !axes.contains(a)).collect()
}

/// True if a multiplication by `c` divides by `n`: as an f64, or as the f32 that a program in f32 would hold.
pub(super) fn divides_by(c: f64, n: usize) -> bool {
    let exact = 1.0 / n as f64;
    n > 0 && (c == exact || c == f64::from(exact as f32))
}

/// A term whose extents are known: views that change nothing are left out.
#[derive(Clone)]
pub(super) struct Viewed {
    pub(super) term: Term,
    pub(super) sizes: Vec<usize>,
}

impl Viewed {
    pub(super) fn new(m: &Match, name: &str) -> Viewed {
        Viewed { term: m.term(name), sizes: m.sizes(name) }
    }
    pub(super) fn of(classes: Classes, id: Id) -> Viewed {
        Viewed { term: Term::Class(id), sizes: classes.ty(id).shape.sizes() }
    }
    pub(super) fn transpose(self, perm: &[usize]) -> Viewed {
        if perm.iter().copied().eq(0..perm.len()) {
            return self;
        }
        let sizes = perm.iter().map(|&p| self.sizes[p]).collect();
        Viewed { term: Term::op(Transpose { perm: perm.to_vec() }, [self.term]), sizes }
    }
    pub(super) fn reshape(self, sizes: &[usize]) -> Viewed {
        if self.sizes == sizes {
            return self;
        }
        Viewed { term: Term::op(Reshape { shape: Shape::new(sizes) }, [self.term]), sizes: sizes.to_vec() }
    }
    pub(super) fn broadcast(self, sizes: &[usize], axes: &[usize]) -> Viewed {
        if self.sizes == sizes {
            return self;
        }
        let view = Broadcast { shape: Shape::new(sizes), axes: axes.to_vec() };
        Viewed { term: Term::op(view, [self.term]), sizes: sizes.to_vec() }
    }
}

/// The first operator of a class that the closure takes, with what it makes of it.
pub(super) fn find<T>(classes: Classes, id: Id, mut f: impl FnMut(&Op, &[Id]) -> Option<T>) -> Option<T> {
    classes.ops(id).find_map(|(op, args)| f(&op, args))
}
