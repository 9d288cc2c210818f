//! Which values are kept between stages.
//!
//! The rule, for a value that a later stage reads:
//! - a leaf (weights joined in memory are one) is where it is, and views are free: what they read is looked at instead. A join or padding is kept like arithmetic.
//! - arithmetic of one operand and no transcendental function (`1 + scale`) takes no more loads where it is read: its operand is
//!   looked at instead; so are the operands of cheap arithmetic that only repeats them ([`REPEATS`] times or more).
//! - everything else is kept if the work behind one of its elements is at least what keeping an element costs: a store and a
//!   load, and for a table also the copy of the row ([`KEEP`], [`KEEP_ROW`], in scalar operations).
//!
//! What is not kept is computed again by the stage that reads it, as before.

use crate::binding::{Stage, Time, binding_times};
use crate::{vmap, work};
use selvedge_ir::op::OpClass;
use selvedge_ir::{Def, Function, Module, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Operations an element that a value of `prepare` or `condition` must save.
pub const KEEP: u64 = 8;
/// The same for a table's row, which is stored, copied and loaded.
pub const KEEP_ROW: u64 = 24;
/// Elements of a result for each element of what it is made of, from which cheap arithmetic is left to the reader.
pub const REPEATS: usize = 4;
/// What keeping costs, in scalar operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prices {
    /// An element of a value of `prepare` or `condition`.
    pub keep: u64,
    /// An element of a table's row.
    pub keep_row: u64,
    /// A value, however small.
    pub least: u64,
}

impl Default for Prices {
    fn default() -> Prices {
        Prices { keep: KEEP, keep_row: KEEP_ROW, least: LEAST }
    }
}

/// Operations of a body up to which arithmetic is cheap.
const CHEAP: u64 = 8;
/// Work below which nothing is kept: less than a dispatch.
const LEAST: u64 = 256;

/// What is kept of a function's values, with the stage (as binding time) that computes it.
pub(super) struct Cuts {
    /// Binding times; a value that depends on rows through an operator without a batching rule counts as `Latent`.
    pub times: Vec<Time>,
    /// Kept values: `Load`, `Run` or `Step`.
    pub stored: BTreeMap<ValueId, Time>,
}

/// Chooses for a function of a stage.
pub(super) fn select(module: &Module, function: &Function, stage: Stage, prices: &Prices) -> Cuts {
    // A program that has a table function already keeps it as it is.
    let tables = module.schedule.steps.as_ref().is_some_and(|s| s.tabulate.is_none());
    selected(module, function, stage, tables, prices)
}

/// Chooses for a step function, with nothing in tables.
pub(super) fn without_tables(module: &Module, function: &Function, prices: &Prices) -> Cuts {
    selected(module, function, Stage::Step, false, prices)
}

fn selected(module: &Module, function: &Function, stage: Stage, tables: bool, prices: &Prices) -> Cuts {
    let level = match stage {
        Stage::Prepare => Time::Load,
        Stage::Condition | Stage::Decode => Time::Run,
        Stage::Tabulate => Time::Step,
        Stage::Step => Time::Latent,
    };
    let known = binding_times(module, function).unwrap_or_else(|| vec![Time::Latent; function.values.len()]);
    let mut times: Vec<Time> = Vec::with_capacity(known.len());
    for id in function.ids() {
        times.push(movable(function, id, known[id.0 as usize], &times, tables));
    }
    let mut s = Selecting { function, prices, times, stored: BTreeMap::new(), seen: vec![0; function.values.len()] };
    for r in &function.returns {
        s.read(r.value, level);
    }
    Cuts { times: s.times, stored: s.stored }
}

/// The time of a value as far as it can be moved.
fn movable(function: &Function, id: ValueId, known: Time, times: &[Time], tables: bool) -> Time {
    let Def::Op { op, args } = &function.value(id).def else { return Time::Latent };
    let known = args.iter().map(|a| times[a.0 as usize]).fold(known, Time::max);
    if known != Time::Step || matches!(op, Op::Input(_)) {
        return known;
    }
    let batched: Vec<bool> = args.iter().map(|a| times[a.0 as usize] == Time::Step).collect();
    if tables && vmap::has_rule(op, &batched) { Time::Step } else { Time::Latent }
}

struct Selecting<'a> {
    function: &'a Function,
    prices: &'a Prices,
    times: Vec<Time>,
    stored: BTreeMap<ValueId, Time>,
    /// For each value the levels at which it is read or computed, a bit each.
    seen: Vec<u8>,
}

impl Selecting<'_> {
    /// `id` is wanted by a stage of this level.
    fn read(&mut self, id: ValueId, level: Time) {
        // An explicit stack: a program of many blocks is deep.
        let mut open = vec![(id, level)];
        while let Some((id, level)) = open.pop() {
            let (seen, bit) = (&mut self.seen[id.0 as usize], 1 << level as u8);
            if *seen & bit != 0 {
                continue;
            }
            *seen |= bit;
            let time = self.times[id.0 as usize].max(Time::Load);
            let mut inner = level;
            if time < level && (self.stored.contains_key(&id) || self.kept(id, time)) {
                self.stored.insert(id, time);
                inner = time;
            }
            open.extend(self.function.reads(id).iter().map(|a| (*a, inner)));
        }
    }

    fn kept(&self, id: ValueId, time: Time) -> bool {
        let Some((op, args)) = self.function.op(id) else { return false };
        if self.function.joined_weights(id).is_some() {
            return false;
        }
        match op.class() {
            OpClass::Leaf => return false,
            OpClass::View if !matches!(op, Op::Concat(_) | Op::Pad(_)) => return false,
            OpClass::Map if self.left_to_reader(id, op, args) => return false,
            _ => {}
        }
        let elements = self.function.ty(id).elements().unwrap_or(usize::MAX) as u64;
        let price = if time == Time::Step { self.prices.keep_row } else { self.prices.keep };
        let needed = elements.saturating_mul(price).max(self.prices.least);
        self.has_work(id, needed)
    }

    /// Arithmetic that costs its reader no more than loading its result.
    fn left_to_reader(&self, id: ValueId, op: &Op, args: &[ValueId]) -> bool {
        let Op::Map(map) = op else { return false };
        if work::of_body(&map.body) > CHEAP {
            return false;
        }
        let elements = |id: ValueId| self.function.ty(id).elements().unwrap_or(usize::MAX);
        let anchors: BTreeSet<ValueId> = args.iter().map(|a| self.behind_views(*a)).collect();
        let is_const = |id: &ValueId| matches!(self.function.op(*id), Some((Op::Const(_), _)));
        let leaf = |id: &ValueId| self.function.op(*id).is_some_and(|(op, _)| op.class() == OpClass::Leaf);
        if anchors.iter().filter(|a| !is_const(a)).count() <= 1 {
            return true;
        }
        let computed: usize = anchors.iter().filter(|a| !leaf(a)).map(|a| elements(*a)).sum();
        elements(id) >= computed.saturating_mul(REPEATS)
    }

    fn behind_views(&self, mut id: ValueId) -> ValueId {
        while let Some((Op::Transpose(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Slice(_), args)) =
            self.function.op(id)
        {
            id = args[0];
        }
        id
    }

    /// Whether computing a value takes so many operations.
    fn has_work(&self, id: ValueId, needed: u64) -> bool {
        let (mut open, mut seen, mut work) = (vec![id], BTreeSet::new(), 0u64);
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                work = work.saturating_add(work::of_value(self.function, id));
                if work >= needed {
                    return true;
                }
                open.extend(self.function.reads(id));
            }
        }
        false
    }
}
