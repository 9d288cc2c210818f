//! Loading: requirements, buffers, weights, pipelines, bind groups, and what runs before the first run.

use crate::device::{DeviceFacts, Gpu, unmet};
use crate::error::{Missing, RuntimeError};
use crate::pipelines::{Layouts, bind_groups, create_pipelines};
use crate::transfer::{Staging, Upload, new_buffer};
use selvedge_bundle::manifest::{Kernel, Link, Manifest, Plan, Weight};
use selvedge_bundle::{Bundle, WeightBytes};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Gives the bytes of a weight that was left in its checkpoint, or says why it cannot.
pub type Linked<'o> = &'o dyn Fn(&Weight, &Link) -> Result<Cow<'o, [u8]>, String>;

/// How to load.
#[derive(Default)]
pub struct LoadOptions<'o> {
    /// The caller emitted the kernels itself (or takes their author's word): they run without bounds checks.
    pub trusted: bool,
    /// Dispatch every kernel once, so that drivers that compile at the first dispatch do it now, with progress.
    pub warm_up: bool,
    /// Where linked weights come from; without it a bundle with links is an error.
    pub linked: Option<Linked<'o>>,
}

/// What loading, or a run, is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Uploading weights; counted in bytes.
    Weights,
    /// Creating pipelines; counted in kernels.
    Pipelines,
    /// First dispatches; counted in kernels.
    WarmUp,
}

/// How far a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// What is done of it.
    pub done: u64,
    /// All of it.
    pub total: u64,
}

/// Device memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The plan's peak.
    pub planned: u64,
    /// What was allocated for it: the same number.
    pub allocated: u64,
    /// Buffers besides the plan: readback, tables, copies within a buffer. Grows with use.
    pub staging: u64,
}

/// A loaded plan: weights are on the device and `prepare` has run.
pub struct Session {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) plan: Plan,
    pub(crate) buffers: Vec<wgpu::Buffer>,
    /// By kernel index; `None` for kernels of other plans.
    pub(crate) pipelines: Vec<Option<wgpu::ComputePipeline>>,
    pub(crate) kernels: Vec<Kernel>,
    /// For each function, the bind group of each dispatch.
    pub(crate) groups: Vec<Vec<wgpu::BindGroup>>,
    pub(crate) staging: Staging,
    /// The detour of copies within one buffer, if there are any.
    pub(crate) bounce: Option<wgpu::Buffer>,
    /// Table rows of the last run, kept for the next.
    pub(crate) tables: Option<wgpu::Buffer>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({} on {})", self.plan.size, self.gpu.facts())
    }
}

impl Session {
    /// Loads a plan of a bundle (`plan` is its index in the manifest).
    ///
    /// # Errors
    /// The device lacks what the bundle needs (checked before anything is created), a weight is damaged or missing, a
    /// kernel is refused, memory is short, or `prepare` fails.
    pub fn load(
        gpu: &Arc<Gpu>,
        bundle: &Bundle<'_>,
        plan: usize,
        options: &LoadOptions<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Session, RuntimeError> {
        let manifest = bundle.manifest();
        let Some(plan) = manifest.plans.get(plan) else {
            let sizes: Vec<_> = manifest.plans.iter().map(|p| p.size.as_str()).collect();
            let problem = format!("the bundle has no plan {plan}; it has {} ({})", sizes.len(), sizes.join("; "));
            return Err(RuntimeError::BadInput(problem));
        };
        let missing = lacking(manifest, plan, gpu.facts());
        if !missing.is_empty() {
            let (device, target) = (gpu.facts().name.clone(), manifest.target.name.clone());
            return Err(RuntimeError::Unsupported { device, target, missing });
        }
        let gpu = &gpu.serving(&manifest.target)?;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffers = plan.buffers.iter().map(|buffer| new_buffer(gpu, &buffer.label, buffer.bytes, usage));
        let buffers = buffers.collect::<Result<Vec<_>, _>>()?;
        upload_weights(gpu, bundle, plan, &buffers, options, progress)?;
        let layouts = Layouts::new(gpu, manifest)?;
        let pipelines = create_pipelines(gpu, bundle, plan, &layouts, options.trusted, progress)?;
        let groups = bind_groups(gpu, plan, &layouts, &buffers)?;
        let bounce = match Session::bounce_bytes(plan) {
            Some(bytes) => {
                let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
                Some(new_buffer(gpu, "copies", bytes, usage)?)
            }
            None => None,
        };
        let mut session = Session {
            gpu: gpu.clone(),
            plan: plan.clone(),
            buffers,
            pipelines,
            kernels: manifest.kernels.clone(),
            groups,
            staging: Staging::default(),
            bounce,
            tables: None,
        };
        if options.warm_up {
            session.warm_up(progress)?;
        }
        session.prepare()?;
        Ok(session)
    }

    /// The plan that was loaded.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
    /// The device it runs on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
    /// Device memory planned and in use.
    pub fn memory(&self) -> Memory {
        let size = |buffer: &Option<wgpu::Buffer>| buffer.as_ref().map_or(0, wgpu::Buffer::size);
        Memory {
            planned: self.plan.peak_bytes(),
            allocated: self.buffers.iter().map(wgpu::Buffer::size).sum(),
            staging: self.staging.bytes + size(&self.bounce) + size(&self.tables),
        }
    }

    /// Runs each kernel once with one workgroup. What it writes is overwritten before it is read: nothing has run yet.
    fn warm_up(&self, progress: &mut dyn FnMut(Progress)) -> Result<(), RuntimeError> {
        let mut first: HashMap<u32, &wgpu::BindGroup> = HashMap::new();
        let mut order = Vec::new();
        for (function, groups) in self.plan.functions.iter().zip(&self.groups) {
            for (dispatch, group) in function.dispatches.iter().zip(groups) {
                if first.insert(dispatch.kernel, group).is_none() {
                    order.push(dispatch.kernel);
                }
            }
        }
        let total = order.len() as u64;
        for (done, kernel) in order.into_iter().enumerate() {
            progress(Progress { stage: Stage::WarmUp, done: done as u64, total });
            let name = &self.kernels[kernel as usize].name;
            let mut encoder = self.encoder("warm-up");
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.set_pipeline(self.pipeline(kernel));
                pass.set_bind_group(0, first[&kernel], &[]);
                pass.dispatch_workgroups(1, 1, 1);
            }
            let submission = self.gpu.submit(Some(encoder.finish()), name)?;
            self.gpu.wait(Some(submission), name)?;
        }
        progress(Progress { stage: Stage::WarmUp, done: total, total });
        Ok(())
    }

