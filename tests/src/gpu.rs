//! The adapter as a runner: a function and what it calls, compiled for the adapter and called.

use crate::runner::{Arguments, Runner};
use selvedge::ir::func::{Def, Return, Target};
use selvedge::ir::ops::{Input, Op};
use selvedge::ir::{Builder, DType, Function, Module, Tensor, ValueId};
use selvedge::{Device, DeviceChoice, compile, device};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The best adapter of this machine.
pub struct Gpu(&'static Device);

impl Gpu {
    /// The adapter; `None` if there is none.
    ///
    /// # Panics
    /// If there is one that cannot be opened: tests must not pass because a driver is broken.
    pub fn new() -> Option<Gpu> {
        static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
        let open = || Device::choose(&DeviceChoice::Gpu, &mut |_| {}).expect("the adapter opens");
        DEVICE.get_or_init(|| (!device::adapters().is_empty()).then(open)).as_ref().map(Gpu)
    }
}

impl Gpu {
    /// The device.
    pub fn device(&self) -> &'static Device {
        self.0
    }
}

impl Runner for Gpu {
    fn name(&self) -> &'static str {
        "gpu"
    }
    fn exception(&self, module: &Module, function: &str) -> Option<String> {
        let reached = reached(module, function);
        let packed = |w: &&selvedge::ir::module::WeightDecl| matches!(w.ty.dtype, DType::Packed(_));
        if let Some(w) = module.weights.iter().filter(packed).find(|w| reached.iter().any(|f| reads(f, &w.name))) {
            return Some(format!("weight `{}` is quantised: there is no kernel that unpacks it yet", w.name));
        }
        let states = |f: &&&Function| f.name != function && has_states(f);
        reached.iter().find(states).map(|f| format!("@{} reads a state inside a call", f.name))
    }
    fn run(&self, module: &Module, function: &str, arguments: &Arguments) -> Result<Vec<Tensor>, String> {
        let called = module.function(function).ok_or("no such function")?;
        let (whole, names) = without_states(called);
        let mut inputs: BTreeMap<String, Tensor> = BTreeMap::new();
        let params = called.params().into_iter().map(|(name, _)| name.to_string());
        inputs.extend(params.zip(arguments.inputs.iter().cloned()));
        for state in &module.states {
            let value = match arguments.states.get(&state.name) {
                Some(value) => value.clone(),
                None => Tensor::zeros(&state.ty, Default::default()),
            };
            inputs.insert(state_name(&state.name), value);
        }
        let known: Vec<&str> = whole.params().iter().map(|(name, _)| *name).collect();
        inputs.retain(|name, _| known.contains(&name.as_str()));
        let mut alone = Module::new(module.name.clone());
        for f in reached(module, function) {
            alone.add_function(if f.name == function { whole.clone() } else { f.clone() })?;
        }
        let weights = Arc::new(arguments.weights.clone());
        let mut session = compile::session(alone, weights, Default::default(), self.0, &mut |_| {})
            .map_err(|e| format!("compiling for {}: {e}", self.0.name()))?;
        let mut outputs = session.call(function, &inputs).map_err(|e| format!("on {}: {e}", self.0.name()))?;
        names.iter().map(|n| outputs.remove(n).ok_or_else(|| format!("no output `{n}`"))).collect()
    }
}

/// A function and all it calls.
fn reached<'m>(module: &'m Module, function: &str) -> Vec<&'m Function> {
    let mut all: Vec<&Function> = module.function(function).into_iter().collect();
    let mut next = 0;
    while let Some(f) = all.get(next).copied() {
        next += 1;
        for callee in f.calls.iter().filter_map(|c| module.function(&c.function)) {
            if !all.iter().any(|known| known.name == callee.name) {
                all.push(callee);
            }
        }
    }
    all
}

fn reads(function: &Function, weight: &str) -> bool {
    function.ids().any(|id| matches!(function.op(id), Some((Op::Weight(w), _)) if w.name == weight))
}

fn has_states(function: &Function) -> bool {
    function.ids().any(|id| matches!(function.op(id), Some((Op::State(_), _))))
}

fn state_name(name: &str) -> String {
    format!("state {name}")
}

/// The function with states as parameters and outputs, and its outputs' names in order: single calls on a device start
/// with zero states, but tests give them.
fn without_states(function: &Function) -> (Function, Vec<String>) {
    let mut b = Builder::new(function.name.clone());
    let mut states: BTreeMap<&str, ValueId> = BTreeMap::new();
    for id in function.ids() {
        if let Some((Op::State(state), _)) = function.op(id)
            && !states.contains_key(state.name.as_str())
        {
            states.insert(&state.name, b.input(state_name(&state.name), state.ty.clone()));
        }
    }
    let mut map: Vec<ValueId> = Vec::new();
    let mut called: BTreeMap<u32, Vec<ValueId>> = BTreeMap::new();
    for id in function.ids() {
        let moved = |ids: &[ValueId]| -> Vec<ValueId> { ids.iter().map(|i| map[i.0 as usize]).collect() };
        let new = match &function.value(id).def {
            Def::Op { op: Op::Input(Input { name, ty }), .. } => b.input(name.clone(), ty.clone()),
            Def::Op { op: Op::State(state), .. } => states[state.name.as_str()],
            Def::Op { op, args } => b.push(op.clone(), &moved(args)).expect("well-typed before"),
            Def::Result { call, index } => {
                let results = called.entry(call.0).or_insert_with(|| {
                    let first = id.0 - index;
                    let same =
                        |v: &ValueId| matches!(function.value(*v).def, Def::Result { call: c, .. } if c == *call);
                    let types: Vec<_> =
                        function.ids().skip(first as usize).take_while(same).map(|v| function.ty(v).clone()).collect();
                    let call = &function.calls[call.0 as usize];
                    b.call(call.function.clone(), &moved(&call.args), &types)
                });
                results[*index as usize]
            }
        };
        map.push(new);
    }
    let mut names = Vec::new();
    for Return { target, value } in &function.returns {
        let name = match target {
            Target::Output(name) => name.clone(),
            Target::State(name) => state_name(name),
        };
        b.output(name.clone(), map[value.0 as usize]);
        names.push(name);
    }
    (b.finish(), names)
}
