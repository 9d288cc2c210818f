//! Models from folders, and from what is shipped.

use crate::checkpoint::{self, Checkpoint};
use crate::dit::{self, Dit};
use crate::files::{found, list, open_checkpoint, parse_json, read_json, text_field};
use crate::pipeline;
use crate::storage::Storage;
use crate::text_pipeline::{self, TextPipeline};
use crate::vae::{self, LoadedVae};
use selvedge_ir::module::WeightDecl;
use selvedge_ir::{DType, Diagnostic, Diagnostics, Shape, TensorType};
use selvedge_zoo::digits;
use selvedge_zoo::dit::{DitConfig, expected_weights};
use selvedge_zoo::guidance::Guided;
use selvedge_zoo::program::{Conditioning, Decoder, PipelineInfo, Program};
use selvedge_zoo::samplers::Sampler;
use selvedge_zoo::sampling::{Guidance, sampling_module};
use selvedge_zoo::vae::VaeConfig;
use serde_json::Value;
use std::path::Path;

/// Names of the models that come with the program.
pub const SHIPPED: [&str; 1] = ["digits"];

/// Classes of a `config.json` that can be loaded.
pub const CLASSES: [&str; 2] = ["DiT", "DiTTransformer2DModel"];

/// Classes that are components of pipelines, and what they are.
const COMPONENTS: [(&str, &str); 10] = [
    (vae::CLASS, "the autoencoder of a pipeline"),
    ("PixArtTransformer2DModel", "the network of a pipeline"),
    ("SD3Transformer2DModel", "the network of a pipeline"),
    ("FluxTransformer2DModel", "the network of a pipeline"),
    ("T5EncoderModel", "a text encoder"),
    ("CLIPTextModel", "a text encoder"),
    ("CLIPTextModelWithProjection", "a text encoder"),
    ("t5", "a text encoder"),
    ("clip_text_model", "a text encoder"),
    ("T5ForConditionalGeneration", "a text encoder"),
];

/// A model: what it is, its weights, and how it is sampled.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// Its name: the folder's, or the shipped one.
    pub name: String,
    /// What it is.
    pub architecture: Architecture,
    /// Its weights; they fit the architecture.
    pub checkpoint: Checkpoint,
    /// How it is sampled.
    pub sampling: Sampling,
    /// The autoencoder of a pipeline; its weights are in the checkpoint below [`vae::PREFIX`].
    pub vae: Option<VaeConfig>,
}

/// The architectures.
#[derive(Clone, Debug)]
pub enum Architecture {
    /// The class-conditional diffusion transformer, in both key layouts.
    Dit(DitConfig),
    /// A text-to-image pipeline.
    Text(Box<TextPipeline>),
}

/// How a model is sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// The sampler.
    pub sampler: Sampler,
    /// Steps of a run that does not say.
    pub default_steps: usize,
    /// Guidance of a run that does not say.
    pub default_guidance_scale: f64,
    /// Guided channels.
    pub guided: Guided,
    /// Guidance below 1 is raised to 1.
    pub guidance_floor: bool,
    /// Label of the unconditional evaluation; without one there is no guidance.
    pub null_class: Option<usize>,
    /// Values of black and white.
    pub pixel_range: [f64; 2],
    /// What turns latents into a picture.
    pub decoder: Decoder,
}

impl Sampling {
    /// The defaults of diffusers' DiTPipeline with a scheduler.
    pub fn diffusers(sampler: Sampler, null_class: Option<usize>, decoder: Decoder) -> Sampling {
        Sampling {
            sampler,
            default_steps: 50,
            default_guidance_scale: 4.0,
            guided: Guided::All,
            guidance_floor: true,
            null_class,
            pixel_range: [-1.0, 1.0],
            decoder,
        }
    }
}

