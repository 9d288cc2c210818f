//! Contractions: views and scales taken in or out, chains regrouped, degenerate ones reduced.

use super::words::{Viewed, binary, by, in_f32, number, others, sum};
use crate::canonical_contract::inserted;
use crate::saturate::{Binding, Match, Phase, Refusal, Rule, Term};
use selvedge_ir::ops::Contract;
use selvedge_ir::scalar::Binary;
use selvedge_ir::spec::{ContractSpec, Role};
use selvedge_ir::{DType, Shape};

pub(super) fn rules() -> Vec<Rule> {
    let mut rules = views();
    rules.extend(scales());
    rules.extend(chains());
    rules
}

fn rule(
    name: &'static str,
    law: &'static str,
    left: &[&str],
    right: impl Fn(&Match) -> Result<Term, Refusal> + Send + Sync + 'static,
) -> Rule {
    Rule::new(name, law, Phase::Contract, left, right)
}

/// Letters of the three terms.
#[derive(Clone)]
struct Letters {
    a: Vec<u8>,
    b: Vec<u8>,
    out: Vec<u8>,
}

impl Letters {
    fn of(m: &Match) -> Letters {
        let spec: ContractSpec = m.attr("spec");
        Letters { a: spec.a, b: spec.b, out: spec.out }
    }
    /// The contraction of two terms, in the matched one's dtype.
    fn contract(&self, m: &Match, a: Term, b: Term) -> Result<Term, Refusal> {
        contraction(&self.a, &self.b, &self.out, m.attr("d"), a, b)
    }
}

fn contraction(a: &[u8], b: &[u8], out: &[u8], dtype: DType, x: Term, y: Term) -> Result<Term, Refusal> {
    let spec = ContractSpec::new(a, b, out).map_err(Refusal::from)?;
    Ok(Term::op(Contract { spec, dtype }, [x, y]))
}

/// The letters of an operand before it was transposed.
fn before(letters: &[u8], perm: &[usize]) -> Vec<u8> {
    let mut old = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(i, &p)| old[p] = letters[i]);
    old
}

/// The letters of an operand before axes were repeated that the other operand has and the result keeps.
fn unrepeated(m: &Match, letters: &[u8], other: &[u8], out: &[u8]) -> Result<Vec<u8>, Refusal> {
    let (shape, axes) = (m.attr::<Shape>("s").sizes(), m.attr::<Vec<usize>>("r"));
    let from = m.sizes("x");
    let new = others(&axes, shape.len());
    let stretched = axes.iter().zip(&from).any(|(&a, &n)| shape[a] != n);
    if stretched || !new.iter().all(|&i| other.contains(&letters[i]) && out.contains(&letters[i])) {
        return Err("the repeated axis is needed".into());
    }
    Ok(axes.iter().map(|&a| letters[a]).collect())
}

/// The letters of an operand before unit axes were put in, all of which the result keeps.
fn without_units(m: &Match, letters: &[u8], out: &[u8]) -> Result<Vec<u8>, Refusal> {
    let places = inserted(&m.ty("x").shape, &m.attr::<Shape>("s")).ok_or("not only unit axes")?;
    let kept = (0..letters.len()).filter(|i| !places.contains(i)).all(|i| out.contains(&letters[i]));
    if !kept {
        return Err("a unit axis is summed".into());
    }
    Ok(places.iter().map(|&p| letters[p]).collect())
}

/// The contraction whose operands may lack letters of the result: those are unit axes and put back by a reshape.
fn reshaped(m: &Match, l: Letters, x: Term, y: Term) -> Result<Term, Refusal> {
    let out: Vec<u8> = l.out.iter().copied().filter(|c| l.a.contains(c) || l.b.contains(c)).collect();
    let sizes = m.root_ty().shape.sizes();
    let kept = l.out.iter().zip(&sizes).filter(|(c, _)| out.contains(c)).map(|(_, n)| *n).collect();
    let new = contraction(&l.a, &l.b, &out, m.attr("d"), x, y)?;
    Ok(Viewed { term: new, sizes: kept }.reshape(&sizes).term)
}

