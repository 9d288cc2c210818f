//! Writing: reproducible, streamed, and all or nothing.

use crate::bundle::{Bundle, UNHASHED, WeightBytes, checksum_start};
use crate::dtype::{element_bytes, safetensors_name, weight_bytes};
use crate::error::{BundleError, Flaw};
use crate::header::{Header, Info, canonical, render};
use crate::manifest::{FORMAT, Manifest, Weight};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Makes a bundle of its parts (see [`Bundle::new`]) and writes it to `path` (see [`Bundle::write`]).
///
/// # Errors
/// The parts do not fit each other, or the file cannot be written.
pub fn write<'a>(
    path: &Path,
    manifest: &Manifest,
    kernels: &[String],
    module: &str,
    weights: impl FnMut(&Weight) -> Result<Cow<'a, [u8]>, String>,
) -> Result<u64, BundleError> {
    Bundle::new(manifest.clone(), kernels.to_vec(), module.to_string(), weights)?.write(path)
}

impl Bundle<'_> {
    /// Writes the file and returns its size in bytes. It appears under its name when it is complete; if that
    /// fails, what was there before stays.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written to, the disk is full, or a weight's bytes do not have its hash.
    pub fn write(&self, path: &Path) -> Result<u64, BundleError> {
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            return Err(BundleError::NoFolder { path: path.to_path_buf(), folder: folder.to_path_buf() });
        }
        let (temporary, file) = Temporary::create(folder, path)?;
        let io = |action, source| BundleError::Io { action, path: path.to_path_buf(), source };
        let mut out = io::BufWriter::with_capacity(1 << 20, file);
        let size = self.write_to(&mut out, |source| io("write", source))?;
        let file = out.into_inner().map_err(|e| io("write", e.into_error()))?;
        file.sync_all().map_err(|source| io("write", source))?;
        drop(file);
        temporary.rename(path)?;
        Ok(size)
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// A weight's bytes do not have its hash, or the header is too large for the format.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let mut bytes = Vec::new();
        let memory = |source| BundleError::Io { action: "write", path: PathBuf::from("memory"), source };
        self.write_to(&mut bytes, memory)?;
        Ok(bytes)
    }

    /// Writes header and tensors in order and returns the number of bytes; weights are made, if they are, and hashed on their way.
    ///
    /// # Errors
    /// As [`Bundle::write`]; `io` makes one of what the writer says.
    pub fn write_to(&self, out: &mut impl Write, io: impl Fn(io::Error) -> BundleError) -> Result<u64, BundleError> {
        let parts = self.parts()?;
        let head = render(&self.header(&parts)).map_err(Flaw::invalid)?;
        out.write_all(&head).map_err(&io)?;
        let mut size = head.len() as u64;
        for part in &parts {
            match part.content {
                Content::Bytes(bytes) => out.write_all(bytes).map_err(&io)?,
                Content::Weight(index) => match self.weight(index)? {
                    WeightBytes::Here(bytes) => out.write_all(&bytes).map_err(&io)?,
                    WeightBytes::Linked(_) => {} // a linked weight is no part of the file
                },
            }
            size += part.size;
        }
        out.flush().map_err(&io)?;
        Ok(size)
    }

    fn header(&self, parts: &[Part<'_>]) -> Header {
        let mut end = 0;
        let place = |part: &Part<'_>| {
            let begin = end;
            end += part.size;
            let info = Info { dtype: part.dtype.to_string(), shape: part.shape.clone(), data_offsets: [begin, end] };
            (part.name.clone(), info)
        };
        let mut tensors: Vec<(String, Info)> = parts.iter().map(place).collect();
        // The order in which a reader sees them; it moves nothing but tensors without bytes.
        tensors.sort_by(|(a, x), (b, y)| (x.data_offsets, a).cmp(&(y.data_offsets, b)));
        let value = serde_json::to_value(&self.manifest).expect("a manifest has string keys and finite numbers only");
        let manifest = canonical(&value);
        let mut hasher = checksum_start(&manifest, &tensors);
        for part in parts {
            if let Content::Bytes(bytes) = part.content {
                hasher.update(bytes);
            }
        }
        let metadata = BTreeMap::from([
            ("checksum".to_string(), hasher.finalize().to_hex().to_string()),
            ("format".to_string(), FORMAT.to_string()),
            ("selvedge".to_string(), manifest),
        ]);
        Header { metadata, tensors }
    }

    /// The tensors in the order of the file: weights by falling element size, then everything in bytes.
    fn parts(&self) -> Result<Vec<Part<'_>>, BundleError> {
        let mut parts = Vec::new();
        for (index, weight) in self.manifest.weights.iter().enumerate().filter(|(_, w)| w.link.is_none()) {
            let flaw = |problem| Flaw::new(format!("weight `{}`", weight.name), problem).invalid();
            let dtype = safetensors_name(&weight.dtype).ok_or_else(|| flaw("unknown dtype"))?;
            let size =
                weight_bytes(&weight.dtype, &weight.shape).ok_or_else(|| flaw("its size is beyond all bounds"))?;
            if weight.hash == UNHASHED {
                return Err(flaw("it was not hashed"));
            }
            let (name, shape) = (format!("weight:{}", weight.name), weight.shape.clone());
            parts.push(Part { name, dtype, shape, size, content: Content::Weight(index) });
        }
        let size = |part: &Part<'_>| match part.content {
            Content::Weight(i) => element_bytes(&self.manifest.weights[i].dtype),
            Content::Bytes(_) => None,
        };
        parts.sort_by_key(|part| std::cmp::Reverse(size(part))); // stable: the module's order within a size
        let mut seen = HashSet::new();
        for (kernel, text) in self.manifest.kernels.iter().zip(&self.kernels) {
            if seen.insert(&kernel.hash) {
                parts.push(Part::bytes(format!("kernel:{}", kernel.hash), text.as_bytes()));
            }
        }
        parts.push(Part::bytes("module".to_string(), self.module.as_bytes()));
        for (name, bytes) in &self.selftests {
            parts.push(Part::bytes(format!("selftest:{name}"), bytes));
        }
        for (name, bytes) in &self.files {
            parts.push(Part::bytes(format!("file:{name}"), bytes));
        }
        Ok(parts)
    }
}

