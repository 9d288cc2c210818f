//! `selvedge compile`: a model as one file.

use crate::common::{OptimizerArg, Size, TuneArg, bytes, out, wrong};
use crate::picture::Output;
use crate::progress::Bars;
use crate::{Error, Outcome};
use selvedge::ProgramOptions;
use selvedge::compile::Options;
use selvedge::open::Opened;
use selvedge::tune::{self, Level};
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// A model folder or a shipped model's name (`digits`).
    model: String,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Size of one picture in pixels; it must be one that the model makes.
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Sample at exactly --size, not at PixArt's trained size of the nearest aspect ratio.
    #[arg(long)]
    no_resolution_binning: bool,
    /// Tokens of a prompt in T5, padding counted; the pipeline's default if absent.
    #[arg(long, value_name = "N")]
    max_sequence_length: Option<usize>,
    /// Images made by one run of the program.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// portable, this (the adapter of this machine), or a JSON file with a target's limits.
    #[arg(long, default_value = "portable", value_name = "portable|this|FILE")]
    target: String,
    #[command(flatten)]
    optimizer: OptimizerArg,
    /// Sampler to use instead of the model's own: ddpm, ddim, euler or heun.
    #[arg(long, value_name = "NAME")]
    sampler: Option<String>,
    /// Leave the weights in the model's checkpoint files, which must stay as they are: the file names their places and hashes.
    #[arg(long)]
    link_weights: bool,
    /// Write every stage as text into this folder.
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    #[command(flatten)]
    tune: TuneArg,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome, Error> {
    if args.batch == 0 {
        return Err(wrong("batch", "a batch of 0 images", "give a batch of 1 or more"));
    }
    let output = Output::new(&args.output)?;
    let target = selvedge::target::parse(&args.target)?;
    let gpu = match args.tune.tune {
        None | Some(Level::Off) => None,
        Some(_) if args.target != "this" => {
            let message = format!("kernels cannot be measured for target `{}`", args.target);
            return Err(wrong("tune", message, "--tune quick|full goes with --target this"));
        }
        Some(_) => Some(selvedge::gpu::Gpu::open(None)?),
    };
    let wanted = ProgramOptions {
        batch: args.batch,
        size: args.size.map(|size| [size.height, size.width]),
        text_tokens: args.max_sequence_length,
        resolution_binning: !args.no_resolution_binning,
        ..ProgramOptions::default()
    };
    let source = Opened::open(&args.model)?.source_with(wanted, args.sampler.as_deref())?;
    let options = Options { target, dump: args.dump.clone(), settings: args.optimizer.settings() };
    let mut compiled = source.compile(&options)?;
    if let Some(gpu) = gpu {
        let bars = Bars::default();
        let (tuned, found) = tune::tune(&gpu, compiled, args.tune.tune.unwrap_or(Level::Off), &mut |e| bars.event(&e))?;
        drop(bars);
        found.lines().iter().for_each(|line| eprintln!("{line}"));
        compiled = tuned;
    }
    if args.link_weights {
        compiled.link_weights(args.output.parent().unwrap_or(&args.output))?;
    }
    let written = output.fill(|file| compiled.write_to(file))?;
    let report = compiled.report();
    if args.json {
        let mut object = report.to_json();
        object["output"] = json!(args.output.display().to_string());
        object["file_bytes"] = json!(written);
        out!("{object}");
        return Ok(Outcome::Done);
    }
    out!("{}: {}, target {}", args.output.display(), bytes(written), report.target);
    out!("{} dispatches of {} kernels, planned peak {}", report.dispatches, report.kernels, bytes(report.peak_bytes));
    for function in &compiled.notes().saturation {
        out!("{}", function.summary());
    }
    for line in &compiled.notes().lines {
        out!("{line}");
    }
    for (stage, time) in &report.stages {
        out!("{:>10.1} ms  {stage}", time.as_secs_f64() * 1e3);
    }
    Ok(Outcome::Done)
}
