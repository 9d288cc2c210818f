//! A checkpoint: the tensors of one or several safetensors files, by name.

use crate::storage::{Entry, Location, Storage, ir_dtype, unsupported_dtype};
use selvedge_ir::dtype::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use selvedge_ir::interp::WeightSource;
use selvedge_ir::module::WeightDecl;
use selvedge_ir::{DType, Diagnostic, Diagnostics, Tensor, TensorType};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Problems that get advice on names: comparing all with all takes long for large models, and the first tell enough.
const NEAREST: usize = 40;

/// The tensors of a model; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    files: Vec<Arc<Storage>>,
    /// File of each tensor, and its name there.
    index: Arc<BTreeMap<String, (usize, String)>>,
}

impl Checkpoint {
    /// A checkpoint from files.
    ///
    /// # Errors
    /// Two files hold a tensor of one name.
    pub fn new(files: Vec<Storage>) -> Result<Checkpoint, Diagnostics> {
        let mut index = BTreeMap::new();
        let mut problems = Vec::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.entries().keys() {
                if let Some((other, _)) = index.insert(name.clone(), (i, name.clone())) {
                    let both = format!("`{}` and `{}`", files[other].origin, file.origin);
                    problems.push(Diagnostic::new("import", format!("tensor `{name}` is in two files: {both}")));
                }
            }
        }
        if problems.is_empty() {
            Ok(Checkpoint { files: files.into_iter().map(Arc::new).collect(), index: Arc::new(index) })
        } else {
            Err(Diagnostics(problems))
        }
    }
    /// Opens one safetensors file.
    ///
    /// # Errors
    /// It cannot be read, or is not a whole safetensors file.
    pub fn open_file(path: &Path) -> Result<Checkpoint, Diagnostics> {
        Checkpoint::new(vec![Storage::open(path)?])
    }
    /// This checkpoint with the tensors of another under `prefix.`: the weights of a pipeline's components in one place.
    ///
    /// # Errors
    /// This one has a tensor of such a name.
    pub fn with_part(&self, prefix: &str, part: &Checkpoint) -> Result<Checkpoint, Diagnostic> {
        let mut index = BTreeMap::clone(&self.index);
        for (name, (file, stored)) in part.index.iter() {
            let name = format!("{prefix}.{name}");
            if index.insert(name.clone(), (self.files.len() + file, stored.clone())).is_some() {
                return Err(Diagnostic::new("import", format!("tensor `{name}` is in two components")));
            }
        }
        let files = self.files.iter().chain(&part.files).cloned().collect();
        Ok(Checkpoint { files, index: Arc::new(index) })
    }
    /// Tensors are named as those of low-rank adapters.
    pub fn is_lora(&self) -> bool {
        self.names().any(|n| LORA.iter().any(|part| n.contains(part)))
    }
    /// See [`crate::MappedFile::release`].
    pub fn release(&self) {
        self.files.iter().for_each(|f| f.release());
    }
    /// All tensor names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }
    /// The files it was read from, for messages.
    pub fn origins(&self) -> Vec<&str> {
        self.files.iter().map(|f| f.origin.as_str()).collect()
    }
    /// The dtype that the IR gives a tensor; `None` if it is not there or of an unsupported dtype.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.find(name).and_then(|(_, e)| ir_dtype(e.stored))
    }
    /// A tensor's extents.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.find(name).map(|(_, e)| e.shape.as_slice())
    }
    /// A tensor's elements in [`Checkpoint::dtype`], little-endian (bool: one byte each); mapped, unless they had to be narrowed.
    ///
    /// # Errors
    /// The tensor is not there, of an unsupported dtype, or has an integer out of range.
    pub fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, Diagnostic> {
        let (file, entry) = self.find(name).ok_or_else(|| self.missing(name))?;
        match ir_dtype(entry.stored) {
            Some(dtype) if dtype.bits() / 8 == entry.stored.bitsize() / 8 || dtype == DType::Bool => {
                Ok(Cow::Borrowed(file.raw(entry)))
            }
            _ => file.read(name, entry).map(|t| Cow::Owned(t.to_bytes())),
        }
    }
    /// Where the elements that [`Checkpoint::bytes`] gives lie on disk; `None` if they are stored in another form (or are
    /// truth values, which other forms hold as words).
    ///
    /// # Errors
    /// As [`Checkpoint::bytes`]; the tensor's file is part of the program.
    pub fn location(&self, name: &str) -> Result<Option<Location<'_>>, Diagnostic> {
        let (file, entry) = self.find(name).ok_or_else(|| self.missing(name))?;
        let location = file.location(entry).ok_or_else(|| {
            Diagnostic::new("import", format!("`{}` is part of the program: there is no file to link to", file.origin))
                .help("shipped models are compiled with their weights embedded")
        })?;
        let as_stored = matches!(self.bytes(name)?, Cow::Borrowed(_)) && ir_dtype(entry.stored) != Some(DType::Bool);
        Ok(as_stored.then_some(location))
    }
    /// A tensor as stored, in the dtype that the IR gives it.
    ///
    /// # Errors
    /// As [`Checkpoint::bytes`].
    pub fn tensor(&self, name: &str) -> Result<Tensor, Diagnostic> {
        let (file, entry) = self.find(name).ok_or_else(|| self.missing(name))?;
        file.read(name, entry)
    }
    /// Compares with what a model needs: missing tensors (with the nearest names), tensors that it does not know (unless `ignored`
    /// says that they are expected and unused), shapes and dtypes.
    ///
    /// # Errors
    /// All differences together.
    pub fn check(&self, needed: &[WeightDecl], ignored: impl Fn(&str) -> bool) -> Result<(), Diagnostics> {
        if self.is_lora() && needed.iter().all(|w| self.find(&w.name).is_none()) {
            return Err(lora(&self.place()).into());
        }
        let mut problems = Vec::new();
        let known = |name: &str| needed.iter().any(|w| w.name == name);
        let extra: Vec<&str> = self.names().filter(|n| !known(n) && !ignored(n)).collect();
        for weight in needed {
            let Some((file, entry)) = self.find(&weight.name) else {
                problems.push(self.lacks(weight, &extra, problems.len() < NEAREST));
                continue;
            };
            if ir_dtype(entry.stored).is_none() {
                problems.push(unsupported_dtype(&file.origin, &weight.name, entry.stored));
            }
            if weight.ty.shape.get().as_deref() != Some(&entry.shape) {
                problems.push(
                    Diagnostic::new(
                        "import",
                        format!("tensor `{}` in `{}` has another shape", weight.name, file.origin),
                    )
                    .expected_found(&weight.ty.shape, format!("{:?}", entry.shape).replace(' ', ""))
                    .help("the configuration does not belong to this checkpoint"),
                );
            }
        }
        for name in extra {
            let (file, entry) = self.find(name).expect("names come from the index");
            let shape = format!("{:?}{:?}", entry.stored, entry.shape).replace(' ', "");
            problems.push(
                Diagnostic::new(
                    "import",
                    format!("tensor `{name}` ({shape}) in `{}` is not of this model", file.origin),
                )
                .help("the configuration does not belong to this checkpoint"),
            );
        }
        if problems.is_empty() { Ok(()) } else { Err(Diagnostics(problems)) }
    }

    /// A float tensor's elements in another float dtype; `None` if it is stored as wanted, or cannot be made so.
    ///
    /// # Errors
    /// As [`Checkpoint::bytes`]; a finite element is beyond the dtype's range.
    pub fn recast(&self, name: &str, ty: &TensorType) -> Result<Option<Vec<u8>>, Diagnostic> {
        let Some(from) = self.dtype(name).filter(|d| d.is_float() && ty.dtype.is_float() && *d != ty.dtype) else {
            return Ok(None);
        };
        if self.shape(name).map(<[usize]>::to_vec) != ty.shape.get() {
            return Ok(None);
        }
        recast(name, from, &self.bytes(name)?, ty.dtype).map(Some)
    }

    fn find(&self, name: &str) -> Option<(&Storage, &Entry)> {
        let (file, stored) = self.index.get(name)?;
        let file = &self.files[*file];
        file.entries().get(stored).map(|e| (file.as_ref(), e))
    }
    fn missing(&self, name: &str) -> Diagnostic {
        let all: Vec<&str> = self.names().collect();
        Diagnostic::new("import", format!("tensor `{name}` is not in {}", self.place())).help(nearest(name, &all))
    }
    fn lacks(&self, weight: &WeightDecl, extra: &[&str], near: bool) -> Diagnostic {
        let what = Diagnostic::new("import", format!("tensor `{}` is missing in {}", weight.name, self.place()))
            .expected_found(&weight.ty, "nothing of this name");
        if near { what.help(nearest(&weight.name, extra)) } else { what }
    }
    fn place(&self) -> String {
        match self.files.as_slice() {
            [] => "an empty checkpoint".to_string(),
            [one] => format!("`{}`", one.origin),
            [first, ..] => format!("`{}` and {} more", first.origin, self.files.len() - 1),
        }
    }
}

