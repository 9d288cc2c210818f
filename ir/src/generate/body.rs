//! Random scalar bodies, with the range of their values.
use super::rng::Rng;
use crate::dtype::{Class, DType};
use crate::scalar::{Binary, Body, BodyBuilder, Scalar, ScalarId, Unary};

/// A node of a body under construction, or an operand: its type, a bound of its magnitude, and whether every correct
/// evaluation gives the same bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) id: ScalarId,
    pub(super) dtype: DType,
    pub(super) bound: f64,
    pub(super) exact: bool,
}

/// Floats are scaled back beyond this, so that products and sums of a few stay finite in f16.
pub(super) const TAME: f64 = 8.0;
/// Integers are reduced beyond this.
const TAME_INT: f64 = 10_000.0;

/// A body over operands of these types and ranges; the result's type and range.
pub(super) fn random(rng: &mut Rng, args: &[(DType, f64, bool)], sensitive: bool) -> (Body, Node) {
    let mut last = None;
    let body = Body::build(args.len(), |b| {
        let mut nodes: Vec<Node> = args
            .iter()
            .enumerate()
            .map(|(i, &(dtype, bound, exact))| Node { id: b.arg(i), dtype, bound, exact })
            .collect();
        // Each argument is read at least once, joined to the first.
        for i in 0..nodes.len().max(rng.between(1, 3)) {
            let x = if i < args.len() { nodes[i] } else { *rng.pick(&nodes) };
            let new = step(rng, b, &nodes, x, sensitive);
            nodes.push(tame(b, new));
        }
        let mut result = *nodes.last().expect("at least one step");
        for &node in &nodes[args.len()..nodes.len() - 1] {
            if node.dtype.class() == result.dtype.class() && rng.chance(0.7) {
                result = join(rng, b, result, node);
                result = tame(b, result);
            }
        }
        if rng.chance(0.2) && result.dtype.class() == Class::Float {
            let dtype = *rng.pick(&[DType::F32, DType::F16, DType::BF16]);
            result = cast(b, result, dtype);
        }
        last = Some(result);
        result.id
    });
    let mut result = last.expect("the closure ran");
    // Literals take their context's type, so the builder's word on the dtype is not the last one.
    let dtypes: Vec<DType> = args.iter().map(|a| a.0).collect();
    let types = body.infer(&dtypes).expect("steps are well-typed");
    result.dtype = *types.last().expect("a body has a result");
    (body, result)
}

/// Brings a value back into range.
pub(super) fn tame(b: &mut BodyBuilder, x: Node) -> Node {
    match x.dtype.class() {
        Class::Float if x.bound > TAME => {
            let factor = 2f64.powf((TAME / x.bound).log2().floor());
            let f = b.float(factor);
            Node { id: b.binary(Binary::Mul, x.id, f), bound: x.bound * factor, ..x }
        }
        Class::Signed if x.bound > TAME_INT => {
            let seven = b.add(Scalar::Int(7));
            Node { id: b.binary(Binary::Rem, x.id, seven), bound: 7.0, ..x }
        }
        Class::Unsigned if x.bound > TAME_INT => {
            let seven = b.add(Scalar::Uint(7));
            Node { id: b.binary(Binary::Rem, x.id, seven), bound: 7.0, ..x }
        }
        Class::Float | Class::Signed | Class::Unsigned | Class::Bool => x,
    }
}

/// The same type as `x`, for two-argument primitives.
fn partner(rng: &mut Rng, b: &mut BodyBuilder, nodes: &[Node], x: Node) -> Node {
    let same: Vec<&Node> = nodes.iter().filter(|n| n.dtype == x.dtype).collect();
    if !same.is_empty() && rng.chance(0.7) {
        return **rng.pick(&same);
    }
    let small = rng.below(6);
    let id = match x.dtype.class() {
        Class::Float => b.float(small as f64 * 0.5 - 1.0),
        Class::Signed => b.add(Scalar::Int(small as i32 - 2)),
        Class::Unsigned => b.add(Scalar::Uint(small as u32)),
        Class::Bool => b.add(Scalar::Bool(small > 2)),
    };
    // A literal alone has no narrow dtype; beside `x` it takes the type of `x`.
    Node { id, bound: 3.0, exact: true, ..x }
}

