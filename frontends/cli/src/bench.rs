//! `selvedge bench`: how fast a model, or a preset with random weights, runs.

use crate::common::{DeviceArg, OptimizerArg, Size, TrustArg, TuneArg, bytes, device, out};
use crate::picture::Output;
use crate::progress::Bars;
use crate::{Error, Outcome};
use selvedge::bench::{self, Request};
use std::path::PathBuf;
use std::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    /// A model folder, a compiled file (its first step function is measured), a shipped model's name, or a preset with
    /// random weights: digits, dit-s-2, dit-b-2, dit-l-2, dit-xl-2, pixart-sigma, sd3.5-medium, flux-dev, vae-decode,
    /// attention; or a workload: w1 (digits, batch 8), w2
    /// (dit-s-2, batch 2), w3 (dit-xl-2 --blocks 2 --tokens 1024), w4a and w4b (attention --heads 16 --head-dim 64
    /// --tokens 1024 or 4096).
    model: String,
    /// Images in one forward; 1 if absent. A compiled file has its own.
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
    #[command(flatten)]
    optimizer: OptimizerArg,
    /// Heads of `attention`; 16 if absent.
    #[arg(long, value_name = "H")]
    heads: Option<usize>,
    /// Features of a head of `attention`; 64 if absent.
    #[arg(long, value_name = "D")]
    head_dim: Option<usize>,
    /// Measured forwards, after one that is not measured.
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

pub fn run(args: &Args, started: Instant) -> Result<Outcome, Error> {
    let request = Request {
        model: args.model.clone(),
        batch: args.batch,
        size: args.size.map(|s| [s.height, s.width]),
        blocks: args.blocks,
        tokens: args.tokens,
        settings: args.optimizer.settings(),
        heads: args.heads,
        head_dim: args.head_dim,
        runs: args.runs,
        trusted: args.trust.trust,
        kernels: args.kernels || args.trace.is_some(),
        started: Some(started),
    };
    bench::check(&request)?;
    let trace = args.trace.as_deref().map(Output::new).transpose()?;
    let device = device(&args.device)?.tuned(args.tune.tune);
    let bars = Bars::default();
    let report = bench::bench(&request, &device, &mut |event| bars.event(&event))?;
    drop(bars);
    if let (Some(trace), Some(path)) = (trace, &args.trace) {
        let picture = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("svg"));
        let text = if picture { report.timeline.to_svg() } else { report.timeline.to_json().to_string() };
        trace.write(text.as_bytes())?;
    }
    if args.json {
        out!("{}", report.to_json());
        return Ok(Outcome::Done);
    }
    out!("{} batch {} {} on {} ({})", report.model, report.batch, report.size, report.device, report.driver);
    out!(
        "forward: median {:.2} ms, min {:.2}, spread {:.2} over {} runs; first run {:.1} ms, first output {:.2} s after the start",
        report.median_ms,
        report.min_ms,
        report.spread_ms,
        report.runs,
        report.first_run_ms,
        report.first_output_ms / 1e3
    );
    out!("{:.2} GFLOP a forward, {:.1} GFLOP/s", report.gflop, report.gflops);
    if let Some(plan) = &report.plan {
        out!("{} dispatches, {} pipelines, planned peak {}", plan.dispatches, plan.pipelines, bytes(plan.peak_bytes));
        out!("{} of activations moved in a forward", bytes(plan.activation_bytes_moved));
    }
    for (stage, ms) in &report.compile_ms {
        out!("{ms:>10.1} ms  {stage}");
    }
    for line in report.tuned.iter().flat_map(|t| t.lines()) {
        out!("{line}");
    }
    for line in report.table.iter().flat_map(|t| t.lines()) {
        out!("{line}");
    }
    Ok(Outcome::Done)
}
