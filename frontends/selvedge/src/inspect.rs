//! What a model or a compiled file holds, as JSON.

use crate::compile::{Options, Report};
use crate::error::Error;
use crate::open::{BundleFile, Opened};
use crate::target::Target;
use selvedge_bundle::manifest::Manifest;
use selvedge_import::LoadedModel;
use selvedge_import::model::Architecture;
use selvedge_ir::{Module, TensorType};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The facts of a model (its plan for `portable` and a batch among them) or of a compiled file.
///
/// # Errors
/// A damaged file; a model that does not compile.
pub fn inspect(opened: Opened, batch: usize) -> Result<Value, Error> {
    match opened {
        Opened::Model(model) => inspect_model(*model, batch),
        Opened::Bundle(file) => inspect_bundle(&file),
    }
}

fn inspect_model(model: LoadedModel, batch: usize) -> Result<Value, Error> {
    let Architecture::Dit(c) = model.architecture.clone();
    let (name, sampling, vae) = (model.name.clone(), model.sampling.clone(), model.vae.clone());
    let files: Vec<String> = model.checkpoint.origins().iter().map(|s| s.to_string()).collect();
    let source = Opened::Model(Box::new(model)).source(batch, None)?;
    let compiled = source.compile(&Options::new(Target::portable()))?;
    let config = json!({
        "layout": format!("{:?}", c.layout), "input_size": c.input_size, "patch_size": c.patch_size,
        "in_channels": c.in_channels, "out_channels": c.out_channels, "hidden_size": c.hidden_size, "depth": c.depth,
        "num_heads": c.num_heads, "mlp_hidden_size": c.mlp_hidden_size, "num_classes": c.num_classes,
    });
    Ok(json!({
        "kind": "model", "name": name, "family": "dit", "configuration": config,
        "sampling": {
            "sampler": sampling.sampler, "default_steps": sampling.default_steps,
            "default_guidance_scale": sampling.default_guidance_scale, "null_class": sampling.null_class,
            "decoder": sampling.decoder,
        },
        "autoencoder": vae,
        "files": files,
        "weights": weights(compiled.module()),
        "plan": plan(batch, &compiled.report()),
    }))
}

fn weights(module: &Module) -> Value {
    facts(module.weights.iter().map(|w| {
        let bits = w.ty.dtype.bits() as u64;
        let TensorType { dtype, .. } = &w.ty;
        (dtype.to_string(), w.ty.elements().unwrap_or(0) as u64, bits)
    }))
}

/// Number, bytes and dtypes of tensors given by dtype, elements and bits an element.
fn facts(tensors: impl Iterator<Item = (String, u64, u64)>) -> Value {
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
