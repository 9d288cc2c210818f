//! Text-to-image pipelines: text encoders, tokenizers, transformer and scheduler of a diffusers folder, and the program for a size.

mod load;
mod size;

pub use load::load;

use crate::model::{LoadedModel, ProgramOptions};
use crate::tokenizer::TextTokenizer;
use crate::vae;
use selvedge_ir::{Diagnostic, Diagnostics};
use selvedge_zoo::guidance::Guided;
use selvedge_zoo::pipelines::{TextModel, flux};
use selvedge_zoo::program::{Conditioning, PipelineInfo, Preparation, Program, TokenInput};
use selvedge_zoo::samplers::Sampler;
use selvedge_zoo::sampling::{TextBatch, TokenPort, text_module};
use selvedge_zoo::vae::VaeConfig;
use std::collections::BTreeMap;

/// Tokens of a text that a pipeline of FLUX or SD3 takes at most.
const MOST_TEXT_TOKENS: usize = 512;

/// The pipeline classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineClass {
    /// `PixArtAlphaPipeline`.
    PixArtAlpha,
    /// `PixArtSigmaPipeline`.
    PixArtSigma,
    /// `StableDiffusion3Pipeline`.
    StableDiffusion3,
    /// `FluxPipeline`.
    Flux,
}

impl PipelineClass {
    /// The class of this name in `model_index.json`.
    pub fn named(name: &str) -> Option<PipelineClass> {
        Some(match name {
            "PixArtAlphaPipeline" => PipelineClass::PixArtAlpha,
            "PixArtSigmaPipeline" => PipelineClass::PixArtSigma,
            "StableDiffusion3Pipeline" => PipelineClass::StableDiffusion3,
            "FluxPipeline" => PipelineClass::Flux,
            _ => return None,
        })
    }
    /// Steps, guidance scale and T5 tokens of a call that does not say.
    fn defaults(self) -> (usize, f64, usize) {
        match self {
            PipelineClass::PixArtAlpha => (20, 4.5, 120),
            PipelineClass::PixArtSigma => (20, 4.5, 300),
            PipelineClass::StableDiffusion3 => (28, 7.0, 256),
            PipelineClass::Flux => (28, 3.5, 512),
        }
    }
    fn family(self) -> &'static str {
        match self {
            PipelineClass::PixArtAlpha | PipelineClass::PixArtSigma => "pixart",
            PipelineClass::StableDiffusion3 => "sd3",
            PipelineClass::Flux => "flux",
        }
    }
}

/// A text-to-image pipeline without its weights.
#[derive(Clone, Debug)]
pub struct TextPipeline {
    /// Its class.
    pub class: PipelineClass,
    /// Text encoders and network.
    pub model: TextModel,
    /// Tokenizers, by component.
    pub tokenizers: BTreeMap<String, TextTokenizer>,
}

impl TextPipeline {
    /// Channels of a latent.
    pub fn latent_channels(&self) -> usize {
        match &self.model {
            TextModel::PixArt(model) => model.transformer.in_channels,
            TextModel::Sd3(model) => model.transformer.in_channels,
            TextModel::Flux(model) => model.transformer.in_channels / (flux::PACKING * flux::PACKING),
        }
    }
    /// Pixels of a latent that one token of the network covers on a side.
    fn patch(&self) -> usize {
        match &self.model {
            TextModel::PixArt(model) => model.transformer.patch_size,
            TextModel::Sd3(model) => model.transformer.patch_size,
            TextModel::Flux(_) => flux::PACKING,
        }
    }
    /// The sampler for latents of a size: flow matching shifts its steps by the number of image tokens.
    fn sampler(&self, sampler: &Sampler, [height, width]: [usize; 2]) -> Result<Sampler, Diagnostic> {
        let tokens = (height / self.patch()) * (width / self.patch());
        match (self.class, sampler) {
            (_, Sampler::FlowMatchEuler(flow)) => {
                let mu = flow.use_dynamic_shifting.then(|| flow.mu_for_tokens(tokens));
                let sigmas_by_steps = self.class == PipelineClass::Flux;
                Ok(Sampler::FlowMatchEuler(selvedge_zoo::samplers::FlowMatchEuler {
                    mu,
                    sigmas_by_steps,
                    ..flow.clone()
                }))
            }
            (PipelineClass::Flux, _) => Err(Diagnostic::new(
                "sampler",
                "FLUX gives its sampler the noise levels of a run, which this one does not take",
            )
            .expected_found("FlowMatchEulerDiscreteScheduler", "another class")
            .help("choose it in scheduler_config.json and model_index.json")),
            (_, other) => Ok(other.clone()),
        }
    }
}

/// Height and width of its pictures.
pub(crate) fn pixels(
    model: &LoadedModel,
    text: &TextPipeline,
    options: &ProgramOptions,
) -> Result<[usize; 2], Diagnostic> {
    size::choose(text, model.vae.as_ref(), options).map(|size| size.picture)
}

