//! Random modules are verified, run in both precisions, and cover the operators.

use selvedge_ir::generate::{self, Options};
use selvedge_ir::interp::Interpreter;
use selvedge_ir::parse::parse;
use selvedge_ir::verify::verify;
use selvedge_ir::{Data, Module, OpKind, Precision, Tensor};
use std::collections::{BTreeMap, BTreeSet};

fn run(module: &Module, seed: u64, precision: Precision) -> Vec<Tensor> {
    let weights = generate::weights(seed, module);
    let inputs = generate::inputs(seed, module.function("main").unwrap());
    let interpreter = Interpreter::new(module, &weights).precision(precision);
    let results = interpreter.call("main", &inputs, &mut BTreeMap::new());
    results.unwrap_or_else(|e| panic!("seed {seed}: {e}\n{module}")).into_iter().map(|(_, t)| t).collect()
}

fn everything(sensitive: bool) -> Options {
    Options { weights: true, states: true, calls: true, empty: true, sensitive, ..Options::default() }
}

#[test]
fn modules_are_verified_and_tame() {
    let mut kinds = BTreeSet::new();
    for seed in 0..400 {
        let options = if seed % 2 == 0 { Options::default() } else { everything(false) };
        let module = generate::module(seed, &options);
        verify(&module).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{module}"));
        for f in &module.functions {
            kinds.extend(f.ids().filter_map(|id| f.op(id)).map(|(op, _)| op.kind()));
        }
        let (narrow, wide) = (run(&module, seed, Precision::F32), run(&module, seed, Precision::F64));
        for (a, b) in narrow.iter().zip(&wide) {
            let finite = |t: &Tensor| t.to_f64().iter().all(|x| x.is_finite());
            assert!(finite(a) && finite(b), "seed {seed} leaves the finite range\n{module}");
            if !matches!(a.data, Data::F32(_)) {
                assert_eq!(a.data, b.data, "seed {seed}: a discontinuity reads a rounded value\n{module}");
            }
        }
    }
    let missing: Vec<_> = OpKind::ALL.iter().filter(|k| !kinds.contains(k)).collect();
    assert!(missing.is_empty(), "never drawn: {missing:?}");
}

#[test]
fn sensitive_modules_are_verified() {
    for seed in 0..200 {
        let module = generate::module(seed, &everything(true));
        verify(&module).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{module}"));
        run(&module, seed, Precision::F32);
    }
}

#[test]
fn the_text_form_reads_back() {
    for seed in 0..300 {
        let module = generate::module(seed, &everything(true));
        let text = module.to_string();
        let again = parse(&text).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{text}"));
        assert_eq!(again, module, "seed {seed}\n{text}");
        assert_eq!(again.to_string(), text, "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_module() {
    let options = everything(false);
    assert_eq!(generate::module(7, &options), generate::module(7, &options));
    assert_ne!(generate::module(7, &options), generate::module(8, &options));
}
