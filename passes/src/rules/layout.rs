//! Views: merged, cancelled, moved towards the results, where contractions and other views take them in.

use super::words::{Viewed, find, in_f32, number, others};
use crate::canonical_contract::inserted;
use crate::saturate::{Bindings, Classes, Id, Match, Phase, Refusal, Rule, Term};
use selvedge_ir::ops::{Broadcast, Concat, Map, Reduce, Reshape, Slice, Softmax, Transpose};
use selvedge_ir::scalar::Binary;
use selvedge_ir::{Op, OpKind, Shape};

pub(super) fn rules() -> Vec<Rule> {
    let mut rules = merged();
    rules.extend(maps());
    rules.extend(moved());
    rules.extend(concats());
    rules
}

fn rule(
    name: &'static str,
    law: &'static str,
    left: &[&str],
    right: impl Fn(&Match) -> Result<Term, Refusal> + Send + Sync + 'static,
) -> Rule {
    Rule::new(name, law, Phase::Layout, left, right)
}

/// Views of views, and views that change nothing.
fn merged() -> Vec<Rule> {
    vec![
        rule("transpose-to-itself", "a transpose by the identity is its operand", &["(transpose ?p ?x)"], |m| {
            if m.attr::<Vec<usize>>("p").is_sorted() { Ok(m.term("x")) } else { Err("axes move".into()) }
        }),
        rule("reshape-to-itself", "a reshape to the operand's shape is the operand", &["(reshape ?s ?x)"], |m| {
            if m.ty("x") == m.root_ty() { Ok(m.term("x")) } else { Err("another shape".into()) }
        }),
        rule(
            "broadcast-to-itself",
            "a broadcast to the operand's shape is the operand",
            &["(broadcast ?s ?a ?x)"],
            |m| {
                if m.ty("x") == m.root_ty() { Ok(m.term("x")) } else { Err("something is repeated".into()) }
            },
        ),
        rule(
            "transpose-of-transpose",
            "transpose p (transpose q x) = transpose (q∘p) x, and x itself if q∘p is the identity",
            &["(transpose ?p (transpose ?q ?x))"],
            |m| {
                let (p, q): (Vec<usize>, Vec<usize>) = (m.attr("p"), m.attr("q"));
                let perm: Vec<usize> = p.iter().map(|&i| q[i]).collect();
                Ok(Viewed::new(m, "x").transpose(&perm).term)
            },
        ),
        rule(
            "reshape-of-reshape",
            "reshape s (reshape t x) = reshape s x, and x itself if it has that shape",
            &["(reshape ?s (reshape ?t ?x))"],
            |m| Ok(Viewed::new(m, "x").reshape(&m.attr::<Shape>("s").sizes()).term),
        ),
        rule(
            "broadcast-of-broadcast",
            "repeating what is repeated is one repetition",
            &["(broadcast ?s ?a (broadcast ?t ?b ?x))"],
            |m| {
                let (a, b): (Vec<usize>, Vec<usize>) = (m.attr("a"), m.attr("b"));
                let axes = b.iter().map(|&i| a[i]).collect();
                Ok(Term::op(Broadcast { shape: m.attr("s"), axes }, [m.term("x")]))
            },
        ),
        rule(
            "broadcast-of-unit-axes",
            "unit axes put in before a repetition are axes of the repetition: a reduced axis kept and repeated is one broadcast",
            &["(broadcast ?s ?a (reshape ?t ?x))"],
            |m| {
                let (a, t): (Vec<usize>, Shape) = (m.attr("a"), m.attr("t"));
                let places = inserted(&m.ty("x").shape, &t).ok_or("not only unit axes")?;
                let axes = places.iter().map(|&i| a[i]).collect();
                Ok(Term::op(Broadcast { shape: m.attr("s"), axes }, [m.term("x")]))
            },
        ),
        rule(
            "reshape-of-broadcast",
            "unit axes put into a repeated value are axes of the repetition",
            &["(reshape ?s (broadcast ?t ?a ?x))"],
            |m| {
                let (s, t, a): (Shape, Shape, Vec<usize>) = (m.attr("s"), m.attr("t"), m.attr("a"));
                let places = inserted(&t, &s).ok_or("not only unit axes")?;
                let axes = a.iter().map(|&i| places[i]).collect();
                Ok(Term::op(Broadcast { shape: s, axes }, [m.term("x")]))
            },
        ),
        rule(
            "transpose-of-unit-axes",
            "a transpose that moves unit axes only is a reshape",
            &["(transpose ?p ?x)"],
            |m| {
                let (p, sizes): (Vec<usize>, Vec<usize>) = (m.attr("p"), m.sizes("x"));
                let wide: Vec<usize> = p.iter().copied().filter(|&i| sizes[i] != 1).collect();
                if p.is_sorted() || !wide.is_sorted() {
                    return Err("wide axes move".into());
                }
                let moved: Vec<usize> = p.iter().map(|&i| sizes[i]).collect();
                Ok(Viewed::new(m, "x").reshape(&moved).term)
            },
        ),
        rule(
            "slice-of-slice",
            "every t-th of every s-th element from a start is every st-th from a start",
            &["(slice ?b ?e ?t (slice ?c ?f ?s ?x))"],
            |m| {
                let of = |n: &str| m.attr::<Vec<usize>>(n);
                let (b, e, t, c, s) = (of("b"), of("e"), of("t"), of("c"), of("s"));
                let at = |i: usize, n: usize| c[i] + n * s[i];
                let start: Vec<usize> = (0..b.len()).map(|i| at(i, b[i])).collect();
                // Up to the last element that is taken, and not beyond the operand.
                let last = |i: usize| if e[i] > b[i] { at(i, e[i] - 1) + 1 } else { start[i] };
                let end = (0..b.len()).map(last).collect();
                let step = (0..b.len()).map(|i| s[i] * t[i]).collect();
                Ok(Term::op(Slice { start, end, step }, [m.term("x")]))
            },
        ),
    ]
}

