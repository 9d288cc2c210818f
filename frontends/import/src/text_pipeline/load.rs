//! Reading a text-to-image pipeline's folder.

use super::{PipelineClass, TextPipeline};
use crate::checkpoint::Checkpoint;
use crate::files::text_field;
use crate::model::{Architecture, LoadedModel, Sampling, declared};
use crate::pipeline::Components;
use crate::tokenizer::{TextTokenizer, TokenizerKind};
use selvedge_ir::{Diagnostic, Diagnostics, Shape};
use selvedge_zoo::clip::{self, ClipTextConfig};
use selvedge_zoo::flux::{self, FluxConfig};
use selvedge_zoo::guidance::Guided;
use selvedge_zoo::pipelines::{FluxText, PixArtText, Sd3Text, TextModel};
use selvedge_zoo::pixart::{self, PixArtConfig};
use selvedge_zoo::sd3::{self, Sd3Config};
use selvedge_zoo::t5::{self, T5Config, TokenTable};
use serde_json::Value;
use std::collections::BTreeMap;

/// Loads the components of a pipeline; all but its autoencoder.
///
/// # Errors
/// A component that is missing or of another class, components that do not fit each other, and everything that is wrong with one.
pub fn load(name: String, parts: &Components, class: PipelineClass) -> Result<LoadedModel, Diagnostics> {
    let mut loader = Loader { parts, checkpoint: Checkpoint::default(), tokenizers: BTreeMap::new() };
    let (default_steps, default_guidance_scale, text_tokens) = class.defaults();
    let model = match class {
        PipelineClass::PixArtAlpha | PipelineClass::PixArtSigma => TextModel::PixArt(loader.pixart(text_tokens)?),
        PipelineClass::StableDiffusion3 => TextModel::Sd3(loader.sd3(text_tokens)?),
        PipelineClass::Flux => TextModel::Flux(loader.flux(text_tokens)?),
    };
    let Loader { checkpoint, tokenizers, .. } = loader;
    let text = TextPipeline { class, model, tokenizers };
    let sampling = Sampling {
        sampler: parts.sampler()?,
        default_steps,
        default_guidance_scale,
        guided: Guided::All,
        guidance_floor: true,
        null_class: None,
        pixel_range: [-1.0, 1.0],
        decoder: parts.no_decoder(text.latent_channels()),
    };
    text.sampler(&sampling.sampler, [text.patch(); 2])?; // a class that the pipeline cannot use is found now
    LoadedModel::new(name, Architecture::Text(Box::new(text)), checkpoint, sampling)
}

/// Names and shapes of a network's weights.
type Weights = Vec<(String, Shape)>;

struct Loader<'a> {
    parts: &'a Components<'a>,
    /// Weights of all components so far, each below its name.
    checkpoint: Checkpoint,
    tokenizers: BTreeMap<String, TextTokenizer>,
}

