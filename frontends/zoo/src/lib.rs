//! Architectures, samplers and pipelines. One file an architecture; each reads like its paper.

pub mod config;
pub mod digits;
pub mod dit;
pub mod embed;
