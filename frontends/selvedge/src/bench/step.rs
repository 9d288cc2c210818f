//! Sampling programs to measure: the first step of each, guidance and the sampler's arithmetic included.

use super::subject::{Program, Subject};
use super::{Request, What};
use crate::error::Error;
use crate::weights::Cached;
use selvedge_import::dit::{Dit, sampling};
use selvedge_import::model::Sampling;
use selvedge_import::{LoadedModel, ProgramOptions};
use selvedge_ir::{DType, Diagnostic, Module};
use selvedge_zoo::dit::DitConfig;
use selvedge_zoo::sampling::{Guidance, sampling_module};
use serde_json::json;
use std::sync::Arc;

/// A class-conditional transformer at a size of its latents, sampled as its repository does unless `sampling` says otherwise.
///
/// # Errors
/// A size that is no square; what the model code finds wrong.
pub(super) fn dit(
    request: &Request,
    config: DitConfig,
    [height, width]: [usize; 2],
    own: Option<Sampling>,
    program: Program,
    stored: impl Fn(&str) -> Option<DType> + 'static,
) -> Result<Subject, Error> {
    if height != width {
        let what = Diagnostic::new("bench", format!("`{}` samples squares", request.model));
        let what = what.expected_found("a square size", format!("{width}x{height}"));
        return Err(what.help("`--what forward` measures the network at this size").into());
    }
    let config = DitConfig { input_size: height, ..config };
    let sampling = own.map_or_else(|| sampling(&request.model, &json!({}), &config), Ok)?;
    let batch = request.batch.unwrap_or(if sampling.null_class.is_some() { 2 } else { 1 });
    let (guidance, images) = match sampling.null_class {
        Some(null_class) if batch.is_multiple_of(2) => {
            (Guidance::On { guided: sampling.guided, null_class }, batch / 2)
        }
        Some(_) | None => (Guidance::Off, batch),
    };
    let module = sampling_module(&request.model, &Dit(&config), &sampling.sampler, guidance, images, stored)?;
    subject(module, program, batch, images, [height, width])
}

/// A text-to-image pipeline with its encoders and its decoder; the size is the picture's, in pixels.
///
/// # Errors
/// A forward is asked for; what the model code finds wrong.
pub(super) fn text(request: &Request, model: LoadedModel) -> Result<Subject, Error> {
    if request.what == Some(What::Forward) {
        let what = Diagnostic::new("bench", format!("`{}` is a pipeline: what it has are steps", request.model));
        return Err(what.help("presets measure a forward of its network").into());
    }
    let options = ProgramOptions { size: request.size, ..ProgramOptions::default() };
    let one = model.program(&options)?;
    let halves = if one.info.guided.is_some() { 2 } else { 1 };
    let batch = request.batch.unwrap_or(halves);
    let guidance = batch.is_multiple_of(halves);
    let images = if guidance { batch / halves } else { batch };
    let program = if images == 1 && guidance {
        one
    } else {
        model.program(&ProgramOptions { batch: images, guidance, ..options })?
    };
    let [_, height, width] = program.info.image_shape.unwrap_or(program.info.latent_shape);
    let weights = Program::Weights(Arc::new(Cached::new(model.checkpoint)));
    subject(program.module, weights, batch, images, [height, width])
}

fn subject(
    module: Module,
    program: Program,
    batch: usize,
    images: usize,
    [height, width]: [usize; 2],
) -> Result<Subject, Error> {
    let step = module.schedule.steps.iter().flat_map(|s| &s.functions).next().cloned();
    let function = step.ok_or_else(|| Diagnostic::new("bench", "the program has no steps"))?;
    let size = format!("{width}x{height}");
    Ok(Subject { what: What::Step, module, function, program, batch, images: Some(images), size })
}
