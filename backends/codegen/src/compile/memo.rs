//! Units that are alike are emitted once.
//!
//! A model repeats its blocks, so most of its kernels are written many times with the same text. What a unit's emission reads is
//! its own operators down to stored values, and the dtype, layout and size of those: two units that agree in them touch the
//! same ranges of corresponding tensors, and through windows of one shape they have one text. So code generation takes time for
//! distinct units, and looks the others up.

use super::name_of;
use crate::access::Touch;
use crate::select::{Selection, Unit};
use crate::tensor::{Tensor, TensorId};
use selvedge_ir::known::FastMap;
use selvedge_ir::{DType, Function, Op, TensorType, ValueId};
use selvedge_shaders::memory::Layout;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// What is known of units so far.
#[derive(Default)]
pub(super) struct Memo {
    ops: FastMap<Op, u64>,
    types: FastMap<TensorType, u64>,
    units: FastMap<Vec<u64>, usize>,
    /// What lowering gave, by kind.
    lowered: FastMap<usize, Rc<Lowered>>,
    /// Touches with slots for tensors.
    touches: FastMap<Place, Vec<Touch>>,
    /// What was emitted, by the windows' shape.
    kernels: FastMap<(Place, Vec<u64>), Emitted>,
}

/// What a dispatch needs of an emission.
#[derive(Clone)]
pub(super) struct Emitted {
    pub kernel: u32,
    pub groups: [u32; 3],
    /// The key under which it may be tuned.
    pub choice: Option<String>,
}

/// What lowering a unit gives, but for the code that writes its kernels.
pub(super) struct Lowered {
    /// Longest chunk of a sum.
    pub chunk: u64,
    /// Its jobs, in order.
    pub parts: Vec<Part>,
    /// Tensors that live as long as the unit.
    pub scratch: Vec<Scratch>,
}

/// A job's figures.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Extent along which it may be split.
    pub outer: u64,
    /// Floating-point operations.
    pub flops: u64,
}

/// A tensor that a unit needs besides its operands and result.
pub(super) struct Scratch {
    pub label: String,
    pub dtype: DType,
    pub elements: u64,
}

impl Scratch {
    pub fn tensor(&self, function: &Function, unit: &Unit) -> Tensor {
        let label = format!("{} of {}", self.label, name_of(function, unit.root()));
        let (dtype, elements) = (self.dtype, self.elements);
        Tensor { label, dtype, layout: Layout::Words, elements, panels: None, pieces: Vec::new() }
    }
}

/// The kind of a unit, and its tensors in the order in which its structure names them, then those that its lowering made.
#[derive(Clone)]
pub(super) struct Like {
    kind: usize,
    pub slots: Vec<TensorId>,
}

/// A range of one job of a kind of unit.
type Place = (usize, usize, Range<u64>);

impl Memo {
    /// The kind of a unit that is not lowered yet.
    pub(super) fn like(
        &mut self,
        function: &Function,
        selection: &Selection,
        homes: &HashMap<ValueId, TensorId>,
        unit: &Unit,
        tensors: &[Tensor],
    ) -> Option<Like> {
        let mut w = Walk {
            memo: self,
            function,
            selection,
            homes,
            unit,
            tensors,
            words: Vec::new(),
            slots: Vec::new(),
            seen: FastMap::default(),
        };
        for id in &unit.path {
            w.node(*id)?;
        }
        w.slot(*homes.get(&unit.result())?);
        let (words, slots) = (w.words, w.slots);
        let next = self.units.len();
        Some(Like { kind: *self.units.entry(words).or_insert(next), slots })
    }

    /// What lowering gave for an equal unit.
    pub(super) fn lowered(&self, like: &Like) -> Option<Rc<Lowered>> {
        self.lowered.get(&like.kind).cloned()
    }
    /// Remembers what lowering gave.
    pub(super) fn learn_lowered(&mut self, like: &Like, lowered: Rc<Lowered>) {
        self.lowered.insert(like.kind, lowered);
    }

