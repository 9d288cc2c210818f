//! Attention that no kernel computes (heads of more than 256 elements, as in autoencoders), in blocks of queries: its scores are never
//! all in memory.

use selvedge_ir::op::TypeError;
use selvedge_ir::ops::{Concat, Slice};
use selvedge_ir::{Builder, Function, Op, TensorType, ValueId};

/// Bytes of a block's scores.
const SCORES: u64 = 64 << 20;
/// Rows of a block are a multiple of these, as tiles of contractions are.
const ROWS: usize = 8;

/// An attention as a join of attentions of some of the queries each, whose f32 scores are one binding at most; `None` if they are
/// few enough at once. Causal attention is left as it is: a block would not know where its queries are.
pub fn of_attention(op: &Op, types: &[&TensorType], max_binding_bytes: u64) -> Option<Result<Function, TypeError>> {
    let Op::Attention(attention) = op else { return None };
    let (q, k) = (types[0].shape.sizes(), types[1].shape.sizes());
    let (&[batch, heads, queries, _], &[_, _, keys, _]) = (&q[..], &k[..]) else { return None };
    let row = 4 * (batch * heads * keys) as u64;
    let rows = usize::try_from(SCORES.min(max_binding_bytes / 2) / row.max(1)).ok()?;
    let rows = (rows / ROWS * ROWS).max(ROWS);
    if attention.causal || rows >= queries {
        return None;
    }
    Some(blocks(op, types, queries, queries.div_ceil(queries.div_ceil(rows)).next_multiple_of(ROWS)))
}

fn blocks(op: &Op, types: &[&TensorType], queries: usize, rows: usize) -> Result<Function, TypeError> {
    let mut b = Builder::new("attention");
    let names = ["q", "k", "v", "mask"];
    let args: Vec<ValueId> = names.iter().zip(types).map(|(name, ty)| b.input(*name, (*ty).clone())).collect();
    let mut parts = Vec::new();
    for start in (0..queries).step_by(rows) {
        let end = (start + rows).min(queries);
        let mut some = args.clone();
        // A mask may be the same for all queries.
        for operand in [0, 3].into_iter().filter(|&i| i == 0 || types.get(i).is_some_and(|m| m.shape.sizes()[2] > 1)) {
            let sizes = types[operand].shape.sizes();
            let (mut from, mut to) = (vec![0; 4], sizes);
            (from[2], to[2]) = (start, end);
            some[operand] = b.push(Slice { start: from, end: to, step: vec![1; 4] }, &[args[operand]])?;
        }
        parts.push(b.push(op.clone(), &some)?);
    }
    let whole = b.push(Concat { axis: 2 }, &parts)?;
    b.output("y", whole);
    Ok(b.finish())
}
