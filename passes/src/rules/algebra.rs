//! Pointwise laws: the few spellings of scales, roots and moments that the composites are written in.
//!
//! All are about f32 maps of one primitive, as `split-maps` leaves them.

use super::words::{
    binary, by, divides_by, in_f32, literal, literal_first, map, number, others, repeated, square, sum, unary,
};
use crate::saturate::{Match, Phase, Refusal, Rule, Term};
use selvedge_ir::ops::{Broadcast, Reduce, ReduceKind};
use selvedge_ir::scalar::{Binary, Body, Unary};
use selvedge_ir::{Op, Shape};

pub(super) fn rules() -> Vec<Rule> {
    let mut rules = numbers();
    rules.extend(roots());
    rules.extend(moments());
    rules.extend(gates());
    rules
}

fn rule(
    name: &'static str,
    law: &'static str,
    left: &[&str],
    right: impl Fn(&Match) -> Result<Term, Refusal> + Send + Sync + 'static,
) -> Rule {
    Rule::new(name, law, Phase::Algebra, left, move |m| {
        in_f32(m)?;
        right(m)
    })
}

/// Literals.
fn numbers() -> Vec<Rule> {
    vec![
        rule("neutral-number", "x · 1 = x / 1 = x + 0 = x", &["(map ?f ?x)"], |m| {
            let body: Body = m.attr("f");
            let neutral = [(Binary::Mul, 1.0), (Binary::Div, 1.0), (Binary::Add, 0.0)];
            match neutral.iter().any(|(op, c)| literal(&body, *op) == Some(*c)) {
                true => Ok(m.term("x")),
                false => Err("not neutral".into()),
            }
        }),
        rule("divide-by-number", "x / c = x · (1/c) for c ≠ 0", &["(map ?f ?x)"], |m| {
            let c = number(m, "f", Binary::Div)?;
            match (1.0 / c).is_finite() && c.is_finite() {
                true => Ok(by(Binary::Mul, m.term("x"), 1.0 / c)),
                false => Err("no finite inverse".into()),
            }
        }),
        rule("negate", "−x = x · −1", &["(map {neg} ?x)"], |m| Ok(by(Binary::Mul, m.term("x"), -1.0))),
        rule("scale-of-scale", "(x · a) · b = x · (a·b)", &["(map ?g (map ?f ?x))"], |m| {
            let (a, b) = (number(m, "f", Binary::Mul)?, number(m, "g", Binary::Mul)?);
            Ok(by(Binary::Mul, m.term("x"), a * b))
        }),
        rule("offset-of-offset", "(x + a) + b = x + (a+b)", &["(map ?g (map ?f ?x))"], |m| {
            let (a, b) = (number(m, "f", Binary::Add)?, number(m, "g", Binary::Add)?);
            Ok(by(Binary::Add, m.term("x"), a + b))
        }),
        rule("add-of-negated", "a + b · −1 = a − b", &["(map {+} ?a (map {x| x * -1.0} ?b))"], |m| {
            Ok(binary(Binary::Sub, m.term("a"), m.term("b")))
        }),
        rule("subtract-negated", "a − b · −1 = a + b", &["(map {-} ?a (map {x| x * -1.0} ?b))"], |m| {
            Ok(binary(Binary::Add, m.term("a"), m.term("b")))
        }),
        rule(
            "add-of-repeated-negated",
            "a + repeat(b · −1) = a − repeat(b)",
            &["(map {+} ?a (broadcast ?s ?r (map {x| x * -1.0} ?b)))"],
            |m| Ok(binary(Binary::Sub, m.term("a"), repeated(m, "s", "r", m.term("b")))),
        ),
        rule("multiply-by-reciprocal", "a · (c / b) = (a / b) · c", &["(map {*} ?a (map ?f ?b))"], |m| {
            let c = literal_first(&m.attr("f"), Binary::Div).ok_or("no reciprocal")?;
            let quotient = binary(Binary::Div, m.term("a"), m.term("b"));
            Ok(if c == 1.0 { quotient } else { by(Binary::Mul, quotient, c) })
        }),
        rule(
            "multiply-by-repeated-reciprocal",
            "a · repeat(1 / b) = a / repeat(b)",
            &["(map {*} ?a (broadcast ?s ?r (map {x| 1.0 / x} ?b)))"],
            |m| Ok(binary(Binary::Div, m.term("a"), repeated(m, "s", "r", m.term("b")))),
        ),
    ]
}

