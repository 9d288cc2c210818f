//! Softmax and norms, discovered from primitives.
//!
//! Each law is small: the many spellings meet because the laws of algebra and layout bring scales, roots and moments
//! into one form, and because a norm is built up (root mean square, then centred, then affine, then by groups).

use super::layout::variadic;
use super::words::{Viewed, divides_by, find, in_f32, number, others};
use crate::saturate::{Classes, Id, Match, Phase, Refusal, Rule, Term};
use selvedge_ir::ops::{GroupNorm, LayerNorm, Map, RmsNorm, Softmax};
use selvedge_ir::scalar::{Binary, Body, F64};
use selvedge_ir::{DType, Op, OpKind, Shape};

pub(super) fn rules() -> Vec<Rule> {
    let mut rules = softmax();
    rules.extend(norms());
    rules.extend(affine());
    rules
}

fn rule(
    name: &'static str,
    law: &'static str,
    left: &[&str],
    right: impl Fn(&Match) -> Result<Term, Refusal> + Send + Sync + 'static,
) -> Rule {
    Rule::new(name, law, Phase::Composite, left, move |m| {
        in_f32(m)?;
        right(m)
    })
}

/// The bound repetition `r` puts back exactly the bound reduced axes, of a value of `rank`.
fn puts_back(m: &Match, r: &str, axes: &[usize], rank: usize) -> Result<(), Refusal> {
    if m.attr::<Vec<usize>>(r) == others(axes, rank) { Ok(()) } else { Err("repeated along other axes".into()) }
}

/// The bound scale `inv` makes a mean of the sum over these axes of `x`.
fn is_mean(m: &Match, inv: &str, axes: &[usize], x: &str) -> Result<(), Refusal> {
    let (c, sizes) = (number(m, inv, Binary::Mul)?, m.sizes(x));
    match divides_by(c, axes.iter().map(|&a| sizes[a]).product()) {
        true => Ok(()),
        false => Err("not a mean".into()),
    }
}

fn softmax() -> Vec<Rule> {
    let shifted = "(map {-} (map ?f ?k ?s) (broadcast ?bs ?br (reduce max ?axes (map ?f ?k ?s))))";
    let kept = format!("(map {{x, y| select(x, y, 0.0)}} ?k (map {{exp}} {shifted}))");
    let quotient = format!("(map {{/}} {kept} (broadcast ?bs ?br (map {{x| max(x, 1.0)}} (reduce sum ?axes {kept}))))");
    vec![
        rule(
            "softmax",
            "eˣ / Σeˣ = softmax(x), where eˣ and its sum are finite and not 0",
            &["(map {/} (map {exp} ?x) (broadcast ?s ?r (reduce sum ?axes (map {exp} ?x))))"],
            |m| {
                let axes: Vec<usize> = m.attr("axes");
                puts_back(m, "r", &axes, m.sizes("x").len())?;
                let [axis] = axes[..] else { return Err("over several axes".into()) };
                Ok(Term::op(Softmax { axis }, [m.term("x")]))
            },
        ),
        rule(
            "softmax-of-shifted",
            "softmax(x − m) = softmax(x) for m constant along the axis: the maximum that a program takes off, for one",
            &["(softmax ?axis (map {-} ?x (broadcast ?s ?r ?m)))"],
            |m| {
                let (axis, r): (usize, Vec<usize>) = (m.attr("axis"), m.attr("r"));
                let varies = r.iter().position(|&a| a == axis).is_some_and(|i| m.sizes("m")[i] != 1);
                if varies {
                    return Err("what is taken off varies along the axis".into());
                }
                Ok(Term::op(Softmax { axis }, [m.term("x")]))
            },
        ),
        rule(
            "softmax-of-kept",
            "with t = select(k, s, c), c ≤ −1e20, and e = select(k, exp(t − max t), 0): e / max(Σe, 1) = select(k, softmax(t), 0), |s| ≤ 1e3",
            &[&quotient],
            |m| {
                let axes: Vec<usize> = m.attr("axes");
                puts_back(m, "br", &axes, m.sizes("s").len())?;
                let [axis] = axes[..] else { return Err("over several axes".into()) };
                let f: Body = m.attr("f");
                masked_value(&f).ok_or("not a mask")?;
                let t = Term::op(Map { body: f }, [m.term("k"), m.term("s")]);
                let weights = Term::op(Softmax { axis }, [t]);
                Ok(Term::op(Map { body: kept_or(0.0) }, [m.term("k"), weights]))
            },
        ),
        rule(
            "softmax-of-selected",
            "softmax(select(k, s, c)) = softmax(s + select(k, 0, c)) for c ≤ −1e20 and |s| ≤ 1e3, which c absorbs",
            &["(softmax ?axis (map ?f ?k ?s))"],
            |m| {
                let c = masked_value(&m.attr("f")).ok_or("not a mask")?;
                let mask = Body::build(1, |b| {
                    let (k, zero, c) = (b.arg(0), b.float(0.0), b.float(c));
                    b.select(k, zero, c)
                });
                let mask = Term::op(Map { body: mask }, [m.term("k")]);
                let sum = Term::op(Map { body: Body::binary(Binary::Add) }, [m.term("s"), mask]);
                Ok(Term::op(Softmax { axis: m.attr("axis") }, [sum]))
            },
        ),
    ]
}