/// Views of operands and of the result.
fn views() -> Vec<Rule> {
    vec![
        rule(
            "contract-of-transpose-left",
            "a transposed first operand is the operand with its letters moved",
            &["(contract ?spec ?d (transpose ?p ?x) ?y)"],
            |m| {
                let l = Letters::of(m);
                let a = before(&l.a, &m.attr::<Vec<usize>>("p"));
                Letters { a, ..l }.contract(m, m.term("x"), m.term("y"))
            },
        ),
        rule(
            "contract-of-transpose-right",
            "a transposed second operand is the operand with its letters moved",
            &["(contract ?spec ?d ?y (transpose ?p ?x))"],
            |m| {
                let l = Letters::of(m);
                let b = before(&l.b, &m.attr::<Vec<usize>>("p"));
                Letters { b, ..l }.contract(m, m.term("y"), m.term("x"))
            },
        ),
        rule(
            "transpose-of-contract",
            "a transposed result is the contraction with the letters of its result moved",
            &["(transpose ?p (contract ?spec ?d ?x ?y))"],
            |m| {
                let l = Letters::of(m);
                let out = m.attr::<Vec<usize>>("p").iter().map(|&p| l.out[p]).collect();
                Letters { out, ..l }.contract(m, m.term("x"), m.term("y"))
            },
        ),
        rule(
            "contract-of-broadcast-left",
            "an axis repeated for the sake of the other operand's need not be repeated: its letter is dropped",
            &["(contract ?spec ?d (broadcast ?s ?r ?x) ?y)"],
            |m| {
                let l = Letters::of(m);
                let a = unrepeated(m, &l.a, &l.b, &l.out)?;
                Letters { a, ..l }.contract(m, m.term("x"), m.term("y"))
            },
        ),
        rule(
            "contract-of-broadcast-right",
            "as contract-of-broadcast-left, for the second operand",
            &["(contract ?spec ?d ?y (broadcast ?s ?r ?x))"],
            |m| {
                let l = Letters::of(m);
                let b = unrepeated(m, &l.b, &l.a, &l.out)?;
                Letters { b, ..l }.contract(m, m.term("y"), m.term("x"))
            },
        ),
        rule(
            "contract-of-unit-axes-left",
            "unit axes of the first operand that the result keeps are put into the result",
            &["(contract ?spec ?d (reshape ?s ?x) ?y)"],
            |m| {
                let l = Letters::of(m);
                let a = without_units(m, &l.a, &l.out)?;
                reshaped(m, Letters { a, ..l }, m.term("x"), m.term("y"))
            },
        ),
        rule(
            "contract-of-unit-axes-right",
            "as contract-of-unit-axes-left, for the second operand",
            &["(contract ?spec ?d ?y (reshape ?s ?x))"],
            |m| {
                let l = Letters::of(m);
                let b = without_units(m, &l.b, &l.out)?;
                reshaped(m, Letters { b, ..l }, m.term("y"), m.term("x"))
            },
        ),
    ]
}

/// Scales, and operands of one value.
fn scales() -> Vec<Rule> {
    vec![
        rule(
            "scale-out-of-contract-left",
            "Σ (x · c) y = (Σ x y) · c",
            &["(contract ?spec f32 (map ?f ?x) ?y)"],
            |m| {
                let c = number(m, "f", Binary::Mul)?;
                Ok(by(Binary::Mul, contract_f32(m, m.term("x"), m.term("y")), c))
            },
        ),
        rule(
            "scale-out-of-contract-right",
            "Σ y (x · c) = (Σ y x) · c",
            &["(contract ?spec f32 ?y (map ?f ?x))"],
            |m| {
                let c = number(m, "f", Binary::Mul)?;
                Ok(by(Binary::Mul, contract_f32(m, m.term("y"), m.term("x")), c))
            },
        ),
        rule(
            "contract-with-one-value",
            "Σ x · c over the summed letters, for an operand that is c everywhere, is a sum times c",
            &["(contract ?spec f32 ?x ?y)"],
            |m| {
                let c = m.splat("y").filter(|c| c.is_finite()).ok_or("the operand varies")?;
                if m.ty("x").dtype != DType::F32 {
                    return Err("a reduction sums f32".into());
                }
                let l = Letters::of(m);
                let spec: ContractSpec = m.attr("spec");
                let summed: Vec<usize> = axes(&l.a, |c| spec.role(c) == Some(Role::Summed));
                let left: Vec<u8> = l.a.iter().copied().filter(|&c| spec.role(c) != Some(Role::Summed)).collect();
                let sizes = left.iter().map(|c| m.sizes("x")[l.a.iter().position(|a| a == c).expect("its letter")]);
                let reduced = if summed.is_empty() { m.term("x") } else { sum(&summed, m.term("x")) };
                // In the order of the result, then repeated along the second operand's own axes.
                let order: Vec<u8> = l.out.iter().copied().filter(|c| left.contains(c)).collect();
                let perm: Vec<usize> = order.iter().map(|c| left.iter().position(|l| l == c).expect("kept")).collect();
                let view = Viewed { term: reduced, sizes: sizes.collect() }.transpose(&perm);
                let places = axes(&l.out, |c| left.contains(&c));
                let out = m.root_ty().shape.sizes();
                let whole = if places.len() == out.len() { view.term } else { view.broadcast(&out, &places).term };
                Ok(by(Binary::Mul, whole, c))
            },
        ),
    ]
}

