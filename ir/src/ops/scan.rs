//! `infer` and `eval`; see the list in the parent module.
use super::*;
use crate::interp::Precision;
use crate::op::TypeError;
use crate::tensor::Tensor;

impl Operator for Scan {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let _ = args;
        todo!()
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        let _ = (args, out, precision);
        todo!()
    }
}
