//! `map` on all cores, a chunk that stays in cache at a time: float bodies by loops that become vector code, others by
//! the reference.

use super::math;
use rayon::prelude::*;
use selvedge_ir::ops::{Map, Op};
use selvedge_ir::scalar::{Binary, Body, F64, Scalar, Unary};
use selvedge_ir::{DType, Data, Precision, Tensor, TensorType};

/// Elements that a task takes.
const TASK: usize = 1 << 14;
/// Elements of one loop: the values of a body's nodes stay in the first-level cache.
const LANES: usize = 512;

/// The map's value; `None` if it is too small to be worth splitting.
pub fn eval(op: &Map, args: &[&Tensor], out: &TensorType) -> Option<Tensor> {
    let total = out.elements()?;
    if total <= TASK || args.iter().any(|a| matches!(a.data, Data::F64(_))) {
        return None;
    }
    Some(floats(&op.body, args, out).unwrap_or_else(|| by_reference(op, args, out, total)))
}

/// A body of float arithmetic on f32 data; `None` for other bodies.
fn floats(body: &Body, args: &[&Tensor], out: &TensorType) -> Option<Tensor> {
    let mut sources: Vec<&[f32]> = Vec::with_capacity(args.len());
    for arg in args {
        match &arg.data {
            Data::F32(v) => sources.push(v),
            Data::F64(_) | Data::I32(_) | Data::U32(_) | Data::Bool(_) => return None,
        }
    }
    let nodes = body.nodes();
    let arithmetic = |node: &Scalar| match *node {
        Scalar::Arg(_) | Scalar::Float(_) => true,
        Scalar::Unary(op, _) => !matches!(op, Unary::Not | Unary::Sign | Unary::Erf),
        Scalar::Binary(op, ..) => matches!(op, Binary::Add | Binary::Sub | Binary::Mul | Binary::Div),
        Scalar::Cast(dtype, _) => dtype.is_float(),
        Scalar::Int(_) | Scalar::Uint(_) | Scalar::Bool(_) | Scalar::Select(..) | Scalar::Bits(..) => false,
    };
    if !nodes.iter().all(arithmetic) {
        return None;
    }
    let mut all = vec![0f32; sources.first()?.len()];
    let lanes = || vec![[0f32; LANES]; nodes.len()];
    all.par_chunks_mut(LANES).with_min_len(TASK / LANES).enumerate().for_each_init(lanes, |lanes, (i, to)| {
        for (n, node) in nodes.iter().enumerate() {
            let (known, rest) = lanes.split_at_mut(n);
            step(*node, known, &mut rest[0][..to.len()], &sources, i * LANES);
        }
        to.copy_from_slice(&lanes[nodes.len() - 1][..to.len()]);
        if out.dtype.bits() < 32 {
            to.iter_mut().for_each(|x| *x = out.dtype.round(*x));
        }
    });
    Some(Tensor::new(out.clone(), Data::F32(all)))
}

/// One node for a chunk; `known` are the nodes before it.
fn step(node: Scalar, known: &[[f32; LANES]], to: &mut [f32], sources: &[&[f32]], start: usize) {
    let lane = |id: u32| &known[id as usize];
    match node {
        Scalar::Arg(i) => to.copy_from_slice(&sources[i as usize][start..start + to.len()]),
        Scalar::Float(F64(x)) => to.fill(x as f32),
        Scalar::Unary(op, x) => unary(op, to, lane(x)),
        Scalar::Binary(op, x, y) => {
            let (x, y) = (lane(x), lane(y));
            match op {
                Binary::Add => both(to, x, y, |x, y| x + y),
                Binary::Sub => both(to, x, y, |x, y| x - y),
                Binary::Mul => both(to, x, y, |x, y| x * y),
                _ => both(to, x, y, |x, y| x / y),
            }
        }
        Scalar::Cast(DType::F32, x) => to.copy_from_slice(&lane(x)[..to.len()]),
        Scalar::Cast(dtype, x) => each(to, lane(x), |x| dtype.round(x)),
        Scalar::Int(_) | Scalar::Uint(_) | Scalar::Bool(_) | Scalar::Select(..) | Scalar::Bits(..) => {
            unreachable!("bodies with these go to the reference")
        }
    }
}

fn unary(op: Unary, to: &mut [f32], x: &[f32]) {
    match op {
        Unary::Neg => each(to, x, |x| -x),
        Unary::Abs => each(to, x, f32::abs),
        Unary::Floor => each(to, x, f32::floor),
        Unary::Ceil => each(to, x, f32::ceil),
        Unary::Round => each(to, x, f32::round_ties_even),
        Unary::Trunc => each(to, x, f32::trunc),
        Unary::Exp => each(to, x, math::exp),
        Unary::Exp2 => each(to, x, f32::exp2),
        Unary::Log => each(to, x, f32::ln),
        Unary::Log2 => each(to, x, f32::log2),
        Unary::Sqrt => each(to, x, f32::sqrt),
        Unary::Rsqrt => each(to, x, |x| 1.0 / x.sqrt()),
        Unary::Sin => each(to, x, f32::sin),
        Unary::Cos => each(to, x, f32::cos),
        Unary::Tanh => each(to, x, math::tanh),
        Unary::Sigmoid => each(to, x, math::sigmoid),
        Unary::Not | Unary::Sign | Unary::Erf => unreachable!("bodies with these go to the reference"),
    }
}

fn each(to: &mut [f32], x: &[f32], f: impl Fn(f32) -> f32) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to = f(*x));
}

fn both(to: &mut [f32], x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) {
    to.iter_mut().zip(x.iter().zip(y)).for_each(|(to, (x, y))| *to = f(*x, *y));
}

/// The reference on parts.
fn by_reference(op: &Map, args: &[&Tensor], out: &TensorType, total: usize) -> Tensor {
    let op = Op::Map(op.clone());
    let chunk = |start: usize| {
        let count = TASK.min(total - start);
        let parts: Vec<Tensor> = args.iter().map(|a| part(a, start, count)).collect();
        let parts: Vec<&Tensor> = parts.iter().collect();
        op.eval(&parts, &TensorType::new(out.dtype, [count]), Precision::F32).data
    };
    let starts = (0..total).into_par_iter().step_by(TASK);
    macro_rules! joined {
        ($variant:ident, $zero:expr) => {{
            let mut all = vec![$zero; total];
            all.par_chunks_mut(TASK).zip(starts).for_each(|(to, start)| {
                if let Data::$variant(v) = chunk(start) {
                    to.copy_from_slice(&v);
                }
            });
            Data::$variant(all)
        }};
    }
    let data = match out.dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_) => joined!(F32, 0f32),
        DType::I32 => joined!(I32, 0i32),
        DType::U32 => joined!(U32, 0u32),
        DType::Bool => joined!(Bool, false),
    };
    Tensor::new(out.clone(), data)
}

/// Consecutive elements as a vector.
fn part(x: &Tensor, start: usize, count: usize) -> Tensor {
    let range = start..start + count;
    let data = match &x.data {
        Data::F32(v) => Data::F32(v[range].to_vec()),
        Data::F64(v) => Data::F64(v[range].to_vec()),
        Data::I32(v) => Data::I32(v[range].to_vec()),
        Data::U32(v) => Data::U32(v[range].to_vec()),
        Data::Bool(v) => Data::Bool(v[range].to_vec()),
    };
    Tensor::new(TensorType::new(x.ty.dtype, [count]), data)
}
