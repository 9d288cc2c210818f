//! A plan that measures what a device can do at most: arithmetic in registers, and a copy through memory.

use crate::compile::Compiled;
use selvedge_bundle::manifest::{
    ALIGN, Access as Usage, Buffer, Dispatch, FORMAT, Kernel, Manifest, Plan, PlanFunction, Region, Requirements,
};
use selvedge_shaders::kernel::Kernel as _;
use selvedge_shaders::kernels::map::Map;
use selvedge_shaders::probe::{Arithmetic, Copy};
use selvedge_shaders::source::Access;

/// The function that multiplies and adds.
pub const ARITHMETIC: &str = "arithmetic";
/// The function that copies.
pub const COPY: &str = "copy";

/// Multiply-adds of some 1.6 GFLOP, and a copy of 64 MiB, within every device's limits.
pub fn plan() -> Compiled {
    let arithmetic = Arithmetic { invocations: 256 << 10, iterations: 16 };
    let copy = Copy { vectors: 2 << 20 };
    let mut kernels = Vec::new();
    let mut texts = Vec::new();
    let mut function = |name: &str, map: Map, hook: String, bytes: u64, (flops, traffic): (u64, u64)| {
        let text = map.source().functions(hook).binding(Access::ReadWrite).text();
        kernels.push(Kernel {
            name: name.to_string(),
            choice: String::new(),
            hash: selvedge_bundle::hash(text.as_bytes()),
            workgroup: map.workgroup(),
            bindings: vec![Usage::ReadWrite],
        });
        texts.push(text);
        let dispatch = Dispatch {
            kernel: kernels.len() as u32 - 1,
            groups: map.grid(),
            bindings: vec![Region { buffer: 0, offset: 0, bytes }],
            label: name.to_string(),
            origins: Vec::new(),
            flops,
            bytes: traffic,
            weight_bytes: 0,
        };
        let (inputs, outputs, copies) = (Vec::new(), Vec::new(), Vec::new());
        let moves = Vec::new();
        PlanFunction { name: name.to_string(), inputs, outputs, dispatches: vec![dispatch], moves, copies }
    };
    let stored = u64::from(arithmetic.invocations) * 16;
    let functions = vec![
        function(ARITHMETIC, arithmetic.map(), arithmetic.hook(), stored, (arithmetic.flops(), stored)),
        function(COPY, copy.map(), copy.hook(), copy.bytes(), (0, copy.bytes())),
    ];
    let bytes = stored.max(copy.bytes()).next_multiple_of(ALIGN);
    let buffer = Buffer { label: "probe".to_string(), bytes, access: Usage::ReadWrite, stage: None };
    let plan = Plan {
        size: String::new(),
        chosen: String::new(),
        buffers: vec![buffer],
        weights: Vec::new(),
        functions,
        schedule: None,
    };
    let manifest = Manifest {
        format: FORMAT,
        producer: concat!("selvedge ", env!("CARGO_PKG_VERSION")).to_string(),
        name: "probe".to_string(),
        target: Requirements {
            name: "portable".to_string(),
            features: Vec::new(),
            subgroup_size: None,
            max_binding_bytes: bytes,
            max_buffer_bytes: bytes,
            storage_buffers: 1,
            invocations: 64,
            workgroup_bytes: 0,
        },
        weights: Vec::new(),
        kernels,
        plans: vec![plan],
        pipeline: serde_json::Value::Null,
    };
    Compiled { manifest, kernels: texts, constants: Default::default(), tunables: Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_sound_and_its_kernels_are_valid() {
        let probe = plan();
        crate::verify::verify(probe.plan(), &probe.manifest, &crate::Target::portable()).expect("a sound plan");
        for text in &probe.kernels {
            let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(text)));
            let flags = naga::valid::ValidationFlags::all();
            naga::valid::Validator::new(flags, naga::valid::Capabilities::empty()).validate(&module).expect("valid");
        }
    }
}
