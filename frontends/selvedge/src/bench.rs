//! How fast a forward pass is, on presets with random weights and on models.

use crate::compile::{self, Options};
use crate::device::Device;
use crate::error::Error;
use crate::event::Observer;
use crate::flops;
use crate::gpu::GpuSession;
use crate::session::Session;
use crate::weights::{Cached, Random, Weights};
use selvedge_import::model::Architecture;
use selvedge_ir::{DType, Diagnostic, Module, Tensor};
use selvedge_model::ModuleBuilder;
use selvedge_zoo::dit::{DitConfig, forward_module};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// A preset (see [`PRESETS`]), a shipped model or a folder.
    pub model: String,
    /// Samples in a forward.
    pub batch: usize,
    /// Height and width of the sample (tokens for `attention`); the model's own if absent.
    pub size: Option<[usize; 2]>,
    /// Measured forwards.
    pub runs: usize,
}

/// Presets with weights from [`Random`]: the published DiT sizes on 32×32 latents (as 256-pixel pictures have), and
/// one attention of 16 heads of 64 on 1024 tokens.
pub const PRESETS: [&str; 5] = ["dit-s-2", "dit-b-2", "dit-l-2", "dit-xl-2", "attention"];

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Name of the model or preset.
    pub model: String,
    /// Samples in a forward.
    pub batch: usize,
    /// Height and width of the sample, as in `32x32`.
    pub size: String,
    /// The device's name.
    pub device: String,
    /// The driver's name and version.
    pub driver: String,
    /// Milliseconds of the first forward; drivers may compile in it.
    pub first_run_ms: f64,
    /// Median milliseconds of a forward.
    pub median_ms: f64,
    /// Least.
    pub min_ms: f64,
    /// Distance between the quartiles.
    pub spread_ms: f64,
    /// Measured forwards.
    pub runs: usize,
    /// Floating-point operations of a forward, in 10⁹, counted from its contractions.
    pub gflop: f64,
    /// 10⁹ operations in a second, at the median.
    pub gflops: f64,
    /// Milliseconds of each stage from module to loaded pipelines.
    pub compile_ms: Vec<(String, f64)>,
    /// The plan; none on the host.
    pub plan: Option<PlanFacts>,
}

/// Facts of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanFacts {
    /// Dispatches in a forward.
    pub dispatches: usize,
    /// Distinct pipelines.
    pub pipelines: usize,
    /// Device memory, weights included.
    pub peak_bytes: u64,
}

impl Report {
    /// One object with all fields; those of the plan are null on the host.
    pub fn to_json(&self) -> Value {
        let mut stages: BTreeMap<&str, f64> = BTreeMap::new();
        self.compile_ms.iter().for_each(|(n, t)| *stages.entry(n).or_default() += t);
        json!({
            "model": self.model, "batch": self.batch, "size": self.size, "device": self.device, "driver": self.driver,
            "first_run_ms": self.first_run_ms, "median_ms": self.median_ms, "min_ms": self.min_ms,
            "spread_ms": self.spread_ms, "runs": self.runs, "gflop": self.gflop, "gflop_per_s": self.gflops,
            "compile_ms": stages,
            "dispatches": self.plan.map(|p| p.dispatches), "pipelines": self.plan.map(|p| p.pipelines),
            "planned_peak_bytes": self.plan.map(|p| p.peak_bytes),
        })
    }
}

/// Finds out whether a request can be measured, before a device is opened.
///
/// # Errors
/// An unknown model, a batch or number of runs of 0, a size that the model cannot have.
pub fn check(request: &Request) -> Result<(), Error> {
    if request.batch == 0 || request.runs == 0 {
        return Err(Diagnostic::new("bench", "batch and runs must be 1 or more").into());
    }
    subject(request).map(|_| ())
}

