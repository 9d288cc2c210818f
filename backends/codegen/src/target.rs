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
    /// 64-bit integers are there, and a load costs by its components, whatever their width (llvmpipe that does not gather):
    /// buffers are read and written by pairs of words.
    #[serde(default)]
    pub wide: bool,
    /// Kernels run on a processor with AVX-512: twice the vector registers, and caches of instructions that hold longer steps.
    #[serde(default)]
    pub avx512: bool,
    /// A driver whose compiler takes the square of a kernel's loads and stores of arrays, half a minute for some (llvmpipe on LLVM 15):
    /// kernels have small tiles in registers.
    #[serde(default)]
    pub old_compiler: bool,
    /// A GPU: workgroup memory is much faster than what lies behind it, and operands are staged there.
    #[serde(default)]
    pub gpu: bool,
    /// Sizes (rows = columns = depth) of cooperative matrices with operands of f16 and sums in f32.
    #[serde(default)]
    pub cooperative: Vec<u32>,
    /// Subgroup operations are there, and this is the width if it is the same for all kernels.
    pub subgroup: Option<Subgroups>,
    /// How fast it is, roughly; plans are compared by it.
    #[serde(default)]
    pub rates: Rates,
}

/// Speeds of a device, roughly: they decide between plans, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Bytes that memory moves in a second.
    pub bytes_per_second: f64,
    /// Floating-point operations in a second, at the rate of a good contraction.
    pub flops_per_second: f64,
    /// Seconds that a dispatch takes besides its work.
    pub dispatch_seconds: f64,
}

impl Rates {
    /// A GPU with memory of its own.
    pub const DISCRETE: Rates = Rates { bytes_per_second: 400e9, flops_per_second: 12e12, dispatch_seconds: 4e-6 };
    /// A GPU that shares memory with the processor.
    pub const INTEGRATED: Rates = Rates { bytes_per_second: 50e9, flops_per_second: 1.5e12, dispatch_seconds: 6e-6 };
    /// A processor behind a graphics driver.
    pub const PROCESSOR: Rates = Rates { bytes_per_second: 10e9, flops_per_second: 40e9, dispatch_seconds: 30e-6 };
}

impl Default for Rates {
    fn default() -> Rates {
        Rates::DISCRETE
    }
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
            avx512: false,
            old_compiler: false,
            gpu: false,
            cooperative: Vec::new(),
            subgroup: None,
            rates: Rates::default(),
        }
    }
}
