//! Mistakes that could be in a rule: one change of what its right side gives.

use selvedge_ir::ops::{Broadcast, Map, Reduce, ReduceKind, Transpose};
use selvedge_ir::scalar::{Binary, Body, F64, Scalar};
use selvedge_ir::spec::ContractSpec;
use selvedge_ir::{Op, ops::Concat};
use selvedge_passes::saturate::{Match, Term};

/// A kind of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Two axes of equal extent are swapped: the type does not show it.
    SwapSquareAxes,
    /// A mask, a bias or a scale is dropped.
    DropOperand,
    /// The operands are given in another order.
    SwapOperands,
    /// eps is forgotten.
    ForgetEps,
    /// A number is another.
    WrongNumber,
    /// Another axis is reduced or normalised.
    WrongAxis,
    /// A sum becomes a maximum, an addition a subtraction.
    WrongOperation,
    /// `causal` is left out, or put in.
    FlipCausal,
    /// The result is an operand: the operator is dropped.
    DropOperator,
}

impl Mistake {
    pub const ALL: [Mistake; 9] = [
        Mistake::SwapSquareAxes,
        Mistake::DropOperand,
        Mistake::SwapOperands,
        Mistake::ForgetEps,
        Mistake::WrongNumber,
        Mistake::WrongAxis,
        Mistake::WrongOperation,
        Mistake::FlipCausal,
        Mistake::DropOperator,
    ];
}

/// The term with the mistake at the first place where it gives a term of the right type, or the term itself.
pub fn mutate(m: &Match, term: Term, mistake: Mistake) -> Term {
    let fits = |t: &Term| t.infer(m.classes).is_ok_and(|ty| ty == *m.root_ty());
    variants(m, &term, mistake).into_iter().find(|t| *t != term && fits(t)).unwrap_or(term)
}

/// Every term that differs by one mistake.
fn variants(m: &Match, term: &Term, mistake: Mistake) -> Vec<Term> {
    let mut all = Vec::new();
    if mistake == Mistake::SwapSquareAxes
        && let Ok(ty) = term.infer(m.classes)
    {
        let sizes = ty.shape.sizes();
        for i in 1..sizes.len() {
            for j in 0..i {
                if sizes[i] == sizes[j] && sizes[i] > 1 {
                    let mut perm: Vec<usize> = (0..sizes.len()).collect();
                    perm.swap(i, j);
                    all.push(Term::op(Transpose { perm }, [term.clone()]));
                }
            }
        }
    }
    let Term::Op(op, args) = term else { return all };
    match mistake {
        Mistake::DropOperand => {
            let least = selvedge_ir::op::arity(op.kind().operands()).0;
            all.extend((least..args.len()).rev().map(|n| Term::op((**op).clone(), &args[..n])));
        }
        Mistake::SwapOperands => {
            let commutes = |b: &Body| Binary::ALL.iter().any(|op| op.commutes() && *b == Body::binary(*op));
            let order_matters = !matches!(&**op, Op::Map(map) if commutes(&map.body));
            for i in (1..args.len()).filter(|_| order_matters) {
                let mut swapped = args.clone();
                swapped.swap(i - 1, i);
                all.push(Term::op((**op).clone(), swapped));
            }
        }
        Mistake::DropOperator => all.extend(args.iter().cloned()),
        _ => all.extend(changed(op, mistake).into_iter().map(|op| Term::op(op, args.clone()))),
    }
    for (i, arg) in args.iter().enumerate() {
        for variant in variants(m, arg, mistake) {
            let mut args = args.clone();
            args[i] = variant;
            all.push(Term::op((**op).clone(), args));
        }
    }
    all
}

