//! Watching over results: counting values that are not finite, and finding where they come from.

use crate::error::RuntimeError;
use crate::host::{HostData, HostTensor, Tensors};
use crate::load::Session;
use crate::run::RunRequest;
use selvedge_bundle::manifest::{Access, PlanSchedule, Region, Stage};
use std::collections::BTreeSet;
use std::fmt;

/// Most bytes that a search for the first bad dispatch may read back.
const SEARCH_BYTES: u64 = 64 << 30;

/// When a run looks for values that are infinite or no numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Never.
    Off,
    /// In what it returns.
    End,
    /// Also in the carried values after each step, one step behind.
    EachStep,
}

/// A dispatch, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadDispatch {
    /// The function it belongs to.
    pub function: String,
    /// Its position there.
    pub index: usize,
    /// Value and operators: `%12 contract+map`.
    pub label: String,
    /// The kernel's name.
    pub kernel: String,
    /// Call sites of the model code.
    pub origins: Vec<String>,
}

impl fmt::Display for BadDispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (dispatch {} of `{}`, kernel {})", self.label, self.index, self.function, self.kernel)?;
        match self.origins.is_empty() {
            true => Ok(()),
            false => write!(f, ", made at {}", self.origins.join(", ")),
        }
    }
}

/// Which stage of a run to go through dispatch by dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    Step(usize),
    Decode,
}

/// Floats of a tensor that are infinite or no numbers; 0 for integers.
pub(crate) fn bad_values(tensor: &HostTensor) -> u64 {
    match &tensor.data {
        HostData::F32(data) => data.iter().filter(|x| !x.is_finite()).count() as u64,
        HostData::I32(_) | HostData::U32(_) => 0,
    }
}

/// An error for the first tensor with a value that is not finite.
pub(crate) fn check_finite<'t>(
    values: impl IntoIterator<Item = (&'t String, &'t HostTensor)>,
    stage: &str,
    step: Option<usize>,
) -> Result<(), RuntimeError> {
    for (name, tensor) in values {
        let count = bad_values(tensor);
        if count > 0 {
            let total = tensor.shape.iter().product();
            let (stage, value) = (stage.to_string(), name.clone());
            return Err(RuntimeError::Sick { stage, step, value, count, total, first: None });
        }
    }
    Ok(())
}

/// The same for what a caller gives.
pub(crate) fn finite_inputs(inputs: &Tensors) -> Result<(), RuntimeError> {
    match inputs.iter().find(|(_, tensor)| bad_values(tensor) > 0) {
        Some((name, tensor)) => {
            let problem = format!("input `{name}` has {} values that are not finite", bad_values(tensor));
            Err(RuntimeError::BadInput(problem))
        }
        None => Ok(()),
    }
}

impl Session {
    /// Calls a function dispatch by dispatch and names the first that makes an infinity or NaN; `None` if none does.
    /// Slow: everything a dispatch may write is read back after it.
    ///
    /// # Errors
    /// As [`Session::call`].
    pub fn first_bad_dispatch(
        &mut self,
        function: &str,
        inputs: &Tensors,
    ) -> Result<Option<BadDispatch>, RuntimeError> {
        let index = self.function_index(function)?;
        self.clear_arena()?;
        self.prepare()?;
        let ports = self.plan.functions[index].inputs.clone();
        self.write_inputs(&ports.iter().collect::<Vec<_>>(), inputs)?;
        self.enter_for(function)?;
        self.step_through(index)
    }

    /// Repeats a run from zeroed buffers up to a stage, goes through that stage (and those before the steps) dispatch
    /// by dispatch, and names the first that makes an infinity or NaN.
    pub(crate) fn locate(
        &mut self,
        schedule: &PlanSchedule,
        request: &RunRequest,
        replay: Replay,
    ) -> Result<Option<BadDispatch>, RuntimeError> {
        if !self.clear_arena()? {
            return Ok(None);
        }
        for (stage, name) in [(Stage::Prepare, &schedule.prepare), (Stage::Condition, &schedule.condition)] {
            if stage == Stage::Condition {
                self.begin(schedule, request)?;
            }
            let Some(name) = name else { continue };
            self.enter(stage)?;
            if let Some(found) = self.step_through(self.function_index(name)?)? {
                return Ok(Some(found));
            }
            self.leave(stage)?;
        }
        if !schedule.steps.is_empty() {
            self.enter(Stage::Steps)?;
        }
        let stop = match replay {
            Replay::Step(step) => step,
            Replay::Decode => request.steps.len(),
        };
        for (step, choice) in request.steps.iter().enumerate().take(stop + 1) {
            let function = self.function_index(&schedule.steps[*choice as usize])?;
            let mut encoder = self.encoder("replay");
            encoder = self.encode_rows(encoder, schedule, (step, step == 0, request.steps.len()), "replay")?;
            if step < stop {
                encoder = self.encode_function(encoder, function, "replay")?;
            }
            let submission = self.gpu.submit(Some(encoder.finish()), "replay")?;
            self.gpu.wait(Some(submission), "replay")?;
            if step == stop {
                return self.step_through(function);
            }
        }
        match &schedule.decode {
            Some(name) => {
                self.enter(Stage::Decode)?;
                self.step_through(self.function_index(name)?)
            }
            None => Ok(None),
        }
    }