/// What a law of a variadic operator makes of one of its nodes.
type Node = fn(Classes, Id, &Op, &[Id]) -> Result<Term, Refusal>;

/// A law of an operator with any number of operands. A place is tried once, so it is found only where the law applies:
/// what an operand is may become known later.
pub(super) fn variadic(name: &'static str, law: &'static str, phase: Phase, kind: OpKind, node: Node) -> Rule {
    let left = move |classes: Classes, root: Id, op: &Op, args: &[Id]| -> Vec<Bindings> {
        if node(classes, root, op, args).is_ok() { vec![numbered(args)] } else { Vec::new() }
    };
    let right = move |m: &Match| {
        let bound = m.all("x");
        // Several nodes may have these operands; they are equal, so any that the law takes will do.
        let nodes = m.classes.ops(m.root).filter(|(op, args)| op.kind() == kind && **args == bound[..]);
        let mut terms = nodes.map(|(op, args)| node(m.classes, m.root, &op, args));
        terms.find(|t| t.is_ok()).unwrap_or_else(|| Err("the operator is no longer there".into()))
    };
    Rule::custom(name, law, phase, kind, left, right)
}

/// Transposes, reshapes and repetitions of all operands of a map are one of its result.
fn maps() -> Vec<Rule> {
    vec![
        variadic(
            "map-of-transposes",
            "f(transpose a, transpose b) = transpose f(a, b) for one permutation; what is repeated is transposed back",
            Phase::Layout,
            OpKind::Map,
            map_of_transposes,
        ),
        variadic(
            "map-of-reshapes",
            "f(reshape a, reshape b) = reshape f(a, b) if a and b have one shape",
            Phase::Layout,
            OpKind::Map,
            map_of_reshapes,
        ),
        variadic(
            "map-of-broadcasts",
            "f(repeat a, repeat b) = repeat f(a, b): computed once, then repeated",
            Phase::Layout,
            OpKind::Map,
            map_of_broadcasts,
        ),
    ]
}

fn map_of_transposes(classes: Classes, _: Id, op: &Op, args: &[Id]) -> Result<Term, Refusal> {
    let perm = args.iter().find_map(|a| find(classes, *a, |op, _| permutation(op)));
    let perm = perm.ok_or("no transpose")?;
    let mut back = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(i, &p)| back[p] = i);
    let below = |id: &Id| -> Option<Term> {
        let same = |op: &Op, args: &[Id]| (permutation(op)? == perm).then(|| Term::Class(args[0]));
        let repeated = |op: &Op, args: &[Id]| match op {
            Op::Broadcast(b) => Some(transposed_broadcast(classes, b, args[0], &back)),
            _ => None,
        };
        find(classes, *id, same).or_else(|| find(classes, *id, repeated))
    };
    let below: Vec<Term> = args.iter().map(below).collect::<Option<_>>().ok_or("another view")?;
    Ok(Term::op(Transpose { perm }, [Term::op(op.clone(), below)]))
}

