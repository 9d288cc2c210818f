//! The host device: the interpreter with faster kernels where they pay.
//!
//! Every kernel here computes what the operator's reference computes, up to the order of sums and a few units
//! in the last place of transcendental functions; whatever is not covered is left to the reference.

mod composite;
mod contract;
mod gemm;
mod layout;
mod map;
mod math;
mod reduce;
mod window;

use rayon::prelude::*;
use selvedge_ir::interp::HostKernels;
use selvedge_ir::{DType, Op, Tensor, TensorType};

/// Kernels on the processor's cores.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host;

impl HostKernels for Host {
    fn eval(&self, op: &Op, args: &[&Tensor], out: &TensorType) -> Option<Tensor> {
        if args.iter().any(|a| matches!(a.ty.dtype, DType::Packed(_))) && !matches!(op, Op::Map(_)) {
            return None;
        }
        match op {
            Op::Map(map) => map::eval(map, args, out),
            Op::Reduce(reduce) => reduce::eval(reduce, args[0], out),
            Op::Contract(contract) => contract::eval(contract, args[0], args[1], out),
            Op::Window(window) => window::eval(window, args[0], args.get(1).copied(), out),
            Op::Transpose(t) => Some(layout::transpose(args[0], &t.perm, out)),
            Op::Reshape(_) => Some(Tensor::new(out.clone(), args[0].data.clone())),
            Op::Broadcast(b) => Some(layout::broadcast(args[0], &b.axes, out)),
            Op::Slice(s) => Some(layout::slice(args[0], &s.start, &s.step, out)),
            Op::Pad(p) => layout::pad(args[0], &p.padding, p.value.0, out),
            Op::Concat(c) => layout::concat(args, c.axis, out),
            Op::Softmax(s) => composite::softmax(args[0], s.axis, out),
            Op::LayerNorm(n) => {
                composite::norm(args[0], args.get(1).copied(), args.get(2).copied(), n.eps.0, true, out)
            }
            Op::RmsNorm(n) => composite::norm(args[0], args.get(1).copied(), None, n.eps.0, false, out),
            Op::Attention(a) => match args {
                [q, k, v] => composite::attention(a, q, k, v, out),
                _ => None,
            },
            Op::Input(_)
            | Op::Weight(_)
            | Op::State(_)
            | Op::Const(_)
            | Op::Iota(_)
            | Op::Scan(_)
            | Op::Gather(_)
            | Op::Scatter(_)
            | Op::Topk(_)
            | Op::GroupNorm(_)
            | Op::LocalAttention(_)
            | Op::Rope(_)
            | Op::PoolTokens(_)
            | Op::Resize(_) => None,
        }
    }
}

/// Runs over chunks of a slice in parallel, with the index of each chunk's first element.
fn chunked(data: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync) {
    const CHUNK: usize = 1 << 14;
    data.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| f(i * CHUNK, chunk));
}
