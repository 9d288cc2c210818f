//! Plans within a budget: staged weights, strips and windows give what the whole plan gives, and take what they say.

use selvedge::compile::{self, Options, Settings};
use selvedge::memory::{Residency, Usage};
use selvedge::weights::{Random, Weights};
use selvedge::zoo::vae::{VaeConfig, decode_module};
use selvedge::{Device, DeviceChoice, Event, Session, compare};
use selvedge_ir::interp::Run;
use selvedge_ir::{DType, Module, Tensor, TensorType};
use selvedge_passes::{Pass, Strips};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

fn random() -> Weights {
    Arc::new(Random { seed: 5 })
}

fn input(name: &str, sizes: &[usize]) -> Tensor {
    Random::default().scaled(name, &TensorType::new(DType::F32, sizes.to_vec()), 1.0).expect("numbers")
}

fn gpu() -> Device {
    Device::choose(&DeviceChoice::Gpu, &mut |_| {}).expect("these tests need a GPU driver")
}

/// A program whose stages read weights of their own, and one (`shared`) that two of them read.
fn staged_program() -> Module {
    let text = r#"module @staged

weight "text" : f32[64,96]
weight "block" : f32[96,96]
weight "shared" : f32[96,96]
weight "decoder" : f32[96,32]

fn @condition(%prompt: f32[2,64]) {
  %w = weight "text" : f32[64,96]
  %s = weight "shared" : f32[96,96]
  %a = contract %prompt, %w spec=[ab,bc->ac] dtype=f32 : f32[2,96]
  %c = contract %a, %s spec=[ab,bc->ac] dtype=f32 : f32[2,96]
  return context=%c
}

fn @step(%latents: f32[2,96], %context: f32[2,96], %t: f32[]) {
  %w = weight "block" : f32[96,96]
  %s = weight "shared" : f32[96,96]
  %x = map %latents, %context body={x, y| x + y} : f32[2,96]
  %a = contract %x, %w spec=[ab,bc->ac] dtype=f32 : f32[2,96]
  %b = contract %a, %s spec=[ab,bc->ac] dtype=f32 : f32[2,96]
  %u = broadcast %t shape=[2,96] axes=[] : f32[2,96]
  %n = map %b, %u body={x, y| tanh(x) * y} : f32[2,96]
  return latents=%n
}

fn @decode(%latents: f32[2,96]) {
  %w = weight "decoder" : f32[96,32]
  %y = contract %latents, %w spec=[ab,bc->ac] dtype=f32 : f32[2,32]
  return image=%y
}

schedule {
  condition @condition
  steps @step carry(latents) table(t: f32[])
  decode @decode
}
"#;
    selvedge_ir::parse::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn staged_weights_give_the_same_and_take_what_was_planned() {
    let (module, device) = (staged_program(), gpu());
    let Device::Gpu(adapter) = &device else { panic!("an adapter was asked for") };
    let options = Options::new(device.target());
    let compile = || compile::compile(module.clone(), random(), Value::Null, &options).expect("it compiles");
    let compiled = compile();
    let usage = Usage::new(compiled.manifest(), &compiled.manifest().plans[0]);
    let (whole, staged) = (usage.peak(Residency::Whole), usage.peak(Residency::Staged));
    assert!(staged < whole, "{usage:?}");
    let mut run = Run { steps: vec![0, 0, 0], ..Run::default() };
    run.inputs.insert("prompt".into(), input("prompt", &[2, 64]));
    run.inputs.insert("latents".into(), input("latents", &[2, 96]));
    run.tables.insert("t".into(), Tensor::f32(&[3], vec![1.0, 0.5, 0.25]));
    let want = Session::host(module.clone(), random()).run(&run, &mut |_| {}).expect("the host runs it");
    for (residency, peak) in [(Residency::Whole, whole), (Residency::Staged, staged)] {
        let mut said = 0;
        let mut events = |event: Event| {
            if let Event::Peak(bytes) = event {
                said = bytes;
            }
        };
        let mut session = Arc::new(compile()).load(adapter, residency, &mut events).expect("it loads");
        for _ in 0..2 {
            let got = session.run(&run, &mut |_| {}).expect("it runs");
            for (name, want) in &want.outputs {
                let distance = compare::compare(&got.outputs[name], want, 1e-5);
                assert!(distance.ok(), "{residency:?} {name}: {distance:?}");
            }
        }
        assert_eq!((said, session.peak_bytes()), (peak, peak), "{residency:?}");
    }
}

#[test]
fn a_budget_chooses_and_what_cannot_fit_is_refused() {
    let (module, device) = (staged_program(), gpu());
    let session = |max_memory| {
        let settings = Settings { max_memory: Some(max_memory), ..Settings::default() };
        compile::session_with(module.clone(), random(), Value::Null, &device, &settings, &mut |_| {})
    };
    let compiled = compile::compile(module.clone(), random(), Value::Null, &Options::new(device.target()));
    let compiled = compiled.expect("it compiles");
    let usage = Usage::new(compiled.manifest(), &compiled.manifest().plans[0]);
    let staged = usage.peak(Residency::Staged);
    assert!(session(staged).is_ok());
    let error = session(staged - 1).err().map(|e| e.to_string()).expect("a byte too little");
    assert!(error.contains("does not fit") && error.contains("--dtype f16"), "{error}");
}

fn decoder() -> (Module, Tensor) {
    let mut config = VaeConfig::preset("sd").expect("a preset");
    (config.block_out_channels, config.norm_num_groups, config.layers_per_block) = (vec![8, 8, 16], 4, 1);
    config.level_attention = vec![false; 3];
    let module = decode_module(&config, 1, (11, 6), |_| None).expect("it builds");
    (module, input("latent", &[1, 4, 11, 6]))
}

/// The decoded picture of a module on the host or, compiled for a target, on an adapter.
fn decoded(module: &Module, latent: &Tensor, on: Option<(&Device, &Options)>) -> Tensor {
    let inputs = BTreeMap::from([("latent".to_string(), latent.clone())]);
    let outputs = match on {
        None => Session::host(module.clone(), random()).call("decode", &inputs),
        Some((Device::Gpu(gpu), options)) => {
            let compiled = compile::compile(module.clone(), random(), Value::Null, options).expect("it compiles");
            let mut session = Arc::new(compiled).load(gpu, Residency::Whole, &mut |_| {}).expect("it loads");
            session.call("decode", &inputs)
        }
        Some((Device::Host, _)) => panic!("the host takes no target"),
    };
    outputs.expect("it runs").remove("decoded").expect("the output")
}

#[test]
fn strips_equal_the_whole_picture() {
    let (module, latent) = decoder();
    let whole = decoded(&module, &latent, None);
    let device = gpu();
    let options = Options::new(device.target());
    for strips in [2, 3, 7] {
        let striped = Strips { function: "decode".into(), strips }.run(module.clone()).expect("a decoder");
        assert_ne!(striped, module);
        selvedge_ir::verify::verify(&striped).unwrap_or_else(|e| panic!("{e}"));
        let distance = compare::compare(&decoded(&striped, &latent, None), &whole, 2e-6);
        assert!(distance.ok(), "{strips} strips on the host: {distance:?}");
        if strips == 2 {
            let distance = compare::compare(&decoded(&striped, &latent, Some((&device, &options))), &whole, 1e-5);
            assert!(distance.ok(), "{strips} strips on the adapter: {distance:?}");
        }
    }
}

#[test]
fn strips_take_less_memory() {
    let config = VaeConfig::preset("sd").expect("a preset");
    let module = decode_module(&config, 1, (64, 64), |_| None).expect("it builds");
    let arena = |module: Module| {
        let options = Options::new(selvedge::target::Target::portable());
        let compiled = compile::compile(module, random(), Value::Null, &options).expect("it compiles");
        Usage::new(compiled.manifest(), &compiled.manifest().plans[0]).arena
    };
    let striped = Strips { function: "decode".into(), strips: 8 }.run(module.clone()).expect("a decoder");
    let (whole, striped) = (arena(module), arena(striped));
    // What is left is the resolution before the strips: three activations of 512 channels at 256 × 256.
    assert!(striped * 3 < whole * 2, "{striped} of {whole} bytes");
}

#[test]
fn activations_beyond_the_bindings_are_windowed() {
    let (module, latent) = decoder();
    let whole = decoded(&module, &latent, None);
    let device = gpu();
    // The largest activation has 8 · 44 · 24 elements: 33 KiB, five bindings.
    let mut target = device.target();
    (target.max_binding_bytes, target.max_buffer_bytes) = (8 << 10, 64 << 10);
    let distance = compare::compare(&decoded(&module, &latent, Some((&device, &Options::new(target)))), &whole, 1e-5);
    assert!(distance.ok(), "{distance:?}");
}
