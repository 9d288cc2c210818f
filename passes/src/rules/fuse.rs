//! Casts: taken into the operators that widen and round anyway. No law here leaves out a rounding but the last two,
//! which say so.

use super::layout::variadic;
use super::words::find;
use crate::saturate::{Classes, Id, Match, Phase, Refusal, Rule, Term};
use selvedge_ir::ops::{Contract, Map};
use selvedge_ir::scalar::{Body, Scalar};
use selvedge_ir::{DType, Op, OpKind};

pub(super) fn rules() -> Vec<Rule> {
    let mut rules = casts();
    rules.extend(contractions());
    rules.extend(composites());
    rules
}

fn rule(
    name: &'static str,
    law: &'static str,
    left: &[&str],
    right: impl Fn(&Match) -> Result<Term, Refusal> + Send + Sync + 'static,
) -> Rule {
    Rule::new(name, law, Phase::Fuse, left, right)
}

/// The dtype that the bound body casts to.
fn cast(m: &Match, name: &str) -> Result<DType, Refusal> {
    match m.attr::<Body>(name).nodes() {
        [Scalar::Arg(0), Scalar::Cast(to, 0)] => Ok(*to),
        _ => Err("not a cast".into()),
    }
}

/// Every value of a dtype is one of the other.
fn widens(from: DType, to: DType) -> bool {
    from == to || (matches!(from, DType::F16 | DType::BF16) && to == DType::F32)
}

fn casts() -> Vec<Rule> {
    vec![
        rule("cast-to-itself", "a cast to the operand's dtype is the operand", &["(map ?f ?x)"], |m| {
            if cast(m, "f")? == m.ty("x").dtype { Ok(m.term("x")) } else { Err("another dtype".into()) }
        }),
        rule("cast-of-widened", "a cast of a widened value is a cast of the value", &["(map ?g (map ?f ?x))"], |m| {
            let (first, second, from) = (cast(m, "f")?, cast(m, "g")?, m.ty("x").dtype);
            match widens(from, first) {
                true if second == from => Ok(m.term("x")),
                true => Ok(Term::op(Map { body: Body::cast(second) }, [m.term("x")])),
                false => Err("the first cast may lose digits".into()),
            }
        }),
    ]
}

fn contractions() -> Vec<Rule> {
    let contract =
        |m: &Match, dtype: DType, x: Term, y: Term| Term::op(Contract { spec: m.attr("spec"), dtype }, [x, y]);
    let narrow = |m: &Match| match (cast(m, "f")?, m.ty("x").dtype) {
        (DType::F32, DType::F16 | DType::BF16) => Ok(()),
        _ => Err(Refusal::from("nothing is widened")),
    };
    vec![
        rule(
            "cast-of-contract",
            "a contraction in f32, rounded once, is the contraction of the narrow dtype",
            &["(map ?f (contract ?spec f32 ?x ?y))"],
            move |m| match cast(m, "f")? {
                to @ (DType::F16 | DType::BF16) => Ok(contract(m, to, m.term("x"), m.term("y"))),
                _ => Err("not rounded to a narrow float".into()),
            },
        ),
        rule(
            "contract-of-widened-left",
            "a contraction sums in f32: its first operand need not be widened",
            &["(contract ?spec ?d (map ?f ?x) ?y)"],
            move |m| {
                narrow(m)?;
                Ok(contract(m, m.attr("d"), m.term("x"), m.term("y")))
            },
        ),
        rule(
            "contract-of-widened-right",
            "a contraction sums in f32: its second operand need not be widened",
            &["(contract ?spec ?d ?y (map ?f ?x))"],
            move |m| {
                narrow(m)?;
                Ok(contract(m, m.attr("d"), m.term("y"), m.term("x")))
            },
        ),
    ]
}

