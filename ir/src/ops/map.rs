//! Pointwise application of a scalar body.
use super::float::{Real, in_precision};
use super::*;
use crate::dtype::Class;
use crate::interp::Precision;
use crate::op::TypeError;
use crate::scalar::{Binary, Scalar, Unary};
use crate::tensor::{Data, Tensor};

impl Operator for Map {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let shape = &args[0].shape;
        for (i, arg) in args.iter().enumerate() {
            if arg.shape != *shape {
                return Err(TypeError::new(1, format!("operand {i} has another shape than operand 0; broadcast it"))
                    .expected_found(shape, &arg.shape));
            }
        }
        let dtypes: Vec<DType> = args.iter().map(|a| a.dtype).collect();
        let types = self.body.infer(&dtypes).map_err(|e| TypeError::new(2, format!("body {}: {e}", self.body)))?;
        let dtype = *types.last().expect("a body has a result");
        Ok(TensorType { dtype, shape: shape.clone() })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        let dtypes: Vec<DType> = args.iter().map(|a| a.ty.dtype).collect();
        let types = self.body.infer(&dtypes).expect("C2: the body is well-typed");
        let args: Vec<&Data> = args.iter().map(|a| &a.data).collect();
        let n = out.shape.sizes().iter().product();
        Tensor::new(out.clone(), in_precision!(precision, evaluate(&self.body, &types, &args, n)))
    }
}

/// Elements that are taken through a body node by node.
const CHUNK: usize = 512;

/// Values of one node for a chunk.
enum Lane<R> {
    Float(Vec<R>),
    Int(Vec<i32>),
    Uint(Vec<u32>),
    Bool(Vec<bool>),
}

/// A body's values for `n` elements.
fn evaluate<R: Real>(body: &Body, types: &[DType], args: &[&Data], n: usize) -> Data {
    let mut lanes: Vec<Lane<R>> = types.iter().map(|t| Lane::new(t.class(), n.min(CHUNK))).collect();
    let dtype = *types.last().expect("a body has a result");
    let mut result = Lane::new(dtype.class(), 0);
    for start in (0..n).step_by(CHUNK) {
        let count = CHUNK.min(n - start);
        for (i, node) in body.nodes().iter().enumerate() {
            let (known, rest) = lanes.split_at_mut(i);
            step(*node, known, &mut rest[0], args, start, count);
        }
        result.extend(lanes.last().expect("a body has a result"), count, dtype);
    }
    match result {
        Lane::Float(v) => R::data(v),
        Lane::Int(v) => Data::I32(v),
        Lane::Uint(v) => Data::U32(v),
        Lane::Bool(v) => Data::Bool(v),
    }
}

impl<R: Real> Lane<R> {
    fn new(class: Class, n: usize) -> Lane<R> {
        match class {
            Class::Float => Lane::Float(vec![R::from_f64(0.0); n]),
            Class::Signed => Lane::Int(vec![0; n]),
            Class::Unsigned => Lane::Uint(vec![0; n]),
            Class::Bool => Lane::Bool(vec![false; n]),
        }
    }
    /// Appends the first `count` values, rounded to the map's dtype.
    fn extend(&mut self, lane: &Lane<R>, count: usize, dtype: DType) {
        match (self, lane) {
            (Lane::Float(to), Lane::Float(v)) => to.extend(v[..count].iter().map(|x| x.rounded(dtype))),
            (Lane::Int(to), Lane::Int(v)) => to.extend_from_slice(&v[..count]),
            (Lane::Uint(to), Lane::Uint(v)) => to.extend_from_slice(&v[..count]),
            (Lane::Bool(to), Lane::Bool(v)) => to.extend_from_slice(&v[..count]),
            _ => unreachable!("the result's lane has the body's class"),
        }
    }
    fn bools(&self) -> &[bool] {
        match self {
            Lane::Bool(v) => v,
            Lane::Float(_) | Lane::Int(_) | Lane::Uint(_) => unreachable!("typed: a bool"),
        }
    }
}

fn each<A: Copy, T>(to: &mut [T], a: &[A], f: impl Fn(A) -> T) {
    to.iter_mut().zip(a).for_each(|(t, a)| *t = f(*a));
}

fn both<A: Copy, T>(to: &mut [T], a: &[A], b: &[A], f: impl Fn(A, A) -> T) {
    to.iter_mut().zip(a.iter().zip(b)).for_each(|(t, (a, b))| *t = f(*a, *b));
}

