//! A function's dispatches: lowering, memory, and emission through windows.

use super::memo::{Emitted, Like, Lowered, Part, Scratch};
use super::prepare::Prepared;
use super::{Compiler, Failure, name_of};
use crate::access::{Access, Touch, Windows, may_fit};
use crate::emit::Context;
use crate::lower::{Job, Lowering, Shader, lower, refuse};
use crate::memory::{Lifetime, Space};
use crate::moves;
use crate::select::{Unit, divide};
use crate::tensor::{Tensor, TensorId, padded};
use crate::{ports, verify};
use selvedge_bundle::manifest::{Access as Usage, Copy, Dispatch, Move, PlanFunction};
use selvedge_ir::func::Target as Goes;
use selvedge_ir::{Diagnostic, Function};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// A job of a unit.
struct Work<'p> {
    unit: &'p Unit,
    part: Part,
    /// Longest chunk of a sum.
    chunk: u64,
    /// Its position among the unit's jobs.
    index: usize,
    /// Tensors that the unit's lowering made.
    scratch: Range<TensorId>,
    like: Option<Like>,
    /// Writes its kernels; made anew when it is wanted, if the unit was looked up.
    job: Option<Job<'p>>,
}

impl<'m> Compiler<'m> {
    /// Lowers, plans memory and emits.
    pub(super) fn function(
        &mut self,
        p: &Prepared,
        index: u32,
        arena: &mut Space,
        floor: &[u64],
    ) -> Result<PlanFunction, Failure> {
        let large = |t: &Tensor| padded(t.bytes()) > self.target.max_binding_bytes;
        let large = self.tensors.iter().any(large);
        let mut work: Vec<Work> = Vec::new();
        for unit in &p.selection.units {
            let mut like = match &mut self.memo {
                Some(memo) => memo.like(&p.flat, &p.selection, &p.homes, unit, &self.tensors),
                None => None,
            };
            let known = like.as_ref().zip(self.memo.as_ref()).and_then(|(like, memo)| memo.lowered(like));
            let (lowered, jobs) = match known {
                Some(known) => (known, Vec::new()),
                None => {
                    let (lowered, jobs) = self.chunked(p, unit, large)?;
                    let lowered = Rc::new(lowered);
                    if let (Some(like), Some(memo)) = (&like, &mut self.memo) {
                        memo.learn_lowered(like, lowered.clone());
                    }
                    (lowered, jobs)
                }
            };
            let mut jobs = jobs.into_iter();
            let first = self.tensors.len();
            self.tensors.extend(lowered.scratch.iter().map(|made| made.tensor(&p.flat, unit)));
            let scratch = first..self.tensors.len();
            if let Some(like) = &mut like {
                like.slots.extend(scratch.clone());
            }
            work.extend(lowered.parts.iter().enumerate().map(|(index, part)| Work {
                unit,
                part: *part,
                chunk: lowered.chunk,
                index,
                scratch: scratch.clone(),
                like: like.clone(),
                job: jobs.next(),
            }));
        }
        let mut lifetimes: BTreeMap<TensorId, Lifetime> = BTreeMap::new();
        let mut flow: Vec<Vec<Touch>> = Vec::new();
        for (at, w) in work.iter().enumerate() {
            let touches = self.touches(p, w, 0..w.part.outer)?;
            for touch in &touches {
                let life =
                    lifetimes.entry(touch.tensor).or_insert(Lifetime { tensor: touch.tensor, first: at, last: at });
                life.last = at;
            }
            flow.push(touches);
        }
        for tensor in &p.kept {
            let first = if p.inputs.iter().any(|(_, t)| t == tensor) { 0 } else { usize::MAX };
            let life = lifetimes.entry(*tensor).or_insert(Lifetime { tensor: *tensor, first, last: 0 });
            (life.first, life.last) = (life.first.min(first), usize::MAX);
        }
        // Everything else without memory is scratch; what is never touched (an empty result) needs none.
        let lifetimes: Vec<Lifetime> =
            lifetimes.into_values().filter(|l| self.tensors[l.tensor].pieces.is_empty()).collect();
        arena.place(&lifetimes, floor, &mut self.tensors);
        let mut held = [self.weight_tensors.clone(), self.names.persistent(), self.names.tabulated()].concat();
        held.extend(p.inputs.iter().map(|(_, tensor)| *tensor));
        let wanted: Vec<TensorId> = p.returns.iter().map(|(_, tensor, _)| *tensor).collect();
        verify::flow(&p.flat.name, &self.tensors, &held, &flow, &wanted)?;

        let (mut dispatches, mut moved) = (Vec::new(), Vec::new());
        let usages = self.usages(arena);
        for w in &work {
            if let Some(copies) = self.copies(p, w.unit) {
                moved.push(self.moved(p, w, copies, dispatches.len() as u32)?);
                continue;
            }
            self.dispatch((p, index), w, 0..w.part.outer, &usages, &mut dispatches)?;
        }
        let region_pairs = |(from, to): &(TensorId, TensorId)| {
            let (from, to) = (&self.tensors[*from].pieces, &self.tensors[*to].pieces);
            from.iter().zip(to).map(|(s, d)| Copy { source: *s, destination: *d }).collect::<Vec<_>>()
        };
        let copies = p.copies.iter().filter(|(a, b)| a != b).flat_map(region_pairs).filter(|c| c.source.bytes > 0);
        Ok(PlanFunction {
            name: p.flat.name.clone(),
            inputs: p
                .inputs
                .iter()
                .zip(p.flat.params())
                .map(|((name, tensor), (_, id))| ports::port(name, p.flat.ty(id), &self.tensors[*tensor]))
                .collect(),
            outputs: p
                .returns
                .iter()
                .filter_map(|(target, tensor, value)| match target {
                    Goes::Output(name) => Some(ports::port(name, p.flat.ty(*value), &self.tensors[*tensor])),
                    Goes::State(_) => None,
                })
                .collect(),
            copies: copies.collect(),
            moves: moved,
            dispatches,
        })
    }

