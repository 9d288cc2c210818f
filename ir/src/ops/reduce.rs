//! Reductions along axes.
use super::*;
use crate::interp::Precision;
use crate::op::TypeError;
use crate::tensor::Tensor;

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
    fn eval(&self, args: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        let _ = (args, out, precision);
        todo!()
    }
}