/// Computes one node for a chunk. `known` are the lanes of the nodes before it.
fn step<R: Real>(node: Scalar, known: &[Lane<R>], to: &mut Lane<R>, args: &[&Data], start: usize, count: usize) {
    let lane = |id: u32| &known[id as usize];
    match node {
        Scalar::Arg(i) => match (to, args[i as usize]) {
            (Lane::Float(to), data) => to[..count].copy_from_slice(&R::slice(data)[start..start + count]),
            (Lane::Int(to), Data::I32(v)) => to[..count].copy_from_slice(&v[start..start + count]),
            (Lane::Uint(to), Data::U32(v)) => to[..count].copy_from_slice(&v[start..start + count]),
            (Lane::Bool(to), Data::Bool(v)) => to[..count].copy_from_slice(&v[start..start + count]),
            _ => unreachable!("operands are held by their dtype"),
        },
        Scalar::Float(x) => fill(to, Lane::Float(vec![R::from_f64(x.0)])),
        Scalar::Int(x) => fill(to, Lane::Int(vec![x])),
        Scalar::Uint(x) => fill(to, Lane::Uint(vec![x])),
        Scalar::Bool(x) => fill(to, Lane::Bool(vec![x])),
        Scalar::Unary(op, x) => match (to, lane(x)) {
            (Lane::Float(to), Lane::Float(x)) => float_unary(op, to, x),
            (Lane::Int(to), Lane::Int(x)) => each(to, x, |x| int_unary(op, x)),
            (Lane::Uint(to), Lane::Uint(x)) => each(to, x, |x| uint_unary(op, x)),
            (Lane::Bool(to), Lane::Bool(x)) => each(to, x, |x| !x),
            _ => unreachable!("typed: argument and result agree"),
        },
        Scalar::Binary(op, x, y) => match (to, lane(x), lane(y)) {
            (Lane::Float(to), Lane::Float(x), Lane::Float(y)) => float_binary(op, to, x, y),
            (Lane::Int(to), Lane::Int(x), Lane::Int(y)) => both(to, x, y, |x, y| int_binary(op, x, y)),
            (Lane::Uint(to), Lane::Uint(x), Lane::Uint(y)) => both(to, x, y, |x, y| uint_binary(op, x, y)),
            (Lane::Bool(to), Lane::Bool(x), Lane::Bool(y)) => both(to, x, y, |x, y| bool_binary(op, x, y)),
            (Lane::Bool(to), Lane::Float(x), Lane::Float(y)) => both(to, x, y, |x, y| compare(op, x, y)),
            (Lane::Bool(to), Lane::Int(x), Lane::Int(y)) => both(to, x, y, |x, y| compare(op, x, y)),
            (Lane::Bool(to), Lane::Uint(x), Lane::Uint(y)) => both(to, x, y, |x, y| compare(op, x, y)),
            _ => unreachable!("typed: both arguments agree"),
        },
        Scalar::Select(c, x, y) => {
            let c = lane(c).bools();
            match (to, lane(x), lane(y)) {
                (Lane::Float(to), Lane::Float(x), Lane::Float(y)) => select(to, c, x, y),
                (Lane::Int(to), Lane::Int(x), Lane::Int(y)) => select(to, c, x, y),
                (Lane::Uint(to), Lane::Uint(x), Lane::Uint(y)) => select(to, c, x, y),
                (Lane::Bool(to), Lane::Bool(x), Lane::Bool(y)) => select(to, c, x, y),
                _ => unreachable!("typed: both arguments agree"),
            }
        }
        Scalar::Cast(dtype, x) => cast(dtype, to, lane(x)),
        Scalar::Bits(_, x) => match (to, lane(x)) {
            (Lane::Float(to), Lane::Float(x)) => to.copy_from_slice(x),
            (Lane::Float(to), Lane::Int(x)) => each(to, x, |x| R::from_f64(f32::from_bits(x as u32) as f64)),
            (Lane::Float(to), Lane::Uint(x)) => each(to, x, |x| R::from_f64(f32::from_bits(x) as f64)),
            (Lane::Int(to), Lane::Float(x)) => each(to, x, |x| (x.to_f64() as f32).to_bits() as i32),
            (Lane::Uint(to), Lane::Float(x)) => each(to, x, |x| (x.to_f64() as f32).to_bits()),
            (to, x) => cast(DType::I32, to, x), // between integers a cast keeps the bits
        },
    }
}

fn fill<R: Real>(to: &mut Lane<R>, one: Lane<R>) {
    match (to, one) {
        (Lane::Float(to), Lane::Float(x)) => to.fill(x[0]),
        (Lane::Int(to), Lane::Int(x)) => to.fill(x[0]),
        (Lane::Uint(to), Lane::Uint(x)) => to.fill(x[0]),
        (Lane::Bool(to), Lane::Bool(x)) => to.fill(x[0]),
        _ => unreachable!("typed: a literal has its node's class"),
    }
}

fn select<T: Copy>(to: &mut [T], c: &[bool], x: &[T], y: &[T]) {
    to.iter_mut().zip(c).zip(x.iter().zip(y)).for_each(|((t, c), (x, y))| *t = if *c { *x } else { *y });
}

/// The primitive is matched outside the loop, so that each loop is one instruction sequence.
fn float_unary<R: Real>(op: Unary, to: &mut [R], x: &[R]) {
    macro_rules! table {
        ($($op:ident),*) => { match op { $(Unary::$op => each(to, x, |x| R::unary(Unary::$op, x)),)* } };
    }
    table!(
        Neg, Not, Abs, Sign, Floor, Ceil, Round, Trunc, Exp, Exp2, Log, Log2, Sqrt, Rsqrt, Sin, Cos, Tanh, Erf, Sigmoid
    );
}

