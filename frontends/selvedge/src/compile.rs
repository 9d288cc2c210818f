//! The compiler's line: passes, code generation, the artefact.

mod passes;
mod settings;
mod stored;

use crate::device::Device;
use crate::dump::Dump;
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::explain;
use crate::gpu::{Gpu, GpuSession};
use crate::link;
use crate::memory::{self, Residency};
use crate::quantize;
use crate::selftest;
use crate::session::Session;
use crate::target::Target;
use crate::tune;
use crate::weights::{Weights, bundle_bytes};
use rayon::prelude::*;
use selvedge_bundle::manifest::{Manifest, Weight};
use selvedge_bundle::{Bundle, BundleError, UNHASHED};
use selvedge_codegen::{Choices, Tunable};
use selvedge_ir::{Diagnostic, Module, TensorType};
use selvedge_passes::hoist::Savings;
use selvedge_runtime::Refill;
use selvedge_zoo::program::PipelineInfo;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) use passes::{Placing, around_rules, optimised, passes};
pub use passes::{optimise, specialise};
pub use selvedge_passes::{Notes, Optimizer};
pub use settings::{Options, Settings};
pub(crate) use stored::{halved, written_out};

/// A compiled program.
pub struct Compiled {
    manifest: Manifest,
    kernels: Vec<String>,
    /// Bytes of weights that the code generator made, by index.
    constants: BTreeMap<u32, Vec<u8>>,
    module: Module,
    weights: Weights,
    stages: Vec<(String, Duration)>,
    notes: Notes,
    tunables: BTreeMap<String, Tunable>,
    target: Target,
    unfused: bool,
    /// What it was compiled from, and how.
    source: Arc<(Module, Options)>,
    /// Files that the front end needs, by name.
    files: BTreeMap<String, Vec<u8>>,
}

/// Bytes of weights that are read before the memory of their pages is given back.
const MAPPED: u64 = 128 << 20;

/// What compiling took and gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The target's name.
    pub target: String,
    /// Dispatches of all functions.
    pub dispatches: usize,
    /// Distinct kernels.
    pub kernels: usize,
    /// Device memory of the plan, weights included.
    pub peak_bytes: u64,
    /// What hoisting took out of the steps.
    pub hoisted: Option<Savings>,
    /// Time of each stage.
    pub stages: Vec<(String, Duration)>,
}

impl Report {
    /// `{"target", "dispatches", "kernels", "peak_bytes", "hoisted": {…}, "stages_ms": {…}}`; `hoisted` is null without steps and
    /// else `{"operators", "operators_before", "flops_moved", "flops_per_step", "bytes_per_step", "table_rows", "table_bytes"}`.
    pub fn to_json(&self) -> Value {
        // A pass may run twice.
        let mut stages: BTreeMap<&str, f64> = BTreeMap::new();
        self.stages.iter().for_each(|(n, t)| *stages.entry(n).or_default() += t.as_secs_f64() * 1e3);
        let hoisted = self.hoisted.as_ref().map(savings_json);
        json!({
            "target": self.target, "dispatches": self.dispatches, "kernels": self.kernels,
            "peak_bytes": self.peak_bytes, "hoisted": hoisted, "stages_ms": stages,
        })
    }
}

/// `{"operators", "operators_before", "flops_moved", "flops_per_step", "bytes_per_step", "table_rows", "table_bytes"}`
pub(crate) fn savings_json(h: &Savings) -> Value {
    json!({
        "operators": h.operators, "operators_before": h.operators_before, "flops_moved": h.moved_flops,
        "flops_per_step": h.flops, "bytes_per_step": h.bytes, "table_rows": h.rows, "table_bytes": h.table_bytes,
    })
}

