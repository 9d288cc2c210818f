//! Leaves: what a function reads without operands.
use super::*;
use crate::interp::Precision;
use crate::op::TypeError;
use crate::tensor::Tensor;

impl Operator for Input {
    fn infer(&self, _: &[&TensorType]) -> Result<TensorType, TypeError> {
        Ok(self.ty.clone())
    }
    fn eval(&self, _: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        Tensor::zeros(out, precision)
    }
}

impl Operator for Weight {
    fn infer(&self, _: &[&TensorType]) -> Result<TensorType, TypeError> {
        Ok(self.ty.clone())
    }
    fn eval(&self, _: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        Tensor::zeros(out, precision)
    }
}

impl Operator for State {
    fn infer(&self, _: &[&TensorType]) -> Result<TensorType, TypeError> {
        Ok(self.ty.clone())
    }
    fn eval(&self, _: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        Tensor::zeros(out, precision)
    }
}

impl Operator for Const {
    fn infer(&self, _: &[&TensorType]) -> Result<TensorType, TypeError> {
        check::plain(2, &self.ty)?;
        let elements =
            self.ty.elements().filter(|_| self.ty.shape.get().is_some()).ok_or_else(|| {
                TypeError::new(2, format!("a constant's shape has no symbols, found {}", self.ty.shape))
            })?;
        let width = match self.ty.dtype {
            DType::F32 | DType::I32 | DType::U32 | DType::Packed(_) => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Bool => 1,
        };
        let (wanted, found) = (elements.saturating_mul(width), self.data.0.len());
        if wanted != found {
            return Err(TypeError::new(1, format!("the elements do not fill {}", self.ty))
                .expected_found(format!("{wanted} bytes"), format!("{found} bytes")));
        }
        Ok(self.ty.clone())
    }
    fn eval(&self, _: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        Tensor::from_bytes(out.clone(), &self.data.0).expect("C1: the elements fill the type").in_precision(precision)
    }
}

impl Operator for Iota {
    fn infer(&self, _: &[&TensorType]) -> Result<TensorType, TypeError> {
        check::axis(1, &self.ty, self.axis)?;
        if !matches!(self.ty.dtype, DType::F32 | DType::I32 | DType::U32) {
            return Err(TypeError::new(2, "iota gives indices").expected_found("f32, i32 or u32", self.ty.dtype));
        }
        Ok(self.ty.clone())
    }
    fn eval(&self, _: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        let sizes = out.shape.sizes();
        let (extent, inner) = (sizes[self.axis], sizes[self.axis + 1..].iter().product::<usize>());
        let indices: Vec<f64> =
            (0..out.shape.sizes().iter().product()).map(|i: usize| (i / inner % extent) as f64).collect();
        Tensor::from_f64(out.clone(), &indices, precision)
    }
}
