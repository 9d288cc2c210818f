//! Commands that work, as a new user would try them; everything on the host, where every machine can follow.

mod common;

use common::{copy, fixture, selvedge, text};
use tempfile::TempDir;

/// Width, height, colour type and pixels of a PNG file.
fn png(path: &std::path::Path) -> (u32, u32, png::ColorType, Vec<u8>) {
    let file = std::io::BufReader::new(std::fs::File::open(path).expect("it was written"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG file");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a small picture")];
    let info = reader.next_frame(&mut pixels).expect("whole");
    pixels.truncate(info.buffer_size());
    (info.width, info.height, info.color_type, pixels)
}

#[test]
fn generate_writes_a_grid_and_the_seed_decides() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let generate = |name: &str, more: &[&str]| {
        let file = text(&path(name));
        let ran =
            selvedge(&[&["generate", "digits", "--device", "host", "--steps", "2", "-o", &file], more].concat()).ok();
        assert!(!ran.stderr.contains('\r'), "no progress bar without a terminal: {:?}", ran.stderr);
        png(&path(name))
    };
    let five = generate("five.png", &["--label", "7", "-n", "5"]);
    assert_eq!((five.0, five.1, five.2), (84, 56, png::ColorType::Grayscale));
    assert_eq!(five, generate("again.png", &["--label", "7", "-n", "5"]));
    assert_ne!(five, generate("seed.png", &["--label", "7", "-n", "5", "--seed", "1"]));
    assert_ne!(five, generate("label.png", &["--label", "3", "-n", "5"]));
    // Images do not depend on how many are made together: the first of five is the one made alone.
    let one = generate("one.png", &["--label", "7"]);
    assert_eq!((one.0, one.1), (28, 28));
    let first: Vec<u8> = (0..28).flat_map(|y| five.3[y * 84..y * 84 + 28].to_vec()).collect();
    let off = first.iter().zip(&one.3).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off <= Some(1), "{off:?}");
    assert_eq!(generate("list.png", &["--label", "1,2,3"]).0, 56);
}

#[test]
fn a_bundle_makes_the_same_picture() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| text(&folder.path().join(name));
    selvedge(&["compile", "digits", "-o", &path("a"), "--batch", "2"]).ok();
    let report = selvedge(&["compile", "digits", "-o", &path("b"), "--batch", "2", "--json"]).ok().json();
    assert_eq!(std::fs::read(path("a")).expect("written"), std::fs::read(path("b")).expect("written"));
    assert!(report["dispatches"].as_u64() > Some(0) && report["peak_bytes"].as_u64() > Some(0), "{report}");
    let common = ["--label", "4", "-n", "3", "--steps", "2", "--device", "host"];
    // Nothing but the file: it is run from another folder under another name.
    std::fs::rename(path("a"), path("moved")).expect("same folder");
    selvedge(&[&["run", &path("moved"), "-o", &path("run.png")], &common[..]].concat()).ok();
    selvedge(&[&["generate", "digits", "-o", &path("generate.png")], &common[..]].concat()).ok();
    let (run, generate) = (png(path("run.png").as_ref()), png(path("generate.png").as_ref()));
    assert_eq!((run.0, run.1), (generate.0, generate.1));
    let off = run.3.iter().zip(&generate.3).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off <= Some(1), "{off:?}");
}

#[test]
fn check_compares_and_fails_when_it_should() {
    let [dit, scheduler] = ["dit-original", "scheduler-ddim"].map(|n| text(&fixture(n)));
    let one = selvedge(&["check", &dit, "--device", "host", "--json"]).ok().json();
    assert_eq!((&one["case"], &one["device"], &one["ok"]), (&"dit-original".into(), &"host".into(), &true.into()));
    assert!(one["outputs"]["out"]["rel_l2"].as_f64() < Some(1e-4), "{one}");
    let two = selvedge(&["check", &dit, &scheduler, "--device", "host", "--json"]).ok().json();
    assert_eq!(two["cases"].as_array().map(Vec::len), Some(2));
    selvedge(&["check", &dit, "--device", "host", "--tol", "0"]).refused(1, &[]);
    // A folder that is none fails, and the others are still checked.
    let ran = selvedge(&["check", "no-such-folder", &scheduler, "--device", "host", "--json"])
        .refused(2, &["no-such-folder"]);
    let cases = ran.json()["cases"].clone();
    assert_eq!([&cases[0]["ok"], &cases[1]["ok"]], [false, true], "{cases}");
    // One weight moved a little: found.
    let folder = copy("dit-original");
    let weights = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("copied");
    let end = bytes.len();
    bytes[end - 1] ^= 0x02;
    std::fs::write(&weights, bytes).expect("writable");
    let ran = selvedge(&["check", &text(folder.path()), "--device", "host"]);
    assert_eq!(ran.status, 1, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("FAILED"), "{}", ran.stdout);
}

