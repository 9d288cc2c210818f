//! What can go wrong, and whose trouble it is.

use crate::health::BadDispatch;
use selvedge_bundle::BundleError;
use std::fmt;

/// Whose trouble an error is; command lines map it to their exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller's: inputs, names, a bundle that does not fit or is damaged.
    Input,
    /// The device's: none there, lost, out of memory, a driver that refuses.
    Device,
    /// The numbers': the computation gave values that are not finite.
    Result,
}

/// Why a device cannot be used, a bundle not be loaded, or a run not be finished.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No adapter at all; a caller may compute on the host instead, and say so.
    #[error(
        "no GPU adapter: the system has no working Vulkan, Metal or DX12 driver (Mesa's lavapipe is one for any CPU)"
    )]
    NoAdapter,
    /// A device was named that is not there.
    #[error("no device matches `{name}`; there are:{}", list(devices))]
    UnknownDevice {
        /// The name or index that was asked for.
        name: String,
        /// One line for each device.
        devices: Vec<String>,
    },
    /// The bundle needs what the device does not have.
    #[error(
        "{device} cannot run this bundle (target {target}); compile it for this device or for `portable`:{}",
        list(missing)
    )]
    Unsupported {
        /// The device.
        device: String,
        /// The target that the bundle was compiled for.
        target: String,
        /// Everything that lacks.
        missing: Vec<Missing>,
    },
    /// Inputs that do not fit the plan: names, shapes, dtypes, step indices.
    #[error("{0}")]
    BadInput(String),
    /// The bundle is inconsistent or a weight was changed.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The device is out of memory.
    #[error("{device} is out of memory while {action} ({bytes} bytes)")]
    OutOfMemory {
        /// The device.
        device: String,
        /// What was being done.
        action: String,
        /// How much was asked for.
        bytes: u64,
    },
    /// The device stopped: a crash, a time-out, a removal.
    #[error("the device was lost: {0}")]
    DeviceLost(String),
    /// wgpu or the driver refused an operation.
    #[error("{place} was refused: {message}")]
    Validation {
        /// The kernel, or what was being done.
        place: String,
        /// What wgpu said.
        message: String,
    },
    /// A kernel family does not work on this driver.
    #[error(
        "kernels of the family `{family}` fail their self-test on {device}: {problem}; use another device or driver, or --device host"
    )]
    SelfTest {
        /// The family.
        family: String,
        /// The device and its driver.
        device: String,
        /// What was refused, or which element was wrong.
        problem: String,
    },
    /// Values that are infinite or no numbers.
    #[error("{stage}: `{value}` has {count} of {total} values that are not finite{}", culprit(first))]
    Sick {
        /// Where it was seen: `step 3 of 20 (step)`, `decode`, `input` …
        stage: String,
        /// The step, if it was one, from 0.
        step: Option<usize>,
        /// The carried value or output.
        value: String,
        /// How many are infinite or not a number.
        count: u64,
        /// Of how many.
        total: u64,
        /// The first dispatch that made such a value, if it was looked for and found.
        first: Option<BadDispatch>,
    },
}

impl RuntimeError {
    /// Whose trouble it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RuntimeError::NoAdapter
            | RuntimeError::OutOfMemory { .. }
            | RuntimeError::DeviceLost(_)
            | RuntimeError::SelfTest { .. }
            | RuntimeError::Validation { .. } => ErrorKind::Device,
            RuntimeError::UnknownDevice { .. }
            | RuntimeError::Unsupported { .. }
            | RuntimeError::BadInput(_)
            | RuntimeError::Bundle(_) => ErrorKind::Input,
            RuntimeError::Sick { .. } => ErrorKind::Result,
        }
    }
}

/// A feature or limit that a device does not offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Name, as WebGPU has it: `subgroups`, `maxStorageBufferBindingSize` …
    pub what: String,
    /// What the bundle needs.
    pub required: String,
    /// What the device has.
    pub available: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} required, {} available", self.what, self.required, self.available)
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("\n  {item}")).collect()
}

fn culprit(first: &Option<BadDispatch>) -> String {
    first.as_ref().map_or(String::new(), |dispatch| format!("; the first come from {dispatch}"))
}
