//! Scalar operations of an operator: what decides whether keeping a value is cheaper than computing it again.

use selvedge_ir::scalar::{Binary, Body, Scalar, Unary};
use selvedge_ir::{Function, Op, ValueId};

/// Operations that a transcendental function stands for: its polynomial and the reduction of its argument.
const TRANSCENDENTAL: u64 = 32;

/// Operations of a body for one element.
pub fn of_body(body: &Body) -> u64 {
    body.nodes().iter().map(|n| of_node(*n, TRANSCENDENTAL)).sum()
}

fn of_node(node: Scalar, transcendental: u64) -> u64 {
    match node {
        Scalar::Arg(_) | Scalar::Float(_) | Scalar::Int(_) | Scalar::Uint(_) | Scalar::Bool(_) => 0,
        Scalar::Unary(op, _) => match op {
            Unary::Exp
            | Unary::Exp2
            | Unary::Log
            | Unary::Log2
            | Unary::Sin
            | Unary::Cos
            | Unary::Tanh
            | Unary::Erf
            | Unary::Sigmoid => transcendental,
            Unary::Sqrt | Unary::Rsqrt => transcendental.min(4),
            Unary::Neg
            | Unary::Not
            | Unary::Abs
            | Unary::Sign
            | Unary::Floor
            | Unary::Ceil
            | Unary::Round
            | Unary::Trunc => 1,
        },
        Scalar::Binary(op, _, _) => match op {
            Binary::Pow => transcendental,
            Binary::Div | Binary::Rem => transcendental.min(4),
            Binary::Add
            | Binary::Sub
            | Binary::Mul
            | Binary::Min
            | Binary::Max
            | Binary::Lt
            | Binary::Le
            | Binary::Gt
            | Binary::Ge
            | Binary::Eq
            | Binary::Ne
            | Binary::And
            | Binary::Or
            | Binary::Xor
            | Binary::Shl
            | Binary::Shr => 1,
        },
        Scalar::Select(..) | Scalar::Cast(..) | Scalar::Bits(..) => 1,
    }
}

/// Operations of one value; views and leaves take none, symbols count as 0.
pub fn of_value(function: &Function, id: ValueId) -> u64 {
    counted(function, id, TRANSCENDENTAL)
}

/// The same with every primitive counted once: what is reported as floating-point operations.
pub fn flops(function: &Function, id: ValueId) -> u64 {
    counted(function, id, 1)
}

/// Operations of products alone (contractions, convolutions, attention), 2 for each multiply-add: what throughput is told by.
pub fn products(function: &Function, id: ValueId) -> u64 {
    let multiplies = |(op, args): (&Op, &[ValueId])| match op {
        Op::Contract(_) | Op::Attention(_) | Op::LocalAttention(_) => true,
        op => matches!(op, Op::Window(_)) && args.len() > 1,
    };
    if function.op(id).is_some_and(multiplies) { counted(function, id, 0) } else { 0 }
}

fn counted(function: &Function, id: ValueId, transcendental: u64) -> u64 {
    let Some((op, args)) = function.op(id) else { return 0 };
    let sizes = |id: ValueId| function.ty(id).shape.get().unwrap_or_default();
    let product = |s: &[usize]| s.iter().map(|&n| n as u64).product::<u64>();
    let size = |id: ValueId| function.ty(id).elements().map_or(1, |n| n as u64);
    let out = size(id);
    let operand = || args.first().map_or(0, |a| size(*a));
    match op {
        Op::Map(map) => out * map.body.nodes().iter().map(|n| of_node(*n, transcendental)).sum::<u64>(),
        Op::Contract(c) => {
            let a = sizes(args[0]);
            let summed = c.spec.a.iter().zip(&a).filter(|(l, _)| !c.spec.out.contains(l));
            2 * out * summed.map(|(_, &n)| n as u64).product::<u64>()
        }
        Op::Window(w) => match args.get(1) {
            Some(k) => 2 * out * sizes(*k).get(1..).map_or(0, product),
            None => out * product(&w.size),
        },
        Op::Attention(_) | Op::LocalAttention(_) => {
            let (q, v) = (sizes(args[0]), sizes(args[2]));
            match (q.as_slice(), v.as_slice()) {
                (&[b, h, n, d], &[_, _, m, e]) => product(&[b, h, n, m]) * (2 * (d + e) as u64 + transcendental),
                _ => 0,
            }
        }
        Op::Reduce(_) | Op::Scan(_) | Op::Topk(_) => operand(),
        Op::Gather(_) => out,
        Op::Scatter(_) => out + args.get(2).map_or(0, |u| product(&sizes(*u))),
        Op::Softmax(_) => out * (transcendental + 6),
        Op::LayerNorm(_) | Op::RmsNorm(_) | Op::GroupNorm(_) => out * 8,
        Op::Rope(_) => out * 3,
        Op::PoolTokens(_) => operand(),
        Op::Resize(r) => out * (1 << r.size.len().min(3)),
        Op::Input(_)
        | Op::Weight(_)
        | Op::State(_)
        | Op::Const(_)
        | Op::Iota(_)
        | Op::Transpose(_)
        | Op::Reshape(_)
        | Op::Broadcast(_)
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Concat(_) => 0,
    }
}
