//! A bundle in memory: parts that were checked against each other.

use crate::check::check_manifest;
use crate::dtype::{safetensors_name, weight_bytes};
use crate::error::{BundleError, Flaw};
use crate::header::{self, Header, Info};
use crate::manifest::{FORMAT, Link, Manifest, Weight};
use std::borrow::Cow;
use std::collections::HashMap;

/// Manifest, kernels, module text and weights. Whoever made it, its manifest is consistent, its kernels have their
/// hashes and its weights their sizes; a weight's hash is checked when the weight is asked for.
pub struct Bundle<'a> {
    pub(crate) manifest: Manifest,
    pub(crate) kernels: Vec<Cow<'a, str>>,
    pub(crate) module: Cow<'a, str>,
    pub(crate) weights: Vec<Held<'a>>,
    /// Gives the bytes of weights that are made when they are asked for.
    source: Option<Source<'a>>,
    pub(crate) selftests: Vec<(String, Cow<'a, [u8]>)>,
    pub(crate) files: Vec<(String, Cow<'a, [u8]>)>,
}

/// Gives a weight's bytes, or says why it cannot.
type Source<'a> = Box<dyn Fn(&Weight) -> Result<Cow<'a, [u8]>, String> + Send + Sync + 'a>;

/// What a bundle has of a weight.
#[derive(Debug)]
pub(crate) enum Held<'a> {
    /// Its bytes.
    Bytes(Cow<'a, [u8]>),
    /// Its bytes whenever they are wanted, from the source.
    Source,
    /// The place in a checkpoint.
    Linked,
}

/// The hash of a weight whose maker has not hashed it: such a bundle can be loaded by the process that made it, not written.
pub const UNHASHED: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl std::fmt::Debug for Bundle<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kernels, weights) = (self.kernels.len(), self.weights.len());
        write!(f, "Bundle({}, {kernels} kernels, {weights} weights)", self.manifest.name)
    }
}

