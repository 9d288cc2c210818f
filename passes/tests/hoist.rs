//! `hoist` keeps what a program computes, step by step, and moves what it says.

use selvedge_ir::generate::{self, Options};
use selvedge_ir::interp::{Interpreter, Run};
use selvedge_ir::parse::parse;
use selvedge_ir::verify::verify;
use selvedge_ir::{Module, Precision};
use selvedge_passes::binding::{Time, binding_times};
use selvedge_passes::hoist::{Hoist, Prices};
use selvedge_passes::{InlineCalls, Pass};

/// Everything that may move does.
fn eager() -> Hoist {
    Hoist { prices: Prices { keep: 0, keep_row: 0, least: 0 }, ..Hoist::default() }
}

/// Outputs and traces of a run, as text, so that a NaN equals itself.
fn outcome(module: &Module, weights_of: &Module, seed: u64, run: &Run, precision: Precision) -> String {
    let weights = generate::weights(seed, weights_of);
    let interpreter = Interpreter::new(module, &weights).precision(precision);
    let out = interpreter.run(run, &mut |_| {}).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{module}"));
    format!("{:?} {:?}", out.outputs, out.trace)
}

#[test]
fn programs_compute_the_same() {
    let mut tabulated = 0;
    for seed in 0..120 {
        let all = seed % 2 == 1;
        let options =
            Options { weights: all, states: all, calls: all, sensitive: true, operators: 20, ..Options::default() };
        let module = InlineCalls.run(generate::scheduled(seed, &options)).unwrap();
        verify(&module).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{module}"));
        for pass in [Hoist::default(), eager()] {
            let after = pass.run(module.clone()).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{module}"));
            verify(&after).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{after}"));
            tabulated += after.schedule.steps.as_ref().map_or(0, |s| usize::from(s.tabulate.is_some()));
            // One chunk, a chunk and a part of one.
            for steps in [1, 18] {
                let run = generate::run(seed, &module, steps);
                for precision in [Precision::F32, Precision::F64] {
                    let (want, got) = (
                        outcome(&module, &module, seed, &run, precision),
                        outcome(&after, &module, seed, &run, precision),
                    );
                    assert_eq!(want, got, "seed {seed}, {steps} steps\n{module}\n{after}");
                }
            }
            let again = pass.run(after.clone()).unwrap();
            assert_eq!(again, after, "seed {seed}: a second time changes something\n{after}\n{again}");
        }
    }
    assert!(tabulated > 12, "only {tabulated} programs had something to tabulate");
}

#[test]
fn every_value_has_its_binding_time() {
    let text = "weight \"w\" : f32[2]
state \"s\" : f32[2]
fn @prepare() {
  %w = weight \"w\" : f32[2]
  return packed=%w
}
fn @condition(%label: f32[2]) {
  return scale=%label
}
fn @step(%x: f32[2], %t: f32[], %packed: f32[2], %scale: f32[2], %given: f32[2]) {
  %c = const [1.0, 2.0] : f32[2]
  %load = map %c, %packed body={x, y| x + y} : f32[2]
  %run = map %load, %scale body={x, y| x + y} : f32[2]
  %wide = broadcast %t shape=[2] axes=[] : f32[2]
  %step = map %wide, %given body={x, y| x + y} : f32[2]
  %s = state \"s\" : f32[2]
  %late = map %s, %c body={x, y| x + y} : f32[2]
  %a, %b = call @pair(%load, %step) : f32[2], f32[2]
  %y = map %x, %late, %run, %a, %b body={x, y, z, a, b| x + y + z + a + b} : f32[2]
  return x=%y
}
fn @pair(%p: f32[2], %q: f32[2]) {
  return a=%p, b=%q
}
schedule {
  prepare @prepare
  condition @condition
  steps @step carry(x) table(t: f32[])
}
";
    let module = parse(text).unwrap_or_else(|e| panic!("{e}"));
    let step = module.function("step").unwrap();
    let times = binding_times(&module, step).unwrap();
    let names = selvedge_ir::print::value_names(step);
    let of = |name: &str| times[names.iter().position(|n| n == name).unwrap()];
    for (name, time) in [
        ("c", Time::Const),
        ("packed", Time::Load),
        ("load", Time::Load),
        ("given", Time::Run),
        ("run", Time::Run),
        ("t", Time::Step),
        ("step", Time::Step),
        ("x", Time::Latent),
        ("late", Time::Latent),
        ("a", Time::Load),
        ("b", Time::Step),
        ("y", Time::Latent),
    ] {
        assert_eq!(of(name), time, "{name}");
    }
    assert_eq!(binding_times(&module, module.function("pair").unwrap()), None);
}

#[test]
fn savings_are_counted() {
    let module = parse(include_str!("../../tests/filetests/passes/hoist.ir")).unwrap_or_else(|e| panic!("{e}"));
    let mut notes = selvedge_passes::Notes::default();
    Hoist::default().run_noting(module, &mut notes).unwrap();
    let saved = notes.hoisted.expect("the step has terms to move");
    // Two of the position table, four of the modulation, and the keys, of fifteen operators.
    assert_eq!((saved.operators, saved.operators_before, saved.rows), (7, 15, 16));
    assert_eq!(saved.table_bytes, 16 * 2 * 64 * 4);
}
