//! How fast a forward pass is, on presets with random weights and on models.

mod subject;
mod table;
mod trace;

use crate::compile::{self, Options, Settings};
use crate::device::Device;
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::explain;
use crate::flops;
use crate::gpu::{Gpu, GpuSession};
use crate::session::Session;
use crate::tune;
use selvedge_bundle::manifest::Manifest;
use selvedge_ir::Diagnostic;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use subject::Program;

pub use subject::WORKLOADS;
pub(crate) use subject::inputs;
pub use table::{Ceilings, KernelRow, Table};
pub use trace::{Span, Timeline};

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// A preset (see [`crate::presets::NAMES`]), a workload (see [`WORKLOADS`]), a shipped model, a folder or a compiled file.
    pub model: String,
    /// Samples in a forward; 1 if absent. Of compiled files, `forward` or the first step function is measured, as compiled.
    pub batch: Option<usize>,
    /// Height and width of the sample (tokens for `attention`); the model's own if absent.
    pub size: Option<[usize; 2]>,
    /// Only so many of the model's blocks.
    pub blocks: Option<usize>,
    /// Tokens instead of a size: a square grid of patches of a DiT, or the sequence of `attention`; text tokens of other presets.
    pub tokens: Option<usize>,
    /// How to compile.
    pub settings: Settings,
    /// Heads of `attention`.
    pub heads: Option<usize>,
    /// Features of a head of `attention`.
    pub head_dim: Option<usize>,
    /// Measured forwards.
    pub runs: usize,
    /// See [`crate::open::BundleFile::trusted`].
    pub trusted: bool,
    /// Also measure kernel by kernel, on an adapter.
    pub kernels: bool,
    /// When the process started, for the time to the first output; the call of [`bench`] if absent.
    pub started: Option<Instant>,
}

