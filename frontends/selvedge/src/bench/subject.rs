//! What is measured: presets, named workloads, models and compiled files, each as a module with one function to time.

use crate::error::Error;
use crate::open::BundleFile;
use crate::presets::{self, Preset};
use crate::weights::{Cached, Random, Weights};
use selvedge_import::SHIPPED;
use selvedge_import::model::Architecture;
use selvedge_ir::{DType, Diagnostic, Module, Tensor};
use selvedge_model::ModuleBuilder;
use selvedge_zoo::dit::{DitConfig, forward_module};
use selvedge_zoo::program::PipelineInfo;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::step;
use super::{Request, What};

/// Workloads by name: a preset or shipped model with its flags, for comparisons with other systems.
pub const WORKLOADS: [(&str, &str); 5] = [
    ("w1", "digits --batch 8"),
    ("w2", "dit-s-2 --batch 2"),
    ("w3", "dit-xl-2 --blocks 2 --tokens 1024 --batch 1"),
    ("w4a", "attention --heads 16 --tokens 1024 --head-dim 64"),
    ("w4b", "attention --heads 16 --tokens 4096 --head-dim 64"),
];

const FORWARD: &str = "forward";

pub(super) struct Subject {
    pub what: What,
    pub module: Module,
    /// The function that is measured.
    pub function: String,
    pub program: Program,
    /// Samples that the network evaluates at once.
    pub batch: usize,
    /// Images that a step makes.
    pub images: Option<usize>,
    /// Its size, for people.
    pub size: String,
}

/// Where a session comes from.
pub(super) enum Program {
    /// The module, compiled with these weights.
    Weights(Weights),
    /// A compiled file.
    File(BundleFile),
}

/// The request that a workload's name stands for; what the caller says besides wins.
fn named(request: &Request) -> Request {
    let given = request.clone();
    let workload = |model: &str, batch, blocks, tokens, heads, head_dim| Request {
        model: model.to_string(),
        batch: given.batch.or(batch),
        blocks: given.blocks.or(blocks),
        tokens: given.tokens.or(if given.size.is_some() { None } else { tokens }),
        heads: given.heads.or(heads),
        head_dim: given.head_dim.or(head_dim),
        what: given.what.or(Some(What::Forward)), // what others measure under these names
        ..given.clone()
    };
    match request.model.as_str() {
        "w1" => workload("digits", Some(8), None, None, None, None),
        "w2" => workload("dit-s-2", Some(2), None, None, None, None),
        "w3" => workload("dit-xl-2", Some(1), Some(2), Some(1024), None, None),
        "w4a" => workload("attention", None, None, Some(1024), Some(16), Some(64)),
        "w4b" => workload("attention", None, None, Some(4096), Some(16), Some(64)),
        _ => given,
    }
}

pub(super) fn subject(request: &Request) -> Result<Subject, Error> {
    let request = &named(request);
    if !SHIPPED.contains(&request.model.as_str()) && Path::new(&request.model).is_file() {
        return compiled(request);
    }
    let random: Weights = Arc::new(Cached::new(Random::default()));
    let batch = request.batch.unwrap_or(1);
    let of = |module, weights, size: String| {
        let (function, program) = (FORWARD.to_string(), Program::Weights(weights));
        Subject { what: What::Forward, module, function, program, batch, images: None, size }
    };
    if request.model == "attention" {
        no_step(request)?;
        let module = attention(request, batch)?;
        let size = format!("{}x{}x{}", heads(request), tokens(request)?, head_dim(request));
        return Ok(of(module, random, size));
    }
    if let Some(flag) = [("heads", request.heads), ("head-dim", request.head_dim)].iter().find(|f| f.1.is_some()) {
        let what = Diagnostic::new("bench", format!("`{}` has its own heads", request.model));
        return Err(what.help(format!("--{} is for the preset `attention`", flag.0)).into());
    }
    let options =
        presets::Options { batch: request.batch, size: request.size, blocks: request.blocks, tokens: request.tokens };
    if let Some(config) = DitConfig::preset(&request.model).filter(|_| request.what != Some(What::Forward)) {
        let (config, size) = presets::dit(&request.model, config, &options)?;
        return step::dit(request, config, size, None, Program::Weights(random), |_| None);
    }
    if let Some(preset) = presets::preset(&request.model, &options) {
        no_step(request)?;
        let Preset { module, function, batch, size: [height, width] } = preset?;
        let (function, program) = (function.to_string(), Program::Weights(random));
        let size = format!("{width}x{height}");
        return Ok(Subject { what: What::Forward, module, function, program, batch, images: None, size });
    }
    let model = selvedge_import::load(&request.model).map_err(|e| unknown(&request.model, e))?;
    let Architecture::Dit(mut config) = model.architecture.clone() else {
        return step::text(request, model);
    };
    let (stored, sampling) = (model.stored(), model.sampling.clone());
    let weights: Weights = Arc::new(Cached::new(model.checkpoint));
    if let Some(blocks) = request.blocks {
        presets::check_blocks(&request.model, blocks, config.depth)?;
        config.depth = blocks;
    }
    let size = match (request.size, request.tokens) {
        (Some(size), _) => size,
        (None, Some(tokens)) => [presets::side(tokens)? * config.patch_size; 2],
        (None, None) => [config.input_size; 2],
    };
    if size.iter().any(|n| n % config.patch_size != 0) {
        let what = Diagnostic::new("bench", format!("size {}x{} does not divide into patches", size[1], size[0]));
        return Err(what
            .expected_found(format!("multiples of {}", config.patch_size), format!("{}x{}", size[1], size[0]))
            .into());
    }
    if request.what != Some(What::Forward) {
        return step::dit(request, config, size, Some(sampling), Program::Weights(weights), stored);
    }
    let module = forward_module(&config, batch, (size[0], size[1]), stored)?;
    Ok(of(module, weights, format!("{}x{}", size[1], size[0])))
}

