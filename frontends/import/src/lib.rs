//! Checkpoints and configurations: from files to zoo models, and from fixture folders to runnable cases.
//!
//! [`load`] takes a folder (or the shipped name `digits`) to a [`LoadedModel`]: the configuration read, the checkpoint
//! mapped and compared with what the model needs. All problems of a checkpoint are reported together.

pub mod cases;
pub mod checkpoint;
pub mod dit;
pub mod files;
pub mod map;
pub mod model;
pub mod packing;
pub mod pipeline;
pub mod storage;
pub mod text_pipeline;
pub mod tokenizer;
pub mod vae;

pub use cases::{Case, CaseRun, Expected};
pub use checkpoint::Checkpoint;
pub use map::MappedFile;
pub use model::{LoadedModel, ProgramOptions, SHIPPED, load};