impl Compiled {
    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
    /// What the passes have to tell.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }
    /// The module that the kernels compute.
    pub fn module(&self) -> &Module {
        &self.module
    }
    /// Units that could be computed in several ways, by key.
    pub fn tunables(&self) -> &BTreeMap<String, Tunable> {
        &self.tunables
    }
    /// The same program with other kernels, by the keys of units; units without a choice have the default.
    ///
    /// # Errors
    /// A choice with which it does not compile.
    pub fn again(&self, choices: &Choices) -> Result<Compiled, Error> {
        let (size, unfused, choices) = (size(&self.manifest.pipeline), self.unfused, choices.clone());
        let options = selvedge_codegen::Options { size, unfused, choices, ..Default::default() };
        let lowered = selvedge_codegen::compile(&self.module, &self.target, &options).map_err(refused)?;
        let mut manifest = lowered.manifest;
        manifest.pipeline = self.manifest.pipeline.clone();
        manifest.plans[0].chosen = self.manifest.plans[0].chosen.clone();
        self.same_weights(&mut manifest);
        Ok(Compiled {
            manifest,
            kernels: lowered.kernels,
            constants: lowered.constants,
            module: self.module.clone(),
            weights: self.weights.clone(),
            stages: self.stages.clone(),
            notes: self.notes.clone(),
            tunables: lowered.tunables,
            target: self.target.clone(),
            unfused: self.unfused,
            source: self.source.clone(),
            files: self.files.clone(),
        })
    }
    /// Hashes and links of weights that this plan has, too.
    fn same_weights(&self, manifest: &mut Manifest) {
        for weight in &mut manifest.weights {
            if let Some(known) = self.manifest.weights.iter().find(|w| w.name == weight.name) {
                (weight.hash, weight.link) = (known.hash.clone(), known.link.clone());
            }
        }
    }
    /// Which of the best programs each function has; see [`Settings::ranks`].
    pub fn ranks(&self) -> &BTreeMap<String, usize> {
        &self.source.1.settings.ranks
    }
    /// The same program with others of the best programs of functions; see [`Settings::ranks`].
    ///
    /// # Errors
    /// As [`compile`].
    pub fn ranked(&self, ranks: &BTreeMap<String, usize>) -> Result<Compiled, Error> {
        let (module, options) = self.source.as_ref();
        let settings = Settings { ranks: ranks.clone(), ..options.settings.clone() };
        let options = Options { dump: None, settings, ..options.clone() };
        let pipeline = self.manifest.pipeline.clone();
        let mut other = compile(module.clone(), self.weights.clone(), pipeline, &options)?;
        self.same_weights(&mut other.manifest);
        other.files = self.files.clone();
        Ok(other)
    }
    /// Says in the plan how it was chosen.
    pub fn set_chosen(&mut self, how: String) {
        self.manifest.plans[0].chosen = how;
    }
    /// Self-tests of the kernel families of the plan; see [`crate::selftest`].
    ///
    /// # Errors
    /// A fault of the compiler.
    pub fn self_tests(&self) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let families = self.manifest.kernels.iter().map(|k| k.name.clone()).collect();
        selftest::vectors(&self.target, &families)
    }
    /// What compiling took and gave.
    pub fn report(&self) -> Report {
        let hashes: BTreeSet<&str> = self.manifest.kernels.iter().map(|k| k.hash.as_str()).collect();
        let functions = self.manifest.plans.iter().flat_map(|p| &p.functions);
        Report {
            target: self.manifest.target.name.clone(),
            dispatches: functions.map(|f| f.dispatches.len()).sum(),
            kernels: hashes.len(),
            peak_bytes: self.manifest.plans.iter().map(|p| p.peak_bytes()).max().unwrap_or(0),
            hoisted: self.notes.hoisted.clone(),
            stages: self.stages.clone(),
        }
    }
    /// Puts a file that the front end needs into the artefact.
    pub fn add_file(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.insert(name.to_string(), bytes);
    }
    /// Leaves the weights in their checkpoint: the artefact, which is to be written into `folder`, names file, offset, bytes
    /// and hash of each. Weights that the checkpoint stores in another form stay embedded.
    ///
    /// # Errors
    /// Weights that come from no file, such as those of shipped models.
    pub fn link_weights(&mut self, folder: &Path) -> Result<(), Error> {
        for (weight, index) in self.manifest.weights.iter_mut().zip(0u32..) {
            if self.constants.contains_key(&index) {
                continue;
            }
            let location = self.weights.location(&weight.name, declared(&self.module, &weight.name)?)?;
            weight.link = location.map(|l| link::link(&l, folder)).transpose()?;
        }
        Ok(())
    }
    /// The artefact for this process: a weight's bytes are made or borrowed when they are wanted, and are not hashed.
    ///
    /// # Errors
    /// Parts that do not fit each other: a fault of the compiler.
    pub fn bundle(&self) -> Result<Bundle<'_>, Error> {
        let mut manifest = self.manifest.clone();
        for weight in manifest.weights.iter_mut().filter(|w| w.hash.is_empty()) {
            weight.hash = UNHASHED.to_string();
        }
        self.with_manifest(manifest)
    }
    /// The artefact as it is written: every weight has its hash.
    ///
    /// # Errors
    /// A weight that cannot be read.
    pub fn hashed(&self) -> Result<Bundle<'_>, Error> {
        let mut manifest = self.manifest.clone();
        let hash = |weight: &mut Weight| -> Result<(), Error> {
            let ty = declared(&self.module, &weight.name)?;
            weight.hash = selvedge_bundle::hash(&bundle_bytes(self.weights.as_ref(), &weight.name, ty)?);
            Ok(())
        };
        manifest.weights.par_iter_mut().filter(|w| w.hash.is_empty()).try_for_each(hash)?;
        let mut bundle = self.with_manifest(manifest)?;
        self.self_tests()?.into_iter().for_each(|(family, bytes)| bundle.add_selftest(&family, bytes));
        Ok(bundle)
    }
    fn with_manifest(&self, manifest: Manifest) -> Result<Bundle<'_>, Error> {
        let names = self.manifest.weights.iter().map(|w| w.name.as_str()).zip(0u32..);
        let made: BTreeMap<&str, &Vec<u8>> =
            names.filter_map(|(name, i)| Some((name, self.constants.get(&i)?))).collect();
        let read = AtomicU64::new(0);
        let mut bundle = Bundle::streamed(manifest, self.kernels.clone(), self.module.to_string(), move |weight| {
            if let Some(bytes) = made.get(weight.name.as_str()) {
                return Ok(Cow::Borrowed(bytes.as_slice()));
            }
            let ty = declared(&self.module, &weight.name).map_err(|e| e.to_string())?;
            let bytes = bundle_bytes(self.weights.as_ref(), &weight.name, ty).map_err(|e| e.to_string())?;
            if read.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64 > MAPPED {
                read.store(0, Ordering::Relaxed);
                self.weights.release();
            }
            Ok(bytes)
        })
        .map_err(internal)?;
        self.files.iter().for_each(|(name, bytes)| bundle.add_file(name, Cow::Borrowed(bytes)));
        Ok(bundle)
    }
    /// Bytes of a weight, by its index in the manifest.
    fn weight(&self, index: usize) -> Result<Vec<u8>, String> {
        let weight = self.manifest.weights.get(index).ok_or_else(|| format!("there is no weight {index}"))?;
        if let Some(bytes) = u32::try_from(index).ok().and_then(|i| self.constants.get(&i)) {
            return Ok(bytes.clone());
        }
        let ty = declared(&self.module, &weight.name).map_err(|e| e.to_string())?;
        bundle_bytes(self.weights.as_ref(), &weight.name, ty).map(Cow::into_owned).map_err(|e| e.to_string())
    }
    /// Loads it on an adapter; if it loses its device, it is loaded again in the same way.
    ///
    /// # Errors
    /// A weight that cannot be read, device trouble.
    pub fn load(self: &Arc<Self>, gpu: &Gpu, residency: Residency, events: &mut Observer) -> Result<GpuSession, Error> {
        let refill = self.clone();
        let staged = (residency == Residency::Staged).then(|| Arc::new(move |i| refill.weight(i)) as Refill);
        let session = GpuSession::load_staged(gpu, &self.bundle()?, &Default::default(), true, staged, events)?;
        let again = self.clone();
        Ok(session.reloading(Box::new(move |gpu| again.load(gpu, residency, &mut |_| {}))))
    }
    /// Changes the texts of kernels by their families: how tests plant bugs.
    pub(crate) fn edit_kernels(&mut self, edit: &dyn Fn(&str, String) -> String) {
        for (kernel, text) in self.manifest.kernels.iter_mut().zip(&mut self.kernels) {
            *text = edit(&kernel.name, std::mem::take(text));
            kernel.hash = selvedge_bundle::hash(text.as_bytes());
        }
    }
    /// Writes the artefact's file and returns the number of bytes.
    ///
    /// # Errors
    /// A weight that cannot be read; what the writer says.
    pub fn write_to(&self, out: &mut impl Write) -> Result<u64, Error> {
        let failed = |source| BundleError::Io { action: "write", path: PathBuf::from("the output"), source };
        self.hashed()?.write_to(out, failed).map_err(written)
    }
    /// The artefact as a file's bytes.
    ///
    /// # Errors
    /// A weight that cannot be read.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.hashed()?.to_bytes().map_err(written)
    }
}