/// A preset that is a network without a sampler.
fn no_step(request: &Request) -> Result<(), Error> {
    if request.what != Some(What::Step) {
        return Ok(());
    }
    let what = Diagnostic::new("bench", format!("`{}` has no sampling program", request.model));
    Err(what.help("measure a forward, or a step of a model folder").into())
}

/// A compiled file: `forward`, or the first step of its sampling program.
fn compiled(request: &Request) -> Result<Subject, Error> {
    let mut file = BundleFile::open(Path::new(&request.model))?;
    file.trusted = request.trusted;
    file.linked()?; // a file that is missing is found before a device is opened
    let module = file.module()?;
    let step = module.schedule.steps.iter().flat_map(|s| &s.functions).next();
    let (function, what) = match (step, request.what) {
        (Some(step), None | Some(What::Step)) => (step.as_str(), What::Step),
        (_, None | Some(What::Forward)) => (FORWARD, What::Forward),
        (None, Some(What::Step)) => {
            let error = Diagnostic::new("bench", format!("`{}` holds no sampling program", file.path));
            return Err(error.help("its `forward` can be measured").into());
        }
    };
    let function = function.to_string();
    let info = serde_json::from_value::<PipelineInfo>(file.manifest()?.pipeline).ok();
    let (batch, size) = info.as_ref().map_or((1, [0, 0]), |i| (i.batch, [i.latent_shape[1], i.latent_shape[2]]));
    let shaped = [request.blocks, request.tokens, request.heads, request.head_dim].iter().any(Option::is_some);
    if request.batch.is_some_and(|b| b != batch) || request.size.is_some_and(|s| s != size) || shaped {
        let what = Diagnostic::new("bench", format!("`{}` is compiled for one batch and size", file.path));
        let own = format!("batch {batch}, size {}x{}", size[1], size[0]);
        return Err(what.expected_found(own, "another").help("measure the model's folder instead").into());
    }
    let size = format!("{}x{}", size[1], size[0]);
    let halves = if info.is_some_and(|i| i.guided.is_some()) && what == What::Step { 2 } else { 1 };
    let images = (what == What::Step).then_some(batch);
    Ok(Subject { what, module, function, program: Program::File(file), batch: batch * halves, images, size })
}

/// If it is no folder either, the presets are what was meant.
fn unknown(name: &str, errors: selvedge_ir::Diagnostics) -> Error {
    if Path::new(name).exists() {
        return errors.into();
    }
    let workloads: Vec<&str> = WORKLOADS.iter().map(|w| w.0).collect();
    let help = format!(
        "presets: digits, {}; workloads: {}; or a model folder",
        presets::NAMES.join(", "),
        workloads.join(", ")
    );
    Diagnostic::new("bench", format!("there is no model or preset `{name}`")).help(help).into()
}

fn heads(request: &Request) -> usize {
    request.heads.unwrap_or(16)
}
fn head_dim(request: &Request) -> usize {
    request.head_dim.unwrap_or(64)
}
fn tokens(request: &Request) -> Result<usize, Error> {
    if request.blocks.is_some() {
        return Err(Diagnostic::new("bench", "`attention` has no blocks").help("leave --blocks out").into());
    }
    let area = request.size.map_or(1024, |s| s[0] * s[1]);
    Ok(request.tokens.unwrap_or(area))
}

/// Attention alone: q, k, v and the result are [batch, heads, tokens, head_dim], scale 1/√head_dim.
fn attention(request: &Request, batch: usize) -> Result<Module, Error> {
    let (heads, tokens, head_dim) = (heads(request), tokens(request)?, head_dim(request));
    let mut module = ModuleBuilder::new("attention");
    module.function(FORWARD, |g| {
        let input = |name| g.input(name, DType::F32, [batch, heads, tokens, head_dim]);
        let (q, k, v) = (input("q"), input("k"), input("v"));
        let scale = selvedge_ir::scalar::F64(1.0 / (head_dim as f64).sqrt());
        let op = selvedge_ir::ops::Attention { scale, causal: false };
        g.output("out", &g.push(op, &[&q, &k, &v]));
    });
    Ok(module.build()?)
}

/// Inputs from [`Random`]: floats uniform in [−1, 1), labels below 8.
pub(crate) fn inputs(module: &Module, function: &str) -> Result<BTreeMap<String, Tensor>, Error> {
    let function = module
        .function(function)
        .ok_or_else(|| Diagnostic::new("bench", format!("the module has no function `{function}`")))?;
    let random = Random::default();
    let all = function.params().into_iter().map(|(name, id)| {
        let tensor = random.scaled(&format!("input {name}"), function.ty(id), 1.0);
        let symbols = || Error::from(Diagnostic::new("bench", format!("input `{name}` has symbols in its type")));
        Ok((name.to_string(), tensor.ok_or_else(symbols)?))
    });
    all.collect()
}
