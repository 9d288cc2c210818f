//! What a compiler must know of a device, as plain data.

use serde::{Deserialize, Serialize};

/// Limits, features and cost rates of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// `portable`, or the adapter's name.
    pub name: String,
    /// Largest storage binding in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
    /// Storage buffers a dispatch may bind.
    pub storage_buffers: u32,
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Workgroup memory in bytes.
    pub workgroup_bytes: u32,
    /// Workgroups in each dimension of a dispatch.
    pub max_groups: u32,
    /// Loop iterations an invocation may run, all loops together: llvmpipe (Mesa 22) stops silently at 65,535.
    pub max_iterations: u32,
    /// `shader-f16` is there.
    pub f16: bool,
    /// 64-bit integers are there, and a load costs by its components, whatever their width (llvmpipe): buffers are read and
    /// written by pairs of words.
    #[serde(default)]
    pub wide: bool,
    /// Subgroup operations are there, and this is the width if it is the same for all kernels.
    pub subgroup: Option<Subgroups>,
}

/// Range of subgroup widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subgroups {
    /// Least width.
    pub min: u32,
    /// Largest width. A width may be baked into a kernel only if it equals `min`.
    pub max: u32,
}

impl Target {
    /// WebGPU's default limits: runs everywhere.
    pub fn portable() -> Target {
        Target {
            name: "portable".to_string(),
            max_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            storage_buffers: 8,
            invocations: 256,
            workgroup_bytes: 16 << 10,
            max_groups: 65_535,
            max_iterations: 60_000,
            f16: false,
            wide: false,
            subgroup: None,
        }
    }
}
