//! Bad input: exit status 2, a message that says what is wrong, and nothing destroyed.

mod common;

use common::{copy, edit_config, edit_header, fixture, selvedge, text};
use serde_json::json;
use std::path::Path;
use tempfile::TempDir;

/// `check` on a folder, on the host.
fn check(folder: &Path) -> common::Ran {
    selvedge(&["check", &text(folder), "--device", "host"])
}

#[test]
fn files_that_are_no_checkpoints() {
    let folder = copy("dit-original");
    let weights = folder.path().join("model.safetensors");
    let whole = std::fs::read(&weights).expect("copied");
    std::fs::write(&weights, b"PK\x03\x04 a zip file, not what was asked for").expect("writable");
    check(folder.path()).refused(2, &["model.safetensors", "not a safetensors file"]);
    std::fs::write(&weights, &whole[..whole.len() / 2]).expect("writable");
    check(folder.path()).refused(2, &["model.safetensors", "truncated"]);
    std::fs::write(&weights, b"").expect("writable");
    check(folder.path()).refused(2, &["model.safetensors", "not a safetensors file"]);
}

#[test]
fn headers_that_lie_about_sizes() {
    let folder = copy("dit-original");
    let weights = folder.path().join("model.safetensors");
    edit_header(&weights, |h| h["pos_embed"]["shape"] = json!([1, 16, 65]));
    check(folder.path()).refused(2, &["shape and number of bytes", "model.safetensors"]);
    edit_header(&weights, |h| h["pos_embed"]["shape"] = json!([u64::MAX, u64::MAX, 2]));
    check(folder.path()).refused(2, &["model.safetensors"]);
}

#[test]
fn tensors_that_do_not_fit_are_listed_together() {
    let folder = copy("dit-original");
    edit_header(&folder.path().join("model.safetensors"), |h| {
        let moved = h.remove("blocks.0.attn.proj.bias").expect("it is there");
        h.insert("blocks.0.attn.projection.bias".into(), moved);
        h["final_layer.linear.weight"]["shape"] = json!([64, 32]);
    });
    let words =
        ["blocks.0.attn.proj.bias", "missing", "blocks.0.attn.projection.bias", "final_layer.linear.weight", "[32,64]"];
    check(folder.path()).refused(2, &words);
    let folder = copy("dit-original");
    edit_header(&folder.path().join("model.safetensors"), |h| {
        h["final_layer.linear.bias"]["dtype"] = json!("F8_E4M3");
        h["final_layer.linear.bias"]["shape"] = json!([128]);
    });
    check(folder.path()).refused(2, &["final_layer.linear.bias", "F8_E4M3"]);
}

#[test]
fn configurations_that_are_wrong() {
    let folder = copy("dit-original");
    edit_config(folder.path(), |c| drop(c.as_object_mut().expect("an object").remove("num_heads")));
    check(folder.path()).refused(2, &["num_heads", "missing"]);
    edit_config(folder.path(), |c| c["num_heads"] = json!(5));
    check(folder.path()).refused(2, &["hidden_size", "num_heads", "64", "5"]);
    edit_config(folder.path(), |c| c["_class_name"] = json!("UNet2DModel"));
    check(folder.path()).refused(2, &["UNet2DModel", "DiT"]);
    std::fs::write(folder.path().join("config.json"), "{").expect("writable");
    check(folder.path()).refused(2, &["config.json", "JSON"]);
}

