//! Integer weights: devices compute products of the numbers that the integers stand for.

use selvedge::compile::{self, Options, Settings};
use selvedge::ir::parse::parse;
use selvedge::ir::{Module, Tensor};
use selvedge::presets;
use selvedge::target::Target;
use selvedge::weights::{Random, Weights};
use selvedge::{Device, check};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

fn gpu() -> Device {
    Device::choose(&"gpu".parse().expect("a device"), &mut |_| {}).expect("an adapter")
}

/// Row-major elements of a weight.
fn elements(count: usize, seed: u32) -> Vec<f32> {
    (0..count as u32).map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// A product with W as torch's linear layers keep it, and one with W as it is multiplied: `[rows, columns]` each.
fn module(tokens: usize, [n, k]: [usize; 2], [k2, n2]: [usize; 2]) -> Module {
    let text = format!(
        "weight \"w\" : f32[{n},{k}]
weight \"u\" : f32[{k2},{n2}]
fn @f(%x: f32[{tokens},{k}], %z: f32[{tokens},{k2}]) {{
  %w = weight \"w\" : f32[{n},{k}]
  %u = weight \"u\" : f32[{k2},{n2}]
  %y = contract %x, %w spec=[ab,cb->ac] dtype=f32 : f32[{tokens},{n}]
  %v = contract %z, %u spec=[ab,bc->ac] dtype=f32 : f32[{tokens},{n2}]
  return y=%y, v=%v
}}
"
    );
    parse(&text).unwrap_or_else(|e| panic!("{e}"))
}

/// The nearest numbers that integers of these bits can stand for, by the definition.
fn stored(w: &[f32], columns: usize, bits: u32) -> Vec<f64> {
    let group = if columns.is_multiple_of(64) { 64 } else { 32 };
    if !columns.is_multiple_of(group) {
        return w.iter().map(|x| f64::from(*x)).collect();
    }
    let most = ((1 << (bits - 1)) - 1) as f32;
    let of_group = |g: &[f32]| -> Vec<f64> {
        let scale = g.iter().fold(0.0f32, |m, x| m.max(x.abs())) / most;
        g.iter().map(|x| f64::from((x / scale).round_ties_even() * scale)).collect()
    };
    w.chunks(group).flat_map(of_group).collect()
}

#[test]
fn products_read_what_the_integers_stand_for() {
    let cases = [(5, [40, 96], [64, 128]), (37, [24, 64], [20, 32]), (1, [7, 64], [33, 192]), (2, [8, 64], [12, 40])];
    for (seed, (tokens, w, u)) in (1u32..).zip(cases) {
        let module = module(tokens, w, u);
        let (ws, us) = (elements(w[0] * w[1], seed), elements(u[0] * u[1], seed + 100));
        let weights: Weights = Arc::new(BTreeMap::from([
            ("w".to_string(), Arc::new(Tensor::f32(&w, ws.clone()))),
            ("u".to_string(), Arc::new(Tensor::f32(&u, us.clone()))),
        ]));
        let (x, z) = (elements(tokens * w[1], seed + 7), elements(tokens * u[0], seed + 8));
        let inputs = BTreeMap::from([
            ("x".to_string(), Tensor::f32(&[tokens, w[1]], x.clone())),
            ("z".to_string(), Tensor::f32(&[tokens, u[0]], z.clone())),
        ]);
        for bits in [8u8, 4] {
            let (wq, uq) = (stored(&ws, w[1], bits.into()), stored(&us, u[1], bits.into()));
            let (k, n, k2, n2) = (w[1], w[0], u[0], u[1]);
            let y: Vec<f64> = (0..tokens * n)
                .map(|i| (0..k).map(|j| f64::from(x[i / n * k + j]) * wq[i % n * k + j]).sum())
                .collect();
            let v: Vec<f64> = (0..tokens * n2)
                .map(|i| (0..k2).map(|j| f64::from(z[i / n2 * k2 + j]) * uq[j * n2 + i % n2]).sum())
                .collect();
            for device in [Device::Host, gpu()] {
                let settings = Settings { integer_bits: Some(bits), ..Settings::default() };
                let session = compile::session_with(
                    module.clone(),
                    weights.clone(),
                    Default::default(),
                    &device,
                    &settings,
                    &mut |_| {},
                );
                let got =
                    session.unwrap_or_else(|e| panic!("{e}")).call("f", &inputs).unwrap_or_else(|e| panic!("{e}"));
                for (name, want) in [("y", &y), ("v", &v)] {
                    let largest = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
                    for (i, (got, want)) in got[name].to_f64().iter().zip(want).enumerate() {
                        let error = (got - want).abs();
                        assert!(error <= 3e-6 * largest, "int{bits} {w:?} {u:?} {name}[{i}]: {got}, want {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_network_holds_with_int8_and_is_near_with_int4() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    for (bits, tol) in [(8, 2e-2), (4, 3e-1)] {
        for device in [Device::Host, gpu()] {
            let settings = Settings { integer_bits: Some(bits), ..Settings::default() };
            let report = check::check(&fixtures.join("dit"), &device, &settings, Some(tol));
            let report = report.unwrap_or_else(|e| panic!("{e}"));
            assert!(report.ok(), "int{bits}: {}", report.to_json());
        }
    }
}

#[test]
fn plans_shrink_with_the_bits() {
    let options = presets::Options { batch: Some(1), ..presets::Options::default() };
    let preset = presets::preset("dit-s-2", &options).expect("a preset").unwrap_or_else(|e| panic!("{e}"));
    let weights: Weights = Arc::new(Random::default());
    let plan = |integer_bits| {
        let settings = Settings { integer_bits, ..Settings::default() };
        let options = Options { settings, ..Options::new(Target::portable()) };
        let compiled = compile::compile(preset.module.clone(), weights.clone(), Default::default(), &options);
        let compiled = compiled.unwrap_or_else(|e| panic!("{e}"));
        let usage = selvedge::memory::Usage::new(compiled.manifest(), &compiled.manifest().plans[0]);
        (usage.shared as f64, compiled.notes().lines.join("\n"))
    };
    let whole = plan(None).0;
    for (bits, share) in [(8, 0.30), (4, 0.18)] {
        let (bytes, notes) = plan(Some(bits));
        assert!(bytes < share * whole, "int{bits}: {bytes} of {whole}; {notes}");
        assert!(notes.contains(&format!("in int{bits}, rel_l2")), "{notes}");
    }
}
