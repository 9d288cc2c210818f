//! Devices: what is there, what it offers, and opening one.

use crate::error::{Missing, RuntimeError};
use selvedge_bundle::manifest::Requirements;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};

/// What an adapter is and offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Position in [`devices`].
    pub index: usize,
    /// Name as the driver gives it.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub kind: String,
    /// Largest storage binding in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
    /// Storage buffers that a dispatch may bind.
    pub storage_buffers: u32,
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Largest extent of a workgroup in each dimension.
    pub workgroup_size: [u32; 3],
    /// Workgroup memory in bytes.
    pub workgroup_bytes: u32,
    /// Workgroups in each dimension of a dispatch.
    pub max_groups: u32,
    /// Alignment of storage bindings in bytes.
    pub binding_alignment: u32,
    /// Least and largest subgroup width, if subgroup operations are there.
    pub subgroup: Option<(u32, u32)>,
    /// `shader-f16` is there.
    pub f16: bool,
    /// 64-bit integers are there.
    pub int64: bool,
    /// Sizes (rows = columns = depth) of cooperative matrices of subgroups with operands of f16 and sums in f32.
    pub cooperative: Vec<u32>,
    /// Timestamps are there.
    pub timestamps: bool,
}

impl DeviceFacts {
    /// Whether the driver is llvmpipe on an LLVM before 19: of those measured, 15 compiles loads and stores of arrays slowly, 19 does not.
    pub fn old_compiler(&self) -> bool {
        let version = self.driver.split("(LLVM ").nth(1).and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        self.driver.contains("llvmpipe") && version.is_some_and(|version| version < 19)
    }
}

impl std::fmt::Display for DeviceFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({}, {}, {})", self.index, self.name, self.backend, self.kind, self.driver)
    }
}

/// Which device to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The fastest kind there is: discrete, integrated, virtual, other, then a driver that runs on the CPU.
    Auto,
    /// By position in [`devices`].
    Index(usize),
    /// The first whose name contains this, in any case.
    Name(String),
}

impl FromStr for DeviceChoice {
    type Err = std::convert::Infallible;
    /// `auto` and `gpu` leave the choice, a number is an index, anything else part of a name.
    fn from_str(text: &str) -> Result<DeviceChoice, Self::Err> {
        Ok(match text {
            "auto" | "gpu" => DeviceChoice::Auto,
            _ => match text.parse() {
                Ok(index) => DeviceChoice::Index(index),
                Err(_) => DeviceChoice::Name(text.to_string()),
            },
        })
    }
}

/// All adapters of the system; empty if there is no driver.
pub fn devices() -> Vec<DeviceFacts> {
    adapters().into_iter().map(|(facts, _)| facts).collect()
}

fn adapters() -> Vec<(DeviceFacts, wgpu::Adapter)> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    let compute = found.into_iter().filter(|a| a.limits().max_compute_workgroups_per_dimension > 0);
    compute.enumerate().map(|(index, adapter)| (facts(index, &adapter), adapter)).collect()
}

fn facts(index: usize, adapter: &wgpu::Adapter) -> DeviceFacts {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "cpu",
        wgpu::DeviceType::Other => "other",
    };
    let subgroups = features.contains(wgpu::Features::SUBGROUP);
    let half = |c: &wgpu::CooperativeMatrixProperties| {
        use wgpu::CooperativeScalarType::{F16, F32};
        c.m_size == c.n_size && c.n_size == c.k_size && (c.ab_type, c.cr_type) == (F16, F32)
    };
    let mut cooperative: Vec<u32> = match features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        true => adapter.cooperative_matrix_properties().iter().filter(|c| half(c)).map(|c| c.m_size).collect(),
        false => Vec::new(),
    };
    cooperative.sort_unstable();
    cooperative.dedup();
    DeviceFacts {
        index,
        name: info.name,
        backend: info.backend.to_str().to_string(),
        driver: [info.driver, info.driver_info].join(" ").trim().to_string(),
        kind: kind.to_string(),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        storage_buffers: limits.max_storage_buffers_per_shader_stage,
        invocations: limits.max_compute_invocations_per_workgroup,
        workgroup_size: [
            limits.max_compute_workgroup_size_x,
            limits.max_compute_workgroup_size_y,
            limits.max_compute_workgroup_size_z,
        ],
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        max_groups: limits.max_compute_workgroups_per_dimension,
        binding_alignment: limits.min_storage_buffer_offset_alignment,
        subgroup: subgroups.then_some((info.subgroup_min_size, info.subgroup_max_size)),
        f16: features.contains(wgpu::Features::SHADER_F16),
        int64: features.contains(wgpu::Features::SHADER_INT64),
        cooperative,
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
    }
}