/// Measures forwards of a model on a device.
///
/// # Errors
/// As [`check`]; device trouble.
pub fn bench(request: &Request, device: &Device, events: &mut Observer) -> Result<Report, Error> {
    let subject = subject(request)?;
    let flops = flops::of_function(&subject.module, FORWARD);
    let mut compile_ms = Vec::new();
    let mut plan = None;
    let mut session = match device {
        Device::Host => {
            let started = Instant::now();
            let session = compile::session(subject.module.clone(), subject.weights, Value::Null, device, events)?;
            compile_ms.push(("passes".to_string(), ms(started)));
            session
        }
        Device::Gpu(gpu) => {
            let options = Options::new(gpu.target());
            let compiled = compile::compile(subject.module.clone(), subject.weights, Value::Null, &options)?;
            let report = compiled.report();
            compile_ms.extend(report.stages.iter().map(|(name, t)| (name.clone(), t.as_secs_f64() * 1e3)));
            let (dispatches, pipelines) = (report.dispatches, report.kernels);
            plan = Some(PlanFacts { dispatches, pipelines, peak_bytes: report.peak_bytes });
            let started = Instant::now();
            let session = Session::gpu(GpuSession::load(gpu, &compiled.bundle()?, true, events)?);
            compile_ms.push(("load".to_string(), ms(started)));
            session
        }
    };
    let inputs = inputs(&subject.module)?;
    let started = Instant::now();
    session.call(FORWARD, &inputs)?;
    let first_run_ms = ms(started);
    let mut samples = session.time(FORWARD, &inputs, request.runs)?;
    samples.sort_by(f64::total_cmp);
    let at = |q: f64| samples[((samples.len() - 1) as f64 * q).round() as usize];
    let median_ms = at(0.5);
    Ok(Report {
        model: request.model.clone(),
        batch: request.batch,
        size: format!("{}x{}", subject.size[1], subject.size[0]),
        device: device.name(),
        driver: device.driver(),
        first_run_ms,
        median_ms,
        min_ms: at(0.0),
        spread_ms: at(0.75) - at(0.25),
        runs: samples.len(),
        gflop: flops as f64 / 1e9,
        gflops: flops as f64 / 1e6 / median_ms,
        compile_ms,
        plan,
    })
}

const FORWARD: &str = "forward";

struct Subject {
    module: Module,
    weights: Weights,
    size: [usize; 2],
}

fn subject(request: &Request) -> Result<Subject, Error> {
    let random: Weights = Arc::new(Cached::new(Random::default()));
    if request.model == "attention" {
        let size = request.size.unwrap_or([32, 32]);
        return Ok(Subject { module: attention(request.batch, size[0] * size[1])?, weights: random, size });
    }
    let (config, weights, stored) = match DitConfig::preset(&request.model) {
        Some(config) => (config, random, None),
        None => {
            let model = selvedge_import::load(&request.model).map_err(|e| unknown(&request.model, e))?;
            let Architecture::Dit(config) = model.architecture.clone();
            let stored = model.stored();
            (config, Arc::new(Cached::new(model.checkpoint)) as Weights, Some(stored))
        }
    };
    let size = request.size.unwrap_or([config.input_size; 2]);
    if size.iter().any(|n| n % config.patch_size != 0) {
        let what = Diagnostic::new("bench", format!("size {}x{} does not divide into patches", size[1], size[0]));
        return Err(what
            .expected_found(format!("multiples of {}", config.patch_size), format!("{}x{}", size[1], size[0]))
            .into());
    }
    let stored = move |name: &str| stored.as_ref().and_then(|s| s(name));
    let module = forward_module(&config, request.batch, (size[0], size[1]), stored)?;
    Ok(Subject { module, weights, size })
}

/// If it is no folder either, the presets are what was meant.
fn unknown(name: &str, errors: selvedge_ir::Diagnostics) -> Error {
    if std::path::Path::new(name).exists() {
        return errors.into();
    }
    let what = Diagnostic::new("bench", format!("there is no model or preset `{name}`"));
    what.help(format!("presets: digits, {}; or a model folder", PRESETS.join(", "))).into()
}

fn attention(batch: usize, tokens: usize) -> Result<Module, Error> {
    let mut module = ModuleBuilder::new("attention");
    module.function(FORWARD, |g| {
        let input = |name| g.input(name, DType::F32, [batch, 16, tokens, 64]);
        let (q, k, v) = (input("q"), input("k"), input("v"));
        let op = selvedge_ir::ops::Attention { scale: selvedge_ir::scalar::F64(0.125), causal: false };
        g.output("out", &g.push(op, &[&q, &k, &v]));
    });
    Ok(module.build()?)
}

/// Inputs from [`Random`]: floats uniform in [−1, 1), labels below 8.
fn inputs(module: &Module) -> Result<BTreeMap<String, Tensor>, Error> {
    let function = module.function(FORWARD).ok_or_else(|| Diagnostic::new("bench", "the module has no `forward`"))?;
    let random = Random::default();
    let all = function.params().into_iter().map(|(name, id)| {
        let tensor = random.scaled(&format!("input {name}"), function.ty(id), 1.0);
        let symbols = || Error::from(Diagnostic::new("bench", format!("input `{name}` has symbols in its type")));
        Ok((name.to_string(), tensor.ok_or_else(symbols)?))
    });
    all.collect()
}

fn ms(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
