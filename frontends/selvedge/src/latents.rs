//! Latents in files: written where nothing decodes them, read to start from them.

use crate::error::Error;
use crate::sample::Images;
use selvedge_import::Checkpoint;
use selvedge_ir::{Diagnostic, Tensor};
use selvedge_zoo::program::PipelineInfo;
use std::path::Path;

/// Latents as a safetensors file with one tensor, `latents` f32 [count, channels, height, width].
pub fn latents_file(images: &Images) -> Vec<u8> {
    let [c, h, w] = images.shape;
    let header = serde_json::json!({"latents": {
        "dtype": "F32", "shape": [images.count, c, h, w], "data_offsets": [0, images.values.len() * 4],
    }});
    let mut text = header.to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend(text.bytes());
    file.extend(images.values.iter().flat_map(|x| x.to_le_bytes()));
    file
}

/// Reads the tensor `latents` (or the only tensor) of a safetensors file.
///
/// # Errors
/// No such file or tensor, a damaged file.
pub fn read(path: &Path) -> Result<Tensor, Error> {
    let file = Checkpoint::open_file(path)?;
    let names: Vec<&str> = file.names().collect();
    let name = match names.as_slice() {
        all if all.contains(&"latents") => "latents",
        [one] => one,
        other => {
            let what = Diagnostic::new("latents", format!("`{}` has no tensor `latents`", path.display()));
            return Err(what.expected_found("a tensor `latents`, or only one", other.join(", ")).into());
        }
    };
    Ok(file.tensor(name)?)
}

/// Latents f32 [count, C, H, W], or as a pipeline packs them ([count, tokens, features]), as the values of [count, C, H, W].
///
/// # Errors
/// Another shape or number.
pub(crate) fn fitting(info: &PipelineInfo, latents: &Tensor, count: usize) -> Result<Vec<f32>, Error> {
    let [c, h, w] = info.latent_shape;
    let sizes = latents.sizes();
    if sizes == [count, c, h, w] {
        return Ok(latents.to_f32());
    }
    if let Some(unpacked) =
        selvedge_import::packing::unpack(latents, info.packing, [h, w]).filter(|x| x.sizes() == [count, c, h, w])
    {
        return Ok(unpacked.to_f32());
    }
    let what = Diagnostic::new("latents", format!("the latents do not fit `{}`", info.name));
    let help = "their number is -n, their size that of the picture over the autoencoder's factor (--size)";
    Err(what.expected_found(format!("{:?}", [count, c, h, w]), format!("{sizes:?}")).help(help).into())
}

/// The latents of a run's batch from its first image on; the last fills the rest.
pub(crate) fn batch(info: &PipelineInfo, all: &[f32], first: usize) -> Vec<f32> {
    let size: usize = info.latent_shape.iter().product();
    let count = all.len() / size.max(1);
    (first..first + info.batch).flat_map(|i| &all[i.min(count - 1) * size..][..size]).copied().collect()
}
