//! Random modules: every one compiles to valid kernels and a valid plan, and the device agrees with the interpreter.

mod common;

use selvedge_codegen::{Options, compile};
use selvedge_ir::generate::{self, Options as Draw};

#[test]
fn random_modules_compile_for_every_target() {
    for seed in 0..120 {
        let draw = Draw {
            weights: seed % 2 == 0,
            states: seed % 3 == 0,
            calls: seed % 5 == 0,
            empty: seed % 7 == 0,
            sensitive: seed % 4 == 0,
            ..Draw::default()
        };
        let module = generate::module(seed, &draw);
        for target in common::targets() {
            let first = compile(&module, &target, &Options::default())
                .unwrap_or_else(|e| panic!("seed {seed} for {}: {e}\n{module}", target.name));
            if seed % 10 == 0 {
                let again = compile(&module, &target, &Options::default()).expect("it compiled before");
                assert_eq!((first.text(), first.kernels), (again.text(), again.kernels), "seed {seed}");
            }
        }
    }
}

#[test]
fn the_device_agrees_on_random_modules() {
    let targets = common::device_targets();
    for seed in 0..30 {
        let draw = Draw { weights: seed % 2 == 0, calls: seed % 5 == 0, empty: seed % 7 == 0, ..Draw::default() };
        let module = generate::module(1000 + seed, &draw);
        common::check(&module, &targets[seed as usize % targets.len()], seed);
    }
}
