//! Tensors on the host.

use crate::error::RuntimeError;
use selvedge_bundle::manifest::Port;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Named tensors.
pub type Tensors = BTreeMap<String, HostTensor>;

/// A dense row-major tensor in the host's memory.
///
/// An element is a 32-bit word, as in the device's arena. Which of the three a port takes and gives follows from its
/// dtype: f32, f16 and bf16 are `F32` (rounded to the port's dtype on the way in), i32 is `I32`, u32 and bool are `U32`
/// (any word but 0 is true).
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Extents; none for a scalar.
    pub shape: Vec<u64>,
    /// As many elements as the shape says.
    pub data: HostData,
}

/// The elements of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum HostData {
    /// Floats.
    F32(Vec<f32>),
    /// Signed integers.
    I32(Vec<i32>),
    /// Unsigned integers and truth values.
    U32(Vec<u32>),
}

impl HostTensor {
    /// A tensor of floats.
    pub fn f32(shape: &[u64], data: Vec<f32>) -> HostTensor {
        HostTensor { shape: shape.to_vec(), data: HostData::F32(data) }
    }
    /// A tensor of signed integers.
    pub fn i32(shape: &[u64], data: Vec<i32>) -> HostTensor {
        HostTensor { shape: shape.to_vec(), data: HostData::I32(data) }
    }
    /// A tensor of unsigned integers or truth values.
    pub fn u32(shape: &[u64], data: Vec<u32>) -> HostTensor {
        HostTensor { shape: shape.to_vec(), data: HostData::U32(data) }
    }
    /// The floats, if it holds floats.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            HostData::F32(data) => Some(data),
            HostData::I32(_) | HostData::U32(_) => None,
        }
    }

    /// Words from the device as a tensor of a port.
    pub(crate) fn from_words(port: &Port, words: Vec<u32>) -> HostTensor {
        let data = match port.dtype.as_str() {
            "i32" => HostData::I32(bytemuck::allocation::cast_vec(words)),
            "u32" | "bool" => HostData::U32(words),
            _ => HostData::F32(bytemuck::allocation::cast_vec(words)),
        };
        HostTensor { shape: port.shape.clone(), data }
    }

    /// The words that a port of this dtype gets. `rows` is the extent of the leading axis that a table has over its port.
    ///
    /// # Errors
    /// Another shape or kind of element than the port's.
    pub(crate) fn to_words(&self, port: &Port, rows: Option<u64>) -> Result<Cow<'_, [u32]>, RuntimeError> {
        let bad = |problem: String| Err(RuntimeError::BadInput(format!("input `{}`: {problem}", port.name)));
        let shape: Vec<u64> = rows.into_iter().chain(port.shape.iter().copied()).collect();
        if self.shape != shape {
            return bad(format!("expected shape {shape:?}, found {:?}", self.shape));
        }
        let (length, kind) = match &self.data {
            HostData::F32(data) => (data.len(), "f32"),
            HostData::I32(data) => (data.len(), "i32"),
            HostData::U32(data) => (data.len(), "u32"),
        };
        if shape.iter().try_fold(1u64, |n, extent| n.checked_mul(*extent)) != Some(length as u64) {
            return bad(format!("shape {shape:?} with {length} elements"));
        }
        match (&self.data, port.dtype.as_str()) {
            (HostData::F32(data), "f32") => Ok(Cow::Borrowed(bytemuck::cast_slice(data))),
            (HostData::F32(data), "f16") => {
                Ok(data.iter().map(|x| half::f16::from_f32(*x).to_f32().to_bits()).collect())
            }
            (HostData::F32(data), "bf16") => {
                Ok(data.iter().map(|x| half::bf16::from_f32(*x).to_f32().to_bits()).collect())
            }
            (HostData::I32(data), "i32") => Ok(Cow::Borrowed(bytemuck::cast_slice(data))),
            (HostData::U32(data), "u32") => Ok(Cow::Borrowed(data)),
            (HostData::U32(data), "bool") => Ok(data.iter().map(|x| (*x != 0) as u32).collect()),
            (HostData::F32(_) | HostData::I32(_) | HostData::U32(_), dtype) => {
                bad(format!("expected elements for dtype {dtype}, found {kind}"))
            }
        }
    }
}