/// Parts of the names of a low-rank adapter's tensors, in the layouts of diffusers, PEFT and kohya.
const LORA: [&str; 5] = ["lora_A", "lora_B", "lora_down", "lora_up", ".lora."];

/// The error for an adapter where a model is expected.
pub fn lora(place: &str) -> Diagnostic {
    Diagnostic::new("import", format!("{place} is a LoRA: it changes another model and is none itself"))
        .expected_found("a model's weights", "low-rank adapter matrices")
        .help("give the folder of the base model; merge the LoRA into it first (diffusers: `fuse_lora`, then `save_pretrained`)")
}

/// Advice with up to three names that look alike.
fn nearest(name: &str, names: &[&str]) -> String {
    let mut ranked: Vec<(f64, &str)> = names.iter().map(|n| (strsim::normalized_levenshtein(name, n), *n)).collect();
    ranked.retain(|(likeness, _)| *likeness >= 0.6);
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    match ranked.as_slice() {
        [] => "no tensor has a similar name".to_string(),
        near => {
            let near: Vec<String> = near.iter().take(3).map(|(_, n)| format!("`{n}`")).collect();
            format!("similar names that are there: {}", near.join(", "))
        }
    }
}

/// Little-endian floats in another float dtype, rounded to nearest, in one pass.
///
/// # Errors
/// A finite element is beyond the dtype's range: it would become infinite.
fn recast(name: &str, from: DType, bytes: &[u8], to: DType) -> Result<Vec<u8>, Diagnostic> {
    let half = |c: &[u8]| u16::from_le_bytes([c[0], c[1]]);
    let read: fn(&[u8]) -> f32 = match from {
        DType::F16 => |c| f16_to_f32(u16::from_le_bytes([c[0], c[1]])),
        DType::BF16 => |c| bf16_to_f32(u16::from_le_bytes([c[0], c[1]])),
        DType::F32 | DType::I32 | DType::U32 | DType::Bool | DType::Packed(_) => {
            |c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])
        }
    };
    let values = bytes.chunks_exact(from.bits() / 8).map(read);
    let mut out = Vec::with_capacity(values.len() * to.bits() / 8);
    for x in values {
        let start = out.len();
        let infinite = match to {
            DType::F16 => {
                out.extend(f32_to_f16(x).to_le_bytes());
                half(&out[start..]) & 0x7fff == 0x7c00
            }
            DType::BF16 => {
                out.extend(f32_to_bf16(x).to_le_bytes());
                half(&out[start..]) & 0x7fff == 0x7f80
            }
            DType::F32 | DType::I32 | DType::U32 | DType::Bool | DType::Packed(_) => {
                out.extend(x.to_le_bytes());
                false
            }
        };
        if infinite && x.is_finite() {
            return Err(Diagnostic::new("dtype", format!("tensor `{name}` cannot be stored as {to}"))
                .expected_found("magnitudes below 65520", x)
                .help("store the weights as bf16, which has the range of f32 (--dtype bf16)"));
        }
    }
    Ok(out)
}

