//! Architectures, samplers and pipelines. One file an architecture; each reads like its paper.

pub mod clip;
pub mod config;
pub mod digits;
pub mod dit;
pub mod embed;
pub mod guidance;
pub mod pixart;
pub mod program;
pub mod random;
pub mod samplers;
pub mod sampling;
pub mod t5;
pub mod vae;
