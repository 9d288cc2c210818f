//! Pointwise application of a scalar body.
use super::*;
use crate::interp::Precision;
use crate::op::TypeError;
use crate::tensor::Tensor;

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
        let _ = (args, out, precision);
        todo!()
    }
}
