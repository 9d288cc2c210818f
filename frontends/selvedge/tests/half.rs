//! Activations in f16: right where their range allows it, f32 where it does not, and never a silent overflow.

use selvedge::compile::{self, Options, Settings};
use selvedge::ir::dtype::DType;
use selvedge::ir::parse::parse;
use selvedge::ir::{Module, Tensor};
use selvedge::presets;
use selvedge::target::Target;
use selvedge::weights::{Random, Weights};
use selvedge::{Device, check};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

fn halves() -> Settings {
    Settings { half_activations: true, ..Settings::default() }
}

fn gpu() -> Device {
    Device::choose(&"gpu".parse().expect("a device"), &mut |_| {}).expect("an adapter")
}

fn call(module: &Module, weights: &Weights, device: &Device, x: Vec<f32>) -> Vec<f32> {
    let mut session =
        compile::session_with(module.clone(), weights.clone(), Default::default(), device, &halves(), &mut |_| {})
            .unwrap_or_else(|e| panic!("{e}"));
    let inputs = BTreeMap::from([("x".to_string(), Tensor::f32(&[4, 16], x))]);
    session.call("f", &inputs).unwrap_or_else(|e| panic!("{e}"))["y"].to_f32()
}

/// Two products with an activation between them, whose size is that of the first weight.
const CHAIN: &str = "weight \"a\" : f32[16,16]
weight \"b\" : f32[16,16]
fn @f(%x: f32[4,16]) {
  %a = weight \"a\" : f32[16,16]
  %b = weight \"b\" : f32[16,16]
  %h = contract %x, %a spec=[ab,bc->ac] dtype=f32 : f32[4,16]
  %g = map %h body={x| x * sigmoid(x)} : f32[4,16]
  %y = contract %g, %b spec=[ab,bc->ac] dtype=f32 : f32[4,16]
  return y=%y
}
";

fn chain(a: f32, b: f32) -> (Module, Weights) {
    let tensor = |scale: f32| {
        let v = (0..256u32).map(|i| scale * ((i * 37 % 101) as f32 / 50.0 - 1.0)).collect();
        Arc::new(Tensor::f32(&[16, 16], v))
    };
    let weights = BTreeMap::from([("a".to_string(), tensor(a)), ("b".to_string(), tensor(b))]);
    (parse(CHAIN).expect("a module"), Arc::new(weights))
}

fn x(scale: f32) -> Vec<f32> {
    (0..64u32).map(|i| scale * ((i * 29 % 83) as f32 / 41.0 - 1.0)).collect()
}

/// The result in f64 by plain loops, the activation rounded to f16 if it is told so.
fn want(module_scale: (f32, f32), x: &[f32], half: bool) -> Vec<f64> {
    let w = |scale: f32, i: usize| f64::from(scale * ((i as u32 * 37 % 101) as f32 / 50.0 - 1.0));
    let mut g = vec![0.0f64; 64];
    for (i, g) in g.iter_mut().enumerate() {
        let h: f64 = (0..16).map(|k| f64::from(x[i / 16 * 16 + k]) * w(module_scale.0, k * 16 + i % 16)).sum();
        *g = h / (1.0 + (-h).exp());
        if half {
            *g = f64::from(DType::F16.round(*g as f32));
        }
    }
    (0..64).map(|i| (0..16).map(|k| g[i / 16 * 16 + k] * w(module_scale.1, k * 16 + i % 16)).sum()).collect()
}

fn rel_l2(got: &[f32], want: &[f64]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(want).map(|(g, w)| f64::from(*g) - w)) / norm(&mut want.iter().copied())
}

#[test]
fn small_activations_are_halves() {
    let (module, weights) = chain(1.0, 1.0);
    for device in [Device::Host, gpu()] {
        let got = call(&module, &weights, &device, x(1.0));
        let (rounded, exact) = (want((1.0, 1.0), &x(1.0), true), want((1.0, 1.0), &x(1.0), false));
        assert!(rel_l2(&got, &rounded) < 2e-5, "as if rounded: {}", rel_l2(&got, &rounded));
        let distance = rel_l2(&got, &exact);
        assert!((2e-5..1e-3).contains(&distance), "rounded, and not more: {distance}");
    }
}

#[test]
fn large_activations_stay_f32() {
    // The activation reaches 1e6, the result is small again.
    let (module, weights) = chain(2e5, 1e-5);
    for device in [Device::Host, gpu()] {
        let got = call(&module, &weights, &device, x(1.0));
        let exact = want((2e5, 1e-5), &x(1.0), false);
        assert!(rel_l2(&got, &exact) < 1e-6, "{}", rel_l2(&got, &exact));
    }
}

#[test]
fn an_overflow_that_was_not_foreseen_is_no_number() {
    // Ranges are measured on inputs up to 1; these are 100,000 times as large.
    let (module, weights) = chain(1.0, 1.0);
    for device in [Device::Host, gpu()] {
        let got = call(&module, &weights, &device, x(1e5));
        assert!(got.iter().any(|x| x.is_nan()), "a row that overflowed");
        let exact = want((1.0, 1.0), &x(1e5), false);
        // What is a number is right.
        for (row, want) in got.chunks(16).zip(exact.chunks(16)) {
            assert!(row.iter().all(|x| x.is_nan()) || rel_l2(row, want) < 1e-3, "{row:?}");
        }
    }
}

#[test]
fn fixtures_hold_with_weights_and_activations_in_f16() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let settings = Settings { dtype: Some(DType::F16), ..halves() };
    for case in ["dit", "dit-original", "pixart-sigma", "sd3", "flux"] {
        for device in [Device::Host, gpu()] {
            let report = check::check(&fixtures.join(case), &device, &settings, Some(5e-3));
            let report = report.unwrap_or_else(|e| panic!("{case}: {e}"));
            assert!(report.ok(), "{case}: {}", report.to_json());
        }
    }
}

#[test]
fn dit_s_plans_half_the_memory() {
    let options = presets::Options { batch: Some(2), ..presets::Options::default() };
    let preset = presets::preset("dit-s-2", &options).expect("a preset").unwrap_or_else(|e| panic!("{e}"));
    let weights: Weights = Arc::new(Random::default());
    let plan = |settings: Settings| {
        let options = Options { settings, ..Options::new(Target::portable()) };
        let compiled = compile::compile(preset.module.clone(), weights.clone(), Default::default(), &options);
        let compiled = compiled.unwrap_or_else(|e| panic!("{e}"));
        let plan = &compiled.manifest().plans[0];
        let usage = selvedge::memory::Usage::new(compiled.manifest(), plan);
        (compiled.report().peak_bytes, usage.arena, compiled.notes().lines.clone())
    };
    let (whole, arena, _) = plan(Settings::default());
    let (half, half_arena, notes) = plan(Settings { dtype: Some(DType::F16), ..halves() });
    assert!(half as f64 <= 0.52 * whole as f64, "{half} of {whole}");
    assert!((half_arena as f64) < 0.8 * arena as f64, "activations: {half_arena} of {arena}; {notes:?}");
}