/// The feature of kernels with cooperative matrices: experimental in wgpu, so devices are opened with it only when it is needed.
pub const COOPERATIVE: &str = "cooperative-matrix";

/// What a bundle needs and a device lacks; empty if it can run.
pub fn unmet(needs: &Requirements, facts: &DeviceFacts) -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut lack = |what: &str, required: String, available: String| {
        missing.push(Missing { what: what.to_string(), required, available });
    };
    for feature in &needs.features {
        let there = match feature.as_str() {
            "shader-f16" => facts.f16,
            "shader-int64" => facts.int64,
            COOPERATIVE => !facts.cooperative.is_empty(),
            "subgroups" => facts.subgroup.is_some(),
            "timestamp-query" => facts.timestamps,
            _ => false,
        };
        if !there {
            lack(feature, "feature".to_string(), "not".to_string());
        }
    }
    if let Some(width) = needs.subgroup_size
        && facts.subgroup != Some((width, width))
    {
        let available = facts.subgroup.map_or("none".to_string(), |(min, max)| format!("{min} to {max}"));
        lack("subgroup width", format!("exactly {width}"), available);
    }
    for (what, required, available) in [
        ("maxStorageBufferBindingSize", needs.max_binding_bytes, facts.max_binding_bytes),
        ("maxBufferSize", needs.max_buffer_bytes, facts.max_buffer_bytes),
        ("maxStorageBuffersPerShaderStage", needs.storage_buffers.into(), facts.storage_buffers.into()),
        ("maxComputeInvocationsPerWorkgroup", needs.invocations.into(), facts.invocations.into()),
        ("maxComputeWorkgroupStorageSize", needs.workgroup_bytes.into(), facts.workgroup_bytes.into()),
    ] {
        if required > available {
            lack(what, required.to_string(), available.to_string());
        }
    }
    missing
}

/// An open device. Errors that wgpu reports outside of a call are kept and returned by the next check.
pub struct Gpu {
    facts: DeviceFacts,
    pub(crate) device: wgpu::Device,
    queue: wgpu::Queue,
    /// Held over every use of the queue. When wgpu submits, it first records that what was never written is cleared, and only then
    /// takes up the writes under way, which run before: without this lock, a write from another thread in between is cleared.
    order: Mutex<()>,
    trouble: Arc<Mutex<Trouble>>,
}

/// What went wrong behind the caller's back.
#[derive(Default)]
struct Trouble {
    lost: Option<String>,
    error: Option<wgpu::Error>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.facts)
    }
}

impl Gpu {
    /// Opens a device, with all its limits and only the features that kernels and profiles use.
    ///
    /// # Errors
    /// [`RuntimeError::NoAdapter`] if there is none at all, [`RuntimeError::UnknownDevice`] if none matches,
    /// [`RuntimeError::DeviceLost`] if the driver refuses.
    pub fn open(choice: &DeviceChoice) -> Result<Arc<Gpu>, RuntimeError> {
        Gpu::open_with(choice, wgpu::Features::empty())
    }

