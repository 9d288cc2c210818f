//! Operators whose indices are data.
use super::*;
use crate::dim::Dim;
use crate::interp::Precision;
use crate::op::TypeError;
use crate::tensor::Tensor;

/// The shape that gather gives, after checking its C1.
fn gathered(x: &TensorType, indices: &TensorType, axis: usize, batch: usize) -> Result<Shape, TypeError> {
    check::axis(1, x, axis)?;
    if batch > axis || batch > indices.rank() {
        return Err(TypeError::new(1, format!("{batch} batch axes for axis {axis} of {x} by {indices}"))
            .expected_found(format!("at most {}", axis.min(indices.rank())), batch));
    }
    if x.shape.0[..batch] != indices.shape.0[..batch] {
        return Err(TypeError::new(1, format!("the {batch} leading axes must be equal"))
            .expected_found(&x.shape, &indices.shape));
    }
    let picked = x.shape.0[..axis].iter().chain(&indices.shape.0[batch..]).chain(&x.shape.0[axis + 1..]);
    Ok(Shape(picked.cloned().collect()))
}

impl Operator for Gather {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let (x, indices) = (args[0], args[1]);
        let shape = gathered(x, indices, self.axis, self.batch)?;
        check::integer(2, "indices", indices)?;
        if x.shape.0[self.axis].get() == Some(0) {
            return Err(TypeError::new(2, format!("axis {} of {x} is empty", self.axis)));
        }
        check::plain(3, x)?;
        Ok(TensorType { dtype: x.dtype, shape })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        let _ = (args, out, precision);
        todo!()
    }
}

impl Operator for Scatter {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let (x, indices, updates) = (args[0], args[1], args[2]);
        let shape = gathered(x, indices, self.axis, self.batch)?;
        let wanted = TensorType { dtype: x.dtype, shape };
        if *updates != wanted {
            return Err(
                TypeError::new(2, "updates have another type than gather would give").expected_found(wanted, updates)
            );
        }
        check::integer(3, "indices", indices)?;
        check::number(3, "`x`", x)?;
        Ok(x.clone())
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        let _ = (args, out, precision);
        todo!()
    }
}

impl Operator for Topk {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let x = args[0];
        let extent = check::axis(1, x, self.axis)?;
        if extent.get().is_some_and(|n| self.k > n) {
            return Err(TypeError::new(1, format!("axis {} of {x} has fewer than k elements", self.axis))
                .expected_found(format!("k ≤ {extent}"), self.k));
        }
        check::number(2, "the operand", x)?;
        let mut shape = x.shape.clone();
        shape.0[self.axis] = Dim::new(self.k);
        Ok(TensorType { dtype: DType::I32, shape })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        let _ = (args, out, precision);
        todo!()
    }
}
