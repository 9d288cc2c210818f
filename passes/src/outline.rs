//! `outline`: repeated blocks become one function that is called.
//!
//! A transformer is the same few operators many times. After inlining they stand one after the other, so a repeat is a run of
//! values in which the operators and types have a period. The run becomes calls of one function: what a block reads from
//! outside (weights, rows of tables, the stream) are its arguments, what others read of it its results. The block may begin
//! anywhere in the period; it begins where fewest values are alive. Whatever works on functions then sees each block once.

use crate::Pass;
use crate::readers::Readers;
use crate::rebuild::Moving;
use selvedge_ir::func::{Builder, Call, CallId, Value};
use selvedge_ir::known::{FastHasher, FastMap};
use selvedge_ir::ops::WindowKind;
use selvedge_ir::{Def, Diagnostic, Function, Module, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

/// Operators that a block has at least; smaller repeats are not worth a call, unless they are many.
pub const LEAST_OPERATORS: usize = 8;
/// Operators that the calls of a smaller block leave out at least: without a call, work on such a row of blocks (the modulations
/// of a deep network, as `tabulate` computes them) grows with their number.
pub const LEAST_SAVED: usize = 64;
/// Operators that any block has at least.
const LEAST_SMALL: usize = 3;
/// Values that may cross the border of a block besides its weights: more, and it is no block but a piece of one.
pub const MOST_RESULTS: usize = 8;

/// Makes functions of repeated blocks.
pub struct Outline;

impl Pass for Outline {
    fn name(&self) -> &'static str {
        "outline"
    }
    fn summary(&self) -> &'static str {
        "makes one function of blocks that repeat"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        let mut taken: BTreeSet<String> = module.functions.iter().map(|f| f.name.clone()).collect();
        let mut made: Vec<Function> = Vec::new();
        for function in &mut module.functions {
            let runs = if convolutional(function) { Vec::new() } else { runs(function) };
            if !runs.is_empty() {
                outline(function, &runs, &mut taken, &mut made)?;
            }
        }
        module.functions.extend(made);
        Ok(module)
    }
}

/// A repeat: `count` blocks of `period` operators each, from position `start` of the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repeat {
    start: usize,
    period: usize,
    count: usize,
}

/// A repeat with its block's border.
struct Run {
    /// The operators of each block, in order.
    blocks: Vec<Vec<ValueId>>,
    /// For each argument its value in each block.
    args: Vec<Vec<ValueId>>,
    /// Which argument an operand of block 0 is: by operator and operand.
    slots: BTreeMap<(usize, usize), usize>,
    /// Operators whose values others read.
    results: Vec<usize>,
}

/// Values that are the same wherever they are computed: constants and what is made of them.
fn constant(function: &Function) -> Vec<bool> {
    let mut constant: Vec<bool> = Vec::with_capacity(function.values.len());
    for value in &function.values {
        constant.push(match &value.def {
            Def::Op { op: Op::Input(_) | Op::Weight(_) | Op::State(_), .. } | Def::Result { .. } => false,
            Def::Op { args, .. } => args.iter().all(|a| constant[a.0 as usize]),
        });
    }
    constant
}

/// True for networks of padded convolutions, such as an autoencoder. Few of their blocks have one width, and a call would
/// keep all its row strips alive at once (measured: 798 instead of 403 MB of activations at 512 × 512 in 8 strips).
fn convolutional(function: &Function) -> bool {
    let padded = |id: &ValueId| match function.op(*id) {
        Some((Op::Window(w), _)) => {
            w.kind == WindowKind::Conv && w.size.iter().any(|n| *n > 1) && w.stride.iter().all(|n| *n == 1)
        }
        Some(_) | None => false,
    };
    function.ids().filter(padded).count() > 1
}

