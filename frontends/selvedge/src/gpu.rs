//! Adapters through the runtime: tensors in and out, errors and facts translated.

use crate::cache::DeviceCache;
use crate::conditions::Conditions;
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::link::LinkedFiles;
use crate::tune::Level;
use selvedge_bundle::Bundle;
use selvedge_bundle::manifest::{Link, Weight};
use selvedge_codegen::target::{Rates, Subgroups, Target};
use selvedge_ir::interp::{Run, RunOutput};
use selvedge_ir::{DType, Data, Diagnostic, Tensor, TensorType};
use selvedge_runtime::{
    Condition, DeviceChoice, DeviceFacts, ErrorKind, HostData, HostTensor, LoadOptions, Profile, Progress, Refill,
    RunRequest, RuntimeError, Stage, Tensors, View, ViewData, Views,
};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An opened adapter, and how kernels are chosen for it.
pub struct Gpu {
    inner: Arc<selvedge_runtime::Gpu>,
    tune: Option<Level>,
}

impl Gpu {
    /// Opens an adapter: the best, or the first whose name contains `name`.
    ///
    /// # Errors
    /// There is none, none of this name (they are listed), or it refuses.
    pub fn open(name: Option<&str>) -> Result<Gpu, Error> {
        let choice = name.map_or(DeviceChoice::Auto, |name| match name.parse() {
            Ok(index) => DeviceChoice::Index(index),
            Err(_) => DeviceChoice::Name(name.to_string()),
        });
        let inner = selvedge_runtime::Gpu::open(&choice).map_err(error)?;
        Ok(Gpu { inner, tune: None })
    }
    /// What it is and offers.
    pub fn facts(&self) -> &DeviceFacts {
        self.inner.facts()
    }
    /// Programs compiled for it have their kernels measured at this level; without one, winners of the cache are used and
    /// nothing is measured.
    pub fn tuned(mut self, level: Option<Level>) -> Gpu {
        self.tune = level;
        self
    }
    /// See [`Gpu::tuned`].
    pub fn tune(&self) -> Option<Level> {
        self.tune
    }
    /// Runs a self-test of a bundle.
    ///
    /// # Errors
    /// [`Error::Device`] names the kernel family that fails.
    pub fn self_test(&self, bytes: &[u8], trusted: bool) -> Result<(), Error> {
        selvedge_runtime::self_test(&self.inner, bytes, trusted).map_err(error)
    }
    /// Opens the same adapter again.
    fn again(&self) -> Result<Gpu, Error> {
        Ok(Gpu::open(Some(&self.facts().index.to_string()))?.tuned(self.tune))
    }
    /// What the compiler must know of it.
    pub fn target(&self) -> Target {
        target(self.facts())
    }
}

/// Limits and features of an adapter as a compilation target.
pub fn target(facts: &DeviceFacts) -> Target {
    let software = facts.driver.contains("llvmpipe");
    Target {
        name: facts.name.clone(),
        max_binding_bytes: facts.max_binding_bytes,
        max_buffer_bytes: facts.max_buffer_bytes,
        storage_buffers: facts.storage_buffers,
        invocations: facts.invocations,
        workgroup_bytes: facts.workgroup_bytes,
        max_groups: facts.max_groups,
        f16: facts.f16,
        gpu: ["discrete", "integrated", "virtual"].contains(&facts.kind.as_str()),
        cooperative: facts.cooperative.clone(),
        wide: facts.int64 && software && (facts.old_compiler() || !avx512()),
        avx512: software && avx512(),
        old_compiler: facts.old_compiler(),
        subgroup: facts.subgroup.map(|(min, max)| Subgroups { min, max }),
        rates: rates(&facts.kind),
        ..Target::portable()
    }
}

/// True if this processor has AVX-512. Recent llvmpipe then gathers words by one instruction for 8 lanes, and loads by pairs cost twice as much
/// (docs/PERFORMANCE.md); older ones load lane by lane.
fn avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// What the kind of an adapter says of its speed.
fn rates(kind: &str) -> Rates {
    match kind {
        "cpu" => Rates::PROCESSOR,
        "integrated" => Rates::INTEGRATED,
        _ => Rates::DISCRETE,
    }
}

