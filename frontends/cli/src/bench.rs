//! `selvedge bench`: how fast a model, or a preset with random weights, runs.

use crate::common::{DeviceArg, Size, TrustArg, bytes, device, out};
use crate::progress::Bars;
use crate::{Error, Outcome};
use selvedge::bench::{self, Request};

#[derive(clap::Args)]
pub struct Args {
    /// A model folder, a compiled file (its first step function is measured), a shipped model's name, or a preset with
    /// random weights: digits, dit-s-2, dit-b-2, dit-l-2, dit-xl-2, attention.
    model: String,
    /// Images in one forward; 1 if absent. A compiled file has its own.
    #[arg(long)]
    batch: Option<usize>,
    /// Size of the sample (latents for the dit presets). A compiled file has its own.
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Measured forwards, after one that is not measured.
    #[arg(long, default_value_t = 5, value_name = "N")]
    runs: usize,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    trust: TrustArg,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome, Error> {
    let request = Request {
        model: args.model.clone(),
        batch: args.batch,
        size: args.size.map(|s| [s.height, s.width]),
        runs: args.runs,
        trusted: args.trust.trust,
    };
    bench::check(&request)?;
    let device = device(&args.device)?;
    let bars = Bars::default();
    let report = bench::bench(&request, &device, &mut |event| bars.event(&event))?;
    drop(bars);
    if args.json {
        out!("{}", report.to_json());
        return Ok(Outcome::Done);
    }
    out!("{} batch {} {} on {} ({})", report.model, report.batch, report.size, report.device, report.driver);
    out!(
        "forward: median {:.2} ms, min {:.2}, spread {:.2} over {} runs; first run {:.1} ms",
        report.median_ms,
        report.min_ms,
        report.spread_ms,
        report.runs,
        report.first_run_ms
    );
    out!("{:.2} GFLOP a forward, {:.1} GFLOP/s", report.gflop, report.gflops);
    if let Some(plan) = &report.plan {
        out!("{} dispatches, {} pipelines, planned peak {}", plan.dispatches, plan.pipelines, bytes(plan.peak_bytes));
    }
    for (stage, ms) in &report.compile_ms {
        out!("{ms:>10.1} ms  {stage}");
    }
    Ok(Outcome::Done)
}