/// All repeats of a function that can be calls, in order.
fn runs(function: &Function) -> Vec<Run> {
    let constant = constant(function);
    let leaf = |id: ValueId| {
        matches!(function.op(id), Some((Op::Input(_) | Op::Weight(_) | Op::State(_), _)))
            || function.joined_weights(id).is_some()
    };
    let sequence: Vec<ValueId> = function.ids().filter(|id| !constant[id.0 as usize] && !leaf(*id)).collect();
    let mut position = vec![None; function.values.len()];
    sequence.iter().enumerate().for_each(|(i, id)| position[id.0 as usize] = Some(i));
    let shapes: Vec<u64> = sequence.iter().map(|id| shape(function, *id)).collect();
    let readers = Readers::of(function);
    let returned: BTreeSet<ValueId> = function.returns.iter().map(|r| r.value).collect();
    let facts = Facts {
        function,
        constant: &constant,
        sequence: &sequence,
        position: &position,
        readers: &readers,
        returned: &returned,
    };
    let mut found = Vec::new();
    let mut open = vec![(0, sequence.len())];
    while let Some((low, high)) = open.pop() {
        if let Some((run, repeat)) = repeats(&shapes, low, high).into_iter().find_map(|r| facts.best(r)) {
            found.push((repeat.start, run));
            open.push((low, repeat.start));
            open.push((repeat.start + repeat.period * repeat.count, high));
        }
    }
    found.sort_by_key(|(start, _)| *start);
    found.into_iter().map(|(_, run)| run).collect()
}

/// An operator with its types, without its operands' names.
fn shape(function: &Function, id: ValueId) -> u64 {
    let mut h = FastHasher::default();
    match &function.value(id).def {
        Def::Op { op, args } => {
            op.hash(&mut h);
            args.iter().for_each(|a| function.ty(*a).hash(&mut h));
        }
        // A call is no part of a block.
        Def::Result { .. } => id.hash(&mut h),
    }
    function.ty(id).hash(&mut h);
    h.finish()
}

/// Repeats of a stretch, those that cover most first; of equals the one with the shortest period.
fn repeats(shapes: &[u64], low: usize, high: usize) -> Vec<Repeat> {
    let mut found: Vec<Repeat> = Vec::new();
    let n = high - low;
    // Two blocks that begin alike are a period apart: only such distances are tried.
    let mut last: FastMap<u64, usize> = FastMap::default();
    let mut periods: BTreeMap<usize, usize> = BTreeMap::new();
    for at in low..high {
        if let Some(before) = last.insert(shapes[at], at) {
            *periods.entry(at - before).or_default() += 1;
        }
    }
    // A block holds some operators once: their distance is its length, and multiples of shorter distances are no news.
    for (&period, _) in periods.iter().filter(|(p, _)| (LEAST_SMALL..=n / 2).contains(p)) {
        let mut at = low;
        while at + period < high {
            let mut end = at;
            while end + period < high && shapes[end] == shapes[end + period] {
                end += 1;
            }
            let count = (end - at) / period + 1;
            if count >= 2 && (period >= LEAST_OPERATORS || period * (count - 1) >= LEAST_SAVED) {
                found.push(Repeat { start: at, period, count: (end + period - at) / period });
            }
            at = end.max(at) + 1;
        }
    }
    found.sort_by_key(|r| (std::cmp::Reverse(r.period * (r.count - 1)), r.period, r.start));
    found.truncate(8);
    found
}

struct Facts<'a> {
    function: &'a Function,
    constant: &'a [bool],
    sequence: &'a [ValueId],
    /// Of each value, its place in the sequence.
    position: &'a [Option<usize>],
    readers: &'a Readers,
    returned: &'a BTreeSet<ValueId>,
}

