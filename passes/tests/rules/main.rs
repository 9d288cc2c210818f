//! Every rule's law: instances of its left side, drawn from its own patterns, are compared with its right side in f64.
//! And the proof of the proof: rules with a mistake in them are caught by the same comparison.

mod hints;
mod instance;
mod mutate;

use mutate::{Mistake, mutate};
use selvedge_ir::generate::Rng;
use selvedge_ir::verify::verify;
use selvedge_ir::{DType, Function, Interpreter, Module, Op, Precision, Tensor};
use selvedge_passes::saturate::{Rule, Step, pattern, steps};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Instances that a rule must rewrite, and draws in which it must do so.
const INSTANCES: usize = 30;
const DRAWS: u64 = 40_000;

/// What came of the instances of a rule.
#[derive(Default)]
struct Outcome {
    compared: usize,
    /// The first difference, or fault.
    wrong: Option<String>,
}

fn check(rule: &Rule, original: &Rule, instances: usize) -> Outcome {
    let hint = hints::hint(original.name);
    let written: Vec<_> = hint.patterns.iter().map(|t| pattern(t).unwrap_or_else(|e| panic!("{t}: {e}"))).collect();
    let patterns: Vec<_> = if written.is_empty() { original.patterns() } else { written.iter().collect() };
    let mut outcome = Outcome::default();
    for draw in 0..DRAWS {
        if outcome.compared >= instances || outcome.wrong.is_some() {
            break;
        }
        let ast = patterns[draw as usize % patterns.len()];
        let Some(function) = instance::instance(ast, &hint, draw) else { continue };
        let steps = match steps(&function, rule) {
            Ok(steps) => steps,
            Err(fault) => {
                outcome.wrong = Some(format!("draw {draw}: {fault}\n{}", text(&function)));
                break;
            }
        };
        for step in steps {
            let Step::Rewritten(after) = step else { continue };
            if after == function {
                continue;
            }
            match differs(&function, &after, draw) {
                Some(Some(what)) => {
                    outcome.wrong = Some(format!("draw {draw}: {what}\n{}\n{}", text(&function), text(&after)));
                }
                Some(None) => outcome.compared += 1,
                None => {}
            }
        }
    }
    outcome
}

fn text(function: &Function) -> String {
    Module { functions: vec![function.clone()], ..Module::default() }.to_string()
}

/// `None`: the left side has no finite value. Otherwise the difference, if there is one.
fn differs(before: &Function, after: &Function, seed: u64) -> Option<Option<String>> {
    let module = |f: &Function| Module { functions: vec![f.clone()], ..Module::default() };
    if let Err(e) = verify(&module(after)) {
        return Some(Some(e.to_string()));
    }
    let mut rng = Rng::new(seed ^ 0x5eed);
    let inputs: Vec<Tensor> = before.params().iter().map(|(name, id)| tensor(&mut rng, name, before.ty(*id))).collect();
    let run = |f: &Function| {
        let weights: BTreeMap<String, Arc<Tensor>> = BTreeMap::new();
        let module = module(f);
        let interpreter = Interpreter::new(&module, &weights).precision(Precision::F64);
        let results =
            interpreter.call("main", &inputs, &mut BTreeMap::new()).unwrap_or_else(|e| panic!("{e}\n{module}"));
        results[0].1.clone()
    };
    let (a, b) = (run(before), run(after));
    if a.ty != b.ty {
        return Some(Some(format!("types differ: {} and {}", a.ty, b.ty)));
    }
    let (a, b) = (a.to_f64(), b.to_f64());
    if a.iter().any(|x| !x.is_finite()) {
        return None;
    }
    // Far above what f64 rounds, far below any mistake.
    let close = |x: f64, y: f64| (x - y).abs() <= 1e-9 * (1.0 + x.abs());
    let at = a.iter().zip(&b).position(|(x, y)| !close(*x, *y));
    Some(at.map(|i| format!("element {i}: {} and {}", a[i], b[i])))
}

fn tensor(rng: &mut Rng, name: &str, ty: &selvedge_ir::TensorType) -> Tensor {
    let positive = name.starts_with("positive.");
    let mut element = || {
        let unit = rng.below(1 << 20) as f64 / (1 << 20) as f64;
        match ty.dtype {
            DType::Bool => f64::from(u8::from(unit < 0.6)),
            DType::I32 | DType::U32 => (unit * 8.0).floor(),
            _ if positive => 0.5 + 2.0 * unit,
            _ => 4.0 * unit - 2.0,
        }
    };
    let values: Vec<f64> = (0..ty.elements().unwrap_or(0)).map(|_| element()).collect();
    Tensor::from_f64(ty.clone(), &values, Precision::F64)
}

