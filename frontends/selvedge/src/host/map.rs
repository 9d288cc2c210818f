//! `map` on all cores: the reference on chunks that stay in cache, so that both agree to the bit.

use rayon::prelude::*;
use selvedge_ir::ops::{Map, Op};
use selvedge_ir::{Data, Precision, Tensor, TensorType};

/// Elements of a chunk.
const CHUNK: usize = 1 << 14;

/// The map's value; `None` if it is too small to be worth splitting.
pub fn eval(op: &Map, args: &[&Tensor], out: &TensorType) -> Option<Tensor> {
    let total = out.elements()?;
    if total <= CHUNK || args.iter().any(|a| matches!(a.data, Data::F64(_))) {
        return None;
    }
    let op = Op::Map(op.clone());
    let chunk = |start: usize| {
        let count = CHUNK.min(total - start);
        let parts: Vec<Tensor> = args.iter().map(|a| part(a, start, count)).collect();
        let parts: Vec<&Tensor> = parts.iter().collect();
        op.eval(&parts, &TensorType::new(out.dtype, [count]), Precision::F32).data
    };
    let starts = (0..total).into_par_iter().step_by(CHUNK);
    macro_rules! joined {
        ($variant:ident, $zero:expr) => {{
            let mut all = vec![$zero; total];
            all.par_chunks_mut(CHUNK).zip(starts).for_each(|(to, start)| {
                if let Data::$variant(v) = chunk(start) {
                    to.copy_from_slice(&v);
                }
            });
            Data::$variant(all)
        }};
    }
    let data = match Tensor::zeros(&TensorType::new(out.dtype, [0]), Precision::F32).data {
        Data::F32(_) => joined!(F32, 0f32),
        Data::F64(_) => return None,
        Data::I32(_) => joined!(I32, 0i32),
        Data::U32(_) => joined!(U32, 0u32),
        Data::Bool(_) => joined!(Bool, false),
    };
    Some(Tensor::new(out.clone(), data))
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