fn float_binary<R: Real>(op: Binary, to: &mut [R], x: &[R], y: &[R]) {
    macro_rules! table {
        ($($op:ident),*) => { match op { $(Binary::$op => both(to, x, y, |x, y| R::binary(Binary::$op, x, y)),)* } };
    }
    table!(Add, Sub, Mul, Div, Rem, Pow, Min, Max, Lt, Le, Gt, Ge, Eq, Ne, And, Or, Xor, Shl, Shr);
}

fn compare<T: PartialOrd>(op: Binary, x: T, y: T) -> bool {
    match op {
        Binary::Lt => x < y,
        Binary::Le => x <= y,
        Binary::Gt => x > y,
        Binary::Ge => x >= y,
        Binary::Eq => x == y,
        Binary::Ne => x != y,
        Binary::Add
        | Binary::Sub
        | Binary::Mul
        | Binary::Div
        | Binary::Rem
        | Binary::Pow
        | Binary::Min
        | Binary::Max
        | Binary::And
        | Binary::Or
        | Binary::Xor
        | Binary::Shl
        | Binary::Shr => unreachable!("typed: only comparisons give a bool"),
    }
}

fn bool_binary(op: Binary, x: bool, y: bool) -> bool {
    match op {
        Binary::And => x & y,
        Binary::Or => x | y,
        Binary::Xor => x ^ y,
        op => compare(op, x, y),
    }
}

/// Arithmetic of one integer type.
macro_rules! integer {
    ($t:ident, $unary:ident, $binary:ident, |$x:ident| $abs:expr, $sign:expr) => {
        fn $unary(op: Unary, $x: $t) -> $t {
            match op {
                Unary::Neg => $x.wrapping_neg(),
                Unary::Not => !$x,
                Unary::Abs => $abs,
                Unary::Sign => $sign,
                Unary::Floor
                | Unary::Ceil
                | Unary::Round
                | Unary::Trunc
                | Unary::Exp
                | Unary::Exp2
                | Unary::Log
                | Unary::Log2
                | Unary::Sqrt
                | Unary::Rsqrt
                | Unary::Sin
                | Unary::Cos
                | Unary::Tanh
                | Unary::Erf
                | Unary::Sigmoid => unreachable!("typed: defined on floats only"),
            }
        }
        fn $binary(op: Binary, x: $t, y: $t) -> $t {
            match op {
                Binary::Add => x.wrapping_add(y),
                Binary::Sub => x.wrapping_sub(y),
                Binary::Mul => x.wrapping_mul(y),
                Binary::Div | Binary::Rem if y == 0 => 0,
                Binary::Div => x.wrapping_div(y),
                Binary::Rem => x.wrapping_rem(y),
                Binary::Min => x.min(y),
                Binary::Max => x.max(y),
                Binary::And => x & y,
                Binary::Or => x | y,
                Binary::Xor => x ^ y,
                Binary::Shl => x.wrapping_shl(y as u32),
                Binary::Shr => x.wrapping_shr(y as u32),
                Binary::Pow | Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge | Binary::Eq | Binary::Ne => {
                    unreachable!("typed: no integer result")
                }
            }
        }
    };
}
integer!(i32, int_unary, int_binary, |x| x.wrapping_abs(), x.signum());
integer!(u32, uint_unary, uint_binary, |x| x, x.min(1));

fn cast<R: Real>(dtype: DType, to: &mut Lane<R>, from: &Lane<R>) {
    match (to, from) {
        (Lane::Float(to), Lane::Float(x)) => each(to, x, |x| x.rounded(dtype)),
        (Lane::Float(to), Lane::Int(x)) => each(to, x, |x| R::from_f64(x as f64).rounded(dtype)),
        (Lane::Float(to), Lane::Uint(x)) => each(to, x, |x| R::from_f64(x as f64).rounded(dtype)),
        (Lane::Float(to), Lane::Bool(x)) => each(to, x, |x| R::from_f64(x as u8 as f64)),
        // Rust's `as` truncates and saturates, and gives 0 for a NaN.
        (Lane::Int(to), Lane::Float(x)) => each(to, x, |x| x.to_f64() as i32),
        (Lane::Int(to), Lane::Int(x)) => to.copy_from_slice(x),
        (Lane::Int(to), Lane::Uint(x)) => each(to, x, |x| x as i32),
        (Lane::Int(to), Lane::Bool(x)) => each(to, x, |x| x as i32),
        (Lane::Uint(to), Lane::Float(x)) => each(to, x, |x| x.to_f64() as u32),
        (Lane::Uint(to), Lane::Int(x)) => each(to, x, |x| x as u32),
        (Lane::Uint(to), Lane::Uint(x)) => to.copy_from_slice(x),
        (Lane::Uint(to), Lane::Bool(x)) => each(to, x, |x| x as u32),
        (Lane::Bool(to), Lane::Float(x)) => each(to, x, |x| x.to_f64() != 0.0),
        (Lane::Bool(to), Lane::Int(x)) => each(to, x, |x| x != 0),
        (Lane::Bool(to), Lane::Uint(x)) => each(to, x, |x| x != 0),
        (Lane::Bool(to), Lane::Bool(x)) => to.copy_from_slice(x),
    }
}
