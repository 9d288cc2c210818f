//! A checkpoint: the tensors of one or several safetensors files, by name.

use crate::storage::{Entry, Location, Storage, ir_dtype, unsupported_dtype};
use selvedge_ir::interp::WeightSource;
use selvedge_ir::module::WeightDecl;
use selvedge_ir::{DType, Data, Diagnostic, Diagnostics, Tensor, TensorType};
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

/// The tensor in another float dtype, rounded to nearest.
///
/// # Errors
/// A finite element is beyond the dtype's range: it would become infinite.
fn recast(name: &str, tensor: &Tensor, ty: &TensorType) -> Result<Tensor, Diagnostic> {
    let values = tensor.to_f32();
    let rounded: Vec<f32> = values.iter().map(|&x| ty.dtype.round(x)).collect();
    match values.iter().zip(&rounded).find(|(x, y)| x.is_finite() && !y.is_finite()) {
        None => Ok(Tensor::new(ty.clone(), Data::F32(rounded))),
        Some((value, _)) => Err(Diagnostic::new("dtype", format!("tensor `{name}` cannot be stored as {}", ty.dtype))
            .expected_found("magnitudes below 65520", value)
            .help("store the weights as bf16, which has the range of f32 (--dtype bf16)")),
    }
}

impl WeightSource for Checkpoint {
    fn weight(&self, name: &str, ty: &TensorType) -> Result<Arc<Tensor>, Diagnostic> {
        let tensor = self.tensor(name)?;
        if tensor.ty == *ty {
            return Ok(Arc::new(tensor));
        }
        if tensor.ty.shape == ty.shape && tensor.ty.dtype.is_float() && ty.dtype.is_float() {
            return recast(name, &tensor, ty).map(Arc::new);
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
        let tensor = |v: &[f32]| Tensor::f32(&[v.len()], v.to_vec());
        let half = TensorType::new(DType::F16, [3]);
        let rounded = recast("w", &tensor(&[1.0 / 3.0, -65519.0, f32::INFINITY]), &half).expect("in range");
        assert_eq!(rounded.to_f32(), [0.33325195, -65504.0, f32::INFINITY]);
        let error = recast("w", &tensor(&[0.0, 1.0, -65520.0]), &half).expect_err("beyond f16").to_string();
        assert!(error.contains("`w`") && error.contains("-65520") && error.contains("bf16"), "{error}");
        let wide = TensorType::new(DType::BF16, [3]);
        assert!(recast("w", &tensor(&[0.0, 1.0, -65520.0]), &wide).is_ok());
    }
}