/// The sampling program of a loaded pipeline.
pub(crate) fn program(
    model: &LoadedModel,
    text: &TextPipeline,
    options: &ProgramOptions,
) -> Result<Program, Diagnostics> {
    let (batch, prompts) = (options.batch, options.prompts);
    if prompts == 0 || !batch.is_multiple_of(prompts) {
        return Err(Diagnostic::new("import", "each prompt of a run makes equally many images")
            .expected_found(format!("a divisor of {batch} (the batch)"), prompts)
            .into());
    }
    let s = &model.sampling;
    let (default_steps, default_guidance_scale, default_tokens) = text.class.defaults();
    let text_tokens = options.text_tokens.unwrap_or(default_tokens);
    let limited = matches!(text.class, PipelineClass::StableDiffusion3 | PipelineClass::Flux);
    if text_tokens == 0 || (limited && text_tokens > MOST_TEXT_TOKENS) {
        return Err(Diagnostic::new("import", "the number of text tokens is out of range")
            .expected_found(format!("1 to {MOST_TEXT_TOKENS}"), text_tokens)
            .into());
    }
    let size = size::choose(text, model.vae.as_ref(), options)?;
    let latent_shape = [text.latent_channels(), size.latent[0], size.latent[1]];
    let sampler = text.sampler(options.sampler.as_ref().unwrap_or(&s.sampler), size.latent)?;
    let sized = sized(text, &size, text_tokens);
    let denoiser = sized.denoiser();
    let classifier_free = match text.class {
        PipelineClass::Flux => options.true_cfg,
        PipelineClass::PixArtAlpha | PipelineClass::PixArtSigma | PipelineClass::StableDiffusion3 => options.guidance,
    };
    let guided = classifier_free.then_some(Guided::All);
    let parts = TextBatch { images: batch, prompts, latent: latent_shape };
    let mut module = text_module(&model.name, denoiser, &sampler, guided, parts, model.stored())?;
    let image_shape = match &model.vae {
        None => None,
        Some(vae) => {
            vae::add(&mut module, &decoder(text, vae), batch, latent_shape, Some(size.picture), model.stored())?;
            Some([vae.out_channels, size.picture[0], size.picture[1]])
        }
    };
    let inputs = denoiser.tokens().into_iter().map(|port| token_input(text, port));
    let info = PipelineInfo {
        name: model.name.clone(),
        family: text.class.family().into(),
        batch,
        latent_shape,
        image_shape,
        pixel_range: s.pixel_range,
        conditioning: Conditioning::Text {
            prompts,
            inputs: inputs.collect::<Result<_, Diagnostic>>()?,
            preparation: match text.class {
                PipelineClass::PixArtAlpha | PipelineClass::PixArtSigma => Preparation::LowerTrim,
                PipelineClass::StableDiffusion3 | PipelineClass::Flux => Preparation::None,
            },
        },
        guided,
        embedded_guidance: denoiser.embeds_guidance(),
        guidance_floor: true,
        default_steps,
        default_guidance_scale: match guided.is_some() || denoiser.embeds_guidance() {
            true => default_guidance_scale,
            false => 1.0,
        },
        sampler,
        decoder: s.decoder.clone(),
        packing: if text.class == PipelineClass::Flux { flux::PACKING } else { 1 },
    };
    Ok(Program { module, info })
}

/// The network for a size.
fn sized(text: &TextPipeline, size: &size::Sizes, text_tokens: usize) -> TextModel {
    let model = text.model.clone().sized((size.latent[0], size.latent[1]), text_tokens);
    match model {
        TextModel::PixArt(mut model) => {
            model.pixels = size.sampled;
            TextModel::PixArt(model)
        }
        other @ (TextModel::Sd3(_) | TextModel::Flux(_)) => other,
    }
}

/// The autoencoder as the pipeline uses it: PixArt's do not add the shift.
fn decoder(text: &TextPipeline, vae: &VaeConfig) -> VaeConfig {
    let shift_factor = match text.class {
        PipelineClass::PixArtAlpha | PipelineClass::PixArtSigma => 0.0,
        PipelineClass::StableDiffusion3 | PipelineClass::Flux => vae.shift_factor,
    };
    VaeConfig { shift_factor, ..vae.clone() }
}

fn token_input(text: &TextPipeline, port: TokenPort) -> Result<TokenInput, Diagnostic> {
    let tokenizer = text
        .tokenizers
        .get(port.tokenizer)
        .ok_or_else(|| Diagnostic::new("tokenizer", format!("the pipeline has no `{}`", port.tokenizer)))?;
    Ok(TokenInput {
        name: port.name.into(),
        mask: port.mask.map(str::to_string),
        length: port.length,
        vocab_size: port.vocab_size,
        tokenizer: port.tokenizer.into(),
        pad_id: tokenizer.pad_id,
    })
}