fn internal(e: BundleError) -> Error {
    Error::Internal(Diagnostic::new("bundle", e.to_string()))
}

/// What is wrong when a file cannot be written: the disk's or a weight's fault.
fn written(e: BundleError) -> Error {
    Error::input("bundle", e.to_string())
}

/// A bundle without weights and module: kernels that the code generator made for their own sake.
///
/// # Errors
/// The parts do not fit each other.
pub(crate) fn parts(manifest: Manifest, kernels: Vec<String>) -> Result<Bundle<'static>, Error> {
    Bundle::new(manifest, kernels, String::new(), |weight| Err(format!("weight `{}` has no source", weight.name)))
        .map_err(|e| Error::Internal(Diagnostic::new("bundle", e.to_string())))
}

/// Code generation alone, of a module that went through the passes.
///
/// # Errors
/// As [`compile`].
pub(crate) fn lowered(module: Module, weights: Weights, options: &Options) -> Result<Compiled, Error> {
    let unfused = options.settings.optimizer == Optimizer::None;
    let how = selvedge_codegen::Options { unfused, ..Default::default() };
    let lowered = selvedge_codegen::compile(&module, &options.target, &how).map_err(refused)?;
    let (manifest, kernels, constants) = (lowered.manifest, lowered.kernels, lowered.constants);
    let source = Arc::new((module.clone(), options.clone()));
    let (stages, notes, target, tunables) = (Vec::new(), Notes::default(), options.target.clone(), lowered.tunables);
    Ok(Compiled {
        manifest,
        kernels,
        constants,
        module,
        weights,
        stages,
        notes,
        target,
        tunables,
        unfused,
        source,
        files: BTreeMap::new(),
    })
}