/// The operator with another attribute.
fn changed(op: &Op, mistake: Mistake) -> Vec<Op> {
    let wrong = |eps: F64| F64(eps.0 + 0.5);
    match (op.clone(), mistake) {
        (Op::RmsNorm(mut n), Mistake::ForgetEps) => {
            n.eps = F64(0.0);
            vec![n.into()]
        }
        (Op::LayerNorm(mut n), Mistake::ForgetEps) => {
            n.eps = F64(0.0);
            vec![n.into()]
        }
        (Op::GroupNorm(mut n), Mistake::ForgetEps) => {
            n.eps = F64(0.0);
            vec![n.into()]
        }
        (Op::GroupNorm(mut n), Mistake::WrongAxis) => {
            n.groups = if n.groups == 1 { 2 } else { 1 };
            vec![n.into()]
        }
        (Op::Attention(mut a), Mistake::WrongNumber) => {
            a.scale = wrong(a.scale);
            vec![a.into()]
        }
        (Op::Attention(mut a), Mistake::FlipCausal) => {
            a.causal = !a.causal;
            vec![a.into()]
        }
        (Op::Map(map), Mistake::WrongNumber) => body(&map.body, |node| match node {
            Scalar::Float(c) => Some(Scalar::Float(wrong(c))),
            _ => None,
        }),
        (Op::Map(map), Mistake::WrongOperation) => body(&map.body, |node| match node {
            Scalar::Binary(Binary::Add, x, y) => Some(Scalar::Binary(Binary::Sub, x, y)),
            Scalar::Binary(Binary::Sub, x, y) => Some(Scalar::Binary(Binary::Add, x, y)),
            Scalar::Binary(Binary::Mul, x, y) => Some(Scalar::Binary(Binary::Add, x, y)),
            Scalar::Binary(Binary::Div, x, y) => Some(Scalar::Binary(Binary::Mul, x, y)),
            _ => None,
        }),
        (Op::Reduce(r), Mistake::WrongOperation) => {
            let kind = if r.kind == ReduceKind::Sum { ReduceKind::Max } else { ReduceKind::Sum };
            vec![Reduce { kind, ..r }.into()]
        }
        (Op::Reduce(r), Mistake::WrongAxis) => (0..4).map(|a| Reduce { axes: vec![a], ..r.clone() }.into()).collect(),
        (Op::Softmax(s), Mistake::WrongAxis) => {
            (0..5).filter(|a| *a != s.axis).map(|axis| selvedge_ir::ops::Softmax { axis }.into()).collect()
        }
        (Op::Broadcast(b), Mistake::WrongAxis) => {
            let rank = b.shape.rank();
            (0..1u32 << rank)
                .map(|set| (0..rank).filter(|i| set >> i & 1 == 1).collect::<Vec<usize>>())
                .filter(|axes| axes.len() == b.axes.len() && *axes != b.axes)
                .map(|axes| Broadcast { shape: b.shape.clone(), axes }.into())
                .collect()
        }
        (Op::Transpose(t), Mistake::WrongAxis) => {
            let mut perm = t.perm.clone();
            perm.reverse();
            vec![Transpose { perm }.into()]
        }
        (Op::Concat(c), Mistake::WrongAxis) => {
            (0..4).filter(|a| *a != c.axis).map(|axis| Concat { axis }.into()).collect()
        }
        (Op::Slice(mut s), Mistake::WrongNumber) => {
            s.start.iter_mut().for_each(|x| *x = x.saturating_sub(1));
            s.end.iter_mut().for_each(|x| *x = x.saturating_sub(1));
            vec![s.into()]
        }
        (Op::Contract(c), Mistake::WrongAxis) => {
            let mut all = Vec::new();
            for which in 0..3 {
                let length = [&c.spec.a, &c.spec.b, &c.spec.out][which].len();
                for i in 1..length {
                    let (mut a, mut b, mut out) = (c.spec.a.clone(), c.spec.b.clone(), c.spec.out.clone());
                    [&mut a, &mut b, &mut out][which].swap(i - 1, i);
                    if let Ok(spec) = ContractSpec::new(&a, &b, &out) {
                        all.push(selvedge_ir::ops::Contract { spec, dtype: c.dtype }.into());
                    }
                }
            }
            all
        }
        _ => Vec::new(),
    }
}

fn body(body: &Body, change: impl Fn(Scalar) -> Option<Scalar>) -> Vec<Op> {
    let mut all = Vec::new();
    for at in 0..body.nodes().len() {
        let Some(new) = change(body.nodes()[at]) else { continue };
        let changed = Body::build(body.arity(), |b| {
            let mut ids: Vec<u32> = Vec::new();
            for (i, node) in body.nodes().iter().enumerate() {
                let node = if i == at { new } else { *node };
                let id = |c: u32| ids[c as usize];
                let moved = match node {
                    Scalar::Unary(op, x) => Scalar::Unary(op, id(x)),
                    Scalar::Binary(op, x, y) => Scalar::Binary(op, id(x), id(y)),
                    Scalar::Select(c, x, y) => Scalar::Select(id(c), id(x), id(y)),
                    Scalar::Cast(to, x) => Scalar::Cast(to, id(x)),
                    Scalar::Bits(to, x) => Scalar::Bits(to, id(x)),
                    leaf => leaf,
                };
                ids.push(b.add(moved));
            }
            *ids.last().expect("a body has a result")
        });
        all.push(Map { body: changed }.into());
    }
    all
}
