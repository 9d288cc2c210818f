//! Bounds of magnitudes that follow from the operators alone, whatever the weights and inputs are.

use selvedge_ir::ops::{Op, ReduceKind, ResizeKind};
use selvedge_ir::scalar::{Binary, Body, Scalar, Unary};
use selvedge_ir::spec::Role;
use selvedge_ir::{Function, Tensor, ValueId};

/// For each value a number that no element's magnitude exceeds, as long as all arithmetic is finite; `None` where there is none.
pub fn bounds(function: &Function) -> Vec<Option<f64>> {
    let mut known: Vec<Option<f64>> = Vec::with_capacity(function.values.len());
    for id in function.ids() {
        let bound = function.op(id).and_then(|(op, args)| {
            let args: Vec<(ValueId, Option<f64>)> = args.iter().map(|a| (*a, known[a.0 as usize])).collect();
            of_op(function, id, op, &args)
        });
        known.push(bound.filter(|b| b.is_finite()));
    }
    known
}

fn of_op(function: &Function, id: ValueId, op: &Op, args: &[(ValueId, Option<f64>)]) -> Option<f64> {
    let sizes = |id: ValueId| function.ty(id).shape.get();
    let elements = |id: ValueId| function.ty(id).elements().map(|n| n as f64);
    let bound = |i: usize| args.get(i).and_then(|a| a.1);
    // |x − mean| / deviation is at most √n; absent vectors are 1 and 0.
    let normed = |n: f64, scale: usize, bias: usize| {
        let scale = if args.len() > scale { bound(scale)? } else { 1.0 };
        let bias = if args.len() > bias { bound(bias)? } else { 0.0 };
        Some(n.sqrt() * scale + bias)
    };
    match op {
        Op::Input(_) | Op::Weight(_) | Op::State(_) => None,
        Op::Const(c) => {
            let tensor = Tensor::from_bytes(function.ty(id).clone(), &c.data.0).ok()?;
            Some(tensor.to_f64().iter().fold(0.0, |most: f64, x| most.max(x.abs())))
        }
        Op::Iota(iota) => Some(*sizes(id)?.get(iota.axis)? as f64),
        Op::Map(map) => of_body(&map.body, &args.iter().map(|a| a.1).collect::<Vec<_>>()),
        Op::Reduce(reduce) => {
            let n = elements(args[0].0)? / elements(id)?.max(1.0);
            match reduce.kind {
                ReduceKind::Sum => Some(n * bound(0)?),
                ReduceKind::Max | ReduceKind::Min if n > 0.0 => bound(0),
                ReduceKind::Argmax | ReduceKind::Argmin => Some(n),
                ReduceKind::Max | ReduceKind::Min | ReduceKind::Prod => None,
            }
        }
        Op::Contract(contract) => {
            let spec = &contract.spec;
            let summed = spec.a.iter().zip(sizes(args[0].0)?).filter(|(l, _)| spec.role(**l) == Some(Role::Summed));
            Some(summed.map(|(_, size)| size as f64).product::<f64>() * bound(0)? * bound(1)?)
        }
        Op::Transpose(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Slice(_) | Op::Gather(_) => bound(0),
        Op::Pad(pad) => Some(bound(0)?.max(pad.value.0.abs())),
        Op::Concat(_) => args.iter().try_fold(0.0, |most: f64, a| Some(most.max(a.1?))),
        Op::Window(_) | Op::Scan(_) | Op::Scatter(_) | Op::Topk(_) => None,
        Op::Softmax(_) => Some(1.0),
        Op::LayerNorm(_) => normed(*sizes(args[0].0)?.last()? as f64, 1, 2),
        Op::RmsNorm(_) => normed(*sizes(args[0].0)?.last()? as f64, 1, usize::MAX - 1),
        Op::GroupNorm(norm) => {
            let rows = *sizes(args[0].0)?.first()? as f64 * norm.groups as f64;
            normed(elements(args[0].0)? / rows.max(1.0), 1, 2)
        }
        // Means of values with weights that sum to 1, or 0.
        Op::Attention(_) | Op::LocalAttention(_) => bound(2),
        Op::PoolTokens(_) => bound(0),
        Op::Rope(_) => Some(bound(0)? * (bound(1)? + bound(2)?)),
        Op::Resize(resize) => match resize.kind {
            ResizeKind::Nearest | ResizeKind::Linear => bound(0),
        },
    }
}

/// Of a scalar body, from bounds of its arguments.
fn of_body(body: &Body, args: &[Option<f64>]) -> Option<f64> {
    let mut known: Vec<Option<f64>> = Vec::with_capacity(body.nodes().len());
    for node in body.nodes() {
        let at = |x: u32| known[x as usize];
        let bound = match *node {
            Scalar::Arg(i) => args[i as usize],
            Scalar::Float(x) => Some(x.0.abs()),
            Scalar::Int(x) => Some(f64::from(x).abs()),
            Scalar::Uint(x) => Some(f64::from(x)),
            Scalar::Bool(_) => Some(1.0),
            Scalar::Unary(op, x) => of_unary(op, at(x)),
            Scalar::Binary(op, x, y) => of_binary(op, at(x), at(y)),
            Scalar::Select(_, x, y) => at(x).zip(at(y)).map(|(x, y)| x.max(y)),
            // Rounding to bf16 adds at most 2⁻⁸ of the value.
            Scalar::Cast(_, x) => at(x).map(|x| x * (1.0 + 1.0 / 256.0)),
            Scalar::Bits(..) => None,
        };
        known.push(bound);
    }
    known.last().copied().flatten()
}

fn of_unary(op: Unary, x: Option<f64>) -> Option<f64> {
    match op {
        Unary::Neg | Unary::Abs => x,
        Unary::Sign | Unary::Sin | Unary::Cos | Unary::Tanh | Unary::Erf | Unary::Sigmoid => Some(1.0),
        Unary::Floor | Unary::Ceil | Unary::Round | Unary::Trunc => Some(x? + 1.0),
        Unary::Sqrt => Some(x?.sqrt()),
        Unary::Exp => Some(x?.exp()),
        Unary::Exp2 => Some(x?.exp2()),
        Unary::Not | Unary::Log | Unary::Log2 | Unary::Rsqrt => None,
    }
}

fn of_binary(op: Binary, x: Option<f64>, y: Option<f64>) -> Option<f64> {
    match op {
        Binary::Add | Binary::Sub => Some(x? + y?),
        Binary::Mul => Some(x? * y?),
        Binary::Min | Binary::Max => Some(x?.max(y?)),
        Binary::Rem => y,
        Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge | Binary::Eq | Binary::Ne => Some(1.0),
        Binary::Div | Binary::Pow | Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_ir::parse::parse;

    #[test]
    fn operators_bound_what_they_give() {
        let text = "fn @f(%x: f32[2,16], %v: f32[1,1,4,8]) {
  %s = softmax %x axis=1 : f32[2,16]
  %n = layer_norm %x eps=1e-6 : f32[2,16]
  %m = map %n, %s body={n, s| n * 2.0 + tanh(s)} : f32[2,16]
  %a = attention %v, %v, %v scale=1.0 causal=false : f32[1,1,4,8]
  %p = contract %s, %n spec=[ab,cb->ac] dtype=f32 : f32[2,2]
  return m=%m, a=%a, p=%p
}";
        let module = parse(text).unwrap_or_else(|e| panic!("{e}"));
        let bounds = bounds(&module.functions[0]);
        // The last: 16 products of 1 and 4.
        assert_eq!(bounds, [None, None, Some(1.0), Some(4.0), Some(9.0), None, Some(64.0)]);
    }
}
