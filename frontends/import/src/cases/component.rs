//! Cases of single networks (a transformer, a text encoder …): one function on the recorded inputs, by the reference's names.

use super::{Case, CaseRun, Recorded, Source, clip, mmdit, pixart, t5};
use crate::checkpoint::Checkpoint;
use crate::files::open_checkpoint;
use selvedge_ir::interp::Run;
use selvedge_ir::module::{Schedule, WeightDecl};
use selvedge_ir::{DType, Diagnostic, Diagnostics, Module, Shape, Tensor, TensorType};
use serde_json::Value;
use std::path::Path;

/// A network of a case: configuration, weights, recorded tensors.
pub(super) struct Component<'a> {
    /// Its `config.json`.
    pub config: &'a Value,
    /// Its weights.
    pub checkpoint: Checkpoint,
    /// What was recorded.
    pub recorded: &'a Recorded,
}

/// What a class' runs are made by.
type Runs = fn(&Component) -> Result<Vec<CaseRun>, Diagnostics>;

/// The case of a folder whose class is a single network's; `None` for another class.
pub(super) fn open(
    name: &str,
    folder: &Path,
    config: &Value,
    recorded: &Recorded,
) -> Result<Option<Case>, Diagnostics> {
    let Some(class) = config.get("_class_name").and_then(Value::as_str) else { return Ok(None) };
    let runs: Runs = match class {
        "SD3Transformer2DModel" => mmdit::sd3,
        "FluxTransformer2DModel" => mmdit::flux,
        "CLIPTextModel" | "CLIPTextModelWithProjection" => clip::text,
        "PixArtMS" | "PixArtTransformer2DModel" => pixart::transformer,
        "T5EncoderModel" => t5::encoder,
        _ => return Ok(None),
    };
    let component = Component { config, checkpoint: open_checkpoint(folder)?, recorded };
    let runs = runs(&component)?;
    Ok(Some(Case { name: name.to_string(), runs, unsupported: Vec::new() }))
}

impl Component<'_> {
    /// Extents of a recorded tensor of rank N, which is named as in the file (`in.…`).
    pub fn sizes<const N: usize>(&self, name: &str) -> Result<[usize; N], Diagnostic> {
        let shape = self.recorded.0.shape(name).ok_or_else(|| {
            Diagnostic::new("case", format!("`{name}` is not recorded")).expected_found("a tensor of this name", "none")
        })?;
        <[usize; N]>::try_from(shape).map_err(|_| {
            Diagnostic::new("case", format!("recorded tensor `{name}` has a wrong rank"))
                .expected_found(format!("{N} axes"), shape.len())
        })
    }
    /// Checks recorded indices against the table that they are looked up in: beyond it they would be clamped.
    pub fn check_indices(&self, name: &str, rows: usize) -> Result<(), Diagnostic> {
        let indices = self.recorded.get(name)?.to_f64();
        match indices.into_iter().find(|i| !(0.0..rows as f64).contains(i)) {
            None => Ok(()),
            Some(index) => Err(Diagnostic::new("case", format!("an index of `{name}` is no row of its table"))
                .expected_found(format!("0 to {}", rows - 1), index)),
        }
    }
    /// Compares the checkpoint with the weights that the network reads; tensors that `ignored` names may be there unused.
    pub fn check(&self, weights: Vec<(String, Shape)>, ignored: impl Fn(&str) -> bool) -> Result<(), Diagnostics> {
        let declared = |(name, shape): (String, Shape)| {
            let dtype = self.checkpoint.dtype(&name).unwrap_or(DType::F32);
            WeightDecl { name, ty: TensorType { dtype, shape } }
        };
        self.checkpoint.check(&weights.into_iter().map(declared).collect::<Vec<_>>(), ignored)
    }
    /// Tells the dtype of each weight to a module builder.
    pub fn stored(&self) -> impl Fn(&str) -> Option<DType> + use<> {
        let checkpoint = self.checkpoint.clone();
        move |name| checkpoint.dtype(name)
    }
    /// One call of a function of a module: a parameter `x` gets `in.x` in its dtype, a result `y` is compared with `out.y`.
    pub fn call(&self, mut module: Module, function: &str) -> Result<CaseRun, Diagnostics> {
        let mut run = Run::default();
        let mut expected = Vec::new();
        let f = module.function(function).ok_or_else(|| {
            Diagnostic::new("case", format!("the module has no function `{function}`")).expected_found(function, "none")
        })?;
        for (name, id) in f.params() {
            run.inputs.insert(name.to_string(), fitted(name, self.recorded.get(&format!("in.{name}"))?, f.ty(id))?);
        }
        for (name, _) in f.outputs() {
            expected.extend(self.recorded.expect(name, Source::Output(name.to_string()))?);
        }
        module.schedule = Schedule { decode: Some(function.to_string()), ..Schedule::default() };
        Ok(CaseRun { name: function.to_string(), module, weights: self.checkpoint.clone(), run, expected })
    }
}

/// A recorded tensor as a parameter takes it: timesteps may be recorded as integers, halves are widened.
fn fitted(name: &str, recorded: Tensor, wanted: &TensorType) -> Result<Tensor, Diagnostic> {
    if recorded.ty.shape != wanted.shape {
        return Err(Diagnostic::new("case", format!("recorded tensor `in.{name}` has another shape"))
            .expected_found(&wanted.shape, &recorded.ty.shape));
    }
    if recorded.ty == *wanted {
        return Ok(recorded);
    }
    Ok(Tensor::from_f64(wanted.clone(), &recorded.to_f64(), selvedge_ir::Precision::F32))
}
