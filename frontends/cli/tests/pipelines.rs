//! Text-to-image pipelines on the command line: from a folder, from a compiled file, and what is said of a wrong request.

mod common;

use common::{fixture, selvedge, text};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SMALL: [&str; 6] = ["--device", "host", "--steps", "2", "--size", "32x32"];

/// A copy of a fixture with its folders.
fn copy(name: &str) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        fs::create_dir_all(folder.path().join(&below)).expect("writable");
        for entry in fs::read_dir(fixture(name).join(&below)).expect("it is there") {
            let path = below.join(entry.expect("readable").file_name());
            match fixture(name).join(&path).is_dir() {
                true => open.push(path),
                false => drop(fs::copy(fixture(name).join(&path), folder.path().join(&path)).expect("readable")),
            }
        }
    }
    folder
}

fn latents(args: &[&str]) -> Vec<f32> {
    let folder = TempDir::new().expect("a temporary folder");
    let file = text(&folder.path().join("latents.safetensors"));
    selvedge(&[args, &["--latents", &file]].concat()).ok();
    let bytes = fs::read(&file).expect("written");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    bytes[8 + length..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four"))).collect()
}

#[test]
fn prompts_become_pictures() {
    let folder = TempDir::new().expect("a temporary folder");
    let picture = folder.path().join("a.png");
    for name in ["pipeline-pixart-sigma", "pipeline-sd3", "pipeline-flux"] {
        let model = text(&fixture(name));
        let args = [
            "generate",
            &model,
            "--prompt",
            "a red cat",
            "-n",
            "3",
            "--max-sequence-length",
            "20",
            "-o",
            &text(&picture),
        ];
        selvedge(&[&args, &SMALL[..]].concat()).ok();
        let bytes = fs::read(&picture).expect("written");
        // Three pictures of 32×32 in a grid of 2×2.
        assert_eq!(&bytes[16..24], [0, 0, 0, 64, 0, 0, 0, 64], "{name}");
    }
}

#[test]
fn a_compiled_file_reads_prompts_alone() {
    let (folder, model) = (TempDir::new().expect("a temporary folder"), copy("pipeline-sd3"));
    let bundle = text(&folder.path().join("sd3.selvedge"));
    let source = text(model.path());
    let length = ["--max-sequence-length", "20"];
    selvedge(&[&["compile", &source, "-o", &bundle, "--size", "32x32"], &length[..]].concat()).ok();
    let asked = ["--prompt", "a red cat", "--negative-prompt", "bad", "--seed", "7"];
    let of_folder = latents(&[&["generate", &source], &asked[..], &SMALL, &length].concat());
    drop(model); // the file is all that is left
    let of_file = latents(&[&["run", &bundle], &asked[..], &SMALL].concat());
    assert_eq!(of_file, of_folder);
    assert!(of_file.iter().all(|x| x.is_finite()) && of_file.iter().any(|x| *x != 0.0));
    selvedge(&["run", &bundle, "--prompt", "x", "--size", "64x64", "--device", "host"]).refused(2, &["64x64", "32x32"]);
    selvedge(&[&["run", &bundle, "--prompt", "x", "--device", "host"], &["--max-sequence-length", "21"][..]].concat())
        .refused(2, &["compiled for another number of text tokens"]);
}

#[test]
fn a_prompt_is_read_once_for_all_its_pictures() {
    let folder = TempDir::new().expect("a temporary folder");
    let (bundle, out) = (text(&folder.path().join("sd3.selvedge")), text(&folder.path().join("a.png")));
    let length = ["--max-sequence-length", "20"];
    let source = text(&fixture("pipeline-sd3"));
    selvedge(&[&["compile", &source, "-o", &bundle, "--size", "32x32"], &length[..]].concat()).ok();
    let run = |more: &[&str]| {
        let args = ["run", &bundle, "--json", "-o", &out, "--negative-prompt", "bad"];
        selvedge(&[&args, &SMALL[..], more].concat()).ok().json()["condition_runs"].clone()
    };
    assert_eq!(run(&["--prompt", "a red cat", "-n", "4"]), 1);
    assert_eq!(run(&["--prompt", "a red cat", "--prompt", "a blue cat", "-n", "4"]), 2);
    // The pictures are those of one batch.
    let asked = ["--prompt", "a red cat", "-n", "3"];
    let one_by_one = latents(&[&["run", &bundle], &asked[..], &SMALL].concat());
    let together = latents(&[&["generate", &source], &asked[..], &SMALL, &length].concat());
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * (1.0 + b.abs());
    assert!(one_by_one.len() == together.len() && one_by_one.iter().zip(&together).all(close));
}

#[test]
fn what_a_pipeline_takes_is_told_by_component() {
    let model = text(&fixture("pipeline-sd3"));
    let inspect = |more: &[&str]| selvedge(&[&["inspect", &model, "--json"], more].concat()).ok().json();
    let small = inspect(&["--size", "32x32", "--max-sequence-length", "20"]);
    let large = inspect(&["--size", "64x32", "--batch", "2", "--max-sequence-length", "20"]);
    for (name, what, stage) in [
        ("text_encoder", "CLIP text encoder", "condition"),
        ("text_encoder_2", "CLIP text encoder", "condition"),
        ("text_encoder_3", "T5 encoder", "condition"),
        ("transformer", "SD3 MM-DiT", "step"),
        ("vae", "AutoencoderKL", "decode"),
    ] {
        let of = |facts: &serde_json::Value| facts["components"][name].clone();
        assert!(of(&small)["what"].as_str().is_some_and(|w| w.starts_with(what)), "{}", of(&small));
        assert!(of(&small)["parameters"].as_u64() > Some(0) && of(&small)["dtypes"].is_object(), "{}", of(&small));
        let work = |facts: &serde_json::Value| of(facts)["gflop"][stage].as_f64().expect("it works in this stage");
        match stage {
            "condition" => assert_eq!(work(&large), work(&small), "{name}: the text is the same"),
            _ => assert!(work(&large) > 2.0 * work(&small), "{name}"),
        }
    }
    let total: f64 =
        small["components"].as_object().expect("by name").values().filter_map(|c| c["gflop"]["step"].as_f64()).sum();
    assert!((total - small["gflop"]["step"].as_f64().expect("a step")).abs() < 1e-9, "{small}");
    let peak = |facts: &serde_json::Value| facts["memory"]["planned_peak_bytes"].as_u64().expect("a plan");
    assert!(peak(&large) > peak(&small));
    assert_eq!((&large["size"], &large["batch"]), (&"64x32".into(), &2.into()));
    selvedge(&["inspect", &model, "--size", "30x32"]).refused(2, &["30x32", "multiples of 8"]);
}

#[test]
fn prompt_negative_prompt_seed_and_latents_matter() {
    let model = text(&fixture("pipeline-pixart-sigma"));
    let run =
        |more: &[&str]| latents(&[&["generate", &model, "--max-sequence-length", "20"], &SMALL[..], more].concat());
    let base = run(&["--prompt", "a red cat"]);
    assert_eq!(run(&["--prompt", " A RED cat"]), base, "PixArt lowers and trims its prompts");
    assert_ne!(run(&["--prompt", "a blue cat"]), base);
    assert_ne!(run(&["--prompt", "a red cat", "--negative-prompt", "bad"]), base);
    assert_ne!(run(&["--prompt", "a red cat", "--seed", "1"]), base);
    assert_ne!(run(&["--prompt", "a red cat", "--guidance", "1"]), base);
    // Images of a batch are those of their own prompt and number.
    let two = run(&["--prompt", "a red cat", "--prompt", "a blue cat"]);
    assert_eq!(two.len(), 2 * base.len());
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * (1.0 + b.abs()));
    assert!(close(&two[..base.len()], &base));
    // The recorded latents to start from, which are not those of the seed.
    let io = text(&fixture("pipeline-pixart-sigma").join("io.safetensors"));
    let folder = TempDir::new().expect("a temporary folder");
    let start = folder.path().join("start.safetensors");
    let ask = |from: &str| ["--prompt", "a red cat", "--from-latents", from].map(str::to_string);
    let whole = selvedge(&[&["generate", &model], &ask(&io).each_ref().map(String::as_str)[..], &SMALL].concat());
    whole.refused(2, &["has no tensor `latents`"]);
    let header = r#"{"latents":{"dtype":"F32","shape":[1,4,8,8],"data_offsets":[0,1024]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend((0..256).flat_map(|i| ((i as f32 * 0.37).sin()).to_le_bytes()));
    fs::write(&start, bytes).expect("writable");
    let from = text(&start);
    assert_ne!(run(&["--prompt", "a red cat", "--from-latents", &from]), base);
    let two = ["generate", &model, "--prompt", "x", "-n", "2", "--from-latents", &from];
    selvedge(&[&two, &SMALL[..]].concat()).refused(2, &["do not fit", "[2, 4, 8, 8]"]);
}

