//! Runs one kernel on the first adapter. Without an adapter the tests fail.

use selvedge_shaders::kernel::Kernel;
use selvedge_shaders::source::Access;
use std::sync::OnceLock;

/// A device with all that its adapter offers and these kernels use.
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// Subgroup width, if the adapter has one width only.
    pub subgroup: Option<u32>,
}

/// The device, opened once.
pub fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))
            .expect("these tests need a GPU driver; Mesa's lavapipe will do");
        let info = adapter.get_info();
        let has = adapter.features().contains(wgpu::Features::SUBGROUP);
        let subgroup = (has && info.subgroup_min_size == info.subgroup_max_size).then_some(info.subgroup_min_size);
        let descriptor = wgpu::DeviceDescriptor {
            required_features: adapter.features() & wgpu::Features::SUBGROUP,
            required_limits: adapter.limits(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("the device opens");
        Gpu { device, queue, subgroup }
    })
}

/// A storage buffer of a dispatch: its words, padded to whole vec4s.
#[derive(Clone)]
pub struct Buffer {
    access: Access,
    words: Vec<u32>,
}

/// An input.
pub fn input<T: bytemuck::NoUninit>(data: &[T]) -> Buffer {
    Buffer { access: Access::Read, words: bytemuck::cast_slice(data).to_vec() }
}

/// An output (or in-out) buffer with its first contents.
pub fn output<T: bytemuck::NoUninit>(data: &[T]) -> Buffer {
    Buffer { access: Access::ReadWrite, words: bytemuck::cast_slice(data).to_vec() }
}

/// Runs a kernel with hooks on buffers `b0`, `b1`, …, and gives the words of the last buffer.
pub fn run(kernel: &dyn Kernel, hooks: &str, buffers: &[Buffer]) -> Vec<u32> {
    let limits = selvedge_shaders::kernel::Limits::PORTABLE;
    kernel.check(&limits).unwrap_or_else(|e| panic!("{e}"));
    let mut source = kernel.source().functions(hooks);
    for buffer in buffers {
        source = source.binding(buffer.access);
    }
    let wgsl = source.text();
    super::validate(&wgsl);
    dispatch(&wgsl, kernel.grid(), buffers)
}

fn dispatch(wgsl: &str, grid: [u32; 3], buffers: &[Buffer]) -> Vec<u32> {
    let Gpu { device, queue, .. } = gpu();
    let entries: Vec<wgpu::BindGroupLayoutEntry> = buffers
        .iter()
        .enumerate()
        .map(|(i, buffer)| wgpu::BindGroupLayoutEntry {
            binding: i as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: buffer.access == Access::Read },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
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
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let device_buffers: Vec<wgpu::Buffer> = buffers
        .iter()
        .map(|buffer| {
            let mut words = buffer.words.clone();
            words.resize(words.len().next_multiple_of(4).max(4), 0);
            let size = words.len() as u64 * 4;
            let made =
                device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
            queue.write_buffer(&made, 0, bytemuck::cast_slice(&words));
            made
        })
        .collect();
    let entries: Vec<wgpu::BindGroupEntry> = device_buffers
        .iter()
        .enumerate()
        .map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.as_entire_binding() })
        .collect();
    let group =
        device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries });
    let last = device_buffers.last().expect("a kernel has an output");
    let read = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: last.size(),
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
    }
    encoder.copy_buffer_to_buffer(last, 0, &read, 0, last.size());
    queue.submit([encoder.finish()]);
    read.map_async(wgpu::MapMode::Read, .., |result| result.expect("the buffer maps"));
    device.poll(wgpu::PollType::wait_indefinitely()).expect("the device finishes");
    let mapped = read.get_mapped_range(..).expect("the buffer is mapped");
    let words: Vec<u32> = bytemuck::cast_slice(&mapped).to_vec();
    words[..buffers.last().expect("a kernel has an output").words.len()].to_vec()
}
