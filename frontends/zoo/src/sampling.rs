//! Sampling modules: a model, guidance and a sampler's steps as one module with a schedule.
//!
//! | name | kind | type | |
//! |---|---|---|---|
//! | `latents` | carried | f32[B,C,H,W] | first value: standard normal noise |
//! | `class_labels` | input of the run | i32[B] | class-conditional models |
//! | `input_ids…`, `attention_mask…` | inputs of the run | i32[R,L] | text-to-image models: read by `condition` ([`text_module`]) |
//! | `guidance_scale` | input of the run | f32[] | with guidance only |
//! | `guidance` | input of the run | f32[] | models that take the scale as an input |
//! | `timestep` | table | f32[] | what the model receives |
//! | `next_timestep` | table | f32[] | Heun's second evaluation |
//! | `coefficients` | table | f32[11] | [`crate::samplers::Coefficients`] |
//! | `noise` | table | f32[B,C,H,W] | stochastic samplers only |
//! | `previous_x0`, `older_x0` | carried | f32[B,C,H,W] | multistep samplers only; first values: zeros |
//! | `pred_xstart` | trace | f32[B,C,H,W] | samplers that predict x0 |
//! | `image` | output | f32[B,C,H,W] | with a decoder only ([`add_decoder`]) |

use crate::guidance::{self, Guided};
use crate::samplers::{Coefficients, HISTORY, Noise, Sampler, StepForm, StepKind, step};
use selvedge_ir::module::{Schedule, StepLoop, TableDecl};
use selvedge_ir::{DType, Diagnostic, Diagnostics, Module, TensorType};
use selvedge_model::{Graph, ModuleBuilder, Tensor};

/// A class-conditional model as the samplers see it.
pub trait Denoiser {
    /// Channels, height and width of the sample.
    fn sample_shape(&self) -> [usize; 3];
    /// The model's output [N, K, H, W] for samples `x` [N, C, H, W], timesteps f32[N] and labels i32[N].
    fn forward(&self, graph: &Graph, x: &Tensor, timesteps: &Tensor, class_labels: &Tensor) -> Tensor;
}

/// How guidance is arranged in a sampling module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guidance {
    /// None: one evaluation a step.
    Off,
    /// The batch is doubled inside; samples are carried once, labels of the second half are the null class.
    On {
        /// Guided channels.
        guided: Guided,
        /// Index of the null class.
        null_class: usize,
    },
    /// The doubled batch is carried whole, as the DiT repository's loop does: the second half has its own labels and noise, and the
    /// model reads the first half twice.
    Carried {
        /// Guided channels.
        guided: Guided,
    },
}

/// A sampling module for `batch` samples (with [`Guidance::Carried`]: both halves counted).
///
/// `stored` says in which dtype the checkpoint stores a weight.
///
/// # Errors
/// What the model code or the sampler's arithmetic finds wrong.
pub fn sampling_module(
    name: &str,
    model: &dyn Denoiser,
    sampler: &Sampler,
    guidance: Guidance,
    batch: usize,
    stored: impl Fn(&str) -> Option<DType> + 'static,
) -> Result<Module, Diagnostics> {
    let [channels, height, width] = model.sample_shape();
    let shape = [batch, channels, height, width];
    let form = sampler.form();
    let mut module = ModuleBuilder::new(name).stored_as(stored);
    for &kind in &form.functions {
        module.function(kind.function_name(), |g| {
            let x = g.input("latents", DType::F32, shape);
            let labels = g.input("class_labels", DType::I32, [batch]);
            let scale = (guidance != Guidance::Off).then(|| g.input("guidance_scale", DType::F32, []));
            let timestep = g.input("timestep", DType::F32, []);
            let evaluate = |x: &Tensor, t: &Tensor| {
                evaluate(g, model, guidance, x, t, &labels, scale.as_ref()).named("model_output")
            };
            step_body(g, &form, kind, &x, shape, |x, next| match next {
                None => evaluate(x, &timestep),
                Some(next) => evaluate(x, next),
            });
        });
    }
    let mut tables = vec![TableDecl { name: "timestep".into(), ty: TensorType::new(DType::F32, []) }];
    tables.extend(sampler_tables(&form, shape));
    module.schedule(schedule(&form, tables));
    module.build()
}

/// A text-to-image model as the samplers see it: text encoders, which run once, and a network, which runs each step.
pub trait TextDenoiser {
    /// What the text encoders read.
    fn tokens(&self) -> Vec<TokenPort>;
    /// What the network reads of the text: name, dtype and extents after the first, which counts rows.
    fn text(&self) -> Vec<TextPort>;
    /// Runs the encoders on each port's ids i32 [R, length] and mask; gives the values of [`TextDenoiser::text`], in its order.
    fn encode(&self, graph: &Graph, tokens: &[(Tensor, Option<Tensor>)]) -> Vec<Tensor>;
    /// The network takes the guidance scale.
    fn embeds_guidance(&self) -> bool {
        false
    }
    /// The network's output [N, K, H, W] for samples `x` [N, C, H, W], timesteps f32[N], `text` of N rows, and the guidance scale
    /// f32[N] if it takes one.
    fn forward(
        &self,
        graph: &Graph,
        x: &Tensor,
        timesteps: &Tensor,
        text: &[Tensor],
        guidance: Option<&Tensor>,
    ) -> Tensor;
}

