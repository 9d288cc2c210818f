//! Reductions along axes.
use super::float::Real;
use super::walk::View;
use super::*;
use crate::interp::Precision;
use crate::op::TypeError;
use crate::tensor::{Data, Tensor};

impl Operator for Reduce {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let x = args[0];
        for (i, &a) in self.axes.iter().enumerate() {
            check::axis(1, x, a)?;
            if i > 0 && self.axes[i - 1] >= a {
                return Err(TypeError::new(1, "axes must be sorted and distinct")
                    .expected_found("rising axes", format!("{:?}", self.axes)));
            }
        }
        let extreme = matches!(self.kind, ReduceKind::Max | ReduceKind::Min);
        if !(extreme && x.dtype == DType::Bool) {
            check::number(2, "the operand", x)?;
        }
        let index = matches!(self.kind, ReduceKind::Argmax | ReduceKind::Argmin);
        if index && self.axes.len() != 1 {
            return Err(TypeError::new(3, format!("`{}` takes exactly one axis", self.kind.text()))
                .expected_found(1, self.axes.len()));
        }
        if index || extreme {
            for &a in &self.axes {
                if x.shape.0[a].get() == Some(0) {
                    return Err(TypeError::new(3, format!("`{}` of axis {a}, which is empty", self.kind.text()))
                        .expected_found("an extent of at least 1", &x.shape));
                }
            }
        }
        let kept = (0..x.rank()).filter(|a| !self.axes.contains(a)).map(|a| x.shape.0[a].clone()).collect();
        let dtype = if index { DType::I32 } else { x.dtype };
        Ok(TensorType { dtype, shape: Shape(kept) })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, _: Precision) -> Tensor {
        let sizes = args[0].sizes();
        let (kept, gone): (Vec<usize>, Vec<usize>) = (0..sizes.len()).partition(|a| !self.axes.contains(a));
        let count = gone.iter().map(|&a| sizes[a]).product();
        let perm: Vec<usize> = kept.into_iter().chain(gone).collect();
        let rows = View::permuted(&sizes, &perm).read_data(&args[0].data);
        let n = out.shape.sizes().iter().product();
        let data = match (self.kind, &rows) {
            (ReduceKind::Argmax, _) => Data::I32(best(&rows, n, count, 1.0)),
            (ReduceKind::Argmin, _) => Data::I32(best(&rows, n, count, -1.0)),
            (kind, Data::F32(v)) => Data::F32(each_row(v, n, count, |r| float_row(kind, r).rounded(out.dtype))),
            (kind, Data::F64(v)) => Data::F64(each_row(v, n, count, |r| float_row(kind, r))),
            (ReduceKind::Sum, Data::I32(v)) => {
                Data::I32(each_row(v, n, count, |r| r.iter().fold(0, |a, x| a.wrapping_add(*x))))
            }
            (ReduceKind::Sum, Data::U32(v)) => {
                Data::U32(each_row(v, n, count, |r| r.iter().fold(0, |a, x| a.wrapping_add(*x))))
            }
            (ReduceKind::Prod, Data::I32(v)) => {
                Data::I32(each_row(v, n, count, |r| r.iter().fold(1, |a, x| a.wrapping_mul(*x))))
            }
            (ReduceKind::Prod, Data::U32(v)) => {
                Data::U32(each_row(v, n, count, |r| r.iter().fold(1, |a, x| a.wrapping_mul(*x))))
            }
            (ReduceKind::Max, Data::I32(v)) => {
                Data::I32(each_row(v, n, count, |r| r.iter().copied().max().unwrap_or(i32::MIN)))
            }
            (ReduceKind::Max, Data::U32(v)) => {
                Data::U32(each_row(v, n, count, |r| r.iter().copied().max().unwrap_or(0)))
            }
            (ReduceKind::Max, Data::Bool(v)) => Data::Bool(each_row(v, n, count, |r| r.contains(&true))),
            (ReduceKind::Min, Data::I32(v)) => {
                Data::I32(each_row(v, n, count, |r| r.iter().copied().min().unwrap_or(i32::MAX)))
            }
            (ReduceKind::Min, Data::U32(v)) => {
                Data::U32(each_row(v, n, count, |r| r.iter().copied().min().unwrap_or(u32::MAX)))
            }
            (ReduceKind::Min, Data::Bool(v)) => Data::Bool(each_row(v, n, count, |r| !r.contains(&false))),
            (ReduceKind::Sum | ReduceKind::Prod, Data::Bool(_)) => unreachable!("C2: bool has no sum"),
        };
        Tensor::new(out.clone(), data)
    }
}

/// One value for each of `n` rows of `count` elements.
fn each_row<T>(rows: &[T], n: usize, count: usize, f: impl Fn(&[T]) -> T) -> Vec<T> {
    (0..n).map(|i| f(&rows[i * count..][..count])).collect()
}

fn float_row<R: Real>(kind: ReduceKind, row: &[R]) -> R {
    match kind {
        ReduceKind::Sum => sum(row),
        ReduceKind::Prod => row.iter().fold(R::from_f64(1.0), |a, x| a.mul(*x)),
        ReduceKind::Max => row.iter().fold(R::from_f64(f64::NEG_INFINITY), |a, x| if *x > a { *x } else { a }),
        ReduceKind::Min => row.iter().fold(R::from_f64(f64::INFINITY), |a, x| if *x < a { *x } else { a }),
        ReduceKind::Argmax | ReduceKind::Argmin => unreachable!("these give indices"),
    }
}

/// Σ by halves down to runs of 64: a fixed order whose error grows with the logarithm of the length.
fn sum<R: Real>(row: &[R]) -> R {
    if row.len() <= 64 {
        return row.iter().fold(R::from_f64(0.0), |a, x| a.add(*x));
    }
    let (left, right) = row.split_at(row.len().div_ceil(2).next_multiple_of(64));
    sum(left).add(sum(right))
}

/// Index of the first element of each row that no other is better than, after multiplying by `sign`; a NaN counts as
/// the worst infinity.
fn best(rows: &Data, n: usize, count: usize, sign: f64) -> Vec<i32> {
    // f64 holds every element of every dtype exactly.
    let at = |i: usize| match rows {
        Data::F32(v) => v[i] as f64,
        Data::F64(v) => v[i],
        Data::I32(v) => v[i] as f64,
        Data::U32(v) => v[i] as f64,
        Data::Bool(v) => v[i] as u8 as f64,
    };
    let key = |i: usize| {
        let key = sign * at(i);
        if key.is_nan() { f64::NEG_INFINITY } else { key }
    };
    let better = |row: usize, i: usize, best: usize| key(row * count + i) > key(row * count + best);
    (0..n).map(|row| (1..count).fold(0, |best, i| if better(row, i, best) { i } else { best }) as i32).collect()
}
