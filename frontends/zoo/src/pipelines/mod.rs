//! Text-to-image models: text encoders and network together, as diffusers' pipelines connect them. Weights of a component have its
//! name before theirs: `text_encoder.…`, `transformer.…`.

pub mod flux;
pub mod pixart;
pub mod sd3;

pub use flux::FluxText;
pub use pixart::PixArtText;
pub use sd3::Sd3Text;

use crate::sampling::TextDenoiser;

/// The text-to-image models.
#[derive(Clone, Debug, PartialEq)]
pub enum TextModel {
    /// PixArt-Σ and PixArt-α.
    PixArt(PixArtText),
    /// Stable Diffusion 3 and 3.5.
    Sd3(Sd3Text),
    /// FLUX.1.
    Flux(FluxText),
}

impl TextModel {
    /// The model as the samplers see it.
    pub fn denoiser(&self) -> &dyn TextDenoiser {
        match self {
            TextModel::PixArt(model) => model,
            TextModel::Sd3(model) => model,
            TextModel::Flux(model) => model,
        }
    }
    /// The same for pictures whose latents are of this size, and texts of this many tokens (of the encoder that has a choice).
    pub fn sized(self, latent: (usize, usize), text_tokens: usize) -> TextModel {
        match self {
            TextModel::PixArt(model) => TextModel::PixArt(PixArtText { text_tokens, ..model }),
            TextModel::Sd3(model) => TextModel::Sd3(Sd3Text { text_tokens, ..model }),
            TextModel::Flux(model) => TextModel::Flux(FluxText { text_tokens, latent, ..model }),
        }
    }
}
