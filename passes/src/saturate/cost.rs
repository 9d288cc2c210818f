//! What a plan costs: a roofline over the kernels that code generation would make of it.
//!
//! The model knows how code generation fuses: views are free, a map behind a heavy operator costs the operands it
//! adds, a map before one is computed where it is read unless that would repeat much work. Values that depend on
//! weights only are computed once at load and count next to nothing.

use super::analysis::Binding;
use selvedge_ir::op::OpClass;
use selvedge_ir::ops::{Const, ReduceKind};
use selvedge_ir::scalar::{Binary, Body, Scalar, Unary};
use selvedge_ir::{Def, Function, Op, TensorType};

/// A device, as far as the passes know one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Bytes that memory moves in a second.
    pub bytes_per_second: f64,
    /// Floating-point operations in a second, at the rate of a good contraction.
    pub flops_per_second: f64,
    /// Seconds that a dispatch takes besides its work.
    pub dispatch_seconds: f64,
}

impl Default for Rates {
    /// A middling GPU: 300 GB/s, 8 Tflop/s, 4 µs.
    fn default() -> Rates {
        Rates { bytes_per_second: 300e9, flops_per_second: 8e12, dispatch_seconds: 4e-6 }
    }
}

/// Share of its cost that a value known at load counts with: it breaks ties.
const AT_LOAD: f64 = 1e-4;
/// What a value costs that is no kernel of its own, in seconds: it prefers the shorter of two equal programs.
const TINY: f64 = 1e-10;
/// Loads that an epilogue may add to a kernel, as in code generation.
const EPILOGUE_LOADS: usize = 16;
/// Loads up to which a map is computed again by each of several readers, as in code generation.
const CHEAP_LOADS: usize = 2;
/// Operations up to which an operand that is read many times is computed again, as in code generation.
const CHEAP_OPS: usize = 12;

/// One value of a program, operands before their readers.
#[derive(Clone, Debug)]
pub struct Item<'a> {
    /// Its operator; none for the result of a call.
    pub op: Option<&'a Op>,
    /// Operands, as places in the list.
    pub args: Vec<usize>,
    /// Its type.
    pub ty: &'a TensorType,
    /// When it is known.
    pub binding: Binding,
    /// Its floating-point operations.
    pub flops: f64,
}

/// A kernel of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// The place of its root (a heavy operator, or a stored map or view) in the list.
    pub root: usize,
    /// The place of what it stores.
    pub result: usize,
    /// Bytes read and written, weights included.
    pub bytes: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Seconds by the roofline, its dispatch included.
    pub seconds: f64,
}

/// What a program costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Kernels in order.
    pub kernels: Vec<Kernel>,
    /// Sum of their seconds, and a trifle for each value.
    pub seconds: f64,
}

/// The plan of a function.
pub fn of_function(function: &Function, rates: &Rates) -> Plan {
    let mut items: Vec<Item> = Vec::with_capacity(function.values.len());
    for id in function.ids() {
        let value = function.value(id);
        items.push(match &value.def {
            Def::Op { op, args } => {
                let args: Vec<usize> = args.iter().map(|a| a.0 as usize).collect();
                let binding = binding(op, args.iter().map(|a| items[*a].binding));
                let types: Vec<&TensorType> = args.iter().map(|a| items[*a].ty).collect();
                let flops = flops(op, &types, &value.ty);
                Item { op: Some(op), args, ty: &value.ty, binding, flops }
            }
            Def::Result { .. } => Item { op: None, args: Vec::new(), ty: &value.ty, binding: Binding::Run, flops: 0.0 },
        });
    }
    let mut roots: Vec<usize> = function.returns.iter().map(|r| r.value.0 as usize).collect();
    roots.extend(function.calls.iter().flat_map(|c| &c.args).map(|a| a.0 as usize));
    plan(&items, &roots, rates)
}

/// When a value is known, from its operands.
pub fn binding(op: &Op, args: impl Iterator<Item = Binding>) -> Binding {
    match op {
        Op::Weight(_) => Binding::Load,
        Op::Input(_) | Op::State(_) => Binding::Run,
        _ => args.max().unwrap_or(Binding::Const),
    }
}

