//! Dense host tensors.

use crate::dtype::{DType, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::interp::Precision;
use crate::shape::TensorType;

/// Elements, row-major. Floats are f32 (or f64 when evaluating in f64) whatever the dtype; values of an f16 or
/// bf16 tensor are representable in it (in f64 evaluation nothing is rounded).
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    Bool(Vec<bool>),
}

/// A dense tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its type, without symbols.
    pub ty: TensorType,
    /// Its elements.
    pub data: Data,
}

impl Tensor {
    /// A tensor from its parts.
    ///
    /// # Panics
    /// If the number of elements or their kind does not fit the type.
    pub fn new(ty: TensorType, data: Data) -> Tensor {
        let count = match &data {
            Data::F32(v) => v.len(),
            Data::F64(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::U32(v) => v.len(),
            Data::Bool(v) => v.len(),
        };
        assert_eq!(Some(count), ty.elements(), "{count} elements for {ty}");
        Tensor { ty, data }
    }
    /// An f32 tensor.
    pub fn f32(shape: &[usize], values: Vec<f32>) -> Tensor {
        Tensor::new(TensorType::new(DType::F32, shape), Data::F32(values))
    }
    /// An i32 tensor.
    pub fn i32(shape: &[usize], values: Vec<i32>) -> Tensor {
        Tensor::new(TensorType::new(DType::I32, shape), Data::I32(values))
    }
    /// Zeros (false for bool).
    ///
    /// # Panics
    /// If a symbol is left in the type.
    pub fn zeros(ty: &TensorType, precision: Precision) -> Tensor {
        let n = ty.shape.sizes().iter().product();
        let data = match (ty.dtype, precision) {
            (DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_), Precision::F32) => Data::F32(vec![0.0; n]),
            (DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_), Precision::F64) => Data::F64(vec![0.0; n]),
            (DType::I32, _) => Data::I32(vec![0; n]),
            (DType::U32, _) => Data::U32(vec![0; n]),
            (DType::Bool, _) => Data::Bool(vec![false; n]),
        };
        Tensor::new(ty.clone(), data)
    }
    /// Extents.
    pub fn sizes(&self) -> Vec<usize> {
        self.ty.shape.sizes()
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.ty.elements().expect("a tensor has no symbols")
    }
    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Elements as f64, whatever the dtype (bool: 0 and 1).
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            Data::F32(v) => v.iter().map(|&x| x as f64).collect(),
            Data::F64(v) => v.clone(),
            Data::I32(v) => v.iter().map(|&x| x as f64).collect(),
            Data::U32(v) => v.iter().map(|&x| x as f64).collect(),
            Data::Bool(v) => v.iter().map(|&x| x as u8 as f64).collect(),
        }
    }
    /// Elements as f32 (f64 values are rounded).
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(v) => v.clone(),
            _ => self.to_f64().into_iter().map(|x| x as f32).collect(),
        }
    }
    /// A tensor of `ty` from f64 values: rounded to the dtype in f32 evaluation, truncated for integers.
    pub fn from_f64(ty: TensorType, values: &[f64], precision: Precision) -> Tensor {
        let data = match ty.dtype {
            DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_) => match precision {
                Precision::F32 => Data::F32(values.iter().map(|&x| ty.dtype.round(x as f32)).collect()),
                Precision::F64 => Data::F64(values.to_vec()),
            },
            DType::I32 => Data::I32(values.iter().map(|&x| x as i32).collect()),
            DType::U32 => Data::U32(values.iter().map(|&x| x as u32).collect()),
            DType::Bool => Data::Bool(values.iter().map(|&x| x != 0.0).collect()),
        };
        Tensor::new(ty, data)
    }
    /// A tensor from little-endian bytes in the dtype's own encoding (bool: one byte an element).
    ///
    /// # Errors
    /// The number of bytes is wrong, or the dtype is packed.
    pub fn from_bytes(ty: TensorType, bytes: &[u8]) -> Result<Tensor, String> {
        let count = ty.elements().ok_or_else(|| format!("{ty} still has symbols"))?;
        let width = match ty.dtype {
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Bool => 1,
            DType::Packed(_) => return Err("packed weights are unpacked with their scales".to_string()),
        };
        if bytes.len() != count * width {
            return Err(format!("{ty} takes {} bytes, found {}", count * width, bytes.len()));
        }
        let words = || bytes.chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]);
        let halves = || bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
        let data = match ty.dtype {
            DType::F32 => Data::F32(words().map(f32::from_le_bytes).collect()),
            DType::F16 => Data::F32(halves().map(f16_to_f32).collect()),
            DType::BF16 => Data::F32(halves().map(bf16_to_f32).collect()),
            DType::I32 => Data::I32(words().map(i32::from_le_bytes).collect()),
            DType::U32 => Data::U32(words().map(u32::from_le_bytes).collect()),
            DType::Bool | DType::Packed(_) => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
        };
        Ok(Tensor::new(ty, data))
    }
    /// Little-endian bytes in the dtype's own encoding; the inverse of [`Tensor::from_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        match (&self.data, self.ty.dtype) {
            (Data::I32(v), _) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            (Data::U32(v), _) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            (Data::Bool(v), _) => v.iter().map(|&x| x as u8).collect(),
            (_, DType::F16) => self.to_f32().iter().flat_map(|&x| f32_to_f16(x).to_le_bytes()).collect(),
            (_, DType::BF16) => self.to_f32().iter().flat_map(|&x| f32_to_bf16(x).to_le_bytes()).collect(),
            _ => self.to_f32().iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
    /// The same elements for evaluation in a precision (floats are widened or rounded).
    pub fn in_precision(self, precision: Precision) -> Tensor {
        let data = match (self.data, precision) {
            (Data::F32(v), Precision::F64) => Data::F64(v.into_iter().map(f64::from).collect()),
            (Data::F64(v), Precision::F32) => Data::F32(v.into_iter().map(|x| self.ty.dtype.round(x as f32)).collect()),
            (data, _) => data,
        };
        Tensor { ty: self.ty, data }
    }
}

/// A literal's elements: little-endian bytes as a checkpoint has them.
impl From<&Tensor> for crate::attr::Literal {
    fn from(tensor: &Tensor) -> Self {
        crate::attr::Literal(tensor.to_bytes().into())
    }
}
