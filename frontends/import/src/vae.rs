//! Autoencoders: from a folder, alone or as a pipeline's component `vae`.

use crate::checkpoint::Checkpoint;
use crate::files::{brief, open_checkpoint, read_json};
use selvedge_ir::module::WeightDecl;
use selvedge_ir::{DType, Diagnostic, Diagnostics, Module, TensorType};
use selvedge_zoo::sampling::add_decoder;
use selvedge_zoo::vae::{VaeConfig, expected_weights, image_of_size};
use serde_json::Value;
use std::path::Path;

/// The class that can be loaded.
pub const CLASS: &str = "AutoencoderKL";

/// Where a pipeline's weights hold those of its autoencoder.
pub const PREFIX: &str = "vae";

/// An autoencoder and its weights.
#[derive(Clone, Debug)]
pub struct LoadedVae {
    /// What it is.
    pub config: VaeConfig,
    /// Its weights; they fit.
    pub checkpoint: Checkpoint,
}

/// Loads an autoencoder from a folder with `config.json` and safetensors. A checkpoint without an encoder only decodes.
///
/// # Errors
/// Everything that is wrong with the configuration or, all together, with the checkpoint.
pub fn load(folder: &Path) -> Result<LoadedVae, Diagnostics> {
    let path = folder.join("config.json");
    let config = VaeConfig::from_json(&read_json(&path)?).map_err(|mut e| {
        e.message = format!("{} (in `{}`)", e.message, path.display());
        e
    })?;
    let checkpoint = open_checkpoint(folder)?;
    let config = config.with_names(|name| checkpoint.shape(name).is_some());
    let with_encoder = checkpoint.names().any(|n| n.starts_with("encoder."));
    let weights: Vec<WeightDecl> = expected_weights(&config, with_encoder)?
        .into_iter()
        .map(|(name, shape)| {
            let ty = TensorType { dtype: checkpoint.dtype(&name).unwrap_or(DType::F32), shape };
            WeightDecl { name, ty }
        })
        .collect();
    checkpoint.check(&weights, |name| !with_encoder && name.starts_with("quant_conv."))?;
    Ok(LoadedVae { config, checkpoint })
}

/// The component `vae` of a pipeline folder whose `model_index.json` is `index`; `None` if that names none.
///
/// # Errors
/// Another class, a folder that is missing, and as [`load`].
pub fn component(folder: &Path, origin: &str, index: &Value) -> Result<Option<LoadedVae>, Diagnostics> {
    let Some(named) = index.get("vae").filter(|v| !v.is_null() && v.get(1) != Some(&Value::Null)) else {
        return Ok(None);
    };
    if named.get(1).and_then(Value::as_str) != Some(CLASS) {
        return Err(Diagnostic::new("import", format!("`{origin}` names an autoencoder of an unknown class"))
            .expected_found(format!("[\"diffusers\", \"{CLASS}\"]"), brief(named))
            .help("this autoencoder is not supported yet")
            .into());
    }
    let place = folder.join("vae");
    if !place.is_dir() {
        return Err(Diagnostic::new("import", format!("the component folder `{}` is missing", place.display()))
            .expected_found(format!("the autoencoder that `{origin}` names"), "no folder")
            .help("fetch it, or remove `vae` from model_index.json to make latents only")
            .into());
    }
    load(&place).map(Some)
}

/// Adds the decoder to a sampling module for `batch` latents [C, H, W], to pictures of `size` (height, width; absent: the
/// decoder's own); weights are read below [`PREFIX`].
///
/// # Errors
/// What the model code finds wrong.
pub fn add(
    module: &mut Module,
    config: &VaeConfig,
    batch: usize,
    [channels, height, width]: [usize; 3],
    size: Option<[usize; 2]>,
    stored: impl Fn(&str) -> Option<DType> + 'static,
) -> Result<(), Diagnostics> {
    let latents = TensorType::new(DType::F32, [batch, channels, height, width]);
    add_decoder(module, latents, stored, |g, latents| image_of_size(&g.weights().sub(PREFIX), config, latents, size))
}
