//! Models of published sizes with random weights, to measure and to plan with: no checkpoint is needed.

use crate::error::Error;
use selvedge_ir::{Diagnostic, Module};
use selvedge_zoo::dit::{self, DitConfig};
use selvedge_zoo::flux::{self, FluxConfig};
use selvedge_zoo::pixart::{self, CallSize, PixArtConfig};
use selvedge_zoo::sd3::{self, Sd3Config};
use selvedge_zoo::vae::{self, VaeConfig};

/// What a preset may be told; what is absent is as published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Samples in a forward; 1 if absent.
    pub batch: Option<usize>,
    /// Height and width of the picture in pixels; for `dit-*`, sizes below 256 are the latents'.
    pub size: Option<[usize; 2]>,
    /// Only so many transformer blocks. FLUX's are shared out as in the whole model, one double for two single ones.
    pub blocks: Option<usize>,
    /// Text tokens (300 in PixArt-Σ, 333 in SD3, 512 in FLUX.1); for `dit-*`, a square grid of patches instead of a size.
    pub tokens: Option<usize>,
}

/// A preset's module.
pub struct Preset {
    /// With one function.
    pub module: Module,
    /// Its name.
    pub function: &'static str,
    /// Samples in a forward.
    pub batch: usize,
    /// Height and width: of the picture, or as given.
    pub size: [usize; 2],
}

/// Names of presets, for people. Others of the same families are known, too: `dit-b-4`, `pixart-sigma-1024`, `flux-schnell`, `vae-decode-sd3` …
pub const NAMES: [&str; 9] = [
    "dit-s-2",
    "dit-b-2",
    "dit-l-2",
    "dit-xl-2",
    "pixart-sigma",
    "sd3.5-medium",
    "flux-dev",
    "vae-decode",
    "attention",
];

/// Pixels of a picture a side of a latent's element, in all published models of these families.
const DOWNSCALE: usize = 8;

/// A preset by name; `None` for a name that is none.
///
/// # Errors
/// A size that the model cannot have; blocks of a model that has none.
pub fn preset(name: &str, options: &Options) -> Option<Result<Preset, Error>> {
    let batch = options.batch.unwrap_or(1);
    let stored = |_: &str| None;
    let size = |default: usize| options.size.unwrap_or([default; 2]);
    let built =
        |module: Result<Module, Error>, size| module.map(|module| Preset { module, function: "forward", batch, size });
    if let Some(config) = DitConfig::preset(name) {
        let module = dit(name, config, options)
            .and_then(|(config, [h, w])| Ok((dit::forward_module(&config, batch, (h, w), stored)?, [h, w])));
        return Some(module.map(|(module, latent)| Preset {
            module,
            function: "forward",
            batch,
            size: options.size.unwrap_or(latent),
        }));
    }
    if name == "pixart-sigma" || PixArtConfig::preset(name).is_some() {
        let side = name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(512);
        let size = size(side);
        // Positions are those of the checkpoint that was trained nearest to this size.
        let trained =
            [256usize, 512, 1024, 2048].into_iter().min_by_key(|n| n.abs_diff(size[0].max(size[1]))).unwrap_or(512);
        let mut config = PixArtConfig::preset(&format!("pixart-sigma-{trained}"))?;
        let module = latents(size).and_then(|[h, w]| {
            config.depth = blocks(name, options, config.depth)?;
            divides("latent", [h, w], config.patch_size)?;
            let caption_tokens = options.tokens.unwrap_or(300);
            let call = CallSize { batch, latent: (h, w), caption_tokens, masked: true };
            Ok(pixart::forward_module(&config, call, stored)?)
        });
        return Some(built(module, size));
    }
    if let Some(mut config) = Sd3Config::preset(name) {
        let size = size(1024);
        let module = latents(size).and_then(|[h, w]| {
            let layers = blocks(name, options, config.num_layers)?;
            config.num_layers = layers;
            config.dual_attention_layers.retain(|&i| i < layers);
            divides("latent", [h, w], config.patch_size)?;
            Ok(sd3::forward_module(&config, batch, (h, w), options.tokens.unwrap_or(333), stored)?)
        });
        return Some(built(module, size));
    }
    if let Some(mut config) = FluxConfig::preset(name) {
        let size = size(1024);
        let module = latents(size).and_then(|[h, w]| {
            let all = blocks(name, options, config.num_layers + config.num_single_layers)?;
            config.num_layers = config.num_layers.min(all.div_ceil(3));
            config.num_single_layers = all - config.num_layers;
            divides("latent", [h, w], 2)?; // tokens are packed from 2 × 2 latents
            Ok(flux::forward_module(&config, batch, h * w / 4, options.tokens.unwrap_or(512), stored)?)
        });
        return Some(built(module, size));
    }
    if let Some(config) = name.strip_prefix("vae-decode").and_then(|of| VaeConfig::preset(of.trim_start_matches('-'))) {
        if options.blocks.is_some() {
            return Some(Err(Diagnostic::new("preset", format!("`{name}` has no transformer blocks")).into()));
        }
        let size = size(512);
        let module = latents(size).and_then(|[h, w]| Ok(vae::decode_module(&config, batch, (h, w), stored)?));
        return Some(module.map(|module| Preset { module, function: "decode", batch, size }));
    }
    None
}

