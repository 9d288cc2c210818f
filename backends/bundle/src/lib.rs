//! The artefact: one file, valid safetensors, that holds everything a device needs to run a model.
//!
//! This crate knows the format and nothing else: no IR, no GPU.

pub mod manifest;
