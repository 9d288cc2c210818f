//! Samplers alone: the model's outputs are recorded, too.

use super::{Case, CaseRun, Expected, Recorded, Source};
use crate::checkpoint::Checkpoint;
use crate::files::text_field;
use selvedge_ir::{Diagnostic, Diagnostics, Tensor};
use selvedge_zoo::program::run_of_plan;
use selvedge_zoo::samplers::betas::BetaSchedule;
use selvedge_zoo::samplers::gaussian::GaussianVariance;
use selvedge_zoo::samplers::{Gaussian, GaussianMethod, Noise, Sampler, diffusers};
use selvedge_zoo::sampling::recorded_module;
use serde_json::Value;

/// The DiT repository's `SpacedDiffusion` (`config.json` describes it).
pub(super) fn spaced_diffusion(name: &str, config: &Value, recorded: &Recorded) -> Result<Case, Diagnostics> {
    let sampler = Sampler::Gaussian(gaussian(config)?);
    let steps = recorded.ranked::<5>("in.model_outputs")?.1[0];
    run(name, sampler, steps, "x_init", recorded)
}

/// One of diffusers' schedulers (`case.json` holds its class, options and number of steps).
pub(super) fn scheduler(name: &str, case: &Value, recorded: &Recorded) -> Result<Case, Diagnostics> {
    let class = text_field("case.json", case, "scheduler")?;
    let none = Value::Object(Default::default());
    let mut sampler = diffusers::read(class, case.get("scheduler_config").unwrap_or(&none))?;
    // Arguments of `set_timesteps` and `step`, where a case records them (beside `steps` or under `call`).
    let argument = |key: &str| case.get(key).or_else(|| case.get("call")?.get(key)).filter(|v| !v.is_null());
    match &mut sampler {
        Sampler::Ddim(s) => {
            s.eta = argument("eta").and_then(Value::as_f64).unwrap_or(0.0);
            s.use_clipped_model_output = argument("use_clipped_model_output") == Some(&Value::Bool(true));
        }
        Sampler::FlowMatchEuler(s) => {
            s.mu = argument("mu").and_then(Value::as_f64);
            s.sigmas = argument("sigmas").and_then(|v| serde_json::from_value(v.clone()).ok());
        }
        Sampler::DpmSolver(s) => s.mu = argument("mu").and_then(Value::as_f64),
        Sampler::EulerDiscrete(_) | Sampler::Ddpm(_) | Sampler::Gaussian(_) | Sampler::RectifiedFlow(_) => {}
    }
    let steps = recorded.ranked::<5>("in.model_outputs")?.1[0];
    run(name, sampler, steps, "x0", recorded)
}

/// `create_diffusion`'s arguments and the loop's, by the repository's names.
pub(crate) fn gaussian(config: &Value) -> Result<Gaussian, Diagnostic> {
    let flag = |key: &str, default: bool| config.get(key).and_then(Value::as_bool).unwrap_or(default);
    let mut sampler = Gaussian::new(flag("learn_sigma", true));
    if let Some(schedule) = config.get("noise_schedule") {
        sampler.noise_schedule = BetaSchedule::named(schedule.as_str().unwrap_or_default())?;
    }
    if let Some(steps) = config.get("diffusion_steps").and_then(Value::as_u64) {
        sampler.diffusion_steps = steps as usize;
    }
    sampler.timestep_respacing = config.get("timestep_respacing").and_then(Value::as_str).map(str::to_string);
    sampler.clip_denoised = flag("clip_denoised", true);
    sampler.predict_xstart = flag("predict_xstart", false);
    if flag("sigma_small", false) && sampler.variance == GaussianVariance::FixedLarge {
        sampler.variance = GaussianVariance::FixedSmall;
    }
    let eta = config.get("eta").and_then(Value::as_f64).unwrap_or(0.0);
    sampler.method = match config.get("sampler").map(|s| s.as_str().unwrap_or_default()) {
        None | Some("ddpm") => GaussianMethod::Ddpm,
        Some("ddim") => GaussianMethod::Ddim { eta },
        Some(other) => {
            return Err(
                Diagnostic::new("case", "unknown sampling loop").expected_found("ddpm or ddim", format!("`{other}`"))
            );
        }
    };
    Ok(sampler)
}

fn run(name: &str, sampler: Sampler, steps: usize, first: &str, recorded: &Recorded) -> Result<Case, Diagnostics> {
    let (outputs, [_, batch, output_channels, height, width]) = recorded.ranked::<5>("in.model_outputs")?;
    let (first, [_, channels, ..]) = recorded.ranked::<4>(&format!("in.{first}"))?;
    let shape = [batch, channels, height, width];
    let plan = sampler.plan(steps)?;
    let noise = recorded_noise(recorded, "in.noise", &sampler, steps, shape)?;
    let size: usize = shape.iter().product();
    let mut run = run_of_plan(&sampler, &plan, shape, first, |k| noise[k * size..(k + 1) * size].to_vec());
    run.tables.remove("timestep"); // the recorded outputs know it already
    run.tables.insert("model_output".into(), outputs);
    let predicts = sampler.form().predicts_x0;
    run.trace = std::iter::once("latents".to_string()).chain(predicts.then(|| "pred_xstart".to_string())).collect();
    let mut expected: Vec<Option<Expected>> = vec![
        recorded.expect("trajectory", Source::Trajectory("latents".into()))?,
        recorded.expect("prev_sample", Source::Output("latents".into()))?,
    ];
    if predicts {
        expected.push(recorded.expect("pred_xstart", Source::Trace("pred_xstart".into()))?);
        expected.push(recorded.expect("pred_original_sample", Source::Trace("pred_xstart".into()))?);
    }
    for (name, values) in &plan.observed {
        expected.push(recorded.expect_host(name, values)?);
    }
    let module = recorded_module(name, &sampler, shape, output_channels)?;
    let expected = expected.into_iter().flatten().collect();
    let run = CaseRun { name: "steps".into(), module, weights: Checkpoint::default(), run, expected };
    Ok(Case { name: name.to_string(), runs: vec![run], unsupported: Vec::new() })
}

/// The recorded noise of all steps, if the sampler takes any: [steps] ++ shape.
pub(super) fn recorded_noise(
    recorded: &Recorded,
    name: &str,
    sampler: &Sampler,
    steps: usize,
    shape: [usize; 4],
) -> Result<Vec<f32>, Diagnostic> {
    if sampler.form().noise == Noise::None {
        return Ok(Vec::new());
    }
    let noise: Tensor = recorded.get(name)?;
    let wanted: Vec<usize> = [steps].into_iter().chain(shape).collect();
    if noise.sizes() != wanted {
        return Err(Diagnostic::new("case", format!("recorded tensor `{name}` has another shape"))
            .expected_found(format!("{wanted:?}"), format!("{:?}", noise.sizes())));
    }
    Ok(noise.to_f32())
}