/// `select(x, y, c)`.
pub(super) fn kept_or(c: f64) -> Body {
    Body::build(2, |b| {
        let (k, y, c) = (b.arg(0), b.arg(1), b.float(c));
        b.select(k, y, c)
    })
}

/// c of `select(x, y, c)`, if it is low enough to absorb any score.
pub(super) fn masked_value(body: &Body) -> Option<f64> {
    use selvedge_ir::scalar::Scalar;
    match body.nodes() {
        [Scalar::Arg(0), Scalar::Arg(1), Scalar::Float(c), Scalar::Select(0, 1, 2)] if c.0 <= -1e20 => Some(c.0),
        _ => None,
    }
}

/// Several trailing axes as one: the value, the merged extents, and whether there was more than one.
fn trailing(m: &Match, name: &str, axes: &[usize]) -> Result<(Viewed, Vec<usize>), Refusal> {
    let x = Viewed::new(m, name);
    let rank = x.sizes.len();
    if axes.is_empty() || axes.iter().copied().ne(rank - axes.len()..rank) {
        return Err("not over the last axes".into());
    }
    let mut merged = x.sizes[..axes[0]].to_vec();
    merged.push(x.sizes[axes[0]..].iter().product());
    Ok((x, merged))
}

fn norms() -> Vec<Rule> {
    vec![
        rule(
            "rms-norm",
            "x · repeat(rsqrt(Σx²/n + eps)) = rms_norm(x) over the last axes, for a positive root",
            &[
                "(map {*} ?x (broadcast ?s ?r (map {rsqrt} (map ?eps (map ?inv (reduce sum ?axes (map {x| x * x} ?x)))))))",
            ],
            |m| {
                let axes: Vec<usize> = m.attr("axes");
                puts_back(m, "r", &axes, m.sizes("x").len())?;
                is_mean(m, "inv", &axes, "x")?;
                let eps = number(m, "eps", Binary::Add)?;
                if eps < 0.0 {
                    return Err("eps is negative".into());
                }
                let (x, merged) = trailing(m, "x", &axes)?;
                let sizes = x.sizes.clone();
                let norm = Term::op(RmsNorm { eps: F64(eps) }, [x.reshape(&merged).term]);
                Ok(Viewed { term: norm, sizes: merged }.reshape(&sizes).term)
            },
        ),
        rule(
            "layer-norm",
            "rms_norm(x − mean x) = layer_norm(x)",
            &["(rms_norm ?eps (map {-} ?x (broadcast ?s ?r (map ?inv (reduce sum ?axes ?x)))))"],
            |m| {
                let (axes, rank) = (m.attr::<Vec<usize>>("axes"), m.sizes("x").len());
                puts_back(m, "r", &axes, rank)?;
                is_mean(m, "inv", &axes, "x")?;
                if axes != [rank - 1] {
                    return Err("not over the last axis".into());
                }
                Ok(Term::op(LayerNorm { eps: m.attr("eps") }, [m.term("x")]))
            },
        ),
        rule(
            "layer-norm-of-several-axes",
            "rms_norm(merge(x − mean x)) = layer_norm(merge x), the merged axes being those of the mean",
            &["(rms_norm ?eps (reshape ?t (map {-} ?x (broadcast ?s ?r (map ?inv (reduce sum ?axes ?x))))))"],
            |m| {
                let axes: Vec<usize> = m.attr("axes");
                puts_back(m, "r", &axes, m.sizes("x").len())?;
                is_mean(m, "inv", &axes, "x")?;
                let (x, merged) = trailing(m, "x", &axes)?;
                let t = m.attr::<Shape>("t").sizes();
                if t.last() != merged.last() {
                    return Err("other axes are merged".into());
                }
                Ok(Term::op(LayerNorm { eps: m.attr("eps") }, [x.reshape(&t).term]))
            },
        ),
        rule(
            "group-norm",
            "split(layer_norm(merge x)) = group_norm(x) if merge puts channels of a group and all that follows together",
            &["(reshape ?s (layer_norm ?eps (reshape ?t ?x)))"],
            |m| {
                let (t, sizes) = (m.attr::<Shape>("t").sizes(), m.sizes("x"));
                let [n, groups, rest] = t[..] else { return Err("not in groups".into()) };
                let same = m.ty("x") == m.root_ty();
                let fits = sizes.len() >= 2 && sizes[0] == n && groups > 0 && sizes[1].is_multiple_of(groups);
                if !same || !fits || rest * groups != sizes[1..].iter().product::<usize>() {
                    return Err("not groups of channels".into());
                }
                Ok(Term::op(GroupNorm { groups, eps: m.attr("eps") }, [m.term("x")]))
            },
        ),
    ]
}