fn join(rng: &mut Rng, b: &mut BodyBuilder, x: Node, y: Node) -> Node {
    let y = if y.dtype == x.dtype { y } else { cast(b, y, x.dtype) };
    let op = match x.dtype.class() {
        Class::Float | Class::Signed | Class::Unsigned => *rng.pick(&[Binary::Add, Binary::Sub, Binary::Max]),
        Class::Bool => Binary::Xor,
    };
    binary(b, op, x, y)
}

fn cast(b: &mut BodyBuilder, x: Node, dtype: DType) -> Node {
    Node { id: b.cast(dtype, x.id), dtype, bound: x.bound.max(1.0), exact: x.exact && dtype == DType::F32 }
}

fn binary(b: &mut BodyBuilder, op: Binary, x: Node, y: Node) -> Node {
    let id = b.binary(op, x.id, y.id);
    let float = x.dtype.class() == Class::Float;
    let rounds = float && !matches!(op, Binary::Min | Binary::Max) && !op.compares();
    let bound = match op {
        Binary::Add | Binary::Sub => x.bound + y.bound,
        Binary::Mul => x.bound * y.bound,
        Binary::Min | Binary::Max => x.bound.max(y.bound),
        // Shifts, complements and unsigned differences reach the whole range.
        Binary::Div | Binary::Rem | Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr => f64::MAX,
        Binary::Pow | Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge | Binary::Eq | Binary::Ne => 1.0,
    };
    let wraps = x.dtype == DType::U32 && op == Binary::Sub;
    let dtype = if op.compares() { DType::Bool } else { x.dtype };
    Node { id, dtype, bound: if wraps { f64::MAX } else { bound }, exact: x.exact && y.exact && !rounds }
}

/// One more operation on `x`.
fn step(rng: &mut Rng, b: &mut BodyBuilder, nodes: &[Node], x: Node, sensitive: bool) -> Node {
    if rng.chance(0.15) {
        // A condition that every evaluation agrees on.
        let conditions: Vec<Node> = nodes.iter().copied().filter(|n| n.dtype == DType::Bool).collect();
        if !conditions.is_empty() && x.dtype != DType::Bool {
            let (c, y) = (*rng.pick(&conditions), partner(rng, b, nodes, x));
            let id = b.select(c.id, x.id, y.id);
            return Node { id, bound: x.bound.max(y.bound), exact: x.exact && y.exact && c.exact, ..x };
        }
    }
    match x.dtype.class() {
        Class::Float => float_step(rng, b, nodes, x, sensitive),
        Class::Signed | Class::Unsigned => int_step(rng, b, nodes, x),
        Class::Bool => {
            let y = partner(rng, b, nodes, x);
            match rng.below(5) {
                0 => Node { id: b.unary(Unary::Not, x.id), ..x },
                1 => cast(b, x, *rng.pick(&[DType::F32, DType::I32, DType::U32])),
                2 => binary(b, Binary::And, x, y),
                3 => binary(b, Binary::Or, x, y),
                _ => binary(b, *rng.pick(&[Binary::Xor, Binary::Eq, Binary::Ne]), x, y),
            }
        }
    }
}