#[test]
fn every_rule_s_two_sides_are_equal() {
    let mut problems = Vec::new();
    for rule in selvedge_passes::rules::all() {
        let outcome = check(&rule, &rule, INSTANCES);
        if let Some(wrong) = outcome.wrong {
            problems.push(format!("{}: {wrong}", rule.name));
        } else if outcome.compared < INSTANCES {
            problems.push(format!("{}: only {} instances in {DRAWS} draws", rule.name, outcome.compared));
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// `BLESS=1` writes the file of a rule that has none: a small instance of its left side.
#[test]
fn every_rule_has_an_example() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/filetests/rules");
    let mut problems = Vec::new();
    for rule in selvedge_passes::rules::all() {
        let path = folder.join(format!("{}.ir", rule.name));
        if path.exists() {
            continue;
        }
        match example(&rule) {
            Some(text) if std::env::var_os("BLESS").is_some_and(|v| v == "1") => {
                std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            }
            _ => problems.push(format!("rule {} has no example file; BLESS=1 writes one to be looked over", rule.name)),
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// An instance that reads well: few axes, extents that differ, none of them 1.
fn example(rule: &Rule) -> Option<String> {
    let hint = hints::hint(rule.name);
    let written: Vec<_> = hint.patterns.iter().map(|t| pattern(t).expect("a pattern")).collect();
    let patterns: Vec<_> = if written.is_empty() { rule.patterns() } else { written.iter().collect() };
    let mut best: Option<(usize, Function)> = None;
    for draw in 0..DRAWS / 4 {
        let ast = patterns[draw as usize % patterns.len().min(2)];
        let Some(function) = instance::instance(ast, &hint, draw) else { continue };
        let rewritten =
            steps(&function, rule).ok()?.into_iter().any(|s| matches!(s, Step::Rewritten(f) if f != function));
        if !rewritten {
            continue;
        }
        let mut weight = 10 * function.values.len();
        // A view that changes nothing shows nothing.
        for id in function.ids() {
            if let Some((Op::Reshape(_) | Op::Broadcast(_), args)) = function.op(id)
                && function.ty(id) == function.ty(args[0])
                && !rule.name.ends_with("-to-itself")
            {
                weight += 40;
            }
            if let Some((Op::Transpose(t), _)) = function.op(id)
                && t.perm.is_sorted()
                && !rule.name.ends_with("-to-itself")
            {
                weight += 40;
            }
        }
        for value in &function.values {
            let sizes = value.ty.shape.sizes();
            weight += if sizes.len() == 1 { 8 } else { 0 };
            let same = sizes.iter().enumerate().filter(|(i, n)| sizes[..*i].contains(n)).count();
            weight += sizes.len()
                + 3 * same
                + 6 * sizes.iter().filter(|n| **n == 1).count()
                + usize::from(sizes.is_empty()) * 9;
        }
        if best.as_ref().is_none_or(|(w, _)| weight < *w) {
            best = Some((weight, function));
        }
    }
    let mut function = best?.1;
    function.name = "f".to_string();
    Some(format!("//! rule {}\n//! print\n//! run interp\n\n{}", rule.name, text(&function)))
}

/// A rule with a mistake in it, and whether the mistake changes anything in its instances.
fn changes(rule: &Rule, mistake: Mistake) -> (Rule, Arc<std::sync::atomic::AtomicUsize>) {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = count.clone();
    let broken = rule.mutated(move |m, term| {
        let new = mutate(m, term.clone(), mistake);
        if new != term {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        new
    });
    (broken, count)
}

/// Instances in which a mistake must show; fewer may be those where unit extents hide it.
const ENOUGH: usize = 12;
/// Changes that are no mistakes: a softmax does not see a number added to everything it keeps, (m − x)² = (x − m)².
const SAME: [(&str, Mistake); 2] =
    [("softmax-of-selected", Mistake::WrongNumber), ("variance-from-moments", Mistake::SwapOperands)];

#[test]
fn every_mistake_is_caught_by_the_rule_s_own_instances() {
    let (mut problems, mut caught) = (Vec::new(), BTreeMap::new());
    for rule in selvedge_passes::rules::all() {
        let mut of_rule = 0;
        for mistake in Mistake::ALL {
            let (broken, count) = changes(&rule, mistake);
            let outcome = check(&broken, &rule, INSTANCES);
            match (outcome.wrong, count.load(std::sync::atomic::Ordering::Relaxed)) {
                (Some(_), 1..) => {
                    of_rule += 1;
                    *caught.entry(format!("{mistake:?}")).or_insert(0) += 1;
                }
                (Some(wrong), 0) => problems.push(format!("{}: wrong without a mistake: {wrong}", rule.name)),
                (None, n) if n < ENOUGH || SAME.contains(&(rule.name, mistake)) => {}
                (None, n) => problems.push(format!("{}: {mistake:?} is not noticed in {n} instances", rule.name)),
            }
        }
        if of_rule == 0 {
            problems.push(format!("{}: no mistake applies to it", rule.name));
        }
    }
    assert!(problems.is_empty(), "caught {caught:?}\n{}", problems.join("\n"));
    // Every kind of mistake was made somewhere.
    assert_eq!(caught.len(), Mistake::ALL.len(), "{caught:?}");
}
