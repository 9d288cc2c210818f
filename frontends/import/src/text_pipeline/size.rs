//! Sizes of pictures: what a pipeline makes, and PixArt's trained sizes.

use super::TextPipeline;
use crate::model::ProgramOptions;
use selvedge_ir::Diagnostic;
use selvedge_zoo::pipelines::TextModel;
use selvedge_zoo::vae::VaeConfig;

/// Pixels of a latent's element where a pipeline has no autoencoder that tells.
const DOWNSCALE: usize = 8;
/// Side of FLUX's latents by default.
const FLUX_SAMPLE_SIZE: usize = 128;

/// Height and width at each stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Of the latents.
    pub latent: [usize; 2],
    /// Of what the decoder makes of them.
    pub sampled: [usize; 2],
    /// Of the picture; it differs where PixArt samples at a trained size.
    pub picture: [usize; 2],
}

/// The sizes of a program.
///
/// # Errors
/// A size that the network's patches do not divide, or beyond its position table; the message names the nearest that fits.
pub fn choose(text: &TextPipeline, vae: Option<&VaeConfig>, options: &ProgramOptions) -> Result<Sizes, Diagnostic> {
    let downscale = vae.map_or(DOWNSCALE, VaeConfig::downscale);
    let own = downscale
        * match &text.model {
            TextModel::PixArt(model) => model.transformer.input_size,
            TextModel::Sd3(model) => model.transformer.sample_size,
            TextModel::Flux(_) => FLUX_SAMPLE_SIZE,
        };
    let picture = options.size.unwrap_or([own; 2]);
    let sampled = match &text.model {
        TextModel::PixArt(model) if options.resolution_binning => {
            trained(model.transformer.input_size, picture).unwrap_or(picture)
        }
        TextModel::PixArt(_) | TextModel::Sd3(_) | TextModel::Flux(_) => picture,
    };
    let step = downscale * text.patch();
    let most = match &text.model {
        TextModel::Sd3(model) => model.transformer.pos_embed_max_size * step,
        TextModel::PixArt(_) | TextModel::Flux(_) => 1 << 16,
    };
    if sampled.iter().any(|n| *n == 0 || !n.is_multiple_of(step) || *n > most) {
        let nearest = |n: usize| ((n + step / 2) / step * step).clamp(step, most / step * step);
        let [height, width] = sampled;
        return Err(Diagnostic::new("size", format!("the model does not make pictures of {width}x{height}"))
            .expected_found(format!("multiples of {step} up to {most} on both sides"), format!("{width}x{height}"))
            .help(format!("the nearest size is {}x{}", nearest(width), nearest(height))));
    }
    Ok(Sizes { latent: sampled.map(|n| n / downscale), sampled, picture })
}

/// The size on which a PixArt of this latent side was trained whose aspect ratio is nearest; `None` for a side without a table.
fn trained(sample_size: usize, [height, width]: [usize; 2]) -> Option<[usize; 2]> {
    let (table, factor): (&[Bin], usize) = match sample_size {
        32 => (&BINS_256, 1),
        64 => (&BINS_256, 2),
        128 => (&BINS_256, 4),
        256 => (&BINS_2048, 128),
        _ => return None,
    };
    let ratio = height as f64 / width as f64;
    // The first of several that are equally near.
    let mut best: Option<&Bin> = None;
    for bin in table {
        if best.is_none_or(|b| (bin.0 - ratio).abs() < (b.0 - ratio).abs()) {
            best = Some(bin);
        }
    }
    best.map(|&(_, height, width)| [height * factor, width * factor])
}

/// Aspect ratio (the table's own rounding), height and width.
type Bin = (f64, usize, usize);

/// Sizes of the models for 256 pixels; those for 512 and 1024 have twice and four times the sides (diffusers `ASPECT_RATIO_256_BIN` …).
const BINS_256: [Bin; 33] = [
    (0.25, 128, 512),
    (0.28, 128, 464),
    (0.32, 144, 448),
    (0.33, 144, 432),
    (0.35, 144, 416),
    (0.4, 160, 400),
    (0.42, 160, 384),
    (0.48, 176, 368),
    (0.5, 176, 352),
    (0.52, 176, 336),
    (0.57, 192, 336),
    (0.6, 192, 320),
    (0.68, 208, 304),
    (0.72, 208, 288),
    (0.78, 224, 288),
    (0.82, 224, 272),
    (0.88, 240, 272),
    (0.94, 240, 256),
    (1.0, 256, 256),
    (1.07, 256, 240),
    (1.13, 272, 240),
    (1.21, 272, 224),
    (1.29, 288, 224),
    (1.38, 288, 208),
    (1.46, 304, 208),
    (1.67, 320, 192),
    (1.75, 336, 192),
    (2.0, 352, 176),
    (2.09, 368, 176),
    (2.4, 384, 160),
    (2.5, 400, 160),
    (3.0, 432, 144),
    (4.0, 512, 128),
];

/// Sizes of the model for 2048 pixels, in units of 128 (diffusers `ASPECT_RATIO_2048_BIN`).
const BINS_2048: [Bin; 40] = [
    (0.25, 8, 32),
    (0.26, 8, 31),
    (0.27, 8, 30),
    (0.28, 8, 29),
    (0.32, 9, 28),
    (0.33, 9, 27),
    (0.35, 9, 26),
    (0.4, 10, 25),
    (0.42, 10, 24),
    (0.48, 11, 23),
    (0.5, 11, 22),
    (0.52, 11, 21),
    (0.57, 12, 21),
    (0.6, 12, 20),
    (0.68, 13, 19),
    (0.72, 13, 18),
    (0.78, 14, 18),
    (0.82, 14, 17),
    (0.88, 15, 17),
    (0.94, 15, 16),
    (1.0, 16, 16),
    (1.07, 16, 15),
    (1.13, 17, 15),
    (1.21, 17, 14),
    (1.29, 18, 14),
    (1.38, 18, 13),
    (1.46, 19, 13),
    (1.67, 20, 12),
    (1.75, 21, 12),
    (2.0, 22, 11),
    (2.09, 23, 11),
    (2.4, 24, 10),
    (2.5, 25, 10),
    (2.89, 26, 9),
    (3.0, 27, 9),
    (3.11, 28, 9),
    (3.62, 29, 8),
    (3.75, 30, 8),
    (3.88, 31, 8),
    (4.0, 32, 8),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_aspect_ratio_is_chosen() {
        assert_eq!(trained(64, [512, 512]), Some([512, 512]));
        assert_eq!(trained(64, [360, 640]), Some([384, 672]));
        assert_eq!(trained(128, [2000, 500]), Some([2048, 512]));
        assert_eq!(trained(256, [1024, 4096]), Some([1024, 4096]));
        assert_eq!(trained(8, [64, 64]), None);
    }
}