impl Facts<'_> {
    /// The best border of a repeat: the fewest results, then the most blocks, then the first.
    fn best(&self, r: Repeat) -> Option<(Run, Repeat)> {
        let spare = self.spare(r);
        let mut borders: Vec<(usize, usize, Repeat)> = Vec::new();
        for shift in 0..r.period {
            let repeat =
                Repeat { start: r.start + shift, period: r.period, count: r.count - usize::from(shift > spare) };
            if repeat.count >= 2 {
                borders.push((self.alive(repeat.start), r.count - repeat.count, repeat));
            }
        }
        borders.sort_by_key(|(alive, lost, repeat)| (*alive, *lost, repeat.start));
        borders.into_iter().find_map(|(.., repeat)| Some((self.run(repeat)?, repeat)))
    }

    /// Operators behind a repeat that still have its period.
    fn spare(&self, r: Repeat) -> usize {
        let at = |i: usize| self.sequence.get(i).map(|id| shape(self.function, *id));
        let end = r.start + r.period * r.count;
        (0..r.period).take_while(|i| at(end + i).is_some() && at(end + i) == at(end + i - r.period)).count()
    }

    /// Values of before a position that are read behind it, weights and constants not counted.
    fn alive(&self, at: usize) -> usize {
        let Some(border) = self.sequence.get(at) else { return 0 };
        let read = |id: &&ValueId| self.readers.of_value(**id).last().is_some_and(|r| r >= border);
        // A block reads the stream of the block before: looking back two periods of any model is enough to rank borders.
        self.sequence[at.saturating_sub(512)..at].iter().filter(read).count()
    }

    /// Checks that all blocks have one structure, and finds what crosses their borders.
    fn run(&self, r: Repeat) -> Option<Run> {
        let f = self.function;
        let blocks: Vec<Vec<ValueId>> =
            (0..r.count).map(|k| self.sequence[r.start + k * r.period..][..r.period].to_vec()).collect();
        // Where in block k a value is.
        let place = |k: usize, id: ValueId| {
            let first = r.start + k * r.period;
            let at = self.position[id.0 as usize]?;
            (first..first + r.period).contains(&at).then(|| at - first)
        };
        let mut args: Vec<Vec<ValueId>> = Vec::new();
        let mut known: FastMap<Vec<ValueId>, usize> = FastMap::default();
        let mut slots = BTreeMap::new();
        for i in 0..r.period {
            let (first, operands) = f.op(blocks[0][i])?;
            for block in &blocks[1..] {
                let (op, args) = f.op(block[i])?;
                if op != first || args.len() != operands.len() || f.ty(block[i]) != f.ty(blocks[0][i]) {
                    return None;
                }
            }
            for slot in 0..operands.len() {
                let of: Vec<ValueId> = blocks.iter().map(|b| f.reads(b[i])[slot]).collect();
                let inside: Vec<Option<usize>> = of.iter().enumerate().map(|(k, id)| place(k, *id)).collect();
                if inside.iter().any(Option::is_some) {
                    if inside.iter().any(|p| *p != inside[0]) {
                        return None;
                    }
                    continue;
                }
                if self.constant[of[0].0 as usize] && of.iter().all(|id| *id == of[0]) {
                    continue;
                }
                if of.iter().any(|id| f.ty(*id) != f.ty(of[0])) {
                    return None;
                }
                let at = *known.entry(of.clone()).or_insert_with(|| {
                    args.push(of);
                    args.len() - 1
                });
                slots.insert((i, slot), at);
            }
        }
        let outside = |k: usize, id: &ValueId| {
            self.returned.contains(id) || self.readers.of_value(*id).iter().any(|r| place(k, *r).is_none())
        };
        let results: Vec<usize> =
            (0..r.period).filter(|i| blocks.iter().enumerate().any(|(k, b)| outside(k, &b[*i]))).collect();
        (1..=MOST_RESULTS).contains(&results.len()).then_some(Run { blocks, args, slots, results })
    }
}

