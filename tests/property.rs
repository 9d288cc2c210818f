//! Random modules: the laws of the text form and the verifier. `SELVEDGE_FULL=1` draws more.

use selvedge_ir::func::{Def, Function, ValueId};
use selvedge_ir::generate::{self, Options};
use selvedge_ir::parse::parse;
use selvedge_ir::print::print;
use selvedge_ir::verify::verify;
use selvedge_ir::{DType, Dim, Module};
use selvedge_tests::check::round_trip;
use selvedge_tests::draw::Random;

fn seeds(few: u64) -> std::ops::Range<u64> {
    let full = std::env::var_os("SELVEDGE_FULL").is_some();
    0..if full { few * 20 } else { few }
}

/// Modules with everything the generator has.
fn random_module(seed: u64) -> Module {
    let every = |n: u64| seed.is_multiple_of(n);
    let options = Options {
        operators: 4 + (seed % 24) as usize,
        sensitive: every(2),
        weights: !every(3),
        states: every(5),
        calls: every(4),
        empty: every(7),
        ..Options::default()
    };
    generate::module(seed, &options)
}

#[test]
fn modules_verify_and_round_trip() {
    for seed in seeds(300) {
        let module = random_module(seed);
        verify(&module).unwrap_or_else(|e| panic!("seed {seed}:\n{e}\n{}", print(&module)));
        round_trip(&module).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

#[test]
fn names_do_not_matter() {
    for seed in seeds(50) {
        let mut module = random_module(seed);
        let mut random = Random::named(&format!("names {seed}"));
        for value in module.functions.iter_mut().flat_map(|f| &mut f.values) {
            let names = ["a", "a_1", "7", "", "two words", "quote\"d", "é", "x.y"];
            value.name = (random.below(3) > 0).then(|| names[random.below(names.len())].to_string());
        }
        round_trip(&module).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

/// One thing in a module is changed: the verifier accepts or refuses, the printer prints, and nothing panics.
/// Changes that break an invariant for certain must be refused.
#[test]
fn changed_modules_are_judged_without_panic() {
    let mut refused = 0;
    for seed in seeds(300) {
        let mut module = random_module(seed);
        let mut random = Random::named(&format!("change {seed}"));
        let which = random.below(module.functions.len());
        let certain = change(&mut module.functions[which], &mut random);
        let verdict = verify(&module);
        let text = print(&module);
        assert!(!(certain && verdict.is_ok()), "seed {seed}: a broken module is accepted:\n{text}");
        refused += usize::from(verdict.is_err());
        // What is accepted still obeys the law; what is refused may not even parse.
        match verdict {
            Ok(()) => round_trip(&module).unwrap_or_else(|e| panic!("seed {seed}: {e}")),
            Err(_) => drop(parse(&text)),
        }
    }
    assert!(refused > 100, "only {refused} modules were refused");
}

/// Changes one value; true if no valid module can come of it.
fn change(function: &mut Function, random: &mut Random) -> bool {
    let count = function.values.len();
    let at = random.below(count);
    let beyond = ValueId((count + random.below(3)) as u32);
    match random.below(6) {
        0 => match &mut function.values[at].def {
            Def::Op { args, .. } if !args.is_empty() => {
                let i = random.below(args.len());
                args[i] = beyond;
                true
            }
            _ => false,
        },
        1 => match &mut function.values[at].def {
            Def::Op { args, .. } if !args.is_empty() => {
                let i = random.below(args.len());
                args[i] = ValueId(random.below(count) as u32);
                false
            }
            _ => false,
        },
        2 => {
            let ty = &mut function.values[at].ty;
            ty.shape.0.push(Dim::new(3));
            true
        }
        3 => {
            let ty = &mut function.values[at].ty;
            ty.dtype = if ty.dtype == DType::Bool { DType::F16 } else { DType::Bool };
            true
        }
        4 => {
            function.values.remove(at);
            false
        }
        _ => {
            match function.returns.first_mut() {
                Some(r) => r.value = beyond,
                None => return false,
            }
            true
        }
    }
}

/// Bytes of printed random modules are changed: the parser returns, and what it accepts prints and reads back.
#[test]
fn changed_text_is_parsed_without_panic() {
    for seed in seeds(200) {
        let mut random = Random::named(&format!("bytes {seed}"));
        let mut bytes = print(&random_module(seed)).into_bytes();
        for _ in 0..1 + random.below(6) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes.insert(at, b"0123456789,:[]%@=-{}|\n"[random.below(22)]),
                2 => drop(bytes.remove(at)),
                _ => {
                    let from = random.below(bytes.len());
                    let piece = bytes[from..(from + random.below(30)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Ok(module) = parse(&text) {
            drop(verify(&module));
            assert_eq!(parse(&print(&module)).as_ref(), Ok(&module), "seed {seed}:\n{text}");
        }
    }
}
