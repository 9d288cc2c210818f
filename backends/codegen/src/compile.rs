//! Module and target to plan and kernels.

mod function;
mod kernel;
mod memo;
mod prepare;
mod weights;

use crate::joins::Joins;
use crate::memory::Space;
use crate::names::{self, Names};
use crate::target::Target;
use crate::tensor::{Tensor, TensorId};
use crate::tune::{Choices, Tunable, Tuning};
use crate::{ports, text, verify};
use memo::Memo;
use selvedge_bundle::manifest::{
    Access as Usage, FORMAT, Kernel, Manifest, Plan, Requirements, Stage as Residence, Weight,
};
use selvedge_ir::{Diagnostic, Diagnostics, Function, Module, ValueId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a caller may choose.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// What the compiled size is, for people and for choosing among plans: `batch=2 height=28 width=28`.
    pub size: String,
    /// One kernel an operator: views stay free, nothing is computed in another operator's kernel.
    pub unfused: bool,
    /// Candidates to take instead of the defaults, by the keys of units; see [`crate::tune`].
    pub choices: Choices,
    /// Every kernel is written anew, though an equal unit was emitted before: for tests, since the result is the same.
    pub fresh: bool,
}

/// A compiled module: everything of a bundle but the checkpoint's bytes.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The plan in a manifest. Weights of the checkpoint have an empty `hash` and no `link`: whoever has the bytes
    /// fills them in.
    pub manifest: Manifest,
    /// WGSL of each kernel, by kernel index.
    pub kernels: Vec<String>,
    /// Bytes of weights that come from the module instead of a checkpoint, by weight index.
    pub constants: BTreeMap<u32, Vec<u8>>,
    /// Units that could be computed in several ways, by key.
    pub tunables: BTreeMap<String, Tunable>,
}

impl Compiled {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.manifest.plans[0]
    }
    /// The plan as text.
    pub fn text(&self) -> String {
        text::plan(&self.manifest, self.plan())
    }
}

/// Compiles a module whose shapes are numbers: the functions of its schedule, or all functions if it has none.
///
/// The result depends on nothing but the arguments.
///
/// # Errors
/// Symbols that are left, quantised weights, limits of the target that no splitting meets (the operator and the
/// limit are named), or a fault of the compiler.
pub fn compile(module: &Module, target: &Target, options: &Options) -> Result<Compiled, Diagnostics> {
    let mut forced = Forced::default();
    loop {
        let tuning = Tuning::new(options.choices.clone());
        match Compiler::new(module, target, &forced, options, &tuning)?.run(options) {
            Ok(mut compiled) => {
                compiled.tunables = tuning.into_found();
                verify::verify(compiled.plan(), &compiled.manifest, target)?;
                return Ok(compiled);
            }
            // A kernel binds too much: one value inside it is stored, and all is done again.
            Err(Failure::Crowded { function, value }) => forced.stored.entry(function).or_default().push(value),
            // So does the kernel of a composite: it is expanded. Values of the function get other numbers.
            Err(Failure::Composite { function, number }) => {
                forced.stored.remove(&function);
                forced.expanded.entry(function).or_default().insert(number);
            }
            Err(Failure::Refused(errors)) => return Err(errors),
        }
    }
}

/// What earlier attempts have found, by function.
#[derive(Default)]
struct Forced {
    /// Values of the flat function that must be stored.
    stored: BTreeMap<String, Vec<ValueId>>,
    /// Composites, by their number in the function, that must be expanded.
    expanded: BTreeMap<String, BTreeSet<usize>>,
}

/// Why a compilation stopped.
enum Failure {
    /// What the caller is told.
    Refused(Diagnostics),
    /// A kernel would fit the target if this value were stored.
    Crowded { function: String, value: ValueId },
    /// The kernel of a composite does not fit the target.
    Composite { function: String, number: usize },
}

impl From<Diagnostics> for Failure {
    fn from(errors: Diagnostics) -> Failure {
        Failure::Refused(errors)
    }
}

impl From<Diagnostic> for Failure {
    fn from(d: Diagnostic) -> Failure {
        Failure::Refused(d.into())
    }
}

struct Compiler<'m> {
    module: &'m Module,
    target: &'m Target,
    forced: &'m Forced,
    unfused: bool,
    memo: Option<Memo>,
    tensors: Vec<Tensor>,
    names: Names,
    /// Weights in manifest order, and where they lie: a tensor, and the first byte in it.
    weights: Vec<Weight>,
    weight_places: Vec<(TensorId, u64)>,
    /// Tensors of weights, with the stages that read each.
    weight_tensors: Vec<TensorId>,
    readers: Vec<BTreeSet<Residence>>,
    /// Which of those tensors a weight is in, or is the start of.
    weight_numbers: HashMap<String, usize>,
    /// What is the same in every run: weights, and what `prepare` makes of them.
    fixed: BTreeSet<TensorId>,
    /// Weights that lie one behind the other.
    joins: Joins,
    constants: BTreeMap<u32, Vec<u8>>,
    kernels: Vec<Kernel>,
    texts: Vec<String>,
    known: HashMap<String, u32>,
    /// Buffers of weights: the first so many.
    weight_buffers: usize,
    needs: Requirements,
    tuning: &'m Tuning,
}

