//! `selvedge generate`: pictures from a model.

use crate::common::{DeviceArg, OptimizerArg, Size, TrustArg, TuneArg, bytes, device, out, wrong};
use crate::picture::{Output, grid, png};
use crate::progress::Bars;
use crate::{Error, Outcome};
use selvedge::compile::Settings;
use selvedge::open::Opened;
use selvedge::sample::{self, Order};
use selvedge::zoo::program::PipelineInfo;
use selvedge::{Device, Event, Session};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Largest batch that is compiled; more images run in several parts.
const MAX_BATCH: usize = 16;

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
    /// Text prompt (models with a text encoder only).
    #[arg(long, value_name = "TEXT", conflicts_with = "label")]
    pub prompt: Option<String>,
    /// Seed of all noise: the same seed gives the same pictures on every device.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Sampling steps; the model's default if absent.
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Guidance scale; the model's default if absent, 1 is none.
    #[arg(long, value_name = "G")]
    pub guidance: Option<f64>,
    /// Size of one picture in pixels; it must be one that the model makes.
    #[arg(long, value_name = "WxH")]
    pub size: Option<Size>,
    /// Number of pictures, laid out in a grid.
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub count: Option<usize>,
    /// The PNG file to write.
    #[arg(short, long, value_name = "FILE", default_value = "out.png")]
    pub output: PathBuf,
    /// Write the latents (safetensors, tensor `latents`) instead of a picture: for models without a decoder.
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    pub latents: Option<PathBuf>,
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
    if args.prompt.is_some() {
        return Err(wrong("prompt", format!("`{model}` has no text encoder"), "choose a class with --label"));
    }
    let count = args.count.unwrap_or(args.label.len().max(1));
    if count == 0 {
        return Err(wrong("count", "no pictures are asked for (-n 0)", "give a count of 1 or more"));
    }
    // Whatever can be wrong with the request is found before any work is done.
    let output = Output::new(args.latents.as_ref().unwrap_or(&args.output))?;
    let opened = Opened::open(model)?.trusted(args.trust.trust);
    let source = opened.source(count.min(MAX_BATCH), sampler)?;
    let info = source.info().clone();
    check_size(&info, args.size)?;
    check_decoder(&info, args.latents.is_some(), model)?;
    let order =
        Order { count, labels: args.label.clone(), seed: args.seed, steps: args.steps, guidance_scale: args.guidance };
    sample::plan(&info, &order)?;
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
    let images = sample::sample(&mut session, &info, &order, &mut events)?;
    drop(bars);
    let written = match &args.latents {
        Some(_) => selvedge::sample::latents_file(&images),
        None => png(&grid(&images))?,
    };
    output.write(&written)?;
    report(args, &info, &device, &session, prepared, started, count);
    Ok(Outcome::Done)
}

fn report(
    args: &OrderArgs,
    info: &PipelineInfo,
    device: &Device,
    session: &Session,
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
                "peak_bytes": session.peak_bytes(),
            })
        );
    } else {
        let seconds = started.elapsed().as_secs_f64();
        out!("{path}: {count} × {} in {seconds:.1} s ({steps} steps on {})", info.name, device.name());
    }
}

pub fn check_size(info: &PipelineInfo, size: Option<Size>) -> Result<(), Error> {
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
