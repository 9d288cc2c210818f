//! diffusers pipeline folders: `model_index.json` and a folder for each component.

use crate::dit::Dit;
use crate::files::{brief, open_checkpoint, read_json, text_field};
use crate::model::{Architecture, LoadedModel, Sampling};
use crate::vae;
use selvedge_ir::{Diagnostic, Diagnostics};
use selvedge_zoo::program::Decoder;
use selvedge_zoo::samplers::diffusers;
use selvedge_zoo::sampling::Denoiser;
use serde_json::Value;
use std::path::Path;

/// Pipeline classes that can be loaded.
pub const CLASSES: [&str; 1] = ["DiTPipeline"];

/// Loads a pipeline folder. Where the index names no autoencoder, programs end at the latents.
///
/// With `EulerDiscreteScheduler` the sample is kept beside its scaled form and starts at `init_noise_sigma`, as other pipelines do;
/// diffusers' DiTPipeline steps from the scaled form, which follows no noise schedule.
///
/// # Errors
/// An unknown pipeline or component class, a component that is missing, and everything that is wrong with one.
pub fn load(folder: &Path) -> Result<LoadedModel, Diagnostics> {
    let index_path = folder.join("model_index.json");
    let origin = index_path.display().to_string();
    let index = read_json(&index_path)?;
    let class = text_field(&origin, &index, "_class_name")?;
    if !CLASSES.contains(&class) {
        return Err(Diagnostic::new("import", format!("unknown pipeline class in `{origin}`"))
            .expected_found(CLASSES.join(" or "), format!("`{class}`"))
            .help("this pipeline is not supported yet")
            .into());
    }
    component(&origin, &index, "transformer")?;
    let scheduler_class = component(&origin, &index, "scheduler")?;
    let transformer = folder.join("transformer");
    let config_path = transformer.join("config.json");
    let architecture = Architecture::read(&config_path.display().to_string(), &read_json(&config_path)?)?;
    let Architecture::Dit(dit) = &architecture;
    let scheduler = read_json(&folder.join("scheduler/scheduler_config.json"))?;
    let sampler = diffusers::read(scheduler_class, &scheduler)?;
    let [channels, ..] = Dit(dit).sample_shape();
    let decoder = Decoder::Missing(format!(
        "`{origin}` names no autoencoder (`vae`) that turns the {channels}-channel latents into a picture"
    ));
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "pipeline".into());
    let sampling = Sampling::diffusers(sampler, dit.null_class(), decoder);
    let model = LoadedModel::new(name, architecture, open_checkpoint(&transformer)?, sampling)?;
    match vae::component(folder, &origin, &index)? {
        Some(vae) => model.with_vae(vae),
        None => Ok(model),
    }
}

/// Class of a component, `[library, class]` in the index.
fn component<'a>(origin: &str, index: &'a Value, name: &str) -> Result<&'a str, Diagnostic> {
    index.get(name).and_then(|v| v.get(1)).and_then(Value::as_str).ok_or_else(|| {
        Diagnostic::new("import", format!("`{origin}` does not name the component `{name}`"))
            .expected_found("[library, class]", index.get(name).map_or("none".to_string(), brief))
    })
}