#[test]
fn latents_of_a_model_without_a_decoder() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = text(&folder.path().join("latents.safetensors"));
    let model = text(&fixture("dit-original"));
    let common = ["--device", "host", "--steps", "2", "--label", "1", "-n", "2", "--latents", &file];
    selvedge(&[&["generate", &model], &common[..]].concat()).ok();
    let bytes = std::fs::read(&file).expect("written");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
    assert_eq!(header["latents"]["shape"], serde_json::json!([2, 4, 8, 8]));
    assert_eq!(bytes.len(), 8 + length + 2 * 4 * 8 * 8 * 4);
}

#[test]
fn every_stage_is_dumped_as_text() {
    let folder = TempDir::new().expect("a temporary folder");
    let (out, dump) = (text(&folder.path().join("a")), folder.path().join("stages"));
    selvedge(&["compile", "digits", "-o", &out, "--dump", &text(&dump)]).ok();
    let mut names: Vec<String> = std::fs::read_dir(&dump)
        .expect("made")
        .map(|e| e.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names[0], "01-input.ir");
    assert!(names.iter().any(|n| n.ends_with("-plan.txt")), "{names:?}");
    assert!(std::fs::read_dir(dump.join("kernels")).expect("made").count() > 5);
    for name in names.iter().filter(|n| n.ends_with(".ir")) {
        selvedge(&["ir", "verify", &text(&dump.join(name))]).ok();
    }
}

#[test]
fn facts_about_models_bundles_and_devices() {
    let digits = selvedge(&["inspect", "digits", "--json"]).ok().json();
    assert_eq!(digits["configuration"]["hidden_size"], 128);
    let number = |v: &serde_json::Value| v.as_u64().expect("a number");
    let peak = |v: &serde_json::Value| number(&v["memory"]["planned_peak_bytes"]);
    let held = number(&digits["memory"]["shared_weights_bytes"]);
    assert!(digits["gflop"]["step"].as_f64() > Some(0.1) && peak(&digits) > held, "{digits}");
    assert_eq!(number(&digits["components"]["transformer"]["parameters"]), number(&digits["weights"]["parameters"]));
    let preset = |more: &[&str]| selvedge(&[&["inspect", "dit-s-2", "--json"], more].concat()).ok().json();
    let (whole, half) = (preset(&[]), preset(&["--dtype", "f16"]));
    assert_eq!((&whole["kind"], &whole["weights"]["dtypes"]["f16"]), (&"preset".into(), &serde_json::Value::Null));
    assert!(peak(&half) * 3 < peak(&whole) * 2, "{half} {whole}");
    assert!(peak(&preset(&["--batch", "4"])) > peak(&whole));
    let decoder = |more: &[&str]| selvedge(&[&["inspect", "vae-decode", "--json", "--size", "256x256"], more].concat());
    let (all, strips) = (peak(&decoder(&[]).ok().json()), peak(&decoder(&["--max-memory", "320MiB"]).ok().json()));
    assert!(all > 320 << 20 && strips <= 320 << 20, "{all} and {strips} bytes");
    decoder(&["--max-memory", "150MiB"]).refused(2, &["does not fit", "what would fit"]);
    assert!(digits["weights"]["parameters"].as_u64() > Some(1_800_000), "{digits}");
    let text = selvedge(&["explain", "digits"]).ok().stdout;
    assert!(text.contains("function step") && text.contains("GFLOP") && text.contains("groups"), "{text}");
    assert!(text.contains("hoisted ") && text.contains("dit.rs:"), "savings and call sites: {text}");
    let attention = selvedge(&["explain", "digits", "--kernel", "%attention7"]).ok().stdout;
    for word in ["one of 6 alike", "dit.rs:", "softmax-of-shifted", "not contract", "would take", "candidates"] {
        assert!(attention.contains(word), "{word}: {attention}");
    }
    let case = common::text(&fixture("pixart-sigma"));
    let part = selvedge(&["explain", &case]).ok().stdout;
    assert!(part.contains("function forward"), "{part}");
    assert!(selvedge(&["devices"]).ok().stdout.contains("host"));
    let bench = selvedge(&["bench", "digits", "--device", "host", "--runs", "2", "--json"]).ok().json();
    assert!(bench["median_ms"].as_f64() > Some(0.0) && bench["gflop"].as_f64() > Some(0.5), "{bench}");
    let first = bench["first_output_ms"].as_f64();
    assert!(first > bench["first_run_ms"].as_f64(), "the first output has a forward before it: {bench}");
    assert_eq!((bench["what"].as_str(), bench["images"].as_u64()), (Some("step"), Some(1)), "{bench}");
    assert!(bench["stages"]["tabulate"]["ms"].as_f64() > Some(0.0), "{bench}");
    assert!(bench["hoisted"]["flops_moved"].as_i64() > Some(1_000_000), "{bench}");
}

