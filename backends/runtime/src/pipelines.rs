//! Pipelines and bind groups: made once, at load.

use crate::cache::Cache;
use crate::device::Gpu;
use crate::error::RuntimeError;
use crate::load::{Progress, Stage};
use crate::trusted;
use selvedge_bundle::Bundle;
use selvedge_bundle::manifest::{Access, Manifest, Plan, Region};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Bind group layouts and pipeline layouts, one for each list of accesses.
pub(crate) struct Layouts {
    by_accesses: HashMap<Vec<Access>, (wgpu::BindGroupLayout, wgpu::PipelineLayout)>,
    accesses: Vec<Vec<Access>>,
}

impl Layouts {
    pub fn new(gpu: &Gpu, manifest: &Manifest) -> Result<Layouts, RuntimeError> {
        let accesses: Vec<_> = manifest.kernels.iter().map(|k| k.bindings.clone()).collect();
        let mut by_accesses = HashMap::new();
        for list in &accesses {
            if by_accesses.contains_key(list) {
                continue;
            }
            let entries: Vec<_> = (0..).zip(list).map(|(binding, access)| layout_entry(binding, *access)).collect();
            let made = gpu.scoped("creating a binding layout", 0, || {
                let descriptor = wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries };
                let group = gpu.device.create_bind_group_layout(&descriptor);
                let pipeline = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                    label: None,
                    bind_group_layouts: &[Some(&group)],
                    immediate_size: 0,
                });
                (group, pipeline)
            })?;
            by_accesses.insert(list.clone(), made);
        }
        Ok(Layouts { by_accesses, accesses })
    }
    fn of(&self, kernel: u32) -> &(wgpu::BindGroupLayout, wgpu::PipelineLayout) {
        &self.by_accesses[&self.accesses[kernel as usize]]
    }
}

fn layout_entry(binding: u32, access: Access) -> wgpu::BindGroupLayoutEntry {
    let read_only = access == Access::Read;
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    }
}

/// Creates the pipelines of the kernels that the plan uses, on all cores. Kernels of equal text share one.
///
/// With bind groups (for each function, those of its dispatches) each kernel is also run once with one workgroup as soon as
/// it is there, for drivers that compile at the first dispatch. What it writes is overwritten before it is read, since
/// nothing has run yet; what it reads as an index is 0, or a weight, and so within bounds.
#[allow(clippy::too_many_arguments)]
pub(crate) fn create_pipelines(
    gpu: &Gpu,
    bundle: &Bundle<'_>,
    plan: &Plan,
    layouts: &Layouts,
    trusted: bool,
    cache: &Cache,
    warm_up: Option<&[Vec<wgpu::BindGroup>]>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Option<wgpu::ComputePipeline>>, RuntimeError> {
    let kernels = &bundle.manifest().kernels;
    let mut distinct: Vec<usize> = Vec::new();
    let mut first = HashMap::new();
    let mut used: Vec<usize> = plan.dispatches().map(|d| d.kernel as usize).collect();
    used.sort_unstable();
    used.dedup();
    for kernel in &used {
        let key = (&kernels[*kernel].hash, &kernels[*kernel].bindings);
        first.entry(key).or_insert_with(|| {
            distinct.push(*kernel);
            distinct.len() - 1
        });
    }
    let total = distinct.len() as u64;
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(8).min(distinct.len());
    let mut made: Vec<Option<wgpu::ComputePipeline>> = vec![None; distinct.len()];
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..threads {
            let (sender, next, distinct) = (sender.clone(), &next, &distinct);
            scope.spawn(move || {
                while let Some(kernel) = distinct.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let source = bundle.kernel(*kernel).expect("a bundle has a text for each kernel");
                    let pipeline = create_pipeline(
                        gpu,
                        &kernels[*kernel].name,
                        source,
                        &layouts.of(*kernel as u32).1,
                        trusted,
                        cache,
                    );
                    if sender.send((*kernel, pipeline)).is_err() {
                        return; // another kernel failed: nobody listens any more
                    }
                }
            });
        }
        drop(sender);
        for (done, (kernel, pipeline)) in receiver.iter().enumerate() {
            let position = distinct.iter().position(|k| *k == kernel).expect("threads only take distinct kernels");
            let pipeline = pipeline?;
            progress(Progress { stage: Stage::Pipelines, done: done as u64 + 1, total });
            if let Some(group) = warm_up.and_then(|groups| group_of(plan, groups, kernel)) {
                run_once(gpu, &kernels[kernel].name, &pipeline, group)?;
                progress(Progress { stage: Stage::WarmUp, done: done as u64 + 1, total });
            }
            made[position] = Some(pipeline);
        }
        Ok::<(), RuntimeError>(())
    })?;
    let mut pipelines = vec![None; kernels.len()];
    for kernel in used {
        pipelines[kernel] = made[first[&(&kernels[kernel].hash, &kernels[kernel].bindings)]].clone();
    }
    Ok(pipelines)
}

