//! From a request for pictures to pixels: parts of a batch each, on any device.

use crate::error::Error;
use crate::event::{Event, Observer};
use crate::latents;
use crate::prompt::Tokenizers;
use crate::session::Session;
use selvedge_ir::interp::Run;
use selvedge_ir::{Diagnostic, Tensor};
use selvedge_zoo::program::{self, Conditioning, PipelineInfo, Request};
use std::ops::Range;

/// A request for pictures.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Order {
    /// Number of images.
    pub count: usize,
    /// Labels, repeated as often as needed; empty: the classes in turn.
    pub labels: Vec<usize>,
    /// Prompts of a text-to-image model, repeated as often as needed.
    pub prompts: Vec<String>,
    /// What pictures should not show; absent: the empty text.
    pub negative_prompt: Option<String>,
    /// Seed of all noise.
    pub seed: u64,
    /// First latents, one an image, instead of those of the seed.
    pub latents: Option<Tensor>,
    /// Steps; absent: the pipeline's default.
    pub steps: Option<usize>,
    /// Guidance scale; absent: the pipeline's default.
    pub guidance_scale: Option<f64>,
    /// Scale between prompt and negative prompt of a model that takes its guidance scale as an input.
    pub true_guidance_scale: Option<f64>,
}

/// The runs of an order.
#[derive(Debug, Default)]
pub struct Planned {
    /// Each with the number of its images that are wanted.
    pub runs: Vec<(Run, usize)>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Images of one size, values row-major [count, channels, height, width].
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// Number of images.
    pub count: usize,
    /// Channels, height and width.
    pub shape: [usize; 3],
    /// Values of black and white.
    pub range: [f32; 2],
    /// All values.
    pub values: Vec<f32>,
}

/// The runs that an order takes, with the number of images of each; fails before any work is done.
///
/// # Errors
/// A label that is no class, a label for a text-to-image model or a prompt for another, a bad number of steps, no images: see
/// [`program::request`].
pub fn plan(info: &PipelineInfo, tokenizers: &Tokenizers, order: &Order) -> Result<Planned, Error> {
    if order.count == 0 {
        return Err(Diagnostic::new("request", "no images are asked for").help("give a count of 1 or more").into());
    }
    let latents = order.latents.as_ref().map(|l| latents::fitting(info, l, order.count)).transpose()?;
    let mut planned = Planned::default();
    for first in (0..order.count).step_by(info.batch) {
        let count = info.batch.min(order.count - first);
        let mut request = Request {
            steps: order.steps,
            guidance_scale: order.guidance_scale,
            true_guidance_scale: order.true_guidance_scale,
            seed: order.seed,
            first_image: first as u64,
            latents: latents.as_ref().map(|all| latents::batch(info, all, first)),
            ..Request::default()
        };
        match &info.conditioning {
            Conditioning::Class { num_classes, .. } => {
                request.labels = labels(info, *num_classes, order, first..first + count)?
            }
            Conditioning::Text { prompts, .. } => {
                let texts = texts(info, *prompts, order, first)?;
                request.tokens = tokenizers.rows(info, &texts, &mut |warning| {
                    if !planned.warnings.contains(&warning) {
                        planned.warnings.push(warning);
                    }
                })?;
            }
        }
        planned.runs.push((program::request(info, &request)?, count));
    }
    Ok(planned)
}

/// Labels of some of the images.
fn labels(info: &PipelineInfo, classes: usize, order: &Order, images: Range<usize>) -> Result<Vec<usize>, Error> {
    if !order.prompts.is_empty() || order.negative_prompt.is_some() {
        let what = Diagnostic::new("prompt", format!("`{}` has no text encoder", info.name));
        return Err(what.help("choose a class with --label").into());
    }
    if let Some(&label) = order.labels.iter().find(|&&l| l >= classes) {
        let last = classes.saturating_sub(1);
        let what = Diagnostic::new("request", format!("label {label} is out of range for `{}`", info.name));
        return Err(what.expected_found(format!("a class from 0 to {last}"), label).into());
    }
    let label =
        |i: usize| if order.labels.is_empty() { i % classes.max(1) } else { order.labels[i % order.labels.len()] };
    Ok(images.map(label).collect())
}