impl WeightSource for Checkpoint {
    fn weight(&self, name: &str, ty: &TensorType) -> Result<Arc<Tensor>, Diagnostic> {
        if let Some(bytes) = self.recast(name, ty)? {
            let made = Tensor::from_bytes(ty.clone(), &bytes);
            return made.map(Arc::new).map_err(|e| Diagnostic::new("import", format!("`{name}`: {e}")));
        }
        let tensor = self.tensor(name)?;
        if tensor.ty == *ty {
            return Ok(Arc::new(tensor));
        }
        Err(Diagnostic::new("import", format!("tensor `{name}` in {} has another type", self.place()))
            .expected_found(ty, &tensor.ty))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_rounded_to_another_float_and_never_overflow() {
        let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let cast = |v: &[f32], to| recast("w", DType::F32, &bytes(v), to);
        let back = |bytes: &[u8], from| recast("w", from, bytes, DType::F32);
        let half = cast(&[1.0 / 3.0, -65519.0, f32::INFINITY], DType::F16).expect("in range");
        assert_eq!(back(&half, DType::F16).expect("wider"), bytes(&[0.333_251_95, -65504.0, f32::INFINITY]));
        let error = cast(&[0.0, 1.0, -65520.0], DType::F16).expect_err("beyond f16").to_string();
        assert!(error.contains("`w`") && error.contains("-65520") && error.contains("bf16"), "{error}");
        let wide = cast(&[0.0, 1.0, -65520.0], DType::BF16).expect("bf16 has the range of f32");
        assert_eq!(back(&wide, DType::BF16).expect("wider"), bytes(&[0.0, 1.0, -65536.0]));
    }
}
