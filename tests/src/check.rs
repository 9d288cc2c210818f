//! Runs the commands of a test file.

use crate::case::{Case, Command, Given, line_of, literal, matches};
use crate::compare::{Allowed, compare};
use crate::draw;
use crate::runner::{Arguments, Interp, Runner, find};
use selvedge_ir::func::Target;
use selvedge_ir::interp::Precision;
use selvedge_ir::parse::parse;
use selvedge_ir::print::print;
use selvedge_ir::verify::verify;
use selvedge_ir::{Diagnostic, Function, Module, diag, shape::TensorType};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Runs a case; with `device`, the functions are also run on the runner of that name and compared.
///
/// # Errors
/// What was expected and what was found.
pub fn check(case: &Case, device: Option<&str>) -> Result<(), String> {
    let mut module = read(case)?;
    let before = module.clone();
    let mut output = String::new();
    for command in &case.commands {
        match command {
            Command::Parse | Command::Verify => {}
            Command::Pass(name) => {
                module = crate::passes::run(name, &module)?;
                round_trip(&module)?;
                verify(&module).map_err(|e| format!("after pass {name}:\n{e}\n{}", print(&module)))?;
            }
            Command::Rule(name) => {
                module = crate::passes::rule(name, &module)?;
                round_trip(&module)?;
                verify(&module).map_err(|e| format!("after rule {name}:\n{e}\n{}", print(&module)))?;
            }
            Command::Print => output.push_str(&print(&module)),
            Command::Left(counts) => left(&module, counts)?,
            Command::Each(counts) => each(&module, counts)?,
            Command::Run(_) => run(case, &before, &module, device)?,
            Command::Sample(steps, _) => crate::sample::check(&before, &module, *steps, device)?,
        }
    }
    if case.commands.contains(&Command::Print) && output != case.output {
        if crate::blessing() {
            return std::fs::write(&case.path, case.with_output(&output)).map_err(|e| e.to_string());
        }
        return Err(format!("expected output:\n{}\nfound (BLESS=1 writes it):\n{output}", case.output));
    }
    Ok(())
}

/// The module of a file. Errors must be those expected, line by line; functions in which one was expected are left out.
fn read(case: &Case) -> Result<Module, String> {
    let checks = !case.commands.contains(&Command::Parse);
    let mut found = Vec::new();
    let (mut text, mut module) = (case.text.clone(), parse(&case.text));
    if let Err(errors) = &module {
        found.extend(errors.0.clone());
        text = case.without_functions(&lines(&found));
        module = parse(&text);
    }
    if let (true, Ok(good)) = (checks, &module)
        && let Err(errors) = verify(good)
    {
        found.extend(errors.0);
        module = parse(&case.without_functions(&lines(&found)));
    }
    expected_errors(case, &found)?;
    match module {
        Ok(module) => {
            round_trip(&module)?;
            Ok(module)
        }
        // Errors outside functions were all expected: nothing is left to work on.
        Err(_) if case.commands.iter().all(|c| matches!(c, Command::Parse | Command::Verify)) => Ok(Module::default()),
        Err(errors) => Err(diag::render(&errors, &crate::relative(&case.path), &text)),
    }
}

fn lines(found: &[Diagnostic]) -> Vec<usize> {
    found.iter().map(line_of).collect()
}

