//! diffusers pipeline folders: `model_index.json` and a folder for each component.

use crate::checkpoint::Checkpoint;
use crate::dit::Dit;
use crate::files::{brief, found, list, open_checkpoint, read_json, text_field};
use crate::model::{Architecture, LoadedModel, Sampling};
use crate::{text_pipeline, vae};
use selvedge_ir::{Diagnostic, Diagnostics};
use selvedge_zoo::catalog::{self, Kind};
use selvedge_zoo::program::Decoder;
use selvedge_zoo::samplers::Sampler;
use selvedge_zoo::samplers::diffusers;
use selvedge_zoo::sampling::Denoiser;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Loads a pipeline folder. Where the index names no autoencoder, programs end at the latents.
///
/// With `EulerDiscreteScheduler` the sample is kept beside its scaled form and starts at `init_noise_sigma`, as other pipelines do;
/// diffusers' DiTPipeline steps from the scaled form, which follows no noise schedule.
///
/// # Errors
/// An unknown pipeline or component class, a component that is missing, and everything that is wrong with one.
pub fn load(folder: &Path) -> Result<LoadedModel, Diagnostics> {
    let path = folder.join("model_index.json");
    let parts = Components { folder, origin: path.display().to_string(), index: read_json(&path)? };
    let origin = &parts.origin;
    let class = text_field(origin, &parts.index, "_class_name")?;
    let known = catalog::classes(Kind::Pipeline);
    if !known.contains(&class) {
        return Err(Diagnostic::new("import", format!("unknown pipeline class in `{origin}`"))
            .expected_found(known.join(" or "), format!("`{class}`"))
            .help("this pipeline is not supported yet")
            .into());
    }
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "pipeline".into());
    let model = match text_pipeline::PipelineClass::named(class) {
        Some(class) => text_pipeline::load(name, &parts, class)?,
        None => load_dit(name, &parts)?,
    };
    match vae::component(folder, origin, &parts.index)? {
        Some(vae) => model.with_vae(vae),
        None => Ok(model),
    }
}

fn load_dit(name: String, parts: &Components) -> Result<LoadedModel, Diagnostics> {
    let (transformer, config) = parts.model("transformer")?;
    let config_path = transformer.join("config.json");
    let architecture = Architecture::read(&config_path.display().to_string(), &config)?;
    let Architecture::Dit(dit) = &architecture else {
        return Err(Diagnostic::new("import", "a DiTPipeline has a DiT as its transformer").into());
    };
    let sampler = parts.sampler()?;
    let sampling = Sampling::diffusers(sampler, dit.null_class(), parts.no_decoder(Dit(dit).sample_shape()[0]));
    LoadedModel::new(name, architecture, parts.checkpoint(&transformer)?, sampling)
}

/// The components of a pipeline folder.
pub struct Components<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// The index' name, for messages.
    pub origin: String,
    /// `model_index.json`.
    pub index: Value,
}

impl Components<'_> {
    /// Class of a component, `[library, class]` in the index; `None` if the index says that there is none.
    ///
    /// # Errors
    /// An entry of another form.
    pub fn class(&self, name: &str) -> Result<Option<&str>, Diagnostic> {
        let entry = self.index.get(name);
        let class = entry.and_then(|v| v.get(1));
        match (entry, class) {
            (None | Some(Value::Null), _) | (_, Some(Value::Null)) => Ok(None),
            (_, Some(Value::String(class))) => Ok(Some(class)),
            (Some(other), _) => {
                Err(Diagnostic::new("import", format!("`{}` does not name the component `{name}`", self.origin))
                    .expected_found("[library, class]", brief(other)))
            }
        }
    }
    /// Class of a component that has to be there.
    ///
    /// # Errors
    /// The index does not name it.
    pub fn required(&self, name: &str) -> Result<&str, Diagnostic> {
        self.class(name)?.ok_or_else(|| {
            Diagnostic::new("import", format!("`{}` does not name the component `{name}`", self.origin))
                .expected_found("[library, class]", self.index.get(name).map_or("none".to_string(), brief))
        })
    }
    /// Folder and `config.json` of a network.
    ///
    /// # Errors
    /// The index does not name it, its folder or configuration is missing.
    pub fn model(&self, name: &str) -> Result<(PathBuf, Value), Diagnostic> {
        let class = self.required(name)?;
        let folder = self.folder.join(name);
        if !folder.is_dir() {
            return Err(Diagnostic::new("import", format!("the component folder `{}` is missing", folder.display()))
                .expected_found(format!("the {class} that `{}` names", self.origin), "no folder")
                .help("fetch it together with the other folders of the pipeline"));
        }
        let config = read_json(&folder.join("config.json"))?;
        Ok((folder, config))
    }
    /// Weights of a network's folder.
    ///
    /// # Errors
    /// There are none (they were not fetched, or are of a form that is not read), or as [`open_checkpoint`].
    pub fn checkpoint(&self, folder: &Path) -> Result<Checkpoint, Diagnostics> {
        let names = list(folder)?;
        let ends = |ending: &str| names.iter().any(|p| p.to_string_lossy().ends_with(ending));
        if ends(".safetensors") || ends(".safetensors.index.json") {
            return open_checkpoint(folder);
        }
        let what = Diagnostic::new("import", format!("the weights of `{}` were not downloaded", folder.display()));
        let help = match ends(".bin") || ends(".bin.index.json") {
            true => "pickled weights (`.bin`) are not read: fetch the safetensors files",
            false => "fetch the safetensors files of this folder",
        };
        Err(what.expected_found("`*.safetensors`, with an index if there are several", found(&names)).help(help).into())
    }
    /// The sampler that `scheduler` configures.
    ///
    /// # Errors
    /// An unknown class; an option that is not supported.
    pub fn sampler(&self) -> Result<Sampler, Diagnostic> {
        let class = self.required("scheduler")?;
        diffusers::read(class, &read_json(&self.folder.join("scheduler/scheduler_config.json"))?)
    }
    /// The decoder of a pipeline before its autoencoder is known.
    pub fn no_decoder(&self, channels: usize) -> Decoder {
        Decoder::Missing(format!(
            "`{}` names no autoencoder (`vae`) that turns the {channels}-channel latents into a picture",
            self.origin
        ))
    }
}
