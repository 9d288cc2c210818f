//! Every recorded case of the repository, through the reference interpreter.

use selvedge_import::cases::{self, Case};
use selvedge_import::{ProgramOptions, load};
use selvedge_ir::dtype::Class;
use selvedge_ir::{DType, Interpreter, Tensor, verify::verify};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// ‖got − want‖ / ‖want‖; infinite unless shapes and, for integers, values agree.
fn distance(got: &Tensor, want: &Tensor) -> f64 {
    if got.ty.shape != want.ty.shape || got.ty.dtype.class() != want.ty.dtype.class() {
        return f64::INFINITY;
    }
    let (g, w) = (got.to_f64(), want.to_f64());
    if want.ty.dtype.class() != Class::Float {
        return if g == w { 0.0 } else { f64::INFINITY };
    }
    let square = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let gap = square(&mut g.iter().zip(&w).map(|(g, w)| g - w));
    let norm = square(&mut w.iter().copied());
    if norm > 0.0 { gap / norm } else { gap }
}

fn check(case: &Case, outputs: &[&str]) {
    let mut seen = Vec::new();
    for run in &case.runs {
        verify(&run.module).unwrap_or_else(|e| panic!("{} {}: {e}", case.name, run.name));
        let output = Interpreter::new(&run.module, &run.weights)
            .run(&run.run, &mut |_| {})
            .unwrap_or_else(|e| panic!("{} {}: {e}", case.name, run.name));
        for expected in &run.expected {
            let got = run.got(expected, &output).unwrap();
            let gap = distance(&got, &expected.want);
            eprintln!("{} {}: rel_l2 {gap:.2e}", case.name, expected.name);
            assert!(gap <= expected.tolerance, "{} {}: rel_l2 {gap:.2e}", case.name, expected.name);
            seen.push(expected.name.as_str());
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, outputs, "{}", case.name);
}

fn fixture(name: &str, outputs: &[&str]) {
    let case = cases::open(&fixtures().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(case.unsupported, [], "{name}");
    check(&case, outputs);
}

#[test]
fn schedulers() {
    fixture("scheduler-ddim", &["timesteps", "trajectory"]);
    fixture("scheduler-ddpm", &["timesteps", "trajectory"]);
    for name in ["dpmpp-2m", "euler", "flow-euler"] {
        fixture(&format!("scheduler-{name}"), &["sigmas", "timesteps", "trajectory"]);
    }
}

/// Options that the repository's fixtures do not use; each folder's case.json says where its numbers come from.
#[test]
fn further_scheduler_options() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schedulers");
    let mut count = 0;
    for entry in folder.read_dir().unwrap() {
        let case = cases::open(&entry.unwrap().path()).unwrap();
        assert_eq!(case.unsupported, [], "{}", case.name);
        let outputs: &[&str] = match case.name.split('-').next() {
            Some("flow" | "dpm") => &["sigmas", "timesteps", "trajectory"],
            Some("euler") => &["pred_original_sample", "sigmas", "timesteps", "trajectory"],
            _ => &["pred_original_sample", "timesteps", "trajectory"],
        };
        check(&case, outputs);
        count += 1;
    }
    assert_eq!(count, 38);
}

#[test]
fn spaced_diffusion() {
    for name in ["ddim", "ddim-eta", "ddpm", "ddpm-cosine", "ddpm-fixedlarge", "ddpm-noclip"] {
        let outputs = ["betas", "model_timesteps", "posterior_variance", "pred_xstart", "trajectory"];
        fixture(&format!("dit-sampler-{name}"), &outputs);
    }
}

#[test]
fn forwards() {
    fixture("dit", &["sample"]);
    fixture("dit-original", &["cfg_out", "out"]);
    fixture("dit-original-nosigma", &["cfg_out", "out"]);
}

#[test]
fn text_encoders() {
    fixture("clip-text", &["last_hidden_state", "penultimate", "text_embeds"]);
    fixture("t5-encoder", &["last_hidden_state"]);
}

#[test]
fn pixart_transformers() {
    fixture("pixart-sigma", &["sample"]);
    for name in ["plain", "uniform", "uniform-every", "micro"] {
        fixture(&format!("pixart-original-{name}"), &["eps", "out"]);
    }
    fixture("pixart-original-conv", &["cfg_out", "eps", "out"]);
}

#[test]
fn multimodal_transformers() {
    fixture("sd3", &["sample"]);
    fixture("flux", &["sample"]);
}

#[test]
fn sampling_loops() {
    fixture("dit-sampling", &["trajectory_ddim", "trajectory_ddpm"]);
}

#[test]
fn pipelines() {
    fixture("pipeline-dit", &["image", "latents"]);
}

/// A pipeline with a multistep scheduler, its parts put together from a fixture and what was recorded with it.
#[test]
fn pipeline_with_dpm_solver() {
    let folder = tempfile::TempDir::new().unwrap();
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipelines/dit-dpm");
    for (from, part) in [
        (recorded.clone(), ["case.json", "io.safetensors", "model_index.json"].as_slice()),
        (recorded, &["scheduler/scheduler_config.json"]),
        (
            fixtures().join("pipeline-dit"),
            &["transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"],
        ),
        (fixtures().join("pipeline-dit"), &["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]),
    ] {
        for file in part {
            let to = folder.path().join(file);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(from.join(file), to).unwrap();
        }
    }
    let case = cases::open(folder.path()).unwrap();
    assert_eq!(case.unsupported, []);
    check(&case, &["image", "latents"]);
}

#[test]
fn autoencoders() {
    for name in ["vae", "vae-old-names", "vae-no-attention", "vae-one-level"] {
        fixture(name, &["decoded", "moments"]);
    }
    fixture("vavae-groups32", &["decoded"]);
    fixture("vavae-f16d32", &["decoded", "logvar", "mean", "sample"]);
}

/// The shipped model's recorded trajectory, for the first `images` of its ten and the first `steps` of its twenty.
fn digits(images: usize, steps: usize) -> f64 {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zoo/assets/digits");
    let case = cases::open(&folder).unwrap();
    assert_eq!(case.unsupported, []);
    let recorded = case.runs.iter().find(|r| r.name == "trajectory").unwrap();
    let model = load("digits").unwrap();
    let options = ProgramOptions { batch: images, ..ProgramOptions::default() };
    let program = model.program(&options).unwrap();
    verify(&program.module).unwrap();
    assert_eq!(program.info.default_steps, recorded.run.steps.len());
    let head = |tensor: &Tensor, count: usize| {
        let sizes: Vec<usize> = [count].into_iter().chain(tensor.sizes().into_iter().skip(1)).collect();
        let take = sizes.iter().product();
        match tensor.ty.dtype {
            DType::I32 => Tensor::i32(&sizes, tensor.to_f64()[..take].iter().map(|&x| x as i32).collect()),
            _ => Tensor::f32(&sizes, tensor.to_f32()[..take].to_vec()),
        }
    };
    let mut run = recorded.run.clone();
    run.steps.truncate(steps);
    run.tables.values_mut().for_each(|t| *t = head(t, steps));
    for name in ["latents", "class_labels"] {
        run.inputs.insert(name.into(), head(&recorded.run.inputs[name], images));
    }
    let output = Interpreter::new(&program.module, &model.checkpoint).run(&run, &mut |_| {}).unwrap();
    let want = recorded.expected[0].want.to_f32();
    let point = want.len() / (recorded.run.steps.len() + 1);
    let pixels = 28 * 28 * images;
    let want = Tensor::f32(&[images, 1, 28, 28], want[point * steps..][..pixels].to_vec());
    distance(&output.outputs["latents"], &want)
}

#[test]
fn digits_follow_their_recorded_trajectory() {
    // One image of the ten: the reference interpreter takes half a second for each of its steps.
    let gap = digits(1, 20);
    eprintln!("digits after twenty steps: rel_l2 {gap:.2e}");
    assert!(gap <= 1e-3);
}

#[test]
fn text_to_image_pipelines() {
    for name in ["flux", "pixart-alpha", "pixart-sigma", "sd3"] {
        fixture(&format!("pipeline-{name}"), &["image", "latents"]);
    }
    // Other sizes, lengths, widths and calls: several prompts and images, own negative prompts, other schedulers, T5 left out, shards.
    for name in ["flux-schnell", "pixart-batch", "pixart-binned", "sd3-three-prompts", "sd3-without-t5"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipelines").join(name);
        let case = cases::open(&folder).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(case.unsupported, [], "{name}");
        let embeds =
            ["negative_pooled_prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "prompt_embeds"];
        match name {
            "sd3-without-t5" => check(&case, &[&["image", "latents"], &embeds[..]].concat()),
            _ => check(&case, &["image", "latents"]),
        }
    }
}
