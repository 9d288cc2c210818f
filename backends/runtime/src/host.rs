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

    /// Its elements where they are.
    pub fn view(&self) -> View<'_> {
        let data = match &self.data {
            HostData::F32(data) => ViewData::F32(data.into()),
            HostData::I32(data) => ViewData::I32(data.into()),
            HostData::U32(data) => ViewData::U32(data.into()),
        };
        View { shape: self.shape.clone(), data }
    }
}

/// Named tensors that need not be copied to be given.
pub type Views<'a> = BTreeMap<String, View<'a>>;

/// As [`HostTensor`], with elements that may be somebody else's.
#[derive(Clone, Debug, PartialEq)]
pub struct View<'a> {
    /// Extents; none for a scalar.
    pub shape: Vec<u64>,
    /// As many elements as the shape says.
    pub data: ViewData<'a>,
}

/// As [`HostData`].
#[derive(Clone, Debug, PartialEq)]
pub enum ViewData<'a> {
    /// Floats.
    F32(Cow<'a, [f32]>),
    /// Signed integers.
    I32(Cow<'a, [i32]>),
    /// Unsigned integers and truth values.
    U32(Cow<'a, [u32]>),
}

/// Views of all of them.
pub(crate) fn views(tensors: &Tensors) -> Views<'_> {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.view())).collect()
}

impl View<'_> {
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
            ViewData::F32(data) => (data.len(), "f32"),
            ViewData::I32(data) => (data.len(), "i32"),
            ViewData::U32(data) => (data.len(), "u32"),
        };
        if shape.iter().try_fold(1u64, |n, extent| n.checked_mul(*extent)) != Some(length as u64) {
            return bad(format!("shape {shape:?} with {length} elements"));
        }
        match (&self.data, port.dtype.as_str()) {
            (ViewData::F32(data), "f32") => Ok(Cow::Borrowed(bytemuck::cast_slice(data))),
            (ViewData::F32(data), "f16") => {
                Ok(data.iter().map(|x| half::f16::from_f32(*x).to_f32().to_bits()).collect())
            }
            (ViewData::F32(data), "bf16") => {
                Ok(data.iter().map(|x| half::bf16::from_f32(*x).to_f32().to_bits()).collect())
            }
            (ViewData::I32(data), "i32") => Ok(Cow::Borrowed(bytemuck::cast_slice(data))),
            (ViewData::U32(data), "u32") => Ok(Cow::Borrowed(&data[..])),
            (ViewData::U32(data), "bool") => Ok(data.iter().map(|x| (*x != 0) as u32).collect()),
            (ViewData::F32(_) | ViewData::I32(_) | ViewData::U32(_), dtype) => {
                bad(format!("expected elements for dtype {dtype}, found {kind}"))
            }
        }
    }
}
