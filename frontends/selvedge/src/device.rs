//! Devices: the host, and adapters that the runtime finds.

use crate::error::Error;
use crate::gpu::{self, Gpu};
use crate::tune::Level;
use selvedge_codegen::target::Target;
use serde_json::{Value, json};
use std::str::FromStr;

pub use selvedge_runtime::DeviceFacts;

/// Which device to use.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The best adapter; the host if there is none, and that is said.
    #[default]
    Auto,
    /// The host.
    Host,
    /// The best adapter; an error if there is none.
    Gpu,
    /// An adapter whose name contains this (case ignored), or `host`.
    Named(String),
}

impl FromStr for DeviceChoice {
    type Err = Error;
    fn from_str(text: &str) -> Result<DeviceChoice, Error> {
        Ok(match text.trim() {
            "" => return Err(Error::input("device", "the device's name is empty")),
            "auto" => DeviceChoice::Auto,
            "host" | "cpu" => DeviceChoice::Host,
            "gpu" => DeviceChoice::Gpu,
            name => DeviceChoice::Named(name.to_string()),
        })
    }
}

/// A device that programs can be run on.
pub enum Device {
    /// The interpreter with fast kernels.
    Host,
    /// An adapter.
    Gpu(Box<Gpu>),
}

impl Device {
    /// Opens the chosen device. `say` is told, in one line for people, when `auto` falls back to the host.
    ///
    /// # Errors
    /// [`Error::Device`]: no adapter at all, or it cannot be opened. [`Error::Input`]: no adapter of this name (those
    /// that there are, are listed).
    pub fn choose(choice: &DeviceChoice, say: &mut dyn FnMut(&str)) -> Result<Device, Error> {
        match choice {
            DeviceChoice::Host => Ok(Device::Host),
            DeviceChoice::Gpu => Ok(Device::Gpu(Box::new(Gpu::open(None)?))),
            DeviceChoice::Named(name) => Ok(Device::Gpu(Box::new(Gpu::open(Some(name))?))),
            DeviceChoice::Auto => {
                if adapters().is_empty() {
                    say(
                        "no GPU adapter found: running on the host device (slow); `selvedge devices` lists what is there",
                    );
                    return Ok(Device::Host);
                }
                Ok(Device::Gpu(Box::new(Gpu::open(None)?)))
            }
        }
    }
    /// The same with another level of tuning; see [`Gpu::tuned`]. The host has nothing to tune.
    pub fn tuned(self, level: Option<Level>) -> Device {
        match self {
            Device::Host => Device::Host,
            Device::Gpu(gpu) => Device::Gpu(Box::new(gpu.tuned(level))),
        }
    }
    /// The device's name.
    pub fn name(&self) -> String {
        match self {
            Device::Host => "host".to_string(),
            Device::Gpu(gpu) => gpu.facts().name.clone(),
        }
    }
    /// The driver's name and version; for the host what it is made of.
    pub fn driver(&self) -> String {
        match self {
            Device::Host => format!("interpreter with GEMM, {} threads", rayon::current_num_threads()),
            Device::Gpu(gpu) => gpu.facts().driver.clone(),
        }
    }
    /// What the compiler must know of it; `portable` for the host.
    pub fn target(&self) -> Target {
        match self {
            Device::Host => Target::portable(),
            Device::Gpu(gpu) => gpu.target(),
        }
    }
}

/// All adapters of this machine; empty if there is no driver.
pub fn adapters() -> Vec<DeviceFacts> {
    selvedge_runtime::devices()
}

/// An adapter's facts, and under `target` what can be given to a compiler.
pub fn facts_json(facts: &DeviceFacts) -> Value {
    json!({
        "index": facts.index, "name": facts.name, "backend": facts.backend, "kind": facts.kind, "driver": facts.driver,
        "workgroup_size": facts.workgroup_size, "binding_alignment": facts.binding_alignment, "timestamps": facts.timestamps,
        "target": gpu::target(facts),
    })
}
