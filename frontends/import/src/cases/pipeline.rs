//! Cases of text-to-image pipelines: the recorded call from the recorded latents to the picture.

use super::model::TRAJECTORY_TOLERANCE;
use super::sampler::recorded_noise;
use super::{CaseRun, Expected, Recorded, Source, once};
use crate::files::brief;
use crate::model::{LoadedModel, ProgramOptions};
use crate::packing;
use crate::text_pipeline::{PipelineClass, TextPipeline};
use selvedge_ir::interp::Run;
use selvedge_ir::{Diagnostic, Diagnostics, Tensor};
use selvedge_zoo::program::{Conditioning, PipelineInfo, Program, Request, TokenRows, request, run_of_plan};
use serde_json::Value;

/// Arguments that say nothing about the result, or are so by default.
const WITHOUT_EFFECT: [&str; 4] = ["generator", "output_type", "return_dict", "clean_caption"];

/// The recorded call (`call` of `case.json`).
struct Call<'a>(&'a Value);

impl Call<'_> {
    fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(Value::as_f64)
    }
    fn count(&self, name: &str) -> Option<usize> {
        self.0.get(name).and_then(Value::as_u64).map(|n| n as usize)
    }
    /// A text or a list of texts.
    fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Diagnostic> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(vec![text.clone()])),
            Some(other) => serde_json::from_value(other.clone()).map(Some).map_err(|_| {
                Diagnostic::new("case", format!("`{name}` of the recorded call has a wrong kind"))
                    .expected_found("a text or a list of texts", brief(other))
            }),
        }
    }
    /// Arguments that the run would not follow.
    fn check(&self, class: PipelineClass) -> Result<(), Diagnostic> {
        let known: &[&str] = match class {
            PipelineClass::PixArtAlpha | PipelineClass::PixArtSigma => &["negative_prompt", "use_resolution_binning"],
            PipelineClass::StableDiffusion3 => {
                &["negative_prompt", "prompt_2", "prompt_3", "negative_prompt_2", "negative_prompt_3"]
            }
            PipelineClass::Flux => &["negative_prompt", "prompt_2", "negative_prompt_2", "true_cfg_scale"],
        };
        let common = [
            "prompt",
            "guidance_scale",
            "num_inference_steps",
            "num_images_per_prompt",
            "height",
            "width",
            "max_sequence_length",
        ];
        let names = self.0.as_object().into_iter().flat_map(|o| o.keys()).map(String::as_str);
        let strange = |name: &&str| !common.contains(name) && !known.contains(name) && !WITHOUT_EFFECT.contains(name);
        match names.filter(|name| !self.0[*name].is_null()).find(strange) {
            None => Ok(()),
            Some(name) => {
                Err(Diagnostic::new("case", format!("the recorded call has an argument `{name}` that is not followed"))
                    .expected_found([&common[..], known].concat().join(", "), format!("`{name}`")))
            }
        }
    }
}

/// The recorded call: what the text encoders give, if that was recorded, and the picture.
pub(super) fn runs(
    model: &LoadedModel,
    text: &TextPipeline,
    case: &Value,
    recorded: &Recorded,
) -> Result<Vec<CaseRun>, Diagnostics> {
    let call = Call(case.get("call").unwrap_or(&Value::Null));
    call.check(text.class)?;
    let prompts = call.texts("prompt")?.ok_or_else(|| {
        Diagnostic::new("case", "`call` of case.json lacks `prompt`")
            .expected_found("a text or a list of texts", "none")
    })?;
    let scale = call.number("guidance_scale");
    let true_scale = call.number("true_cfg_scale").filter(|&s| s > 1.0 && call.0.get("negative_prompt").is_some());
    let options = ProgramOptions {
        batch: prompts.len() * call.count("num_images_per_prompt").unwrap_or(1),
        prompts: prompts.len(),
        guidance: scale.is_none_or(|s| s > 1.0),
        true_cfg: true_scale.is_some(),
        size: size(model, text, &call)?,
        text_tokens: call.count("max_sequence_length"),
        resolution_binning: call.0.get("use_resolution_binning") != Some(&Value::Bool(false)),
        ..ProgramOptions::default()
    };
    let program = model.program(&options)?;
    let info = &program.info;
    let tokens = tokens(text, info, &call, &prompts)?;
    let latents = latents(info, recorded)?;
    let asked = Request {
        steps: call.count("num_inference_steps"),
        // A scale that the network does not take is not looked at in the reference.
        guidance_scale: scale.filter(|_| info.embedded_guidance || (info.guided.is_some() && true_scale.is_none())),
        true_guidance_scale: true_scale,
        tokens,
        latents: Some(latents.to_f32()),
        ..Request::default()
    };
    let mut run = request(info, &asked)?;
    // Noise of the steps is recorded, too.
    let plan = info.sampler.plan(run.steps.len())?;
    let [c, h, w] = info.latent_shape;
    let shape = [info.batch, c, h, w];
    let noise = recorded_noise(recorded, "in.noise", &info.sampler, plan.steps(), shape)?;
    if !noise.is_empty() {
        let size: usize = shape.iter().product();
        let with_noise =
            run_of_plan(&info.sampler, &plan, shape, latents, |k| noise[k * size..(k + 1) * size].to_vec());
        run.tables.extend(with_noise.tables);
    }
    let source = match info.packing {
        1 => Source::Output("latents".into()),
        patch => Source::Packed("latents".into(), patch),
    };
    let mut expected = vec![recorded.expect("latents", source)?];
    if model.vae.is_some() {
        let image = recorded.expect("image", Source::Picture("image".into()))?;
        expected.push(image.map(|e| Expected { tolerance: TRAJECTORY_TOLERANCE, ..e }));
    }
    let expected = expected.into_iter().flatten().collect();
    let encoded = text_encoders(&program, model, &run, recorded)?;
    let sample =
        CaseRun { name: "sample".into(), module: program.module, weights: model.checkpoint.clone(), run, expected };
    Ok(encoded.into_iter().chain([sample]).collect())
}