    /// This device, or the same adapter opened once more with the experimental features that a bundle needs.
    pub(crate) fn serving(self: &Arc<Gpu>, needs: &Requirements) -> Result<Arc<Gpu>, RuntimeError> {
        let experimental = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let needed = needs.features.iter().any(|f| f == COOPERATIVE);
        if !needed || self.device.features().contains(experimental) {
            return Ok(self.clone());
        }
        Gpu::open_with(&DeviceChoice::Index(self.facts.index), experimental)
    }

    fn open_with(choice: &DeviceChoice, experimental: wgpu::Features) -> Result<Arc<Gpu>, RuntimeError> {
        let mut adapters = adapters();
        if adapters.is_empty() {
            return Err(RuntimeError::NoAdapter);
        }
        // Stable: devices of one kind stay in the system's order.
        adapters.sort_by_key(|(facts, _)| rank(&facts.kind));
        let position = adapters.iter().position(|(facts, _)| match choice {
            DeviceChoice::Auto => true,
            DeviceChoice::Index(index) => facts.index == *index,
            DeviceChoice::Name(name) => facts.name.to_lowercase().contains(&name.to_lowercase()),
        });
        let Some(position) = position else {
            let name = match choice {
                DeviceChoice::Auto => "auto".to_string(),
                DeviceChoice::Index(index) => index.to_string(),
                DeviceChoice::Name(name) => name.clone(),
            };
            adapters.sort_by_key(|(facts, _)| facts.index);
            let devices = adapters.iter().map(|(facts, _)| facts.to_string()).collect();
            return Err(RuntimeError::UnknownDevice { name, devices });
        };
        let (facts, adapter) = adapters.swap_remove(position);
        let used = wgpu::Features::SUBGROUP
            | wgpu::Features::SUBGROUP_BARRIER
            | wgpu::Features::SHADER_F16
            | wgpu::Features::SHADER_INT64
            | wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::PIPELINE_CACHE;
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("selvedge"),
            required_features: adapter.features() & (used | experimental),
            required_limits: adapter.limits(),
            experimental_features: match experimental.is_empty() {
                true => wgpu::ExperimentalFeatures::disabled(),
                false => crate::trusted::experimental(),
            },
            // A plan has few, large buffers: allocating ahead would only cost memory.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        });
        let (device, queue) = pollster::block_on(request)
            .map_err(|e| RuntimeError::DeviceLost(format!("{facts} could not be opened: {e}")))?;
        let trouble = Arc::new(Mutex::new(Trouble::default()));
        let sink = trouble.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            lock(&sink).error.get_or_insert(error);
        }));
        let sink = trouble.clone();
        device.set_device_lost_callback(move |reason, message| {
            lock(&sink).lost.get_or_insert(format!("{reason:?}: {message}"));
        });
        Ok(Arc::new(Gpu { facts, device, queue, order: Mutex::new(()), trouble }))
    }

    /// What the device is and offers.
    pub fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    /// Loses the device, as a crash of the driver would. For tests of what follows.
    pub fn destroy(&self) {
        self.device.destroy();
    }

    /// The error itself, or that the device was lost, which may have caused it.
    pub(crate) fn or_lost(&self, error: RuntimeError) -> RuntimeError {
        match self.wait(None, "asking for the device") {
            Err(lost @ RuntimeError::DeviceLost(_)) => lost,
            Ok(()) | Err(_) => error,
        }
    }

    /// The first error reported since the last check.
    pub(crate) fn check(&self, action: &str) -> Result<(), RuntimeError> {
        let mut trouble = lock(&self.trouble);
        if let Some(message) = &trouble.lost {
            return Err(RuntimeError::DeviceLost(message.clone()));
        }
        match trouble.error.take() {
            Some(error) => Err(self.error(error, action, 0)),
            None => Ok(()),
        }
    }

    /// An error of wgpu as ours.
    fn error(&self, error: wgpu::Error, action: &str, bytes: u64) -> RuntimeError {
        match error {
            wgpu::Error::OutOfMemory { .. } => {
                RuntimeError::OutOfMemory { device: self.facts.name.clone(), action: action.to_string(), bytes }
            }
            wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
                RuntimeError::Validation { place: action.to_string(), message: description }
            }
        }
    }

    /// Runs `create` and returns its value unless wgpu reported an error meanwhile on this thread.
    /// `bytes` is what it allocates, for the message.
    pub(crate) fn scoped<T>(&self, place: &str, bytes: u64, create: impl FnOnce() -> T) -> Result<T, RuntimeError> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let value = create();
        let errors = [validation.pop(), internal.pop(), memory.pop()].map(pollster::block_on);
        match errors.into_iter().flatten().next() {
            Some(error) => Err(self.error(error, place, bytes)),
            None => Ok(value),
        }
    }

    /// Writes whole words to a buffer, before whatever is submitted next.
    pub(crate) fn write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        let _order = lock(&self.order);
        self.queue.write_buffer(buffer, offset, bytes);
    }

    /// Nanoseconds of a timestamp's tick.
    pub(crate) fn timestamp_period(&self) -> f64 {
        f64::from(self.queue.get_timestamp_period())
    }

    /// Submits and reports what was refused.
    pub(crate) fn submit(
        &self,
        commands: Option<wgpu::CommandBuffer>,
        action: &str,
    ) -> Result<wgpu::SubmissionIndex, RuntimeError> {
        self.check(action)?;
        let index = {
            let _order = lock(&self.order);
            self.queue.submit(commands)
        };
        self.check(action)?;
        Ok(index)
    }

    /// Waits for a submission, or for all of them.
    pub(crate) fn wait(&self, submission: Option<wgpu::SubmissionIndex>, action: &str) -> Result<(), RuntimeError> {
        self.check(action)?;
        let poll = wgpu::PollType::Wait { submission_index: submission, timeout: None };
        // wgpu panics here when the device is lost; that must be an error of the call like any other.
        match catch_unwind(AssertUnwindSafe(|| self.device.poll(poll))) {
            Ok(Ok(_)) => self.check(action),
            Ok(Err(error)) => Err(RuntimeError::DeviceLost(format!("{action}: {error}"))),
            Err(_panic) => {
                self.check(action)?;
                Err(RuntimeError::DeviceLost(format!("{action}: waiting failed")))
            }
        }
    }
}