impl Request {
    /// Five forwards of a model as it is.
    pub fn new(model: &str) -> Request {
        Request {
            model: model.to_string(),
            batch: None,
            size: None,
            blocks: None,
            tokens: None,
            settings: Settings::default(),
            heads: None,
            head_dim: None,
            runs: 5,
            trusted: false,
            kernels: false,
            started: None,
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Name of the model or preset.
    pub model: String,
    /// Samples in a forward.
    pub batch: usize,
    /// Width and height of the sample, as in `32x32`; heads, tokens and features of `attention`.
    pub size: String,
    /// The device's name.
    pub device: String,
    /// The driver's name and version.
    pub driver: String,
    /// Milliseconds from the start of the process to the first output.
    pub first_output_ms: f64,
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
    /// What tuning found, if that was asked for.
    pub tuned: Option<tune::Report>,
    /// By kernels, if that was asked for.
    pub table: Option<Table>,
    /// What happened when.
    pub timeline: Timeline,
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
    /// Bytes of tensors that are no weights, read and written by all dispatches of a forward.
    pub activation_bytes_moved: u64,
}

impl Report {
    /// One object with all fields but the timeline; those of the plan are null on the host.
    pub fn to_json(&self) -> Value {
        let mut stages: BTreeMap<&str, f64> = BTreeMap::new();
        self.compile_ms.iter().for_each(|(n, t)| *stages.entry(n).or_default() += t);
        json!({
            "model": self.model, "batch": self.batch, "size": self.size, "device": self.device, "driver": self.driver,
            "first_output_ms": self.first_output_ms, "first_run_ms": self.first_run_ms, "median_ms": self.median_ms, "min_ms": self.min_ms,
            "spread_ms": self.spread_ms, "runs": self.runs, "gflop": self.gflop, "gflop_per_s": self.gflops,
            "compile_ms": stages,
            "dispatches": self.plan.map(|p| p.dispatches), "pipelines": self.plan.map(|p| p.pipelines),
            "planned_peak_bytes": self.plan.map(|p| p.peak_bytes),
            "activation_bytes_moved": self.plan.map(|p| p.activation_bytes_moved),
            "tuned": self.tuned.as_ref().map(tune::Report::to_json),
            "by_kernel": self.table.as_ref().map(Table::to_json),
        })
    }
}

/// Finds out whether a request can be measured, before a device is opened.
///
/// # Errors
/// An unknown model, a batch, size or number of runs of 0, a size that the model cannot have.
pub fn check(request: &Request) -> Result<(), Error> {
    let Request { batch, blocks, tokens, heads, head_dim, .. } = *request;
    if [batch, blocks, tokens, heads, head_dim].contains(&Some(0)) || request.runs == 0 {
        let what = Diagnostic::new("bench", "a batch, a number of runs, or a size is 0");
        return Err(what.expected_found("1 or more", 0).into());
    }
    if request.size.is_some() && tokens.is_some() {
        return Err(Diagnostic::new("bench", "both a size and tokens are given").help("give one of them").into());
    }
    subject::subject(request).map(|_| ())
}

/// Measures forwards of a model on a device: calls with tensors of the host in and out.
///
/// # Errors
/// As [`check`]; device trouble.
pub fn bench(request: &Request, device: &Device, events: &mut Observer) -> Result<Report, Error> {
    let clock = Clock(request.started.unwrap_or_else(Instant::now));
    let subject = subject::subject(request)?;
    let flops = flops::of_function(&subject.module, &subject.function);
    let mut compile_ms = Vec::new();
    let (mut plan, mut tuned) = (None, None);
    let mut timeline = Timeline::default();
    timeline.host("start", 0.0, clock.now());
    let mut stages = Stages::default();
    let mut watch = |event: Event| {
        stages.seen(&event, clock.now());
        events(event);
    };
    let began = clock.now();
    let mut session = match (subject.program, device) {
        (Program::File(file), _) => {
            if let Device::Gpu(_) = device {
                plan = plan_facts(&file.manifest()?, &subject.function);
            }
            let session = file.session(device, &mut watch)?;
            compile_ms.push(("load".to_string(), clock.now() - began));
            session
        }
        (Program::Weights(weights), Device::Host) => {
            let session = compile::session_with(
                subject.module.clone(),
                weights,
                Value::Null,
                device,
                &request.settings,
                &mut watch,
            )?;
            compile_ms.push(("passes".to_string(), clock.now() - began));
            session
        }
        (Program::Weights(weights), Device::Gpu(gpu)) => {
            let options = Options { settings: request.settings.clone(), ..Options::new(gpu.target()) };
            let compiled = compile::compile(subject.module.clone(), weights, Value::Null, &options)?;
            let mut at = began;
            for (name, time) in compiled.report().stages {
                let ms = time.as_secs_f64() * 1e3;
                timeline.host(&name, at, ms);
                at += ms;
                compile_ms.push((name, ms));
            }
            let loading = clock.now();
            let ready = tune::ready(gpu, compiled, &mut watch)?;
            compile_ms.push(("load".to_string(), clock.now() - loading));
            plan = plan_facts(ready.compiled.manifest(), &subject.function);
            tuned = gpu.tune().map(|_| ready.report);
            Session::gpu(ready.session)
        }
    };
    stages.spans(&mut timeline);
    let function = subject.function.as_str();
    let inputs = inputs(&subject.module, function)?;
    let mut time = |name: &str, session: &mut Session| -> Result<f64, Error> {
        let started = clock.now();
        session.call(function, &inputs)?;
        let ms = clock.now() - started;
        timeline.host(name, started, ms);
        Ok(ms)
    };
    let first_run_ms = time("first forward", &mut session)?;
    let first_output_ms = clock.now();
    let mut samples = (0..request.runs).map(|_| time("forward", &mut session)).collect::<Result<Vec<f64>, _>>()?;
    samples.sort_by(f64::total_cmp);
    let at = |q: f64| samples[((samples.len() - 1) as f64 * q).round() as usize];
    let median_ms = at(0.5);
    let table = match (device, session.as_gpu()) {
        (Device::Gpu(gpu), Some(session)) if request.kernels => {
            Some(by_kernels(gpu, session, function, clock, &mut timeline)?)
        }
        (Device::Gpu(_) | Device::Host, _) => None,
    };
    Ok(Report {
        model: request.model.clone(),
        batch: subject.batch,
        size: subject.size,
        device: device.name(),
        driver: device.driver(),
        first_output_ms,
        first_run_ms,
        median_ms,
        min_ms: at(0.0),
        spread_ms: at(0.75) - at(0.25),
        runs: samples.len(),
        gflop: flops as f64 / 1e9,
        gflops: flops as f64 / 1e6 / median_ms,
        compile_ms,
        plan,
        tuned,
        table,
        timeline,
    })
}

/// The table of a function; one of its profiles goes into the timeline.
fn by_kernels(
    gpu: &Gpu,
    session: &mut GpuSession,
    function: &str,
    clock: Clock,
    timeline: &mut Timeline,
) -> Result<Table, Error> {
    let started = clock.now();
    let profile = session.profile(function)?;
    timeline.host("profile", started, clock.now() - started);
    timeline.spans.extend(profile.dispatches.iter().map(|d| Span {
        name: d.label.clone(),
        device: true,
        start_ms: started + d.start_ms,
        ms: d.ms,
        facts: json!({ "kernel": d.kernel, "choice": d.choice, "flops": d.flops, "bytes": d.bytes, "origins": d.origins }),
    }));
    let (dispatches, timestamps) = table::dispatches(session, function)?;
    Ok(Table { rows: table::rows(&dispatches), ceilings: table::ceilings(gpu)?, timestamps })
}

/// Milliseconds since the process started.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn now(self) -> f64 {
        self.0.elapsed().as_secs_f64() * 1e3
    }
}

/// When the stages of loading began and ended, by their events.
#[derive(Default)]
struct Stages(BTreeMap<&'static str, (f64, f64)>);

impl Stages {
    fn seen(&mut self, event: &Event, now: f64) {
        let name = match event {
            Event::Upload { .. } => "upload weights",
            Event::Pipelines { .. } => "create pipelines",
            Event::WarmUp { .. } => "warm up",
            Event::Tune { .. } => "tune kernels",
            Event::Peak(_) | Event::Steps { .. } | Event::Note(_) => return,
        };
        self.0.entry(name).or_insert((now, now)).1 = now;
    }
    fn spans(&self, timeline: &mut Timeline) {
        self.0.iter().for_each(|(name, (from, to))| timeline.host(name, *from, to - from));
    }
}

/// Facts of a function of the first plan.
fn plan_facts(manifest: &Manifest, function: &str) -> Option<PlanFacts> {
    let plan = manifest.plans.first()?;
    let function = plan.functions.iter().find(|f| f.name == function)?;
    let dispatches = &function.dispatches;
    let kernels: BTreeSet<&str> =
        dispatches.iter().map(|d| manifest.kernels[d.kernel as usize].hash.as_str()).collect();
    Some(PlanFacts {
        dispatches: dispatches.len(),
        pipelines: kernels.len(),
        peak_bytes: plan.peak_bytes(),
        activation_bytes_moved: explain::activation_bytes(function),
    })
}
