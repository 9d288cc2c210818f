//! What a model or a compiled file holds, as JSON.

use crate::compile::{self, Options, Report, Settings};
use crate::components::components;
use crate::error::Error;
use crate::flops;
use crate::memory::{self, Residency, Usage};
use crate::open::{BundleFile, Opened};
use crate::presets::{self, Preset};
use crate::target::Target;
use crate::weights::{Cached, Random, Weights};
use selvedge_bundle::manifest::Manifest;
use selvedge_import::model::Architecture;
use selvedge_import::{LoadedModel, ProgramOptions};
use selvedge_ir::{Diagnostic, Module, TensorType};
use selvedge_zoo::dit::DitConfig;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// What a plan is made for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Images made by one run; 1 if absent.
    pub batch: Option<usize>,
    /// Height and width of the picture in pixels; the model's own if absent.
    pub size: Option<[usize; 2]>,
    /// Tokens of a prompt in T5; as many as the reference pipeline takes if absent.
    pub text_tokens: Option<usize>,
    /// How it is compiled.
    pub settings: Settings,
}

/// The facts of what a name stands for: a preset (see [`presets::NAMES`]), or else as [`inspect`].
///
/// # Errors
/// As [`inspect`]; a size that a preset cannot have.
pub fn inspect_named(name: &str, request: &Request) -> Result<Value, Error> {
    let options = presets::Options { batch: request.batch, size: request.size, ..presets::Options::default() };
    let Some(preset) = presets::preset(name, &options).filter(|_| !Path::new(name).exists()) else {
        return inspect(Opened::open(name)?, request);
    };
    let Preset { module, function, batch, size: [height, width] } = preset?;
    let flops = flops::of_function(&module, function);
    let weights: Weights = Arc::new(Random::default());
    let options = Options { settings: request.settings.clone(), ..Options::new(Target::portable()) };
    let budget = request.settings.max_memory;
    let (compiled, _) = memory::compile_to_fit(module, weights, Value::Null, &options, budget)?;
    Ok(json!({
        "kind": "preset", "name": name, "size": format!("{width}x{height}"),
        "weights": self::weights(compiled.module()),
        "gflop": {function: flops as f64 / 1e9},
        "memory": usage(compiled.manifest()),
        "plan": plan(batch, &compiled.report()),
    }))
}

/// The facts of a model (its plan for `portable` and a batch among them) or of a compiled file. Of weights only the headers of
/// their files are read.
///
/// # Errors
/// A damaged file; a model that does not compile; a plan that does not fit the memory it may take.
pub fn inspect(opened: Opened, request: &Request) -> Result<Value, Error> {
    match opened {
        Opened::Model(model) => inspect_model(*model, request),
        Opened::Bundle(file) => {
            if [request.batch, request.text_tokens].iter().any(Option::is_some) || request.size.is_some() {
                let what = Diagnostic::new("inspect", format!("`{}` is compiled for one batch and size", file.path));
                return Err(what
                    .help("leave --batch, --size and --max-sequence-length out, or inspect the model's folder")
                    .into());
            }
            inspect_bundle(&file)
        }
    }
}

/// Work of one call of each function of the schedule.
fn work(module: &Module) -> Value {
    let s = &module.schedule;
    let steps = s.steps.iter().flat_map(|l| &l.functions);
    let names = [&s.prepare, &s.condition].into_iter().flatten().chain(steps).chain(&s.decode);
    let gflop = |name: &String| (name.clone(), json!(flops::of_function(module, name) as f64 / 1e9));
    names.map(gflop).collect::<Map<_, _>>().into()
}

fn usage(manifest: &Manifest) -> Value {
    manifest.plans.first().map_or(Value::Null, |plan| Usage::new(manifest, plan).to_json())
}

fn inspect_model(model: LoadedModel, request: &Request) -> Result<Value, Error> {
    let batch = request.batch.unwrap_or(1);
    let (family, config) = match &model.architecture {
        Architecture::Dit(c) => ("dit", dit_config(c)),
        Architecture::Text(text) => ("text-to-image", json!({"class": format!("{:?}", text.class)})),
    };
    let (name, sampling, vae) = (model.name.clone(), model.sampling.clone(), model.vae.clone());
    let files: Vec<String> = model.checkpoint.origins().iter().map(|s| s.to_string()).collect();
    let wanted =
        ProgramOptions { batch, size: request.size, text_tokens: request.text_tokens, ..ProgramOptions::default() };
    let program = model.program(&wanted)?;
    let [_, height, width] = program.info.image_shape.unwrap_or(program.info.latent_shape);
    let options = Options { settings: request.settings.clone(), ..Options::new(Target::portable()) };
    let weights_of: Weights = Arc::new(Cached::new(model.checkpoint.clone()));
    let (pipeline, budget) = (compile::pipeline(&program.info), request.settings.max_memory);
    let (compiled, residency) = memory::compile_to_fit(program.module.clone(), weights_of, pipeline, &options, budget)?;
    Ok(json!({
        "kind": "model", "name": name, "family": family, "batch": batch, "size": format!("{width}x{height}"),
        "configuration": config,
        "sampling": {
            "sampler": sampling.sampler, "default_steps": sampling.default_steps,
            "default_guidance_scale": sampling.default_guidance_scale, "null_class": sampling.null_class,
            "decoder": sampling.decoder,
        },
        "autoencoder": vae,
        "files": files,
        "weights": weights(compiled.module()),
        "components": components(Some(&model), &program.module, compiled.module()),
        "gflop": work(&program.module),
        "memory": usage(compiled.manifest()),
        "residency": match residency {
            Residency::Whole => "all weights on the device",
            Residency::Staged => "each stage's weights on the device while it runs",
        },
        "plan": plan(batch, &compiled.report()),
    }))
}