/// A DiT as the options want it, and height and width of its latents.
pub(crate) fn dit(name: &str, mut config: DitConfig, options: &Options) -> Result<(DitConfig, [usize; 2]), Error> {
    let grid = options.tokens.filter(|_| options.size.is_none()).map(side).transpose()?;
    let size = options.size.unwrap_or([grid.map_or(config.input_size, |side| side * config.patch_size); 2]);
    let [h, w] = if size.iter().all(|&n| n >= 256) { latents(size)? } else { size };
    config.depth = blocks(name, options, config.depth)?;
    divides("size", [h, w], config.patch_size)?;
    if h == w {
        config.input_size = h; // random position tables fit every square
    }
    Ok((config, [h, w]))
}

/// How many blocks are wanted of a model that has `depth`.
fn blocks(name: &str, options: &Options, depth: usize) -> Result<usize, Error> {
    let wanted = options.blocks.unwrap_or(depth);
    check_blocks(name, wanted, depth).map(|()| wanted)
}

/// A model of `depth` blocks can be measured with so many of them.
pub(crate) fn check_blocks(name: &str, blocks: usize, depth: usize) -> Result<(), Error> {
    if (1..=depth).contains(&blocks) {
        return Ok(());
    }
    let what = Diagnostic::new("bench", format!("`{name}` has {depth} blocks"));
    Err(what.expected_found(format!("1 to {depth}"), blocks).into())
}

/// The side of a square grid of tokens.
pub(crate) fn side(tokens: usize) -> Result<usize, Error> {
    let side = tokens.isqrt();
    if side * side == tokens {
        return Ok(side);
    }
    let what = Diagnostic::new("bench", format!("{tokens} tokens are no square grid"));
    let near = format!("{} or {}", side * side, (side + 1) * (side + 1));
    Err(what.expected_found(near, tokens).help("--size WxH gives other grids").into())
}

/// The latent's size for a picture's.
fn latents(size: [usize; 2]) -> Result<[usize; 2], Error> {
    divides("size", size, DOWNSCALE)?;
    Ok(size.map(|n| n / DOWNSCALE))
}

fn divides(what: &str, [height, width]: [usize; 2], by: usize) -> Result<(), Error> {
    if height.is_multiple_of(by) && width.is_multiple_of(by) && height * width > 0 {
        return Ok(());
    }
    let message = format!("{what} {width}x{height} does not divide into patches");
    Err(Diagnostic::new("size", message)
        .expected_found(format!("multiples of {by}"), format!("{width}x{height}"))
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(name: &str, options: Options) -> usize {
        let preset = preset(name, &options).expect("a preset").unwrap_or_else(|e| panic!("{name}: {e}"));
        preset.module.weights.iter().filter_map(|w| w.ty.elements()).sum()
    }

    #[test]
    fn presets_have_the_published_sizes() {
        assert_eq!(
            parameters("dit-xl-2", Options { size: Some([512, 512]), ..Options::default() }),
            675_129_632 + 768 * 1152
        );
        let sigma = parameters("pixart-sigma", Options::default());
        assert!((600_000_000..620_000_000).contains(&sigma), "{sigma}");
        // The position table is a buffer of the checkpoint, not a parameter.
        assert_eq!(parameters("sd3.5-medium", Options::default()) - 384 * 384 * 1536, 2_243_171_520);
        let decoder = parameters("vae-decode", Options::default());
        assert!((49_400_000..49_600_000).contains(&decoder), "{decoder}");
    }

    #[test]
    fn parts_of_presets_are_smaller() {
        let part = |name, blocks| {
            parameters(name, Options { blocks: Some(blocks), size: Some([256; 2]), ..Options::default() })
        };
        let flux = part("flux-dev", 3);
        // One double block of 340 million parameters, two single ones of 142, and the embeddings.
        assert!((600_000_000..800_000_000).contains(&flux), "{flux}");
        assert!(part("sd3.5-medium", 1) < part("sd3.5-medium", 2));
        assert!(part("dit-xl-2", 2) < 675_000_000 / 8);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        for (name, size) in
            [("pixart-sigma", [500, 512]), ("flux-dev", [264, 264]), ("dit-xl-2", [33, 32]), ("vae-decode", [12, 8])]
        {
            let made = preset(name, &Options { size: Some(size), ..Options::default() }).expect("a preset");
            let error = made.err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains("multiples of"), "{name}: {error}");
        }
        assert!(preset("vae-encode", &Options::default()).is_none() && preset("sd4", &Options::default()).is_none());
    }
}
