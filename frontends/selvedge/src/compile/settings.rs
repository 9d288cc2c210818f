//! What a user chooses about a compilation.

use super::Optimizer;
use crate::target::Target;
use selvedge_ir::DType;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How to compile.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to compile for.
    pub target: Target,
    /// A folder that gets every stage as text.
    pub dump: Option<PathBuf>,
    /// What does not depend on the device.
    pub settings: Settings,
}

impl Options {
    /// For a target, without dumps.
    pub fn new(target: Target) -> Options {
        Options { target, dump: None, settings: Settings::default() }
    }
}

/// What a user may choose for any device.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Settings {
    /// How hard the rewrite rules work.
    pub optimizer: Optimizer,
    /// Float type in which the weights of products are stored; as the checkpoint has them if absent.
    pub dtype: Option<DType>,
    /// Which of the best programs of a function is taken, by its name (1: next to the best), where that was measured.
    pub ranks: BTreeMap<String, usize>,
    /// Bits of the integers in which matrices of products are stored, 4 or 8, instead of `dtype`; see [`crate::quantize`].
    pub integer_bits: Option<u8>,
    /// Activations between kernels are stored as f16 where their range allows; see [`selvedge_passes::HalfActivations`].
    pub half_activations: bool,
    /// Device memory that a session may take, in bytes; absent: what the device is known to have.
    pub max_memory: Option<u64>,
}