fn float_step(rng: &mut Rng, b: &mut BodyBuilder, nodes: &[Node], x: Node, sensitive: bool) -> Node {
    let y = partner(rng, b, nodes, x);
    let rounded = |id, bound| Node { id, bound, exact: false, ..x };
    let discrete = sensitive || x.exact;
    match rng.below(if discrete { 20 } else { 16 }) {
        0 => binary(b, Binary::Add, x, y),
        1 => binary(b, Binary::Sub, x, y),
        2 => binary(b, Binary::Mul, x, y),
        3 => binary(b, *rng.pick(&[Binary::Min, Binary::Max]), x, y),
        4 => Node { id: b.unary(*rng.pick(&[Unary::Neg, Unary::Abs]), x.id), ..x },
        5 => rounded(b.unary(Unary::Tanh, x.id), 1.0),
        6 => rounded(b.unary(Unary::Sigmoid, x.id), 1.0),
        7 => rounded(b.unary(Unary::Erf, x.id), 1.0),
        8 => rounded(b.unary(*rng.pick(&[Unary::Sin, Unary::Cos]), x.id), 1.0),
        9 | 10 => {
            // e^(−|x|) and 2^(−|x|) stay below 1.
            let size = b.unary(Unary::Abs, x.id);
            let minus = b.unary(Unary::Neg, size);
            rounded(b.unary(*rng.pick(&[Unary::Exp, Unary::Exp2]), minus), 1.0)
        }
        11..=13 => {
            // Away from the poles of logarithm, root and quotient.
            let size = b.unary(Unary::Abs, y.id);
            let half = b.float(0.5);
            let away = b.binary(Binary::Add, size, half);
            match rng.below(4) {
                0 => rounded(b.unary(*rng.pick(&[Unary::Log, Unary::Log2]), away), 1.0 + TAME),
                1 => rounded(b.unary(*rng.pick(&[Unary::Sqrt, Unary::Rsqrt]), away), 1.0 + TAME),
                2 => rounded(b.binary(Binary::Div, x.id, away), 2.0 * x.bound),
                _ => {
                    let exponent = b.float(*rng.pick(&[0.5, 1.5, -1.0]));
                    rounded(b.binary(Binary::Pow, away, exponent), (y.bound + 0.5).powf(1.5).max(2.0))
                }
            }
        }
        14 => cast(b, x, *rng.pick(&[DType::F32, DType::F16, DType::BF16])),
        15 => {
            let square = b.binary(Binary::Mul, x.id, x.id);
            rounded(b.binary(Binary::Add, square, y.id), x.bound * x.bound + y.bound)
        }
        16 => {
            let op = *rng.pick(&[Unary::Floor, Unary::Ceil, Unary::Round, Unary::Trunc, Unary::Sign]);
            Node { id: b.unary(op, x.id), bound: x.bound + 1.0, ..x }
        }
        17 if discrete && (y.exact || sensitive) => {
            let op = *rng.pick(&[Binary::Lt, Binary::Le, Binary::Gt, Binary::Ge, Binary::Eq, Binary::Ne]);
            let mut c = binary(b, op, x, y);
            c.exact = x.exact && y.exact;
            c
        }
        18 => {
            let x = cast(b, x, DType::F32);
            let bits = b.add(Scalar::Bits(*rng.pick(&[DType::I32, DType::U32]), x.id));
            Node { id: b.add(Scalar::Bits(DType::F32, bits)), ..x }
        }
        _ => {
            let mut n = cast(b, x, *rng.pick(&[DType::I32, DType::U32, DType::Bool]));
            n.exact = x.exact;
            n
        }
    }
}

fn int_step(rng: &mut Rng, b: &mut BodyBuilder, nodes: &[Node], x: Node) -> Node {
    let y = partner(rng, b, nodes, x);
    match rng.below(12) {
        0..=6 => {
            let op = *rng.pick(&[
                Binary::Add,
                Binary::Sub,
                Binary::Mul,
                Binary::Div,
                Binary::Rem,
                Binary::Min,
                Binary::Max,
                Binary::And,
                Binary::Or,
                Binary::Xor,
                Binary::Shl,
                Binary::Shr,
            ]);
            binary(b, op, x, y)
        }
        7 => Node { id: b.unary(*rng.pick(&[Unary::Neg, Unary::Not]), x.id), bound: f64::MAX, ..x },
        8 => Node { id: b.unary(*rng.pick(&[Unary::Abs, Unary::Sign]), x.id), ..x },
        9 => {
            let op = *rng.pick(&[Binary::Lt, Binary::Le, Binary::Gt, Binary::Ge, Binary::Eq, Binary::Ne]);
            binary(b, op, x, y)
        }
        10 => {
            // Small whole numbers are the same in every float dtype.
            let small = if x.dtype == DType::I32 { Scalar::Int(15) } else { Scalar::Uint(15) };
            let mask = b.add(small);
            let masked = b.binary(Binary::And, x.id, mask);
            let id = b.cast(DType::F32, masked);
            Node { id, dtype: DType::F32, bound: 15.0, exact: x.exact }
        }
        _ => {
            let dtype = *rng.pick(&[DType::I32, DType::U32, DType::Bool]);
            Node { id: b.cast(dtype, x.id), dtype, bound: f64::MAX, exact: x.exact }
        }
    }
}