/// An input of the text encoders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPort {
    /// Input of the ids.
    pub name: &'static str,
    /// Input of the mask, if the encoder takes one.
    pub mask: Option<&'static str>,
    /// The pipeline's component that tokenizes.
    pub tokenizer: &'static str,
    /// Tokens of a text.
    pub length: usize,
    /// Rows of the token table.
    pub vocab_size: usize,
}

/// A value that the network reads of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPort {
    /// Its name.
    pub name: &'static str,
    /// Its dtype.
    pub dtype: DType,
    /// Extents of a row.
    pub row: Vec<usize>,
}

/// Sizes of a text program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextBatch {
    /// Images of a run: the same number for each prompt.
    pub images: usize,
    /// Distinct prompts of a run.
    pub prompts: usize,
    /// Channels, height and width of a latent.
    pub latent: [usize; 3],
}

/// A sampling module for text: `condition` encodes the prompts (with guidance: then as many negative prompts), a row each, and
/// repeats the rows for the images of a prompt; steps evaluate both halves as one batch.
///
/// # Errors
/// What the model code or the sampler's arithmetic finds wrong.
pub fn text_module(
    name: &str,
    model: &dyn TextDenoiser,
    sampler: &Sampler,
    guided: Option<Guided>,
    batch: TextBatch,
    stored: impl Fn(&str) -> Option<DType> + 'static,
) -> Result<Module, Diagnostics> {
    let halves = 1 + usize::from(guided.is_some());
    let (rows, repeat) = (batch.prompts * halves, batch.images / batch.prompts.max(1));
    let [channels, height, width] = batch.latent;
    let shape = [batch.images, channels, height, width];
    let form = sampler.form();
    let mut module = ModuleBuilder::new(name).stored_as(stored);
    module.function("condition", |g| {
        let read = |port: &TokenPort| {
            let input = |name: &str| g.input(name, DType::I32, [rows, port.length]);
            (input(port.name), port.mask.map(input))
        };
        let tokens: Vec<_> = model.tokens().iter().map(read).collect();
        for (port, value) in model.text().iter().zip(model.encode(g, &tokens)) {
            g.output(port.name, &repeated(&value, repeat));
        }
    });
    for &kind in &form.functions {
        module.function(kind.function_name(), |g| {
            let x = g.input("latents", DType::F32, shape);
            let scale = guided.map(|guided| (guided, g.input("guidance_scale", DType::F32, [])));
            let embedded = model.embeds_guidance().then(|| g.input("guidance", DType::F32, []));
            let timestep = g.input("timestep", DType::F32, []);
            let text: Vec<Tensor> =
                model.text().iter().map(|port| text_input(g, port, halves * batch.images)).collect();
            let evaluate = |x: &Tensor, t: &Tensor| {
                let x = if scale.is_some() { guidance::both(x) } else { x.clone() };
                let each = |scalar: &Tensor| scalar.broadcast_to([x.size(0)]);
                let output = model.forward(g, &x, &each(t), &text, embedded.as_ref().map(each).as_ref());
                let output =
                    if form.noise == Noise::LearnedRange { output } else { step::first_channels(&output, channels) };
                let output = match &scale {
                    Some((guided, scale)) => guidance::combine(&output, guided.count(channels), scale),
                    None => output,
                };
                output.named("model_output")
            };
            step_body(g, &form, kind, &x, shape, |x, next| evaluate(x, next.unwrap_or(&timestep)));
        });
    }
    let mut tables = vec![TableDecl { name: "timestep".into(), ty: TensorType::new(DType::F32, []) }];
    tables.extend(sampler_tables(&form, shape));
    module.schedule(Schedule { condition: Some("condition".into()), ..schedule(&form, tables) });
    module.build()
}

fn text_input(g: &Graph, port: &TextPort, rows: usize) -> Tensor {
    let shape: Vec<usize> = [rows].into_iter().chain(port.row.iter().copied()).collect();
    g.input(port.name, port.dtype, shape)
}

/// Each row `times` times, one after the other.
fn repeated(rows: &Tensor, times: usize) -> Tensor {
    if times == 1 {
        return rows.clone();
    }
    let mut shape: Vec<usize> = (0..rows.rank()).map(|axis| rows.size(axis as isize)).collect();
    shape.insert(1, times);
    rows.unsqueeze(1).broadcast_to(shape).flatten(0, 1)
}

/// Adds the function `decode` to a sampling module, run after the last step: the carried `latents` of this type to `image`
/// [B, C, H, W].
///
/// # Errors
/// What the model code finds wrong; a weight that the module declares with another type.
pub fn add_decoder(
    module: &mut Module,
    latents: TensorType,
    stored: impl Fn(&str) -> Option<DType> + 'static,
    decode: impl FnOnce(&Graph, &Tensor) -> Tensor,
) -> Result<(), Diagnostics> {
    let mut decoder = ModuleBuilder::new("decoder").stored_as(stored);
    decoder.function("decode", |g| {
        let latents = g.input("latents", latents.dtype, latents.shape.clone());
        g.output("image", &decode(g, &latents));
    });
    for function in decoder.build()?.functions {
        module.add_function(function).map_err(|message| Diagnostic::new("M8", message))?;
    }
    module.schedule.decode = Some("decode".to_string());
    Ok(())
}

