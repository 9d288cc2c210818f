//! Operators on several rows at once: the batching rule of each.
//!
//! A batched value has a leading axis of `rows` that the operator does not know of; row i of the result is what the operator
//! gives for row i of its batched operands. A value that is not batched is the same for all rows.

use selvedge_ir::func::Builder;
use selvedge_ir::ops::{
    Broadcast, Concat, Contract, Gather, Pad, Reduce, Reshape, Scan, Scatter, Slice, Softmax, Topk, Transpose,
};
use selvedge_ir::{ContractSpec, Diagnostic, Op, Shape, ValueId};

/// An operand: the value, and whether it is batched.
pub(crate) type Operand = (ValueId, bool);

/// True if there is a rule for the operator with these operands batched (at least one is).
pub(crate) fn has_rule(op: &Op, batched: &[bool]) -> bool {
    let only_first = || batched[0] && batched[1..].iter().all(|b| !b);
    match op {
        Op::Map(_)
        | Op::Reduce(_)
        | Op::Contract(_)
        | Op::Scan(_)
        | Op::Transpose(_)
        | Op::Reshape(_)
        | Op::Broadcast(_)
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Concat(_)
        | Op::Gather(_)
        | Op::Scatter(_)
        | Op::Topk(_)
        | Op::Softmax(_)
        | Op::Attention(_) => true,
        // The batch axis of these takes the rows in; what they are given besides `x` is the same for all.
        Op::Window(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::GroupNorm(_)
        | Op::Rope(_)
        | Op::PoolTokens(_)
        | Op::Resize(_) => only_first(),
        Op::LocalAttention(_) => batched.iter().all(|b| *b),
        Op::Input(_) | Op::Weight(_) | Op::State(_) | Op::Const(_) | Op::Iota(_) => false,
    }
}

/// Emits an operator for `rows` rows; the result is batched.
///
/// # Errors
/// What the operator's own constraints say; there is a rule ([`has_rule`]).
pub(crate) fn emit(b: &mut Builder, op: &Op, args: &[Operand], rows: usize) -> Result<ValueId, Diagnostic> {
    let first = args[0].0;
    let new: Op = match op {
        Op::Map(_) => {
            let args = all_batched(b, args, rows)?;
            return b.try_push(op.clone(), &args);
        }
        Op::Concat(c) => {
            let args = all_batched(b, args, rows)?;
            return b.try_push(Concat { axis: c.axis + 1 }, &args);
        }
        Op::Contract(c) => {
            // A letter that no operand has: a batch letter if both are batched, else one more row or column.
            let z = 1 + c.spec.a.iter().chain(&c.spec.b).copied().max().unwrap_or(0);
            let term = |letters: &[u8], batched: bool| -> Vec<u8> {
                batched.then_some(z).into_iter().chain(letters.iter().copied()).collect()
            };
            let (a, k) = (term(&c.spec.a, args[0].1), term(&c.spec.b, args[1].1));
            let spec = ContractSpec::new(&a, &k, &term(&c.spec.out, true))
                .map_err(|message| Diagnostic::new("vmap", message))?;
            return b.try_push(Contract { spec, dtype: c.dtype }, &[first, args[1].0]);
        }
        Op::Gather(g) => return gather(b, g, args, rows),
        Op::Scatter(s) => {
            let args = all_batched(b, args, rows)?;
            return b.try_push(Scatter { kind: s.kind, axis: s.axis + 1, batch: s.batch + 1 }, &args);
        }
        Op::Reduce(r) => Reduce { kind: r.kind, axes: r.axes.iter().map(|a| a + 1).collect() }.into(),
        Op::Scan(s) => Scan { axis: s.axis + 1, ..s.clone() }.into(),
        Op::Topk(t) => Topk { axis: t.axis + 1, ..t.clone() }.into(),
        Op::Softmax(s) => Softmax { axis: s.axis + 1 }.into(),
        Op::Transpose(t) => Transpose { perm: [0].into_iter().chain(t.perm.iter().map(|p| p + 1)).collect() }.into(),
        Op::Reshape(r) => Reshape { shape: led(rows, &r.shape) }.into(),
        Op::Broadcast(r) => Broadcast {
            shape: led(rows, &r.shape),
            axes: [0].into_iter().chain(r.axes.iter().map(|a| a + 1)).collect(),
        }
        .into(),
        Op::Slice(s) => {
            let lead = |n: usize, list: &[usize]| [n].into_iter().chain(list.iter().copied()).collect();
            Slice { start: lead(0, &s.start), end: lead(rows, &s.end), step: lead(1, &s.step) }.into()
        }
        Op::Pad(p) => {
            Pad { padding: [(0, 0)].into_iter().chain(p.padding.iter().copied()).collect(), value: p.value }.into()
        }
        // Over the last axis, whatever stands before it.
        Op::LayerNorm(_) | Op::RmsNorm(_) => op.clone(),
        Op::Window(_)
        | Op::GroupNorm(_)
        | Op::Rope(_)
        | Op::PoolTokens(_)
        | Op::Resize(_)
        | Op::Attention(_)
        | Op::LocalAttention(_) => return in_batch_axis(b, op, args, rows),
        Op::Input(_) | Op::Weight(_) | Op::State(_) | Op::Const(_) | Op::Iota(_) => {
            return Err(Diagnostic::new("vmap", "a leaf has no rows"));
        }
    };
    let rest: Vec<ValueId> = args.iter().map(|(id, _)| *id).collect();
    b.try_push(new, &rest)
}

/// The rows become part of the operator's own batch axis, the first.
fn in_batch_axis(b: &mut Builder, op: &Op, args: &[Operand], rows: usize) -> Result<ValueId, Diagnostic> {
    let joined = matches!(op, Op::Attention(_) | Op::LocalAttention(_));
    let batch = {
        let (x, batched) = args[0];
        b.ty(x).shape.0[usize::from(batched)].get().unwrap_or(1)
    };
    let mut folded = Vec::with_capacity(args.len());
    for (i, &(id, batched)) in args.iter().enumerate() {
        if i > 0 && !joined {
            folded.push(id);
            continue;
        }
        let id = if batched { id } else { repeat(b, id, rows)? };
        let mut shape = b.ty(id).shape.clone();
        // A mask may have one row for the whole batch.
        let id = if shape.0[1].get() == Some(batch) {
            id
        } else {
            shape.0[1] = batch.into();
            let axes = (0..shape.rank()).collect();
            b.try_push(Broadcast { shape: shape.clone(), axes }, &[id])?
        };
        let rest = shape.0.split_off(2);
        let flat = Shape([(rows * batch).into()].into_iter().chain(rest).collect());
        folded.push(b.try_push(Reshape { shape: flat }, &[id])?);
    }
    let result = b.try_push(op.clone(), &folded)?;
    let rest = b.ty(result).shape.0[1..].to_vec();
    let shape = Shape([rows.into(), batch.into()].into_iter().chain(rest).collect());
    b.try_push(Reshape { shape }, &[result])
}

fn gather(b: &mut Builder, g: &Gather, args: &[Operand], rows: usize) -> Result<ValueId, Diagnostic> {
    let [(x, of_x), (indices, of_indices)] = [args[0], args[1]];
    match (of_x, of_indices) {
        // The new axis of the indices is one more axis to pick for; it comes behind those before `axis`.
        (false, true) if g.batch == 0 => {
            let picked = b.try_push(g.clone(), &[x, indices])?;
            let rank = b.ty(picked).rank();
            if g.axis == 0 {
                return Ok(picked);
            }
            let perm = [g.axis].into_iter().chain((0..rank).filter(|a| *a != g.axis)).collect();
            b.try_push(Transpose { perm }, &[picked])
        }
        (true, false) if g.batch == 0 => b.try_push(Gather { axis: g.axis + 1, batch: 0 }, &[x, indices]),
        _ => {
            let args = all_batched(b, args, rows)?;
            b.try_push(Gather { axis: g.axis + 1, batch: g.batch + 1 }, &args)
        }
    }
}

fn all_batched(b: &mut Builder, args: &[Operand], rows: usize) -> Result<Vec<ValueId>, Diagnostic> {
    args.iter().map(|&(id, batched)| if batched { Ok(id) } else { repeat(b, id, rows) }).collect()
}

/// A value for each row: a view.
fn repeat(b: &mut Builder, id: ValueId, rows: usize) -> Result<ValueId, Diagnostic> {
    let shape = b.ty(id).shape.clone();
    let axes = (1..=shape.rank()).collect();
    b.try_push(Broadcast { shape: led(rows, &shape), axes }, &[id])
}

/// A shape behind an axis of `rows`.
fn led(rows: usize, shape: &Shape) -> Shape {
    Shape([rows.into()].into_iter().chain(shape.0.iter().cloned()).collect())
}
