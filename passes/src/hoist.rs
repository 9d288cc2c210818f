//! `hoist`: what a step need not compute leaves the step.
//!
//! By [binding time](crate::binding): terms of weights become outputs of `prepare`, terms of the run's inputs outputs of
//! `condition`, and terms of table rows outputs of `tabulate`, which computes several rows at once, so that the weights behind
//! them are read once for many steps. The function changes in where values are computed, not in what they are: every operator
//! is applied to the same operands as before, or to several rows of them at once.

mod emit;
mod savings;
mod select;

use crate::binding::{Stage, Time};
use crate::dead_code;
use crate::rebuild::{Moving, joined};
use crate::{Notes, Pass};
use emit::{Early, Names};
use savings::Census;
pub use savings::Savings;
use select::{Cuts, select};
pub use select::{KEEP, KEEP_ROW, Prices, REPEATS};
use selvedge_ir::func::Value;
use selvedge_ir::module::Tabulate;
use selvedge_ir::ops::Input;
use selvedge_ir::{Def, Diagnostic, Function, Module, Op, TensorType, ValueId};
use std::collections::BTreeMap;

/// Bytes of tabulated rows held at once: what a table may add to a program's memory.
pub const TABLE_BYTES: usize = 32 << 20;
/// Rows computed at once at most. With 16 a weight is read once for 16 steps, which hides its reading behind arithmetic, and a
/// run of 20 steps wastes no more than 12 rows.
pub const TABLE_ROWS: usize = 16;

/// Moves terms of early binding times into the stages that they need at least.
#[derive(Clone, Debug, Default)]
pub struct Hoist {
    /// What a kept value must save.
    pub prices: Prices,
    /// It has run before: what it moves now is not told, since what the step computes is no longer what the model says.
    pub again: bool,
}

impl Pass for Hoist {
    fn name(&self) -> &'static str {
        "hoist"
    }
    fn summary(&self) -> &'static str {
        "moves what is known before the loop into prepare, condition and tables"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        let mut late: Vec<(Stage, String)> = late(&module);
        let mut all: BTreeMap<String, Cuts> = BTreeMap::new();
        for (stage, name) in &late {
            if let Some(function) = module.function(name) {
                all.insert(name.clone(), select(&module, function, *stage, &self.prices));
            }
        }
        let rows = rows(&module, &all);
        if rows.is_none() {
            // One row does not fit twice: a table would save nothing.
            for (stage, name) in &late {
                if let Some(function) = module.function(name).filter(|_| *stage == Stage::Step) {
                    all.insert(name.clone(), select::without_tables(&module, function, &self.prices));
                }
            }
        }
        if all.values().all(|c| c.stored.is_empty()) {
            return Ok(module);
        }
        let mut names = Names::new(&module);
        // Each stage names what the later ones read of it.
        for time in [Time::Load, Time::Run, Time::Step] {
            let wanted = |c: &&Cuts| c.stored.values().any(|t| *t == time);
            if all.values().all(|c| !wanted(&c)) {
                continue;
            }
            let mut early = Early::new(&module, time, rows.unwrap_or(1));
            let function = early.build(&all, &mut names)?;
            let schedule = &mut module.schedule;
            match time {
                Time::Const | Time::Load => schedule.prepare = Some(function.name.clone()),
                Time::Run => schedule.condition = Some(function.name.clone()),
                Time::Step | Time::Latent => {
                    let table = Tabulate { function: function.name.clone(), rows: rows.unwrap_or(1) };
                    if let Some(steps) = &mut schedule.steps {
                        steps.tabulate = Some(table);
                    }
                }
            }
            match module.functions.iter_mut().find(|f| f.name == function.name) {
                Some(old) => *old = function,
                None => module.functions.push(function),
            }
            // `condition` gives its own terms away before it gets those of others.
            if time == Time::Load
                && let Some(at) = late.iter().position(|(stage, _)| *stage == Stage::Condition)
            {
                let (_, name) = late.remove(at);
                if let (Some(cuts), Some(function)) =
                    (all.remove(&name), module.functions.iter_mut().find(|f| f.name == name))
                {
                    replace(function, &cuts, &names)?;
                }
            }
        }
        for (_, name) in late.iter().filter(|(stage, _)| *stage != Stage::Condition) {
            let Some(function) = module.functions.iter_mut().find(|f| f.name == *name) else { continue };
            replace(function, &all[name], &names)?;
        }
        Ok(module)
    }
    fn run_noting(&self, module: Module, notes: &mut Notes) -> Result<Module, Diagnostic> {
        if self.again {
            return self.run(module);
        }
        let before = Census::of(&module);
        let module = self.run(module)?;
        let savings = before.savings(&module);
        notes.lines.extend(savings.as_ref().map(ToString::to_string));
        notes.hoisted = savings;
        Ok(module)
    }
}

/// Functions whose terms may move, with their stages.
fn late(module: &Module) -> Vec<(Stage, String)> {
    let s = &module.schedule;
    let mut late: Vec<(Stage, String)> = Vec::new();
    let mut add = |stage, name: &String| {
        if late.iter().all(|(_, n)| n != name) {
            late.push((stage, name.clone()));
        }
    };
    s.steps.iter().flat_map(|s| &s.functions).for_each(|f| add(Stage::Step, f));
    s.condition.iter().for_each(|f| add(Stage::Condition, f));
    s.decode.iter().for_each(|f| add(Stage::Decode, f));
    late
}

/// Rows that the tables hold: as many as fit the cap; `None` if that is fewer than two.
fn rows(module: &Module, all: &BTreeMap<String, Cuts>) -> Option<usize> {
    let mut bytes = 0;
    for (name, cuts) in all {
        let Some(function) = module.function(name) else { continue };
        let rows = cuts.stored.iter().filter(|(_, t)| **t == Time::Step);
        bytes += rows.map(|(id, _)| 4 * function.ty(*id).elements().unwrap_or(0)).sum::<usize>();
    }
    let rows = (TABLE_BYTES / bytes.max(1)).min(TABLE_ROWS);
    (rows >= 2).then_some(rows)
}

/// Makes a function's stored values parameters, and takes out what only they needed.
fn replace(function: &mut Function, cuts: &Cuts, names: &Names) -> Result<(), Diagnostic> {
    let name = function.name.clone();
    let stored: BTreeMap<ValueId, &str> =
        cuts.stored.keys().filter_map(|id| Some((*id, names.of(&name, *id)?))).collect();
    let types: Vec<TensorType> = stored.keys().map(|id| function.ty(*id).clone()).collect();
    let mut new = types.into_iter().zip(&stored);
    let mut params: BTreeMap<&str, ValueId> = BTreeMap::new();
    let mut moving = Moving::of(function);
    while let Some((id, value)) = moving.take() {
        if matches!(value.def, Def::Op { op: Op::Input(_), .. }) {
            moving.keep(value);
            continue;
        }
        // Behind the old parameters, before everything else.
        for (ty, (_, name)) in new.by_ref() {
            params.entry(name).or_insert_with(|| {
                let op = Input { name: name.to_string(), ty: ty.clone() }.into();
                let def = Def::Op { op, args: Vec::new() };
                moving.add(Value { def, ty, name: Some(name.to_string()), places: Vec::new() })
            });
        }
        match stored.get(&id) {
            Some(name) => {
                let param = params[name];
                joined(&mut moving.function.values[param.0 as usize], value.places, None);
                moving.stand_in(param);
            }
            None => moving.keep(value),
        }
    }
    moving.finish()?;
    dead_code::sweep(function);
    Ok(())
}
