//! The one unsafe page: shader modules without bounds checks, experimental features, and pipeline caches from bytes.
#![allow(unsafe_code)]

use wgpu::{Device, PipelineCache, PipelineCacheDescriptor, ShaderModule, ShaderModuleDescriptor, ShaderRuntimeChecks};

/// The token with which wgpu enables experimental features.
///
/// For cooperative matrices: their kernels are this compiler's, validated before they reach the device, and only run in
/// configurations that the adapter lists.
pub(crate) fn experimental() -> wgpu::ExperimentalFeatures {
    // SAFETY: what wgpu does not check of these features is the shape and type of matrices, which the kernels fix.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

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

/// A pipeline cache that starts with `data`, or an empty one; the device has `PIPELINE_CACHE`. Data of another adapter, driver
/// or wgpu is an error of wgpu (`data` is `Some`).
///
/// `data` came from [`PipelineCache::get_data`] and was not changed since: [`crate::cache`] holds a hash beside it.
pub(crate) fn create_pipeline_cache(device: &Device, data: Option<&[u8]>) -> PipelineCache {
    // SAFETY: the bytes are those that a cache gave; wgpu checks adapter and versions, the caller the hash.
    unsafe { device.create_pipeline_cache(&PipelineCacheDescriptor { label: None, data, fallback: false }) }
}
