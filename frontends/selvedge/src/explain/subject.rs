//! What is explained: a plan with the modules that led to it.

use crate::bench;
use crate::compile::{self, Compiled, Options};
use crate::error::Error;
use crate::open::{Opened, Source};
use crate::presets;
use crate::weights::{Cached, Random, Weights};
use selvedge_bundle::manifest::Manifest;
use selvedge_codegen::Tunable;
use selvedge_import::cases;
use selvedge_ir::{Diagnostic, Module};
use selvedge_passes::Notes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A plan, and how it came to be.
pub struct Explained {
    /// The plan.
    pub manifest: Manifest,
    /// What its kernels compute.
    pub module: Module,
    /// What the passes told.
    pub notes: Notes,
    /// Units with a choice of kernels.
    pub tunables: BTreeMap<String, Tunable>,
    /// What led to it; a compiled file does not know.
    pub history: Option<History>,
}

/// A module on its way.
pub struct History {
    /// As the model code says it.
    pub written: Module,
    /// As the rewrite rules get it: hoisted, each distinct block a function, composites and bodies in primitives.
    pub given: Module,
    /// As the rules leave it, before maps are merged; none without rules.
    pub rewritten: Option<Module>,
}

impl Explained {
    /// Opens and compiles whatever has a plan: a compiled file, a preset of `bench`, a shipped model, a model folder, or a fixture
    /// folder of `check`.
    ///
    /// # Errors
    /// There is nothing of this name, or what there is, is damaged or of an unknown kind; see [`compile::compile`].
    pub fn open(name: &str, batch: usize, options: &Options) -> Result<Explained, Error> {
        let path = Path::new(name);
        let one = presets::Options { batch: Some(batch), ..presets::Options::default() };
        if !path.exists() && (name == "attention" || presets::preset(name, &one).is_some()) {
            let module = bench::preset_module(name, Some(batch).filter(|b| *b != 1))?;
            return Explained::of(module, Arc::new(Random::default()), Value::Null, options);
        }
        match Opened::open(name) {
            Ok(Opened::Bundle(file)) => Ok(Explained {
                manifest: file.manifest()?,
                module: file.module()?,
                notes: Notes::default(),
                tunables: BTreeMap::new(),
                history: None,
            }),
            Ok(model @ Opened::Model(_)) => match model.source(batch, None)? {
                Source::Program { program, weights, .. } => {
                    let pipeline = compile::pipeline(&program.info);
                    Explained::of(program.module, weights, pipeline, options)
                }
                Source::Bundle { file, .. } => {
                    Err(Diagnostic::new("explain", format!("`{}` is compiled", file.path)).into())
                }
            },
            // Parts of pipelines and older checkpoints have no sampler of their own; their fixtures can be run all the same.
            Err(_) if path.join("io.safetensors").exists() => {
                let mut runs = cases::open(path)?.runs;
                if runs.is_empty() {
                    return Err(Diagnostic::new("explain", format!("`{name}` runs nothing")).into());
                }
                let run = runs.remove(0);
                Explained::of(run.module, Arc::new(Cached::new(run.weights)), Value::Null, options)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn of(module: Module, weights: Weights, pipeline: Value, options: &Options) -> Result<Explained, Error> {
        let compiled: Compiled = compile::compile(module.clone(), weights, pipeline, options)?;
        let (given, rewritten) = compile::around_rules(module.clone(), options)?;
        Ok(Explained {
            manifest: compiled.manifest().clone(),
            module: compiled.module().clone(),
            notes: compiled.notes().clone(),
            tunables: compiled.tunables().clone(),
            history: Some(History { written: module, given, rewritten }),
        })
    }
}
