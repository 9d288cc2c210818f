//! Runs a bundle through wgpu: choose a device, load, call functions or run the schedule.
//!
//! A plan leaves nothing to decide, so this crate knows no tensor algebra: it allocates the plan's buffers, uploads
//! weights, dispatches kernels, copies, and watches over the results. Whatever the driver or wgpu complains about comes
//! back as a [`RuntimeError`] of the call that caused it.
//!
//! ```no_run
//! use selvedge_runtime::{DeviceChoice, Gpu, HostTensor, LoadOptions, Session, Tensors};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bytes = std::fs::read("model.selvedge")?;
//! let bundle = selvedge_bundle::read(&bytes)?;
//! let gpu = Gpu::open(&DeviceChoice::Auto)?;
//! let mut session = Session::load(&gpu, &bundle, 0, &LoadOptions::default(), &mut |_| {})?;
//! let inputs = Tensors::from([("x".to_string(), HostTensor::f32(&[2], vec![1.0, 2.0]))]);
//! let outputs = session.call("forward", &inputs)?;
//! println!("{:?}", outputs["y"]);
//! # Ok(())
//! # }
//! ```

mod cache;
mod device;
mod error;
mod execute;
mod health;
mod host;
mod load;
mod pace;
mod pipelines;
mod profile;
mod residency;
mod rows;
mod run;
mod selftest;
mod sending;
mod transfer;
mod trusted;

pub use device::{DeviceChoice, DeviceFacts, Gpu, devices, unmet};
pub use error::{ErrorKind, Missing, RuntimeError};
pub use health::{BadDispatch, Health};
pub use host::{HostData, HostTensor, Tensors, View, ViewData, Views};
pub use load::{LoadOptions, Memory, Progress, Session, Stage};
pub use profile::{Bench, DispatchTime, Profile};
pub use residency::Refill;
pub use run::{Checkpoint, Condition, RunRequest, RunResult, StepReport};
pub use selftest::self_test;