/// The encoders alone, if what they give for the prompts or the negative prompts was recorded.
fn text_encoders(
    program: &Program,
    model: &LoadedModel,
    run: &Run,
    recorded: &Recorded,
) -> Result<Option<CaseRun>, Diagnostics> {
    let Some(condition) = &program.module.schedule.condition else { return Ok(None) };
    let mut expected = Vec::new();
    for (name, _) in program.module.function(condition).iter().flat_map(|f| f.outputs()) {
        let half = |first: usize| Source::Rows { name: name.to_string(), first, count: program.info.batch };
        expected.extend(recorded.expect(name, half(0))?);
        if program.info.guided.is_some() {
            expected.extend(recorded.expect(&format!("negative_{name}"), half(program.info.batch))?);
        }
    }
    if expected.is_empty() {
        return Ok(None);
    }
    let module = once(program.module.clone(), condition);
    let run = Run { inputs: run.inputs.clone(), ..Run::default() };
    Ok(Some(CaseRun { name: "condition".into(), module, weights: model.checkpoint.clone(), run, expected }))
}

/// Height and width of the call; FLUX's pipeline rounds them down.
fn size(model: &LoadedModel, text: &TextPipeline, call: &Call) -> Result<Option<[usize; 2]>, Diagnostic> {
    let (height, width) = (call.count("height"), call.count("width"));
    let Some(size) = height.or(width) else { return Ok(None) };
    let (Some(height), Some(width)) = (height, width) else {
        let what = Diagnostic::new("case", "the recorded call has one of `height` and `width`");
        return Err(what.expected_found("both", size));
    };
    let step = 2 * model.vae.as_ref().map_or(8, |vae| vae.downscale());
    Ok(Some(match text.class {
        PipelineClass::Flux => [height, width].map(|n| n / step * step),
        PipelineClass::PixArtAlpha | PipelineClass::PixArtSigma | PipelineClass::StableDiffusion3 => [height, width],
    }))
}

/// The call's texts as tokens: each encoder has its own prompt if the call gives one, else the first encoder's.
fn tokens(
    text: &TextPipeline,
    info: &PipelineInfo,
    call: &Call,
    prompts: &[String],
) -> Result<Vec<TokenRows>, Diagnostic> {
    let Conditioning::Text { inputs, preparation, .. } = &info.conditioning else { return Ok(Vec::new()) };
    let negative = call.texts("negative_prompt")?;
    let mut all = Vec::new();
    for input in inputs {
        let own = |name: &str| match input.tokenizer.strip_prefix("tokenizer_") {
            None => Ok(None),
            Some(number) => call.texts(&format!("{name}_{number}")),
        };
        let mut rows = own("prompt")?.unwrap_or_else(|| prompts.to_vec());
        if info.guided.is_some() {
            let texts = own("negative_prompt")?.or_else(|| negative.clone()).unwrap_or_else(|| vec![String::new()]);
            // One negative prompt is for all.
            rows.extend(
                (0..prompts.len()).map(|i| texts[if texts.len() == 1 { 0 } else { i.min(texts.len() - 1) }].clone()),
            );
        }
        let mut tokens = TokenRows::default();
        for row in &rows {
            let encoded = text.tokenizers[&input.tokenizer].encode(&preparation.apply(row), input.length)?;
            tokens.ids.extend(encoded.ids);
            tokens.mask.extend(encoded.mask);
        }
        all.push(tokens);
    }
    Ok(all)
}

/// The recorded first latents, unpacked where the reference packs them.
fn latents(info: &PipelineInfo, recorded: &Recorded) -> Result<Tensor, Diagnostic> {
    let latents = recorded.get("in.latents")?;
    let [c, h, w] = info.latent_shape;
    let shape = [info.batch, c, h, w];
    let unpacked = match info.packing {
        1 => Some(latents.clone()),
        patch => packing::unpack(&latents, patch, [h, w]),
    };
    unpacked.filter(|x| x.sizes() == shape).ok_or_else(|| {
        Diagnostic::new("case", "recorded tensor `in.latents` has another shape")
            .expected_found(format!("{shape:?}, packed by {}", info.packing), format!("{:?}", latents.sizes()))
    })
}