/// What is chosen when a program is built.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgramOptions {
    /// Images made by one run.
    pub batch: usize,
    /// Another sampler than the model's own.
    pub sampler: Option<Sampler>,
    /// Evaluate with guidance (if the model has a null class, or takes a negative prompt).
    pub guidance: bool,
    /// Evaluate a negative prompt beside a guidance scale that the network takes as an input (FLUX).
    pub true_cfg: bool,
    /// Height and width of the pictures in pixels; absent: the model's own.
    pub size: Option<[usize; 2]>,
    /// Distinct prompts of a run; a divisor of `batch`.
    pub prompts: usize,
    /// Tokens of a prompt in T5; absent: as many as the reference pipeline takes.
    pub text_tokens: Option<usize>,
    /// PixArt samples at the trained size of the nearest aspect ratio and resizes the picture, as its pipelines do by default.
    pub resolution_binning: bool,
}

impl Default for ProgramOptions {
    fn default() -> ProgramOptions {
        ProgramOptions {
            batch: 1,
            sampler: None,
            guidance: true,
            true_cfg: false,
            size: None,
            prompts: 1,
            text_tokens: None,
            resolution_binning: true,
        }
    }
}

/// Loads a model by shipped name or folder: `config.json` with safetensors beside it (a fixture, the original layout, a
/// diffusers component), or a diffusers pipeline (`model_index.json`).
///
/// # Errors
/// Everything that is wrong with the configuration or, all together, with the checkpoint.
pub fn load(model: &str) -> Result<LoadedModel, Diagnostics> {
    if SHIPPED.contains(&model) { shipped_digits() } else { load_folder(Path::new(model)) }
}

/// Loads a model from a folder.
///
/// # Errors
/// As [`load`].
pub fn load_folder(folder: &Path) -> Result<LoadedModel, Diagnostics> {
    let shown = folder.display();
    if folder.is_file() {
        return Err(Diagnostic::new("import", format!("`{shown}` is a file"))
            .expected_found("a model folder or a shipped name", "a file")
            .help("give the folder that holds config.json and the weights")
            .into());
    }
    if !folder.exists() {
        return Err(Diagnostic::new("import", format!("there is no model `{shown}`"))
            .expected_found(format!("a folder or a shipped name ({})", SHIPPED.join(", ")), "neither")
            .into());
    }
    if folder.join("model_index.json").exists() {
        return pipeline::load(folder);
    }
    let config = folder.join("config.json");
    if !config.exists() {
        if let Some(adapter) = list(folder)?.iter().find(|p| is_adapter(p)) {
            return Err(checkpoint::lora(&format!("`{}`", adapter.display())).into());
        }
        let names = list(folder)?;
        let help = match names.iter().any(|p| p.ends_with("transformer")) {
            true => "fetch model_index.json, which says what the other folders are",
            false => "give the folder that holds one of these files",
        };
        return Err(Diagnostic::new("import", format!("`{shown}` is no model folder"))
            .expected_found("config.json with safetensors, or model_index.json", found(&names))
            .help(help)
            .into());
    }
    let json = read_json(&config)?;
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "model".into());
    let architecture = Architecture::read(&config.display().to_string(), &json)?;
    let sampling = architecture.sampling(&config.display().to_string(), &json)?;
    LoadedModel::new(name, architecture, open_checkpoint(folder)?, sampling)
}

/// A file that training tools give to low-rank adapters.
fn is_adapter(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    name == "adapter_config.json" || (name.contains("lora") && name.ends_with(".safetensors"))
}

fn shipped_digits() -> Result<LoadedModel, Diagnostics> {
    let json = parse_json("digits: config.json", digits::CONFIG)?;
    let architecture = Architecture::read("digits: config.json", &json)?;
    let sampling = architecture.sampling("digits: config.json", &json)?;
    let checkpoint = Checkpoint::new(vec![Storage::embedded("digits: model.safetensors", digits::MODEL)?])?;
    LoadedModel::new("digits".into(), architecture, checkpoint, sampling)
}

