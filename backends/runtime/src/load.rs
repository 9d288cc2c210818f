//! Loading: requirements, buffers, weights, pipelines, bind groups, and what runs before the first run.

use crate::cache::Cache;
use crate::device::{DeviceFacts, Gpu, unmet};
use crate::error::{Missing, RuntimeError};
use crate::pace::Pace;
use crate::pipelines::{Layouts, bind_groups, create_pipelines};
use crate::residency::{Refill, Staged, first_size};
use crate::run::Checkpoint;
use crate::sending::Sending;
use crate::transfer::{Staging, Upload, new_buffer};
use selvedge_bundle::manifest::{Kernel, Link, Manifest, Plan, Weight};
use selvedge_bundle::{Bundle, WeightBytes};
use std::borrow::Cow;
use std::sync::{Arc, mpsc};

/// Gives the bytes of a weight that was left in its checkpoint, or says why it cannot.
pub type Linked<'o> = &'o dyn Fn(&Weight, &Link) -> Result<Cow<'o, [u8]>, String>;

/// How to load.
#[derive(Default)]
pub struct LoadOptions<'o> {
    /// The caller emitted the kernels itself (or takes their author's word): they run without bounds checks.
    pub trusted: bool,
    /// Dispatch every kernel once, so that drivers that compile at the first dispatch do it now, with progress.
    pub warm_up: bool,
    /// Hold the weights that one stage alone reads only while it runs; this gives them whenever it does.
    pub staged: Option<Refill>,
    /// Where linked weights come from; without it a bundle with links is an error.
    pub linked: Option<Linked<'o>>,
    /// What [`Session::pipeline_cache`] gave in another process; bytes that do not fit this device are not used.
    pub pipelines: Option<&'o [u8]>,
    /// Longest that one submit should keep the device busy, in milliseconds: longer functions are split by estimate. 0 is the
    /// default: half a second, since drivers of GPUs reset a device that does not answer for some two; none for CPUs.
    pub submit_ms: f64,
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
    /// What was allocated for it at most: the same number, once every stage has run.
    pub allocated: u64,
    /// Buffers besides the plan: inputs, readback, tables, copies within a buffer. Grows with use.
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
    pub(crate) sending: Sending,
    /// The detour of copies within one buffer, if there are any.
    pub(crate) bounce: Option<wgpu::Buffer>,
    /// Table rows of the last run, kept for the next.
    pub(crate) tables: Option<wgpu::Buffer>,
    pub(crate) cache: Cache,
    /// How long dispatches take, for splitting submits.
    pub(crate) pace: Pace,
    /// Where a run can be resumed that lost its device.
    pub(crate) held: Option<Checkpoint>,
    /// Stages' own weights come and go.
    pub(crate) staged: Option<Staged>,
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
        let staged = options.staged.is_some() && plan.buffers.iter().any(|b| b.stage.is_some());
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffers =
            plan.buffers.iter().map(|buffer| new_buffer(gpu, &buffer.label, first_size(buffer, staged), usage));
        let buffers = buffers.collect::<Result<Vec<_>, _>>()?;
        let layouts = Layouts::new(gpu, manifest)?;
        let groups = match staged {
            true => vec![Vec::new(); plan.functions.len()],
            false => bind_groups(gpu, plan, &layouts, &buffers)?,
        };
        let cache = Cache::new(gpu, options.pipelines)?;
        let (trusted, warm_up) = (options.trusted, options.warm_up && !staged);
        let (sender, receiver) = mpsc::channel();
        // Weights and kernels at once: uploading waits for memory, drivers compile in threads of their own.
        let (uploaded, pipelines) = std::thread::scope(|scope| {
            let (groups, layouts, cache) = (&groups, &layouts, &cache);
            let kernels = scope.spawn(move || {
                let warm_up = warm_up.then_some(&groups[..]);
                create_pipelines(gpu, bundle, plan, layouts, trusted, cache, warm_up, &mut |p| {
                    // The other side listens as long as this thread runs.
                    let _ = sender.send(p);
                })
            });
            let uploaded = upload_weights(gpu, bundle, plan, &buffers, options, &mut |p| {
                receiver.try_iter().for_each(&mut *progress);
                progress(p);
            });
            receiver.iter().for_each(&mut *progress);
            (uploaded, kernels.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        uploaded?;
        let pipelines = pipelines?;
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
            sending: Sending::default(),
            bounce,
            tables: None,
            cache,
            pace: Pace::new(gpu.facts(), options.submit_ms),
            held: None,
            staged: None,
        };
        if let Some(refill) = options.staged.clone().filter(|_| staged) {
            session.staged =
                Some(Staged { refill, weights: manifest.weights.clone(), layouts, present: Vec::new(), peak: 0 });
            if options.warm_up {
                session.warm_up(progress)?;
            }
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
            planned: if self.staged.is_some() { self.plan.staged_peak_bytes() } else { self.plan.peak_bytes() },
            allocated: self.staged.as_ref().map_or(0, |s| s.peak).max(self.allocated()),
            staging: self.staging.bytes + self.sending.bytes() + size(&self.bounce) + size(&self.tables),
        }
    }

    /// The driver's compiled pipelines, for [`LoadOptions::pipelines`]; `None` where wgpu cannot give them.
    pub fn pipeline_cache(&self) -> Option<Vec<u8>> {
        self.cache.bytes()
    }
    /// Why the bytes of [`LoadOptions::pipelines`] were not used, if they were not.
    pub fn pipeline_cache_ignored(&self) -> Option<&str> {
        self.cache.ignored.as_deref()
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
    if options.staged.is_some() {
        slots.retain(|slot| plan.buffers[slot.region.buffer as usize].stage.is_none());
    }
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
        let bytes = weight.arranged(slots[0].panels, bytes); // slots of a weight agree on its order
        for slot in slots {
            let part = &bytes[slot.start as usize..(slot.start + slot.region.bytes) as usize];
            upload.write(&buffers[slot.region.buffer as usize], slot.region.offset, part, &mut report)?;
        }
    }
    upload.flush()
}
