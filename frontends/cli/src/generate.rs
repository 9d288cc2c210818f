//! `selvedge generate`: pictures from a model.

use crate::common::{DeviceArg, OptimizerArg, Size, TrustArg, TuneArg, bytes, device, out, wrong};
use crate::picture::{Output, grid, png};
use crate::progress::Bars;
use crate::{Error, Outcome};
use selvedge::compile::Settings;
use selvedge::open::{Opened, Source};
use selvedge::sample::{self, Order};
use selvedge::zoo::program::{Conditioning, PipelineInfo};
use selvedge::{Device, Event, ProgramOptions, Session, latents};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Largest batch that is compiled; more images run in several parts.
const MAX_BATCH: usize = 16;
/// Most pixels of the pictures that a text-to-image model makes in one batch, beyond the first.
const MAX_PIXELS: usize = 512 * 512;

#[derive(clap::Args)]
pub struct Args {
    /// A model folder, a compiled file, or a shipped model's name (`digits`).
    pub model: String,
    #[command(flatten)]
    pub order: OrderArgs,
    /// Sampler to use instead of the model's own: ddpm, ddim, euler or heun.
    #[arg(long, value_name = "NAME")]
    pub sampler: Option<String>,
    #[command(flatten)]
    pub optimizer: OptimizerArg,
}

/// What is asked for; the same for `generate` and `run`.
#[derive(clap::Args)]
pub struct OrderArgs {
    /// Class labels, repeated as often as needed; without it the classes in turn.
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',')]
    pub label: Vec<usize>,
    /// What the pictures show (text-to-image models); given several times, the prompts are taken in turn.
    #[arg(long, value_name = "TEXT", conflicts_with = "label")]
    pub prompt: Vec<String>,
    /// What the pictures should not show.
    #[arg(long, value_name = "TEXT", requires = "prompt")]
    pub negative_prompt: Option<String>,
    /// Seed of all noise: the same seed gives the same pictures on every device.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Sampling steps; the model's default if absent.
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Guidance scale; the model's default if absent, 1 is none.
    #[arg(long, value_name = "G")]
    pub guidance: Option<f64>,
    /// Guidance scale between prompt and negative prompt, for models whose own scale is an input of the network (FLUX).
    #[arg(long, value_name = "G", requires = "negative_prompt")]
    pub true_cfg: Option<f64>,
    /// Size of one picture in pixels; it must be one that the model makes.
    #[arg(long, value_name = "WxH")]
    pub size: Option<Size>,
    /// Sample at exactly --size, not at PixArt's trained size of the nearest aspect ratio.
    #[arg(long)]
    pub no_resolution_binning: bool,
    /// Tokens of a prompt in T5, padding counted; the pipeline's default if absent.
    #[arg(long, value_name = "N")]
    pub max_sequence_length: Option<usize>,
    /// Number of pictures, laid out in a grid.
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub count: Option<usize>,
    /// The PNG file to write.
    #[arg(short, long, value_name = "FILE", default_value = "out.png")]
    pub output: PathBuf,
    /// Write the latents (safetensors, tensor `latents`) instead of a picture: for models without a decoder.
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    pub latents: Option<PathBuf>,
    /// Start from these latents (safetensors, tensor `latents`, one an image) instead of the seed's.
    #[arg(long, value_name = "FILE")]
    pub from_latents: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArg,
    #[command(flatten)]
    pub tune: TuneArg,
    #[command(flatten)]
    pub trust: TrustArg,
    /// Print one JSON object about the run on stdout.
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &Args) -> Result<Outcome, Error> {
    generate(&args.model, &args.order, args.sampler.as_deref(), &args.optimizer.settings())
}

/// The whole of `generate` and `run`.
pub fn generate(model: &str, args: &OrderArgs, sampler: Option<&str>, settings: &Settings) -> Result<Outcome, Error> {
    let count = args.count.unwrap_or(args.label.len().max(args.prompt.len()).max(1));
    if count == 0 {
        return Err(wrong("count", "no pictures are asked for (-n 0)", "give a count of 1 or more"));
    }
    // Whatever can be wrong with the request is found before any work is done.
    let output = Output::new(args.latents.as_ref().unwrap_or(&args.output))?;
    let opened = Opened::open(model)?.trusted(args.trust.trust);
    let options = program_options(&opened, args, count)?;
    let source = opened.source_with(options, sampler)?;
    let info = source.info().clone();
    if matches!(source, Source::Bundle { .. }) {
        check_size(&info, args.size)?;
        check_compiled(&info, args)?;
    }
    check_decoder(&info, args.latents.is_some(), model)?;
    let order = Order {
        count,
        labels: args.label.clone(),
        prompts: args.prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        seed: args.seed,
        latents: args.from_latents.as_deref().map(latents::read).transpose()?,
        steps: args.steps,
        guidance_scale: args.guidance,
        true_guidance_scale: args.true_cfg,
    };
    let planned = sample::plan(&info, &source.tokenizers()?, &order)?;
    planned.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let device = device(&args.device)?.tuned(args.tune.tune);

    let started = Instant::now();
    let bars = Bars::default();
    let mut events = |event: Event| {
        if let Event::Peak(peak) = event {
            eprintln!("planned peak of device memory: {}", bytes(peak));
        }
        bars.event(&event);
    };
    let mut session = source.session(&device, settings, &mut events)?;
    let prepared = started.elapsed();
    let images = sample::sample(&mut session, &info, &planned, &mut events)?;
    drop(bars);
    let written = match &args.latents {
        Some(_) => latents::latents_file(&images),
        None => png(&grid(&images))?,
    };
    output.write(&written)?;
    report(args, &info, &device, &mut session, prepared, started, count);
    Ok(Outcome::Done)
}

