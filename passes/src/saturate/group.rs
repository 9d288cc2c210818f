//! Calls that follow each other count as one call while a function is rewritten.
//!
//! Calls cut a graph: rules see their results as parameters. A deep network calls its block many times, and what lies between two
//! calls (a stream that one hands to the next, weights that nothing else reads) is nothing that rules can touch. Such calls
//! become one call of a function that is made for the purpose, and come back when the function is written: so a graph does not
//! grow with the number of blocks.

use crate::rebuild::{Moving, joined, renumber, results};
use selvedge_ir::func::{CallId, Target, Value};
use selvedge_ir::known::FastMap;
use selvedge_ir::{Builder, Def, Diagnostic, Function, Op, TensorType, ValueId};
use std::collections::BTreeSet;

/// A function with its calls in groups.
#[derive(Clone, Debug)]
pub(super) struct Grouped {
    /// The function; every call in it is one of a group.
    pub function: Function,
    groups: Vec<Function>,
}

/// Who reads a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    None,
    /// Calls of one group, and weights' joins that only they read.
    Group(usize),
    Others,
}

impl Readers {
    fn and(&mut self, other: Readers) {
        *self = match (*self, other) {
            (Readers::None, x) => x,
            (x, y) if x == y => x,
            (Readers::Group(_) | Readers::Others, _) => Readers::Others,
        };
    }
}

impl Grouped {
    /// Groups the calls of a function; `None` if it has fewer than two.
    pub(super) fn of(function: &Function) -> Result<Option<Grouped>, Diagnostic> {
        let calls: BTreeSet<u32> = function.values.iter().filter_map(|v| called(&v.def)).collect();
        if function.calls.len() < 2 || calls.len() < function.calls.len() {
            return Ok(None);
        }
        let (depths, levels) = levels(function);
        let readers = readers(function, &levels);
        let mut groups: Vec<Function> = Vec::new();
        let mut to = Builder::with_capacity(function.name.clone(), function.values.len());
        let mut map: Vec<Option<ValueId>> = vec![None; function.values.len()];
        let mut ids: Vec<ValueId> = function.ids().collect();
        ids.sort_by_key(|id| depths[id.0 as usize]);
        let mut ids = ids.into_iter().peekable();
        let all: BTreeSet<usize> = levels.iter().copied().collect();
        for level in all.into_iter().map(Some).chain([None]) {
            while let Some(id) = ids.next_if(|id| level.is_none_or(|level| depths[id.0 as usize] <= level)) {
                let Some((_, args)) = function.op(id) else { continue };
                if moves(function, id, readers[id.0 as usize]) {
                    continue;
                }
                let args: Vec<ValueId> = args.iter().map(|a| there(function, &map, *a)).collect::<Result<_, _>>()?;
                let new = to.copy(function, id, &args)?;
                labelled(function, id, &mut to, new);
                map[id.0 as usize] = Some(new);
            }
            if let Some(level) = level {
                let (group, outside, given) = group(function, &levels, &readers, level, groups.len())?;
                let args: Vec<ValueId> = outside.iter().map(|a| there(function, &map, *a)).collect::<Result<_, _>>()?;
                let types: Vec<TensorType> = given.iter().map(|id| function.ty(*id).clone()).collect();
                for (old, new) in given.iter().zip(to.call(group.name.clone(), &args, &types)) {
                    labelled(function, *old, &mut to, new);
                    map[old.0 as usize] = Some(new);
                }
                groups.push(group);
            }
        }
        for r in &function.returns {
            let value = there(function, &map, r.value)?;
            match &r.target {
                Target::Output(name) => to.output(name.clone(), value),
                Target::State(name) => to.write_state(name.clone(), value),
            }
        }
        Ok(Some(Grouped { function: to.finish(), groups }))
    }

    /// A rewritten function with the calls as they were.
    pub(super) fn expanded(&self, mut function: Function) -> Result<Function, Diagnostic> {
        // Names stand for what was rewritten: nothing else takes them.
        let taken: BTreeSet<String> = function.values.iter().filter_map(|v| v.name.clone()).collect();
        let mut given: FastMap<CallId, Vec<ValueId>> = FastMap::default();
        let mut moving = Moving::of(&mut function);
        while let Some((_, value)) = moving.take() {
            let (call, index) = match value.def {
                Def::Result { call, index } => (call, index as usize),
                Def::Op { .. } => {
                    moving.keep(value);
                    continue;
                }
            };
            let Some(group) = self.groups.iter().find(|g| g.name == moving.callee(call)) else {
                moving.keep(value);
                continue;
            };
            let results = given.entry(call).or_insert_with(|| {
                let args = moving.arguments(call);
                inline(&mut moving, group, &args, &taken)
            });
            let result = results[index];
            joined(&mut moving.function.values[result.0 as usize], value.places, value.name);
            moving.stand_in(result);
        }
        moving.finish()?;
        Ok(in_order(function))
    }
}

