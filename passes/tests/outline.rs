//! `outline` finds the blocks of a chain, and keeps what it computes.

use selvedge_ir::func::Target;
use selvedge_ir::generate::{self, Options};
use selvedge_ir::verify::verify;
use selvedge_ir::{Builder, Interpreter, Module, Op, Precision, ValueId};
use selvedge_passes::{Canonicalize, InlineCalls, Outline, Pass};
use std::collections::BTreeMap;

/// A random program's step, `count` times in a row: what it carries goes from one to the next, everything else is shared.
fn chain(seed: u64, count: usize) -> Module {
    let options = Options { weights: seed % 2 == 1, sensitive: true, operators: 16, ..Options::default() };
    let program = InlineCalls.run(generate::scheduled(seed, &options)).unwrap();
    let step = program.function("main").unwrap();
    let carried = &program.schedule.steps.as_ref().unwrap().carry[0];
    let mut b = Builder::new("main");
    let mut args: Vec<ValueId> = step.params().iter().map(|(n, id)| b.input(*n, step.ty(*id).clone())).collect();
    let at = step.params().iter().position(|(n, _)| n == carried).unwrap();
    let out = step.returns.iter().position(|r| r.target == Target::Output(carried.clone())).unwrap();
    let mut results = Vec::new();
    for _ in 0..count {
        results = b.inline(step, &args);
        args[at] = results[out];
    }
    for (r, value) in step.returns.iter().zip(results) {
        if let Target::Output(name) = &r.target {
            b.output(name.clone(), value);
        }
    }
    let mut module = Module::new("chain");
    module.add_function(b.finish()).unwrap();
    module
}

fn outcome(module: &Module, weights_of: &Module, seed: u64, precision: Precision) -> String {
    let weights = generate::weights(seed, weights_of);
    let inputs = generate::inputs(seed, weights_of.function("main").unwrap());
    let interpreter = Interpreter::new(module, &weights).precision(precision);
    let results = interpreter.call("main", &inputs, &mut BTreeMap::new());
    format!("{:?}", results.unwrap_or_else(|e| panic!("seed {seed}: {e}\n{module}")))
}

#[test]
fn chains_compute_the_same() {
    let mut found = 0;
    for seed in 0..150 {
        for module in [chain(seed, 4), Canonicalize.run(chain(seed, 4)).unwrap()] {
            let after = Outline.run(module.clone()).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{module}"));
            verify(&after).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{after}"));
            found += usize::from(after.functions.len() > 1);
            for precision in [Precision::F32, Precision::F64] {
                let (want, got) =
                    (outcome(&module, &module, seed, precision), outcome(&after, &module, seed, precision));
                assert_eq!(want, got, "seed {seed}\n{module}\n{after}");
            }
        }
    }
    assert!(found > 30, "blocks were found in {found} chains");
}

#[test]
fn blocks_of_different_weights_are_one_function() {
    let block = |i: usize, x: &str| {
        format!(
            "  %w{i} = weight \"w{i}\" : f32[4,4]
  %n{i} = layer_norm {x} eps=1e-6 : f32[2,4]
  %q{i} = contract %n{i}, %w{i} spec=[ab,cb->ac] dtype=f32 : f32[2,4]
  %k{i} = map %q{i} body={{x| tanh(x)}} : f32[2,4]
  %s{i} = contract %q{i}, %k{i} spec=[ab,cb->ac] dtype=f32 : f32[2,2]
  %p{i} = softmax %s{i} axis=1 : f32[2,2]
  %o{i} = contract %p{i}, %n{i} spec=[ab,bc->ac] dtype=f32 : f32[2,4]
  %m{i} = map %o{i}, %mask body={{x, y| x * y}} : f32[2,4]
  %x{i} = map {x}, %m{i} body={{x, y| x + y}} : f32[2,4]
"
        )
    };
    let weights: String = (0..4).map(|i| format!("weight \"w{i}\" : f32[4,4]\n")).collect();
    let blocks: String =
        (0..4).map(|i| block(i, &if i == 0 { "%h".to_string() } else { format!("%x{}", i - 1) })).collect();
    let text = format!(
        "{weights}fn @f(%x: f32[2,4], %mask: f32[2,4]) {{
  %h = map %x body={{x| exp(x)}} : f32[2,4]
{blocks}  %y = map %x3 body={{x| sqrt(x)}} : f32[2,4]
  return y=%y
}}"
    );
    let module = selvedge_ir::parse::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let after = Outline.run(module).unwrap();
    verify(&after).unwrap_or_else(|e| panic!("{e}\n{after}"));
    let main = after.function("f").unwrap();
    assert_eq!(main.calls.len(), 4, "{after}");
    let block = after.function("f_block_0").unwrap();
    // The stream, the mask and the block's own weight; the stream alone goes on.
    assert_eq!((block.params().len(), block.returns.len()), (3, 1), "{after}");
    assert!(block.ids().all(|id| !matches!(block.op(id), Some((Op::Weight(_), _)))));
}
