//! The pipeline as one list.

use crate::{Canonicalize, DeadCode, ExpandComposites, FoldConstants, InlineCalls, Pass, Specialize};
use selvedge_ir::{Diagnostic, Module};
use std::collections::BTreeMap;

/// What the pipeline is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The extent of each symbol.
    pub symbols: BTreeMap<String, usize>,
    /// Elements that a folded constant may have at most.
    pub fold_limit: usize,
}

impl Default for Options {
    fn default() -> Options {
        // 4096 elements: tables of positions and taps fold, nothing that would weigh in a bundle does.
        Options { symbols: BTreeMap::new(), fold_limit: 4096 }
    }
}

/// The passes in order.
pub fn passes(options: &Options) -> Vec<Box<dyn Pass>> {
    vec![
        // First: everything after may rely on numbers.
        Box::new(Specialize { symbols: options.symbols.clone() }),
        // Before the work on every function: those that are never scheduled are not worked on.
        Box::new(DeadCode),
        // Before inlining: a callee is expanded once, not at every call.
        Box::new(ExpandComposites),
        Box::new(InlineCalls),
        // After expanding and inlining, which repeat masks, tables and weights.
        Box::new(Canonicalize),
        Box::new(FoldConstants { limit: options.fold_limit }),
        // Folding makes equal constants.
        Box::new(Canonicalize),
        // Last: all passes leave behind what is no longer read.
        Box::new(DeadCode),
    ]
}

/// Runs the pipeline. `observer` sees the module that each pass gives, with the pass' name.
///
/// # Errors
/// What a pass refuses, with its place.
pub fn pipeline(
    module: Module,
    options: &Options,
    observer: &mut dyn FnMut(&'static str, &Module),
) -> Result<Module, Diagnostic> {
    passes(options).iter().try_fold(module, |module, pass| {
        let module = pass.run(module)?;
        observer(pass.name(), &module);
        Ok(module)
    })
}
