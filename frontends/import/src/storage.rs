//! One safetensors file: header read and checked, bytes left where they are.

use crate::files::lfs_pointer;
use crate::map::MappedFile;
use safetensors::tensor::{Metadata, SafeTensorError};
use safetensors::{Dtype, SafeTensors};
use selvedge_ir::{DType, Diagnostic, Tensor, TensorType};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// Bytes of a safetensors file.
#[derive(Debug)]
enum Bytes {
    Mapped(MappedFile),
    Static(&'static [u8]),
}

/// A safetensors file whose header has been checked against its length.
#[derive(Debug)]
pub struct Storage {
    /// Where it came from, for messages.
    pub origin: String,
    bytes: Bytes,
    entries: BTreeMap<String, Entry>,
}

/// One tensor of a file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Element type as stored.
    pub stored: Dtype,
    /// Extents.
    pub shape: Vec<usize>,
    range: Range<usize>,
}

/// Where a tensor's bytes lie on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location<'a> {
    /// The file, as it was opened.
    pub file: &'a Path,
    /// First byte in the file.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
}

impl Storage {
    /// Maps a file.
    ///
    /// # Errors
    /// It cannot be read, or is not a whole safetensors file.
    pub fn open(path: &Path) -> Result<Storage, Diagnostic> {
        let origin = path.display().to_string();
        let map = MappedFile::open(path).map_err(|e| {
            Diagnostic::new("import", format!("cannot read `{origin}`: {e}")).help("check the path and its permissions")
        })?;
        Storage::new(origin, Bytes::Mapped(map))
    }
    /// A file that is part of the program.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub fn embedded(origin: &str, bytes: &'static [u8]) -> Result<Storage, Diagnostic> {
        Storage::new(origin.to_string(), Bytes::Static(bytes))
    }
    fn new(origin: String, bytes: Bytes) -> Result<Storage, Diagnostic> {
        let content: &[u8] = match &bytes {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        };
        if let Some(pointer) = lfs_pointer(&origin, content) {
            return Err(pointer);
        }
        let (header, metadata) = SafeTensors::read_metadata(content).map_err(|e| damaged(&origin, content, e))?;
        let entries = entries(&metadata, 8 + header);
        Ok(Storage { origin, bytes, entries })
    }
    /// All tensors by name.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }
    /// A tensor's bytes as stored.
    pub fn raw(&self, entry: &Entry) -> &[u8] {
        let all: &[u8] = match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        };
        &all[entry.range.clone()] // in range: the header was checked against the length
    }
    /// See [`MappedFile::release`].
    pub fn release(&self) {
        match &self.bytes {
            Bytes::Mapped(map) => map.release(),
            Bytes::Static(_) => {}
        }
    }
    /// Where a tensor's bytes as stored lie; `None` in a file that is part of the program.
    pub fn location(&self, entry: &Entry) -> Option<Location<'_>> {
        match &self.bytes {
            Bytes::Mapped(_) => {
                let (offset, bytes) = (entry.range.start as u64, entry.range.len() as u64);
                Some(Location { file: Path::new(&self.origin), offset, bytes })
            }
            Bytes::Static(_) => None,
        }
    }
    /// A tensor's values in the dtype that the IR gives it (see [`ir_dtype`]).
    ///
    /// # Errors
    /// An unsupported dtype, or an integer that does not fit 32 bits.
    pub fn read(&self, name: &str, entry: &Entry) -> Result<Tensor, Diagnostic> {
        let dtype = ir_dtype(entry.stored).ok_or_else(|| unsupported_dtype(&self.origin, name, entry.stored))?;
        let ty = TensorType::new(dtype, entry.shape.clone());
        let raw = self.raw(entry);
        let bytes = narrow(entry.stored, raw).map_err(|value| {
            Diagnostic::new("import", format!("an element of `{name}` in `{}` does not fit 32 bits", self.origin))
                .expected_found(format!("{} to {}", i32::MIN, i32::MAX), value)
        })?;
        Tensor::from_bytes(ty, bytes.as_deref().unwrap_or(raw))
            .map_err(|e| Diagnostic::new("import", format!("`{name}` in `{}`: {e}", self.origin)))
    }
}

/// The IR's dtype for a stored one: 64-bit numbers and small integers become 32-bit ones; `None` if it is not supported.
pub fn ir_dtype(stored: Dtype) -> Option<DType> {
    match stored {
        Dtype::F32 | Dtype::F64 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::I64 | Dtype::I32 | Dtype::I16 | Dtype::I8 | Dtype::U8 | Dtype::U16 => Some(DType::I32),
        Dtype::U32 => Some(DType::U32),
        Dtype::BOOL => Some(DType::Bool),
        _ => None, // the library's list is open; what is not named here is not supported
    }
}

/// Names of the dtypes that can be read, for messages.
pub const SUPPORTED: &str = "F32, F16, BF16, F64, I64, I32, I16, I8, U32, U16, U8 or BOOL";

