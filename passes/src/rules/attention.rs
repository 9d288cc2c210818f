//! Attention, discovered from contractions around a softmax, whatever the order of axes.

use super::composite::masked_value;
use super::layout::{concat_axis, variadic};
use super::words::{Viewed, find, number};
use crate::saturate::{Classes, Id, Match, Phase, Refusal, Rule, Term};
use selvedge_ir::ops::{Attention, Concat, Contract, Map};
use selvedge_ir::scalar::{Binary, Body, F64, Scalar};
use selvedge_ir::spec::ContractSpec;
use selvedge_ir::{DType, Op, OpKind, Tensor};

pub(super) fn rules() -> Vec<Rule> {
    let sides = |weights: &str| [format!("(contract ?s2 ?d {weights} ?v)"), format!("(contract ?s2 ?d ?v {weights})")];
    let rule = |name, law, weights: &str, right: fn(&Match) -> Result<Term, Refusal>| {
        let both = sides(weights);
        Rule::new(name, law, Phase::Composite, &[&both[0], &both[1]], right)
    };
    vec![
        Rule::new(
            "normalise-after-values",
            "(Σ eˣ v) / repeat(Σ eˣ) = Σ softmax(x) v, both sums over the same letter, where eˣ and its sum are finite and not 0",
            Phase::Composite,
            &[
                "(map {/} (contract ?s2 ?d (map {exp} ?x) ?v) (broadcast ?s ?r (reduce sum ?axes (map {exp} ?x))))",
                "(map {/} (contract ?s2 ?d ?v (map {exp} ?x)) (broadcast ?s ?r (reduce sum ?axes (map {exp} ?x))))",
            ],
            normalise_after_values,
        ),
        rule(
            "attention",
            "Σ softmax(Σ q k) v is attention of scale 1; q, k and v are brought to [batch, heads, tokens, size] by views",
            "(softmax ?axis (contract ?s1 f32 ?q ?k))",
            |m| Attend::new(m, 1.0)?.term(m),
        ),
        rule(
            "attention-of-scaled",
            "Σ softmax((Σ q k) · c) v is attention of scale c",
            "(softmax ?axis (map ?f (contract ?s1 f32 ?q ?k)))",
            |m| Attend::new(m, number(m, "f", Binary::Mul)?)?.term(m),
        ),
        rule(
            "attention-with-mask",
            "Σ softmax((Σ q k) + mask) v is attention with that mask; causal if the mask hides exactly the keys after a query",
            "(softmax ?axis (map {+} (contract ?s1 f32 ?q ?k) ?mask))",
            |m| Attend::new(m, 1.0)?.added(m),
        ),
        rule(
            "attention-of-scaled-with-mask",
            "Σ softmax((Σ q k) · c + mask) v is attention of scale c with that mask",
            "(softmax ?axis (map {+} (map ?f (contract ?s1 f32 ?q ?k)) ?mask))",
            |m| Attend::new(m, number(m, "f", Binary::Mul)?)?.added(m),
        ),
        rule(
            "attention-causal",
            "Σ softmax(select(seen, scores, c)) v is causal attention if seen is true for the keys up to the query's index, c ≤ −1e20, |scores| ≤ 1e3",
            "(softmax ?axis (map ?g ?keep (map ?f (contract ?s1 f32 ?q ?k))))",
            |m| {
                masked_value(&m.attr("g")).ok_or("not a mask")?;
                let attend = Attend::new(m, number(m, "f", Binary::Mul)?)?;
                let axes = attend.token_axes().ok_or("queries are not one axis")?;
                if !is_causal(m.classes, m.id("keep"), axes) {
                    return Err("the mask is not provably causal".into());
                }
                Attend { causal: true, ..attend }.term(m)
            },
        ),
        rule(
            "attention-of-kept",
            "Σ select(keep, softmax(select(keep, scores, c)), 0) v is attention with a bool mask, c ≤ −1e20, |scores| ≤ 1e3",
            "(map {x, y| select(x, y, 0.0)} ?keep (softmax ?axis (map ?g ?keep (map ?f (contract ?s1 f32 ?q ?k)))))",
            |m| {
                masked_value(&m.attr("g")).ok_or("not a mask")?;
                Attend::new(m, number(m, "f", Binary::Mul)?)?.kept(m)
            },
        ),
        variadic(
            "concat-of-attentions",
            "heads computed one by one and put together along an axis are one attention over all of them",
            Phase::Composite,
            OpKind::Concat,
            concat_of_attentions,
        ),
        Rule::new(
            "attention-of-scaled-query",
            "attention(q · c, k, v; s) = attention(q, k, v; s·c)",
            Phase::Composite,
            &["(attention ?scale ?causal (map ?f ?q) ?k ?v)"],
            |m| rescaled(m, ["q", "k", "v"]),
        ),
        Rule::new(
            "attention-of-scaled-key",
            "attention(q, k · c, v; s) = attention(q, k, v; s·c)",
            Phase::Composite,
            &["(attention ?scale ?causal ?q (map ?f ?k) ?v)"],
            |m| rescaled(m, ["q", "k", "v"]),
        ),
    ]
}

