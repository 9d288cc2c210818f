//! What can be loaded, by the classes of the reference implementations. README's table of models is made from this list and
//! from the recorded cases that prove each entry.

/// What a class is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pipeline of diffusers: a folder with `model_index.json`.
    Pipeline,
    /// A network that predicts noise or velocity.
    Transformer,
    /// A text encoder.
    TextEncoder,
    /// An autoencoder.
    Autoencoder,
    /// A sampler.
    Scheduler,
}

impl Kind {
    /// All, in the table's order.
    pub const ALL: [Kind; 5] =
        [Kind::Pipeline, Kind::Transformer, Kind::TextEncoder, Kind::Autoencoder, Kind::Scheduler];
    /// The kind in words.
    pub fn text(self) -> &'static str {
        match self {
            Kind::Pipeline => "pipeline",
            Kind::Transformer => "network",
            Kind::TextEncoder => "text encoder",
            Kind::Autoencoder => "autoencoder",
            Kind::Scheduler => "sampler",
        }
    }
}

/// A class that can be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its name in `_class_name`, `architectures` or an index.
    pub class: &'static str,
    /// The model.
    pub model: &'static str,
    /// What of it is there.
    pub what: &'static str,
}

const fn entry(kind: Kind, class: &'static str, model: &'static str, what: &'static str) -> Entry {
    Entry { kind, class, model, what }
}

/// Everything that can be loaded.
pub const ENTRIES: [Entry; 21] = [
    entry(Kind::Pipeline, "DiTPipeline", "DiT", "class to picture, guidance"),
    entry(
        Kind::Pipeline,
        "PixArtSigmaPipeline",
        "PixArt-Σ",
        "text to picture, negative prompt, trained sizes of an aspect ratio",
    ),
    entry(Kind::Pipeline, "PixArtAlphaPipeline", "PixArt-α", "the same with the picture's size as a condition"),
    entry(
        Kind::Pipeline,
        "StableDiffusion3Pipeline",
        "SD3, SD3.5",
        "text to picture, negative prompt, with or without T5",
    ),
    entry(Kind::Pipeline, "FluxPipeline", "FLUX.1 dev, schnell", "text to picture, distilled or true guidance"),
    entry(Kind::Transformer, "DiT", "DiT", "the original repository's layout"),
    entry(Kind::Transformer, "DiTTransformer2DModel", "DiT", "diffusers' layout"),
    entry(
        Kind::Transformer,
        "PixArtMS",
        "PixArt-Σ",
        "the original layout, KV compression, micro-conditioning, QK norm",
    ),
    entry(Kind::Transformer, "PixArtTransformer2DModel", "PixArt-α, -Σ", "diffusers' layout"),
    entry(
        Kind::Transformer,
        "SD3Transformer2DModel",
        "SD3, SD3.5",
        "MM-DiT, dual attention, QK norm, cropped positions",
    ),
    entry(
        Kind::Transformer,
        "FluxTransformer2DModel",
        "FLUX.1",
        "double and single blocks, rotary positions, guidance embedding",
    ),
    entry(Kind::TextEncoder, "T5EncoderModel", "T5 v1.1", "encoder, with or without mask"),
    entry(Kind::TextEncoder, "CLIPTextModel", "CLIP", "pooled and penultimate states"),
    entry(Kind::TextEncoder, "CLIPTextModelWithProjection", "CLIP", "the same, projected"),
    entry(Kind::Autoencoder, "AutoencoderKL", "SD, SDXL, SD3, FLUX, VA-VAE", "encode and decode; LDM's layout too"),
    entry(Kind::Scheduler, "DDPMScheduler", "DDPM", "all its variances but `learned`"),
    entry(Kind::Scheduler, "DDIMScheduler", "DDIM", "η, zero terminal SNR"),
    entry(
        Kind::Scheduler,
        "DPMSolverMultistepScheduler",
        "DPM-Solver++, SDE",
        "orders 1 to 3, Karras, λ and flow spacings",
    ),
    entry(Kind::Scheduler, "EulerDiscreteScheduler", "Euler", "Karras, exponential and β spacings"),
    entry(Kind::Scheduler, "FlowMatchEulerDiscreteScheduler", "flow matching", "static and dynamic shift"),
    entry(Kind::Scheduler, "SpacedDiffusion", "DiT's own loops", "DDPM and DDIM, learned variance"),
];

/// The classes of a kind.
pub fn classes(kind: Kind) -> Vec<&'static str> {
    ENTRIES.iter().filter(|e| e.kind == kind).map(|e| e.class).collect()
}
