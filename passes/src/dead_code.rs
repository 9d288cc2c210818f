//! `dead-code`: what nothing reads.

use crate::Pass;
use selvedge_ir::func::{Builder, CallId, Target};
use selvedge_ir::{Def, Diagnostic, Function, Module, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Removes values that no result depends on; with a schedule, functions that it never reaches; and weights and
/// states that no function names. Parameters stay.
pub struct DeadCode;

impl Pass for DeadCode {
    fn name(&self) -> &'static str {
        "dead-code"
    }
    fn summary(&self) -> &'static str {
        "removes values, functions, weights and states that nothing reads"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        for function in &mut module.functions {
            *function = live(function)?;
        }
        if !module.schedule.is_empty() {
            let reached = reached(&module);
            module.functions.retain(|f| reached.contains(&f.name));
        }
        let (mut weights, mut states) = (BTreeSet::new(), BTreeSet::new());
        for function in &module.functions {
            for id in function.ids() {
                match function.op(id) {
                    Some((Op::Weight(w), _)) => _ = weights.insert(w.name.clone()),
                    Some((Op::State(s), _)) => _ = states.insert(s.name.clone()),
                    _ => {}
                }
            }
            for r in &function.returns {
                if let Target::State(name) = &r.target {
                    states.insert(name.clone());
                }
            }
        }
        module.weights.retain(|w| weights.contains(&w.name));
        module.states.retain(|s| states.contains(&s.name));
        Ok(module)
    }
}

/// Functions that the schedule names, and what they call.
fn reached(module: &Module) -> BTreeSet<String> {
    let s = &module.schedule;
    let mut open: Vec<&String> = [&s.prepare, &s.condition, &s.decode].into_iter().flatten().collect();
    open.extend(s.steps.iter().flat_map(|s| &s.functions));
    open.extend(s.steps.iter().filter_map(|s| s.tabulate.as_ref()).map(|t| &t.function));
    let mut reached = BTreeSet::new();
    while let Some(name) = open.pop() {
        if reached.insert(name.clone())
            && let Some(function) = module.function(name)
        {
            open.extend(function.calls.iter().map(|c| &c.function));
        }
    }
    reached
}

/// The function without its dead values. A call is kept whole if one of its results is read.
pub(crate) fn live(function: &Function) -> Result<Function, Diagnostic> {
    let mut alive = vec![false; function.values.len()];
    let mut calls = vec![false; function.calls.len()];
    function.returns.iter().for_each(|r| alive[r.value.0 as usize] = true);
    for id in function.ids().rev() {
        let kept = match &function.value(id).def {
            Def::Op { op, .. } => alive[id.0 as usize] || matches!(op, Op::Input(_)),
            // Results are consecutive, so the last read one marks the call before its other results are seen.
            Def::Result { call, .. } => {
                calls[call.0 as usize] |= alive[id.0 as usize];
                calls[call.0 as usize]
            }
        };
        alive[id.0 as usize] = kept;
        if kept {
            function.reads(id).iter().for_each(|a| alive[a.0 as usize] = true);
        }
    }
    for id in function.ids() {
        if let Def::Result { call, .. } = function.value(id).def {
            alive[id.0 as usize] = calls[call.0 as usize];
        }
    }
    copied(function, &alive)
}

fn copied(function: &Function, alive: &[bool]) -> Result<Function, Diagnostic> {
    let mut b = Builder::new(function.name.clone());
    let mut map: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let mut called: BTreeMap<CallId, Vec<ValueId>> = BTreeMap::new();
    for id in function.ids().filter(|id| alive[id.0 as usize]) {
        let value = function.value(id);
        let read = |args: &[ValueId]| -> Vec<ValueId> { args.iter().map(|a| map[a]).collect() };
        let new = match &value.def {
            Def::Op { op, args } => {
                b.try_push(op.clone(), &read(args)).map_err(|d| d.at(value.places.first().copied()))?
            }
            Def::Result { call, index } => {
                let results = called.entry(*call).or_insert_with(|| {
                    let statement = &function.calls[call.0 as usize];
                    let of_call =
                        |v: &ValueId| matches!(function.value(*v).def, Def::Result { call: c, .. } if c == *call);
                    let types: Vec<_> = function.ids().filter(of_call).map(|v| function.ty(v).clone()).collect();
                    b.call(statement.function.clone(), &read(&statement.args), &types)
                });
                results[*index as usize]
            }
        };
        b.set_places(new, value.places.clone());
        if let Some(name) = &value.name {
            b.set_name(new, name.clone());
        }
        map.insert(id, new);
    }
    for r in &function.returns {
        match &r.target {
            Target::Output(name) => b.output(name.clone(), map[&r.value]),
            Target::State(name) => b.write_state(name.clone(), map[&r.value]),
        }
    }
    Ok(b.finish())
}
