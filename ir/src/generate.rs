//! Random well-typed modules for property tests.
//!
//! Values stay in a tame range, and unless asked for, nothing discontinuous (comparisons, rounding, indices of
//! extremes, casts to integers) reads a float that rounding may have moved. So two correct evaluations of a module
//! differ by rounding only, and their difference has a derivable tolerance.

mod body;
mod composite;
mod emit;
mod rng;
mod view;

use crate::dtype::DType;
use crate::func::{Builder, Function, Return, Target};
use crate::interp::Run;
use crate::module::{Module, Schedule, StateDecl, StepLoop, TableDecl};
use crate::ops::{OpKind, State};
use crate::shape::{Shape, TensorType};
use crate::tensor::{Data, Tensor};
use emit::Emit;
pub use rng::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What random modules may hold.
#[derive(Clone, Debug)]
pub struct Options {
    /// Operators that are drawn for the main function, helpers not counted.
    pub operators: usize,
    /// Element types of parameters and constants, at least one of them a float.
    pub dtypes: Vec<DType>,
    /// Composites, too.
    pub composites: bool,
    /// Discontinuous primitives of any float, so that rounding may change results at will.
    pub sensitive: bool,
    /// Weights (see [`weights`]).
    pub weights: bool,
    /// A state variable that is read and written.
    pub states: bool,
    /// A second function that the first calls.
    pub calls: bool,
    /// Extents of 0, now and then.
    pub empty: bool,
    /// Elements of one value at most.
    pub max_elements: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            operators: 12,
            dtypes: DType::PLAIN.to_vec(),
            composites: true,
            sensitive: false,
            weights: false,
            states: false,
            calls: false,
            empty: false,
            max_elements: 600,
        }
    }
}

/// A module with the function `main`, the same for the same seed and options.
pub fn module(seed: u64, options: &Options) -> Module {
    let mut module = Module::new("random");
    let mut rng = Rng::new(seed);
    let part = options.calls.then(|| function("part", &mut rng, options, None));
    let main = function("main", &mut rng, options, part.as_ref());
    for f in [Some(main), part].into_iter().flatten() {
        for id in f.ids() {
            if let Some((crate::ops::Op::State(State { name, ty }), _)) = f.op(id)
                && module.states.iter().all(|s| s.name != *name)
            {
                module.states.push(StateDecl { name: name.clone(), ty: ty.clone() });
            }
        }
        module.add_function(f).expect("names are distinct");
    }
    module
}

/// A sampling program with the random function `main` as its step: the last parameter is carried, some of the others are
/// tables, the rest inputs of the run; all its outputs are traced.
pub fn scheduled(seed: u64, options: &Options) -> Module {
    let mut module = module(seed, options);
    let mut rng = Rng::new(seed ^ 0x5ced);
    let main = module.functions.iter_mut().find(|f| f.name == "main").expect("every random module has it");
    let params: Vec<(String, TensorType)> =
        main.params().into_iter().map(|(n, id)| (n.to_string(), main.ty(id).clone())).collect();
    let ((carried, ty), others) = params.split_last().expect("every random function has parameters");
    let (carried, ty) = (carried.clone(), ty.clone());
    let next = main.ids().rev().find(|id| *main.ty(*id) == ty).expect("the parameter itself has its type");
    let trace = main.outputs().iter().map(|(n, _)| n.to_string()).filter(|n| *n != carried).collect();
    main.returns.retain(|r| r.target != Target::Output(carried.clone()));
    main.returns.push(Return { target: Target::Output(carried.clone()), value: next });
    let tables = others.iter().filter(|_| rng.chance(0.7));
    let tables = tables.map(|(name, ty)| TableDecl { name: name.clone(), ty: ty.clone() }).collect();
    let steps = StepLoop { functions: vec!["main".into()], carry: vec![carried], tables, tabulate: None };
    module.schedule = Schedule { steps: Some(steps), trace, ..Schedule::default() };
    module
}

