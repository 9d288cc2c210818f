//! Architectures, samplers and pipelines. One file an architecture; each reads like its paper.

pub mod catalog;
pub mod clip;
pub mod config;
pub mod digits;
pub mod dit;
pub mod embed;
pub mod flux;
pub mod guidance;
pub mod joint;
pub mod pipelines;
pub mod pixart;
pub mod program;
pub mod random;
pub mod samplers;
pub mod sampling;
pub mod sd3;
pub mod t5;
pub mod vae;