/// Compiles a module with its weights; `pipeline` travels in the manifest.
///
/// # Errors
/// Symbols left in the module, weights that cannot be read, a program that does not fit the target.
pub fn compile(module: Module, weights: Weights, pipeline: Value, options: &Options) -> Result<Compiled, Error> {
    let mut dump = Dump::new(options.dump.as_deref())?;
    let mut stages = Vec::new();
    let source = Arc::new((module.clone(), options.clone()));
    let all = passes(&options.settings, &options.target, Placing::ByPlan);
    let mut notes = Notes::default();
    let started = Instant::now();
    let (module, weights, quantised) = quantize::apply(module, weights, &options.settings)?;
    if let Some(report) = &quantised {
        stages.push(("quantize".to_string(), started.elapsed()));
        notes.lines.push(report.to_string());
    }
    let own: BTreeSet<String> = module.functions.iter().map(|f| f.name.clone()).collect();
    let mut module = passes::run_passes(module, all.iter().map(Box::as_ref), &mut dump, &mut stages, &mut notes)?;
    if options.settings.half_activations {
        module = halved(module, &weights, &pipeline, &mut dump, &mut stages, &mut notes)?;
    }
    module = written_out(module, &own, &mut dump, &mut stages, &mut notes)?;
    let started = Instant::now();
    let unfused = options.settings.optimizer == Optimizer::None;
    let size = selvedge_codegen::Options { size: size(&pipeline), unfused, ..Default::default() };
    let lowered = selvedge_codegen::compile(&module, &options.target, &size).map_err(refused)?;
    stages.push(("codegen".to_string(), started.elapsed()));
    let mut manifest = lowered.manifest;
    manifest.pipeline = pipeline;
    let how = match options.settings.optimizer {
        Optimizer::None => "as the model says",
        Optimizer::Greedy | Optimizer::Saturate => "by the cost model",
    };
    manifest.plans.iter_mut().for_each(|p| p.chosen = how.to_string());
    manifest.weights.iter().filter(|w| w.hash.is_empty()).try_for_each(|w| declared(&module, &w.name).map(|_| ()))?;
    dump.stage("plan.txt", || explain::text(&manifest, None, true))?;
    dump.kernels(manifest.kernels.iter().zip(&lowered.kernels).map(|(k, text)| (k.name.as_str(), text.as_str())))?;
    let files = BTreeMap::new();
    Ok(Compiled {
        manifest,
        kernels: lowered.kernels,
        constants: lowered.constants,
        module,
        weights,
        stages,
        notes,
        tunables: lowered.tunables,
        target: options.target.clone(),
        unfused,
        source,
        files,
    })
}

