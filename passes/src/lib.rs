//! Module to module passes, and the pipeline that orders them.
//!
//! A pass takes a verified module and gives a verified module of the same meaning; names and places of values are
//! kept as far as the values are. Passes decide nothing about devices.

pub mod binding;
pub mod bounds;
mod canonical_contract;
mod canonicalize;
mod dead_code;
mod expand_composites;
mod fold_constants;
mod half;
pub mod hoist;
mod inline_calls;
mod merge_contractions;
mod merge_maps;
mod outline;
mod pipeline;
mod quantize;
mod readers;
mod rebuild;
pub mod rules;
pub mod saturate;
mod specialize;
mod split_maps;
mod store_weights;
mod strips;
mod vmap;
pub mod work;

pub use canonical_contract::CanonicalContract;
pub use canonicalize::Canonicalize;
pub use dead_code::DeadCode;
pub use expand_composites::ExpandComposites;
pub use fold_constants::FoldConstants;
pub use half::{HalfActivations, Ranges};
pub use hoist::Hoist;
pub use inline_calls::InlineCalls;
pub use merge_contractions::MergeContractions;
pub use merge_maps::MergeMaps;
pub use outline::{LEAST_OPERATORS, LEAST_SAVED, MOST_RESULTS, Outline};
pub use pipeline::{JOINED_BYTES, Optimizer, Options, passes, pipeline};
pub use quantize::{QuantizeWeights, UnpackWeights};
pub use specialize::Specialize;
pub use split_maps::SplitMaps;
pub use store_weights::StoreWeights;
pub use strips::Strips;

use selvedge_ir::{Diagnostic, Module};

/// A module to module transformation.
pub trait Pass {
    /// Its name, as in dumps and file tests.
    fn name(&self) -> &'static str;
    /// What it does, in one line.
    fn summary(&self) -> &'static str;
    /// The transformed module.
    ///
    /// # Errors
    /// What in the module cannot be handled, with its place.
    fn run(&self, module: Module) -> Result<Module, Diagnostic>;
    /// As [`Pass::run`]; what there is to tell besides goes to `notes`.
    ///
    /// # Errors
    /// As [`Pass::run`].
    fn run_noting(&self, module: Module, notes: &mut Notes) -> Result<Module, Diagnostic> {
        let _ = notes;
        self.run(module)
    }
    /// Names of parts that it can do without, such as its rules: for finding the one at fault.
    fn parts(&self) -> Vec<&'static str> {
        Vec::new()
    }
    /// The pass with those of its parts that `keep` wants; `None` if it has none.
    fn with_parts(&self, keep: &dyn Fn(&str) -> bool) -> Option<Box<dyn Pass>> {
        let _ = keep;
        None
    }
}

/// What passes tell besides the module.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// What saturation did to each function.
    pub saturation: Vec<saturate::FunctionReport>,
    /// For each of those functions, the programs next to the best one by cost.
    pub next_best: Vec<saturate::NextBest>,
    /// What hoisting took out of the steps.
    pub hoisted: Option<hoist::Savings>,
    /// Lines for people.
    pub lines: Vec<String>,
}