/// What one operator costs in a kernel of its own, in seconds: the first guess of extraction.
pub fn alone(op: &Op, args: &[&TensorType], ty: &TensorType, binding: Binding, rates: &Rates) -> f64 {
    let seconds = match role(op) {
        Role::Data | Role::Free => TINY,
        // Pointwise work mostly ends up in a neighbour.
        Role::Inline => TINY + 0.2 * bytes_of(ty) / rates.bytes_per_second,
        Role::Heavy => {
            let bytes: f64 = args.iter().map(|t| bytes_of(t)).sum::<f64>() + bytes_of(ty);
            roofline(bytes, flops(op, args, ty), rates)
        }
    };
    if binding <= Binding::Load { TINY + seconds * AT_LOAD } else { seconds }
}

fn roofline(bytes: f64, flops: f64, rates: &Rates) -> f64 {
    rates.dispatch_seconds + (bytes / rates.bytes_per_second).max(flops / rates.flops_per_second)
}

/// Bytes of a tensor in memory.
pub fn bytes_of(ty: &TensorType) -> f64 {
    ty.elements().unwrap_or(0) as f64 * ty.dtype.bits() as f64 / 8.0
}

/// What becomes of an operator in code generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It lies in memory.
    Data,
    /// Index arithmetic, or part of a kernel's text.
    Free,
    /// Computed where it is read, or stored by a kernel of its own.
    Inline,
    /// The root of a kernel.
    Heavy,
}

