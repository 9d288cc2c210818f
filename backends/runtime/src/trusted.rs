//! The one unsafe page: shader modules without bounds checks.
#![allow(unsafe_code)]

use wgpu::{Device, ShaderModule, ShaderModuleDescriptor, ShaderRuntimeChecks};

/// Creates a module without bounds checks and loop bounding. Integer division keeps its check: divisors may be data.
///
/// For kernels that this process's code generator emitted: it computes every index from shapes it has verified, and
/// every loop has a constant bound. [`crate::LoadOptions::trusted`] is the caller's word for that.
pub(crate) fn create_module(device: &Device, descriptor: ShaderModuleDescriptor<'_>) -> ShaderModule {
    let mut checks = ShaderRuntimeChecks::checked();
    checks.bounds_checks = false;
    checks.force_loop_bounding = false;
    // SAFETY: the caller vouches that the kernel stays within its bindings and that its loops end.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}
