//! Composites: each is its expansion.
use super::*;
use crate::func::{Builder, ValueId};
use crate::interp::Precision;
use crate::op::{Composite, TypeError};
use crate::tensor::Tensor;

impl<T: Composite> Operator for T {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let _ = args;
        todo!()
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        let _ = (args, out, precision);
        todo!()
    }
}

impl Composite for Softmax {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let _ = (b, args);
        todo!()
    }
}

impl Composite for LayerNorm {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let _ = (b, args);
        todo!()
    }
}

impl Composite for RmsNorm {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let _ = (b, args);
        todo!()
    }
}

impl Composite for GroupNorm {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let _ = (b, args);
        todo!()
    }
}

impl Composite for Attention {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let _ = (b, args);
        todo!()
    }
}

impl Composite for LocalAttention {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let _ = (b, args);
        todo!()
    }
}

impl Composite for Rope {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let _ = (b, args);
        todo!()
    }
}

impl Composite for PoolTokens {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let _ = (b, args);
        todo!()
    }
}

impl Composite for Resize {
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let _ = (b, args);
        todo!()
    }
}