fn rescaled(m: &Match, operands: [&str; 3]) -> Result<Term, Refusal> {
    if m.ty("q").dtype != DType::F32 {
        return Err("a rounding would be left out".into());
    }
    let scale = F64(m.attr::<F64>("scale").0 * number(m, "f", Binary::Mul)?);
    Ok(Term::op(Attention { scale, causal: m.attr("causal") }, operands.map(|n| m.term(n))))
}

/// What the letters of both contractions say: which axes are batch, queries, keys and features.
struct Attend {
    q: Viewed,
    k: Viewed,
    v: Viewed,
    /// Batch letters and query letters, in the order in which the scores have them.
    batch: Vec<u8>,
    rows: Vec<u8>,
    /// Letters of the scores, in order; the key's letter.
    scores: Vec<u8>,
    key: u8,
    /// Letters of the values' own axes, of the result, and the extent of each letter.
    columns: Vec<u8>,
    out: Vec<u8>,
    extents: Vec<(u8, usize)>,
    causal: bool,
    scale: f64,
    mask: Option<Term>,
}

/// Letters of the second contraction that the scores do not have.
const APART: u8 = 100;

impl Attend {
    /// Reads the bound `s1`, `s2`, `axis`, `q`, `k`, `v`.
    fn new(m: &Match, scale: f64) -> Result<Attend, Refusal> {
        let (s1, s2): (ContractSpec, ContractSpec) = (m.attr("s1"), m.attr("s2"));
        let key = s1.out[m.attr::<usize>("axis")];
        // The operand with the key's letter is k; a letter of both is batch, and keys are no batch.
        let (mut q, mut k) = (("q", s1.a.clone()), ("k", s1.b.clone()));
        match (q.1.contains(&key), k.1.contains(&key)) {
            (false, true) => {}
            (true, false) => std::mem::swap(&mut q, &mut k),
            _ => return Err("the softmax is over no axis of keys".into()),
        }
        // The weights are the operand of the scores' rank whose axes the first contraction made.
        let weights_first = m.classes.ops(m.root).any(|(op, args)| {
            matches!(op, Op::Contract(c) if c.spec == s2) && args[1] == m.id("v") && args[0] != m.id("v")
        });
        let (weights, values) = if weights_first { (&s2.a, &s2.b) } else { (&s2.b, &s2.a) };
        if weights.len() != s1.out.len() {
            return Err("the weights are another operand".into());
        }
        let same = |l: &u8| weights.iter().position(|w| w == l).map_or(l + APART, |i| s1.out[i]);
        let (v, out): (Vec<u8>, Vec<u8>) = (values.iter().map(same).collect(), s2.out.iter().map(same).collect());
        if !v.contains(&key) || out.contains(&key) {
            return Err("the values are not summed over the keys".into());
        }
        let own = |l: &u8| *l != key;
        let batch: Vec<u8> = s1.out.iter().copied().filter(own).filter(|l| k.1.contains(l) || v.contains(l)).collect();
        let rows: Vec<u8> = s1.out.iter().copied().filter(own).filter(|l| !batch.contains(l)).collect();
        if batch.iter().any(|l| !q.1.contains(l) || !k.1.contains(l) || !v.contains(l) || !out.contains(l)) {
            return Err("a batch axis is not in all operands".into());
        }
        if rows.iter().any(|l| !out.contains(l)) {
            return Err("queries are summed".into());
        }
        let columns: Vec<u8> = v.iter().copied().filter(|l| *l != key && !batch.contains(l)).collect();
        let (qv, kv, vv) = (Viewed::new(m, q.0), Viewed::new(m, k.0), Viewed::new(m, "v"));
        let mut extents: Vec<(u8, usize)> = Vec::new();
        for (letters, x) in [(&q.1, &qv), (&k.1, &kv), (&v, &vv)] {
            extents.extend(letters.iter().copied().zip(x.sizes.iter().copied()));
        }
        let dtype = m.ty("q").dtype;
        if [m.ty("k").dtype, m.ty("v").dtype, m.root_ty().dtype].iter().any(|d| *d != dtype) {
            return Err("q, k, v and the result differ in dtype".into());
        }
        if extents.iter().any(|(_, n)| *n == 0) {
            return Err("an axis is empty".into());
        }
        let features: Vec<u8> = q.1.iter().copied().filter(|l| k.1.contains(l) && !s1.out.contains(l)).collect();
        let mut this = Attend {
            q: qv,
            k: kv,
            v: vv,
            batch,
            rows,
            scores: s1.out.clone(),
            key,
            columns,
            out,
            extents,
            causal: false,
            scale,
            mask: None,
        };
        this.q = this.four(this.q.clone(), &q.1, &this.rows, &features);
        this.k = this.four(this.k.clone(), &k.1, &[key], &features);
        this.v = this.four(this.v.clone(), &v, &[key], &this.columns);
        Ok(this)
    }
    fn extent(&self, l: u8) -> usize {
        self.extents.iter().find(|(e, _)| *e == l).map_or(1, |(_, n)| *n)
    }
    fn product(&self, letters: &[u8]) -> usize {
        letters.iter().map(|l| self.extent(*l)).product()
    }
    /// Extents of batch and heads: the first of several batch letters is the batch, one alone is the heads.
    fn heads(&self) -> [usize; 2] {
        match self.batch.len() {
            0 | 1 => [1, self.product(&self.batch)],
            _ => [self.extent(self.batch[0]), self.product(&self.batch[1..])],
        }
    }
    /// A value of these letters as [batch, heads, tokens, size].
    fn four(&self, x: Viewed, letters: &[u8], tokens: &[u8], size: &[u8]) -> Viewed {
        let order: Vec<u8> = self.batch.iter().chain(tokens).chain(size).copied().collect();
        let perm: Vec<usize> =
            order.iter().map(|l| letters.iter().position(|x| x == l).expect("a letter of the operand")).collect();
        let [b, h] = self.heads();
        x.transpose(&perm).reshape(&[b, h, self.product(tokens), self.product(size)])
    }
    /// The attention, brought back to the order of the result.
    fn term(self, _: &Match) -> Result<Term, Refusal> {
        let mut args = vec![self.q.term.clone(), self.k.term.clone(), self.v.term.clone()];
        args.extend(self.mask.clone());
        let op = Attention { scale: F64(self.scale), causal: self.causal };
        let [b, h] = self.heads();
        let sizes = vec![b, h, self.product(&self.rows), self.product(&self.columns)];
        let order: Vec<u8> = self.batch.iter().chain(&self.rows).chain(&self.columns).copied().collect();
        let split: Vec<usize> = order.iter().map(|l| self.extent(*l)).collect();
        let perm: Vec<usize> =
            self.out.iter().map(|l| order.iter().position(|o| o == l).expect("a kept letter")).collect();
        Ok(Viewed { term: Term::op(op, args), sizes }.reshape(&split).transpose(&perm).term)
    }
    /// Axes of queries and keys in the scores, if the queries are one axis.
    fn token_axes(&self) -> Option<[usize; 2]> {
        let [row] = self.rows[..] else { return None };
        let at = |l: u8| self.scores.iter().position(|s| *s == l);
        Some([at(row)?, at(self.key)?])
    }
    /// With the bound `mask` added: a causal one is an attribute, another is kept as small as it was.
    fn added(self, m: &Match) -> Result<Term, Refusal> {
        let hidden = |op: &Op, args: &[Id]| match op {
            Op::Map(Map { body }) if hides(body) => Some(args[0]),
            _ => None,
        };
        let axes = self.token_axes();
        let causal = |id: &Id| axes.is_some_and(|axes| is_causal(m.classes, *id, axes));
        if find(m.classes, m.id("mask"), hidden).filter(causal).is_some() {
            return Attend { causal: true, ..self }.term(m);
        }
        let dtype = m.ty("q").dtype;
        let mask = self.small(m.classes, m.id("mask"), dtype)?;
        Attend { mask: Some(mask), ..self }.term(m)
    }
    /// With the bound `keep`, a bool mask; a part that is causal is an attribute.
    fn kept(self, m: &Match) -> Result<Term, Refusal> {
        let keep = m.id("keep");
        let axes = self.token_axes();
        let causal = |id: Id| axes.is_some_and(|axes| is_causal(m.classes, id, axes));
        if causal(keep) {
            return Attend { causal: true, ..self }.term(m);
        }
        let both = find(m.classes, keep, |op, args| match (op, args) {
            (Op::Map(map), [a, b]) if map.body == Body::binary(Binary::And) => Some((*a, *b)),
            _ => None,
        });
        let (keep, causal) = match both {
            Some((a, b)) if causal(b) => (a, true),
            Some((a, b)) if causal(a) => (b, true),
            _ => (keep, false),
        };
        let mask = self.small(m.classes, keep, DType::Bool)?;
        Attend { mask: Some(mask), causal, ..self }.term(m)
    }
    /// A mask of the scores' axes as [batch, heads, queries, keys], before it was repeated if it was.
    fn small(&self, classes: Classes, mask: Id, dtype: DType) -> Result<Term, Refusal> {
        let mut x = mask;
        let mut letters = self.scores.clone();
        // A mask that was widened for the sum is taken as it was before.
        if classes.ty(x).dtype != dtype {
            x = find(classes, x, |op, args| match op {
                Op::Map(Map { body }) if *body == Body::cast(DType::F32) && classes.ty(args[0]).dtype == dtype => {
                    Some(args[0])
                }
                _ => None,
            })
            .ok_or("the mask has another dtype")?;
        }
        let below = find(classes, x, |op, args| match op {
            Op::Broadcast(b) => Some((b.axes.clone(), args[0])),
            _ => None,
        });
        if let Some((axes, below)) = below {
            letters = axes.iter().map(|&a| self.scores[a]).collect();
            x = below;
        }
        // What the mask lacks, or has once, is 1; of letters that are merged all or none must be there.
        let view = Viewed::of(classes, x);
        let has = |l: &u8| letters.iter().position(|x| x == l).is_some_and(|i| view.sizes[i] == self.extent(*l));
        let groups: [&[u8]; 4] = match self.batch.len() {
            0 | 1 => [&[], &self.batch, &self.rows, std::slice::from_ref(&self.key)],
            _ => [&self.batch[..1], &self.batch[1..], &self.rows, std::slice::from_ref(&self.key)],
        };
        let mut order: Vec<u8> = Vec::new();
        let mut sizes = [1; 4];
        for (size, group) in sizes.iter_mut().zip(groups) {
            if group.iter().all(has) {
                *size = self.product(group);
            } else if group.iter().any(|l| has(l) && self.extent(*l) != 1) {
                return Err("the mask varies along some of several merged axes".into());
            }
            order.extend(group.iter().filter(|l| letters.contains(l)));
        }
        let perm: Vec<usize> =
            order.iter().map(|l| letters.iter().position(|x| x == l).expect("a letter of the mask")).collect();
        Ok(view.transpose(&perm).reshape(&sizes).term)
    }
}