/// Powers and roots.
fn roots() -> Vec<Rule> {
    vec![
        rule("product-with-itself", "x · x is the square, a map of one operand", &["(map {*} ?x ?x)"], |m| {
            Ok(square(m.term("x")))
        }),
        rule(
            "power-by-number",
            "pow(x, 2) = x·x, pow(x, −1) = 1/x; pow(x, ½) = √x and pow(x, −½) = 1/√x for x > 0",
            &["(map ?f ?x)"],
            |m| {
                let (c, x) = (number(m, "f", Binary::Pow)?, m.term("x"));
                match c {
                    2.0 => Ok(square(x)),
                    0.5 => Ok(unary(Unary::Sqrt, x)),
                    -0.5 => Ok(unary(Unary::Rsqrt, x)),
                    -1.0 => Ok(map(
                        Body::build(1, |b| {
                            let (one, x) = (b.float(1.0), b.arg(0));
                            b.binary(Binary::Div, one, x)
                        }),
                        [x],
                    )),
                    _ => Err("another power".into()),
                }
            },
        ),
        rule("reciprocal-of-root", "c / √x = rsqrt(x) · c for x > 0", &["(map ?f (map {sqrt} ?x))"], |m| {
            let c = literal_first(&m.attr("f"), Binary::Div).ok_or("no reciprocal")?;
            let root = unary(Unary::Rsqrt, m.term("x"));
            Ok(if c == 1.0 { root } else { by(Binary::Mul, root, c) })
        }),
        rule("divide-by-root", "a / √b = a · rsqrt(b) for b > 0", &["(map {/} ?a (map {sqrt} ?b))"], |m| {
            Ok(binary(Binary::Mul, m.term("a"), unary(Unary::Rsqrt, m.term("b"))))
        }),
        rule(
            "divide-by-repeated-root",
            "a / repeat(√b) = a · repeat(rsqrt(b)) for b > 0",
            &["(map {/} ?a (broadcast ?s ?r (map {sqrt} ?b)))"],
            |m| Ok(binary(Binary::Mul, m.term("a"), repeated(m, "s", "r", unary(Unary::Rsqrt, m.term("b"))))),
        ),
        rule(
            "factor-out-of-difference",
            "x · r − m · r = (x − m) · r",
            &["(map {-} (map {*} ?x ?r) (map {*} ?m ?r))"],
            |m| Ok(binary(Binary::Mul, binary(Binary::Sub, m.term("x"), m.term("m")), m.term("r"))),
        ),
        rule(
            "repeated-factor-out-of-difference",
            "x · repeat(r) − repeat(m · r) = (x − repeat(m)) · repeat(r)",
            &["(map {-} (map {*} ?x (broadcast ?s ?a ?r)) (broadcast ?s ?a (map {*} ?m ?r)))"],
            |m| {
                let centred = binary(Binary::Sub, m.term("x"), repeated(m, "s", "a", m.term("m")));
                Ok(binary(Binary::Mul, centred, repeated(m, "s", "a", m.term("r"))))
            },
        ),
    ]
}

/// Sums and means.
fn moments() -> Vec<Rule> {
    vec![
        rule("scale-out-of-sum", "Σ (x · c) = (Σ x) · c", &["(reduce sum ?axes (map ?f ?x))"], |m| {
            let c = number(m, "f", Binary::Mul)?;
            Ok(by(Binary::Mul, sum(&m.attr::<Vec<usize>>("axes"), m.term("x")), c))
        }),
        rule(
            "variance-from-moments",
            "Σx²/n − (Σx/n)² = Σ(x − mean)²/n, equal over the reals; the right side does not cancel",
            &[
                "(map {-} (map ?f (reduce sum ?axes (map {x| x * x} ?x))) (map {x| x * x} (map ?f (reduce sum ?axes ?x))))",
            ],
            |m| {
                let (axes, sizes) = (m.attr::<Vec<usize>>("axes"), m.sizes("x"));
                let c = number(m, "f", Binary::Mul)?;
                if !divides_by(c, axes.iter().map(|&a| sizes[a]).product()) {
                    return Err("not a mean".into());
                }
                let mean = by(Binary::Mul, sum(&axes, m.term("x")), c);
                let view = Broadcast { shape: Shape::new(&sizes), axes: others(&axes, sizes.len()) };
                let centred = binary(Binary::Sub, m.term("x"), Term::op(view, [mean]));
                Ok(by(Binary::Mul, sum(&axes, square(centred)), c))
            },
        ),
        rule(
            "reduce-of-reduce",
            "Σ over a of Σ over b = Σ over both; max and min alike",
            &["(reduce ?k ?outer (reduce ?k ?inner ?x))"],
            |m| {
                let kind: ReduceKind = m.attr("k");
                let (outer, inner): (Vec<usize>, Vec<usize>) = (m.attr("outer"), m.attr("inner"));
                if !matches!(kind, ReduceKind::Sum | ReduceKind::Max | ReduceKind::Min) {
                    return Err("does not associate".into());
                }
                let kept = others(&inner, m.sizes("x").len());
                let mut axes: Vec<usize> = outer.iter().map(|&a| kept[a]).chain(inner).collect();
                axes.sort_unstable();
                Ok(Term::op(Reduce { kind, axes }, [m.term("x")]))
            },
        ),
        rule(
            "reduce-of-broadcast",
            "a sum over repeated axes is a product by their extent; a maximum of equals is each of them",
            &["(reduce ?k ?axes (broadcast ?s ?r ?x))"],
            reduce_of_broadcast,
        ),
    ]
}