fn map_of_reshapes(classes: Classes, root: Id, op: &Op, args: &[Id]) -> Result<Term, Refusal> {
    let shapes = |id: &Id| {
        let from = |(op, args): (Op, &[Id])| matches!(op, Op::Reshape(_)).then(|| args[0]);
        classes.ops(*id).filter_map(from).collect::<Vec<Id>>()
    };
    let candidates: Vec<Vec<Id>> = args.iter().map(shapes).collect();
    let root = &classes.ty(root).shape;
    let fits = |first: &Id| -> Option<Vec<Term>> {
        let shape = &classes.ty(*first).shape;
        let same = |ids: &Vec<Id>| ids.iter().find(|id| classes.ty(**id).shape == *shape).copied();
        (shape != root).then_some(())?;
        candidates.iter().map(|ids| Some(Term::Class(same(ids)?))).collect()
    };
    let below = candidates[0].iter().find_map(fits).ok_or("different shapes")?;
    Ok(Term::op(Reshape { shape: root.clone() }, [Term::op(op.clone(), below)]))
}

/// Operands as the variables x0, x1 …
fn numbered(args: &[Id]) -> Bindings {
    args.iter().enumerate().map(|(i, id)| (format!("x{i}"), *id)).collect()
}

fn permutation(op: &Op) -> Option<Vec<usize>> {
    match op {
        Op::Transpose(t) => Some(t.perm.clone()),
        _ => None,
    }
}

/// The transpose of a broadcast as a broadcast: axes of the operand in the order in which they come.
fn transposed_broadcast(classes: Classes, b: &Broadcast, x: Id, perm: &[usize]) -> Term {
    let sizes = b.shape.sizes();
    let shape: Vec<usize> = perm.iter().map(|&p| sizes[p]).collect();
    // Result axis of each operand axis, and the operand's axes in rising order of it.
    let place = |i: usize| perm.iter().position(|&p| p == b.axes[i]).expect("a permutation");
    let mut order: Vec<usize> = (0..b.axes.len()).collect();
    order.sort_by_key(|&i| place(i));
    let axes: Vec<usize> = order.iter().map(|&i| place(i)).collect();
    let view = Broadcast { shape: Shape::new(&shape), axes };
    Term::op(view, [Viewed::of(classes, x).transpose(&order).term])
}

fn map_of_broadcasts(classes: Classes, root: Id, op: &Op, args: &[Id]) -> Result<Term, Refusal> {
    let sizes = classes.ty(root).shape.sizes();
    // Of each operand, the repetition of the smallest value.
    let smallest = |id: &Id| -> Option<(Broadcast, Id)> {
        let from = |(op, args): (Op, &[Id])| match op {
            Op::Broadcast(b) => Some((b, args[0])),
            _ => None,
        };
        let elements = |(_, id): &(Broadcast, Id)| classes.ty(*id).elements();
        classes.ops(*id).filter_map(from).min_by_key(elements)
    };
    let views: Vec<(Broadcast, Id)> = args.iter().map(smallest).collect::<Option<_>>().ok_or("an operand is whole")?;
    // An axis that is repeated in all of them is repeated in the result.
    let varies = |(b, id): &(Broadcast, Id), axis: usize| {
        let extents = classes.ty(*id).shape.sizes();
        b.axes.iter().position(|&a| a == axis).is_some_and(|i| extents[i] == sizes[axis])
    };
    let kept: Vec<usize> = (0..sizes.len()).filter(|&a| views.iter().any(|v| varies(v, a))).collect();
    if kept.iter().map(|&a| sizes[a]).product::<usize>() >= sizes.iter().product() {
        return Err("nothing is repeated in all operands".into());
    }
    let small: Vec<usize> = kept.iter().map(|&a| sizes[a]).collect();
    let below = |v: &(Broadcast, Id)| {
        let (b, id) = v;
        let own: Vec<usize> = b.axes.iter().copied().filter(|&a| varies(v, a)).collect();
        let axes: Vec<usize> = own.iter().map(|a| kept.iter().position(|k| k == a).expect("kept")).collect();
        let extents: Vec<usize> = own.iter().map(|&a| sizes[a]).collect();
        Viewed::of(classes, *id).reshape(&extents).broadcast(&small, &axes).term
    };
    let below: Vec<Term> = views.iter().map(below).collect();
    Ok(Term::op(Broadcast { shape: Shape::new(&sizes), axes: kept }, [Term::op(op.clone(), below)]))
}

/// The bound map is a multiplication by a number, in f32.
fn scale(m: &Match) -> Result<f64, Refusal> {
    in_f32(m)?;
    number(m, "f", Binary::Mul)
}

