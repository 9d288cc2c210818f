//! `canonicalize`: one spelling for what is obviously the same.

use crate::Pass;
use crate::rebuild::{Rebuild, rebuild};
use selvedge_ir::ops::{Broadcast, Map, Reshape, Transpose};
use selvedge_ir::scalar::Body;
use selvedge_ir::{Diagnostic, Function, Module, Op, TensorType, ValueId};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

/// Removes operators that change nothing, merges chains of one view into one, gives maps each operand once, and
/// shares equal values. No rounding and no order of sums changes.
pub struct Canonicalize;

impl Pass for Canonicalize {
    fn name(&self) -> &'static str {
        "canonicalize"
    }
    fn summary(&self) -> &'static str {
        "removes identities, merges chains of views, shares equal values"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        for function in module.functions.iter_mut().filter(|f| !canonical(f)) {
            let mut known: HashMap<(Op, Vec<ValueId>), ValueId> = HashMap::new();
            *function = rebuild(function, |r, _, op, args| {
                let (op, args) = merged(r, op.clone(), args.to_vec());
                if let Some(same) = identity(&op, &args, |id| r.to.ty(id)) {
                    return Ok(same);
                }
                if matches!(op, Op::Input(_)) {
                    return r.copy(&op, &args);
                }
                match known.entry((op, args)) {
                    Entry::Occupied(same) => Ok(*same.get()),
                    Entry::Vacant(new) => {
                        let (op, args) = new.key();
                        let id = r.copy(op, args)?;
                        Ok(*new.insert(id))
                    }
                }
            })?;
        }
        Ok(module)
    }
}

/// True if nothing would change: asked first, since most functions come again as they were left.
fn canonical(function: &Function) -> bool {
    let mut known: HashSet<(&Op, &[ValueId])> = HashSet::with_capacity(function.values.len());
    function.ids().all(|id| {
        let Some((op, args)) = function.op(id) else { return true };
        if let Op::Input(_) = op {
            return true;
        }
        identity(op, args, |id| function.ty(id)).is_none() && !merges(function, op, args) && known.insert((op, args))
    })
}

/// Whether [`merged`] changes an operator.
fn merges(function: &Function, op: &Op, args: &[ValueId]) -> bool {
    let below = args.first().and_then(|a| function.op(*a)).map(|(below, _)| below);
    match (op, below) {
        (Op::Map(map), _) => args.iter().enumerate().any(|(i, arg)| !map.body.uses(i) || args[..i].contains(arg)),
        (Op::Transpose(_), Some(Op::Transpose(_)))
        | (Op::Reshape(_), Some(Op::Reshape(_)))
        | (Op::Broadcast(_), Some(Op::Broadcast(_))) => true,
        _ => false,
    }
}

/// The operand that an operator gives back unchanged.
fn identity<'a>(op: &Op, args: &[ValueId], ty: impl Fn(ValueId) -> &'a TensorType) -> Option<ValueId> {
    let x = *args.first()?;
    let shape = &ty(x).shape;
    let unchanged = match op {
        Op::Transpose(t) => t.perm.iter().copied().eq(0..t.perm.len()),
        Op::Reshape(r) => r.shape == *shape,
        Op::Broadcast(b) => b.shape == *shape,
        Op::Slice(s) => {
            s.start.iter().all(|&n| n == 0)
                && s.step.iter().all(|&n| n == 1)
                && s.end.iter().zip(&shape.0).all(|(&end, dim)| dim.get() == Some(end))
        }
        Op::Pad(p) => p.padding.iter().all(|&p| p == (0, 0)),
        Op::Concat(_) => args.len() == 1,
        Op::Map(m) => m.body == Body::identity() || m.body == Body::cast(ty(x).dtype),
        Op::Resize(r) => shape.0[2..].iter().map(|d| d.get()).eq(r.size.iter().map(|&n| Some(n))),
        Op::Reduce(_)
        | Op::Contract(_)
        | Op::Window(_)
        | Op::Scan(_)
        | Op::Gather(_)
        | Op::Scatter(_)
        | Op::Topk(_)
        | Op::Input(_)
        | Op::Weight(_)
        | Op::State(_)
        | Op::Const(_)
        | Op::Iota(_)
        | Op::Softmax(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::GroupNorm(_)
        | Op::Attention(_)
        | Op::LocalAttention(_)
        | Op::Rope(_)
        | Op::PoolTokens(_) => false,
    };
    unchanged.then_some(x)
}

/// The operator with a view below it taken in, and a map with each operand once.
fn merged(r: &Rebuild, op: Op, args: Vec<ValueId>) -> (Op, Vec<ValueId>) {
    if let Op::Map(map) = op {
        return distinct(map, args);
    }
    let Some((below, below_args)) = args.first().and_then(|a| r.to.function().op(*a)) else { return (op, args) };
    let both: Op = match (&op, below) {
        (Op::Transpose(over), Op::Transpose(under)) => {
            Transpose { perm: over.perm.iter().map(|&p| under.perm[p]).collect() }.into()
        }
        (Op::Reshape(over), Op::Reshape(_)) => Reshape { shape: over.shape.clone() }.into(),
        (Op::Broadcast(over), Op::Broadcast(under)) => {
            let axes = under.axes.iter().map(|&a| over.axes[a]).collect();
            Broadcast { shape: over.shape.clone(), axes }.into()
        }
        _ => return (op, args),
    };
    (both, below_args.to_vec())
}

/// A map whose operands are all different and all read.
fn distinct(map: Map, args: Vec<ValueId>) -> (Op, Vec<ValueId>) {
    let mut kept: Vec<ValueId> = Vec::new();
    for (i, arg) in args.iter().enumerate() {
        if map.body.uses(i) && !kept.contains(arg) {
            kept.push(*arg);
        }
    }
    if kept.len() == args.len() {
        return (map.into(), args);
    }
    if kept.is_empty() {
        kept.push(args[0]); // the shape comes from an operand
    }
    let places: Vec<usize> = args.iter().map(|a| kept.iter().position(|k| k == a).unwrap_or(0)).collect();
    (Map { body: map.body.with_args(kept.len(), &places) }.into(), kept)
}
