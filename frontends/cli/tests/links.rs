//! Weights left in their checkpoint, and kernels taken on trust.

mod common;

use common::{Ran, copy, selvedge, text};
use std::path::Path;
use tempfile::TempDir;

/// `dit-original` in `model/` of a folder, compiled into `embedded` and `linked` beside it.
fn compiled() -> TempDir {
    let (folder, model) = (TempDir::new().expect("a temporary folder"), copy("dit-original"));
    let at = |name: &str| folder.path().join(name);
    std::fs::rename(model.path(), at("model")).expect("one file system");
    let compile = |name: &str, more: &[&str]| {
        selvedge(&[&["compile", &text(&at("model")), "-o", &text(&at(name))], more].concat()).ok();
    };
    compile("embedded", &[]);
    compile("linked", &["--link-weights"]);
    folder
}

fn run(folder: &Path, bundle: &str, device: &str, more: &[&str]) -> Ran {
    let (bundle, latents) = (text(&folder.join(bundle)), text(&folder.join("out.safetensors")));
    let common = ["run", &bundle, "--latents", &latents, "--device", device, "--steps", "2", "--label", "1"];
    selvedge(&[&common, more].concat())
}

/// The latents that a run gives.
fn latents(folder: &Path, bundle: &str, device: &str, more: &[&str]) -> Vec<u8> {
    run(folder, bundle, device, more).ok();
    std::fs::read(folder.join("out.safetensors")).expect("written")
}

#[test]
fn linked_and_trusted_bundles_compute_the_same() {
    let folder = compiled();
    let size = |name: &str| std::fs::metadata(folder.path().join(name)).expect("written").len();
    let weights = size("model/model.safetensors");
    assert!(size("linked") + weights * 9 / 10 < size("embedded"), "{} {}", size("linked"), size("embedded"));
    // Folder and all: the links are relative to the file.
    let moved = TempDir::new().expect("a temporary folder");
    let moved = moved.path().join("moved");
    std::fs::rename(folder.path(), &moved).expect("one file system");
    for device in ["host", "gpu"] {
        let embedded = latents(&moved, "embedded", device, &[]);
        assert_eq!(latents(&moved, "linked", device, &[]), embedded, "{device}");
        assert_eq!(latents(&moved, "linked", device, &["--trust"]), embedded, "{device}");
        let bundle = text(&moved.join("linked"));
        let bench = selvedge(&["bench", &bundle, "--device", device, "--runs", "1", "--json", "--trust"]).ok().json();
        assert!(bench["median_ms"].as_f64() > Some(0.0) && bench["gflop"].as_f64() > Some(0.0), "{bench}");
    }
    let facts = selvedge(&["inspect", &text(&moved.join("linked")), "--json"]).ok().json();
    let model = selvedge(&["inspect", &text(&moved.join("model")), "--json"]).ok().json();
    assert_eq!(facts["linked_weights"], model["weights"]["tensors"], "{facts}");
    for command in ["run", "bench", "generate"] {
        assert!(selvedge(&[command, "--help"]).ok().stdout.contains("--trust"), "{command}");
    }
}

#[test]
fn linked_files_that_are_missing_or_changed() {
    let folder = compiled();
    let file = folder.path().join("model/model.safetensors");
    let refused = || {
        for device in ["host", "gpu"] {
            run(folder.path(), "linked", device, &[]).refused(2, &["model.safetensors"]);
        }
        selvedge(&["inspect", &text(&folder.path().join("linked"))]).refused(2, &["model.safetensors"]);
    };
    let whole = std::fs::read(&file).expect("it is there");
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    std::fs::write(&file, flipped).expect("writable");
    refused();
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("writable");
    refused();
    std::fs::remove_file(&file).expect("writable");
    refused();
    latents(folder.path(), "embedded", "host", &[]);
}

#[test]
fn checkpoints_elsewhere_are_linked_by_their_whole_path() {
    let (model, folder) = (copy("dit-original"), TempDir::new().expect("a temporary folder"));
    let bundle = text(&folder.path().join("linked"));
    selvedge(&["compile", &text(model.path()), "-o", &bundle, "--link-weights"]).ok();
    let facts = selvedge(&["inspect", &bundle, "--json"]).ok().json();
    let file = model.path().canonicalize().expect("it is there").join("model.safetensors");
    assert_eq!(facts["linked_files"], serde_json::json!([text(&file)]));
}

#[test]
fn shipped_weights_cannot_be_linked() {
    let folder = TempDir::new().expect("a temporary folder");
    let bundle = text(&folder.path().join("linked"));
    selvedge(&["compile", "digits", "-o", &bundle, "--link-weights"])
        .refused(2, &["digits", "part of the program", "no file to link"]);
    assert!(!Path::new(&bundle).exists());
}
