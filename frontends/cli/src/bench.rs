//! `selvedge bench`: how fast a model, or a preset with random weights, runs.

use crate::common::{DeviceArg, Size, StorageArg, TrustArg, TuneArg, bytes, device, out, wrong};
use crate::picture::Output;
use crate::progress::Bars;
use crate::{Error, Outcome};
use selvedge::bench::{self, Report, Request, What};
use selvedge::compile::Optimizer;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    /// A model folder, a compiled file, a shipped model's name, or a preset with random weights: digits, dit-s-2, dit-b-2, dit-l-2, dit-xl-2, pixart-sigma, sd3.5-medium, flux-dev, vae-decode,
    /// attention; or a workload: w1 (digits, batch 8), w2
    /// (dit-s-2, batch 2), w3 (dit-xl-2 --blocks 2 --tokens 1024), w4a and w4b (attention --heads 16 --head-dim 64
    /// --tokens 1024 or 4096).
    model: String,
    /// What is timed: step (one step of the sampling program: guidance and sampler included, and without what runs at load, once
    /// a run or once in several steps, which is measured beside it) or forward (a call of the network, tensors of the host
    /// in and out). A step where the model has one, a forward of workloads and other presets.
    #[arg(long, value_name = "forward|step")]
    what: Option<What>,
    /// Samples that the network evaluates at once; 1 if absent, and in a step one image: 2 samples with guidance. An odd number
    /// goes without guidance. A compiled file has its own.
    #[arg(long)]
    batch: Option<usize>,
    /// Size of the picture in pixels; of models and the dit presets below 256, of the latents. A compiled file has its own.
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Only K transformer blocks of the model, for small machines.
    #[arg(long, value_name = "K")]
    blocks: Option<usize>,
    /// Tokens instead of a size (dit: a square grid of patches; the sequence of `attention`); text tokens of other presets.
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// How hard the rewrite rules work: none (one kernel an operator), greedy (one rule after another), saturate (all rules
    /// in one e-graph, from which the cheapest program is taken); several, as in none,saturate, or all are compared, run by run
    /// in turns.
    #[arg(long, default_value = "saturate", value_name = "none|greedy|saturate|all", value_parser = optimizers)]
    optimizer: Optimizers,
    #[command(flatten)]
    storage: StorageArg,
    /// Heads of `attention`; 16 if absent.
    #[arg(long, value_name = "H")]
    heads: Option<usize>,
    /// Features of a head of `attention`; 64 if absent.
    #[arg(long, value_name = "D")]
    head_dim: Option<usize>,
    /// Measured runs, after one that is not measured.
    #[arg(long, default_value_t = 5, value_name = "N")]
    runs: usize,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    tune: TuneArg,
    #[command(flatten)]
    trust: TrustArg,
    /// Also time each kernel on an adapter: time, GFLOP/s, GB/s, and the share of the device's measured ceilings.
    #[arg(long)]
    kernels: bool,
    /// Write a timeline of host stages and device dispatches: JSON for Perfetto, or a picture if FILE ends in .svg.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Optimisers to compare.
#[derive(Clone, Debug)]
struct Optimizers(Vec<Optimizer>);

fn optimizers(text: &str) -> Result<Optimizers, String> {
    if text == "all" {
        return Ok(Optimizers(Optimizer::ALL.to_vec()));
    }
    text.split(',').map(|word| word.trim().parse()).collect::<Result<_, _>>().map(Optimizers)
}

pub fn run(args: &Args, started: Instant) -> Result<Outcome, Error> {
    let Optimizers(optimizers) = &args.optimizer;
    let request = Request {
        model: args.model.clone(),
        what: args.what,
        batch: args.batch,
        size: args.size.map(|s| [s.height, s.width]),
        blocks: args.blocks,
        tokens: args.tokens,
        settings: args.storage.settings(optimizers[0]),
        heads: args.heads,
        head_dim: args.head_dim,
        runs: args.runs,
        trusted: args.trust.trust,
        kernels: args.kernels || args.trace.is_some(),
        started: Some(started),
    };
    if optimizers.len() > 1 && args.trace.is_some() {
        let help = "give one optimizer with --trace";
        return Err(wrong("bench", "a timeline of several optimisers is not drawn", help));
    }
    bench::check(&request)?;
    let trace = args.trace.as_deref().map(Output::new).transpose()?;
    let device = device(&args.device)?.tuned(args.tune.tune);
    let bars = Bars::default();
    let reports = match optimizers.as_slice() {
        [_] => vec![bench::bench(&request, &device, &mut |event| bars.event(&event))?],
        several => bench::compare(&request, several, &device, &mut |event| bars.event(&event))?,
    };
    drop(bars);
    if let (Some(trace), Some(path)) = (trace, &args.trace) {
        let picture = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("svg"));
        let timeline = &reports[0].timeline;
        let text = if picture { timeline.to_svg() } else { timeline.to_json().to_string() };
        trace.write(text.as_bytes())?;
    }
    match (reports.as_slice(), args.json) {
        ([report], true) => out!("{}", report.to_json()),
        (all, true) => {
            let each = all.iter().map(|r| (r.optimizer.map_or("-", Optimizer::text).to_string(), r.to_json()));
            out!("{}", json!({ "optimizers": each.collect::<serde_json::Map<_, _>>() }));
        }
        ([report], false) => print(report),
        (all, false) => table(all),
    }
    Ok(Outcome::Done)
}