/// Softmax and norms compute in f32 and round once.
fn composites() -> Vec<Rule> {
    vec![
        rule(
            "rounded-softmax",
            "softmax of a widened value, rounded to the value's dtype, is its softmax",
            &["(map ?g (softmax ?axis (map ?f ?x)))"],
            |m| {
                let x = m.ty("x").dtype;
                if cast(m, "f")? != DType::F32 || cast(m, "g")? != x || x == DType::F32 || !x.is_float() {
                    return Err("another dtype comes out".into());
                }
                Ok(Term::op(selvedge_ir::ops::Softmax { axis: m.attr("axis") }, [m.term("x")]))
            },
        ),
        variadic(
            "rounded-norm",
            "a norm of a widened value, rounded to the value's dtype, is the norm of that value",
            Phase::Fuse,
            OpKind::Map,
            rounded_norm,
        ),
        rule(
            "norm-of-widened-vectors",
            "a norm computes in f32: its scale and bias need not be widened",
            &[
                "(layer_norm ?eps ?x (map {x| f32(x)} ?w) ?b)",
                "(rms_norm ?eps ?x (map {x| f32(x)} ?w))",
                "(group_norm ?groups ?eps ?x (map {x| f32(x)} ?w) ?b)",
            ],
            |m| {
                if !m.ty("w").dtype.is_float() {
                    return Err("the scale is no float".into());
                }
                let norm = find(m.classes, m.root, |op, args| {
                    let norm = matches!(op, Op::LayerNorm(_) | Op::RmsNorm(_) | Op::GroupNorm(_));
                    (norm && args.len() >= 2 && args[0] == m.id("x")).then(|| (op.clone(), args.to_vec()))
                });
                let (op, args) = norm.ok_or("not a norm")?;
                let narrow = |id: &Id| {
                    let below = find(m.classes, *id, |op, below| match op {
                        Op::Map(map) if map.body == Body::cast(DType::F32) => Some(below[0]),
                        _ => None,
                    });
                    Term::Class(below.filter(|b| m.classes.ty(*b).dtype.is_float()).unwrap_or(*id))
                };
                let mut operands = vec![Term::Class(args[0])];
                operands.extend(args[1..].iter().map(narrow));
                Ok(Term::op(op, operands))
            },
        ),
        rule(
            "sum-that-was-rounded",
            "f32(contract to f16) is the contraction to f32: leaves out a rounding",
            &["(map {x| f32(x)} (contract ?spec ?d ?x ?y))"],
            |m| match m.attr::<DType>("d") {
                DType::F16 | DType::BF16 => {
                    Ok(Term::op(Contract { spec: m.attr("spec"), dtype: DType::F32 }, [m.term("x"), m.term("y")]))
                }
                _ => Err("nothing was rounded".into()),
            },
        )
        .skipping_a_rounding(),
        rule(
            "weights-that-were-rounded",
            "contract(f16(softmax), v) is contract(softmax, v): leaves out a rounding",
            &["(contract ?spec ?d (map ?f (softmax ?axis ?s)) ?v)"],
            |m| match cast(m, "f")? {
                DType::F16 | DType::BF16 => {
                    let weights = Term::op(selvedge_ir::ops::Softmax { axis: m.attr("axis") }, [m.term("s")]);
                    Ok(Term::op(Contract { spec: m.attr("spec"), dtype: m.attr("d") }, [weights, m.term("v")]))
                }
                _ => Err("nothing was rounded".into()),
            },
        )
        .skipping_a_rounding(),
    ]
}

fn rounded_norm(classes: Classes, root: Id, op: &Op, args: &[Id]) -> Result<Term, Refusal> {
    let to = classes.ty(root).dtype;
    if !matches!(op, Op::Map(map) if map.body == Body::cast(to)) || !matches!(to, DType::F16 | DType::BF16) {
        return Err("not rounded to a narrow float".into());
    }
    let widened = |id: Id| {
        find(classes, id, |op, below| match op {
            Op::Map(map) if map.body == Body::cast(DType::F32) && classes.ty(below[0]).dtype == to => Some(below[0]),
            _ => None,
        })
    };
    let norm = find(classes, args[0], |op, args| {
        let norm = matches!(op, Op::LayerNorm(_) | Op::RmsNorm(_) | Op::GroupNorm(_));
        let x = if norm { widened(args[0])? } else { return None };
        let mut operands = vec![Term::Class(x)];
        operands.extend(args[1..].iter().map(|a| Term::Class(*a)));
        Some(Term::op(op.clone(), operands))
    });
    norm.ok_or_else(|| "not a norm of a widened value".into())
}