/// A poisoned lock is as good: the value is replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Order of preference of a kind of device.
fn rank(kind: &str) -> usize {
    ["discrete", "integrated", "virtual", "other", "cpu"].iter().position(|k| *k == kind).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_device_is_an_error_and_no_panic() {
        let gpu = Gpu::open(&DeviceChoice::Auto).expect("these tests need a GPU driver");
        gpu.wait(None, "waiting").expect("an idle device");
        gpu.device.destroy();
        let lost = gpu.submit(None, "submitting").and_then(|submission| gpu.wait(Some(submission), "waiting"));
        assert!(lost.is_err(), "{lost:?}");
        let again = gpu.wait(None, "waiting").expect_err("it stays lost");
        assert!(matches!(again, RuntimeError::DeviceLost(_)), "{again}");
    }

    #[test]
    fn what_wgpu_reports_outside_a_call_fails_the_next_one() {
        let gpu = Gpu::open(&DeviceChoice::Auto).expect("these tests need a GPU driver");
        let descriptor = wgpu::BufferDescriptor {
            label: Some("wrong"),
            size: 3, // mapped buffers are whole words
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        };
        let _broken = gpu.device.create_buffer(&descriptor);
        let error = gpu.check("testing").expect_err("usages that exclude each other");
        assert!(matches!(&error, RuntimeError::Validation { place, .. } if place == "testing"), "{error}");
        gpu.check("testing").expect("reported once");
    }
}
