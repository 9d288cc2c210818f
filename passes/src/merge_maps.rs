//! `merge-maps`: chains of maps become one map, the inverse of `split-maps`.

use crate::Pass;
use crate::rebuild::{Rebuild, rebuild};
use selvedge_ir::ops::{Broadcast, Map};
use selvedge_ir::scalar::{Binary, Body, Scalar, ScalarId, Unary};
use selvedge_ir::{DType, Diagnostic, Module, Op, ValueId};

/// Operands that a merged map may have at most: beyond, one kernel would read more streams than caches follow.
const MOST_OPERANDS: usize = 12;
/// Primitives of a merged body at most, so that a chain of a hundred maps gives no shader of a thousand lines.
const MOST_NODES: usize = 96;
/// Primitives that may be computed again for every reader: reading the value back costs as much.
const CHEAP: usize = 2;

/// Puts the body of a map into the map that reads it, if it has no other reader or costs less than a read; through
/// broadcasts, if what is repeated is cheap. A value that was rounded on the way is rounded in the body.
pub struct MergeMaps;

impl Pass for MergeMaps {
    fn name(&self) -> &'static str {
        "merge-maps"
    }
    fn summary(&self) -> &'static str {
        "merges maps into the maps that read them, and broadcasts of cheap maps with them"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        for function in &mut module.functions {
            let readers = function.use_counts();
            // Readers of the values under construction: those of the value each stands for.
            let mut counts: Vec<usize> = Vec::new();
            *function = rebuild(function, |r, id, op, args| {
                let new = match op {
                    Op::Map(map) => merged(r, map, args, &counts)?,
                    op => r.copy(op, args)?,
                };
                counts.resize(r.to.function().values.len(), 1);
                counts[new.0 as usize] = readers[id.0 as usize];
                Ok(new)
            })?;
        }
        Ok(module)
    }
}

/// What a reader computes instead of reading an operand: `body` of `operands`.
struct Inline {
    body: Body,
    operands: Vec<ValueId>,
}

fn merged(r: &mut Rebuild, map: &Map, args: &[ValueId], counts: &[usize]) -> Result<ValueId, Diagnostic> {
    let (mut body, mut operands) = (map.body.clone(), args.to_vec());
    // Operands of a map were merged when it was emitted, so one round takes in whole chains.
    let mut at = 0;
    while at < operands.len() {
        let wide = r.to.ty(operands[at]).dtype;
        match inlined(r, operands[at], counts)? {
            Some(inner) => {
                let (next, list) = composed(&body, &operands, at, &inner, wide);
                let dtypes: Vec<DType> = list.iter().map(|a| r.to.ty(*a).dtype).collect();
                let fits = list.len() <= MOST_OPERANDS && next.nodes().len() <= MOST_NODES;
                if fits && next.infer(&dtypes).is_ok_and(|t| t.last() == Some(&result(r, &body, &operands))) {
                    (body, operands) = (next, list);
                } else {
                    at += 1;
                }
            }
            None => at += 1,
        }
    }
    r.to.try_push(Map { body }, &operands)
}

fn result(r: &Rebuild, body: &Body, operands: &[ValueId]) -> DType {
    let dtypes: Vec<DType> = operands.iter().map(|a| r.to.ty(*a).dtype).collect();
    body.infer(&dtypes).ok().and_then(|t| t.last().copied()).expect("the body was well-typed")
}

/// How an operand can be computed by its reader, if it should.
fn inlined(r: &mut Rebuild, id: ValueId, counts: &[usize]) -> Result<Option<Inline>, Diagnostic> {
    let alone = counts.get(id.0 as usize).is_none_or(|&n| n <= 1);
    match r.to.function().op(id) {
        Some((Op::Map(map), args)) if alone || cost(&map.body).is_some_and(|c| c <= CHEAP && args.len() == 1) => {
            Ok(Some(Inline { body: map.body.clone(), operands: args.to_vec() }))
        }
        Some((Op::Broadcast(view), args)) => {
            let (view, below) = (view.clone(), args[0]);
            let Some((Op::Map(map), args)) = r.to.function().op(below) else { return Ok(None) };
            if cost(&map.body).is_none_or(|c| c > CHEAP) {
                return Ok(None);
            }
            let (body, args) = (map.body.clone(), args.to_vec());
            let mut operands = Vec::new();
            for arg in args {
                let view: Broadcast = view.clone();
                operands.push(r.to.try_push(view, &[arg])?);
            }
            Ok(Some(Inline { body, operands }))
        }
        _ => Ok(None),
    }
}

/// `body` with operand `at` replaced by `inner`, over a common list of operands.
fn composed(body: &Body, operands: &[ValueId], at: usize, inner: &Inline, wide: DType) -> (Body, Vec<ValueId>) {
    let mut list: Vec<ValueId> = Vec::new();
    let place = |list: &mut Vec<ValueId>, id: ValueId| {
        list.iter().position(|l| *l == id).unwrap_or_else(|| {
            list.push(id);
            list.len() - 1
        })
    };
    // The order of appearance is kept, the new operands where the old one was.
    let mut outer: Vec<Option<usize>> = Vec::new();
    let mut inside: Vec<usize> = Vec::new();
    for (i, id) in operands.iter().enumerate() {
        if i == at {
            inside = inner.operands.iter().map(|o| place(&mut list, *o)).collect();
            outer.push(None);
        } else {
            outer.push(Some(place(&mut list, *id)));
        }
    }
    let body = Body::build(list.len(), |b| {
        let args: Vec<ScalarId> = inside.iter().map(|&i| b.arg(i)).collect();
        let mut value = b.inline(&inner.body, Some(&args));
        let rounds = matches!(wide, DType::F16 | DType::BF16);
        let cast = matches!(inner.body.nodes().last(), Some(Scalar::Cast(to, _)) if *to == wide);
        if rounds && !cast {
            value = b.cast(wide, value);
        }
        let args: Vec<ScalarId> = outer.iter().map(|o| o.map_or(value, |i| b.arg(i))).collect();
        b.inline(body, Some(&args))
    });
    (body, list)
}

/// Primitives that cost arithmetic, or `None` if one of them is slow.
fn cost(body: &Body) -> Option<usize> {
    let mut sum = 0;
    for node in body.nodes() {
        match node {
            Scalar::Unary(Unary::Neg | Unary::Abs | Unary::Not, _) => sum += 1,
            Scalar::Unary(..) | Scalar::Binary(Binary::Pow | Binary::Div | Binary::Rem, ..) => return None,
            Scalar::Binary(..) | Scalar::Select(..) => sum += 1,
            Scalar::Cast(..) | Scalar::Bits(..) => {}
            Scalar::Arg(_) | Scalar::Float(_) | Scalar::Int(_) | Scalar::Uint(_) | Scalar::Bool(_) => {}
        }
    }
    Some(sum)
}