/// Inputs and tables of a run of so many steps, drawn like [`inputs`]; everything that can be is traced.
pub fn run(seed: u64, module: &Module, steps: usize) -> Run {
    let mut rng = Rng::new(seed);
    let mut run = Run { steps: vec![0; steps], trace: module.schedule.trace.clone(), ..Run::default() };
    let Some(decl) = &module.schedule.steps else { return run };
    run.trace.extend(decl.carry.iter().filter(|n| !module.schedule.trace.contains(n)).cloned());
    for table in &decl.tables {
        let shape = [steps.into()].into_iter().chain(table.ty.shape.0.iter().cloned()).collect();
        let ty = TensorType { dtype: table.ty.dtype, shape: Shape(shape) };
        run.tables.insert(table.name.clone(), tensor(&mut rng, &ty));
    }
    let s = &module.schedule;
    let tabulate = decl.tabulate.as_ref().map(|t| &t.function);
    let early = [s.prepare.as_ref(), s.condition.as_ref(), tabulate].into_iter().flatten();
    let made = early.filter_map(|f| module.function(f)).flat_map(|f| f.outputs().into_iter().map(|(n, _)| n));
    let bound: Vec<&str> = decl.tables.iter().map(|t| t.name.as_str()).chain(made).collect();
    let readers = decl.functions.iter().chain(s.condition.as_ref()).chain(s.decode.as_ref());
    for function in readers.filter_map(|f| module.function(f)) {
        for (name, id) in function.params() {
            if !bound.contains(&name) && !run.inputs.contains_key(name) {
                run.inputs.insert(name.to_string(), tensor(&mut rng, function.ty(id)));
            }
        }
    }
    run
}

fn function(name: &str, rng: &mut Rng, options: &Options, callee: Option<&Function>) -> Function {
    let mut e = Emit::new(Builder::new(name), rng, options);
    e.parameters();
    let main = name == "main";
    let state = (options.states && main).then(|| e.state());
    let kinds: Vec<OpKind> = OpKind::ALL.iter().copied().filter(|k| e.allows(*k)).collect();
    for i in 0..options.operators {
        if i == options.operators / 2
            && let Some(callee) = callee
        {
            e.call(callee);
        }
        // A kind may find no operands in what there is; a few attempts almost always do.
        for _ in 0..8 {
            let kind = if e.rng.chance(0.25) { OpKind::Map } else { *e.rng.pick(&kinds) };
            if e.operator(kind).is_some() {
                break;
            }
        }
    }
    e.finish(state)
}

/// Arguments for a function: floats are multiples of 1/64 in [-2, 2), integers are below 9.
pub fn inputs(seed: u64, function: &Function) -> Vec<Tensor> {
    let mut rng = Rng::new(seed);
    function.params().iter().map(|(_, id)| tensor(&mut rng, function.ty(*id))).collect()
}

/// Weights of a module, drawn like [`inputs`].
pub fn weights(seed: u64, module: &Module) -> BTreeMap<String, Arc<Tensor>> {
    let mut rng = Rng::new(seed);
    module.weights.iter().map(|w| (w.name.clone(), Arc::new(tensor(&mut rng, &w.ty)))).collect()
}

/// A random tensor; its values are exact in every float dtype.
pub fn tensor(rng: &mut Rng, ty: &TensorType) -> Tensor {
    let n: usize = ty.shape.sizes().iter().product();
    let mut draw = |below: usize| rng.below(below);
    let data = match ty.dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_) => {
            Data::F32((0..n).map(|_| draw(256) as f32 / 64.0 - 2.0).collect())
        }
        DType::I32 => Data::I32((0..n).map(|_| draw(17) as i32 - 8).collect()),
        DType::U32 => Data::U32((0..n).map(|_| draw(9) as u32).collect()),
        DType::Bool => Data::Bool((0..n).map(|_| draw(2) == 1).collect()),
    };
    Tensor::new(ty.clone(), data)
}
