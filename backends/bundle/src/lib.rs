//! The artefact: one file, valid safetensors, that holds everything a device needs to run a model.
//!
//! This crate knows the format and nothing else: no IR, no GPU.
//!
//! # The file
//! `__metadata__` has three entries: `selvedge`, the [manifest](manifest::Manifest) as canonical JSON (sorted keys, no
//! white space); `format`, its version; `checksum`, blake3 over the manifest, the tensor table and the bytes of every
//! tensor that is not a weight (weights and kernels have hashes of their own in the manifest). Tensors, by name:
//!
//! | name | dtype | holds |
//! |---|---|---|
//! | `weight:NAME` | the checkpoint's (bool as U32) | a weight that is not linked, as the checkpoint has it |
//! | `kernel:HASH` | U8 | WGSL text |
//! | `module` | U8 | text of the optimised module |
//! | `selftest:…` | U8 | vectors to try a driver with |
//! | `file:…` | U8 | what the front end needs besides (tokenizers) |
//!
//! Weights come first, widest elements first, so that every tensor is aligned without gaps. The same contents give the
//! same bytes. Every byte of a file is covered by a check: a file that reads is the file that was written.

mod bundle;
mod check;
mod dtype;
mod error;
mod header;
pub mod manifest;
mod panels;
pub mod selftest;
mod write;

pub use bundle::{Bundle, UNHASHED, WeightBytes};
pub use dtype::{element_bytes, weight_bytes};
pub use error::BundleError;
pub use panels::Panels;
pub use write::write;

/// Reads a bundle from the bytes of a file. Weights are hashed when they are asked for, everything else now.
///
/// # Errors
/// See [`BundleError`]: not a bundle, a later format, or a corrupt file.
pub fn read(bytes: &[u8]) -> Result<Bundle<'_>, BundleError> {
    Bundle::read(bytes)
}

/// blake3 of `bytes` in hex: the hash of kernels (of their text) and weights in a manifest.
pub fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