/// Loads a plan again, on a fresh device.
pub(crate) type Reload = Box<dyn Fn(&Gpu) -> Result<GpuSession, Error>>;

/// A plan loaded on an adapter.
pub struct GpuSession {
    inner: selvedge_runtime::Session,
    gpu: Gpu,
    /// What to do when the device is lost in the middle of a run.
    reload: Option<Reload>,
    notes: Vec<String>,
    conditions: Conditions<Tensors>,
}

/// File of compiled pipelines in the cache.
const PIPELINES: &str = "pipelines";
/// Devices that one run may lose.
const LOSSES: usize = 2;

impl GpuSession {
    /// Loads the first plan of a bundle; `linked` are the files of its links. `trusted`: this process emitted its kernels,
    /// or the user takes the word of who did; they run without bounds checks and loop bounding. Compiled pipelines are
    /// kept in the cache where wgpu can.
    ///
    /// # Errors
    /// The adapter lacks what the bundle needs, a weight is damaged, device trouble.
    pub fn load(
        gpu: &Gpu,
        bundle: &Bundle<'_>,
        linked: &LinkedFiles,
        trusted: bool,
        events: &mut Observer,
    ) -> Result<GpuSession, Error> {
        GpuSession::load_staged(gpu, bundle, linked, trusted, None, events)
    }
    /// As [`GpuSession::load`]; with `staged`, weights that one stage alone reads are on the device only while it runs, and come
    /// from there each time.
    ///
    /// # Errors
    /// As [`GpuSession::load`].
    pub fn load_staged(
        gpu: &Gpu,
        bundle: &Bundle<'_>,
        linked: &LinkedFiles,
        trusted: bool,
        staged: Option<Refill>,
        events: &mut Observer,
    ) -> Result<GpuSession, Error> {
        if let Some(plan) = bundle.manifest().plans.first() {
            events(Event::Peak(if staged.is_some() { plan.staged_peak_bytes() } else { plan.peak_bytes() }));
        }
        let read = |_: &Weight, link: &Link| linked.bytes(link).map(Cow::Borrowed).map_err(|e| e.to_string());
        let cache = DeviceCache::of(gpu);
        let known = cache.read(PIPELINES);
        let pipelines = known.as_deref();
        let options =
            LoadOptions { trusted, warm_up: true, staged, linked: Some(&read), pipelines, ..LoadOptions::default() };
        let mut progress = |p: Progress| {
            events(match p.stage {
                Stage::Weights => Event::Upload { done: p.done, total: p.total },
                Stage::Pipelines => Event::Pipelines { done: p.done, total: p.total },
                Stage::WarmUp => Event::WarmUp { done: p.done, total: p.total },
            });
        };
        let inner = selvedge_runtime::Session::load(&gpu.inner, bundle, 0, &options, &mut progress).map_err(error)?;
        if let Some(why) = inner.pipeline_cache_ignored() {
            events(Event::Note(format!("compiled pipelines of the cache are not used: {why}")));
        }
        if let Some(bytes) = inner.pipeline_cache().filter(|bytes| known.as_ref() != Some(bytes)) {
            cache.write(PIPELINES, &bytes);
        }
        let gpu = Gpu { inner: gpu.inner.clone(), tune: gpu.tune };
        Ok(GpuSession { inner, gpu, reload: None, notes: Vec::new(), conditions: Conditions::default() })
    }
    /// A run that loses its device goes on with a session that `reload` makes.
    pub(crate) fn reloading(mut self, reload: Reload) -> GpuSession {
        self.reload = Some(reload);
        self
    }
    /// What went another way than expected since the last time.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
    /// The device, for tests that lose it.
    pub fn device(&self) -> &Arc<selvedge_runtime::Gpu> {
        &self.gpu.inner
    }
    /// What `condition` gave.
    pub(crate) fn conditions(&mut self) -> &mut Conditions<Tensors> {
        &mut self.conditions
    }
    /// Names of the inputs of `condition`; `None` if there is none, or if it may leave something in states.
    fn conditioning(&self) -> Option<Vec<String>> {
        let plan = self.inner.plan();
        let schedule = plan.schedule.as_ref().filter(|s| s.states.is_empty())?;
        let function = plan.functions.iter().find(|f| Some(&f.name) == schedule.condition.as_ref())?;
        Some(function.inputs.iter().map(|port| port.name.clone()).collect())
    }
    /// Bytes allocated on the device for the plan.
    pub fn peak_bytes(&self) -> u64 {
        self.inner.memory().allocated
    }
    /// See [`crate::Session::run`].
    ///
    /// # Errors
    /// As there.
    pub fn run(&mut self, run: &Run, progress: &mut dyn FnMut(usize)) -> Result<RunOutput, Error> {
        let mut request = RunRequest {
            inputs: all_to_device(&run.inputs),
            steps: run.steps.iter().map(|&s| s as u32).collect(),
            tables: all_to_device(&run.tables),
            trace: run.trace.clone(),
            ..RunRequest::default()
        };
        let names = self.conditioning();
        let kept = names.as_ref().filter(|_| self.conditions.kept());
        let names = names.iter().flatten().map(String::as_str);
        request.condition = match kept {
            None => Condition::Run,
            Some(_) => self.conditions.find(names.clone(), &run.inputs).map_or(Condition::Keep, Condition::Given),
        };
        let mut losses = 0;
        let mut result = loop {
            match (self.inner.run(&request, &mut |report| progress(report.step)), &self.reload) {
                (Err(RuntimeError::DeviceLost(why)), Some(reload)) if losses < LOSSES => {
                    losses += 1;
                    request.resume = self.inner.checkpoint().cloned();
                    let step = request.resume.as_ref().map_or(0, |held| held.step);
                    let fresh = reload(&self.gpu.again()?)?;
                    (self.inner, self.gpu) = (fresh.inner, fresh.gpu);
                    self.notes.push(format!(
                        "the device was lost ({why}); the run went on from step {} of {} on a fresh one",
                        step + 1,
                        request.steps.len()
                    ));
                }
                (result, _) => break result.map_err(error)?,
            }
        };
        if let Some(bytes) = match &request.condition {
            Condition::Given(_) => None,
            Condition::Run => self.conditioning().map(|_| 0),
            Condition::Keep => Some(result.conditioned.values().map(|t| t.shape.iter().product::<u64>() * 4).sum()),
        } {
            self.conditions.runs += 1;
            if kept.is_some() {
                self.conditions.insert(names, &run.inputs, std::mem::take(&mut result.conditioned), bytes);
            }
        }
        let plan = self.inner.plan();
        let mut types = BTreeMap::new();
        let schedule = plan.schedule.iter().flat_map(|s| s.carry.iter().chain(&s.trace));
        for port in plan.functions.iter().flat_map(|f| &f.outputs).chain(schedule) {
            types.insert(port.name.as_str(), port.dtype.as_str());
        }
        let outputs = all_from_device(result.outputs, &types)?;
        let mut trace: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
        for step in result.trace {
            for (name, tensor) in all_from_device(step, &types)? {
                trace.entry(name).or_default().push(tensor);
            }
        }
        Ok(RunOutput { outputs, trace })
    }
    /// See [`crate::Session::call`].
    ///
    /// # Errors
    /// As there.
    pub fn call(
        &mut self,
        function: &str,
        inputs: &BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>, Error> {
        let result = self.inner.call_views(function, &all_views(inputs)).map_err(error)?;
        let found = self.inner.plan().functions.iter().find(|f| f.name == function);
        let ports = found.into_iter().flat_map(|f| &f.outputs);
        let types: BTreeMap<&str, &str> = ports.map(|p| (p.name.as_str(), p.dtype.as_str())).collect();
        all_from_device(result, &types)
    }
    /// Milliseconds of further runs of a function on what its inputs hold.
    ///
    /// # Errors
    /// No such function, device trouble.
    pub fn time(&mut self, function: &str, runs: usize) -> Result<Vec<f64>, Error> {
        Ok(self.inner.bench(function, runs).map_err(error)?.samples)
    }
    /// Milliseconds of one more run of a function, from its submit to its end, on what its inputs hold.
    ///
    /// # Errors
    /// No such function, device trouble.
    pub fn again(&mut self, function: &str) -> Result<f64, Error> {
        self.inner.once(function).map_err(error)
    }
    /// The time of each dispatch of a function, on what its inputs hold.
    ///
    /// # Errors
    /// No such function, device trouble.
    pub fn profile(&mut self, function: &str) -> Result<Profile, Error> {
        self.inner.profile(function).map_err(error)
    }
}

fn all_to_device(tensors: &BTreeMap<String, Tensor>) -> Tensors {
    tensors.iter().map(|(name, t)| (name.clone(), to_device(t))).collect()
}

fn to_device(tensor: &Tensor) -> HostTensor {
    let View { shape, data } = view(tensor);
    let data = match data {
        ViewData::F32(v) => HostData::F32(v.into_owned()),
        ViewData::I32(v) => HostData::I32(v.into_owned()),
        ViewData::U32(v) => HostData::U32(v.into_owned()),
    };
    HostTensor { shape, data }
}

fn all_views(tensors: &BTreeMap<String, Tensor>) -> Views<'_> {
    tensors.iter().map(|(name, t)| (name.clone(), view(t))).collect()
}