/// The error for a tensor of another dtype.
pub fn unsupported_dtype(origin: &str, name: &str, stored: Dtype) -> Diagnostic {
    Diagnostic::new("import", format!("tensor `{name}` in `{origin}` has an unsupported dtype"))
        .expected_found(SUPPORTED, format!("{stored:?}"))
        .help("convert the checkpoint, for example to BF16")
}

fn entries(metadata: &Metadata, start: usize) -> BTreeMap<String, Entry> {
    metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let (from, to) = info.data_offsets;
            (name, Entry { stored: info.dtype, shape: info.shape.clone(), range: start + from..start + to })
        })
        .collect()
}

/// Bytes in the IR's dtype, where they differ from the stored ones; the error is a value out of range.
fn narrow(stored: Dtype, raw: &[u8]) -> Result<Option<Vec<u8>>, i64> {
    let ints = |values: &mut dyn Iterator<Item = i64>| {
        let mut bytes = Vec::new();
        for value in values {
            bytes.extend(i32::try_from(value).map_err(|_| value)?.to_le_bytes());
        }
        Ok(Some(bytes))
    };
    let eight = |c: &[u8]| [c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]];
    match stored {
        Dtype::I64 => ints(&mut raw.chunks_exact(8).map(|c| i64::from_le_bytes(eight(c)))),
        Dtype::I16 => ints(&mut raw.chunks_exact(2).map(|c| i16::from_le_bytes([c[0], c[1]]) as i64)),
        Dtype::U16 => ints(&mut raw.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]) as i64)),
        Dtype::I8 => ints(&mut raw.iter().map(|&b| b as i8 as i64)),
        Dtype::U8 => ints(&mut raw.iter().map(|&b| b as i64)),
        Dtype::F64 => {
            Ok(Some(raw.chunks_exact(8).flat_map(|c| (f64::from_le_bytes(eight(c)) as f32).to_le_bytes()).collect()))
        }
        _ => Ok(None),
    }
}

/// What is wrong with a file that does not parse.
fn damaged(origin: &str, content: &[u8], error: SafeTensorError) -> Diagnostic {
    let length = content.len();
    let header = content.get(..8).map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes")));
    let not_one = |why: String| {
        Diagnostic::new("import", format!("`{origin}` is not a safetensors file: {why}"))
            .expected_found("eight bytes of header length, a JSON header, then the tensors", format!("{length} bytes"))
            .help("check that the download is complete and that this is the file you mean")
    };
    match error {
        SafeTensorError::HeaderTooSmall => not_one("it is too short for a header".into()),
        SafeTensorError::HeaderTooLarge => {
            not_one(format!("its first eight bytes announce a header of {} bytes", header.unwrap_or(0)))
        }
        SafeTensorError::InvalidHeaderLength => {
            let announced = header.unwrap_or(0);
            Diagnostic::new(
                "import",
                format!("`{origin}` is truncated or not a safetensors file: the header is cut off"),
            )
            .expected_found(format!("a header of {announced} bytes"), format!("{length} bytes in all"))
            .help("fetch the file again")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            let needed = data_length(content).and_then(|data| Some(8 + header? as usize + data));
            let expected = needed.map_or("the length that the header describes".into(), |n| format!("{n} bytes"));
            let how = if needed.is_some_and(|n| n > length) { "truncated" } else { "not as long as its header says" };
            Diagnostic::new("import", format!("`{origin}` is {how}"))
                .expected_found(expected, format!("{length} bytes"))
                .help("fetch the file again")
        }
        SafeTensorError::InvalidHeader(e) => not_one(format!("its header is not text: {e}")),
        SafeTensorError::InvalidHeaderDeserialization(e) => {
            // Errors of the checks inside come wrapped, too.
            let bare = e.to_string();
            not_one(format!("its header cannot be read: {bare}"))
        }
        SafeTensorError::InvalidOffset(name) => lies(origin, format!("the offsets of `{name}` overlap or leave a gap")),
        SafeTensorError::TensorInvalidInfo => lies(origin, "a tensor's shape and number of bytes do not fit".into()),
        SafeTensorError::ValidationOverflow => lies(origin, "a tensor's shape is larger than any memory".into()),
        other => not_one(other.to_string()),
    }
}

fn lies(origin: &str, what: String) -> Diagnostic {
    Diagnostic::new("import", format!("the header of `{origin}` is wrong: {what}"))
        .expected_found("tensors end to end, each as long as its shape and dtype say", "a header that says otherwise")
        .help("the file is damaged or was written wrongly; fetch or convert it again")
}

/// Number of data bytes that a readable header describes.
fn data_length(content: &[u8]) -> Option<usize> {
    let header = u64::from_le_bytes(content.get(..8)?.try_into().ok()?) as usize;
    let metadata: Metadata = serde_json::from_slice(content.get(8..8 + header)?).ok()?;
    Some(metadata.data_len())
}