fn expected_errors(case: &Case, found: &[Diagnostic]) -> Result<(), String> {
    let unexpected: Vec<Diagnostic> =
        found.iter().filter(|d| !case.errors.iter().any(|e| matches(e, d))).cloned().collect();
    let mut problems = Vec::new();
    if !unexpected.is_empty() {
        let file = crate::relative(&case.path);
        problems.push(diag::render(&diag::Diagnostics(unexpected), &file, &case.text));
    }
    for e in case.errors.iter().filter(|e| !found.iter().any(|d| matches(e, d))) {
        problems.push(format!("line {}: expected [{}] {}, which was not found", e.line, e.code, e.text));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// The law of the text form, for every module that a test sees.
///
/// # Errors
/// The text that does not read back.
pub fn round_trip(module: &Module) -> Result<(), String> {
    let text = print(module);
    let again = parse(&text).map_err(|e| format!("the printed module does not parse:\n{e}\n{text}"))?;
    if again != *module {
        return Err(format!("the printed module reads back as another one:\n{text}"));
    }
    let second = print(&again);
    if second != text {
        return Err(format!("printing is no fixed point:\n{text}\nand then\n{second}"));
    }
    Ok(())
}

fn left(module: &Module, counts: &[(String, usize)]) -> Result<(), String> {
    let kinds = |f: &Function| -> Vec<&'static str> {
        f.ids().filter_map(|id| f.op(id).map(|(op, _)| op.kind().text())).collect()
    };
    let all: Vec<&str> = module.functions.iter().flat_map(kinds).collect();
    for (name, want) in counts {
        let found = all.iter().filter(|k| *k == name).count();
        if found != *want {
            return Err(format!("expected {want} of `{name}`, found {found}:\n{}", print(module)));
        }
    }
    Ok(())
}

/// [`left`] for each function by itself.
fn each(module: &Module, counts: &[(String, usize)]) -> Result<(), String> {
    let alone = |f: &Function| Module { functions: vec![f.clone()], ..module.clone() };
    let problems: Vec<String> = module
        .functions
        .iter()
        .filter_map(|f| left(&alone(f), counts).err().map(|e| format!("@{}: {e}", f.name)))
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// Runs every function whose types have no symbols.
fn run(case: &Case, before: &Module, after: &Module, device: Option<&str>) -> Result<(), String> {
    let runner = device
        .map(|name| {
            find(name).ok_or_else(|| format!("no runner `{name}` (`gpu` needs a driver: scripts/setup installs one)"))
        })
        .transpose()?;
    for function in before.functions.iter().filter(|f| has_numbers_only(f)) {
        let given = case.given.get(&function.name).cloned().unwrap_or_default();
        run_function(before, after, function, &given, runner.as_deref())
            .map_err(|e| format!("@{}: {e}", function.name))?;
    }
    Ok(())
}

fn run_function(
    before: &Module,
    after: &Module,
    function: &Function,
    given: &Given,
    device: Option<&dyn Runner>,
) -> Result<(), String> {
    let arguments = arguments(before, function, given)?;
    let name = &function.name;
    let single = Interp(Precision::F32).run(before, name, &arguments)?;
    let double = Interp(Precision::F64).run(before, name, &arguments)?;
    let mut expects: BTreeSet<&str> = given.expects.keys().map(String::as_str).collect();
    for (i, returned) in function.returns.iter().enumerate() {
        let (Target::Output(output) | Target::State(output)) = &returned.target;
        let ty = function.ty(returned.value);
        if single[i].ty != *ty || double[i].ty != *ty {
            return Err(format!("`{output}` should be {ty}, is {} and {}", single[i].ty, double[i].ty));
        }
        let allowed = Allowed::for_literals(&single[i], &double[i]);
        if let Some(text) = given.expects.get(output) {
            expects.remove(output.as_str());
            let want = literal(text, ty)?;
            compare(&format!("`{output}` in f32"), &single[i], &want, allowed)?;
            compare(&format!("`{output}` in f64"), &double[i], &want, allowed)?;
        }
    }
    if let Some(unknown) = expects.first() {
        return Err(format!("`expect {unknown}`: there is no such output"));
    }
    if before != after {
        let changed = Interp(Precision::F64).run(after, name, &arguments)?;
        for (i, (got, want)) in changed.iter().zip(&double).enumerate() {
            compare(&format!("result {i} after the passes"), got, want, Allowed::for_devices(&single[i], want))?;
        }
    }
    if let Some(device) = device
        && device.exception(after, name).is_none()
    {
        let got = device.run(after, name, &arguments)?;
        for (i, (got, want)) in got.iter().zip(&single).enumerate() {
            let what = format!("result {i} on {}", device.name());
            compare(&what, got, want, Allowed::for_devices(want, &double[i]))?;
        }
    }
    Ok(())
}

/// Given literals, and drawn tensors for the rest.
fn arguments(module: &Module, function: &Function, given: &Given) -> Result<Arguments, String> {
    let mut unused: BTreeSet<&str> = given.inputs.keys().map(String::as_str).collect();
    let mut tensor = |name: &str, ty: &TensorType| match given.inputs.get(name) {
        Some(text) => {
            unused.remove(name);
            literal(text, ty).map_err(|e| format!("`input {name}`: {e}"))
        }
        None => Ok(draw::tensor(&format!("{}.{name}", function.name), ty)),
    };
    let inputs =
        function.params().into_iter().map(|(name, id)| tensor(name, function.ty(id))).collect::<Result<_, _>>()?;
    let mut weights = BTreeMap::new();
    for w in module.weights.iter().filter(|w| w.ty.shape.get().is_some()) {
        weights.insert(w.name.clone(), Arc::new(tensor(&w.name, &w.ty)?));
    }
    let mut states = BTreeMap::new();
    for s in module.states.iter().filter(|s| s.ty.shape.get().is_some()) {
        states.insert(s.name.clone(), tensor(&s.name, &s.ty)?);
    }
    match unused.first() {
        Some(name) => Err(format!("`input {name}`: there is no such parameter, weight or state")),
        None => Ok(Arguments { inputs, weights, states }),
    }
}

fn has_numbers_only(function: &Function) -> bool {
    function.values.iter().all(|v| v.ty.shape.get().is_some())
}
