//! Compile and run diffusion transformers on any GPU.

pub mod bench;
pub mod check;
pub mod compare;
pub mod compile;
pub mod device;
pub mod dump;
pub mod error;
pub mod event;
pub mod explain;
pub mod flops;
pub mod gpu;
pub mod host;
pub mod inspect;
pub mod model;
pub mod sample;
pub mod session;
pub mod target;
pub mod text;
pub mod weights;

pub use device::{Device, DeviceChoice};
pub use error::Error;
pub use event::{Event, Observer};
pub use selvedge_bundle as bundle;
pub use selvedge_ir as ir;
pub use selvedge_ir::Diagnostic;
pub use selvedge_zoo as zoo;
pub use session::Session;
