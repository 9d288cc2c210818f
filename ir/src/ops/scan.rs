//! Cumulative operators.
use super::*;
use crate::interp::Precision;
use crate::op::TypeError;
use crate::tensor::Tensor;

impl Operator for Scan {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        check::axis(1, args[0], self.axis)?;
        check::number(2, "the operand", args[0])?;
        Ok(args[0].clone())
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        let _ = (args, out, precision);
        todo!()
    }
}