impl Architecture {
    /// Reads a `config.json` by its class.
    ///
    /// # Errors
    /// The class is missing or unknown, a field is missing or wrong.
    pub fn read(origin: &str, json: &Value) -> Result<Architecture, Diagnostic> {
        // Text encoders are written by a library that names classes elsewhere.
        let encoder = json.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
        let class = match (json.get("_class_name"), encoder.or_else(|| json.get("model_type").and_then(Value::as_str)))
        {
            (None, Some(encoder)) => encoder,
            (Some(_), _) | (None, None) => text_field(origin, json, "_class_name")?,
        };
        if !CLASSES.contains(&class) {
            let part = COMPONENTS.iter().find(|c| c.0 == class);
            return Err(Diagnostic::new("import", format!("`{origin}` is of no class that makes pictures alone"))
                .expected_found(CLASSES.join(" or "), format!("`{class}`"))
                .help(match part {
                    Some((_, what)) => {
                        format!("this is {what}: give the pipeline folder that holds it (with model_index.json)")
                    }
                    None => "this architecture is not supported yet".to_string(),
                }));
        }
        DitConfig::from_json(json).map(Architecture::Dit).map_err(|mut e| {
            e.message = format!("{} (in `{origin}`)", e.message);
            e
        })
    }
    fn sampling(&self, origin: &str, json: &Value) -> Result<Sampling, Diagnostic> {
        match self {
            Architecture::Dit(config) => dit::sampling(origin, json, config),
            Architecture::Text(_) => {
                Err(Diagnostic::new("import", format!("`{origin}` does not say how it is sampled")))
            }
        }
    }
    /// Names and types of all weights; dtypes are those of the checkpoint (f32 where it has none). Parts of a pipeline are compared
    /// one by one, when they are read.
    fn weights(&self, checkpoint: &Checkpoint) -> Result<Vec<WeightDecl>, Diagnostics> {
        match self {
            Architecture::Dit(config) => Ok(declared(expected_weights(config)?, checkpoint)),
            Architecture::Text(_) => Ok(Vec::new()),
        }
    }
    fn ignored(&self, name: &str) -> bool {
        match self {
            Architecture::Dit(config) => dit::ignored(config, name),
            Architecture::Text(_) => true,
        }
    }
    /// Channels of the latents.
    fn latent_channels(&self) -> usize {
        match self {
            Architecture::Dit(config) => config.in_channels,
            Architecture::Text(text) => text.latent_channels(),
        }
    }
}

/// Weights of a network with the dtypes of a checkpoint (f32 where it has none).
pub(crate) fn declared(weights: Vec<(String, Shape)>, checkpoint: &Checkpoint) -> Vec<WeightDecl> {
    let declare = |(name, shape): (String, Shape)| {
        let ty = TensorType { dtype: checkpoint.dtype(&name).unwrap_or(DType::F32), shape };
        WeightDecl { name, ty }
    };
    weights.into_iter().map(declare).collect()
}

