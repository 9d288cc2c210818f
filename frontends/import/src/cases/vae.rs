//! Autoencoders alone: encoding of a recorded image, decoding of a recorded latent.

use super::{Case, CaseRun, Expected, Recorded, Source, once};
use crate::vae::{LoadedVae, load};
use selvedge_ir::interp::Run;
use selvedge_ir::{Diagnostics, Module};
use selvedge_zoo::vae::{decode_module, encode_module};
use std::path::Path;

pub(super) fn open(name: &str, folder: &Path, recorded: &Recorded) -> Result<Case, Diagnostics> {
    let vae = load(folder)?;
    let stored = || {
        let checkpoint = vae.checkpoint.clone();
        move |name: &str| checkpoint.dtype(name)
    };
    let mut runs = Vec::new();
    if recorded.has("in.image") {
        let (image, [batch, _, height, width]) = recorded.ranked::<4>("in.image")?;
        let with_noise = recorded.has("in.noise");
        let mut run = Run::default();
        run.inputs.insert("image".into(), image);
        if with_noise {
            run.inputs.insert("noise".into(), recorded.get("in.noise")?);
        }
        let module = encode_module(&vae.config, batch, (height, width), with_noise, stored())?;
        runs.push(case_run(&vae, "encode", module, run, recorded, &["moments", "mean", "logvar", "sample"])?);
    }
    if recorded.has("in.latent") {
        let (latent, [batch, _, height, width]) = recorded.ranked::<4>("in.latent")?;
        let mut run = Run::default();
        run.inputs.insert("latent".into(), latent);
        let module = decode_module(&vae.config, batch, (height, width), stored())?;
        runs.push(case_run(&vae, "decode", module, run, recorded, &["decoded"])?);
    }
    Ok(Case { name: name.to_string(), runs, unsupported: Vec::new() })
}

fn case_run(
    vae: &LoadedVae,
    function: &str,
    module: Module,
    run: Run,
    recorded: &Recorded,
    outputs: &[&str],
) -> Result<CaseRun, Diagnostics> {
    let mut expected: Vec<Expected> = Vec::new();
    for name in outputs {
        expected.extend(recorded.expect(name, Source::Output(name.to_string()))?);
    }
    Ok(CaseRun {
        name: function.to_string(),
        module: once(module, function),
        weights: vae.checkpoint.clone(),
        run,
        expected,
    })
}
