//! `dead-code`: what nothing reads.

use crate::Pass;
use selvedge_ir::func::{CallId, Target};
use selvedge_ir::known::FastMap;
use selvedge_ir::{Def, Diagnostic, Function, Module, Op, ValueId};
use std::collections::BTreeSet;

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
        module.functions.iter_mut().for_each(sweep);
        if !module.schedule.is_empty() {
            let reached = reached(&module);
            module.functions.retain(|f| reached.contains(&f.name));
        }
        let (mut weights, mut states): (FastMap<&str, ()>, BTreeSet<&str>) = Default::default();
        for function in &module.functions {
            for id in function.ids() {
                match function.op(id) {
                    Some((Op::Weight(w), _)) => _ = weights.insert(&w.name, ()),
                    Some((Op::State(s), _)) => _ = states.insert(&s.name),
                    _ => {}
                }
            }
            for r in &function.returns {
                if let Target::State(name) = &r.target {
                    states.insert(name);
                }
            }
        }
        module.weights.retain(|w| weights.contains_key(w.name.as_str()));
        module.states.retain(|s| states.contains(s.name.as_str()));
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

/// Removes a function's dead values. A call is kept whole if one of its results is read.
pub(crate) fn sweep(function: &mut Function) {
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
    if alive.contains(&false) {
        retain(function, &alive, &calls);
    }
}

/// Keeps these values and calls, under new numbers in the same order; what is kept reads nothing else.
fn retain(function: &mut Function, values: &[bool], calls: &[bool]) {
    let numbers = |kept: &[bool]| -> Vec<u32> {
        let number = |next: &mut u32, kept: &bool| Some(std::mem::replace(next, *next + u32::from(*kept)));
        kept.iter().scan(0, number).collect()
    };
    let (value, call_number) = (numbers(values), numbers(calls));
    let renumber = |ids: &mut Vec<ValueId>| ids.iter_mut().for_each(|id| *id = ValueId(value[id.0 as usize]));
    let mut kept = values.iter();
    function.values.retain(|_| kept.next() == Some(&true));
    let mut kept = calls.iter();
    function.calls.retain(|_| kept.next() == Some(&true));
    for value in &mut function.values {
        match &mut value.def {
            Def::Op { args, .. } => renumber(args),
            Def::Result { call, .. } => *call = CallId(call_number[call.0 as usize]),
        }
    }
    function.calls.iter_mut().for_each(|call| renumber(&mut call.args));
    function.returns.iter_mut().for_each(|r| r.value = ValueId(value[r.value.0 as usize]));
}