fn view(tensor: &Tensor) -> View<'_> {
    let data = match &tensor.data {
        Data::F32(v) => ViewData::F32(v.into()),
        Data::F64(v) => ViewData::F32(v.iter().map(|&x| x as f32).collect()),
        Data::I32(v) => ViewData::I32(v.into()),
        Data::U32(v) => ViewData::U32(v.into()),
        Data::Bool(v) => ViewData::U32(v.iter().map(|&b| b as u32).collect()),
    };
    View { shape: tensor.sizes().iter().map(|&n| n as u64).collect(), data }
}

fn all_from_device(tensors: Tensors, types: &BTreeMap<&str, &str>) -> Result<BTreeMap<String, Tensor>, Error> {
    let convert = |(name, tensor): (String, HostTensor)| {
        let dtype = types.get(name.as_str()).and_then(|d| DType::plain(d)).ok_or_else(|| {
            Error::Internal(Diagnostic::new("gpu", format!("the plan does not say the dtype of `{name}`")))
        })?;
        let sizes: Vec<usize> = tensor.shape.iter().map(|&n| n as usize).collect();
        let data = match (tensor.data, dtype) {
            (HostData::U32(v), DType::Bool) => Data::Bool(v.into_iter().map(|x| x != 0).collect()),
            (HostData::F32(v), _) => Data::F32(v),
            (HostData::I32(v), _) => Data::I32(v),
            (HostData::U32(v), _) => Data::U32(v),
        };
        Ok((name, Tensor::new(TensorType::new(dtype, sizes), data)))
    };
    tensors.into_iter().map(convert).collect()
}

