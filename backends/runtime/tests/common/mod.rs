//! Plans by hand: enough to say what a test is about.
#![allow(dead_code)] // each test binary uses its part

use selvedge_bundle::manifest::*;
use selvedge_bundle::{Bundle, hash};
use selvedge_runtime::{DeviceChoice, Gpu, HostTensor, LoadOptions, RuntimeError, Session, Tensors};
use std::borrow::Cow;
use std::sync::Arc;

/// The device of the tests; SELVEDGE_DEVICE names another than the best one.
pub fn gpu() -> Arc<Gpu> {
    let choice = std::env::var("SELVEDGE_DEVICE").unwrap_or("auto".to_string());
    let choice: DeviceChoice = choice.parse().unwrap();
    Gpu::open(&choice).expect("these tests need a GPU driver; Debian: apt install mesa-vulkan-drivers")
}

pub fn region(buffer: u32, offset: u64, bytes: u64) -> Region {
    Region { buffer, offset, bytes }
}

pub fn port(name: &str, dtype: &str, shape: &[u64], regions: &[Region]) -> Port {
    Port { name: name.to_string(), dtype: dtype.to_string(), shape: shape.to_vec(), regions: regions.to_vec() }
}

/// A program under construction: one plan with the buffers given.
pub struct Program {
    pub manifest: Manifest,
    pub kernels: Vec<String>,
    pub weights: Vec<(String, Vec<u8>)>,
}

impl Program {
    pub fn new(buffers: &[(u64, Access)]) -> Program {
        let buffer = |(i, (bytes, access)): (usize, &(u64, Access))| Buffer {
            label: format!("buffer {i}"),
            bytes: *bytes,
            access: *access,
            stage: None,
        };
        let manifest = Manifest {
            format: FORMAT,
            producer: "test".to_string(),
            name: "test".to_string(),
            target: Requirements {
                name: "portable".to_string(),
                features: vec![],
                subgroup_size: None,
                max_binding_bytes: 128 << 20,
                max_buffer_bytes: 256 << 20,
                storage_buffers: 8,
                invocations: 256,
                workgroup_bytes: 16 << 10,
            },
            weights: vec![],
            kernels: vec![],
            plans: vec![Plan {
                size: "only".to_string(),
                chosen: String::new(),
                buffers: buffers.iter().enumerate().map(buffer).collect(),
                weights: vec![],
                functions: vec![],
                schedule: None,
            }],
            pipeline: serde_json::Value::Null,
        };
        Program { manifest, kernels: vec![], weights: vec![] }
    }
    pub fn plan(&mut self) -> &mut Plan {
        &mut self.manifest.plans[0]
    }
    pub fn weight(&mut self, name: &str, dtype: &str, shape: &[u64], bytes: Vec<u8>, slots: &[(u64, Region)]) {
        let weight = self.manifest.weights.len() as u32;
        self.manifest.weights.push(Weight {
            name: name.to_string(),
            dtype: dtype.to_string(),
            shape: shape.to_vec(),
            hash: hash(&bytes),
            link: None,
        });
        self.weights.push((name.to_string(), bytes));
        let slots =
            slots.iter().map(|(start, region)| WeightSlot { weight, start: *start, region: *region, panels: None });
        self.plan().weights.extend(slots);
    }
    /// A kernel of workgroups of 64 whose `main` body sees `i`, the invocation, and bindings b0, b1 … of words.
    pub fn kernel(&mut self, name: &str, bindings: &[Access], body: &str) -> u32 {
        let mut text = String::new();
        for (i, access) in bindings.iter().enumerate() {
            let mode = if *access == Access::Read { "read" } else { "read_write" };
            text += &format!("@group(0) @binding({i}) var<storage, {mode}> b{i}: array<vec4<u32>>;\n");
        }
        text += "@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3<u32>) {\n";
        text += &format!("  let i = id.x;\n  {body}\n}}\n");
        self.source(name, bindings, [64, 1, 1], &text)
    }
    pub fn source(&mut self, name: &str, bindings: &[Access], workgroup: [u32; 3], text: &str) -> u32 {
        let (name, hash) = (name.to_string(), hash(text.as_bytes()));
        self.manifest.kernels.push(Kernel {
            name,
            choice: String::new(),
            hash,
            workgroup,
            bindings: bindings.to_vec(),
        });
        self.kernels.push(text.to_string());
        self.kernels.len() as u32 - 1
    }
    pub fn function(
        &mut self,
        name: &str,
        inputs: &[Port],
        outputs: &[Port],
        dispatches: &[Dispatch],
        copies: &[Copy],
    ) {
        self.plan().functions.push(PlanFunction {
            name: name.to_string(),
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            dispatches: dispatches.to_vec(),
            moves: Vec::new(),
            copies: copies.to_vec(),
        });
    }
    pub fn bundle(&self) -> Bundle<'static> {
        Bundle::new(self.manifest.clone(), self.kernels.clone(), "module test\n".to_string(), |weight| {
            let (_, bytes) = self.weights.iter().find(|(name, _)| *name == weight.name).unwrap();
            Ok(Cow::Owned(bytes.clone()))
        })
        .unwrap()
    }
    pub fn load(&self) -> Result<Session, RuntimeError> {
        self.load_with(&LoadOptions::default())
    }
    pub fn load_with(&self, options: &LoadOptions<'_>) -> Result<Session, RuntimeError> {
        // Through the file's bytes: what runs is what was read.
        let bytes = self.bundle().to_bytes().unwrap();
        let bundle = selvedge_bundle::read(&bytes).unwrap();
        Session::load(&gpu(), &bundle, 0, options, &mut |_| {})
    }
}

pub fn dispatch(kernel: u32, groups: u32, bindings: &[Region], label: &str) -> Dispatch {
    Dispatch {
        kernel,
        groups: [groups, 1, 1],
        bindings: bindings.to_vec(),
        label: label.to_string(),
        origins: vec![format!("model.rs:{}", label.len())],
        flops: 2,
        bytes: 12,
        weight_bytes: 0,
    }
}

pub fn tensors<const N: usize>(items: [(&str, HostTensor); N]) -> Tensors {
    items.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect()
}