impl Loader<'_> {
    fn pixart(&mut self, text_tokens: usize) -> Result<PixArtText, Diagnostics> {
        self.tokenizer("tokenizer", TokenizerKind::T5)?;
        let t5 = self.t5("text_encoder")?;
        let transformer = self.network(
            "PixArtTransformer2DModel",
            PixArtConfig::from_json,
            pixart::expected_weights,
            pixart::ignored,
        )?;
        fits("the text encoder's features", t5.d_model, "caption_channels", transformer.caption_channels)?;
        Ok(PixArtText { t5, transformer, text_tokens, pixels: [0; 2] })
    }
    fn sd3(&mut self, text_tokens: usize) -> Result<Sd3Text, Diagnostics> {
        for name in ["tokenizer", "tokenizer_2"] {
            self.tokenizer(name, TokenizerKind::Clip)?;
        }
        let clip = [self.clip("text_encoder", true)?, self.clip("text_encoder_2", true)?];
        let t5 = match self.parts.class("text_encoder_3")? {
            None => None,
            Some(_) => {
                if !self.parts.folder.join("text_encoder_3").is_dir() {
                    let what =
                        format!("the component folder `{}/text_encoder_3` is missing", self.parts.folder.display());
                    return Err(Diagnostic::new("import", what)
                        .expected_found(format!("the T5EncoderModel that `{}` names", self.parts.origin), "no folder")
                        .help("fetch it, or do without: write [null, null] for text_encoder_3 and tokenizer_3 in model_index.json")
                        .into());
                }
                self.tokenizer("tokenizer_3", TokenizerKind::T5)?;
                Some(self.t5("text_encoder_3")?)
            }
        };
        let transformer =
            self.network("SD3Transformer2DModel", Sd3Config::from_json, sd3::expected_weights, |_, _| false)?;
        let pooled = clip.iter().map(|c| c.projection_dim.unwrap_or(0)).sum();
        fits(
            "the CLIP encoders' projections together",
            pooled,
            "pooled_projection_dim",
            transformer.pooled_projection_dim,
        )?;
        if let Some(t5) = &t5 {
            fits("text_encoder_3's features", t5.d_model, "joint_attention_dim", transformer.joint_attention_dim)?;
        }
        let features: usize = clip.iter().map(|c| c.hidden_size).sum();
        if features > transformer.joint_attention_dim || clip[0].max_positions != clip[1].max_positions {
            let what = Diagnostic::new("import", "the two CLIP encoders do not fit the transformer or each other");
            let expected = format!("at most {} features, equally many positions", transformer.joint_attention_dim);
            let found =
                format!("{features} features, {} and {} positions", clip[0].max_positions, clip[1].max_positions);
            return Err(what.expected_found(expected, found).into());
        }
        let clip_tokens = self.clip_tokens(&clip[0]);
        Ok(Sd3Text { clip, t5, transformer, clip_tokens, text_tokens })
    }
    fn flux(&mut self, text_tokens: usize) -> Result<FluxText, Diagnostics> {
        self.tokenizer("tokenizer", TokenizerKind::Clip)?;
        self.tokenizer("tokenizer_2", TokenizerKind::T5)?;
        let clip = self.clip("text_encoder", false)?;
        let t5 = self.t5("text_encoder_2")?;
        let transformer =
            self.network("FluxTransformer2DModel", FluxConfig::from_json, flux::expected_weights, |_, _| false)?;
        let c = &transformer;
        fits("text_encoder's features", clip.hidden_size, "pooled_projection_dim", c.pooled_projection_dim)?;
        fits("text_encoder_2's features", t5.d_model, "joint_attention_dim", c.joint_attention_dim)?;
        if !c.in_channels.is_multiple_of(4) || c.patch_size * c.patch_size * c.out_channels != c.in_channels {
            let what = Diagnostic::new("import", "the transformer's tokens are no packed latents of 2x2 pixels");
            let found = format!("{} in, {} out", c.in_channels, c.patch_size * c.patch_size * c.out_channels);
            return Err(what.expected_found("a multiple of 4 channels, as many in as out", found).into());
        }
        let clip_tokens = self.clip_tokens(&clip);
        Ok(FluxText { clip, t5, transformer, clip_tokens, text_tokens, latent: (2, 2) })
    }

    /// Tokens of a text in CLIP: as the first tokenizer says, at most the encoder's positions.
    fn clip_tokens(&self, clip: &ClipTextConfig) -> usize {
        let told = self.tokenizers.get("tokenizer").and_then(|t| t.model_max_length);
        told.map_or(clip.max_positions, |n| n.min(clip.max_positions))
    }
    fn tokenizer(&mut self, name: &str, kind: TokenizerKind) -> Result<(), Diagnostics> {
        let class = self.parts.required(name)?;
        let fitting = match kind {
            TokenizerKind::Clip => ["CLIPTokenizer", "CLIPTokenizerFast"],
            TokenizerKind::T5 => ["T5Tokenizer", "T5TokenizerFast"],
        };
        self.expect_class(name, class, &fitting)?;
        let tokenizer = TextTokenizer::open(&self.parts.folder.join(name), kind)?;
        self.tokenizers.insert(name.to_string(), tokenizer);
        Ok(())
    }
    fn clip(&mut self, name: &str, projected: bool) -> Result<ClipTextConfig, Diagnostics> {
        let class = if projected { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
        self.expect_class(name, self.parts.required(name)?, &[class])?;
        let (folder, mut json) = self.parts.model(name)?;
        json["_class_name"] = Value::from(class); // the index decides, as in diffusers
        let checkpoint = self.parts.checkpoint(&folder)?;
        let config = read(name, ClipTextConfig::from_json(&json))?.named_as_in(|n| checkpoint.shape(n).is_some());
        self.add(name, checkpoint, clip::expected_weights(&config)?, |n| {
            ClipTextConfig::ignores(n) || (!projected && n == "text_projection.weight")
        })?;
        Ok(config)
    }
    fn t5(&mut self, name: &str) -> Result<T5Config, Diagnostics> {
        self.expect_class(name, self.parts.required(name)?, &["T5EncoderModel"])?;
        let (folder, json) = self.parts.model(name)?;
        let checkpoint = self.parts.checkpoint(&folder)?;
        let mut config = read(name, T5Config::from_json(&json))?;
        config.token_table = TokenTable::among(|n| checkpoint.shape(n).is_some());
        self.add(name, checkpoint, t5::expected_weights(&config)?, |n| t5::ignored(&config, n))?;
        Ok(config)
    }
    /// The component `transformer`.
    fn network<C>(
        &mut self,
        class: &str,
        from_json: fn(&Value) -> Result<C, Diagnostic>,
        weights: fn(&C) -> Result<Weights, Diagnostics>,
        ignored: fn(&C, &str) -> bool,
    ) -> Result<C, Diagnostics> {
        let name = "transformer";
        let (folder, json) = self.parts.model(name)?;
        let found = text_field(&folder.join("config.json").display().to_string(), &json, "_class_name")?;
        self.expect_class(name, found, &[class])?;
        let config = read(name, from_json(&json))?;
        let checkpoint = self.parts.checkpoint(&folder)?;
        self.add(name, checkpoint, weights(&config)?, |n| ignored(&config, n))?;
        Ok(config)
    }
    /// Compares a component's checkpoint with its network, and keeps its weights below its name.
    fn add(
        &mut self,
        name: &str,
        checkpoint: Checkpoint,
        weights: Weights,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<(), Diagnostics> {
        checkpoint.check(&declared(weights, &checkpoint), ignored)?;
        self.checkpoint = self.checkpoint.with_part(name, &checkpoint)?;
        Ok(())
    }
    fn expect_class(&self, name: &str, found: &str, expected: &[&str]) -> Result<(), Diagnostic> {
        if expected.contains(&found) {
            return Ok(());
        }
        Err(Diagnostic::new("import", format!("the component `{name}` of `{}` is of another class", self.parts.origin))
            .expected_found(expected.join(" or "), format!("`{found}`"))
            .help("this combination is not supported"))
    }
}

/// A configuration, with its component in its error.
fn read<C>(name: &str, config: Result<C, Diagnostic>) -> Result<C, Diagnostic> {
    config.map_err(|mut e| {
        e.message = format!("{} (in `{name}/config.json`)", e.message);
        e
    })
}

/// Sizes of two components that have to be equal.
fn fits(what: &str, found: usize, field: &str, expected: usize) -> Result<(), Diagnostic> {
    if found == expected {
        return Ok(());
    }
    Err(Diagnostic::new("import", format!("{what} do not fit the transformer"))
        .expected_found(format!("{expected} (`{field}`)"), found)
        .help("the folders are of different models"))
}
