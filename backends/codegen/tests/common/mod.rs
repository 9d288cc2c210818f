//! What the tests share: targets, random data, and running a module on the device and in the interpreter.
#![allow(dead_code)] // each test binary uses some of them

use selvedge_bundle::Bundle;
use selvedge_codegen::{Compiled, Options, Subgroups, Target, Tunable, compile};
use selvedge_ir::func::Target as Goes;
use selvedge_ir::{DType, Data, Interpreter, Module, Precision, Tensor, TensorType};
use selvedge_runtime::{DeviceChoice, Gpu, HostData, HostTensor, LoadOptions, Session};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A counter generator: splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// Floats in [-1, 1) rounded to the dtype, integers in -4..12 (0..16 for u32), either bool.
    pub fn tensor(&mut self, ty: &TensorType) -> Tensor {
        let count = ty.elements().expect("concrete");
        let data = match ty.dtype {
            DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_) => Data::F32(
                (0..count).map(|_| ty.dtype.round((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0)).collect(),
            ),
            DType::I32 => Data::I32((0..count).map(|_| (self.next() % 16) as i32 - 4).collect()),
            DType::U32 => Data::U32((0..count).map(|_| (self.next() % 16) as u32).collect()),
            DType::Bool => Data::Bool((0..count).map(|_| self.next().is_multiple_of(2)).collect()),
        };
        Tensor::new(ty.clone(), data)
    }
}

/// Targets that exercise limits: WebGPU's defaults; windows of 8 KiB in buffers of 16 KiB; few loop iterations.
pub fn targets() -> Vec<Target> {
    let portable = Target::portable();
    let windows = Target {
        name: "windows".to_string(),
        max_binding_bytes: 8 << 10,
        max_buffer_bytes: 16 << 10,
        ..portable.clone()
    };
    let chunks = Target { name: "chunks".to_string(), max_iterations: 300, ..portable.clone() };
    let subgroups =
        Target { name: "subgroups".to_string(), subgroup: Some(Subgroups { min: 8, max: 8 }), ..portable.clone() };
    let wide = Target { name: "wide".to_string(), wide: true, ..subgroups.clone() };
    let narrow = Target { name: "wide windows".to_string(), wide: true, ..windows.clone() };
    vec![portable, windows, chunks, subgroups, wide, narrow]
}

/// Those of the targets that the device can run: a fixed subgroup width is the device's own, or left out, and so are 64-bit
/// integers.
pub fn device_targets() -> Vec<Target> {
    let width = gpu().facts().subgroup.filter(|(min, max)| min == max).map(|(min, max)| Subgroups { min, max });
    let mut all = targets();
    for target in &mut all {
        target.subgroup = target.subgroup.and(width);
        target.wide &= gpu().facts().int64;
    }
    all
}

/// The device as it is, with the limits that every device has.
pub fn device() -> Target {
    let gpu = gpu();
    let facts = gpu.facts();
    Target {
        name: "device".to_string(),
        wide: facts.int64,
        old_compiler: facts.old_compiler(),
        f16: facts.f16,
        cooperative: facts.cooperative.clone(),
        subgroup: facts.subgroup.map(|(min, max)| Subgroups { min, max }),
        ..Target::portable()
    }
}

/// Bytes of a weight as a bundle holds them.
pub fn weight_bytes(tensor: &Tensor) -> Vec<u8> {
    match &tensor.data {
        Data::Bool(v) => v.iter().flat_map(|b| u32::from(*b).to_le_bytes()).collect(),
        Data::F32(_) | Data::F64(_) | Data::I32(_) | Data::U32(_) => tensor.to_bytes(),
    }
}

/// The bundle of a compiled module with these weights.
pub fn bundle(compiled: &Compiled, weights: &BTreeMap<String, Arc<Tensor>>) -> Bundle<'static> {
    let mut manifest = compiled.manifest.clone();
    let mut bytes = BTreeMap::new();
    for (i, weight) in manifest.weights.iter_mut().enumerate() {
        let data = match compiled.constants.get(&(i as u32)) {
            Some(data) => data.clone(),
            None => weight_bytes(&weights[&weight.name]),
        };
        weight.hash = selvedge_bundle::hash(&data);
        bytes.insert(weight.name.clone(), data);
    }
    Bundle::new(manifest, compiled.kernels.clone(), String::new(), |w| Ok(Cow::Owned(bytes[&w.name].clone())))
        .expect("the parts fit each other")
}

/// The device, opened once; without one these tests cannot say anything.
pub fn gpu() -> Arc<Gpu> {
    static GPU: OnceLock<Arc<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| Gpu::open(&DeviceChoice::Auto).expect("a Vulkan driver: apt-get install mesa-vulkan-drivers"))
        .clone()
}

pub fn load(compiled: &Compiled, weights: &BTreeMap<String, Arc<Tensor>>) -> Session {
    let bundle = bundle(compiled, weights);
    // Checked kernels: an access out of bounds gives a wrong value instead of a fault.
    let options = LoadOptions::default();
    Session::load(&gpu(), &bundle, 0, &options, &mut |_| {}).expect("the plan loads")
}