/// Activations.
fn gates() -> Vec<Rule> {
    let one_more = |m: &Match| match number(m, "g", Binary::Add)? {
        1.0 => Ok(unary(Unary::Sigmoid, by(Binary::Mul, m.term("u"), 2.0))),
        _ => Err(Refusal::from("not one more")),
    };
    vec![
        rule(
            "scale-of-one-plus-tanh",
            "(1 + tanh u) · c = sigmoid(2u) · 2c",
            &["(map ?f (map ?g (map {tanh} ?u)))"],
            move |m| {
                let (c, gate) = (number(m, "f", Binary::Mul)?, one_more(m)?);
                Ok(if c == 0.5 { gate } else { by(Binary::Mul, gate, 2.0 * c) })
            },
        ),
        rule(
            "scaled-times-one-plus-tanh",
            "(x · c) · (1 + tanh u) = (x · sigmoid(2u)) · 2c",
            &["(map {*} (map ?f ?x) (map ?g (map {tanh} ?u)))"],
            move |m| {
                let (c, gate) = (number(m, "f", Binary::Mul)?, one_more(m)?);
                let gated = binary(Binary::Mul, m.term("x"), gate);
                Ok(if c == 0.5 { gated } else { by(Binary::Mul, gated, 2.0 * c) })
            },
        ),
    ]
}

fn reduce_of_broadcast(m: &Match) -> Result<Term, Refusal> {
    let kind: ReduceKind = m.attr("k");
    let (axes, places) = (m.attr::<Vec<usize>>("axes"), m.attr::<Vec<usize>>("r"));
    let (shape, sizes) = (m.attr::<Shape>("s").sizes(), m.sizes("x"));
    if !matches!(kind, ReduceKind::Sum | ReduceKind::Max | ReduceKind::Min) || shape.contains(&0) {
        return Err("neither a sum nor an extremum".into());
    }
    // Axes of x that vanish, and how often each element of x is met.
    let own: Vec<usize> = (0..sizes.len()).filter(|&i| axes.contains(&places[i])).collect();
    let extent = |a: &usize| places.iter().position(|p| p == a).map_or(1, |i| sizes[i]);
    let times: usize = axes.iter().map(|a| shape[*a] / extent(a)).product();
    if times == 1 && axes.is_empty() {
        return Err("nothing is repeated".into());
    }
    let mut term = m.term("x");
    if !own.is_empty() {
        term = Term::op(Reduce { kind, axes: own.clone() }, [term]);
    }
    let left = others(&axes, shape.len());
    let view = Broadcast {
        shape: Shape::new(&left.iter().map(|&a| shape[a]).collect::<Vec<_>>()),
        axes: (0..sizes.len())
            .filter(|i| !own.contains(i))
            .map(|i| left.iter().position(|&a| a == places[i]).expect("a kept axis"))
            .collect(),
    };
    let same = others(&own, sizes.len()).iter().map(|&i| sizes[i]).collect::<Vec<_>>() == view.shape.sizes();
    if !same {
        term = Term::op(Op::from(view), [term]);
    }
    Ok(if kind == ReduceKind::Sum && times > 1 { by(Binary::Mul, term, times as f64) } else { term })
}
