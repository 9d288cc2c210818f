//! Drives single kernels through wgpu, for benchmarks.

use selvedge_shaders::kernel::Kernel;
use selvedge_shaders::source::Access;
use std::time::{Duration, Instant};

/// An open device.
pub struct Device {
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// Name of the adapter and its driver.
    pub name: String,
    /// Subgroup width, if the adapter has one width only.
    pub subgroup: Option<u32>,
}

/// A storage buffer of a kernel: how it is used, and its contents in words (a multiple of 4).
pub type Words = (Access, Vec<u32>);

/// A kernel with its buffers, ready to run.
pub struct Prepared<'a> {
    owner: &'a Device,
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    grid: [u32; 3],
}

impl Device {
    /// Opens the first adapter.
    ///
    /// # Panics
    /// If there is none, or it does not open.
    pub fn open() -> Device {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))
            .expect("benchmarks need a GPU driver; Mesa's lavapipe will do");
        let info = adapter.get_info();
        let has = adapter.features().contains(wgpu::Features::SUBGROUP);
        let descriptor = wgpu::DeviceDescriptor {
            required_features: adapter.features() & wgpu::Features::SUBGROUP,
            required_limits: adapter.limits(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("the device opens");
        Device {
            device,
            queue,
            name: format!("{}, {} {}", info.name, info.driver, info.driver_info),
            subgroup: (has && info.subgroup_min_size == info.subgroup_max_size).then_some(info.subgroup_min_size),
        }
    }

    /// Compiles a kernel with hooks on buffers `b0`, `b1`, …, and runs one workgroup, at which drivers finish compiling.
    pub fn prepare(&self, kernel: &dyn Kernel, hooks: &str, buffers: &[Words]) -> Prepared<'_> {
        let device = &self.device;
        let source = kernel.source().functions(hooks);
        let wgsl = buffers.iter().fold(source, |source, (access, _)| source.binding(*access)).text();
        let entries: Vec<wgpu::BindGroupLayoutEntry> = buffers
            .iter()
            .enumerate()
            .map(|(i, (access, _))| wgpu::BindGroupLayoutEntry {
                binding: i as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: *access == Access::Read },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(wgsl.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let made: Vec<wgpu::Buffer> = buffers
            .iter()
            .map(|(_, words)| {
                let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size: words.len() as u64 * 4,
                    usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                });
                self.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(words));
                buffer
            })
            .collect();
        let entries: Vec<wgpu::BindGroupEntry> = made
            .iter()
            .enumerate()
            .map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.as_entire_binding() })
            .collect();
        let group =
            device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries });
        let prepared = Prepared { owner: self, pipeline, group, grid: kernel.grid() };
        prepared.dispatch(1, [1, 1, 1]);
        prepared
    }
}

impl Prepared<'_> {
    /// The time of `count` runs in one pass: wall time, or CPU time of the whole process if `BENCH_CPU` is set (for
    /// software drivers on a busy machine).
    pub fn time(&self, count: u64) -> Duration {
        if std::env::var_os("BENCH_CPU").is_some() {
            let start = cpu_time();
            self.dispatch(count, self.grid);
            cpu_time() - start
        } else {
            let start = Instant::now();
            self.dispatch(count, self.grid);
            start.elapsed()
        }
    }

    fn dispatch(&self, count: u64, [x, y, z]: [u32; 3]) {
        let Device { device, queue, .. } = self.owner;
        let mut encoder = device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &self.group, &[]);
            for _ in 0..count {
                pass.dispatch_workgroups(x, y, z);
            }
        }
        queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::wait_indefinitely()).expect("the device finishes");
    }
}

/// CPU time of all threads, as Linux counts it.
///
/// # Panics
/// On other systems.
pub fn cpu_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("BENCH_CPU needs Linux");
    let nanoseconds = |task: std::fs::DirEntry| -> Option<u64> {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(tasks.flatten().filter_map(nanoseconds).sum())
}
