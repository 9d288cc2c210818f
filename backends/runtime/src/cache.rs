//! The driver's compiled pipelines as bytes that a caller keeps from one process to the next.

use crate::device::Gpu;
use crate::error::RuntimeError;
use crate::trusted;

/// Length of the hash before the data.
const HASH: usize = 64;

/// Compiled pipelines of a device, where wgpu can keep them.
pub(crate) struct Cache {
    made: Option<wgpu::PipelineCache>,
    /// Why the caller's bytes were not used, if they were not.
    pub ignored: Option<String>,
}

impl Cache {
    /// A cache that starts with bytes of [`Cache::bytes`]; bytes that do not fit, or were changed, are not used.
    pub fn new(gpu: &Gpu, bytes: Option<&[u8]>) -> Result<Cache, RuntimeError> {
        if !gpu.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return Ok(Cache { made: None, ignored: None });
        }
        let mut ignored = None;
        if let Some(bytes) = bytes {
            let started = unpack(bytes).and_then(|data| {
                let made =
                    gpu.scoped("the pipeline cache", 0, || trusted::create_pipeline_cache(&gpu.device, Some(data)));
                made.map_err(|e| e.to_string())
            });
            match started {
                Ok(made) => return Ok(Cache { made: Some(made), ignored }),
                Err(why) => ignored = Some(why),
            }
        }
        let made = gpu.scoped("a pipeline cache", 0, || trusted::create_pipeline_cache(&gpu.device, None))?;
        Ok(Cache { made: Some(made), ignored })
    }
    pub fn get(&self) -> Option<&wgpu::PipelineCache> {
        self.made.as_ref()
    }
    /// What to keep: a hash and the driver's data.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let data = self.made.as_ref()?.get_data()?;
        Some([selvedge_bundle::hash(&data).as_bytes(), &data].concat())
    }
}

fn unpack(bytes: &[u8]) -> Result<&[u8], String> {
    let (hash, data) = bytes.split_at_checked(HASH).ok_or("the pipeline cache is cut off")?;
    if selvedge_bundle::hash(data).as_bytes() != hash {
        return Err("the pipeline cache was changed".to_string());
    }
    Ok(data)
}
