//! Fixture folders: recorded inputs and outputs of the reference implementations, as runs that can be checked.
//!
//! Every case becomes schedule runs, so that one path runs them on any device: a plain forward is a module whose schedule
//! has only a `decode` function. What a case needs follows from its `config.json`, `case.json` and `io.safetensors`.

mod clip;
mod component;
mod mmdit;
mod model;
mod pipeline;
mod pixart;
mod sampler;
mod t5;
mod vae;

pub(crate) use sampler::gaussian;

use crate::checkpoint::Checkpoint;
use crate::files::read_json;
use selvedge_ir::interp::{Run, RunOutput};
use selvedge_ir::module::Schedule;
use selvedge_ir::{Data, Diagnostic, Diagnostics, Module, Tensor, TensorType};
use serde_json::Value;
use std::path::Path;

/// Tolerance on rel_l2 of a case that does not state one.
pub const TOLERANCE: f64 = 1e-4;

/// A fixture folder.
#[derive(Debug)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// What it takes to compute its outputs.
    pub runs: Vec<CaseRun>,
    /// Recorded outputs that cannot be computed yet: name, what is missing.
    pub unsupported: Vec<(String, String)>,
}

/// One run of a case.
#[derive(Debug)]
pub struct CaseRun {
    /// What it runs.
    pub name: String,
    /// The module, with a schedule.
    pub module: Module,
    /// Its weights.
    pub weights: Checkpoint,
    /// The recorded inputs.
    pub run: Run,
    /// Recorded outputs that this run gives.
    pub expected: Vec<Expected>,
}

/// A recorded output.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Name, without `out.`.
    pub name: String,
    /// Recorded values; integers have to be met exactly.
    pub want: Tensor,
    /// Tolerance on rel_l2.
    pub tolerance: f64,
    source: Source,
}

/// Where an output is found after the run.
#[derive(Clone, Debug)]
enum Source {
    /// An output of the run.
    Output(String),
    /// A picture [B, C, H, W], recorded as [B, H, W, C].
    Picture(String),
    /// Some rows of an output.
    Rows {
        /// The output.
        name: String,
        /// The first row.
        first: usize,
        /// Number of rows.
        count: usize,
    },
    /// Latents [B, C, H, W], recorded as tokens [B, N, p·p·C] of p×p pixels.
    Packed(String, usize),
    /// A traced value after each step, stacked.
    Trace(String),
    /// A carried value before the first and after each step, stacked.
    Trajectory(String),
    /// Computed by the host before the run.
    Host(Tensor),
}

impl CaseRun {
    /// The computed value for a recorded output.
    ///
    /// # Errors
    /// The run does not have it, or has it in another shape.
    pub fn got(&self, expected: &Expected, output: &RunOutput) -> Result<Tensor, Diagnostic> {
        let traced = |name: &str| output.trace.get(name).map(|steps| steps.iter().collect::<Vec<_>>());
        let got = match &expected.source {
            Source::Host(tensor) => Some(tensor.clone()),
            Source::Output(name) => output.outputs.get(name).cloned(),
            Source::Picture(name) => output.outputs.get(name).map(channels_last),
            Source::Rows { name, first, count } => output.outputs.get(name).map(|x| rows(x, *first, *count)),
            Source::Packed(name, patch) => output.outputs.get(name).map(|x| crate::packing::pack(x, *patch)),
            Source::Trace(name) => traced(name).map(|steps| stack(&steps)),
            Source::Trajectory(name) => traced(name)
                .and_then(|steps| Some([vec![self.run.inputs.get(name)?], steps].concat()))
                .map(|points| stack(&points)),
        };
        got.ok_or_else(|| {
            Diagnostic::new("case", format!("the run gives no value for `{}`", expected.name))
                .expected_found(format!("{:?}", expected.source), format!("{:?}", output.outputs.keys()))
        })
    }
}

/// Reads a fixture folder.
///
/// # Errors
/// Files that are missing or damaged, a class, scheduler or option that is not known, recorded tensors that are missing.
pub fn open(folder: &Path) -> Result<Case, Diagnostics> {
    let recorded = Recorded::open(&folder.join("io.safetensors"))?;
    let optional = |name: &str| {
        let path = folder.join(name);
        if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
    };
    let case = optional("case.json")?.unwrap_or(Value::Null);
    let config = optional("config.json")?;
    let name = case.get("name").and_then(Value::as_str).map(str::to_string).unwrap_or_else(|| {
        folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "case".into())
    });
    let mut case = if case.get("scheduler").is_some() {
        sampler::scheduler(&name, &case, &recorded)?
    } else if config.as_ref().is_some_and(|c| c.get("_class_name") == Some(&Value::from("SpacedDiffusion"))) {
        sampler::spaced_diffusion(&name, config.as_ref().unwrap_or(&Value::Null), &recorded)?
    } else if config.as_ref().is_some_and(|c| c.get("_class_name") == Some(&Value::from(crate::vae::CLASS))) {
        vae::open(&name, folder, &recorded)?
    } else if let Some(component) =
        config.as_ref().map(|c| component::open(&name, folder, c, &recorded)).transpose()?.flatten()
    {
        component
    } else if config.is_some() || folder.join("model_index.json").exists() {
        model::open(&name, folder, &case, &recorded)?
    } else {
        return Err(Diagnostic::new("case", format!("`{}` is no case that can be run", folder.display()))
            .expected_found("config.json, model_index.json, or case.json with a `scheduler`", "none of them")
            .into());
    };
    // Every recorded output is either computed or named as missing.
    let covered = |out: &str| {
        case.runs.iter().any(|r| r.expected.iter().any(|e| e.name == out))
            || case.unsupported.iter().any(|u| u.0 == out)
    };
    let left: Vec<String> = recorded.outputs().filter(|n| !covered(n)).map(str::to_string).collect();
    case.unsupported.extend(left.into_iter().map(|n| (n, "no run of this model gives it".to_string())));
    Ok(case)
}