fn declared<'m>(module: &'m Module, name: &str) -> Result<&'m TensorType, Error> {
    module.weights.iter().find(|w| w.name == name).map(|w| &w.ty).ok_or_else(|| {
        Error::Internal(Diagnostic::new(
            "compile",
            format!("the plan has a weight `{name}` that the module does not declare"),
        ))
    })
}

/// What the code generator says: the program and the target do not fit, or it has a fault.
fn refused(errors: selvedge_ir::Diagnostics) -> Error {
    match errors.0.iter().find(|d| d.code == "codegen internal") {
        Some(fault) => Error::Internal(fault.clone()),
        None => Error::Input(errors),
    }
}

/// The compiled size, for people.
fn size(pipeline: &Value) -> String {
    match serde_json::from_value::<PipelineInfo>(pipeline.clone()) {
        Ok(info) => {
            let [_, height, width] = info.image_shape.unwrap_or(info.latent_shape);
            format!("batch={} height={height} width={width}", info.batch)
        }
        Err(_) => "as written".to_string(),
    }
}

/// Makes a module ready on a device.
///
/// # Errors
/// As [`compile`]; device trouble.
pub fn session(
    module: Module,
    weights: Weights,
    pipeline: Value,
    device: &Device,
    events: &mut Observer,
) -> Result<Session, Error> {
    session_with(module, weights, pipeline, device, &Settings::default(), events)
}

/// [`session`] with settings.
///
/// # Errors
/// As [`session`].
pub fn session_with(
    module: Module,
    weights: Weights,
    pipeline: Value,
    device: &Device,
    settings: &Settings,
    events: &mut Observer,
) -> Result<Session, Error> {
    match device {
        Device::Host => {
            let options = Options { settings: settings.clone(), ..Options::new(device.target()) };
            let (module, weights, _) = quantize::apply(module, weights, settings)?;
            let (mut module, mut notes) = optimised(module, &options)?;
            if settings.half_activations {
                module = halved(module, &weights, &pipeline, &mut Dump::new(None)?, &mut Vec::new(), &mut notes)?;
            }
            Ok(Session::host(module, weights))
        }
        Device::Gpu(gpu) => {
            let options = Options { settings: settings.clone(), ..Options::new(gpu.target()) };
            let budget = settings.max_memory.or_else(|| memory::available(device));
            let (compiled, residency) = memory::compile_to_fit(module, weights, pipeline, &options, budget)?;
            let ready = tune::ready(gpu, compiled, residency, events)?;
            if ready.report.measured > 0 {
                events(Event::Note(ready.report.lines().join("\n")));
            }
            Ok(Session::gpu(ready.session))
        }
    }
}

/// A pipeline's facts as a manifest carries them.
pub fn pipeline(info: &PipelineInfo) -> Value {
    serde_json::to_value(info).expect("a pipeline has string keys and finite numbers only")
}