/// Where the bytes of a weight are.
#[derive(Clone, Debug)]
pub enum WeightBytes<'b> {
    /// In the bundle, and they have their hash.
    Here(Cow<'b, [u8]>),
    /// In a checkpoint; what is read there must pass [`Bundle::check_weight`].
    Linked(&'b Link),
}

impl<'a> Bundle<'a> {
    /// Puts a bundle together. `kernels` has one text for each kernel of the manifest; `weights` gives the bytes of each
    /// weight that has no link (little-endian, row-major, in the weight's dtype; bool as 32-bit words) or why it cannot.
    ///
    /// # Errors
    /// [`BundleError::Invalid`] if the parts do not fit each other.
    pub fn new(
        manifest: Manifest,
        kernels: Vec<String>,
        module: String,
        mut weights: impl FnMut(&Weight) -> Result<Cow<'a, [u8]>, String>,
    ) -> Result<Bundle<'a>, BundleError> {
        let bytes = manifest.weights.iter().map(|weight| match &weight.link {
            Some(_) => Ok(Held::Linked),
            None => weights(weight).map(Held::Bytes).map_err(|e| Flaw::new(format!("weight `{}`", weight.name), e)),
        });
        let bytes = bytes.collect::<Result<Vec<_>, Flaw>>().map_err(Flaw::invalid)?;
        let kernels = kernels.into_iter().map(Cow::Owned).collect();
        let module = Cow::Owned(module);
        let bundle = Bundle {
            manifest,
            kernels,
            module,
            weights: bytes,
            source: None,
            selftests: Vec::new(),
            files: Vec::new(),
        };
        bundle.check().map_err(Flaw::invalid)?;
        Ok(bundle)
    }
    /// As [`Bundle::new`], but a weight's bytes are asked for each time they are wanted, one weight at a time: the bundle holds none
    /// of them. Weights may be [`UNHASHED`].
    ///
    /// # Errors
    /// [`BundleError::Invalid`] if the parts do not fit each other.
    pub fn streamed(
        manifest: Manifest,
        kernels: Vec<String>,
        module: String,
        source: impl Fn(&Weight) -> Result<Cow<'a, [u8]>, String> + Send + Sync + 'a,
    ) -> Result<Bundle<'a>, BundleError> {
        let held = |w: &Weight| if w.link.is_some() { Held::Linked } else { Held::Source };
        let weights = manifest.weights.iter().map(held).collect();
        let kernels = kernels.into_iter().map(Cow::Owned).collect();
        let (module, source) = (Cow::Owned(module), Some(Box::new(source) as Source<'a>));
        let bundle = Bundle { manifest, kernels, module, weights, source, selftests: Vec::new(), files: Vec::new() };
        bundle.check().map_err(Flaw::invalid)?;
        Ok(bundle)
    }

    /// Adds self-test vectors, by name; a name that is there is replaced.
    pub fn add_selftest(&mut self, name: &str, bytes: Vec<u8>) {
        self.selftests.retain(|(n, _)| n != name);
        self.selftests.push((name.to_string(), Cow::Owned(bytes)));
        self.selftests.sort_by(|(a, _), (b, _)| a.cmp(b));
    }

    /// Adds a file that the front end needs (a tokenizer), by name; a name that is there is replaced.
    pub fn add_file(&mut self, name: &str, bytes: Cow<'a, [u8]>) {
        self.files.retain(|(n, _)| n != name);
        self.files.push((name.to_string(), bytes));
        self.files.sort_by(|(a, _), (b, _)| a.cmp(b));
    }

    pub(crate) fn read(bytes: &'a [u8]) -> Result<Bundle<'a>, BundleError> {
        let (header, body) = header::parse(bytes)?;
        let meta = |key: &str| header.metadata.get(key).map(String::as_str);
        let (Some(format), Some(text)) = (meta("format"), meta("selvedge")) else {
            let problem = "a safetensors file without a manifest (a checkpoint?); `selvedge compile` makes bundles";
            return Err(BundleError::NotABundle(problem.to_string()));
        };
        match format.parse::<u64>() {
            Ok(found) if found == FORMAT as u64 => {}
            Ok(found) if found > FORMAT as u64 => return Err(BundleError::Future { found }),
            _ => return Err(Flaw::new("metadata", format!("`{format}` is no format version")).corrupt()),
        }
        header::check_offsets(&header.tensors, body.len() as u64).map_err(Flaw::corrupt)?;
        if meta("checksum") != Some(&checksum(text, &header.tensors, body)) {
            return Err(Flaw::new("header", "its checksum differs: the file was damaged or edited").corrupt());
        }
        if header.metadata.len() != 3 {
            return Err(Flaw::new("metadata", "entries besides checksum, format and selvedge").corrupt());
        }
        let manifest: Manifest =
            serde_json::from_str(text).map_err(|e| Flaw::new("manifest", e.to_string()).corrupt())?;
        check_manifest(&manifest).map_err(Flaw::corrupt)?;
        collect(manifest, &header, body).map_err(Flaw::corrupt)
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
    /// WGSL of a kernel, by its index in the manifest; `None` if there is no such kernel.
    pub fn kernel(&self, index: usize) -> Option<&str> {
        self.kernels.get(index).map(AsRef::as_ref)
    }
    /// Text of the optimised module.
    pub fn module(&self) -> &str {
        &self.module
    }
    /// Self-test vectors: name and bytes, sorted by name.
    pub fn selftests(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.selftests.iter().map(|(name, bytes)| (name.as_str(), bytes.as_ref()))
    }

    /// A file of the front end, by name.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.as_ref())
    }

    /// A weight, by its index in the manifest. Its bytes are hashed at each call.
    ///
    /// # Errors
    /// No such weight, or bytes that do not have the manifest's hash.
    pub fn weight(&self, index: usize) -> Result<WeightBytes<'_>, BundleError> {
        let (Some(weight), Some(bytes)) = (self.manifest.weights.get(index), self.weights.get(index)) else {
            return Err(Flaw::new("weights", format!("there is no weight {index}")).corrupt());
        };
        match (bytes, &weight.link) {
            (Held::Bytes(bytes), _) => {
                self.check_weight(index, bytes)?;
                Ok(WeightBytes::Here(Cow::Borrowed(bytes)))
            }
            (Held::Source, _) => {
                let flaw = |problem: String| Flaw::new(format!("weight `{}`", weight.name), problem).invalid();
                let bytes = self.source.as_ref().map_or(Err("it has no source".to_string()), |source| source(weight));
                let bytes = bytes.map_err(flaw)?;
                self.check_weight(index, &bytes)?;
                Ok(WeightBytes::Here(bytes))
            }
            (Held::Linked, Some(link)) => Ok(WeightBytes::Linked(link)),
            (Held::Linked, None) => Err(Flaw::new(format!("weight `{}`", weight.name), "it is missing").corrupt()),
        }
    }

    /// Checks size and hash of bytes that are to be used as a weight.
    ///
    /// # Errors
    /// No such weight, another size or another hash.
    pub fn check_weight(&self, index: usize, bytes: &[u8]) -> Result<(), BundleError> {
        let Some(weight) = self.manifest.weights.get(index) else {
            return Err(Flaw::new("weights", format!("there is no weight {index}")).corrupt());
        };
        let place = || format!("weight `{}`", weight.name);
        let expected = weight_bytes(&weight.dtype, &weight.shape);
        if expected != Some(bytes.len() as u64) {
            return Err(Flaw::new(place(), format!("{} bytes, expected {expected:?}", bytes.len())).corrupt());
        }
        if weight.hash == UNHASHED && matches!(self.weights[index], Held::Source) {
            return Ok(());
        }
        let found = crate::hash(bytes);
        if found != weight.hash {
            let problem = format!("its bytes were changed: hash {found}, expected {}", weight.hash);
            return Err(Flaw::new(place(), problem).corrupt());
        }
        Ok(())
    }

    /// Checks the hashes of all weights in the bundle (linked ones are not looked at).
    ///
    /// # Errors
    /// The first weight that was changed.
    pub fn check_weights(&self) -> Result<(), BundleError> {
        (0..self.weights.len()).try_for_each(|i| self.weight(i).map(|_| ()))
    }

    fn check(&self) -> Result<(), Flaw> {
        check_manifest(&self.manifest)?;
        if self.kernels.len() != self.manifest.kernels.len() {
            let (found, expected) = (self.kernels.len(), self.manifest.kernels.len());
            return Err(Flaw::new("kernels", format!("{found} texts for {expected} kernels")));
        }
        for (text, kernel) in self.kernels.iter().zip(&self.manifest.kernels) {
            check_kernel(text, &kernel.hash)?;
        }
        for (bytes, weight) in self.weights.iter().zip(&self.manifest.weights) {
            let expected = weight_bytes(&weight.dtype, &weight.shape);
            if let Held::Bytes(bytes) = bytes
                && Some(bytes.len() as u64) != expected
            {
                let problem = format!("{} bytes, {} {:?} has {expected:?}", bytes.len(), weight.dtype, weight.shape);
                return Err(Flaw::new(format!("weight `{}`", weight.name), problem));
            }
        }
        Ok(())
    }
}

fn check_kernel(text: &str, hash: &str) -> Result<(), Flaw> {
    let found = crate::hash(text.as_bytes());
    if found == hash { Ok(()) } else { Err(Flaw::new(format!("kernel:{hash}"), format!("its text has hash {found}"))) }
}

/// Covers all of a file but the weights' bytes, whose hashes are in the manifest.
pub(crate) fn checksum(manifest: &str, tensors: &[(String, Info)], body: &[u8]) -> String {
    let mut hasher = checksum_start(manifest, tensors);
    for (_, info) in tensors.iter().filter(|(name, _)| !name.starts_with("weight:")) {
        let [begin, end] = info.data_offsets;
        hasher.update(&body[begin as usize..end as usize]);
    }
    hasher.finalize().to_hex().to_string()
}

/// The part of the checksum before the tensors' bytes.
pub(crate) fn checksum_start(manifest: &str, tensors: &[(String, Info)]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(manifest.as_bytes());
    hasher.update(b"\n");
    hasher.update(header::to_json(tensors).as_bytes());
    hasher.update(b"\n");
    hasher
}

/// Takes each part of the manifest from its tensor; every tensor must be used.
fn collect<'a>(manifest: Manifest, header: &Header, body: &'a [u8]) -> Result<Bundle<'a>, Flaw> {
    let mut left: HashMap<&str, &Info> = header.tensors.iter().map(|(name, info)| (name.as_str(), info)).collect();
    let bytes_of = |info: &Info| &body[info.data_offsets[0] as usize..info.data_offsets[1] as usize];
    let text = |name: &str, info: &Info| {
        std::str::from_utf8(bytes_of(info)).map_err(|e| Flaw::new(format!("tensor `{name}`"), format!("no text: {e}")))
    };
    let missing = |name: &str| Flaw::new(format!("tensor `{name}`"), "it is missing");

    let module = left.remove("module").ok_or_else(|| missing("module"))?;
    let module = Cow::Borrowed(text("module", expect_u8("module", module)?)?);
    let mut texts: HashMap<&str, &'a str> = HashMap::new();
    let mut kernels = Vec::new();
    for kernel in &manifest.kernels {
        if let Some(shared) = texts.get(kernel.hash.as_str()) {
            kernels.push(Cow::Borrowed(*shared));
            continue;
        }
        let name = format!("kernel:{}", kernel.hash);
        let info = left.remove(name.as_str()).ok_or_else(|| missing(&name))?;
        let source = text(&name, expect_u8(&name, info)?)?;
        check_kernel(source, &kernel.hash)?;
        texts.insert(&kernel.hash, source);
        kernels.push(Cow::Borrowed(source));
    }
    let mut weights = Vec::new();
    for weight in &manifest.weights {
        if weight.link.is_some() {
            weights.push(Held::Linked);
            continue;
        }
        let name = format!("weight:{}", weight.name);
        let info = left.remove(name.as_str()).ok_or_else(|| missing(&name))?;
        if Some(info.dtype.as_str()) != safetensors_name(&weight.dtype) || info.shape != weight.shape {
            let found = format!("{} {:?}", info.dtype, info.shape);
            let problem = format!("{found} in the file, {} {:?} in the manifest", weight.dtype, weight.shape);
            return Err(Flaw::new(format!("tensor `{name}`"), problem));
        }
        weights.push(Held::Bytes(Cow::Borrowed(bytes_of(info))));
    }
    let (mut selftests, mut files) = (Vec::new(), Vec::new());
    for (name, info) in left {
        let (list, name_there) = match (name.strip_prefix("selftest:"), name.strip_prefix("file:")) {
            (Some(test), _) => (&mut selftests, test),
            (None, Some(file)) => (&mut files, file),
            (None, None) => return Err(Flaw::new(format!("tensor `{name}`"), "the manifest does not know it")),
        };
        list.push((name_there.to_string(), Cow::Borrowed(bytes_of(expect_u8(name, info)?))));
    }
    selftests.sort_by(|(a, _), (b, _)| a.cmp(b));
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Bundle { manifest, kernels, module, weights, source: None, selftests, files })
}

fn expect_u8<'i>(name: &str, info: &'i Info) -> Result<&'i Info, Flaw> {
    if info.dtype == "U8" && info.shape.len() == 1 {
        Ok(info)
    } else {
        let found = format!("{} {:?}, expected U8 of one axis", info.dtype, info.shape);
        Err(Flaw::new(format!("tensor `{name}`"), found))
    }
}