/// The tensors of an `io.safetensors`.
struct Recorded(Checkpoint);

impl Recorded {
    fn open(path: &Path) -> Result<Recorded, Diagnostics> {
        Checkpoint::open_file(path).map(Recorded)
    }
    fn has(&self, name: &str) -> bool {
        self.0.shape(name).is_some()
    }
    fn outputs(&self) -> impl Iterator<Item = &str> {
        self.0.names().filter_map(|n| n.strip_prefix("out."))
    }
    /// A recorded tensor (`in.…` or `out.…`); integers are 32-bit.
    fn get(&self, name: &str) -> Result<Tensor, Diagnostic> {
        self.0.tensor(name)
    }
    /// A recorded tensor of rank 4 (samples) or 5 (samples by step), checked.
    fn ranked<const N: usize>(&self, name: &str) -> Result<(Tensor, [usize; N]), Diagnostic> {
        let tensor = self.get(name)?;
        let sizes: Result<[usize; N], _> = tensor.sizes().try_into();
        match sizes {
            Ok(sizes) => Ok((tensor, sizes)),
            Err(found) => Err(Diagnostic::new("case", format!("recorded tensor `{name}` has a wrong rank"))
                .expected_found(format!("{N} axes"), found.len())),
        }
    }
    /// A recorded output, if it is there, with where to find the computed one.
    fn expect(&self, name: &str, source: Source) -> Result<Option<Expected>, Diagnostic> {
        let full = format!("out.{name}");
        if !self.has(&full) {
            return Ok(None);
        }
        Ok(Some(Expected { name: name.to_string(), want: self.get(&full)?, tolerance: TOLERANCE, source }))
    }
    /// A recorded output that the host computes; compared in the recorded dtype.
    fn expect_host(&self, name: &str, values: &[f64]) -> Result<Option<Expected>, Diagnostic> {
        let Some(mut expected) = self.expect(name, Source::Output(String::new()))? else { return Ok(None) };
        let ty = TensorType::new(expected.want.ty.dtype, [values.len()]);
        expected.source = Source::Host(Tensor::from_f64(ty, values, selvedge_ir::Precision::F32));
        Ok(Some(expected))
    }
}

/// A module whose schedule is one call.
fn once(mut module: Module, function: &str) -> Module {
    module.schedule = Schedule { decode: Some(function.to_string()), ..Schedule::default() };
    module
}

/// [B, C, H, W] to [B, H, W, C], as f32.
fn channels_last(picture: &Tensor) -> Tensor {
    let [b, c, h, w] = <[usize; 4]>::try_from(picture.sizes()).unwrap_or([0; 4]);
    let from = picture.to_f32();
    let at = |i: usize| {
        let (channel, pixel) = (i % c, i / c);
        (pixel / (h * w) * c + channel) * h * w + pixel % (h * w)
    };
    Tensor::f32(&[b, h, w, c], (0..b * c * h * w).map(|i| from[at(i)]).collect())
}

/// Some rows (entries of the first axis) of a tensor; f32 but for integers.
fn rows(tensor: &Tensor, first: usize, count: usize) -> Tensor {
    let mut sizes = tensor.sizes();
    let row: usize = sizes.iter().skip(1).product();
    if let Some(rows) = sizes.first_mut() {
        *rows = count;
    }
    let cut = |n: usize| first * row..((first + count) * row).min(n);
    match &tensor.data {
        Data::I32(values) => Tensor::i32(&sizes, values[cut(values.len())].to_vec()),
        _ => {
            let values = tensor.to_f32();
            Tensor::f32(&sizes, values[cut(values.len())].to_vec())
        }
    }
}

/// Joins f32 tensors of one type along a new first axis.
fn stack(parts: &[&Tensor]) -> Tensor {
    let sizes = parts.first().map(|p| p.sizes()).unwrap_or_default();
    let shape: Vec<usize> = [parts.len()].into_iter().chain(sizes).collect();
    Tensor::new(
        TensorType::new(selvedge_ir::DType::F32, shape),
        Data::F32(parts.iter().flat_map(|p| p.to_f32()).collect()),
    )
}