impl LoadedModel {
    /// A model from its parts; the checkpoint is compared with the architecture.
    ///
    /// # Errors
    /// All differences together.
    pub fn new(
        name: String,
        architecture: Architecture,
        checkpoint: Checkpoint,
        sampling: Sampling,
    ) -> Result<LoadedModel, Diagnostics> {
        checkpoint.check(&architecture.weights(&checkpoint)?, |n| architecture.ignored(n))?;
        Ok(LoadedModel { name, architecture, checkpoint, sampling, vae: None })
    }
    /// The same with an autoencoder that turns its latents into pictures.
    ///
    /// # Errors
    /// Its latents are not the model's.
    pub fn with_vae(mut self, vae: LoadedVae) -> Result<LoadedModel, Diagnostics> {
        let channels = self.architecture.latent_channels();
        if vae.config.latent_channels != channels {
            let what = "the autoencoder's latents are not those of the transformer";
            return Err(Diagnostic::new("import", what)
                .expected_found(format!("{channels} channels"), vae.config.latent_channels)
                .into());
        }
        self.checkpoint = self.checkpoint.with_part(vae::PREFIX, &vae.checkpoint)?;
        self.sampling.decoder = Decoder::Autoencoder;
        self.sampling.pixel_range = [0.0, 1.0];
        self.vae = Some(vae.config);
        Ok(self)
    }
    /// Tells the dtype of each weight to a module builder.
    pub fn stored(&self) -> impl Fn(&str) -> Option<DType> + use<> {
        let checkpoint = self.checkpoint.clone();
        move |name| checkpoint.dtype(name)
    }
    /// The whole sampling program.
    ///
    /// # Errors
    /// A batch of 0, a size that the model does not make, texts that are too long; what the model code finds wrong.
    pub fn program(&self, options: &ProgramOptions) -> Result<Program, Diagnostics> {
        if options.batch == 0 {
            return Err(Diagnostic::new("import", "a program makes at least one image")
                .expected_found("a batch of 1 or more", 0)
                .into());
        }
        match &self.architecture {
            Architecture::Dit(config) => self.class_program(config, options),
            Architecture::Text(text) => text_pipeline::program(self, text, options),
        }
    }
    /// Height and width of the pictures that a program with these options makes, in pixels (of the latents where nothing decodes them).
    ///
    /// # Errors
    /// A size that the model does not make.
    pub fn pixels(&self, options: &ProgramOptions) -> Result<[usize; 2], Diagnostic> {
        match &self.architecture {
            Architecture::Text(text) => text_pipeline::pixels(self, text, options),
            Architecture::Dit(config) => {
                let pixels = config.input_size * self.vae.as_ref().map_or(1, VaeConfig::downscale);
                let own = [pixels; 2];
                let Some([height, width]) = options.size.filter(|&size| size != own) else { return Ok(own) };
                let message = format!("`{}` does not make pictures of {width}x{height}", self.name);
                Err(Diagnostic::new("size", message).help(format!("sizes it makes: {pixels}x{pixels}")))
            }
        }
    }
    fn class_program(&self, config: &DitConfig, options: &ProgramOptions) -> Result<Program, Diagnostics> {
        let s = &self.sampling;
        self.pixels(options)?;
        let sampler = options.sampler.clone().unwrap_or_else(|| s.sampler.clone());
        let guidance = match s.null_class.filter(|_| options.guidance) {
            Some(null_class) => Guidance::On { guided: s.guided, null_class },
            None => Guidance::Off,
        };
        let mut module = sampling_module(&self.name, &Dit(config), &sampler, guidance, options.batch, self.stored())?;
        let latent_shape = [config.in_channels, config.input_size, config.input_size];
        let image_shape = match &self.vae {
            None => (s.decoder == Decoder::Pixels).then_some(latent_shape),
            Some(vae) => {
                vae::add(&mut module, vae, options.batch, latent_shape, None, self.stored())?;
                let [_, height, width] = latent_shape.map(|n| n * vae.downscale());
                Some([vae.out_channels, height, width])
            }
        };
        let info = PipelineInfo {
            name: self.name.clone(),
            family: "dit".into(),
            batch: options.batch,
            latent_shape,
            image_shape,
            pixel_range: s.pixel_range,
            conditioning: Conditioning::Class {
                num_classes: config.num_classes,
                null_class: s.null_class.unwrap_or(config.num_classes),
            },
            guided: (guidance != Guidance::Off).then_some(s.guided),
            embedded_guidance: false,
            guidance_floor: s.guidance_floor,
            default_steps: s.default_steps,
            default_guidance_scale: if guidance == Guidance::Off { 1.0 } else { s.default_guidance_scale },
            sampler,
            decoder: s.decoder.clone(),
            packing: 1,
        };
        Ok(Program { module, info })
    }
}