#[test]
fn requests_that_cannot_be_met() {
    let folder = TempDir::new().expect("a temporary folder");
    let png = text(&folder.path().join("a.png"));
    let generate = |args: &[&str]| selvedge(&[&["generate", "digits", "--device", "host", "-o", &png], args].concat());
    generate(&["--label", "10"]).refused(2, &["label 10", "0 to 9"]);
    generate(&["--label", "7,99"]).refused(2, &["label 99", "0 to 9"]);
    generate(&["--label", "seven"]).refused(2, &["seven"]);
    generate(&["--steps", "0"]).refused(2, &["step"]);
    generate(&["-n", "0"]).refused(2, &["-n"]);
    generate(&["--guidance", "nan"]).refused(2, &["guidance"]);
    generate(&["--size", "64x64"]).refused(2, &["64x64", "28x28"]);
    generate(&["--size", "64"]).refused(2, &["WIDTHxHEIGHT"]);
    generate(&["--prompt", "a seven"]).refused(2, &["text encoder", "--label"]);
    generate(&["--sampler", "ddpm"]).refused(2, &["ddpm", "euler", "heun"]);
    selvedge(&["generate", "nothing-of-this-name", "-o", &png]).refused(2, &["nothing-of-this-name", "digits"]);
    selvedge(&["bench", "dit-q-2", "--device", "host"]).refused(2, &["dit-q-2", "dit-xl-2"]);
    selvedge(&["frobnicate"]).refused(2, &["frobnicate"]);
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "nothing was written");
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = TempDir::new().expect("a temporary folder");
    let absent = text(&folder.path().join("absent/a.png"));
    let started = std::time::Instant::now();
    selvedge(&["generate", "digits", "--device", "host", "-n", "64", "-o", &absent])
        .refused(2, &["absent", "does not exist"]);
    assert!(started.elapsed().as_secs() < 10, "it is found out before the work");
    selvedge(&["generate", "digits", "--device", "host", "-o", &text(folder.path())]).refused(2, &["is a folder"]);
    selvedge(&["compile", "digits", "-o", &absent]).refused(2, &["absent", "does not exist"]);
    if cfg!(target_os = "linux") {
        // No user may create files here, whatever their rights.
        selvedge(&["generate", "digits", "--device", "host", "-o", "/proc/a.png"])
            .refused(2, &["/proc", "not writable"]);
    }
}

#[test]
fn a_failed_request_leaves_the_old_picture() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("a.png");
    std::fs::write(&path, "precious").expect("writable");
    selvedge(&["generate", "digits", "--label", "12", "--device", "host", "-o", &text(&path)])
        .refused(2, &["label 12"]);
    let model = copy("dit-original");
    selvedge(&["generate", &text(model.path()), "--device", "host", "-o", &text(&path)]).refused(2, &["--latents"]);
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 1, "no temporary file is left");
}

#[test]
fn module_texts_with_errors() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("a.ir");
    for (body, words) in [
        ("  %y = transpose %x perm=[1,0 : f32[3,2]\n", &["a.ir:2", "%y = transpose"][..]),
        ("  %y = transpose %x perm=[1,0] : f32[2,3]\n", &["a.ir:2", "f32[3,2]", "f32[2,3]"]),
        ("  %y = transpose %z perm=[1,0] : f32[3,2]\n", &["a.ir:2", "z"]),
        ("  %y = transmogrify %x : f32[3,2]\n", &["a.ir:2", "transmogrify"]),
    ] {
        std::fs::write(&path, format!("fn @f(%x: f32[2,3]) {{\n{body}  return y=%y\n}}\n")).expect("writable");
        for command in ["verify", "print", "opt", "run"] {
            selvedge(&["ir", command, &text(&path)]).refused(2, words);
        }
    }
    selvedge(&["ir", "verify", &text(&folder.path().join("b.ir"))]).refused(2, &["b.ir"]);
    std::fs::write(&path, [0xff, 0xfe, 0x00]).expect("writable");
    selvedge(&["ir", "verify", &text(&path)]).refused(2, &["a.ir"]);
}

/// A small bundle, and the folder it is in.
fn bundle() -> (TempDir, String) {
    let folder = TempDir::new().expect("a temporary folder");
    let path = text(&folder.path().join("a.selvedge"));
    selvedge(&["compile", "digits", "-o", &path]).ok();
    (folder, path)
}

#[test]
fn bundles_that_cannot_be_run() {
    let (folder, path) = bundle();
    let png = text(&folder.path().join("a.png"));
    let run = |path: &str| selvedge(&["run", path, "--device", "host", "-o", &png]);
    let whole = std::fs::read(&path).expect("compiled");
    edit_header(Path::new(&path), |h| h["__metadata__"]["format"] = json!("99"));
    run(&path).refused(2, &["format 99", "a.selvedge"]);
    for damaged in [&whole[..whole.len() - 100], &whole[..7], b"", b"hello, I am a text"] {
        std::fs::write(&path, damaged).expect("writable");
        run(&path).refused(2, &["a.selvedge"]);
    }
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    std::fs::write(&path, flipped).expect("writable");
    run(&path).refused(2, &[]);
    let checkpoint = text(&fixture("dit-original").join("model.safetensors"));
    run(&checkpoint).refused(2, &["bundle", "selvedge compile"]);
    run(&text(folder.path())).refused(2, &["folder", "selvedge generate"]);
    run(&text(&folder.path().join("nowhere"))).refused(2, &["does not exist"]);
    std::fs::write(&path, &whole).expect("writable");
    run(&path).ok();
}