/// Scales and reductions past views.
fn moved() -> Vec<Rule> {
    vec![
        rule(
            "transpose-of-scale",
            "the transpose of x · c is the transpose of x, times c: scales come out, towards contractions and attention",
            &["(transpose ?p (map ?f ?x))"],
            |m| {
                scale(m)?;
                let view = Viewed::new(m, "x").transpose(&m.attr::<Vec<usize>>("p"));
                Ok(Term::op(Map { body: m.attr("f") }, [view.term]))
            },
        ),
        rule(
            "reshape-of-scale",
            "a reshape of x · c is the reshape of x, times c",
            &["(reshape ?s (map ?f ?x))"],
            |m| {
                scale(m)?;
                let view = Viewed::new(m, "x").reshape(&m.attr::<Shape>("s").sizes());
                Ok(Term::op(Map { body: m.attr("f") }, [view.term]))
            },
        ),
        rule(
            "slice-of-scale",
            "a slice of x · c is the slice of x, times c",
            &["(slice ?b ?e ?s (map ?f ?x))"],
            |m| {
                scale(m)?;
                let slice = Slice { start: m.attr("b"), end: m.attr("e"), step: m.attr("s") };
                Ok(Term::op(Map { body: m.attr("f") }, [Term::op(slice, [m.term("x")])]))
            },
        ),
        rule(
            "transpose-of-broadcast",
            "a transposed repetition repeats along the moved axes",
            &["(transpose ?p (broadcast ?s ?a ?x))"],
            |m| {
                let view = Broadcast { shape: m.attr("s"), axes: m.attr("a") };
                Ok(transposed_broadcast(m.classes, &view, m.id("x"), &m.attr::<Vec<usize>>("p")))
            },
        ),
        rule(
            "softmax-of-unit-axes",
            "unit axes put in before a softmax can be put in after it",
            &["(softmax ?axis (reshape ?s ?x))"],
            |m| {
                let (axis, s): (usize, Shape) = (m.attr("axis"), m.attr("s"));
                let places = inserted(&m.ty("x").shape, &s).ok_or("not only unit axes")?;
                let axis = places.iter().position(|&i| i == axis).ok_or("along an axis that was put in")?;
                let weights = Term::op(Softmax { axis }, [m.term("x")]);
                Ok(Viewed { term: weights, sizes: m.sizes("x") }.reshape(&s.sizes()).term)
            },
        ),
        rule(
            "reduce-of-transpose",
            "a reduction of a transposed value reduces the axes where they were",
            &["(reduce ?k ?axes (transpose ?p ?x))"],
            |m| {
                let (axes, p): (Vec<usize>, Vec<usize>) = (m.attr("axes"), m.attr("p"));
                let mut own: Vec<usize> = axes.iter().map(|&a| p[a]).collect();
                own.sort_unstable();
                let left = others(&own, p.len());
                let perm: Vec<usize> = others(&axes, p.len())
                    .iter()
                    .map(|&a| left.iter().position(|&l| l == p[a]).expect("a kept axis"))
                    .collect();
                let reduced = Term::op(Reduce { kind: m.attr("k"), axes: own }, [m.term("x")]);
                let sizes = left.iter().map(|&a| m.sizes("x")[a]).collect();
                Ok(Viewed { term: reduced, sizes }.transpose(&perm).term)
            },
        ),
    ]
}

/// Slices of concatenations, and concatenations of slices.
fn concats() -> Vec<Rule> {
    vec![
        rule(
            "slice-of-concat",
            "a slice within one part of a concatenation is a slice of that part",
            &[
                "(slice ?b ?e ?s (concat ?axis ?x0))",
                "(slice ?b ?e ?s (concat ?axis ?x0 ?x1))",
                "(slice ?b ?e ?s (concat ?axis ?x0 ?x1 ?x2))",
            ],
            |m| {
                let (mut start, mut end, axis) =
                    (m.attr::<Vec<usize>>("b"), m.attr::<Vec<usize>>("e"), m.attr::<usize>("axis"));
                let mut from = 0;
                for part in m.all("x") {
                    let sizes = m.classes.ty(part).shape.sizes();
                    let to = from + sizes[axis];
                    if start[axis] >= from && end[axis] <= to {
                        (start[axis], end[axis]) = (start[axis] - from, end[axis] - from);
                        let step: Vec<usize> = m.attr("s");
                        let whole =
                            start.iter().chain(&step).zip(sizes.iter().map(|_| 0).chain(sizes.iter().map(|_| 1)));
                        if whole.clone().all(|(a, b)| *a == b) && end == sizes {
                            return Ok(Term::Class(part));
                        }
                        return Ok(Term::op(Slice { start, end, step }, [Term::Class(part)]));
                    }
                    from = to;
                }
                Err("more than one part".into())
            },
        ),
        variadic(
            "concat-of-slices",
            "neighbouring slices put together again are one slice, or the whole",
            Phase::Layout,
            OpKind::Concat,
            concat_of_slices,
        ),
        variadic(
            "concat-of-heads",
            "equal neighbouring slices stacked along a new axis are a split of the sliced axis",
            Phase::Layout,
            OpKind::Concat,
            concat_of_heads,
        ),
    ]
}

