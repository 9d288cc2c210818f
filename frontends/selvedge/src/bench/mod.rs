//! How fast a forward pass or a sampling step is, on presets with random weights and on models.

mod measure;
mod step;
mod subject;
mod table;
mod trace;

use crate::compile::{Optimizer, Settings, savings_json};
use crate::error::Error;
use crate::tune;
use selvedge_ir::{Diagnostic, Module};
use selvedge_passes::hoist::Savings;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

pub use measure::{bench, compare};
pub use subject::WORKLOADS;
pub(crate) use subject::inputs;
pub use table::{Ceilings, KernelRow, Table};
pub use trace::{Span, Timeline};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A call of the network: tensors of the host in and out. What other systems measure, too.
    Forward,
    /// A step of the sampling program, guidance and the sampler's arithmetic included: from its submit to its end, its inputs
    /// on the device. What hoisting moved out of it is measured beside it.
    Step,
}

impl What {
    /// The word on the command line.
    pub fn text(self) -> &'static str {
        match self {
            What::Forward => "forward",
            What::Step => "step",
        }
    }
}

impl std::str::FromStr for What {
    type Err = String;
    fn from_str(text: &str) -> Result<What, String> {
        [What::Forward, What::Step]
            .into_iter()
            .find(|w| w.text() == text)
            .ok_or_else(|| format!("`{text}` cannot be measured: forward or step"))
    }
}

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// A preset (see [`crate::presets::NAMES`]), a workload (see [`WORKLOADS`]), a shipped model, a folder or a compiled file.
    pub model: String,
    /// What is timed; absent: a step of what has a sampling program (compiled files, models and `dit-*`), else, and of workloads,
    /// a forward.
    pub what: Option<What>,
    /// Samples that the network evaluates at once: an even number in a step is half as many images with guidance. Absent: 1, and
    /// in a step one image, with guidance if the model has it. A compiled file has its own.
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
    /// Measured runs.
    pub runs: usize,
    /// See [`crate::open::BundleFile::trusted`].
    pub trusted: bool,
    /// Also measure kernel by kernel, on an adapter.
    pub kernels: bool,
    /// When the process started, for the time to the first output; the call of [`bench`] if absent.
    pub started: Option<Instant>,
}

impl Request {
    /// Five runs of a model as it is.
    pub fn new(model: &str) -> Request {
        Request {
            model: model.to_string(),
            what: None,
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
    /// What was timed.
    pub what: What,
    /// The function that was timed.
    pub function: String,
    /// How hard the rewrite rules worked; of a compiled file nobody knows any more.
    pub optimizer: Option<Optimizer>,
    /// Samples that the network evaluates at once.
    pub batch: usize,
    /// Images that a step makes; with guidance half the batch.
    pub images: Option<usize>,
    /// Width and height of the sample, as in `32x32`; heads, tokens and features of `attention`.
    pub size: String,
    /// The device's name.
    pub device: String,
    /// The driver's name and version.
    pub driver: String,
    /// Milliseconds from the start of the process to the first output.
    pub first_output_ms: f64,
    /// Milliseconds of the first run; drivers may compile in it.
    pub first_run_ms: f64,
    /// Median milliseconds of a run.
    pub median_ms: f64,
    /// Least.
    pub min_ms: f64,
    /// Distance between the quartiles.
    pub spread_ms: f64,
    /// Least CPU time of a run in milliseconds, all threads, where Linux counts it: what a software driver takes however busy the
    /// machine is.
    pub cpu_ms: Option<f64>,
    /// Measured runs.
    pub runs: usize,
    /// Floating-point operations of a run, in 10⁹, counted from its contractions: of a forward as the model writes it, of a step
    /// as it is left by the passes.
    pub gflop: f64,
    /// 10⁹ operations in a second, at the median.
    pub gflops: f64,
    /// Milliseconds of each stage from module to loaded pipelines.
    pub compile_ms: Vec<(String, f64)>,
    /// The plan; none on the host.
    pub plan: Option<PlanFacts>,
    /// What runs outside the steps: at load, once a run, and once in several steps.
    pub stages: Vec<StageFacts>,
    /// What hoisting took out of the step.
    pub hoisted: Option<Savings>,
    /// Device memory that was allocated for the plan, in bytes; none on the host.
    pub allocated_bytes: Option<u64>,
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
    /// Dispatches in a run.
    pub dispatches: usize,
    /// Distinct pipelines.
    pub pipelines: usize,
    /// Device memory of the whole plan, weights included.
    pub peak_bytes: u64,
    /// Bytes of tensors read and written by all dispatches of a run, but for weights and what `prepare` makes of them.
    pub activation_bytes_moved: u64,
}

/// A function that runs outside the steps.
#[derive(Clone, Debug, PartialEq)]
pub struct StageFacts {
    /// `prepare`, `condition` or `tabulate`.
    pub stage: &'static str,
    /// Milliseconds of one run.
    pub ms: f64,
    /// The plan's facts of it; none on the host.
    pub plan: Option<PlanFacts>,
    /// Steps that one run of it serves; absent: all.
    pub steps: Option<usize>,
}

impl Report {
    /// One object with all fields but the timeline; those of the plan are null on the host.
    pub fn to_json(&self) -> Value {
        let mut stages: BTreeMap<&str, f64> = BTreeMap::new();
        self.compile_ms.iter().for_each(|(n, t)| *stages.entry(n).or_default() += t);
        let stage = |s: &StageFacts| {
            let facts = json!({
                "ms": s.ms, "dispatches": s.plan.map(|p| p.dispatches), "steps": s.steps,
                "activation_bytes_moved": s.plan.map(|p| p.activation_bytes_moved),
            });
            (s.stage.to_string(), facts)
        };
        json!({
            "model": self.model, "what": self.what.text(), "function": self.function,
            "optimizer": self.optimizer.map(Optimizer::text), "images": self.images,
            "stages": self.stages.iter().map(stage).collect::<serde_json::Map<_, _>>(),
            "hoisted": self.hoisted.as_ref().map(savings_json),
            "batch": self.batch, "size": self.size, "device": self.device, "driver": self.driver,
            "first_output_ms": self.first_output_ms, "first_run_ms": self.first_run_ms, "median_ms": self.median_ms, "min_ms": self.min_ms,
            "spread_ms": self.spread_ms, "cpu_ms": self.cpu_ms, "runs": self.runs, "gflop": self.gflop, "gflop_per_s": self.gflops,
            "compile_ms": stages,
            "dispatches": self.plan.map(|p| p.dispatches), "pipelines": self.plan.map(|p| p.pipelines),
            "planned_peak_bytes": self.plan.map(|p| p.peak_bytes), "allocated_bytes": self.allocated_bytes,
            "activation_bytes_moved": self.plan.map(|p| p.activation_bytes_moved),
            "tuned": self.tuned.as_ref().map(tune::Report::to_json),
            "by_kernel": self.table.as_ref().map(Table::to_json),
        })
    }
}

/// The module that a preset stands for: its sampling program if it has one.
///
/// # Errors
/// A batch or size that it cannot have.
pub(crate) fn preset_module(name: &str, batch: Option<usize>) -> Result<Module, Error> {
    subject::subject(&Request { batch, ..Request::new(name) }).map(|s| s.module)
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
