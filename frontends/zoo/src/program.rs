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
    /// What a picture is asked for by.
    pub conditioning: Conditioning,
    /// Guided channels; absent: the program evaluates no unconditional half.
    pub guided: Option<Guided>,
    /// The network takes the guidance scale as an input (distilled models such as FLUX.1 dev).
    pub embedded_guidance: bool,
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
    /// Side of the patches by which the reference packs latents into tokens before it saves them (FLUX); 1 elsewhere.
    pub packing: usize,
}

/// What a picture is asked for by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conditioning {
    /// A class.
    Class {
        /// Number of classes; labels are below it.
        num_classes: usize,
        /// Label of the unconditional evaluation.
        null_class: usize,
    },
    /// Text, as tokens.
    Text {
        /// Distinct texts of one run; each makes batch / prompts images, one after the other.
        prompts: usize,
        /// What the text encoders read.
        inputs: Vec<TokenInput>,
        /// Rule by which texts are prepared before they are tokenized.
        preparation: Preparation,
    },
}

/// Tokens that a text encoder reads: an input i32 [rows, length] of the run. Rows are the prompts, then (with guidance) as many
/// negative prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenInput {
    /// The input's name.
    pub name: String,
    /// Name of a second input of its shape, 1 for text and 0 for padding; absent: the encoder reads padding as text.
    pub mask: Option<String>,
    /// Tokens of a text, padding counted.
    pub length: usize,
    /// Rows of the encoder's token table.
    pub vocab_size: usize,
    /// The tokenizer: name of the pipeline's component.
    pub tokenizer: String,
    /// Token that fills a text up.
    pub pad_id: u32,
}

/// How texts are prepared before they are tokenized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preparation {
    /// Not at all.
    None,
    /// Lower case, without white space at the ends: what PixArt's pipelines do where the packages for their caption cleaning are missing.
    LowerTrim,
}

impl Preparation {
    /// The prepared text.
    pub fn apply(self, text: &str) -> String {
        match self {
            Preparation::None => text.to_string(),
            Preparation::LowerTrim => text.to_lowercase().trim().to_string(),
        }
    }
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
    /// Scale of the classifier-free guidance of a network that takes its guidance scale as an input, too.
    pub true_guidance_scale: Option<f64>,
    /// One label an image; at most the program's batch (the last is repeated to fill it).
    pub labels: Vec<usize>,
    /// Tokens of a text program's inputs, in their order.
    pub tokens: Vec<TokenRows>,
    /// Seed of all noise.
    pub seed: u64,
    /// Number of the first image among those of this seed: images 0..n are the same however they are batched.
    pub first_image: u64,
    /// First latents f32 [batch, C, H, W] of standard deviation 1, instead of those of the seed.
    pub latents: Option<Vec<f32>>,
    /// Step outputs to record (`latents`, `pred_xstart`).
    pub trace: Vec<String>,
}

/// Tokens for one [`TokenInput`], row by row.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TokenRows {
    /// Ids.
    pub ids: Vec<i32>,
    /// 1 for text, 0 for padding.
    pub mask: Vec<i32>,
}

/// The inputs of a run of a sampling module.
///
/// # Errors
/// Zero steps or more than the sampler has; no labels or too many, a label that is no class; tokens that do not fit the program's
/// inputs; latents of another size; guidance that is not finite or not there.
pub fn request(info: &PipelineInfo, request: &Request) -> Result<Run, Diagnostic> {
    let batch = info.batch;
    let conditions = match &info.conditioning {
        Conditioning::Class { num_classes, .. } => vec![labels(info, *num_classes, &request.labels)?],
        Conditioning::Text { prompts, inputs, .. } => {
            tokens(inputs, prompts * (1 + usize::from(info.guided.is_some())), &request.tokens)?
        }
    };
    let plan = info.sampler.plan(request.steps.unwrap_or(info.default_steps))?;
    let [c, h, w] = info.latent_shape;
    let shape = [batch, c, h, w];
    let draw = |step: u32| -> Vec<f32> {
        (0..batch as u64).flat_map(|i| normals(request.seed, request.first_image + i, step, c * h * w)).collect()
    };
    let noise = |k: usize| draw(k as u32 + 1);
    let first = match &request.latents {
        None => draw(0),
        Some(own) if own.len() == batch * c * h * w => own.clone(),
        Some(own) => {
            return Err(Diagnostic::new("request", "the latents do not fit the program")
                .expected_found(format!("{} elements: {shape:?}", batch * c * h * w), own.len()));
        }
    };
    let first = first.into_iter().map(|x| x * plan.init_noise_sigma as f32).collect();
    let mut run = run_of_plan(&info.sampler, &plan, shape, Tensor::f32(&shape, first), noise);
    run.inputs.extend(conditions);
    for (name, scale) in guidance_inputs(info, request)? {
        run.inputs.insert(name.into(), Tensor::f32(&[], vec![scale as f32]));
    }
    run.trace = request.trace.clone();
    Ok(run)
}

