//! Every pass keeps the meaning of random modules, and what it gives is accepted by the verifier.

use selvedge_ir::generate::{self, Options};
use selvedge_ir::interp::Interpreter;
use selvedge_ir::scalar::{Scalar, children};
use selvedge_ir::verify::verify;
use selvedge_ir::{Module, Op, OpKind, Precision, Tensor, op::OpClass};
use selvedge_passes::{
    CanonicalContract, Canonicalize, DeadCode, ExpandComposites, FoldConstants, InlineCalls, MergeMaps, Pass, SplitMaps,
};
use std::collections::BTreeMap;

fn options(seed: u64) -> Options {
    let all = seed % 2 == 1;
    // Bits must agree, so discontinuities are welcome.
    Options { weights: all, states: all, calls: all, empty: all, sensitive: true, ..Options::default() }
}

fn run(module: &Module, inputs: &[Tensor], seed: u64, precision: Precision) -> Vec<String> {
    // Weights by name: a pass may have dropped some, which must not move the others.
    let original = generate::module(seed, &options(seed));
    let weights = generate::weights(seed, &original);
    let interpreter = Interpreter::new(module, &weights).precision(precision);
    let results = interpreter.call("main", inputs, &mut BTreeMap::new());
    let results = results.unwrap_or_else(|e| panic!("seed {seed}: {e}\n{module}"));
    // As text, so that a NaN equals itself.
    results.iter().map(|(target, t)| format!("{target:?} {:?} {:?}", t.ty, t.data)).collect()
}

fn keeps_meaning(pass: &dyn Pass, precisions: &[Precision]) {
    for seed in 0..150 {
        let module = generate::module(seed, &options(seed));
        let inputs = generate::inputs(seed, module.function("main").unwrap());
        let after = pass.run(module.clone()).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{module}"));
        verify(&after).unwrap_or_else(|e| panic!("seed {seed} after {}: {e}\n{after}", pass.name()));
        for &precision in precisions {
            let (before, now) = (run(&module, &inputs, seed, precision), run(&after, &inputs, seed, precision));
            assert_eq!(before, now, "seed {seed}, {}\n{module}\n{after}", pass.name());
        }
        let again = pass.run(after.clone()).unwrap();
        assert_eq!(again, after, "seed {seed}: {} a second time changes something\n{after}", pass.name());
    }
}

const BOTH: [Precision; 2] = [Precision::F32, Precision::F64];

#[test]
fn dead_code_keeps_meaning() {
    keeps_meaning(&DeadCode, &BOTH);
}

#[test]
fn expand_composites_keeps_meaning() {
    keeps_meaning(&ExpandComposites::default(), &BOTH);
    for seed in 0..150 {
        let module = ExpandComposites::default().run(generate::module(seed, &options(seed))).unwrap();
        let kinds = module.functions.iter().flat_map(|f| f.ids().filter_map(|id| f.op(id)).map(|(op, _)| op.kind()));
        assert!(kinds.into_iter().all(|k: OpKind| k.class() != OpClass::Composite), "seed {seed}");
    }
}

#[test]
fn inline_calls_keeps_meaning() {
    keeps_meaning(&InlineCalls, &BOTH);
}

#[test]
fn canonicalize_keeps_meaning() {
    keeps_meaning(&Canonicalize, &BOTH);
}

#[test]
fn fold_constants_keeps_meaning() {
    // Folding rounds to f32, so in f64 the bits differ.
    keeps_meaning(&FoldConstants { limit: 64 }, &[Precision::F32]);
    keeps_meaning(&FoldConstants { limit: 100_000 }, &[Precision::F32]);
}

fn reads_argument(body: &selvedge_ir::scalar::Body, node: u32) -> bool {
    let node = body.nodes()[node as usize];
    matches!(node, Scalar::Arg(_)) || children(node).iter().any(|c| reads_argument(body, *c))
}

