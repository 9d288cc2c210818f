//! What the test files share: validation by naga, hooks, a device.
#![allow(dead_code)]

pub mod gpu;
pub mod hooks;

/// Parses and validates WGSL as wgpu does, and panics with naga's rendered error.
pub fn validate(wgsl: &str) -> naga::Module {
    let module =
        naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|e| panic!("{}\nin\n{wgsl}", e.emit_to_string(wgsl)));
    let capabilities = naga::valid::Capabilities::default()
        | naga::valid::Capabilities::SUBGROUP
        | naga::valid::Capabilities::SHADER_INT64
        | naga::valid::Capabilities::SHADER_FLOAT16
        | naga::valid::Capabilities::COOPERATIVE_MATRIX
        | naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities);
    validator
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all());
    if let Err(e) = validator.validate(&module) {
        panic!("{}\nin\n{wgsl}", e.emit_to_string(wgsl));
    }
    module
}
