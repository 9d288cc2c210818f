//! AutoencoderKL: the convolutional autoencoder of latent diffusion (Rombach et al., 2022), in the key layouts of diffusers and of the
//! original repository (LDM, which VA-VAE keeps).

pub mod config;
pub mod net;

pub use config::{VaeConfig, VaeLayout};
pub use net::{decode, encode, image_of_size, latents_to_image};

use selvedge_model::{DType, Diagnostics, ModuleBuilder, Shape};

/// A module with the function `decode`: `latent` f32 [batch, C, height, width] to `decoded` f32 [batch, out_channels, height·f, width·f]
/// (see [`decode`]). `stored` tells the checkpoint's dtypes.
///
/// # Errors
/// Everything that does not fit, with the place in the model's code.
pub fn decode_module(
    config: &VaeConfig,
    batch: usize,
    (height, width): (usize, usize),
    stored: impl Fn(&str) -> Option<DType> + 'static,
) -> Result<selvedge_ir::Module, Diagnostics> {
    let mut module = ModuleBuilder::new("vae").stored_as(stored);
    module.function("decode", |g| {
        let latent = g.input("latent", DType::F32, [batch, config.latent_channels, height, width]);
        g.output("decoded", &decode(&g.weights(), config, &latent));
    });
    module.build()
}

/// A module with the function `encode`: `image` f32 [batch, in_channels, height, width] to the posterior's `mean` and clamped `logvar`,
/// both also stacked as `moments`, and, `with_noise` (input `noise` of the latent's shape), `sample` = mean + exp(logvar/2)·noise.
///
/// # Errors
/// Everything that does not fit, with the place in the model's code.
pub fn encode_module(
    config: &VaeConfig,
    batch: usize,
    (height, width): (usize, usize),
    with_noise: bool,
    stored: impl Fn(&str) -> Option<DType> + 'static,
) -> Result<selvedge_ir::Module, Diagnostics> {
    let mut module = ModuleBuilder::new("vae").stored_as(stored);
    module.function("encode", |g| {
        let image = g.input("image", DType::F32, [batch, config.in_channels, height, width]);
        let latent = [batch, config.latent_channels, height / config.downscale(), width / config.downscale()];
        let noise = with_noise.then(|| g.input("noise", DType::F32, latent));
        let moments = encode(&g.weights(), config, &image);
        let [mean, logvar] = moments.chunk(1);
        g.output("moments", &moments);
        g.output("mean", &mean);
        g.output("logvar", &logvar);
        if let Some(noise) = noise {
            g.output("sample", &(&mean + (&logvar * 0.5).exp() * noise));
        }
    });
    module.build()
}

/// Names and shapes of all weights that decoding reads and, `with_encoder`, encoding too.
///
/// # Errors
/// K5 the configuration is impossible (one made by [`VaeConfig::from_json`] is not).
pub fn expected_weights(config: &VaeConfig, with_encoder: bool) -> Result<Vec<(String, Shape)>, Diagnostics> {
    let side = config.downscale();
    let mut weights = decode_module(config, 1, (1, 1), |_| None)?.weights;
    if with_encoder {
        weights.extend(encode_module(config, 1, (side, side), false, |_| None)?.weights);
    }
    Ok(weights.into_iter().map(|w| (w.name, w.ty.shape)).collect())
}
