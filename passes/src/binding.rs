//! Binding times: how early a value of a scheduled function is known.
//!
//! The schedule runs a function at load, once a run, once a step; most of what a step computes is known earlier. This is the
//! one analysis behind constant folding across stages, hoisting and tables.

use selvedge_ir::func::Function;
use selvedge_ir::{Def, Module, Op};

/// When a value is known, earliest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Time {
    /// From the module alone.
    Const,
    /// When the weights are there.
    Load,
    /// When the inputs of the run are there.
    Run,
    /// When the table rows of the step are there: before the first step, since tables come with the run.
    Step,
    /// When the steps before are done: it depends on a carried value or a state.
    Latent,
}

/// When a scheduled function runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// At load.
    Prepare,
    /// Once a run.
    Condition,
    /// Before each chunk of steps.
    Tabulate,
    /// Once a step.
    Step,
    /// After the loop.
    Decode,
}

/// The stage that the schedule has a function for.
pub fn stage(module: &Module, function: &str) -> Option<Stage> {
    let s = &module.schedule;
    let is = |name: &Option<String>| name.as_deref() == Some(function);
    if is(&s.prepare) {
        return Some(Stage::Prepare);
    }
    if is(&s.condition) {
        return Some(Stage::Condition);
    }
    if let Some(steps) = &s.steps {
        if steps.tabulate.as_ref().is_some_and(|t| t.function == function) {
            return Some(Stage::Tabulate);
        }
        if steps.functions.iter().any(|f| f == function) {
            return Some(Stage::Step);
        }
    }
    is(&s.decode).then_some(Stage::Decode)
}

/// The binding time of each value of a function that the schedule names; `None` for another function.
///
/// An operator's value is known when its last operand is; a call's results are followed into the callee.
pub fn binding_times(module: &Module, function: &Function) -> Option<Vec<Time>> {
    let stage = stage(module, &function.name)?;
    Some(times(module, function, &|name| input(module, stage, name)))
}

/// When the input of a stage's function is known: the order in which names are bound (see [`selvedge_ir::module::Schedule`]).
fn input(module: &Module, stage: Stage, name: &str) -> Time {
    let s = &module.schedule;
    let returns = |function: Option<&String>| {
        function.and_then(|f| module.function(f)).is_some_and(|f| f.outputs().iter().any(|(n, _)| *n == name))
    };
    let steps = s.steps.as_ref();
    let carried = steps.is_some_and(|s| s.carry.iter().any(|n| n == name));
    let table = steps.is_some_and(|s| {
        s.tables.iter().any(|t| t.name == name)
            || (stage == Stage::Step && returns(s.tabulate.as_ref().map(|t| &t.function)))
    });
    match stage {
        Stage::Step | Stage::Decode if carried => Time::Latent,
        Stage::Step | Stage::Tabulate if table => Time::Step,
        Stage::Step | Stage::Tabulate | Stage::Decode if returns(s.condition.as_ref()) => Time::Run,
        Stage::Prepare => Time::Load,
        Stage::Condition | Stage::Tabulate | Stage::Step | Stage::Decode if returns(s.prepare.as_ref()) => Time::Load,
        Stage::Condition | Stage::Tabulate | Stage::Step | Stage::Decode => Time::Run,
    }
}

fn times(module: &Module, function: &Function, input: &dyn Fn(&str) -> Time) -> Vec<Time> {
    let mut times: Vec<Time> = Vec::with_capacity(function.values.len());
    let mut called: Vec<Option<Vec<Time>>> = vec![None; function.calls.len()];
    for value in &function.values {
        let time = match &value.def {
            Def::Op { op: Op::Input(i), .. } => input(&i.name),
            Def::Op { op: Op::Weight(_), .. } => Time::Load,
            Def::Op { op: Op::State(_), .. } => Time::Latent,
            Def::Op { args, .. } => args.iter().map(|a| times[a.0 as usize]).max().unwrap_or(Time::Const),
            Def::Result { call, index } => {
                let slot = call.0 as usize;
                if called[slot].is_none() {
                    called[slot] = Some(results(module, function, slot, &times));
                }
                let results = called[slot].as_ref().expect("filled above");
                results.get(*index as usize).copied().unwrap_or(Time::Latent)
            }
        };
        times.push(time);
    }
    times
}

/// Times of a call's results.
fn results(module: &Module, function: &Function, call: usize, known: &[Time]) -> Vec<Time> {
    let call = &function.calls[call];
    let Some(callee) = module.function(&call.function) else { return Vec::new() };
    let params = callee.params();
    let of = |name: &str| {
        let at = params.iter().position(|(n, _)| *n == name);
        at.and_then(|i| call.args.get(i)).map_or(Time::Latent, |a| known[a.0 as usize])
    };
    let inside = times(module, callee, &of);
    callee.returns.iter().map(|r| inside[r.value.0 as usize]).collect()
}
