//! Kernels chosen by measurement, and the cache that remembers them.

mod common;

use common::{fixture, text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// `selvedge bench` of a small model with a cache of its own: its report, and what it said.
fn bench(cache: &Path, more: &[&str]) -> (Value, String) {
    let model = text(&fixture("dit-original"));
    let output = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["bench", &model, "--runs", "1", "--json", "--device", "gpu"])
        .args(more)
        .env("SELVEDGE_CACHE", cache)
        .output()
        .expect("the command starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    (serde_json::from_slice(&output.stdout).expect("one object"), stderr)
}

/// The file of winners, of which there is one.
fn winners(cache: &Path) -> PathBuf {
    let files = std::fs::read_dir(cache).expect("it was made").map(|e| e.expect("an entry").path());
    let mut tuned = files.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("tune")));
    tuned.next().expect("winners were kept")
}

#[test]
fn winners_are_kept_used_and_dropped_when_they_fail() {
    let cache = TempDir::new().expect("a temporary folder");
    let (first, _) = bench(cache.path(), &["--tune", "quick"]);
    let measured = first["tuned"]["measured"].as_u64().expect("a number");
    assert!(measured > 0, "{first}");
    // A block has programs next to the best, and the cost model's choice was put to the test.
    let programs = first["tuned"]["programs"].as_array().expect("a list");
    assert!(!programs.is_empty() && programs.iter().all(|p| p["ms"].is_number() || p["why"].is_string()), "{first}");
    assert!(programs.iter().any(|p| p["ms"].is_number()), "{first}");
    let (again, _) = bench(cache.path(), &["--tune", "quick"]);
    assert_eq!(again["tuned"]["measured"], json!(0), "everything is known: {again}");
    assert_eq!(again["tuned"]["programs"], json!([]), "programs, too: {again}");
    let (unmeasured, _) = bench(cache.path(), &[]);
    assert_eq!(unmeasured["tuned"], Value::Null);
    // Another winner than the default is used without measuring; one that is no candidate is dropped, and named.
    let path = winners(cache.path());
    let mut file: Value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
    let units: Vec<String> = file["winners"].as_object().expect("winners").keys().cloned().collect();
    for unit in &units {
        file["winners"][unit]["choice"] = json!("no such kernel");
    }
    std::fs::write(&path, file.to_string()).expect("writable");
    let (_, said) = bench(cache.path(), &[]);
    assert!(said.contains("no such kernel") && said.contains("dropped") && said.contains(&units[0]), "{said}");
    let (_, said) = bench(cache.path(), &[]);
    assert!(!said.contains("dropped"), "it is said once: {said}");
    // A file that does not read is no file.
    std::fs::write(&path, "{").expect("writable");
    bench(cache.path(), &["--tune", "off"]);
    let (repaired, _) = bench(cache.path(), &["--tune", "quick"]);
    // How many units there are depends on which of the close programs was faster this time.
    assert!(repaired["tuned"]["measured"].as_u64().is_some_and(|count| count > 0), "{repaired}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = TempDir::new().expect("a temporary folder");
    let (model, output) = (text(&fixture("dit-original")), text(&folder.path().join("a")));
    common::selvedge(&["compile", &model, "-o", &output, "--tune", "quick"]).refused(2, &["portable", "--target this"]);
    common::selvedge(&["bench", "digits", "--tune", "hard"]).refused(2, &["hard", "quick"]);
    assert!(!folder.path().join("a").exists());
}

#[test]
fn bundles_carry_self_tests_and_a_failing_family_is_named() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("a");
    common::selvedge(&["compile", &text(&fixture("dit-original")), "-o", &text(&file)]).ok();
    let bytes = std::fs::read(&file).expect("written");
    let bundle = selvedge::bundle::read(&bytes).expect("a bundle");
    let families: Vec<&str> = bundle.selftests().map(|(family, _)| family).collect();
    for kernel in &bundle.manifest().kernels {
        assert!(families.contains(&kernel.name.as_str()), "{} has no self-test: {families:?}", kernel.name);
    }
    // Another expectation in one of them.
    let weights = |weight: &selvedge::bundle::manifest::Weight| {
        let index = bundle.manifest().weights.iter().position(|w| w.name == weight.name).expect("the same weights");
        match bundle.weight(index) {
            Ok(selvedge::bundle::WeightBytes::Here(bytes)) => Ok(bytes.into_owned().into()),
            Ok(selvedge::bundle::WeightBytes::Linked(_)) | Err(_) => Err("it is embedded".to_string()),
        }
    };
    let texts = (0..bundle.manifest().kernels.len()).filter_map(|i| bundle.kernel(i)).map(str::to_string).collect();
    let module = bundle.module().to_string();
    let mut changed =
        selvedge::bundle::Bundle::new(bundle.manifest().clone(), texts, module, weights).expect("consistent");
    let (family, test) = bundle.selftests().next().expect("there are some");
    changed.add_selftest(family, broken(test));
    std::fs::write(&file, changed.to_bytes().expect("hashes fit")).expect("writable");
    let latents = text(&folder.path().join("out.safetensors"));
    common::selvedge(&["run", &text(&file), "--latents", &latents, "--steps", "1", "--device", "gpu"])
        .refused(3, &[family, "self-test"]);
}

/// A self-test that expects something else.
fn broken(bytes: &[u8]) -> Vec<u8> {
    let test = selvedge::bundle::read(bytes).expect("a bundle");
    let mut manifest = test.manifest().clone();
    let first = &mut manifest.pipeline["outputs"][0]["words"][0];
    *first = json!(first.as_u64().expect("a word") ^ (1 << 24));
    let texts = (0..manifest.kernels.len()).filter_map(|i| test.kernel(i)).map(str::to_string).collect();
    let none = |_: &selvedge::bundle::manifest::Weight| Err("there is none".to_string());
    let bundle = selvedge::bundle::Bundle::new(manifest, texts, String::new(), none).expect("consistent");
    bundle.to_bytes().expect("hashes fit")
}