/// The block as a function.
fn callee(function: &Function, run: &Run, name: String) -> Result<Function, Diagnostic> {
    let mut b = Builder::new(name);
    let args: Vec<ValueId> =
        run.args.iter().enumerate().map(|(i, of)| b.input(format!("a{i}"), function.ty(of[0]).clone())).collect();
    let mut map: FastMap<ValueId, ValueId> = FastMap::default();
    for (i, id) in run.blocks[0].iter().enumerate() {
        let Some((op, operands)) = function.op(*id) else { continue };
        let mut new = Vec::with_capacity(operands.len());
        for (slot, operand) in operands.iter().enumerate() {
            new.push(match run.slots.get(&(i, slot)) {
                Some(at) => args[*at],
                None => constant_in(function, *operand, &mut b, &mut map)?,
            });
        }
        let value = function.value(*id);
        b.set_place(value.places.first().copied());
        let made = b.try_push(op.clone(), &new)?;
        // All blocks' places: the function stands for each of them.
        let mut places = value.places.clone();
        for other in run.blocks[1..].iter().flat_map(|block| &function.value(block[i]).places) {
            if !places.contains(other) {
                places.push(*other);
            }
        }
        b.set_places(made, places);
        if let Some(name) = &value.name {
            b.set_name(made, name.clone());
        }
        map.insert(*id, made);
    }
    for (n, at) in run.results.iter().enumerate() {
        b.output(format!("r{n}"), map[&run.blocks[0][*at]]);
    }
    Ok(b.finish())
}

/// A value that was copied already, or a constant's copy.
fn constant_in(
    function: &Function,
    id: ValueId,
    b: &mut Builder,
    map: &mut FastMap<ValueId, ValueId>,
) -> Result<ValueId, Diagnostic> {
    if let Some(new) = map.get(&id) {
        return Ok(*new);
    }
    let Some((op, operands)) = function.op(id) else {
        return Err(Diagnostic::new("outline", "a call's result is no constant"));
    };
    let operands: Vec<ValueId> =
        operands.iter().map(|a| constant_in(function, *a, b, map)).collect::<Result<_, _>>()?;
    b.set_place(function.value(id).places.first().copied());
    let new = b.try_push(op.clone(), &operands)?;
    map.insert(id, new);
    Ok(new)
}

/// Makes a function's runs calls.
fn outline(
    function: &mut Function,
    runs: &[Run],
    taken: &mut BTreeSet<String>,
    made: &mut Vec<Function>,
) -> Result<(), Diagnostic> {
    // The run and the block that an operator belongs to.
    let mut inside: Vec<Option<(u32, u32)>> = vec![None; function.values.len()];
    let mut names = Vec::new();
    for (n, run) in (0..).zip(runs) {
        let name = (0..).map(|i| format!("{}_block_{i}", function.name)).find(|name| !taken.contains(name));
        let name = name.expect("one of many is free");
        taken.insert(name.clone());
        made.push(callee(function, run, name.clone())?);
        names.push(name);
        for (k, block) in (0..).zip(&run.blocks) {
            block.iter().for_each(|id| inside[id.0 as usize] = Some((n, k)));
        }
    }
    // What others read of a block waits for its call.
    let mut waiting: FastMap<ValueId, Value> = FastMap::default();
    let mut moving = Moving::of(function);
    while let Some((id, value)) = moving.take() {
        let Some((n, k)) = inside[id.0 as usize] else {
            moving.keep(value);
            continue;
        };
        let (n, k) = (n as usize, k as usize);
        let (run, block) = (&runs[n], &runs[n].blocks[k]);
        moving.drop_last();
        if run.results.iter().any(|at| block[*at] == id) {
            waiting.insert(id, value);
        }
        // The call is where the block's last operator was.
        if block.last() != Some(&id) {
            continue;
        }
        let args: Vec<ValueId> = run.args.iter().map(|of| moving.now(of[k])).collect();
        let call = CallId(moving.function.calls.len() as u32);
        moving.function.calls.push(Call { function: names[n].clone(), args });
        for (index, at) in (0..).zip(&run.results) {
            let lost = || Diagnostic::new("outline", "a block's result comes behind its last operator");
            let value = waiting.remove(&block[*at]).ok_or_else(lost)?;
            let new = moving.add(Value { def: Def::Result { call, index }, ..value });
            moving.revive(block[*at], new);
        }
    }
    moving.finish()
}