/// The runtime's errors by whose trouble they are.
fn error(e: RuntimeError) -> Error {
    let diagnostic = match &e {
        RuntimeError::NoAdapter => {
            Diagnostic::new("device", e.to_string()).help("use --device host, or install a driver")
        }
        RuntimeError::UnknownDevice { name, devices } => {
            let list = if devices.is_empty() { "none".to_string() } else { devices.join("; ") };
            Diagnostic::new("device", format!("no device matches `{name}`")).help(format!("devices: {list}; or host"))
        }
        RuntimeError::Unsupported { device, target, missing } => {
            let list: Vec<String> = missing.iter().map(ToString::to_string).collect();
            Diagnostic::new(
                "device",
                format!("{device} lacks what this bundle (target {target}) needs: {}", list.join("; ")),
            )
            .help("compile it for `portable`, or for this device with `--target this`")
        }
        RuntimeError::BadInput(_)
        | RuntimeError::Bundle(_)
        | RuntimeError::OutOfMemory { .. }
        | RuntimeError::DeviceLost(_)
        | RuntimeError::SelfTest { .. }
        | RuntimeError::Validation { .. }
        | RuntimeError::Sick { .. } => Diagnostic::new("device", e.to_string()),
    };
    match e.kind() {
        ErrorKind::Input => Error::Input(diagnostic.into()),
        ErrorKind::Device | ErrorKind::Result => Error::Device(diagnostic),
    }
}