/// The input `class_labels`.
fn labels(info: &PipelineInfo, num_classes: usize, labels: &[usize]) -> Result<(String, Tensor), Diagnostic> {
    let batch = info.batch;
    if labels.is_empty() || labels.len() > batch {
        return Err(Diagnostic::new("request", "number of labels does not fit the program's batch")
            .expected_found(format!("1 to {batch} labels"), labels.len())
            .help("compile for another batch, or run in several parts"));
    }
    if let Some(label) = labels.iter().find(|&&l| l >= num_classes) {
        return Err(Diagnostic::new("request", format!("label {label} is not a class of `{}`", info.name))
            .expected_found(format!("0 to {}", num_classes.saturating_sub(1)), label));
    }
    let labels: Vec<i32> = (0..batch).map(|i| labels[i.min(labels.len() - 1)] as i32).collect();
    Ok(("class_labels".into(), Tensor::i32(&[batch], labels)))
}

/// The inputs of the text encoders for `rows` texts.
fn tokens(inputs: &[TokenInput], rows: usize, given: &[TokenRows]) -> Result<Vec<(String, Tensor)>, Diagnostic> {
    if given.len() != inputs.len() {
        return Err(Diagnostic::new("request", "the program reads tokens of other tokenizers")
            .expected_found(inputs.len(), given.len()));
    }
    let mut all = Vec::new();
    for (input, given) in inputs.iter().zip(given) {
        let shape = [rows, input.length];
        if given.ids.len() != rows * input.length || given.mask.len() != given.ids.len() {
            return Err(Diagnostic::new("request", format!("tokens for `{}` do not fit the program", input.name))
                .expected_found(
                    format!("{shape:?}"),
                    format!("{} ids, {} of a mask", given.ids.len(), given.mask.len()),
                ));
        }
        if let Some(id) = given.ids.iter().find(|&&id| id < 0 || id as usize >= input.vocab_size) {
            let what = format!("the tokenizer `{}` gives a token that its text encoder does not know", input.tokenizer);
            return Err(Diagnostic::new("request", what)
                .expected_found(format!("ids below {}", input.vocab_size), id)
                .help("tokenizer and text encoder are not of one model, or the prompt names a special token"));
        }
        all.push((input.name.clone(), Tensor::i32(&shape, given.ids.clone())));
        all.extend(input.mask.iter().map(|name| (name.clone(), Tensor::i32(&shape, given.mask.clone()))));
    }
    Ok(all)
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

/// The inputs `guidance` (of the network) and `guidance_scale` (of the two halves), as far as the program has them.
fn guidance_inputs(info: &PipelineInfo, request: &Request) -> Result<Vec<(&'static str, f64)>, Diagnostic> {
    let (own, two) = (request.guidance_scale, request.true_guidance_scale);
    if let Some(scale) = own.into_iter().chain(two).find(|g| !g.is_finite()) {
        let what = Diagnostic::new("request", "guidance scale is not a number");
        return Err(what.expected_found("a finite number", scale));
    }
    let mut inputs = Vec::new();
    let scale = own.unwrap_or(info.default_guidance_scale);
    if info.embedded_guidance {
        inputs.push(("guidance", scale));
    }
    let takes_none = !info.embedded_guidance && (info.guided.is_none() || two.is_some());
    let halves = if info.guided.is_some() && two.is_none() && !info.embedded_guidance { Some(scale) } else { two };
    if info.guided.is_some() {
        let scale = halves.unwrap_or(1.0);
        inputs.push(("guidance_scale", if info.guidance_floor { scale.max(1.0) } else { scale }));
    }
    let means_none = |g: f64| g == 1.0 || (info.guidance_floor && g <= 1.0);
    let unused = if takes_none { own } else { None }.or(if info.guided.is_none() { two } else { None });
    match unused.filter(|&g| !means_none(g)) {
        None => Ok(inputs),
        Some(scale) => Err(Diagnostic::new("request", format!("`{}` was compiled without guidance", info.name))
            .expected_found("no guidance scale, or 1", scale)),
    }
}