fn role(op: &Op) -> Role {
    match op {
        Op::Input(_) | Op::Weight(_) | Op::State(_) => Role::Data,
        Op::Const(c) => {
            if is_splat(c) {
                Role::Free
            } else {
                Role::Data
            }
        }
        Op::Iota(_) | Op::Transpose(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Slice(_) => Role::Free,
        Op::Map(_) | Op::Pad(_) | Op::Concat(_) | Op::Gather(_) => Role::Inline,
        // These have no kernel; they are expanded into maps and views.
        Op::Rope(_) | Op::PoolTokens(_) | Op::Resize(_) => Role::Inline,
        Op::Reduce(_)
        | Op::Contract(_)
        | Op::Window(_)
        | Op::Scan(_)
        | Op::Scatter(_)
        | Op::Topk(_)
        | Op::Softmax(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::GroupNorm(_)
        | Op::Attention(_)
        | Op::LocalAttention(_) => Role::Heavy,
    }
}

fn is_splat(c: &Const) -> bool {
    let Some(width) = c.ty.elements().and_then(|n| c.data.0.len().checked_div(n)) else { return false };
    width > 0 && c.data.0.chunks_exact(width).all(|chunk| chunk == &c.data.0[..width])
}

/// Floating-point operations of an operator; 8 for a transcendental function.
pub fn flops(op: &Op, args: &[&TensorType], ty: &TensorType) -> f64 {
    let elements = |t: &TensorType| t.elements().unwrap_or(0) as f64;
    let out = elements(ty);
    let first = args.first().map_or(0.0, |t| elements(t));
    match op {
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
        | Op::Concat(_)
        | Op::Gather(_) => 0.0,
        Op::Map(m) => body_ops(&m.body).0 as f64 * out,
        Op::Reduce(r) => match r.kind {
            ReduceKind::Sum | ReduceKind::Prod | ReduceKind::Max | ReduceKind::Min => first,
            ReduceKind::Argmax | ReduceKind::Argmin => 2.0 * first,
        },
        Op::Contract(c) => {
            let sizes = args[0].shape.sizes();
            let summed = c.spec.a.iter().zip(&sizes).filter(|(l, _)| !c.spec.out.contains(l));
            2.0 * out * summed.map(|(_, n)| *n as f64).product::<f64>()
        }
        Op::Window(w) => match args.get(1) {
            Some(kernel) => 2.0 * out * elements(kernel) / kernel.shape.sizes().first().map_or(1.0, |o| *o as f64),
            None => out * w.size.iter().product::<usize>() as f64,
        },
        Op::Scan(_) | Op::Scatter(_) => first,
        Op::Topk(t) => first * t.k as f64,
        Op::Softmax(_) => 12.0 * out,
        Op::LayerNorm(_) | Op::GroupNorm(_) => 8.0 * out,
        Op::RmsNorm(_) => 5.0 * out,
        Op::Attention(_) | Op::LocalAttention(_) => {
            let (q, k, v) = (args[0].shape.sizes(), args[1].shape.sizes(), args[2].shape.sizes());
            let scores = (q[0] * q[1] * q[2] * k[2]) as f64;
            scores * (2 * q[3] + 2 * v[3] + 12) as f64
        }
        Op::Rope(_) => 4.0 * out,
        Op::PoolTokens(_) => first,
        Op::Resize(_) => 8.0 * out,
    }
}

/// Operations of a body, and whether one of them is transcendental.
fn body_ops(body: &Body) -> (usize, bool) {
    let (mut ops, mut transcendental) = (0, false);
    for node in body.nodes() {
        let dear = match node {
            Scalar::Arg(_) | Scalar::Float(_) | Scalar::Int(_) | Scalar::Uint(_) | Scalar::Bool(_) => continue,
            Scalar::Unary(op, _) => match op {
                Unary::Neg
                | Unary::Not
                | Unary::Abs
                | Unary::Sign
                | Unary::Floor
                | Unary::Ceil
                | Unary::Round
                | Unary::Trunc
                | Unary::Sqrt
                | Unary::Rsqrt => false,
                Unary::Exp
                | Unary::Exp2
                | Unary::Log
                | Unary::Log2
                | Unary::Sin
                | Unary::Cos
                | Unary::Tanh
                | Unary::Erf
                | Unary::Sigmoid => true,
            },
            Scalar::Binary(op, _, _) => matches!(op, Binary::Pow),
            Scalar::Select(..) | Scalar::Cast(..) | Scalar::Bits(..) => false,
        };
        ops += if dear { 8 } else { 1 };
        transcendental |= dear;
    }
    (ops, transcendental)
}

/// What computing one element where it is read takes.
#[derive(Clone, Copy, Debug, Default)]
struct Inline {
    loads: usize,
    ops: usize,
    transcendental: bool,
}

/// The units that would compute a value inside themselves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readers {
    None,
    One(usize),
    Many,
}

/// The kernels of a program and what they cost. Items that no root needs must not be in the list.
pub fn plan(items: &[Item], roots: &[usize], rates: &Rates) -> Plan {
    let count = items.len();
    let roles: Vec<Role> = items.iter().map(|i| i.op.map_or(Role::Data, role)).collect();
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (i, item) in items.iter().enumerate() {
        for &a in &item.args {
            if users[a].last() != Some(&i) {
                users[a].push(i);
            }
        }
    }
    let mut stored: Vec<bool> = roles.iter().map(|r| *r == Role::Data).collect();
    for &root in roots {
        let mut root = root;
        while let Some(Op::Reshape(_)) = items[root].op {
            root = items[root].args[0];
        }
        stored[root] = true;
    }
    let mut unit: Vec<Option<usize>> = vec![None; count];
    let mut result: Vec<usize> = (0..count).collect();
    for heavy in (0..count).filter(|i| roles[*i] == Role::Heavy) {
        absorb(items, &users, &mut stored, &mut unit, &mut result, heavy);
    }
    let mut readers = vec![Readers::None; count];
    for i in (0..count).rev() {
        readers[i] = users[i].iter().fold(Readers::None, |all, &user| {
            let one = match unit[user] {
                Some(root) => Readers::One(root),
                None if stored[user] => Readers::One(user),
                None => readers[user],
            };
            match (all, one) {
                (Readers::None, x) | (x, Readers::None) => x,
                (Readers::One(a), Readers::One(b)) if a == b => all,
                _ => Readers::Many,
            }
        });
    }
    store(items, &roles, &readers, &unit, &mut stored);
    let mut plan = Plan { kernels: Vec::new(), seconds: TINY * count as f64 };
    for i in 0..count {
        let heavy = roles[i] == Role::Heavy;
        if roles[i] == Role::Data || !(heavy || stored[i] && unit[i].is_none()) {
            continue;
        }
        let kernel = kernel(items, &stored, i, result[i], rates);
        plan.seconds += if items[i].binding <= Binding::Load { kernel.seconds * AT_LOAD } else { kernel.seconds };
        plan.kernels.push(kernel);
    }
    plan
}

/// Extends a heavy operator by the maps that only it feeds.
fn absorb(
    items: &[Item],
    users: &[Vec<usize>],
    stored: &mut [bool],
    unit: &mut [Option<usize>],
    result: &mut [usize],
    heavy: usize,
) {
    let (mut at, mut end, mut loads) = (heavy, heavy, 0);
    let mut path = vec![heavy];
    while !stored[at] {
        let [user] = users[at][..] else { break };
        if unit[user].is_some() {
            break;
        }
        match items[user].op {
            Some(Op::Map(_)) => {
                loads += items[user].args.len() - 1;
                if loads > EPILOGUE_LOADS {
                    break;
                }
                path.push(user);
                (at, end) = (user, user);
            }
            Some(Op::Reshape(_) | Op::Transpose(_)) => {
                path.push(user);
                at = user;
                if stored[user] {
                    end = user;
                }
            }
            _ => break,
        }
    }
    for &v in &path {
        unit[v] = Some(heavy);
        if v == end {
            break;
        }
    }
    stored[end] = true;
    result[heavy] = end;
}

/// Marks the maps and views that are not worth computing again.
fn store(items: &[Item], roles: &[Role], readers: &[Readers], unit: &[Option<usize>], stored: &mut [bool]) {
    let mut inline: Vec<Inline> = vec![Inline::default(); items.len()];
    for i in 0..items.len() {
        let item = &items[i];
        let Some(op) = item.op else {
            inline[i] = Inline { loads: 1, ..Inline::default() };
            continue;
        };
        let repeats = match op.class() {
            OpClass::Contract | OpClass::Window => true,
            OpClass::View => bytes_of(item.ty) >= 4.0 * bytes_of(items[item.args[0]].ty),
            OpClass::Composite => matches!(op, Op::Attention(_) | Op::LocalAttention(_)),
            OpClass::Index => true,
            OpClass::Leaf | OpClass::Map | OpClass::Reduce | OpClass::Scan => false,
        };
        if repeats {
            item.args.iter().for_each(|&a| settle(items, &mut inline, stored, a));
        }
        let mut cost = Inline::default();
        for (_, &a) in item.args.iter().enumerate().filter(|(n, a)| !item.args[..*n].contains(a)) {
            cost.loads += inline[a].loads;
            cost.ops += inline[a].ops;
            cost.transcendental |= inline[a].transcendental;
        }
        if let Op::Map(m) = op {
            let (ops, transcendental) = body_ops(&m.body);
            cost.ops += ops;
            cost.transcendental |= transcendental;
        }
        let shared = readers[i] == Readers::Many && unit[i].is_none() && roles[i] == Role::Inline;
        if shared && (cost.transcendental || cost.loads > CHEAP_LOADS) {
            stored[i] = true;
        }
        inline[i] = if stored[i] || roles[i] == Role::Heavy { Inline { loads: 1, ..Inline::default() } } else { cost };
    }
}

/// An operand that is read many times: the map behind its views is stored unless it is cheap.
fn settle(items: &[Item], inline: &mut [Inline], stored: &mut [bool], mut i: usize) {
    loop {
        let cost = inline[i];
        let cheap = cost.loads <= CHEAP_LOADS && cost.ops <= CHEAP_OPS && !cost.transcendental;
        if cheap || stored[i] {
            return;
        }
        match items[i].op {
            Some(Op::Transpose(_) | Op::Reshape(_) | Op::Slice(_) | Op::Broadcast(_)) => i = items[i].args[0],
            _ => {
                stored[i] = true;
                inline[i] = Inline { loads: 1, ..Inline::default() };
                return;
            }
        }
    }
}

/// Bytes and operations of one kernel.
fn kernel(items: &[Item], stored: &[bool], root: usize, result: usize, rates: &Rates) -> Kernel {
    let elements = |i: usize| items[i].ty.elements().unwrap_or(0) as f64;
    // Elements read of each stored value, at most.
    let mut reads: Vec<(usize, f64)> = Vec::new();
    let mut seen: Vec<(usize, f64)> = Vec::new();
    let mut total = 0.0;
    let mut open = vec![(result, f64::INFINITY)];
    while let Some((i, wanted)) = open.pop() {
        let wanted = wanted.min(elements(i));
        let list = if stored[i] && i != result { &mut reads } else { &mut seen };
        let first = match list.iter_mut().find(|(r, _)| *r == i) {
            Some((_, known)) if *known >= wanted => continue,
            Some((_, known)) => {
                *known = wanted;
                false
            }
            None => {
                list.push((i, wanted));
                true
            }
        };
        if stored[i] && i != result {
            continue;
        }
        let Some(op) = items[i].op else { continue };
        if first {
            total += items[i].flops;
        }
        let below = if role(op) == Role::Heavy { f64::INFINITY } else { wanted };
        open.extend(items[i].args.iter().map(|a| (*a, below)));
    }
    let width = |i: usize| items[i].ty.dtype.bits() as f64 / 8.0;
    let bytes = reads.iter().map(|(i, n)| n * width(*i)).sum::<f64>() + bytes_of(items[result].ty);
    Kernel { root, result, bytes, flops: total, seconds: roofline(bytes, total, rates) }
}