/// `select(x, 0, c)` with c low enough to hide any score.
fn hides(body: &Body) -> bool {
    match body.nodes() {
        [Scalar::Arg(0), Scalar::Float(zero), Scalar::Float(c), Scalar::Select(0, 1, 2)] => {
            zero.0 == 0.0 && c.0 <= -1e20
        }
        _ => false,
    }
}

/// True if a bool of the scores' shape is provably key ≤ query, by `[query, key]` axes.
fn is_causal(classes: Classes, id: Id, [query, key]: [usize; 2]) -> bool {
    let table = |op: &Op| -> Option<bool> {
        let Op::Const(constant) = op else { return None };
        let sizes = constant.ty.shape.get()?;
        let data = Tensor::from_bytes(constant.ty.clone(), &constant.data.0).ok()?.to_f64();
        let strides = selvedge_ir::shape::strides(&sizes);
        let at = |i: usize, axis: usize| i / strides[axis] % sizes[axis];
        Some(data.iter().enumerate().all(|(i, x)| (*x != 0.0) == (at(i, key) <= at(i, query))))
    };
    let repeated = |op: &Op, args: &[Id]| -> Option<bool> {
        let Op::Broadcast(b) = op else { return None };
        let at = |axis: usize| b.axes.iter().position(|a| *a == axis);
        Some(is_causal(classes, args[0], [at(query)?, at(key)?]))
    };
    let compared = |op: &Op, args: &[Id]| -> Option<bool> {
        let Op::Map(map) = op else { return None };
        if map.body != Body::binary(Binary::Le) {
            return None;
        }
        Some(counts(classes, args[0], key) && counts(classes, args[1], query))
    };
    classes
        .ops(id)
        .any(|(op, args)| table(&op).or_else(|| repeated(&op, args)).or_else(|| compared(&op, args)).unwrap_or(false))
}