#[test]
fn devices_that_are_not_there() {
    let devices = selvedge(&["devices", "--json"]).ok().json();
    let there = !devices["devices"].as_array().expect("a list").is_empty();
    let folder = TempDir::new().expect("a temporary folder");
    let png = text(&folder.path().join("a.png"));
    let ran = selvedge(&["generate", "digits", "--device", "Voodoo 2", "-o", &png]);
    if there {
        let name = devices["devices"][0]["name"].as_str().expect("a name");
        ran.refused(2, &["Voodoo 2", name, "host"]);
        // A bundle that needs what the adapter lacks says what.
        let (_folder, path) = bundle();
        let bytes = std::fs::read(&path).expect("compiled");
        let old = selvedge::bundle::read(&bytes).expect("a bundle");
        let mut manifest = old.manifest().clone();
        manifest.target.features.push("time-travel".to_string());
        manifest.target.storage_buffers = 4096;
        let kernels = (0..manifest.kernels.len()).map(|i| old.kernel(i).expect("its text").to_string()).collect();
        let weights: Vec<_> = (0..manifest.weights.len()).map(|i| old.weight(i).expect("its bytes")).collect();
        let mut next = weights.iter();
        let new = selvedge::bundle::Bundle::new(manifest, kernels, old.module().to_string(), |_| match next.next() {
            Some(selvedge::bundle::WeightBytes::Here(bytes)) => Ok(bytes.clone()),
            Some(selvedge::bundle::WeightBytes::Linked(_)) | None => Err("linked".to_string()),
        });
        std::fs::write(&path, new.expect("consistent").to_bytes().expect("hashes fit")).expect("writable");
        selvedge(&["run", &path, "--device", "gpu", "-o", &png])
            .refused(2, &["time-travel", "maxStorageBuffersPerShaderStage", "4096"]);
    } else {
        ran.refused(3, &["no GPU adapter"]);
    }
    assert!(!Path::new(&png).exists());
}

#[test]
fn targets_that_are_none() {
    let folder = TempDir::new().expect("a temporary folder");
    let out = text(&folder.path().join("a.selvedge"));
    let compile = |target: &str| selvedge(&["compile", "digits", "-o", &out, "--target", target]);
    compile("absent.json").refused(2, &["absent.json", "portable"]);
    let file = folder.path().join("t.json");
    std::fs::write(&file, "{\"name\": 3}").expect("writable");
    compile(&text(&file)).refused(2, &["t.json", "target"]);
    selvedge(&["compile", "digits", "-o", &out, "--batch", "0"]).refused(2, &["batch"]);
    selvedge(&["compile", "digits", "-o", &out, "--dtype", "f8"]).refused(2, &["f8", "f32"]);
}

#[test]
fn adapters_are_no_models() {
    // A LoRA of one layer, as diffusers writes it.
    let header =
        r#"{"transformer.blocks.0.attn.qkv.lora_A.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend([0; 8]);
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("pytorch_lora_weights.safetensors");
    std::fs::write(&file, &bytes).expect("writable");
    for model in [text(folder.path()), text(&file)] {
        selvedge(&["generate", &model, "--device", "host"]).refused(2, &["pytorch_lora_weights", "LoRA", "base model"]);
    }
    let model = copy("dit-original");
    std::fs::write(model.path().join("model.safetensors"), &bytes).expect("writable");
    check(model.path()).refused(2, &["model.safetensors", "LoRA"]);
}

#[test]
fn too_little_memory_is_said_before_anything_is_loaded() {
    let folder = TempDir::new().expect("a temporary folder");
    let out = text(&folder.path().join("a.png"));
    let generate = |size: &str| {
        selvedge(&[
            "generate",
            "digits",
            "--device",
            "gpu",
            "--steps",
            "1",
            "-n",
            "2",
            "-o",
            &out,
            "--max-memory",
            size,
        ])
    };
    let ran = generate("1MiB").refused(2, &["does not fit", "at most 1.0 MiB", "what would fit"]);
    assert!(!ran.stderr.contains("planned peak"), "{}", ran.stderr);
    generate("lots").refused(2, &["lots", "4GiB"]);
    generate("64MiB").ok();
    let file = text(&folder.path().join("digits.selvedge"));
    selvedge(&["compile", "digits", "-o", &file]).ok();
    selvedge(&["run", &file, "--device", "gpu", "-o", &out, "--max-memory", "1MiB"]).refused(2, &["does not fit"]);
}