/// The program to build for a request; a compiled file has its own.
fn program_options(opened: &Opened, args: &OrderArgs, count: usize) -> Result<ProgramOptions, Error> {
    let mut options = ProgramOptions {
        size: args.size.map(|size| [size.height, size.width]),
        text_tokens: args.max_sequence_length,
        resolution_binning: !args.no_resolution_binning,
        true_cfg: args.true_cfg.is_some_and(|g| g > 1.0),
        ..ProgramOptions::default()
    };
    options.batch = count.min(MAX_BATCH);
    if opened.takes_text() {
        if let Some([height, width]) = opened.pixels(&options)? {
            options.batch = options.batch.min((MAX_PIXELS / (height * width)).max(1));
        }
        // Without guidance half the work is left out.
        options.guidance = args.guidance.is_none_or(|g| g > 1.0);
        let distinct = args.prompt.iter().collect::<std::collections::BTreeSet<_>>().len();
        options.prompts = if distinct > 1 { options.batch } else { 1 };
    }
    Ok(options)
}

/// What is fixed when a file is compiled cannot be chosen any more.
fn check_compiled(info: &PipelineInfo, args: &OrderArgs) -> Result<(), Error> {
    let own = match &info.conditioning {
        Conditioning::Text { inputs, .. } => inputs.iter().map(|i| i.length).max(),
        Conditioning::Class { .. } => None,
    };
    match args.max_sequence_length {
        Some(n) if own.is_some_and(|own| n != own) => {
            let message = format!("`{}` is compiled for another number of text tokens than {n}", info.name);
            Err(wrong("text", message, "choose it when compiling: `compile --max-sequence-length`"))
        }
        Some(_) | None => Ok(()),
    }
}

fn report(
    args: &OrderArgs,
    info: &PipelineInfo,
    device: &Device,
    session: &mut Session,
    prepared: std::time::Duration,
    started: Instant,
    count: usize,
) {
    let path = args.latents.as_ref().unwrap_or(&args.output).display().to_string();
    let steps = args.steps.unwrap_or(info.default_steps);
    if args.json {
        out!(
            "{}",
            json!({
                "model": info.name, "device": device.name(), "output": path, "count": count, "seed": args.seed, "steps": steps,
                "guidance": args.guidance.unwrap_or(info.default_guidance_scale),
                "prepare_seconds": prepared.as_secs_f64(), "seconds": started.elapsed().as_secs_f64(),
                "peak_bytes": session.peak_bytes(), "condition_runs": session.conditions_run(),
            })
        );
    } else {
        let seconds = started.elapsed().as_secs_f64();
        out!("{path}: {count} × {} in {seconds:.1} s ({steps} steps on {})", info.name, device.name());
    }
}

fn check_size(info: &PipelineInfo, size: Option<Size>) -> Result<(), Error> {
    let [_, height, width] = info.image_shape.unwrap_or(info.latent_shape);
    match size {
        Some(size) if (size.width, size.height) != (width, height) => {
            let message = format!("`{}` does not make pictures of {}x{}", info.name, size.width, size.height);
            Err(wrong("size", message, format!("sizes it makes: {width}x{height}")))
        }
        Some(_) | None => Ok(()),
    }
}

/// A picture needs pixels; latents can always be had.
fn check_decoder(info: &PipelineInfo, latents: bool, model: &str) -> Result<(), Error> {
    use selvedge::zoo::program::Decoder;
    match &info.decoder {
        Decoder::Missing(what) if !latents => {
            let help = "write the latents with `--latents FILE` and decode them elsewhere";
            Err(wrong("decoder", format!("`{model}` cannot make a picture: {what}"), help))
        }
        Decoder::Missing(_) | Decoder::Pixels | Decoder::Autoencoder => Ok(()),
    }
}
