//! A small bundle with everything in it: two weights of different width, a linked one, two kernels, a schedule.

use selvedge_bundle::manifest::*;
use selvedge_bundle::{Bundle, hash};
use std::borrow::Cow;

pub const KERNELS: [&str; 2] = ["@compute fn first() {}", "@compute fn second() { /* é */ }"];
pub const MODULE: &str = "module sample\n";

pub fn half_bytes() -> Vec<u8> {
    vec![0, 60, 0, 64, 0, 66] // 1, 2, 3 in f16
}

pub fn full_bytes() -> Vec<u8> {
    [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect()
}

pub fn region(buffer: u32, offset: u64, bytes: u64) -> Region {
    Region { buffer, offset, bytes }
}

pub fn port(name: &str, shape: &[u64], region: Region) -> Port {
    Port { name: name.to_string(), dtype: "f32".to_string(), shape: shape.to_vec(), regions: vec![region] }
}

pub fn manifest() -> Manifest {
    let weight = |name: &str, dtype: &str, shape: &[u64], bytes: &[u8], link| Weight {
        name: name.to_string(),
        dtype: dtype.to_string(),
        shape: shape.to_vec(),
        hash: hash(bytes),
        link,
    };
    let kernel = |text: &str, bindings: &[Access]| Kernel {
        name: "map".to_string(),
        choice: String::new(),
        hash: hash(text.as_bytes()),
        workgroup: [8, 8, 1],
        bindings: bindings.to_vec(),
    };
    let step = PlanFunction {
        name: "step".to_string(),
        inputs: vec![port("x", &[4], region(1, 0, 16))],
        outputs: vec![port("y", &[4], region(1, 256, 16))],
        dispatches: vec![Dispatch {
            kernel: 0,
            groups: [1, 1, 1],
            bindings: vec![region(0, 0, 512), region(1, 0, 768)],
            label: "%1 map".to_string(),
            origins: vec!["model.rs:3:5".to_string()],
            flops: 8,
            bytes: 40,
            weight_bytes: 0,
        }],
        moves: vec![Move {
            after: 1,
            copies: vec![Copy { source: region(1, 260, 8), destination: region(1, 512, 8) }],
            label: "%2 slice".to_string(),
            origins: Vec::new(),
            bytes: 16,
            weight_bytes: 0,
        }],
        copies: vec![Copy { source: region(1, 256, 16), destination: region(1, 0, 16) }],
    };
    Manifest {
        format: FORMAT,
        producer: "test 1".to_string(),
        name: "sample".to_string(),
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
        weights: vec![
            weight("half", "f16", &[3], &half_bytes(), None),
            weight("full", "f32", &[2, 1], &full_bytes(), None),
            weight(
                "elsewhere",
                "f32",
                &[2],
                &full_bytes(),
                Some(Link { file: "model.safetensors".to_string(), offset: 80, bytes: 8 }),
            ),
        ],
        kernels: vec![kernel(KERNELS[0], &[Access::Read, Access::ReadWrite]), kernel(KERNELS[1], &[Access::ReadWrite])],
        plans: vec![Plan {
            size: "batch=1".to_string(),
            chosen: String::new(),
            buffers: vec![
                Buffer { label: "weights".to_string(), bytes: 768, access: Access::Read, stage: None },
                Buffer { label: "arena".to_string(), bytes: 1024, access: Access::ReadWrite, stage: None },
            ],
            weights: vec![
                WeightSlot { weight: 0, start: 0, region: region(0, 0, 6), panels: None },
                WeightSlot { weight: 1, start: 0, region: region(0, 256, 8), panels: None },
                WeightSlot { weight: 2, start: 4, region: region(0, 512, 4), panels: None },
            ],
            functions: vec![step],
            schedule: Some(PlanSchedule {
                steps: vec!["step".to_string()],
                carry: vec![port("x", &[4], region(1, 0, 16))],
                tables: vec![port("row", &[2, 2], region(1, 512, 16))],
                ..PlanSchedule::default()
            }),
        }],
        pipeline: serde_json::json!({"zeta": [1, 2.5, null], "alpha": {"b": true, "a": "label \"7\""}}),
    }
}

pub fn bundle_of(manifest: Manifest) -> Result<Bundle<'static>, selvedge_bundle::BundleError> {
    let kernels = KERNELS.map(str::to_string).to_vec();
    let mut bundle = Bundle::new(manifest, kernels, MODULE.to_string(), |weight| {
        Ok(Cow::Owned(if weight.name == "half" { half_bytes() } else { full_bytes() }))
    })?;
    bundle.add_selftest("map", vec![1, 2, 3]);
    Ok(bundle)
}

pub fn sample() -> Bundle<'static> {
    bundle_of(manifest()).expect("the sample is consistent")
}