#[test]
fn long_prompts_are_cut_with_a_warning() {
    let model = text(&fixture("pipeline-sd3"));
    let prompt = "a red cat ".repeat(20) + "hat";
    let folder = TempDir::new().expect("a temporary folder");
    let out = text(&folder.path().join("a.png"));
    let ran = selvedge(&[&["generate", &model, "--prompt", &prompt, "-o", &out], &SMALL[..]].concat()).ok();
    assert!(
        ran.stderr.contains("warning") && ran.stderr.contains("20 tokens") && ran.stderr.contains("red cat"),
        "{}",
        ran.stderr
    );
}

#[test]
fn requests_that_a_text_model_cannot_follow() {
    let model = |name: &str| text(&fixture(name));
    let (sd3, flux, pixart) = (model("pipeline-sd3"), model("pipeline-flux"), model("pipeline-pixart-sigma"));
    let host = ["--device", "host"];
    let ask = |args: &[&str], words: &[&str]| drop(selvedge(&[args, &host[..]].concat()).refused(2, words));
    ask(&["generate", &sd3], &["none is given", "--prompt"]);
    ask(&["generate", &sd3, "--label", "3"], &["takes a text, not a class", "--prompt"]);
    ask(&["generate", "digits", "--prompt", "seven"], &["no text encoder", "--label"]);
    ask(&["generate", &sd3, "--prompt", "x", "--size", "30x32"], &["30x32", "multiples of 8", "32x32"]);
    ask(&["generate", &sd3, "--prompt", "x", "--size", "256x32"], &["up to 128"]);
    ask(&["generate", &flux, "--prompt", "x", "--size", "36x36"], &["multiples of 8"]);
    ask(&["generate", &pixart, "--prompt", "x", "--size", "33x32"], &["33x32"]);
    ask(&["generate", &flux, "--prompt", "x", "--negative-prompt", "y"], &["no negative prompt", "--true-cfg"]);
    ask(&["generate", &sd3, "--prompt", "x", "--negative-prompt", "y", "--guidance", "1"], &["above 1"]);
    ask(&["generate", &sd3, "--prompt", "x", "--max-sequence-length", "513"], &["1 to 512"]);
    ask(&["generate", &sd3, "--prompt", "x", "--steps", "0"], &["step"]);
}

