//! Adapters through the runtime: tensors in and out, errors and facts translated.

use crate::error::Error;
use crate::event::{Event, Observer};
use crate::link::LinkedFiles;
use selvedge_bundle::Bundle;
use selvedge_bundle::manifest::{Link, Weight};
use selvedge_codegen::target::{Rates, Subgroups, Target};
use selvedge_ir::interp::{Run, RunOutput};
use selvedge_ir::{DType, Data, Diagnostic, Tensor, TensorType};
use selvedge_runtime::{
    DeviceChoice, DeviceFacts, ErrorKind, HostData, HostTensor, LoadOptions, Profile, Progress, RunRequest,
    RuntimeError, Stage, Tensors,
};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An opened adapter.
pub struct Gpu(Arc<selvedge_runtime::Gpu>);

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
        selvedge_runtime::Gpu::open(&choice).map(Gpu).map_err(error)
    }
    /// What it is and offers.
    pub fn facts(&self) -> &DeviceFacts {
        self.0.facts()
    }
    /// What the compiler must know of it.
    pub fn target(&self) -> Target {
        target(self.facts())
    }
}

/// Limits and features of an adapter as a compilation target.
pub fn target(facts: &DeviceFacts) -> Target {
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
        wide: facts.int64 && facts.driver.contains("llvmpipe"),
        subgroup: facts.subgroup.map(|(min, max)| Subgroups { min, max }),
        rates: rates(&facts.kind),
        ..Target::portable()
    }
}

/// What the kind of an adapter says of its speed.
fn rates(kind: &str) -> Rates {
    match kind {
        "cpu" => Rates::PROCESSOR,
        "integrated" => Rates::INTEGRATED,
        _ => Rates::DISCRETE,
    }
}

/// A plan loaded on an adapter.
pub struct GpuSession(selvedge_runtime::Session);

impl GpuSession {
    /// Loads the first plan of a bundle; `linked` are the files of its links. `trusted`: this process emitted its kernels,
    /// or the user takes the word of who did; they run without bounds checks and loop bounding.
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
        if let Some(plan) = bundle.manifest().plans.first() {
            events(Event::Peak(plan.peak_bytes()));
        }
        let read = |_: &Weight, link: &Link| linked.bytes(link).map(Cow::Borrowed).map_err(|e| e.to_string());
        let options = LoadOptions { trusted, warm_up: true, linked: Some(&read) };
        let mut progress = |p: Progress| {
            events(match p.stage {
                Stage::Weights => Event::Upload { done: p.done, total: p.total },
                Stage::Pipelines => Event::Pipelines { done: p.done, total: p.total },
                Stage::WarmUp => Event::WarmUp { done: p.done, total: p.total },
            });
        };
        selvedge_runtime::Session::load(&gpu.0, bundle, 0, &options, &mut progress).map(GpuSession).map_err(error)
    }
    /// Bytes allocated on the device for the plan.
    pub fn peak_bytes(&self) -> u64 {
        self.0.memory().allocated
    }
    /// See [`crate::Session::run`].
    ///
    /// # Errors
    /// As there.
    pub fn run(&mut self, run: &Run, progress: &mut dyn FnMut(usize)) -> Result<RunOutput, Error> {
        let request = RunRequest {
            inputs: all_to_device(&run.inputs),
            steps: run.steps.iter().map(|&s| s as u32).collect(),
            tables: all_to_device(&run.tables),
            trace: run.trace.clone(),
            ..RunRequest::default()
        };
        let result = self.0.run(&request, &mut |report| progress(report.step)).map_err(error)?;
        let plan = self.0.plan();
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
        let result = self.0.call(function, &all_to_device(inputs)).map_err(error)?;
        let found = self.0.plan().functions.iter().find(|f| f.name == function);
        let ports = found.into_iter().flat_map(|f| &f.outputs);
        let types: BTreeMap<&str, &str> = ports.map(|p| (p.name.as_str(), p.dtype.as_str())).collect();
        all_from_device(result, &types)
    }
    /// Milliseconds of further runs of a function on what its inputs hold.
    ///
    /// # Errors
    /// No such function, device trouble.
    pub fn time(&mut self, function: &str, runs: usize) -> Result<Vec<f64>, Error> {
        Ok(self.0.bench(function, runs).map_err(error)?.samples)
    }
    /// The time of each dispatch of a function, on what its inputs hold.
    ///
    /// # Errors
    /// No such function, device trouble.
    pub fn profile(&mut self, function: &str) -> Result<Profile, Error> {
        self.0.profile(function).map_err(error)
    }
}

fn all_to_device(tensors: &BTreeMap<String, Tensor>) -> Tensors {
    tensors.iter().map(|(name, t)| (name.clone(), to_device(t))).collect()
}

fn to_device(tensor: &Tensor) -> HostTensor {
    let data = match &tensor.data {
        Data::F32(v) => HostData::F32(v.clone()),
        Data::F64(v) => HostData::F32(v.iter().map(|&x| x as f32).collect()),
        Data::I32(v) => HostData::I32(v.clone()),
        Data::U32(v) => HostData::U32(v.clone()),
        Data::Bool(v) => HostData::U32(v.iter().map(|&b| b as u32).collect()),
    };
    HostTensor { shape: tensor.sizes().iter().map(|&n| n as u64).collect(), data }
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
        | RuntimeError::Validation { .. }
        | RuntimeError::Sick { .. } => Diagnostic::new("device", e.to_string()),
    };
    match e.kind() {
        ErrorKind::Input => Error::Input(diagnostic.into()),
        ErrorKind::Device | ErrorKind::Result => Error::Device(diagnostic),
    }
}
