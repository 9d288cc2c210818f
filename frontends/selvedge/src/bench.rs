//! How fast a forward pass is, on presets with random weights and on models.

use crate::compile::{self, Options};
use crate::device::Device;
use crate::error::Error;
use crate::event::Observer;
use crate::flops;
use crate::gpu::GpuSession;
use crate::open::BundleFile;
use crate::session::Session;
use crate::weights::{Cached, Random, Weights};
use selvedge_bundle::manifest::Manifest;
use selvedge_import::SHIPPED;
use selvedge_import::model::Architecture;
use selvedge_ir::{DType, Diagnostic, Module, Tensor};
use selvedge_model::ModuleBuilder;
use selvedge_zoo::dit::{DitConfig, forward_module};
use selvedge_zoo::program::PipelineInfo;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// A preset (see [`PRESETS`]), a shipped model, a folder or a compiled file.
    pub model: String,
    /// Samples in a forward; 1 if absent. Of compiled files, `forward` or the first step function is measured, as compiled.
    pub batch: Option<usize>,
    /// Height and width of the sample (tokens for `attention`); the model's own if absent.
    pub size: Option<[usize; 2]>,
    /// Measured forwards.
    pub runs: usize,
    /// See [`BundleFile::trusted`].
    pub trusted: bool,
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
    if request.batch == Some(0) || request.runs == 0 {
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
    let flops = flops::of_function(&subject.module, &subject.function);
    let mut compile_ms = Vec::new();
    let mut plan = None;
    let mut session = match (subject.program, device) {
        (Program::File(file), _) => {
            if let Device::Gpu(_) = device {
                plan = plan_facts(&file.manifest()?, &subject.function);
            }
            let started = Instant::now();
            let session = file.session(device, events)?;
            compile_ms.push(("load".to_string(), ms(started)));
            session
        }
        (Program::Weights(weights), Device::Host) => {
            let started = Instant::now();
            let session = compile::session(subject.module.clone(), weights, Value::Null, device, events)?;
            compile_ms.push(("passes".to_string(), ms(started)));
            session
        }
        (Program::Weights(weights), Device::Gpu(gpu)) => {
            let options = Options::new(gpu.target());
            let compiled = compile::compile(subject.module.clone(), weights, Value::Null, &options)?;
            let report = compiled.report();
            compile_ms.extend(report.stages.iter().map(|(name, t)| (name.clone(), t.as_secs_f64() * 1e3)));
            plan = plan_facts(compiled.manifest(), &subject.function);
            let started = Instant::now();
            let session = Session::gpu(GpuSession::load(gpu, &compiled.bundle()?, &Default::default(), true, events)?);
            compile_ms.push(("load".to_string(), ms(started)));
            session
        }
    };
    let function = subject.function.as_str();
    let inputs = inputs(&subject.module, function)?;
    let started = Instant::now();
    session.call(function, &inputs)?;
    let first_run_ms = ms(started);
    let mut samples = session.time(function, &inputs, request.runs)?;
    samples.sort_by(f64::total_cmp);
    let at = |q: f64| samples[((samples.len() - 1) as f64 * q).round() as usize];
    let median_ms = at(0.5);
    Ok(Report {
        model: request.model.clone(),
        batch: subject.batch,
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
    /// The function that is measured.
    function: String,
    program: Program,
    batch: usize,
    /// Height and width.
    size: [usize; 2],
}

/// Where a session comes from.
enum Program {
    /// The module, compiled with these weights.
    Weights(Weights),
    /// A compiled file.
    File(BundleFile),
}

fn subject(request: &Request) -> Result<Subject, Error> {
    if !SHIPPED.contains(&request.model.as_str()) && Path::new(&request.model).is_file() {
        return compiled(request);
    }
    let random: Weights = Arc::new(Cached::new(Random::default()));
    let batch = request.batch.unwrap_or(1);
    let of = |module, weights, size| {
        let (function, program) = (FORWARD.to_string(), Program::Weights(weights));
        Subject { module, function, program, batch, size }
    };
    if request.model == "attention" {
        let size = request.size.unwrap_or([32, 32]);
        return Ok(of(attention(batch, size[0] * size[1])?, random, size));
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
    let module = forward_module(&config, batch, (size[0], size[1]), stored)?;
    Ok(of(module, weights, size))
}

/// A compiled file: `forward`, or the first step of its sampling program.
fn compiled(request: &Request) -> Result<Subject, Error> {
    let mut file = BundleFile::open(Path::new(&request.model))?;
    file.trusted = request.trusted;
    file.linked()?; // a file that is missing is found before a device is opened
    let module = file.module()?;
    let step = module.schedule.steps.iter().flat_map(|s| &s.functions).next();
    let function = step.map_or(FORWARD, String::as_str).to_string();
    let info = serde_json::from_value::<PipelineInfo>(file.manifest()?.pipeline).ok();
    let (batch, size) = info.map_or((1, [0, 0]), |i| (i.batch, [i.latent_shape[1], i.latent_shape[2]]));
    if request.batch.is_some_and(|b| b != batch) || request.size.is_some_and(|s| s != size) {
        let what = Diagnostic::new("bench", format!("`{}` is compiled for one batch and size", file.path));
        let own = format!("batch {batch}, size {}x{}", size[1], size[0]);
        return Err(what.expected_found(own, "another").help("measure the model's folder instead").into());
    }
    Ok(Subject { module, function, program: Program::File(file), batch, size })
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
fn inputs(module: &Module, function: &str) -> Result<BTreeMap<String, Tensor>, Error> {
    let function = module
        .function(function)
        .ok_or_else(|| Diagnostic::new("bench", format!("the module has no function `{function}`")))?;
    let random = Random::default();
    let all = function.params().into_iter().map(|(name, id)| {
        let tensor = random.scaled(&format!("input {name}"), function.ty(id), 1.0);
        let symbols = || Error::from(Diagnostic::new("bench", format!("input `{name}` has symbols in its type")));
        Ok((name.to_string(), tensor.ok_or_else(symbols)?))
    });
    all.collect()
}

/// Facts of a function of the first plan.
fn plan_facts(manifest: &Manifest, function: &str) -> Option<PlanFacts> {
    let plan = manifest.plans.first()?;
    let dispatches = &plan.functions.iter().find(|f| f.name == function)?.dispatches;
    let kernels: BTreeSet<&str> =
        dispatches.iter().map(|d| manifest.kernels[d.kernel as usize].hash.as_str()).collect();
    Some(PlanFacts { dispatches: dispatches.len(), pipelines: kernels.len(), peak_bytes: plan.peak_bytes() })
}

fn ms(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
