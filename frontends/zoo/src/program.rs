//! Pipelines: what a compiled program is for, and the inputs of a run of it.

use crate::guidance::Guided;
use crate::random::normals;
use crate::samplers::{HISTORY, Noise, Sampler, StepKind, StepPlan};
use selvedge_ir::interp::Run;
use selvedge_ir::{Diagnostic, Module, Tensor};
use serde::{Deserialize, Serialize};

/// A module with the facts that running it needs.
#[derive(Clone, Debug)]
pub struct Program {
    /// Functions and schedule.
    pub module: Module,
    /// What to feed it and what comes out.
    pub info: PipelineInfo,
}

/// What a program samples and how it is run; travels with the compiled program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineInfo {
    /// Name of the model.
    pub name: String,
    /// Architecture family, such as `dit`.
    pub family: String,
    /// Images made by one run.
    pub batch: usize,
    /// Channels, height and width of the latents.
    pub latent_shape: [usize; 3],
    /// Channels, height and width of the picture that a run ends with; absent if the program ends at the latents and they are no
    /// pixels.
    pub image_shape: Option<[usize; 3]>,
    /// Values of black and white in the picture.
    pub pixel_range: [f64; 2],
    /// Number of classes; labels are below it.
    pub num_classes: usize,
    /// Label of the unconditional evaluation.
    pub null_class: usize,
    /// Guided channels; absent: the program has no guidance.
    pub guided: Option<Guided>,
    /// Guidance below 1 is raised to 1, as diffusers' pipelines switch it off there.
    pub guidance_floor: bool,
    /// Steps of a run that does not say.
    pub default_steps: usize,
    /// Guidance of a run that does not say.
    pub default_guidance_scale: f64,
    /// The sampler.
    pub sampler: Sampler,
    /// What turns latents into a picture.
    pub decoder: Decoder,
}

/// What turns latents into a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decoder {
    /// Nothing: the latents are the pixels.
    Pixels,
    /// The program's own function `decode`, by an autoencoder.
    Autoencoder,
    /// A decoder is needed that the program does not have; the text says what is missing and what can be done.
    Missing(String),
}

/// What a user asks of a run.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Request {
    /// Number of steps; the pipeline's default if absent.
    pub steps: Option<usize>,
    /// Guidance scale; the pipeline's default if absent.
    pub guidance_scale: Option<f64>,
    /// One label an image; at most the program's batch (the last is repeated to fill it).
    pub labels: Vec<usize>,
    /// Seed of all noise.
    pub seed: u64,
    /// Number of the first image among those of this seed: images 0..n are the same however they are batched.
    pub first_image: u64,
    /// Step outputs to record (`latents`, `pred_xstart`).
    pub trace: Vec<String>,
}

/// The inputs of a run of a sampling module.
///
/// # Errors
/// Zero steps or more than the sampler has, no labels or too many, a label that is no class, guidance that is not finite or not there.
pub fn request(info: &PipelineInfo, request: &Request) -> Result<Run, Diagnostic> {
    let batch = info.batch;
    if request.labels.is_empty() || request.labels.len() > batch {
        return Err(Diagnostic::new("request", "number of labels does not fit the program's batch")
            .expected_found(format!("1 to {batch} labels"), request.labels.len())
            .help("compile for another batch, or run in several parts"));
    }
    if let Some(label) = request.labels.iter().find(|&&l| l >= info.num_classes) {
        return Err(Diagnostic::new("request", format!("label {label} is not a class of `{}`", info.name))
            .expected_found(format!("0 to {}", info.num_classes.saturating_sub(1)), label));
    }
    let plan = info.sampler.plan(request.steps.unwrap_or(info.default_steps))?;
    let labels: Vec<i32> = (0..batch).map(|i| request.labels[i.min(request.labels.len() - 1)] as i32).collect();
    let [c, h, w] = info.latent_shape;
    let shape = [batch, c, h, w];
    let draw = |step: u32| -> Vec<f32> {
        (0..batch as u64).flat_map(|i| normals(request.seed, request.first_image + i, step, c * h * w)).collect()
    };
    let noise = |k: usize| draw(k as u32 + 1);
    let first = draw(0).into_iter().map(|x| x * plan.init_noise_sigma as f32).collect();
    let mut run = run_of_plan(&info.sampler, &plan, shape, Tensor::f32(&shape, first), noise);
    run.inputs.insert("class_labels".into(), Tensor::i32(&[batch], labels));
    if info.guided.is_some() {
        run.inputs.insert("guidance_scale".into(), Tensor::f32(&[], vec![guidance_scale(info, request)? as f32]));
    } else if request.guidance_scale.is_some_and(|g| g != 1.0) {
        return Err(Diagnostic::new("request", format!("`{}` was compiled without guidance", info.name)));
    }
    run.trace = request.trace.clone();
    Ok(run)
}

/// Steps, tables and first latents of a run; `noise(k)` gives the noise of step k (called only if the sampler uses it).
pub fn run_of_plan(
    sampler: &Sampler,
    plan: &StepPlan,
    shape: [usize; 4],
    latents: Tensor,
    noise: impl Fn(usize) -> Vec<f32>,
) -> Run {
    let form = sampler.form();
    let steps = plan.steps();
    let mut run = Run { steps: plan.functions.clone(), ..Run::default() };
    run.inputs.insert("latents".into(), latents);
    for name in &HISTORY[..form.history] {
        run.inputs.insert(name.to_string(), Tensor::f32(&shape, vec![0.0; shape.iter().product()]));
    }
    let scalars = |values: &[f64]| Tensor::f32(&[steps], values.iter().map(|&t| t as f32).collect());
    run.tables.insert("timestep".into(), scalars(&plan.timesteps));
    let rows: Vec<f32> = plan.coefficients.iter().flat_map(|c| c.row()).collect();
    run.tables.insert("coefficients".into(), Tensor::f32(&[steps, rows.len() / steps.max(1)], rows));
    if form.functions.contains(&StepKind::Heun) {
        run.tables.insert("next_timestep".into(), scalars(&plan.next_timesteps));
    }
    if form.noise != Noise::None {
        let all: Vec<f32> = (0..steps).flat_map(noise).collect();
        let sizes: Vec<usize> = [steps].into_iter().chain(shape).collect();
        run.tables.insert("noise".into(), Tensor::f32(&sizes, all));
    }
    run
}

fn guidance_scale(info: &PipelineInfo, request: &Request) -> Result<f64, Diagnostic> {
    let scale = request.guidance_scale.unwrap_or(info.default_guidance_scale);
    if !scale.is_finite() {
        return Err(
            Diagnostic::new("request", "guidance scale is not a number").expected_found("a finite number", scale)
        );
    }
    Ok(if info.guidance_floor { scale.max(1.0) } else { scale })
}
