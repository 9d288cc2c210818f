//! Planted bugs: a weight in another's place, a pass that changes the meaning, a kernel that computes something else.

use selvedge::bisect::{Guilty, Suspects, bisect};
use selvedge::check::check;
use selvedge::compile::Settings;
use selvedge::{Device, DeviceChoice};
use selvedge_ir::scalar::{Binary, Body};
use selvedge_ir::{Diagnostic, Module, Op, ops::Map};
use selvedge_passes::Pass;
use selvedge_passes::saturate::{Phase, Rates, Rule, Saturate, Strategy};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn gpu() -> Device {
    Device::choose(&DeviceChoice::Gpu, &mut |_| {}).expect("these tests need a GPU driver")
}

#[test]
fn a_case_that_passes_has_nobody_to_blame() {
    let device = gpu();
    let found = bisect(&fixture("dit-original"), &device, None, &Suspects::new(&Settings::default(), &device));
    assert_eq!(found.expect("a case"), []);
}

#[test]
fn a_weight_in_anothers_place_is_the_imports() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bisect-swapped");
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    for file in ["config.json", "case.json", "io.safetensors", "model.safetensors"] {
        std::fs::copy(fixture("dit-original").join(file), folder.join(file)).expect("a fixture's file");
    }
    // The names of two tensors of one shape change places in the header.
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).expect("copied");
    let [first, second] = ["\"blocks.0.attn.proj.weight\"", "\"blocks.1.attn.proj.weight\""];
    let at = |name: &str| bytes.windows(name.len()).position(|w| w == name.as_bytes()).expect("in the header");
    let mut swapped = bytes.clone();
    swapped[at(first)..at(first) + first.len()].copy_from_slice(second.as_bytes());
    swapped[at(second)..at(second) + second.len()].copy_from_slice(first.as_bytes());
    std::fs::write(&path, swapped).expect("writable");
    let found = bisect(&folder, &Device::Host, None, &Suspects::new(&Settings::default(), &Device::Host));
    let found = found.expect("a case");
    assert!(!found.is_empty() && found.iter().all(|f| f.guilty == Guilty::Import), "{found:?}");
}

/// Makes a difference of the first sum of two values.
struct Planted;

impl Pass for Planted {
    fn name(&self) -> &'static str {
        "planted"
    }
    fn summary(&self) -> &'static str {
        "a bug"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        let sum = Body::binary(Binary::Add);
        for value in module.functions.iter_mut().flat_map(|f| &mut f.values) {
            if let selvedge_ir::Def::Op { op: Op::Map(map), .. } = &mut value.def
                && map.body == sum
            {
                *map = Map { body: Body::binary(Binary::Sub) };
                break;
            }
        }
        Ok(module)
    }
}

#[test]
fn a_pass_that_changes_the_meaning_is_named() {
    let mut suspects = Suspects::new(&Settings::default(), &Device::Host);
    suspects.passes.insert(1, Box::new(Planted));
    let found = bisect(&fixture("dit-original"), &Device::Host, None, &suspects).expect("a case");
    assert!(!found.is_empty());
    assert_eq!(found[0].guilty, Guilty::Rule("planted".into()), "{}", found[0]);
    assert_eq!(found[0].operator, "map", "{}", found[0]);
    assert!(found[0].place.is_some(), "{}", found[0]);
}

#[test]
fn a_rule_that_changes_the_meaning_is_named() {
    // Cheaper, and wrong: extraction will take it.
    let left = &["(map {sigmoid} ?x)"];
    let unsound = Rule::new("planted-sigmoid", "sigmoid x = x", Phase::Algebra, left, |m| Ok(m.term("x")));
    let mut suspects = Suspects::new(&Settings::default(), &Device::Host);
    let at = suspects.passes.iter().position(|p| p.name() == "saturate").expect("it is in the pipeline");
    let mut saturate = Saturate::new(Rates::default(), Strategy::Saturate);
    saturate.rules.insert(saturate.rules.len() / 3, unsound);
    suspects.passes[at] = Box::new(saturate);
    let found = bisect(&fixture("dit-original"), &Device::Host, None, &suspects).expect("a case");
    assert!(!found.is_empty());
    assert_eq!(found[0].guilty, Guilty::Rule("saturate: planted-sigmoid".into()), "{}", found[0]);
    assert!(found[0].to_string().contains("the rule `planted-sigmoid` of the pass `saturate`"), "{}", found[0]);
}

#[test]
fn a_kernel_that_computes_something_else_is_named() {
    let device = gpu();
    let mut suspects = Suspects::new(&Settings::default(), &device);
    // GELU, wherever it was fused, and SiLU.
    suspects.kernels =
        &|_, text| text.replace("sigmoid_of(", "0.9 * sigmoid_of(").replace("fn 0.9 * sigmoid_of(", "fn sigmoid_of(");
    let found = bisect(&fixture("dit-original"), &device, None, &suspects).expect("a case");
    assert!(!found.is_empty(), "a kernel was changed");
    let Guilty::Kernel(family) = &found[0].guilty else { panic!("{}", found[0]) };
    assert!(!family.is_empty() && family != "unknown", "{}", found[0]);
    let place = found[0].place.clone().unwrap_or_default();
    assert!(place.contains(".rs:"), "{}", found[0]);
}

/// How far a program with these settings is off on the host, all in all: what `check` says, which knows nothing of bisecting.
fn distance(folder: &Path, settings: &Settings) -> f64 {
    let report = check(folder, &Device::Host, settings, None).expect("a case");
    let distance = report.outputs.iter().map(|(_, c)| c.rel_l2).fold(0.0, f64::max);
    assert!(distance > 1e-5, "{settings:?} changes nothing: {}", report.to_json());
    distance
}

#[test]
fn what_the_settings_cost_is_theirs() {
    let folder = fixture("dit-original");
    let integers = |bits| Settings { integer_bits: Some(bits), ..Settings::default() };
    let halves = Settings { half_activations: true, ..Settings::default() };
    let cases = [(integers(8), "quantize-weights"), (integers(4), "quantize-weights"), (halves, "half-activations")];
    for (settings, pass) in cases {
        let distance = distance(&folder, &settings);
        let suspects = Suspects::new(&settings, &Device::Host);
        let found = |tol: f64| bisect(&folder, &Device::Host, Some(tol), &suspects).expect("a case");
        let blamed = found(distance / 4.0);
        assert!(!blamed.is_empty(), "{settings:?}: nothing is {distance:.2e} off");
        assert!(blamed.iter().all(|f| f.guilty == Guilty::Rule(pass.into())), "{blamed:?}");
        assert_eq!(found(4.0 * distance), [], "{settings:?} is {distance:.2e} off");
    }
}

#[test]
fn a_kernel_is_found_behind_integers_and_halves() {
    let (folder, device) = (fixture("dit-original"), gpu());
    let settings = Settings { integer_bits: Some(4), half_activations: true, ..Settings::default() };
    let tol = Some(4.0 * distance(&folder, &settings));
    let mut suspects = Suspects::new(&settings, &device);
    assert_eq!(bisect(&folder, &device, tol, &suspects).expect("a case"), []);
    suspects.kernels =
        &|_, text| text.replace("sigmoid_of(", "-sigmoid_of(").replace("fn -sigmoid_of(", "fn sigmoid_of(");
    let found = bisect(&folder, &device, tol, &suspects).expect("a case");
    assert!(!found.is_empty(), "a kernel was changed");
    let Guilty::Kernel(family) = &found[0].guilty else { panic!("{}", found[0]) };
    assert!(!family.is_empty() && family != "unknown", "{}", found[0]);
}