/// Every optimiser in one run: plans of one step, and what moved out of it where something did.
#[test]
fn optimizers_are_compared() {
    let args = ["dit-s-2", "--blocks", "2", "--tokens", "16", "--runs", "1", "--device", "gpu", "--json"];
    let all = selvedge(&[&["bench"], &args[..], &["--optimizer", "all"]].concat()).ok().json();
    let number = |optimizer: &str, key: &str| all["optimizers"][optimizer][key].as_u64().expect("a number");
    assert!(number("saturate", "dispatches") <= 2 * 8 + 6 && number("greedy", "dispatches") <= 2 * 8 + 6, "{all}");
    assert!(number("none", "dispatches") > 2 * 30, "one kernel an operator: {all}");
    let moved = |optimizer| number(optimizer, "activation_bytes_moved");
    assert!(moved("saturate") * 2 < moved("none"), "{all}");
    assert!(all["optimizers"]["none"]["hoisted"].is_null() && all["optimizers"]["saturate"]["hoisted"].is_object());
    let forward = selvedge(&[&["bench"], &args[..], &["--what", "forward"]].concat()).ok().json();
    assert!(forward["stages"].as_object().is_some_and(serde_json::Map::is_empty), "{forward}");
    assert!(forward["dispatches"].as_u64() > Some(number("saturate", "dispatches")), "nothing is hoisted: {forward}");
    selvedge(&["bench", "digits", "--optimizer", "none,hard"]).refused(2, &["hard", "saturate"]);
    selvedge(&["bench", "attention", "--what", "step", "--device", "host"]).refused(2, &["attention", "forward"]);
    selvedge(&["bench", "dit-s-2", "--size", "8x12", "--device", "host"]).refused(2, &["8x12", "--what forward"]);
}

#[test]
fn workloads_have_names_and_timelines() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = text(&folder.path().join("trace.json"));
    let small = ["--tokens", "64", "--runs", "1", "--device", "host", "--json", "--trace", &file];
    let bench = selvedge(&[&["bench", "w4b"], &small[..]].concat()).ok().json();
    assert_eq!((bench["model"].as_str(), bench["size"].as_str()), (Some("w4b"), Some("16x64x64")));
    assert_eq!(bench["gflop"].as_f64(), Some(4.0 * 16.0 * 64.0 * 64.0 * 64.0 / 1e9));
    let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).expect("written")).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    assert!(events.iter().any(|e| e["name"] == "first forward" && e["dur"].as_f64() > Some(0.0)), "{trace}");
    let two = ["--blocks", "2", "--tokens", "16", "--runs", "1", "--device", "host", "--json"];
    let bench = selvedge(&[&["bench", "dit-s-2"], &two[..]].concat()).ok().json();
    assert_eq!(bench["size"].as_str(), Some("8x8"), "16 tokens of 2x2 patches");
    let refused = |args: &[&str], words: &[&str]| {
        selvedge(&[&["bench"], args, &["--device", "host"]].concat()).refused(2, words);
    };
    refused(&["dit-s-2", "--tokens", "15"], &["9 or 16"]);
    refused(&["dit-s-2", "--blocks", "13"], &["12 blocks"]);
    refused(&["dit-s-2", "--heads", "3"], &["--heads", "attention"]);
    refused(&["attention", "--heads", "0"], &["1 or more"]);
    refused(&["w5"], &["w5", "w4b"]);
}

#[test]
fn modules_in_text_form() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = text(&folder.path().join("a.ir"));
    let module = "fn @double(%x: f32[N]) {\n  %y = map %x body={x| x + x} : f32[N]\n  return y=%y\n}\n";
    std::fs::write(&path, module).expect("writable");
    assert!(selvedge(&["ir", "verify", &path]).ok().stdout.contains("valid"));
    assert!(selvedge(&["ir", "print", &path]).ok().stdout.contains("%y = map %x body={x| x + x} : f32[N]"));
    assert!(
        selvedge(&["ir", "run", &path, "--dim", "N=3", "--device", "host"]).ok().stdout.starts_with("y: f32[3] = [")
    );
    selvedge(&["ir", "run", &path, "--device", "host"]).refused(2, &["N"]);
    selvedge(&["ir", "run", &path, "--dim", "N", "--device", "host"]).refused(2, &["NAME=N"]);
}

#[test]
fn weights_are_stored_in_half_when_asked() {
    let dit = text(&fixture("dit-original"));
    let distance = |dtype: &str| {
        let ran =
            selvedge(&["check", &dit, "--device", "host", "--dtype", dtype, "--tol", "0.05", "--json"]).ok().json();
        ran["outputs"]["out"]["rel_l2"].as_f64().expect("compared")
    };
    // Rounding to 11 and to 8 bits moves the result by about those bits, and not at all in f32.
    let [full, half, brain] = ["f32", "f16", "bf16"].map(distance);
    assert!(full < 1e-5 && 3e-5 < half && half < 3e-3 && half * 3.0 < brain, "{full} {half} {brain}");
    let folder = TempDir::new().expect("a temporary folder");
    let size = |dtype: &str| {
        let file = text(&folder.path().join(dtype));
        let ran = selvedge(&["compile", "digits", "-o", &file, "--dtype", dtype, "--json"]).ok().json();
        ran["file_bytes"].as_u64().expect("a number")
    };
    assert!(size("f16") * 3 < size("f32") * 2);
    selvedge(&[
        "run",
        &text(&folder.path().join("f16")),
        "-o",
        &text(&folder.path().join("a.png")),
        "--device",
        "host",
        "--steps",
        "1",
    ])
    .ok();
}
