//! `canonicalize`: one spelling for what is obviously the same.

use crate::Pass;
use crate::rebuild::{joined, renumber};
use selvedge_ir::known::Known;
use selvedge_ir::ops::Map;
use selvedge_ir::scalar::Body;
use selvedge_ir::{Def, Diagnostic, Function, Module, Op, TensorType, ValueId};

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
        module.functions.iter_mut().for_each(canonicalize);
        Ok(module)
    }
}

/// Values are moved, not copied: most stay as they are.
fn canonicalize(function: &mut Function) {
    let values = std::mem::take(&mut function.values);
    function.values.reserve(values.len());
    let mut known = Known::default();
    let mut map: Vec<ValueId> = Vec::with_capacity(values.len());
    let mut called = vec![false; function.calls.len()];
    for mut value in values {
        let new = ValueId(function.values.len() as u32);
        let same = match &mut value.def {
            Def::Result { call, .. } => {
                if !std::mem::replace(&mut called[call.0 as usize], true) {
                    renumber(&map, &mut function.calls[call.0 as usize].args);
                }
                None
            }
            Def::Op { op, args } => {
                renumber(&map, args);
                merge(function, op, args);
                match identity(op, args, |id| function.ty(id)) {
                    Some(same) => Some(same),
                    None if matches!(op, Op::Input(_)) => None,
                    None => match known.find(function, op, args) {
                        Ok(same) => Some(same),
                        Err(slot) => {
                            known.insert(slot, new);
                            None
                        }
                    },
                }
            }
        };
        map.push(same.unwrap_or(new));
        match same {
            Some(same) => joined(&mut function.values[same.0 as usize], value.places, value.name),
            None => function.values.push(value),
        }
    }
    for (call, _) in function.calls.iter_mut().zip(called).filter(|(_, called)| !called) {
        renumber(&map, &mut call.args);
    }
    function.returns.iter_mut().for_each(|r| r.value = map[r.value.0 as usize]);
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
        // Only such small bodies are compared.
        Op::Map(m) if m.body.nodes().len() > 2 => false,
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

/// Takes a view below into an operator; gives a map each operand once.
fn merge(function: &Function, op: &mut Op, args: &mut Vec<ValueId>) {
    let below = args.first().and_then(|a| function.op(*a));
    let below_args = match (&mut *op, below) {
        (Op::Map(map), _) => return distinct(map, args),
        (Op::Transpose(over), Some((Op::Transpose(under), below))) => {
            over.perm = over.perm.iter().map(|&p| under.perm[p]).collect();
            below
        }
        (Op::Reshape(_), Some((Op::Reshape(_), below))) => below,
        (Op::Broadcast(over), Some((Op::Broadcast(under), below))) => {
            over.axes = under.axes.iter().map(|&a| over.axes[a]).collect();
            below
        }
        _ => return,
    };
    *args = below_args.to_vec();
}

/// Makes the operands of a map all different and all read.
fn distinct(map: &mut Map, args: &mut Vec<ValueId>) {
    if args.iter().enumerate().all(|(i, arg)| map.body.uses(i) && !args[..i].contains(arg)) {
        return;
    }
    let mut kept: Vec<ValueId> = Vec::new();
    for (i, arg) in args.iter().enumerate() {
        if map.body.uses(i) && !kept.contains(arg) {
            kept.push(*arg);
        }
    }
    if kept.is_empty() {
        kept.push(args[0]); // the shape comes from an operand
    }
    if kept.len() == args.len() {
        return;
    }
    let places: Vec<usize> = args.iter().map(|a| kept.iter().position(|k| k == a).unwrap_or(0)).collect();
    map.body = map.body.with_args(kept.len(), &places);
    *args = kept;
}