    /// Lowers a unit with the longest chunks that the target's bindings may hold; `large`: some tensor is larger than a binding.
    fn chunked<'p>(&self, p: &'p Prepared, unit: &Unit, large: bool) -> Result<(Lowered, Vec<Job<'p>>), Diagnostic>
    where
        'm: 'p,
    {
        let mut chunk = u64::MAX;
        loop {
            let (jobs, scratch) = self.lower(p, unit, chunk, self.tensors.len())?;
            let longest = jobs.iter().map(|j| j.summed).max().unwrap_or(0);
            if longest > 4 && !self.may_fit(p, unit, &jobs, &scratch, large)? {
                chunk = longest / 2;
                continue;
            }
            let parts = jobs.iter().map(|job| Part { outer: job.outer, flops: job.flops }).collect();
            return Ok((Lowered { chunk, parts, scratch }, jobs));
        }
    }

    /// The jobs of a unit and what scratch tensors they need, which are numbered from `first`.
    fn lower<'p>(
        &self,
        p: &'p Prepared,
        unit: &Unit,
        chunk: u64,
        first: TensorId,
    ) -> Result<(Vec<Job<'p>>, Vec<Scratch>), Diagnostic>
    where
        'm: 'p,
    {
        let mut made: Vec<Scratch> = Vec::new();
        let mut scratch = |label: &str, dtype, elements| {
            made.push(Scratch { label: label.to_string(), dtype, elements });
            first + made.len() - 1
        };
        let context = Context { function: &p.flat, homes: &p.homes };
        let mut lowering = Lowering {
            context,
            target: self.target,
            tuning: self.tuning,
            tensors: &self.tensors,
            chunk,
            scratch: &mut scratch,
        };
        let jobs = lower(&mut lowering, unit)?;
        Ok((jobs, made))
    }

    /// Whether the target's bindings can hold the smallest parts of jobs.
    fn may_fit(
        &self,
        p: &Prepared,
        unit: &Unit,
        jobs: &[Job],
        scratch: &[Scratch],
        large: bool,
    ) -> Result<bool, Diagnostic> {
        let scratch: Vec<Tensor> = scratch.iter().map(|made| made.tensor(&p.flat, unit)).collect();
        if !large && scratch.iter().all(|t| padded(t.bytes()) <= self.target.max_binding_bytes) {
            return Ok(true);
        }
        let tensors: Vec<Tensor> = [&self.tensors[..], &scratch].concat();
        for job in jobs {
            for start in [0, job.outer - 1] {
                let mut access = Access::collecting(&tensors);
                (job.emit)(start..start + 1, &mut access)?;
                if !may_fit(access.touches(), &tensors, self.target) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Writes a range of a job.
    fn emit(&self, p: &Prepared, work: &Work, range: Range<u64>, access: &mut Access) -> Result<Shader, Diagnostic> {
        if let Some(job) = &work.job {
            return (job.emit)(range, access);
        }
        let (jobs, _) = self.lower(p, work.unit, work.chunk, work.scratch.start)?;
        (jobs[work.index].emit)(range, access)
    }

    /// What a range of a job touches.
    fn touches(&mut self, p: &Prepared, work: &Work, range: Range<u64>) -> Result<Vec<Touch>, Diagnostic> {
        let like = work.like.as_ref();
        let known = like.zip(self.memo.as_ref()).and_then(|(like, memo)| memo.touches(like, work.index, &range));
        if let Some(known) = known {
            return Ok(known);
        }
        let mut access = Access::collecting(&self.tensors);
        self.emit(p, work, range.clone(), &mut access)?;
        let touches = access.touches().to_vec();
        if let (Some(like), Some(memo)) = (like, &mut self.memo) {
            memo.learn_touches(like, work.index, &range, &touches);
        }
        Ok(touches)
    }

    /// The copies that make up a unit's result, if nothing but copies does. On GPUs a kernel copies as fast as the memory allows, and
    /// copies within a buffer take a detour: there they are only between buffers.
    fn copies(&self, p: &Prepared, unit: &Unit) -> Option<Vec<Copy>> {
        let context = Context { function: &p.flat, homes: &p.homes };
        let copies = moves::copies(context, unit, &self.tensors)?;
        let within = |copy: &Copy| copy.source.buffer == copy.destination.buffer;
        (!self.target.gpu || !copies.iter().any(within)).then_some(copies)
    }

    /// A unit as copies.
    fn moved(&mut self, p: &Prepared, work: &Work, copies: Vec<Copy>, after: u32) -> Result<Move, Failure> {
        let touches = self.touches(p, work, 0..work.part.outer)?;
        let fixed = touches.iter().any(|t| t.read && self.fixed.contains(&t.tensor));
        let bytes: u64 = copies.iter().map(|c| c.source.bytes).sum();
        Ok(Move {
            after,
            copies,
            label: label(&p.flat, work.unit),
            origins: origins(&p.flat, work.unit),
            bytes: 2 * bytes,
            weight_bytes: if fixed { bytes } else { 0 },
        })
    }

    /// Usage of each buffer by index.
    fn usages(&self, arena: &Space) -> Vec<Usage> {
        let mut usages = vec![Usage::Read; self.weight_buffers];
        usages.resize(arena.base() as usize, Usage::ReadWrite);
        usages.extend(arena.buffers().iter().map(|b| b.access));
        usages
    }

    /// Emits a range of a job; halves it while the target has too few bindings for it.
    fn dispatch(
        &mut self,
        (p, index): (&Prepared, u32),
        work: &Work,
        range: Range<u64>,
        usages: &[Usage],
        out: &mut Vec<Dispatch>,
    ) -> Result<(), Failure> {
        let context = Context { function: &p.flat, homes: &p.homes };
        let Work { unit, part, .. } = work;
        let touches = self.touches(p, work, range.clone())?;
        let Some(windows) = Windows::new(&touches, &self.tensors, usages, self.target) else {
            let length = range.end - range.start;
            if length < 2 {
                if let Some(number) = p.composites.get(&unit.root()) {
                    return Err(Failure::Composite { function: p.flat.name.clone(), number: *number });
                }
                if let Some(value) = divide(&p.flat, &p.selection, unit) {
                    return Err(Failure::Crowded { function: p.flat.name.clone(), value });
                }
                return Err(refuse(
                    context,
                    unit.root(),
                    format!(
                        "target `{}` binds at most {} buffers of {} bytes, too few for {} tensors in a kernel",
                        self.target.name,
                        self.target.storage_buffers,
                        self.target.max_binding_bytes,
                        touches.len()
                    ),
                )
                .help("compile for a device with larger bindings, or for a smaller size")
                .into());
            }
            let middle = range.start + length / 2;
            self.dispatch((p, index), work, range.start..middle, usages, out)?;
            return self.dispatch((p, index), work, middle..range.end, usages, out);
        };
        let (bindings, wide) = (windows.bindings.clone(), windows.wide.clone());
        let shape = windows.shape(&touches);
        let like = work.like.as_ref();
        let known = like.zip(self.memo.as_ref()).and_then(|(like, memo)| memo.kernel(like, work.index, &range, &shape));
        let emitted = match known {
            Some(known) => known,
            None => {
                let mut access = Access::through(&self.tensors, windows);
                let shader = self.emit(p, work, range.clone(), &mut access)?;
                let helpers = access.helpers();
                let (groups, choice) = (shader.grid, shader.choice.as_ref().map(|(key, _)| key.clone()));
                let kernel = self.kernel(context, unit, shader, helpers, &bindings, &wide)?;
                let emitted = Emitted { kernel, groups, choice };
                if let (Some(like), Some(memo)) = (like, &mut self.memo) {
                    memo.learn_kernel(like, work.index, &range, shape, emitted.clone());
                }
                emitted
            }
        };
        self.needs_bindings(&bindings);
        let share = |x: u64| (x as u128 * (range.end - range.start) as u128 / part.outer.max(1) as u128) as u64;
        let flops = share(part.flops);
        if let Some(key) = &emitted.choice {
            self.tuning.dispatched(key, index, out.len() as u32);
        }
        out.push(Dispatch {
            kernel: emitted.kernel,
            groups: emitted.groups,
            bindings: bindings.iter().map(|(r, _)| *r).collect(),
            label: label(context.function, unit),
            origins: origins(context.function, unit),
            flops,
            bytes: touches.iter().map(|t| traffic(t, &self.tensors[t.tensor])).sum(),
            weight_bytes: touches
                .iter()
                .filter(|t| self.fixed.contains(&t.tensor))
                .map(|t| traffic(t, &self.tensors[t.tensor]))
                .sum(),
        });
        Ok(())
    }
}

/// Bytes that a kernel must move for a tensor, each element once.
fn traffic(touch: &Touch, tensor: &Tensor) -> u64 {
    let touched = ((touch.high - touch.low + 1) * 16).min(tensor.bytes());
    touched * (u64::from(touch.read) + u64::from(touch.written))
}

/// Call sites of a unit's operators, each once.
fn origins(function: &Function, unit: &Unit) -> Vec<String> {
    let mut origins: Vec<String> = Vec::new();
    for place in unit.path.iter().flat_map(|id| &function.value(*id).places) {
        let place = place.to_string();
        if !origins.contains(&place) {
            origins.push(place);
        }
    }
    origins
}

/// `%12 contract+map`.
fn label(function: &Function, unit: &Unit) -> String {
    let names: Vec<&str> = unit.path.iter().filter_map(|id| function.op(*id)).map(|(op, _)| op.kind().text()).collect();
    format!("{} {}", name_of(function, unit.result()), names.join("+"))
}