fn axes(letters: &[u8], keep: impl Fn(u8) -> bool) -> Vec<usize> {
    (0..letters.len()).filter(|&i| keep(letters[i])).collect()
}

fn contract_f32(m: &Match, x: Term, y: Term) -> Term {
    Term::op(Contract { spec: m.attr("spec"), dtype: DType::F32 }, [x, y])
}

/// Chains and sums of contractions.
fn chains() -> Vec<Rule> {
    vec![
        rule(
            "chain-of-contractions",
            "(x · a) · b = x · (a · b), where a · b is known at load or the chain is cheaper so",
            &["(contract ?outer f32 (contract ?inner f32 ?x ?a) ?b)"],
            chain,
        ),
        rule(
            "sum-of-contractions",
            "x · a + x · b = x · (a + b), where a + b is known at load (a low-rank update of a weight)",
            &["(map {+} (contract ?spec f32 ?x ?a) (contract ?spec f32 ?x ?b))"],
            |m| {
                if m.id("a") == m.id("b") || !at_load(m, &["a", "b"]) || m.ty("a") != m.ty("b") {
                    return Err("not weights".into());
                }
                if m.ty("a").dtype != DType::F32 {
                    return Err("a sum of weights would round".into());
                }
                Ok(contract_f32(m, m.term("x"), binary(Binary::Add, m.term("a"), m.term("b"))))
            },
        ),
        rule(
            "scale-into-weight",
            "(x · w) · c = x · (w · c), where w is known at load",
            &["(map ?f (contract ?spec f32 ?x ?w))"],
            |m| {
                let c = number(m, "f", Binary::Mul)?;
                in_f32(m)?;
                if !at_load(m, &["w"]) || at_load(m, &["x"]) || m.ty("w").dtype != DType::F32 {
                    return Err("no weight in f32".into());
                }
                Ok(contract_f32(m, m.term("x"), by(Binary::Mul, m.term("w"), c)))
            },
        ),
    ]
}

fn at_load(m: &Match, names: &[&str]) -> bool {
    names.iter().all(|n| m.classes.tensor(m.id(n)).binding <= Binding::Load)
}

fn chain(m: &Match) -> Result<Term, Refusal> {
    let (inner, outer): (ContractSpec, ContractSpec) = (m.attr("inner"), m.attr("outer"));
    // Letters of both in one alphabet: the outer first operand is the inner result.
    const APART: u8 = 100;
    let same = |l: &u8| match outer.a.iter().position(|o| o == l) {
        Some(i) => inner.out[i],
        None => l + APART,
    };
    let (b, out): (Vec<u8>, Vec<u8>) = (outer.b.iter().map(same).collect(), outer.out.iter().map(same).collect());
    // Letters that a · b must keep: those that x or the result has. The others are summed in it.
    let mut kept: Vec<u8> = Vec::new();
    for l in inner.b.iter().chain(&b) {
        let summed_here = inner.b.contains(l) && b.contains(l) && !inner.a.contains(l) && !out.contains(l);
        if !summed_here && !kept.contains(l) {
            kept.push(*l);
        }
    }
    // As checkpoints lay weights out: columns before what is summed, so that updates of a weight meet it in its own layout.
    kept.sort_by_key(|l| !out.contains(l));
    let extent = |l: &u8| {
        let of = |letters: &[u8], name: &str| letters.iter().position(|x| x == l).map(|i| m.sizes(name)[i]);
        of(&inner.a, "x").or_else(|| of(&inner.b, "a")).or_else(|| of(&b, "b")).expect("a letter of an operand")
    };
    let flops = |parts: &[&[u8]]| {
        let mut letters: Vec<u8> = parts.concat();
        letters.sort_unstable();
        letters.dedup();
        letters.iter().map(|l| extent(l) as f64).product::<f64>()
    };
    let now = flops(&[&inner.a, &inner.b]) + flops(&[&inner.out, &b]);
    let then = flops(&[&inner.a, &kept, &out]);
    let weights = at_load(m, &["a", "b"]);
    if at_load(m, &["x"]) || !(weights || then + flops(&[&inner.b, &b]) < now) {
        return Err("not cheaper".into());
    }
    let ab = contraction(&inner.b, &b, &kept, DType::F32, m.term("a"), m.term("b"))?;
    contraction(&inner.a, &kept, &out, DType::F32, m.term("x"), ab)
}