fn dit_config(c: &DitConfig) -> Value {
    json!({
        "layout": format!("{:?}", c.layout), "input_size": c.input_size, "patch_size": c.patch_size,
        "in_channels": c.in_channels, "out_channels": c.out_channels, "hidden_size": c.hidden_size, "depth": c.depth,
        "num_heads": c.num_heads, "mlp_hidden_size": c.mlp_hidden_size, "num_classes": c.num_classes,
    })
}

fn weights(module: &Module) -> Value {
    facts(module.weights.iter().map(|w| {
        let bits = w.ty.dtype.bits() as u64;
        let TensorType { dtype, .. } = &w.ty;
        (dtype.to_string(), w.ty.elements().unwrap_or(0) as u64, bits)
    }))
}

/// Number, bytes and dtypes of tensors given by dtype, elements and bits an element.
pub(crate) fn facts(tensors: impl Iterator<Item = (String, u64, u64)>) -> Value {
    let (mut count, mut parameters, mut bytes) = (0u64, 0u64, 0u64);
    let mut dtypes: BTreeMap<String, u64> = BTreeMap::new();
    for (dtype, elements, bits) in tensors {
        count += 1;
        parameters += elements;
        bytes += elements * bits / 8;
        *dtypes.entry(dtype).or_default() += 1;
    }
    json!({"tensors": count, "parameters": parameters, "memory_bytes": bytes, "dtypes": dtypes})
}

fn plan(batch: usize, report: &Report) -> Value {
    json!({
        "batch": batch, "target": report.target, "planned_peak_bytes": report.peak_bytes,
        "dispatches": report.dispatches, "kernels": report.kernels,
    })
}

fn inspect_bundle(file: &BundleFile) -> Result<Value, Error> {
    let (bundle, linked) = (file.bundle()?, file.linked()?);
    let manifest = bundle.manifest();
    for (i, weight) in manifest.weights.iter().enumerate() {
        if let Some(link) = &weight.link {
            linked.checked(&bundle, i, link)?;
        }
    }
    let bits = |dtype: &str| selvedge_bundle::element_bytes(dtype).unwrap_or(0) * 8;
    let tensors = manifest.weights.iter().map(|w| (w.dtype.clone(), w.shape.iter().product(), bits(&w.dtype)));
    let hashes: BTreeSet<&str> = manifest.kernels.iter().map(|k| k.hash.as_str()).collect();
    let t = &manifest.target;
    Ok(json!({
        "kind": "bundle", "name": manifest.name, "format": manifest.format, "producer": manifest.producer,
        "requirements": {
            "target": t.name, "features": t.features, "subgroup_size": t.subgroup_size,
            "binding_bytes": t.max_binding_bytes, "buffer_bytes": t.max_buffer_bytes, "storage_buffers": t.storage_buffers,
            "invocations": t.invocations, "workgroup_memory_bytes": t.workgroup_bytes,
        },
        "weights": facts(tensors),
        "linked_weights": manifest.weights.iter().filter(|w| w.link.is_some()).count(),
        "linked_files": linked.paths().map(|p| p.display().to_string()).collect::<Vec<_>>(),
        "kernels": hashes.len(),
        "memory": usage(manifest),
        "plans": plans(manifest),
        "pipeline": manifest.pipeline,
    }))
}

fn plans(manifest: &Manifest) -> Value {
    let mut all = Map::new();
    for p in &manifest.plans {
        let functions: Map<String, Value> = p
            .functions
            .iter()
            .map(|f| {
                let inputs: Vec<String> =
                    f.inputs.iter().map(|i| format!("{} {}{:?}", i.name, i.dtype, i.shape)).collect();
                let outputs: Vec<String> =
                    f.outputs.iter().map(|o| format!("{} {}{:?}", o.name, o.dtype, o.shape)).collect();
                (f.name.clone(), json!({"dispatches": f.dispatches.len(), "inputs": inputs, "outputs": outputs}))
            })
            .collect();
        all.insert(p.size.clone(), json!({"planned_peak_bytes": p.peak_bytes(), "functions": functions}));
    }
    all.into()
}