/// Adds what a group is made of; gives what it returns.
fn inline(moving: &mut Moving, group: &Function, args: &[ValueId], taken: &BTreeSet<String>) -> Vec<ValueId> {
    let mut map: Vec<ValueId> = Vec::with_capacity(group.values.len());
    let mut calls: Vec<Option<CallId>> = vec![None; group.calls.len()];
    let mut args = args.iter();
    for value in &group.values {
        let def = match &value.def {
            Def::Op { op: Op::Input(_), .. } => {
                map.extend(args.next());
                continue;
            }
            Def::Op { op, args } => {
                let mut args = args.clone();
                renumber(&map, &mut args);
                Def::Op { op: op.clone(), args }
            }
            Def::Result { call, index } => {
                let call = *calls[call.0 as usize].get_or_insert_with(|| {
                    let mut call = group.calls[call.0 as usize].clone();
                    renumber(&map, &mut call.args);
                    moving.function.calls.push(call);
                    CallId(moving.function.calls.len() as u32 - 1)
                });
                Def::Result { call, index: *index }
            }
        };
        let name = value.name.as_ref().filter(|name| !taken.contains(*name)).cloned();
        map.push(moving.add(Value { def, ty: value.ty.clone(), name, places: value.places.clone() }));
    }
    group.returns.iter().map(|r| map[r.value.0 as usize]).collect()
}

/// A function with each value right before what first reads it, calls in their order: fewest values are alive, and weights lie in
/// the order in which they are read.
fn in_order(mut function: Function) -> Function {
    let mut order: Vec<ValueId> = function.params().into_iter().map(|(_, id)| id).collect();
    let mut new: Vec<Option<ValueId>> = vec![None; function.values.len()];
    (0..).zip(&order).for_each(|(i, id)| new[id.0 as usize] = Some(ValueId(i)));
    let mut firsts: Vec<Option<ValueId>> = vec![None; function.calls.len()];
    for id in function.ids() {
        if let Some(call) = called(&function.value(id).def) {
            firsts[call as usize].get_or_insert(id);
        }
    }
    let roots = firsts.iter().flatten().copied().chain(function.returns.iter().map(|r| r.value));
    for root in roots.collect::<Vec<_>>() {
        let mut open = vec![(root, 0)];
        while let Some((id, next)) = open.pop() {
            if new[id.0 as usize].is_some() {
                continue;
            }
            match function.reads(id).get(next) {
                Some(read) => open.extend([(id, next + 1), (*read, 0)]),
                None => {
                    let call = called(&function.value(id).def).and_then(|call| firsts[call as usize]);
                    let all = call.map_or_else(|| vec![id], |first| results(&function, first).collect());
                    for id in all {
                        new[id.0 as usize] = Some(ValueId(order.len() as u32));
                        order.push(id);
                    }
                }
            }
        }
    }
    let renumber = |ids: &mut [ValueId]| {
        ids.iter_mut().for_each(|id| *id = new[id.0 as usize].expect("what is read was put in order"));
    };
    let mut values: Vec<Option<Value>> = std::mem::take(&mut function.values).into_iter().map(Some).collect();
    function.values = order.iter().filter_map(|id| values[id.0 as usize].take()).collect();
    for value in &mut function.values {
        if let Def::Op { args, .. } = &mut value.def {
            renumber(args);
        }
    }
    function.calls.iter_mut().for_each(|call| renumber(&mut call.args));
    function.returns.iter_mut().for_each(|r| renumber(std::slice::from_mut(&mut r.value)));
    function
}

/// The call that a value is a result of.
fn called(def: &Def) -> Option<u32> {
    match def {
        Def::Result { call, .. } => Some(call.0),
        Def::Op { .. } => None,
    }
}