/// A tensor to write.
struct Part<'b> {
    name: String,
    dtype: &'static str,
    shape: Vec<u64>,
    /// Number of bytes.
    size: u64,
    content: Content<'b>,
}

/// What a tensor of the file holds.
enum Content<'b> {
    /// These bytes.
    Bytes(&'b [u8]),
    /// The weight of this index.
    Weight(usize),
}

impl<'b> Part<'b> {
    fn bytes(name: String, bytes: &'b [u8]) -> Part<'b> {
        let size = bytes.len() as u64;
        Part { name, dtype: "U8", shape: vec![size], size, content: Content::Bytes(bytes) }
    }
}

/// A file under a name of its own, removed unless it is renamed.
struct Temporary {
    path: PathBuf,
    kept: bool,
}

impl Temporary {
    fn create(folder: &Path, target: &Path) -> Result<(Temporary, File), BundleError> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = target.file_name().map_or("bundle".into(), |n| n.to_string_lossy().into_owned());
        let serial = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".{name}.{}-{serial}.part", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => Ok((Temporary { path, kept: false }, file)),
            Err(source) => Err(BundleError::Io { action: "create a file next to", path: target.to_path_buf(), source }),
        }
    }
    fn rename(mut self, target: &Path) -> Result<(), BundleError> {
        std::fs::rename(&self.path, target).map_err(|source| BundleError::Io {
            action: "replace",
            path: target.to_path_buf(),
            source,
        })?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing to do if even this fails: the error being returned is the better one.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