/// True if a value is the index along an axis.
fn counts(classes: Classes, id: Id, axis: usize) -> bool {
    classes.ops(id).any(|(op, args)| match op {
        Op::Iota(iota) => iota.axis == axis,
        Op::Broadcast(b) => b.axes.iter().position(|a| *a == axis).is_some_and(|i| counts(classes, args[0], i)),
        _ => false,
    })
}

fn normalise_after_values(m: &Match) -> Result<Term, Refusal> {
    let (s2, axes, r): (ContractSpec, Vec<usize>, Vec<usize>) = (m.attr("s2"), m.attr("axes"), m.attr("r"));
    let [axis] = axes[..] else { return Err("over several axes".into()) };
    if m.root_ty().dtype != DType::F32 || m.attr::<DType>("d") != DType::F32 {
        return Err("not computed in f32".into());
    }
    let term = |first: bool| -> Option<Term> {
        let weights = if first { &s2.a } else { &s2.b };
        let values = if first { &s2.b } else { &s2.a };
        if weights.len() != m.sizes("x").len() || values.len() != m.sizes("v").len() {
            return None;
        }
        let key = weights[axis];
        // The divisor has the weights' other letters, each where the result has it.
        let left: Vec<u8> = weights.iter().copied().filter(|l| *l != key).collect();
        let lies = left.len() == r.len() && left.iter().zip(&r).all(|(l, &place)| s2.out.get(place) == Some(l));
        if s2.out.contains(&key) || !values.contains(&key) || !lies {
            return None;
        }
        let softmax = Term::op(selvedge_ir::ops::Softmax { axis }, [m.term("x")]);
        let args = if first { [softmax, m.term("v")] } else { [m.term("v"), softmax] };
        Some(Term::op(Contract { spec: s2.clone(), dtype: DType::F32 }, args))
    };
    // Which operand the weights are: the quotient's numerator says so.
    let exp = |id: Id| classes_exp(m.classes, id, m.id("x"));
    let numerator = m.classes.ops(m.root).find_map(|(op, args)| match op {
        Op::Map(map) if map.body == Body::binary(Binary::Div) => Some(args[0]),
        _ => None,
    });
    let first = numerator.and_then(|id| {
        find(m.classes, id, |op, args| match op {
            Op::Contract(c) if c.spec == s2 && args.contains(&m.id("v")) => Some(exp(args[0]) && args[1] == m.id("v")),
            _ => None,
        })
    });
    let first = first.ok_or("the contraction is no longer there")?;
    term(first).ok_or_else(|| "the divisor is over other axes".into())
}