/// The vector along one axis that a class repeats.
fn vector(classes: Classes, id: Id, axis: usize) -> Option<Term> {
    let shape = classes.ty(id).shape.sizes();
    find(classes, id, |op, args| {
        let Op::Broadcast(b) = op else { return None };
        let sizes = classes.ty(args[0]).shape.sizes();
        let own: Vec<usize> = (0..sizes.len()).filter(|&i| sizes[i] != 1).collect();
        let along = match own[..] {
            [i] => b.axes[i] == axis && sizes[i] == shape[axis],
            // One channel: any unit axis is it.
            [] => shape[axis] == 1,
            _ => false,
        };
        along.then(|| Viewed::of(classes, args[0]).reshape(&[shape[axis]]).term)
    })
}

/// The norm that a class is, with its operands, if it has so many. What is centred and then an RMS norm is a layer norm,
/// too, which takes more.
fn norm(classes: Classes, id: Id, operands: usize) -> Option<(Op, Vec<Term>)> {
    let of = |rms: bool| {
        find(classes, id, |op, args| {
            let norm = match op {
                Op::RmsNorm(_) => rms,
                Op::LayerNorm(_) | Op::GroupNorm(_) => !rms,
                _ => false,
            };
            (norm && args.len() == operands).then(|| (op.clone(), args.iter().map(|a| Term::Class(*a)).collect()))
        })
    };
    of(false).or_else(|| of(true).filter(|_| operands == 1))
}

/// The norm of a class with one more operand: a vector that another class repeats.
fn with_vector(classes: Classes, root: Id, args: &[Id], operands: usize) -> Result<Term, Refusal> {
    let [a, b] = args[..] else { return Err("not of two operands".into()) };
    let both = |n: Id, w: Id| {
        let (op, mut args) = norm(classes, n, operands)?;
        let axis = if matches!(op, Op::GroupNorm(_)) { 1 } else { classes.ty(root).rank() - 1 };
        args.push(vector(classes, w, axis)?);
        Some(Term::op(op, args))
    };
    let term = both(a, b).or_else(|| both(b, a)).ok_or("no norm and a vector along its axis")?;
    if classes.ty(root).dtype == DType::F32 { Ok(term) } else { Err("not computed in f32".into()) }
}

fn affine() -> Vec<Rule> {
    fn is(op: &Op, binary: Binary) -> Result<(), Refusal> {
        match op {
            Op::Map(map) if map.body == Body::binary(binary) => Ok(()),
            _ => Err("another map".into()),
        }
    }
    vec![
        variadic(
            "norm-scale",
            "norm(x) · repeat(w) = norm(x, w) for a vector w along the normalised axis",
            Phase::Composite,
            OpKind::Map,
            |classes, root, op, args| is(op, Binary::Mul).and_then(|()| with_vector(classes, root, args, 1)),
        ),
        variadic(
            "norm-bias",
            "norm(x, w) + repeat(b) = norm(x, w, b) for a vector b along the normalised axis",
            Phase::Composite,
            OpKind::Map,
            |classes, root, op, args| is(op, Binary::Add).and_then(|()| with_vector(classes, root, args, 2)),
        ),
    ]
}