    /// The pipeline of a kernel that a dispatch of this plan uses.
    pub(crate) fn pipeline(&self, kernel: u32) -> &wgpu::ComputePipeline {
        self.pipelines[kernel as usize].as_ref().expect("pipelines exist for every kernel of the plan's dispatches")
    }
}

/// What the device lacks for a plan.
fn lacking(manifest: &Manifest, plan: &Plan, facts: &DeviceFacts) -> Vec<Missing> {
    let mut missing = unmet(&manifest.target, facts);
    for (axis, name) in ["X", "Y", "Z"].iter().enumerate() {
        let kernels = plan.dispatches().map(|d| manifest.kernels[d.kernel as usize].workgroup[axis]);
        let required = kernels.max().unwrap_or(0);
        if required > facts.workgroup_size[axis] {
            let what = format!("maxComputeWorkgroupSize{name}");
            let (required, available) = (required.to_string(), facts.workgroup_size[axis].to_string());
            missing.push(Missing { what, required, available });
        }
    }
    missing
}

/// Streams weights to their places. Each is hashed before its first byte is sent.
fn upload_weights(
    gpu: &Gpu,
    bundle: &Bundle<'_>,
    plan: &Plan,
    buffers: &[wgpu::Buffer],
    options: &LoadOptions<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), RuntimeError> {
    let total = plan.weights.iter().map(|slot| slot.region.bytes).sum();
    let mut done = 0;
    let mut report = |bytes: u64| {
        done += bytes;
        progress(Progress { stage: Stage::Weights, done, total });
    };
    let mut upload = Upload::new(gpu);
    let mut slots: Vec<_> = plan.weights.iter().collect();
    slots.sort_by_key(|slot| (slot.weight, slot.start)); // the slots of a weight together: its bytes are fetched once
    for slots in slots.chunk_by(|a, b| a.weight == b.weight) {
        let index = slots[0].weight as usize;
        let weight = &bundle.manifest().weights[index];
        let bytes = match bundle.weight(index)? {
            WeightBytes::Here(bytes) => bytes,
            WeightBytes::Linked(link) => {
                let bad =
                    |problem: String| RuntimeError::BadInput(format!("linked weight `{}`: {problem}", weight.name));
                let Some(linked) = options.linked else {
                    return Err(bad(format!("it is in {}, and no way to read it was given", link.file)));
                };
                let bytes = linked(weight, link).map_err(bad)?;
                bundle.check_weight(index, &bytes).map_err(|e| bad(format!("in {}: {e}", link.file)))?;
                bytes
            }
        };
        for slot in slots {
            let part = &bytes[slot.start as usize..(slot.start + slot.region.bytes) as usize];
            upload.write(&buffers[slot.region.buffer as usize], slot.region.offset, part, &mut report)?;
        }
    }
    upload.flush()
}