fn heading(report: &Report) {
    let images = match report.images {
        Some(images) if images != report.batch => format!(" ({images} with guidance)"),
        Some(_) | None => String::new(),
    };
    out!("{} batch {}{images} {} on {} ({})", report.model, report.batch, report.size, report.device, report.driver);
}

/// One report for people.
fn print(report: &Report) {
    let what = report.what.text();
    heading(report);
    out!(
        "{what}: median {:.2} ms, min {:.2}, spread {:.2} over {} runs; first run {:.1} ms, first output {:.2} s after the start",
        report.median_ms,
        report.min_ms,
        report.spread_ms,
        report.runs,
        report.first_run_ms,
        report.first_output_ms / 1e3
    );
    out!("{:.2} GFLOP a {what}, {:.1} GFLOP/s", report.gflop, report.gflops);
    if let Some(plan) = &report.plan {
        out!("{} dispatches, {} pipelines, planned peak {}", plan.dispatches, plan.pipelines, bytes(plan.peak_bytes));
        out!("{} of activations moved in a {what}", bytes(plan.activation_bytes_moved));
    }
    outside(report);
    for (stage, ms) in &report.compile_ms {
        out!("{ms:>10.1} ms  {stage}");
    }
    for line in report.tuned.iter().flat_map(|t| t.lines()) {
        out!("{line}");
    }
    for line in report.table.iter().flat_map(|t| t.lines()) {
        out!("{line}");
    }
}

/// What runs outside the steps.
fn outside(report: &Report) {
    for s in &report.stages {
        let when = match (s.stage, s.steps) {
            ("prepare", _) => "at load".to_string(),
            (_, Some(steps)) => format!("once in {steps} steps"),
            (_, None) => "once a run".to_string(),
        };
        let dispatches = s.plan.map_or(String::new(), |p| format!(", {} dispatches", p.dispatches));
        out!("{} ({when}): {:.2} ms{dispatches}", s.stage, s.ms);
    }
    report.hoisted.iter().for_each(|saved| out!("{saved}"));
}

/// Optimisers side by side.
fn table(reports: &[Report]) {
    let Some(first) = reports.first() else { return };
    heading(first);
    out!("{}: median and least of {} runs in turns", first.what.text(), first.runs);
    out!(
        "{:<10} {:>10} {:>14} {:>12} {:>12} {:>10} {:>10}",
        "optimizer",
        "dispatches",
        "activations",
        "peak",
        "GFLOP",
        "median ms",
        "min ms"
    );
    for r in reports {
        let [dispatches, moved, peak] = match &r.plan {
            Some(p) => [p.dispatches.to_string(), bytes(p.activation_bytes_moved), bytes(p.peak_bytes)],
            None => ["-"; 3].map(String::from),
        };
        out!(
            "{:<10} {dispatches:>10} {moved:>14} {peak:>12} {:>12.3} {:>10.2} {:>10.2}",
            r.optimizer.map_or("-", Optimizer::text),
            r.gflop,
            r.median_ms,
            r.min_ms
        );
    }
    for r in reports.iter().filter(|r| !r.stages.is_empty() || r.hoisted.is_some()) {
        out!("{}:", r.optimizer.map_or("-", Optimizer::text));
        outside(r);
    }
    for r in reports.iter().filter(|r| r.table.is_some()) {
        out!("{}:", r.optimizer.map_or("-", Optimizer::text));
        r.table.iter().flat_map(|t| t.lines()).for_each(|line| out!("{line}"));
    }
}