/// The normal forms change bodies and specs, not bits.
fn keeps_bits(pass: &dyn Pass) {
    for seed in 0..300 {
        let module = generate::module(seed, &options(seed));
        let inputs = generate::inputs(seed, module.function("main").unwrap());
        let after = pass.run(module.clone()).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{module}"));
        verify(&after).unwrap_or_else(|e| panic!("seed {seed} after {}: {e}\n{after}", pass.name()));
        for precision in BOTH {
            let (before, now) = (run(&module, &inputs, seed, precision), run(&after, &inputs, seed, precision));
            assert_eq!(before, now, "seed {seed}, {}\n{module}\n{after}", pass.name());
        }
    }
}

#[test]
fn split_maps_keeps_bits_and_leaves_single_primitives() {
    keeps_bits(&SplitMaps);
    for seed in 0..300 {
        let module = SplitMaps.run(generate::module(seed, &options(seed))).unwrap();
        for (op, args) in module.functions.iter().flat_map(|f| f.ids().filter_map(|id| f.op(id))) {
            let Op::Map(map) = op else { continue };
            // An expression of literals is one operand, however long.
            let reads = |n: &Scalar| children(*n).iter().any(|c| reads_argument(&map.body, *c));
            let primitives = map.body.nodes().iter().filter(|n| reads(n)).count();
            let nothing = !(0..args.len()).any(|i| map.body.uses(i));
            assert!(primitives <= 1 || nothing, "seed {seed}: {}", map.body);
        }
    }
}

#[test]
fn merge_maps_keeps_bits() {
    keeps_bits(&MergeMaps);
}

#[test]
fn split_then_merged_keeps_bits() {
    struct Both;
    impl Pass for Both {
        fn name(&self) -> &'static str {
            "split-maps, merge-maps"
        }
        fn summary(&self) -> &'static str {
            "both"
        }
        fn run(&self, module: Module) -> Result<Module, selvedge_ir::Diagnostic> {
            MergeMaps.run(Canonicalize.run(SplitMaps.run(module)?)?)
        }
    }
    keeps_bits(&Both);
}

#[test]
fn canonical_contract_keeps_meaning() {
    for seed in 0..300 {
        let options = Options { sensitive: false, ..options(seed) };
        let module = generate::module(seed, &options);
        let inputs = generate::inputs(seed, module.function("main").unwrap());
        let after = CanonicalContract.run(module.clone()).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{module}"));
        verify(&after).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{after}"));
        let values = |m: &Module| -> Vec<Tensor> {
            let weights = generate::weights(seed, &module);
            let interpreter = Interpreter::new(m, &weights).precision(Precision::F64);
            let results = interpreter.call("main", &inputs, &mut BTreeMap::new()).unwrap();
            results.into_iter().map(|(_, t)| t).collect()
        };
        for (a, b) in values(&module).iter().zip(&values(&after)) {
            assert_eq!(a.ty, b.ty, "seed {seed}");
            for (x, y) in a.to_f64().iter().zip(&b.to_f64()) {
                // Another order of summation, in f64: far below any mistake.
                assert!(
                    (x - y).abs() <= 1e-9 * (1.0 + x.abs()) || x == y || x.is_nan() && y.is_nan(),
                    "seed {seed}\n{module}\n{after}"
                );
            }
        }
    }
}

#[test]
fn the_pipeline_keeps_meaning_at_every_stage() {
    for seed in 200..300 {
        let module = generate::module(seed, &options(seed));
        let inputs = generate::inputs(seed, module.function("main").unwrap());
        let before = run(&module, &inputs, seed, Precision::F32);
        let mut stages = Vec::new();
        selvedge_passes::pipeline(module, &Default::default(), &mut |name, stage| {
            verify(stage).unwrap_or_else(|e| panic!("seed {seed} after {name}: {e}\n{stage}"));
            assert_eq!(run(stage, &inputs, seed, Precision::F32), before, "seed {seed} after {name}\n{stage}");
            stages.push(name);
        })
        .unwrap();
        let listed: Vec<_> = selvedge_passes::passes(&Default::default()).iter().map(|p| p.name()).collect();
        assert_eq!(stages, listed);
    }
}
