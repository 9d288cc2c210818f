//! Cumulative operators.
use super::float::finite_range;
use super::walk::around;
use super::*;
use crate::interp::Precision;
use crate::op::TypeError;
use crate::tensor::{Data, Tensor};
use std::ops::{Add, Mul};

impl Operator for Scan {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        check::axis(1, args[0], self.axis)?;
        check::number(2, "the operand", args[0])?;
        Ok(args[0].clone())
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, _: Precision) -> Tensor {
        let around = around(&args[0].sizes(), self.axis);
        let (low, high) = finite_range(out.dtype);
        let data = match &args[0].data {
            Data::F32(x) => {
                let wide: Vec<f32> = self.run(x, around, [0.0, 1.0, low as f32, high as f32], f32::add, f32::mul);
                Data::F32(wide.into_iter().map(|x| out.dtype.round(x)).collect())
            }
            Data::F64(x) => Data::F64(self.run(x, around, [0.0, 1.0, low, high], f64::add, f64::mul)),
            Data::I32(x) => {
                Data::I32(self.run(x, around, [0, 1, i32::MIN, i32::MAX], i32::wrapping_add, i32::wrapping_mul))
            }
            Data::U32(x) => {
                Data::U32(self.run(x, around, [0, 1, u32::MIN, u32::MAX], u32::wrapping_add, u32::wrapping_mul))
            }
            Data::Bool(_) => unreachable!("C2: bool is not scanned"),
        };
        Tensor::new(out.clone(), data)
    }
}

impl Scan {
    /// `neutral` are the neutral elements of sum, product, max and min.
    fn run<T: Copy + PartialOrd>(
        &self,
        x: &[T],
        (before, extent, after): (usize, usize, usize),
        neutral: [T; 4],
        add: fn(T, T) -> T,
        mul: fn(T, T) -> T,
    ) -> Vec<T> {
        let start = match self.kind {
            ScanKind::Sum => neutral[0],
            ScanKind::Prod => neutral[1],
            ScanKind::Max => neutral[2],
            ScanKind::Min => neutral[3],
        };
        let mut y = x.to_vec();
        for line in 0..before * after {
            let first = line / after * extent * after + line % after;
            let mut total = start;
            for i in 0..extent {
                let at = first + after * if self.reverse { extent - 1 - i } else { i };
                let next = match self.kind {
                    ScanKind::Sum => add(total, x[at]),
                    ScanKind::Prod => mul(total, x[at]),
                    ScanKind::Max => {
                        if x[at] > total {
                            x[at]
                        } else {
                            total
                        }
                    }
                    ScanKind::Min => {
                        if x[at] < total {
                            x[at]
                        } else {
                            total
                        }
                    }
                };
                y[at] = if self.exclusive { total } else { next };
                total = next;
            }
        }
        y
    }
}