/// The texts of a run whose first image is `first`: its prompts, and with guidance as many negative ones.
fn texts<'o>(info: &PipelineInfo, prompts: usize, order: &'o Order, first: usize) -> Result<Vec<&'o str>, Error> {
    if !order.labels.is_empty() {
        let what = Diagnostic::new("label", format!("`{}` takes a text, not a class", info.name));
        return Err(what.help("say what the picture shows with --prompt \"…\"").into());
    }
    if order.prompts.is_empty() {
        let what = Diagnostic::new("prompt", format!("`{}` makes pictures of a text, and none is given", info.name));
        return Err(what.help("say what the picture shows with --prompt \"…\"").into());
    }
    if let (Some(_), None) = (&order.negative_prompt, info.guided) {
        let what = Diagnostic::new("prompt", format!("`{}` reads no negative prompt", info.name));
        let help = match info.embedded_guidance || info.family == "flux" {
            true => {
                "its guidance is distilled into the network: add --true-cfg G (above 1) to evaluate the negative prompt beside"
            }
            false => "a negative prompt takes a guidance scale above 1",
        };
        return Err(what.help(help).into());
    }
    let each = info.batch / prompts.max(1);
    let of_image = |i: usize| order.prompts[i % order.prompts.len()].as_str();
    let mut texts = Vec::new();
    for row in 0..prompts {
        let images = first + row * each..(first + (row + 1) * each).min(order.count.max(first + row * each + 1));
        let text = of_image(images.start);
        if images.clone().any(|i| of_image(i) != text) {
            let what =
                Diagnostic::new("prompt", format!("`{}` is compiled for one prompt in {each} images", info.name));
            return Err(what.help("give one prompt a call, or compile with --batch 1").into());
        }
        texts.push(text);
    }
    if info.guided.is_some() {
        let negative = order.negative_prompt.as_deref().unwrap_or("");
        texts.extend(std::iter::repeat_n(negative, prompts));
    }
    Ok(texts)
}

/// Runs what was planned; gives the images, or the latents if the pipeline ends there.
///
/// # Errors
/// Whatever the device reports; a result that is not finite.
pub fn sample(
    session: &mut Session,
    info: &PipelineInfo,
    planned: &Planned,
    events: &mut Observer,
) -> Result<Images, Error> {
    let runs = &planned.runs;
    let wanted = runs.iter().map(|(_, count)| count).sum();
    let total: usize = runs.iter().map(|(run, _)| run.steps.len()).sum();
    let shape = info.image_shape.unwrap_or(info.latent_shape);
    let size: usize = shape.iter().product();
    let (mut values, mut done) = (Vec::with_capacity(wanted * size), 0);
    events(Event::Steps { done: 0, total: total as u64 });
    if runs.len() > 1 {
        session.keep_conditions();
    }
    for (run, count) in runs {
        let outputs = session.run(run, &mut |k| {
            events(Event::Steps { done: (done + k + 1) as u64, total: total as u64 });
        })?;
        done += run.steps.len();
        session.take_notes().into_iter().for_each(|note| events(Event::Note(note)));
        let result = outputs.outputs.get("image").or_else(|| outputs.outputs.get("latents"));
        let result: &Tensor = result.ok_or_else(|| {
            Error::Internal(Diagnostic::new("sample", "the program gives neither `image` nor `latents`"))
        })?;
        let all = result.to_f32();
        values.extend_from_slice(&all[..count * size]);
    }
    if let Some(at) = values.iter().position(|x| !x.is_finite()) {
        let message = format!("the result is not finite (image {}, value {})", at / size, values[at]);
        return Err(Error::device("health", message));
    }
    let range = info.pixel_range.map(|x| x as f32);
    Ok(Images { count: wanted, shape, range, values })
}