/// The axis of a concatenation.
pub(super) fn concat_axis(op: &Op) -> Result<usize, Refusal> {
    match op {
        Op::Concat(Concat { axis }) => Ok(*axis),
        _ => Err("no concatenation".into()),
    }
}

fn concat_of_slices(classes: Classes, _: Id, op: &Op, parts: &[Id]) -> Result<Term, Refusal> {
    let (x, slice) = run_of_slices(classes, parts, concat_axis(op)?)?;
    let sizes = classes.ty(x).shape.sizes();
    let whole = slice.start.iter().all(|&s| s == 0) && slice.end == sizes;
    Ok(if whole { Term::Class(x) } else { Term::op(slice, [Term::Class(x)]) })
}

/// The operand and the slice of it that classes are the parts of, along an axis, in order.
fn run_of_slices(classes: Classes, parts: &[Id], axis: usize) -> Result<(Id, Slice), Refusal> {
    let slices = |id: Id| {
        classes.ops(id).filter_map(|(op, args)| match op {
            Op::Slice(s) if s.step.iter().all(|&n| n == 1) => Some((args[0], s)),
            _ => None,
        })
    };
    let (first, rest) = parts.split_first().ok_or("no part")?;
    for (x, first) in slices(*first) {
        let mut whole = first.clone();
        let mut good = !rest.is_empty();
        for part in rest {
            let next = slices(*part).find(|(y, s)| {
                let same = |i: usize| i == axis || (s.start[i] == whole.start[i] && s.end[i] == whole.end[i]);
                *y == x && (0..s.start.len()).all(same) && s.start[axis] == whole.end[axis]
            });
            match next {
                Some((_, s)) => whole.end[axis] = s.end[axis],
                None => good = false,
            }
        }
        if good {
            return Ok((x, whole));
        }
    }
    Err("not neighbouring slices of one value".into())
}

fn concat_of_heads(classes: Classes, root: Id, op: &Op, parts: &[Id]) -> Result<Term, Refusal> {
    let axis = concat_axis(op)?;
    let sizes = classes.ty(parts[0]).shape.sizes();
    if sizes[axis] != 1 || parts.len() < 2 || parts.iter().any(|p| classes.ty(*p).shape.sizes() != sizes) {
        return Err("not stacked along a unit axis".into());
    }
    // Below the unit axes: slices of one value.
    let below = |id: &Id| -> Vec<Id> {
        let from = |(op, args): (Op, &[Id])| matches!(op, Op::Reshape(_)).then(|| args[0]);
        classes.ops(*id).filter_map(from).collect()
    };
    let inner: Vec<Vec<Id>> = parts.iter().map(below).collect();
    for first in &inner[0] {
        let from = &classes.ty(*first).shape;
        let Some(places) = inserted(from, &classes.ty(parts[0]).shape).filter(|p| !p.contains(&axis)) else {
            continue;
        };
        let same = |ids: &Vec<Id>| ids.iter().copied().find(|id| classes.ty(*id).shape == *from);
        let Some(ids) = inner.iter().map(same).collect::<Option<Vec<Id>>>() else { continue };
        for cut in 0..from.rank() {
            let Ok((x, slice)) = run_of_slices(classes, &[&[*first], &ids[1..]].concat(), cut) else { continue };
            let mut taken = Viewed::of(classes, x);
            let whole: Vec<usize> = slice.start.iter().zip(&slice.end).map(|(s, e)| e - s).collect();
            if taken.sizes != whole {
                taken = Viewed { term: Term::op(slice, [taken.term]), sizes: whole.clone() };
            }
            let each = from.sizes()[cut];
            let mut split = whole;
            split.splice(cut..=cut, [parts.len(), each]);
            // The new axis goes where the parts were stacked, among the axes that are not put in.
            let at = places.iter().filter(|&&p| p < axis).count();
            let mut perm: Vec<usize> = (0..split.len()).filter(|&i| i != cut).collect();
            perm.insert(at, cut);
            return Ok(taken.reshape(&split).transpose(&perm).reshape(&classes.ty(root).shape.sizes()).term);
        }
    }
    Err("not slices of one value".into())
}