fn edit(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let content = fs::read_to_string(&path).expect("it is there");
    assert!(content.contains(from), "{file} has `{from}`");
    fs::write(path, content.replacen(from, to, 1)).expect("writable");
}

#[test]
fn folders_that_are_incomplete_or_strange() {
    let refuse = |name: &str, damage: &dyn Fn(&Path), words: &[&str]| {
        let folder = copy(name);
        damage(folder.path());
        selvedge(&["generate", &text(folder.path()), "--prompt", "x", "--device", "host"]).refused(2, words);
    };
    let drop_folder =
        |name: &'static str| move |folder: &Path| fs::remove_dir_all(folder.join(name)).expect("it was there");
    let drop_file = |name: &'static str| move |folder: &Path| fs::remove_file(folder.join(name)).expect("it was there");
    refuse(
        "pipeline-sd3",
        &drop_folder("text_encoder_2"),
        &["text_encoder_2` is missing", "CLIPTextModelWithProjection", "fetch it"],
    );
    refuse("pipeline-sd3", &drop_folder("tokenizer_3"), &["tokenizer_3` is missing"]);
    refuse("pipeline-sd3", &drop_folder("vae"), &["vae` is missing"]);
    refuse("pipeline-sd3", &drop_file("text_encoder_3/model.safetensors"), &["text_encoder_3", "were not downloaded"]);
    let pointer = |file: &'static str| {
        move |folder: &Path| {
            let text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1234567\n";
            assert!(folder.join(file).exists());
            fs::write(folder.join(file), text).expect("writable");
        }
    };
    for file in ["text_encoder_3/model.safetensors", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"] {
        refuse("pipeline-sd3", &pointer(file), &[file, "was not downloaded", "git-lfs pointer", "git lfs pull"]);
    }
    let only_an_index = |folder: &Path| {
        fs::remove_file(folder.join("text_encoder_3/model.safetensors")).expect("there");
        let map =
            r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
        fs::write(folder.join("text_encoder_3/model.safetensors.index.json"), map).expect("writable");
    };
    refuse("pipeline-sd3", &only_an_index, &["2 were not downloaded", "model-00002-of-00002", "fetch the shards"]);
    refuse("pipeline-sd3", &drop_file("model_index.json"), &["no model folder", "fetch model_index.json"]);
    for (part, what) in
        [("transformer", "the network of a pipeline"), ("vae", "autoencoder"), ("text_encoder_3", "a text encoder")]
    {
        let component = text(&fixture("pipeline-sd3").join(part));
        selvedge(&["generate", &component, "--prompt", "x"]).refused(2, &[part, what, "model_index.json"]);
    }
    refuse("pipeline-flux", &drop_file("tokenizer/tokenizer.json"), &["no tokenizer in", "merges.txt"]);
    refuse("pipeline-flux", &drop_file("tokenizer_2/tokenizer.json"), &["spiece.model"]);
    let pickled = |folder: &Path| {
        fs::rename(folder.join("text_encoder/model.safetensors"), folder.join("text_encoder/pytorch_model.bin"))
            .expect("there");
    };
    refuse("pipeline-flux", &pickled, &["were not downloaded", "`.bin`", "safetensors"]);
    let index = |from: &'static str, to: &'static str| move |folder: &Path| edit(folder, "model_index.json", from, to);
    refuse(
        "pipeline-sd3",
        &index("StableDiffusion3Pipeline", "KolorsPipeline"),
        &["KolorsPipeline", "FluxPipeline", "DiTPipeline"],
    );
    refuse(
        "pipeline-flux",
        &index("T5EncoderModel", "UMT5EncoderModel"),
        &["text_encoder_2", "UMT5EncoderModel", "T5EncoderModel"],
    );
    refuse("pipeline-flux", &index("FlowMatchEulerDiscreteScheduler", "DDIMScheduler"), &["DDIMScheduler"]);
    let option = |folder: &Path| edit(folder, "scheduler/scheduler_config.json", "\"shift\": 3.0", "\"shifty\": 3.0");
    refuse("pipeline-sd3", &option, &["no option `shifty`"]);
    let other = |folder: &Path| {
        edit(folder, "transformer/config.json", "\"joint_attention_dim\": 32", "\"joint_attention_dim\": 48")
    };
    refuse("pipeline-sd3", &other, &["context_embedder.weight", "has another shape"]);
}

#[test]
fn a_lora_is_no_model() {
    let folder = TempDir::new().expect("a temporary folder");
    let header = r#"{"transformer.blocks.0.attn.to_q.lora_A.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend([0; 4]);
    let file = folder.path().join("pytorch_lora_weights.safetensors");
    fs::write(&file, bytes).expect("writable");
    for model in [folder.path(), &file] {
        selvedge(&["generate", &text(model), "--prompt", "x", "--device", "host"])
            .refused(2, &["is a LoRA", "base model"]);
    }
}