    /// What a part touches, if an equal one was emitted.
    pub(super) fn touches(&self, like: &Like, job: usize, range: &Range<u64>) -> Option<Vec<Touch>> {
        let known = self.touches.get(&(like.kind, job, range.clone()))?;
        Some(known.iter().map(|t| Touch { tensor: like.slots[t.tensor], ..*t }).collect())
    }
    /// Remembers what a part touches.
    pub(super) fn learn_touches(&mut self, like: &Like, job: usize, range: &Range<u64>, touches: &[Touch]) {
        let slot = |t: &Touch| like.slots.iter().position(|s| *s == t.tensor).map(|tensor| Touch { tensor, ..*t });
        if let Some(touches) = touches.iter().map(slot).collect() {
            self.touches.insert((like.kind, job, range.clone()), touches);
        }
    }
    /// What was emitted for a part through windows of a shape.
    pub(super) fn kernel(&self, like: &Like, job: usize, range: &Range<u64>, shape: &[u64]) -> Option<Emitted> {
        // A part whose touches are not all slots has no kernel here either.
        let part = (like.kind, job, range.clone());
        self.touches.contains_key(&part).then_some(())?;
        self.kernels.get(&(part, shape.to_vec())).cloned()
    }
    /// Remembers what was emitted.
    pub(super) fn learn_kernel(
        &mut self,
        like: &Like,
        job: usize,
        range: &Range<u64>,
        shape: Vec<u64>,
        emitted: Emitted,
    ) {
        self.kernels.insert(((like.kind, job, range.clone()), shape), emitted);
    }
}

/// Spells a unit's structure as numbers.
struct Walk<'a> {
    memo: &'a mut Memo,
    function: &'a Function,
    selection: &'a Selection,
    homes: &'a HashMap<ValueId, TensorId>,
    unit: &'a Unit,
    tensors: &'a [Tensor],
    words: Vec<u64>,
    slots: Vec<TensorId>,
    seen: FastMap<ValueId, u64>,
}

/// What a number begins.
const NODE: u64 = 0;
const STORED: u64 = 1;
const AGAIN: u64 = 2;

impl Walk<'_> {
    fn node(&mut self, id: ValueId) -> Option<()> {
        let (op, args) = self.function.op(id)?;
        let number = self.seen.len() as u64;
        self.seen.insert(id, number);
        let next = self.memo.ops.len() as u64;
        let op = match self.memo.ops.get(op) {
            Some(known) => *known,
            None => *self.memo.ops.entry(op.clone()).or_insert(next),
        };
        let stored = u64::from(self.selection.stored[id.0 as usize]);
        let ty = self.ty(id);
        self.words.extend([NODE, op, ty, stored, args.len() as u64]);
        for arg in args {
            if let Some(number) = self.seen.get(arg) {
                self.words.extend([AGAIN, *number]);
            } else if self.selection.stored[arg.0 as usize] && !self.unit.path.contains(arg) {
                self.seen.insert(*arg, self.seen.len() as u64);
                let ty = self.ty(*arg);
                self.words.extend([STORED, ty]);
                self.slot(*self.homes.get(arg)?);
            } else {
                self.node(*arg)?;
            }
        }
        Some(())
    }
    fn ty(&mut self, id: ValueId) -> u64 {
        let ty = self.function.ty(id);
        let next = self.memo.types.len() as u64;
        match self.memo.types.get(ty) {
            Some(known) => *known,
            None => *self.memo.types.entry(ty.clone()).or_insert(next),
        }
    }
    fn slot(&mut self, id: TensorId) {
        let slot = self.slots.iter().position(|s| *s == id).unwrap_or_else(|| {
            self.slots.push(id);
            self.slots.len() - 1
        });
        let t = &self.tensors[id];
        let dtype = self.memo.types.len() as u64;
        let ty = TensorType::new(t.dtype, []);
        let dtype = *self.memo.types.entry(ty).or_insert(dtype);
        self.words.extend([slot as u64, dtype, t.layout as u64, t.elements]);
        let panels = t.panels.map_or([0; 3], |p| [p.rows, p.channels, p.taps]);
        self.words.extend(panels);
    }
}