/// A module that steps with model outputs from a table `model_output` f32[B,K,H,W] instead of a model: what a sampler does
/// when the outputs are these.
///
/// # Errors
/// A sampler whose steps evaluate the model twice, or learned-range variance without channels for it.
pub fn recorded_module(
    name: &str,
    sampler: &Sampler,
    shape: [usize; 4],
    output_channels: usize,
) -> Result<Module, Diagnostics> {
    let form = sampler.form();
    let [batch, _, height, width] = shape;
    let output_ty = TensorType::new(DType::F32, [batch, output_channels, height, width]);
    let mut module = ModuleBuilder::new(name);
    for &kind in &form.functions {
        module.function(kind.function_name(), |g| {
            let x = g.input("latents", DType::F32, shape);
            let output = g.input("model_output", DType::F32, output_ty.shape.clone());
            step_body(g, &form, kind, &x, shape, |_, _| output.clone());
        });
    }
    let mut tables = vec![TableDecl { name: "model_output".into(), ty: output_ty }];
    tables.extend(sampler_tables(&form, shape));
    module.schedule(schedule(&form, tables));
    module.build()
}

/// The model on the (doubled) batch, guided.
#[track_caller]
fn evaluate(
    g: &Graph,
    model: &dyn Denoiser,
    guidance: Guidance,
    x: &Tensor,
    timestep: &Tensor,
    labels: &Tensor,
    scale: Option<&Tensor>,
) -> Tensor {
    let run = |x: &Tensor, labels: &Tensor| model.forward(g, x, &timestep.broadcast_to([x.size(0)]), labels);
    let channels = x.size(1);
    match (guidance, scale) {
        (Guidance::On { guided, null_class }, Some(scale)) => {
            let output = run(&guidance::both(x), &guidance::with_null(labels, null_class));
            guidance::combine(&output, guided.count(channels), scale)
        }
        (Guidance::Carried { guided }, Some(scale)) => {
            let [half, _] = x.chunk(0);
            let output = run(&guidance::both(&half), labels);
            guidance::combine_both(&output, guided.count(channels), scale)
        }
        (Guidance::Off, _) | (_, None) => run(x, labels),
    }
}

/// Inputs of the sampler, the step, and its outputs; `evaluate` gets the timestep of Heun's second evaluation.
fn step_body(
    g: &Graph,
    form: &StepForm,
    kind: StepKind,
    x: &Tensor,
    shape: [usize; 4],
    evaluate: impl Fn(&Tensor, Option<&Tensor>) -> Tensor,
) {
    let coefficients = g.input("coefficients", DType::F32, [Coefficients::COUNT]);
    match kind {
        StepKind::Affine => {
            let noise = (form.noise != Noise::None).then(|| g.input("noise", DType::F32, shape));
            let history: Vec<Tensor> =
                HISTORY[..form.history].iter().map(|name| g.input(name, DType::F32, shape)).collect();
            let output = evaluate(&step::model_input(form, x, &coefficients), None);
            let stepped = step::affine(form, x, &output, &coefficients, noise.as_ref(), &history);
            g.output("latents", &stepped.next);
            for (name, x0) in HISTORY.iter().zip(stepped.pred_xstart.iter().chain(&history).take(form.history)) {
                g.output(name, x0);
            }
            if let Some(x0) = &stepped.pred_xstart {
                g.output("pred_xstart", x0);
            }
        }
        StepKind::Heun => {
            let next = g.input("next_timestep", DType::F32, []);
            let x = step::heun(x, &coefficients, |x, second| evaluate(x, second.then_some(&next)));
            g.output("latents", &x);
        }
    }
}

fn sampler_tables(form: &StepForm, shape: [usize; 4]) -> Vec<TableDecl> {
    let table = |name: &str, ty| TableDecl { name: name.to_string(), ty };
    let mut tables = vec![table("coefficients", TensorType::new(DType::F32, [Coefficients::COUNT]))];
    if form.functions.contains(&StepKind::Heun) {
        tables.push(table("next_timestep", TensorType::new(DType::F32, [])));
    }
    if form.noise != Noise::None {
        tables.push(table("noise", TensorType::new(DType::F32, shape)));
    }
    tables
}

fn schedule(form: &StepForm, tables: Vec<TableDecl>) -> Schedule {
    Schedule {
        steps: Some(StepLoop {
            functions: form.functions.iter().map(|k| k.function_name().to_string()).collect(),
            carry: std::iter::once("latents")
                .chain(HISTORY[..form.history].iter().copied())
                .map(str::to_string)
                .collect(),
            tables,
            tabulate: None,
        }),
        trace: if form.predicts_x0 { vec!["pred_xstart".to_string()] } else { Vec::new() },
        ..Schedule::default()
    }
}