pub fn to_host(tensor: &Tensor) -> HostTensor {
    let shape: Vec<u64> = tensor.sizes().into_iter().map(|s| s as u64).collect();
    let data = match &tensor.data {
        Data::F32(v) => HostData::F32(v.clone()),
        Data::F64(v) => HostData::F32(v.iter().map(|x| *x as f32).collect()),
        Data::I32(v) => HostData::I32(v.clone()),
        Data::U32(v) => HostData::U32(v.clone()),
        Data::Bool(v) => HostData::U32(v.iter().map(|b| u32::from(*b)).collect()),
    };
    HostTensor { shape, data }
}

pub fn from_host(tensor: &HostTensor) -> Vec<f64> {
    match &tensor.data {
        HostData::F32(v) => v.iter().map(|x| *x as f64).collect(),
        HostData::I32(v) => v.iter().map(|x| *x as f64).collect(),
        HostData::U32(v) => v.iter().map(|x| *x as f64).collect(),
    }
}

/// Random weights of a module.
pub fn random_weights(module: &Module, random: &mut Random) -> BTreeMap<String, Arc<Tensor>> {
    module.weights.iter().map(|w| (w.name.clone(), Arc::new(random.tensor(&w.ty)))).collect()
}

/// Runs every function of a library on the device under a target and compares with the interpreter.
///
/// The tolerance of a float output comes from its own f32-f64 gap: 16 times the largest gap, plus 16 units of the
/// last place of its dtype at the output's largest magnitude. Integers and bools must be equal.
pub fn check(module: &Module, target: &Target, seed: u64) {
    check_with(module, target, seed, &Options::default());
}

/// As [`check`], for every candidate of the kernels that can be chosen; gives the names of the families that ran.
pub fn check_candidates(module: &Module, target: &Target, seed: u64) -> BTreeSet<String> {
    let all = compile(module, target, &Options::default()).unwrap_or_else(|e| panic!("{}: {e}", module.name)).tunables;
    let most = all.values().map(|t| t.candidates.len()).max().unwrap_or(0);
    let mut families = BTreeSet::new();
    // Without a choice there is one program.
    for i in 0..most.max(1) {
        let pick = |t: &Tunable| t.candidates[i % t.candidates.len()].clone();
        let choices = all.iter().map(|(key, tunable)| (key.clone(), pick(tunable))).collect();
        let compiled = check_with(module, target, seed, &Options { choices, ..Options::default() });
        families.extend(compiled.manifest.kernels.iter().map(|k| k.name.clone()));
    }
    families
}

fn check_with(module: &Module, target: &Target, seed: u64, options: &Options) -> Compiled {
    let mut random = Random(seed);
    let weights = random_weights(module, &mut random);
    let compiled =
        compile(module, target, options).unwrap_or_else(|e| panic!("{} for {}: {e}", module.name, target.name));
    // One session at a time: small dispatches gain nothing from company.
    static DEVICE: Mutex<()> = Mutex::new(());
    let _one = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut session = load(&compiled, &weights);
    for function in &module.functions {
        let params = function.params();
        let args: Vec<Tensor> = params.iter().map(|(_, id)| random.tensor(function.ty(*id))).collect();
        let inputs = params.iter().zip(&args).map(|((n, _), t)| (n.to_string(), to_host(t))).collect();
        let place = format!("@{} of {} for {}", function.name, module.name, target.name);
        let got = session.call(&function.name, &inputs).unwrap_or_else(|e| panic!("{place}: {e}"));
        let run = |precision| {
            let interpreter = Interpreter::new(module, &weights).precision(precision);
            let args: Vec<Tensor> = args.iter().map(|a| a.clone().in_precision(precision)).collect();
            interpreter.call(&function.name, &args, &mut BTreeMap::new()).unwrap_or_else(|e| panic!("{place}: {e}"))
        };
        for ((goes, narrow), (_, wide)) in run(Precision::F32).into_iter().zip(run(Precision::F64)) {
            let Goes::Output(name) = goes else { continue };
            compare(&format!("{place}, output {name}"), &from_host(&got[&name]), &narrow, &wide);
        }
    }
    compiled
}

fn compare(place: &str, got: &[f64], narrow: &Tensor, wide: &Tensor) {
    let (want, exact) = (narrow.to_f64(), wide.to_f64());
    assert_eq!(got.len(), want.len(), "{place}");
    let finite = |x: &f64| x.is_finite();
    let largest = want.iter().copied().filter(finite).fold(0.0, |a: f64, x| a.max(x.abs()));
    let gap = want.iter().zip(&exact).map(|(a, b)| (a - b).abs()).filter(finite).fold(0.0, f64::max);
    let unit = match narrow.ty.dtype {
        DType::F32 => 2f64.powi(-23),
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        DType::I32 | DType::U32 | DType::Bool | DType::Packed(_) => 0.0,
    };
    let tolerance = if unit == 0.0 { 0.0 } else { 16.0 * gap + 16.0 * unit * largest };
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        let same = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= tolerance;
        assert!(same, "{place}, element {i} of {}: got {g}, want {w} within {tolerance}", got.len());
    }
}
