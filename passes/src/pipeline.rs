//! The pipeline as one list.

use crate::saturate::{Rates, Saturate, Strategy};
use crate::{
    CanonicalContract, Canonicalize, DeadCode, ExpandComposites, FoldConstants, Hoist, InlineCalls, MergeContractions,
    MergeMaps, Notes, Outline, Pass, Specialize, SplitMaps,
};
use selvedge_ir::op::OpClass;
use selvedge_ir::{Diagnostic, Module, OpKind};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// How hard the rewrite rules work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Optimizer {
    /// Not at all: composites are expanded, every operator stays what the model says.
    None,
    /// One after another, each where it does not make the program dearer.
    Greedy,
    /// In one e-graph, from which the cheapest program is taken.
    #[default]
    Saturate,
}

impl Optimizer {
    /// All of them.
    pub const ALL: [Optimizer; 3] = [Optimizer::None, Optimizer::Greedy, Optimizer::Saturate];
    /// The word on the command line.
    pub fn text(self) -> &'static str {
        match self {
            Optimizer::None => "none",
            Optimizer::Greedy => "greedy",
            Optimizer::Saturate => "saturate",
        }
    }
}

impl fmt::Display for Optimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Optimizer {
    type Err = String;
    fn from_str(text: &str) -> Result<Optimizer, String> {
        Optimizer::ALL
            .into_iter()
            .find(|o| o.text() == text)
            .ok_or_else(|| format!("`{text}` is no optimizer: none, greedy or saturate"))
    }
}

/// Bytes of joined weights that every device can bind: WebGPU's default limit.
pub const JOINED_BYTES: usize = 128 << 20;

/// What the pipeline is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The extent of each symbol.
    pub symbols: BTreeMap<String, usize>,
    /// Elements that a folded constant may have at most.
    pub fold_limit: usize,
    /// Whether, and how, the rewrite rules are used.
    pub optimizer: Optimizer,
    /// What the cost model knows of the device.
    pub rates: Rates,
    /// Composites that the model wrote stay whole, for a device that has kernels for them and no use for what rules find.
    pub whole: bool,
    /// Bytes that weights joined for one product may have; absent where joined weights would be copied.
    pub joined_bytes: Option<usize>,
    /// Which of the best programs of a function is taken; see [`Saturate::ranks`].
    pub ranks: BTreeMap<String, usize>,
}

impl Default for Options {
    fn default() -> Options {
        // 4096 elements: tables of positions and taps fold, nothing that would weigh in a bundle does.
        Options {
            symbols: BTreeMap::new(),
            fold_limit: 4096,
            optimizer: Optimizer::default(),
            rates: Rates::default(),
            whole: false,
            joined_bytes: Some(JOINED_BYTES),
            ranks: BTreeMap::new(),
        }
    }
}

/// The passes in order.
pub fn passes(options: &Options) -> Vec<Box<dyn Pass>> {
    let strategy = match options.optimizer {
        Optimizer::None => None,
        Optimizer::Greedy => Some(Strategy::Greedy),
        Optimizer::Saturate => Some(Strategy::Saturate),
    };
    let keep = match strategy {
        Some(_) if options.whole => {
            OpKind::ALL.iter().copied().filter(|kind| kind.class() == OpClass::Composite).collect()
        }
        Some(_) => vec![OpKind::LocalAttention],
        None => Vec::new(),
    };
    let mut passes: Vec<Box<dyn Pass>> = vec![
        // First: everything after may rely on numbers.
        Box::new(Specialize { symbols: options.symbols.clone() }),
        // Before the work on every function: those that are never scheduled are not worked on.
        Box::new(DeadCode),
        // Before inlining: a callee is expanded once, not at every call. Rules find composites again, however they are
        // spelt; the mask of local attention is the one that they do not.
        Box::new(ExpandComposites { keep }),
        Box::new(InlineCalls),
        // After expanding and inlining, which repeat masks, tables and weights.
        Box::new(Canonicalize),
        Box::new(FoldConstants { limit: options.fold_limit }),
        // Folding makes equal constants.
        Box::new(Canonicalize),
    ];
    if let Some(strategy) = strategy {
        // Before hoisting: a value that is hoisted has readers in another function. Before outlining: a block's weights have no names.
        passes.extend(options.joined_bytes.map(|limit| Box::new(MergeContractions { limit }) as Box<dyn Pass>));
        // After folding, which takes small constants away. Before outlining: a block keeps only what each step must do.
        passes.push(Box::new(Hoist::default()));
        // A term may be there twice now: moved from a step, and in the stage itself.
        passes.push(Box::new(Canonicalize));
        passes.push(Box::new(DeadCode));
        // Before saturation, which then sees each block once.
        passes.push(Box::new(Outline));
        // Normal forms: rules need to know one spelling each. Splitting shows what bodies have in common.
        passes.push(Box::new(SplitMaps));
        passes.push(Box::new(CanonicalContract));
        passes.push(Box::new(Canonicalize));
        // After everything that always helps: the graph starts small.
        passes.push(Box::new(Saturate { ranks: options.ranks.clone(), ..Saturate::new(options.rates, strategy) }));
        // Kernels want few maps.
        passes.push(Box::new(MergeMaps));
        // Merging makes equal maps.
        passes.push(Box::new(Canonicalize));
        // Rules make terms of weights alone (a low-rank update becomes part of its weight), and count on it that they run once.
        passes.push(Box::new(Hoist { again: true, ..Hoist::default() }));
        passes.push(Box::new(Canonicalize));
    }
    // Last: all passes leave behind what is no longer read.
    passes.push(Box::new(DeadCode));
    passes
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
    let mut notes = Notes::default();
    passes(options).iter().try_fold(module, |module, pass| {
        let module = pass.run_noting(module, &mut notes)?;
        observer(pass.name(), &module);
        Ok(module)
    })
}