/// For each value and for each call, how many groups of calls come before it: one more for each time that operators work on results.
fn levels(function: &Function) -> (Vec<usize>, Vec<usize>) {
    let mut depths: Vec<usize> = Vec::with_capacity(function.values.len());
    let mut levels = vec![0; function.calls.len()];
    for id in function.ids() {
        let def = &function.value(id).def;
        let behind = |levels: &[usize], a: &ValueId| match called(&function.value(*a).def) {
            Some(call) => levels[call as usize] + usize::from(called(def).is_none()),
            None => depths[a.0 as usize],
        };
        let depth = function.reads(id).iter().map(|a| behind(&levels, a)).max().unwrap_or(0);
        if let Some(call) = called(def) {
            levels[call as usize] = depth;
        }
        depths.push(depth);
    }
    (depths, levels)
}

/// The readers of each value.
fn readers(function: &Function, levels: &[usize]) -> Vec<Readers> {
    let mut readers = vec![Readers::None; function.values.len()];
    function.returns.iter().for_each(|r| readers[r.value.0 as usize].and(Readers::Others));
    for id in function.ids().rev() {
        let reader = match called(&function.value(id).def) {
            Some(call) => Readers::Group(levels[call as usize]),
            None if moves(function, id, readers[id.0 as usize]) => readers[id.0 as usize],
            None => Readers::Others,
        };
        function.reads(id).iter().for_each(|a| readers[a.0 as usize].and(reader));
    }
    readers
}

/// Whether an operator's value moves to the calls that read it: weights, and joins of them.
fn moves(function: &Function, id: ValueId, readers: Readers) -> bool {
    let weight = matches!(function.op(id), Some((Op::Weight(_), _))) || function.joined_weights(id).is_some();
    weight && matches!(readers, Readers::Group(_))
}

fn there(function: &Function, map: &[Option<ValueId>], id: ValueId) -> Result<ValueId, Diagnostic> {
    let lost = || Diagnostic::new("saturate internal", format!("@{}: a call is read before it is made", function.name));
    map[id.0 as usize].ok_or_else(lost)
}

/// A copy is known by the same name, and comes from the same places.
fn labelled(function: &Function, id: ValueId, to: &mut Builder, new: ValueId) {
    let value = function.value(id);
    to.set_places(new, value.places.clone());
    if let Some(name) = &value.name {
        to.set_name(new, name.clone());
    }
}

/// The function of the calls of a level, with the values that it reads from outside and those that others read of it.
fn group(
    function: &Function,
    levels: &[usize],
    readers: &[Readers],
    level: usize,
    number: usize,
) -> Result<(Function, Vec<ValueId>, Vec<ValueId>), Diagnostic> {
    let mut b = Builder::new(format!("{} calls {number}", function.name));
    let mut map: Vec<Option<ValueId>> = vec![None; function.values.len()];
    let (mut outside, mut given) = (Vec::new(), Vec::new());
    for id in function.ids() {
        let Def::Result { call, index: 0 } = function.value(id).def else { continue };
        if levels[call.0 as usize] != level {
            continue;
        }
        let statement = &function.calls[call.0 as usize];
        for arg in &statement.args {
            // A join's weights come before it.
            let parts = if moves(function, *arg, readers[arg.0 as usize]) { function.reads(*arg) } else { &[] };
            for value in parts.iter().chain([arg]) {
                if map[value.0 as usize].is_some() {
                    continue;
                }
                let new = if moves(function, *value, readers[value.0 as usize]) {
                    let args: Vec<ValueId> =
                        function.reads(*value).iter().map(|a| there(function, &map, *a)).collect::<Result<_, _>>()?;
                    let new = b.copy(function, *value, &args)?;
                    labelled(function, *value, &mut b, new);
                    new
                } else {
                    outside.push(*value);
                    b.input(format!("a{}", outside.len()), function.ty(*value).clone())
                };
                map[value.0 as usize] = Some(new);
            }
        }
        let args: Vec<ValueId> = statement.args.iter().map(|a| there(function, &map, *a)).collect::<Result<_, _>>()?;
        let all: Vec<ValueId> = results(function, id).collect();
        let types: Vec<TensorType> = all.iter().map(|id| function.ty(*id).clone()).collect();
        for (old, new) in all.into_iter().zip(b.call(statement.function.clone(), &args, &types)) {
            labelled(function, old, &mut b, new);
            map[old.0 as usize] = Some(new);
            if !matches!(readers[old.0 as usize], Readers::None) && readers[old.0 as usize] != Readers::Group(level) {
                b.output(format!("r{}", given.len()), new);
                given.push(old);
            }
        }
    }
    Ok((b.finish(), outside, given))
}