fn classes_exp(classes: Classes, id: Id, x: Id) -> bool {
    let exp = Body::unary(selvedge_ir::scalar::Unary::Exp);
    classes.ops(id).any(|(op, args)| matches!(op, Op::Map(map) if map.body == exp) && args[0] == x)
}

/// One head of a concatenation: the attention and its operands.
struct Head {
    op: Attention,
    args: Vec<Id>,
}

fn concat_of_attentions(classes: Classes, root: Id, op: &Op, parts: &[Id]) -> Result<Term, Refusal> {
    let axis = concat_axis(op)?;
    let attention = |id: Id| {
        find(classes, id, |op, args| match op {
            Op::Attention(op) if args.len() == 3 => Some(Head { op: op.clone(), args: args.to_vec() }),
            _ => None,
        })
    };
    let head = |id: &Id| {
        attention(*id).or_else(|| {
            find(classes, *id, |op, args| if matches!(op, Op::Reshape(_)) { attention(args[0]) } else { None })
        })
    };
    let heads: Vec<Head> = parts.iter().map(head).collect::<Option<_>>().ok_or("a part is no attention")?;
    let first = &heads[0];
    let types = |h: &Head| h.args.iter().map(|a| classes.ty(*a).clone()).collect::<Vec<_>>();
    let equal = heads.iter().all(|h| h.op == first.op && types(h) == types(first));
    let shape = classes.ty(first.args[0]).shape.sizes();
    if heads.len() < 2 || !equal || shape[0] != 1 {
        return Err("the heads differ".into());
    }
    let stacked: Vec<Term> = (0..3)
        .map(|i| Term::op(Concat { axis: 0 }, heads.iter().map(|h| Term::Class(h.args[i])).collect::<Vec<_>>()))
        .collect();
    let part = classes.ty(parts[0]).shape.sizes();
    let mut split = vec![heads.len()];
    split.extend(&part);
    // The head's axis goes before the axis along which the parts are put together, and is merged with it.
    let mut perm: Vec<usize> = (1..split.len()).collect();
    perm.insert(axis, 0);
    let mut sizes = shape;
    sizes[0] = heads.len();
    sizes[3] = classes.ty(first.args[2]).shape.sizes()[3];
    let whole = Viewed { term: Term::op(first.op.clone(), stacked), sizes };
    Ok(whole.reshape(&split).transpose(&perm).reshape(&classes.ty(root).shape.sizes()).term)
}