impl<'m> Compiler<'m> {
    fn new(
        module: &'m Module,
        target: &'m Target,
        forced: &'m Forced,
        options: &Options,
        tuning: &'m Tuning,
    ) -> Result<Self, Diagnostics> {
        let mut tensors = Vec::new();
        let names = Names::new(module, &mut tensors)?;
        let needs = Requirements {
            name: target.name.clone(),
            features: Vec::new(),
            subgroup_size: None,
            max_binding_bytes: 0,
            max_buffer_bytes: 0,
            storage_buffers: 0,
            invocations: 0,
            workgroup_bytes: 0,
        };
        Ok(Compiler {
            module,
            target,
            forced,
            unfused: options.unfused,
            memo: (!options.fresh).then(Memo::default),
            tensors,
            names,
            weights: Vec::new(),
            weight_places: Vec::new(),
            weight_tensors: Vec::new(),
            fixed: BTreeSet::new(),
            readers: Vec::new(),
            weight_numbers: HashMap::new(),
            joins: Joins::of(module),
            constants: BTreeMap::new(),
            kernels: Vec::new(),
            texts: Vec::new(),
            known: HashMap::new(),
            weight_buffers: 0,
            needs,
            tuning,
        })
    }

    fn run(mut self, options: &Options) -> Result<Compiled, Failure> {
        let functions = names::functions(self.module)?;
        let mut prepared = Vec::new();
        let mut errors = Vec::new();
        for (stage, function) in &functions {
            match self.prepare(*stage, function) {
                Ok(p) => prepared.push(p),
                Err(e) => errors.push(e),
            }
        }
        if !errors.is_empty() {
            return Err(Failure::Refused(Diagnostics(errors)));
        }
        self.arrange(&prepared);
        let prepared_values = self.names.outputs[0].values();
        self.fixed = self.weight_tensors.iter().chain(prepared_values).copied().collect();
        let weights = self.place_weights();
        let base = weights.len() as u32;
        self.weight_buffers = base as usize;
        let mut tables = Space::new("tables", Usage::ReadWrite, base, self.target.max_buffer_bytes);
        self.names.tabulated().into_iter().for_each(|t| tables.append(&mut self.tensors[t]));
        let base = base + tables.buffers().len() as u32;
        let mut arena = Space::new("arena", Usage::ReadWrite, base, self.target.max_buffer_bytes);
        self.names.persistent().into_iter().for_each(|t| arena.append(&mut self.tensors[t]));
        let floor = arena.floor();
        let mut plan_functions = Vec::new();
        for p in &prepared {
            match self.function(p, plan_functions.len() as u32, &mut arena, &floor) {
                Ok(f) => plan_functions.push(f),
                Err(Failure::Refused(e)) => errors.extend(e.0),
                Err(other @ (Failure::Crowded { .. } | Failure::Composite { .. })) => return Err(other),
            }
        }
        if !errors.is_empty() {
            return Err(Failure::Refused(Diagnostics(errors)));
        }
        let buffers = [weights, tables.buffers(), arena.buffers()].concat();
        self.needs.max_buffer_bytes = buffers.iter().map(|b| b.bytes).max().unwrap_or(0);
        let slots = self.slots()?;
        let plan = Plan {
            size: options.size.clone(),
            chosen: String::new(),
            buffers,
            weights: slots,
            functions: plan_functions,
            schedule: ports::schedule(self.module, &self.names, &self.tensors),
        };
        let manifest = Manifest {
            format: FORMAT,
            producer: concat!("selvedge ", env!("CARGO_PKG_VERSION")).to_string(),
            name: self.module.name.clone(),
            target: self.needs,
            weights: self.weights,
            kernels: self.kernels,
            plans: vec![plan],
            pipeline: serde_json::Value::Null,
        };
        Ok(Compiled { manifest, kernels: self.texts, constants: self.constants, tunables: BTreeMap::new() })
    }
}

/// The name of a value: its own, or its number.
fn name_of(function: &Function, id: ValueId) -> String {
    let value = function.value(id);
    value.name.as_ref().map_or_else(|| format!("%{}", id.0), |n| format!("%{n}"))
}
