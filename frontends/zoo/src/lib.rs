//! Architectures, samplers and pipelines. One file an architecture; each reads like its paper.

pub mod config;
pub mod dit;
pub mod digits;
pub mod embed;
pub mod guidance;
pub mod samplers;
pub mod random;
pub mod sampling;
pub mod program;