    /// Zeroes every buffer that kernels write. False, and nothing done, if one of them holds weights.
    fn clear_arena(&self) -> Result<bool, RuntimeError> {
        let holds_weights: BTreeSet<u32> = self.plan.weights.iter().map(|slot| slot.region.buffer).collect();
        let written: Vec<u32> =
            (0..).zip(&self.plan.buffers).filter(|(_, b)| b.access == Access::ReadWrite).map(|(i, _)| i).collect();
        if written.iter().any(|buffer| holds_weights.contains(buffer)) {
            return Ok(false);
        }
        let mut encoder = self.encoder("clear");
        for buffer in written {
            encoder.clear_buffer(&self.buffers[buffer as usize], 0, None);
        }
        self.gpu.submit(Some(encoder.finish()), "clearing")?;
        Ok(true)
    }

    /// Runs a function dispatch by dispatch. A dispatch is bad if there are more infinities and NaN in what it may write
    /// after it than before. The copies are done when all were good.
    fn step_through(&mut self, function: usize) -> Result<Option<BadDispatch>, RuntimeError> {
        let place = self.place(function);
        let count = self.plan.functions[function].dispatches.len();
        let written: Vec<Vec<Region>> = (0..count).map(|i| self.written(function, i)).collect();
        let bytes: u64 = written.iter().flatten().map(|r| r.bytes.saturating_mul(2)).fold(0, u64::saturating_add);
        if bytes > SEARCH_BYTES {
            return Ok(None);
        }
        let mut known: Option<(&[Region], u64)> = None;
        for (i, regions) in written.iter().enumerate() {
            if self.move_before(function, i, &place)? {
                known = None;
            }
            let before = match known {
                Some((same, bad)) if same == regions => bad,
                Some(_) | None => self.bad_words(regions)?,
            };
            let mut encoder = self.encoder("search");
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.set_pipeline(self.pipeline(self.plan.functions[function].dispatches[i].kernel));
                self.encode_dispatch(&mut pass, function, i);
            }
            self.gpu.submit(Some(encoder.finish()), &place)?;
            let after = self.bad_words(regions)?;
            if after > before {
                let (plan, dispatch) = (&self.plan.functions[function], &self.plan.functions[function].dispatches[i]);
                return Ok(Some(BadDispatch {
                    function: plan.name.clone(),
                    index: i,
                    label: dispatch.label.clone(),
                    kernel: self.kernels[dispatch.kernel as usize].name.clone(),
                    origins: dispatch.origins.clone(),
                }));
            }
            known = Some((regions, after));
        }
        self.move_before(function, count, &place)?;
        let mut encoder = self.encoder("search");
        self.encode_copies(&mut encoder, function);
        let submission = self.gpu.submit(Some(encoder.finish()), &place)?;
        self.gpu.wait(Some(submission), &place)?;
        Ok(None)
    }

    /// Submits what is moved before a dispatch; false if that is nothing.
    fn move_before(&self, function: usize, dispatch: usize, place: &str) -> Result<bool, RuntimeError> {
        let moves = self.plan.functions[function].moves.iter().enumerate();
        let here: Vec<usize> = moves.filter(|(_, m)| m.after as usize == dispatch).map(|(k, _)| k).collect();
        if here.is_empty() {
            return Ok(false);
        }
        let mut encoder = self.encoder("search");
        here.into_iter().for_each(|k| self.encode_move(&mut encoder, function, k));
        self.gpu.submit(Some(encoder.finish()), place).map(|_| true)
    }

    /// Regions that a dispatch may write.
    fn written(&self, function: usize, dispatch: usize) -> Vec<Region> {
        let dispatch = &self.plan.functions[function].dispatches[dispatch];
        let accesses = &self.kernels[dispatch.kernel as usize].bindings;
        let both = dispatch.bindings.iter().zip(accesses);
        let mut regions: Vec<Region> =
            both.filter(|(_, access)| **access == Access::ReadWrite).map(|(region, _)| *region).collect();
        regions.sort_by_key(|r| (r.buffer, r.offset, r.bytes));
        regions.dedup();
        regions
    }

    fn bad_words(&mut self, regions: &[Region]) -> Result<u64, RuntimeError> {
        Ok(self.read(regions)?.into_iter().filter(|word| is_bad(*word)).count() as u64)
    }
}

/// An infinity or a NaN as hardware makes them. Words are not typed here, and small negative integers look like NaN of
/// other payloads.
fn is_bad(word: u32) -> bool {
    matches!(word & 0x7fff_ffff, 0x7f80_0000 | 0x7fc0_0000) || word == 0x7fff_ffff
}