fn create_pipeline(
    gpu: &Gpu,
    name: &str,
    source: &str,
    layout: &wgpu::PipelineLayout,
    trusted: bool,
    cache: &Cache,
) -> Result<wgpu::ComputePipeline, RuntimeError> {
    gpu.scoped(&format!("kernel `{name}`"), 0, || {
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(name), source: wgpu::ShaderSource::Wgsl(source.into()) };
        let module = if trusted {
            trusted::create_module(&gpu.device, descriptor)
        } else {
            gpu.device.create_shader_module(descriptor)
        };
        gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(layout),
            module: &module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions {
                // Kernels write workgroup memory before they read it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: cache.get(),
        })
    })
}

/// The bind group of the first dispatch of a kernel.
fn group_of<'g>(plan: &Plan, groups: &'g [Vec<wgpu::BindGroup>], kernel: usize) -> Option<&'g wgpu::BindGroup> {
    let mut all = plan.functions.iter().zip(groups).flat_map(|(f, groups)| f.dispatches.iter().zip(groups));
    all.find(|(dispatch, _)| dispatch.kernel as usize == kernel).map(|(_, group)| group)
}

/// Dispatches one workgroup and waits.
pub(crate) fn run_once(
    gpu: &Gpu,
    name: &str,
    pipeline: &wgpu::ComputePipeline,
    group: &wgpu::BindGroup,
) -> Result<(), RuntimeError> {
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("warm-up") });
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }
    let submission = gpu.submit(Some(encoder.finish()), name)?;
    gpu.wait(Some(submission), name)
}

/// One bind group for each distinct (layout, regions) of a function.
pub(crate) fn bind_groups(
    gpu: &Gpu,
    plan: &Plan,
    layouts: &Layouts,
    buffers: &[wgpu::Buffer],
) -> Result<Vec<Vec<wgpu::BindGroup>>, RuntimeError> {
    (0..plan.functions.len()).map(|function| function_groups(gpu, plan, function, layouts, buffers)).collect()
}

/// The bind groups of one function; dispatches share them.
pub(crate) fn function_groups(
    gpu: &Gpu,
    plan: &Plan,
    function: usize,
    layouts: &Layouts,
    buffers: &[wgpu::Buffer],
) -> Result<Vec<wgpu::BindGroup>, RuntimeError> {
    let mut known: HashMap<(&[Access], &[Region]), wgpu::BindGroup> = HashMap::new();
    let function = &plan.functions[function];
    let mut groups = Vec::new();
    {
        for dispatch in &function.dispatches {
            let key = (&layouts.accesses[dispatch.kernel as usize][..], &dispatch.bindings[..]);
            let group = match known.get(&key) {
                Some(group) => group.clone(),
                None => {
                    let place = format!("bindings of `{}` in `{}`", dispatch.label, function.name);
                    let layout = &layouts.of(dispatch.kernel).0;
                    let group = gpu.scoped(&place, 0, || bind_group(gpu, layout, &dispatch.bindings, buffers))?;
                    known.insert(key, group.clone());
                    group
                }
            };
            groups.push(group);
        }
    }
    Ok(groups)
}

fn bind_group(
    gpu: &Gpu,
    layout: &wgpu::BindGroupLayout,
    regions: &[Region],
    buffers: &[wgpu::Buffer],
) -> wgpu::BindGroup {
    let entry = |(binding, region): (u32, &Region)| wgpu::BindGroupEntry {
        binding,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &buffers[region.buffer as usize],
            offset: region.offset,
            size: wgpu::BufferSize::new(region.bytes),
        }),
    };
    let entries: Vec<_> = (0..).zip(regions).map(entry).collect();
    gpu.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
}
