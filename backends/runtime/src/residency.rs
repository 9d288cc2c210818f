//! Weights that are on the device only while the stage that reads them runs.

use crate::error::RuntimeError;
use crate::load::{Progress, Session, Stage as Doing};
use crate::pipelines::{Layouts, function_groups, run_once};
use crate::transfer::{Upload, new_buffer};
use selvedge_bundle::manifest::{ALIGN, Buffer, Kernel, Stage, Weight};
use std::collections::HashSet;
use std::sync::Arc;

/// Gives the bytes of a weight (by its index in the manifest) again, or says why it cannot.
pub type Refill = Arc<dyn Fn(usize) -> Result<Vec<u8>, String> + Send + Sync>;

/// What a staged session needs to bring a stage's weights back.
pub(crate) struct Staged {
    pub refill: Refill,
    /// The manifest's weights.
    pub weights: Vec<Weight>,
    pub layouts: Layouts,
    /// Stages whose weights are on the device.
    pub present: Vec<Stage>,
    /// The most bytes of the plan's buffers that were there at once.
    pub peak: u64,
}

/// The buffer that stands for one that is absent.
const ABSENT: u64 = ALIGN;

/// A buffer to begin with: absent if a stage will bring it.
pub(crate) fn first_size(buffer: &Buffer, staged: bool) -> u64 {
    if staged && buffer.stage.is_some() { ABSENT } else { buffer.bytes }
}

impl Session {
    /// Functions that a stage of the schedule runs.
    fn functions_of(&self, stage: Stage) -> Result<Vec<usize>, RuntimeError> {
        let Some(schedule) = &self.plan.schedule else { return Ok(Vec::new()) };
        let names: Vec<&String> = match stage {
            Stage::Prepare => schedule.prepare.iter().collect(),
            Stage::Condition => schedule.condition.iter().collect(),
            Stage::Steps => schedule.tabulate.iter().map(|t| &t.function).chain(&schedule.steps).collect(),
            Stage::Decode => schedule.decode.iter().collect(),
        };
        names.into_iter().map(|name| self.function_index(name)).collect()
    }

    /// Brings a stage's weights to the device, if they are not there; others' are freed first.
    pub(crate) fn enter(&mut self, stage: Stage) -> Result<(), RuntimeError> {
        if self.staged.as_ref().is_none_or(|s| s.present.contains(&stage)) {
            return Ok(());
        }
        self.allocate(stage)?;
        self.upload(stage).or_else(|error| {
            self.leave(stage)?; // or it would count as there
            Err(error)
        })
    }

    /// Makes a stage's buffers, of zeros, and its bind groups; others' are freed first.
    fn allocate(&mut self, stage: Stage) -> Result<(), RuntimeError> {
        for other in self.staged.as_ref().map_or(Vec::new(), |s| s.present.clone()) {
            self.leave(other)?;
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        for (i, buffer) in self.plan.buffers.iter().enumerate().filter(|(_, b)| b.stage == Some(stage)) {
            self.buffers[i] = new_buffer(&self.gpu, &buffer.label, buffer.bytes, usage)?;
        }
        for function in self.functions_of(stage)? {
            let Some(staged) = &self.staged else { return Ok(()) };
            self.groups[function] = function_groups(&self.gpu, &self.plan, function, &staged.layouts, &self.buffers)?;
        }
        if let Some(staged) = &mut self.staged {
            staged.present.push(stage);
        }
        let allocated = self.allocated();
        if let Some(staged) = &mut self.staged {
            staged.peak = staged.peak.max(allocated);
        }
        Ok(())
    }

    /// Dispatches each kernel once with one workgroup, stage by stage, on weights of zeros: drivers that compile at the first dispatch do
    /// it now, within the planned memory. For a session that has not run yet (see [`crate::pipelines::create_pipelines`]).
    pub(crate) fn warm_up(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), RuntimeError> {
        let key = |kernel: &Kernel| (kernel.hash.clone(), kernel.bindings.clone());
        let all: HashSet<_> = self.plan.dispatches().map(|d| key(&self.kernels[d.kernel as usize])).collect();
        let (total, mut done) = (all.len() as u64, HashSet::new());
        for stage in Stage::ALL {
            self.allocate(stage)?;
            for function in self.functions_of(stage)? {
                for (dispatch, group) in self.plan.functions[function].dispatches.iter().zip(&self.groups[function]) {
                    let kernel = &self.kernels[dispatch.kernel as usize];
                    if done.insert(key(kernel)) {
                        run_once(&self.gpu, &kernel.name, self.pipeline(dispatch.kernel), group)?;
                        progress(Progress { stage: Doing::WarmUp, done: done.len() as u64, total });
                    }
                }
            }
            self.leave(stage)?;
        }
        Ok(())
    }

    /// Frees a stage's weights. Nothing that reads them may be under way.
    pub(crate) fn leave(&mut self, stage: Stage) -> Result<(), RuntimeError> {
        let Some(staged) = &mut self.staged else { return Ok(()) };
        if !staged.present.contains(&stage) {
            return Ok(());
        }
        staged.present.retain(|s| *s != stage);
        for function in self.functions_of(stage)? {
            self.groups[function] = Vec::new();
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        for (i, buffer) in self.plan.buffers.iter().enumerate().filter(|(_, b)| b.stage == Some(stage)) {
            self.buffers[i].destroy();
            self.buffers[i] = new_buffer(&self.gpu, &buffer.label, ABSENT, usage)?;
        }
        self.gpu.wait(None, "freeing weights")
    }

    /// Bytes of the plan's buffers that are there.
    pub(crate) fn allocated(&self) -> u64 {
        let there = |stage: Stage| self.staged.as_ref().is_none_or(|s| s.present.contains(&stage));
        let planned = self.plan.buffers.iter().zip(&self.buffers);
        planned.filter(|(buffer, _)| buffer.stage.is_none_or(there)).map(|(_, b)| b.size()).sum()
    }

    /// Writes the weights of a stage's buffers.
    fn upload(&self, stage: Stage) -> Result<(), RuntimeError> {
        let Some(staged) = &self.staged else { return Ok(()) };
        let mut upload = Upload::new(&self.gpu);
        let mut slots: Vec<_> = self.plan.weights.iter().collect();
        slots.retain(|slot| self.plan.buffers[slot.region.buffer as usize].stage == Some(stage));
        slots.sort_by_key(|slot| (slot.weight, slot.start));
        for slots in slots.chunk_by(|a, b| a.weight == b.weight) {
            let index = slots[0].weight as usize;
            let (weight, bytes) = (&staged.weights[index], (staged.refill)(index).map_err(RuntimeError::BadInput)?);
            if Some(bytes.len() as u64) != selvedge_bundle::weight_bytes(&weight.dtype, &weight.shape) {
                return Err(RuntimeError::BadInput(format!("weight `{}` came back with another size", weight.name)));
            }
            let bytes = weight.arranged(slots[0].panels, bytes.into());
            for slot in slots {
                let part = &bytes[slot.start as usize..(slot.start + slot.region.bytes) as usize];
                let buffer = &self.buffers[slot.region.buffer as usize];
                upload.write(buffer, slot.region.offset, part, &mut |_| {})?;
            }
        }
        upload.flush()
    }
}
