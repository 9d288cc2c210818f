//! From a request for pictures to pixels: parts of a batch each, on any device.

use crate::error::Error;
use crate::event::{Event, Observer};
use crate::session::Session;
use selvedge_ir::interp::Run;
use selvedge_ir::{Diagnostic, Tensor};
use selvedge_zoo::program::{self, PipelineInfo, Request};

/// A request for pictures.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Order {
    /// Number of images.
    pub count: usize,
    /// Labels, repeated as often as needed; empty: the classes in turn.
    pub labels: Vec<usize>,
    /// Seed of all noise.
    pub seed: u64,
    /// Steps; absent: the pipeline's default.
    pub steps: Option<usize>,
    /// Guidance scale; absent: the pipeline's default.
    pub guidance_scale: Option<f64>,
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
/// A label that is no class, a bad number of steps, no images: see [`program::request`].
pub fn plan(info: &PipelineInfo, order: &Order) -> Result<Vec<(Run, usize)>, Error> {
    if order.count == 0 {
        return Err(Diagnostic::new("request", "no images are asked for").help("give a count of 1 or more").into());
    }
    if let Some(&label) = order.labels.iter().find(|&&l| l >= info.num_classes) {
        let last = info.num_classes.saturating_sub(1);
        let what = Diagnostic::new("request", format!("label {label} is out of range for `{}`", info.name));
        return Err(what.expected_found(format!("a class from 0 to {last}"), label).into());
    }
    let classes: Vec<usize> = (0..info.num_classes).collect();
    let labels = if order.labels.is_empty() { &classes } else { &order.labels };
    let mut runs = Vec::new();
    for first in (0..order.count).step_by(info.batch) {
        let count = info.batch.min(order.count - first);
        let request = Request {
            steps: order.steps,
            guidance_scale: order.guidance_scale,
            labels: (first..first + count).map(|i| labels[i % labels.len()]).collect(),
            seed: order.seed,
            first_image: first as u64,
            trace: Vec::new(),
        };
        runs.push((program::request(info, &request)?, count));
    }
    Ok(runs)
}

/// Runs an order; gives the images, or the latents if the pipeline ends there.
///
/// # Errors
/// As [`plan`], and whatever the device reports.
pub fn sample(
    session: &mut Session,
    info: &PipelineInfo,
    order: &Order,
    events: &mut Observer,
) -> Result<Images, Error> {
    let runs = plan(info, order)?;
    let total: usize = runs.iter().map(|(run, _)| run.steps.len()).sum();
    let shape = info.image_shape.unwrap_or(info.latent_shape);
    let size: usize = shape.iter().product();
    let (mut values, mut done) = (Vec::with_capacity(order.count * size), 0);
    events(Event::Steps { done: 0, total: total as u64 });
    for (run, count) in &runs {
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
    Ok(Images { count: order.count, shape, range, values })
}

/// Latents as a safetensors file with one tensor, `latents` f32 [count, channels, height, width].
pub fn latents_file(images: &Images) -> Vec<u8> {
    let [c, h, w] = images.shape;
    let header = serde_json::json!({"latents": {
        "dtype": "F32", "shape": [images.count, c, h, w], "data_offsets": [0, images.values.len() * 4],
    }});
    let mut text = header.to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend(text.bytes());
    file.extend(images.values.iter().flat_map(|x| x.to_le_bytes()));
    file
}
