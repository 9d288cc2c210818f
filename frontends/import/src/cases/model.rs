//! Cases with a model: forwards, guided forwards, and whole sampling loops.

use super::sampler::{gaussian, recorded_noise};
use super::{Case, CaseRun, Expected, Recorded, Source, once, pipeline};
use crate::dit::Dit;
use crate::files::read_json;
use crate::model::{Architecture, LoadedModel, load_folder};
use selvedge_ir::interp::Run;
use selvedge_ir::{DType, Diagnostic, Diagnostics, Module, Tensor};
use selvedge_model::ModuleBuilder;
use selvedge_zoo::dit::{DitConfig, forward_module};
use selvedge_zoo::guidance::{self, Guided};
use selvedge_zoo::program::run_of_plan;
use selvedge_zoo::samplers::Sampler;
use selvedge_zoo::sampling::{Denoiser, Guidance, sampling_module};
use serde_json::Value;
use std::path::Path;

/// Tolerance of trajectories through a model with f16 weights, which the digits' card states, and of a pipeline's picture.
pub(super) const TRAJECTORY_TOLERANCE: f64 = 1e-3;

pub(super) fn open(name: &str, folder: &Path, case: &Value, recorded: &Recorded) -> Result<Case, Diagnostics> {
    let model = load_folder(folder)?;
    let config = match &model.architecture {
        Architecture::Dit(config) => config,
        Architecture::Text(text) => {
            let runs = pipeline::runs(&model, text, case, recorded)?;
            return Ok(Case { name: name.to_string(), runs, unsupported: Vec::new() });
        }
    };
    let cx = Context { model: &model, config, recorded };
    let mut runs = Vec::new();
    if folder.join("model_index.json").exists() {
        runs.extend(cx.pipeline(case)?);
    } else {
        let json = read_json(&folder.join("config.json"))?;
        runs.extend(cx.forward()?);
        runs.extend(cx.guided_forward()?);
        if let Some(samplers) = json.get("samplers").and_then(Value::as_object) {
            for (key, options) in samplers {
                runs.extend(cx.loop_of_repository(key, options, &json)?);
            }
        }
        if json.get("sampling").is_some() {
            runs.extend(cx.described_sampling()?);
        }
    }
    Ok(Case { name: name.to_string(), runs, unsupported: Vec::new() })
}

struct Context<'a> {
    model: &'a LoadedModel,
    config: &'a DitConfig,
    recorded: &'a Recorded,
}

impl Context<'_> {
    /// A plain forward, by the reference's names.
    fn forward(&self) -> Result<Option<CaseRun>, Diagnostics> {
        let (inputs, output) = self.config.io_names();
        let names = inputs.map(|n| format!("in.{n}"));
        if !names.iter().all(|n| self.recorded.has(n)) {
            return Ok(None);
        }
        let (x, [batch, _, height, width]) = self.recorded.ranked::<4>(&names[0])?;
        let mut run = Run::default();
        run.inputs.insert(inputs[0].into(), x);
        run.inputs.insert(inputs[1].into(), floats(self.recorded.get(&names[1])?));
        run.inputs.insert(inputs[2].into(), self.labels(&names[2])?);
        let module = forward_module(self.config, batch, (height, width), self.model.stored())?;
        let expected = self.recorded.expect(output, Source::Output(output.into()))?;
        Ok(Some(self.case_run("forward", once(module, "forward"), run, vec![expected])))
    }

    /// `forward_with_cfg`: the second half of the batch is ignored, guidance acts on the first three channels.
    fn guided_forward(&self) -> Result<Option<CaseRun>, Diagnostics> {
        if !self.recorded.has("in.cfg_x") {
            return Ok(None);
        }
        let (x, [batch, channels, height, width]) = self.recorded.ranked::<4>("in.cfg_x")?;
        let count = Guided::First(3).count(channels);
        let mut module = ModuleBuilder::new("dit").stored_as(self.model.stored());
        module.function("forward_with_cfg", |g| {
            let x = g.input("cfg_x", DType::F32, [batch, channels, height, width]);
            let t = g.input("cfg_t", DType::F32, [batch]);
            let y = g.input("cfg_y", DType::I32, [batch]);
            let scale = g.input("cfg_scale", DType::F32, []);
            let [half, _] = x.chunk(0);
            let output = Dit(self.config).forward(g, &guidance::both(&half), &t, &y);
            g.output("cfg_out", &guidance::combine_both(&output, count, &scale));
        });
        let mut run = Run::default();
        run.inputs.insert("cfg_x".into(), x);
        run.inputs.insert("cfg_t".into(), floats(self.recorded.get("in.cfg_t")?));
        run.inputs.insert("cfg_y".into(), self.labels("in.cfg_y")?);
        run.inputs.insert("cfg_scale".into(), scalar(self.recorded.get("in.cfg_scale")?));
        let expected = self.recorded.expect("cfg_out", Source::Output("cfg_out".into()))?;
        let module = once(module.build()?, "forward_with_cfg");
        Ok(Some(self.case_run("forward_with_cfg", module, run, vec![expected])))
    }

    /// A loop of the DiT repository with both halves of the batch carried (`samplers` of the configuration).
    fn loop_of_repository(&self, key: &str, options: &Value, json: &Value) -> Result<Option<CaseRun>, Diagnostics> {
        let name = format!("trajectory_{key}");
        if !self.recorded.has("in.z") || !self.recorded.has(&format!("out.{name}")) {
            return Ok(None);
        }
        let mut options = options.clone();
        if let Some(map) = options.as_object_mut() {
            map.entry("sampler").or_insert_with(|| key.into());
            for shared in ["learn_sigma", "noise_schedule", "diffusion_steps"] {
                if let Some(value) = json.get(shared) {
                    map.entry(shared).or_insert_with(|| value.clone());
                }
            }
        }
        let sampler = Sampler::Gaussian(gaussian(&options)?);
        let guidance = Guidance::Carried { guided: Guided::First(3) };
        self.trajectory(&name, &sampler, guidance, "in.z", "in.y", "in.cfg_scale", &format!("in.noise_{key}")).map(Some)
    }

    /// The recorded case of a model with a `sampling` block: whole trajectory with the default guidance, and the velocity at the first
    /// step without.
    fn described_sampling(&self) -> Result<Vec<CaseRun>, Diagnostics> {
        let mut runs = Vec::new();
        if !self.recorded.has("in.latents") || !self.recorded.has("in.class_labels") {
            return Ok(runs);
        }
        let s = &self.model.sampling;
        if let (true, Some(null_class)) = (self.recorded.has("out.trajectory"), s.null_class) {
            let guidance = Guidance::On { guided: s.guided, null_class };
            let names = ["in.latents", "in.class_labels", "in.guidance_scale", "in.noise"];
            let mut run =
                self.trajectory("trajectory", &s.sampler, guidance, names[0], names[1], names[2], names[3])?;
            run.expected.iter_mut().for_each(|e| e.tolerance = TRAJECTORY_TOLERANCE);
            runs.push(run);
        }
        let name = "velocity_at_first_step_without_guidance";
        if self.recorded.has(&format!("out.{name}")) {
            let (x, [batch, _, height, width]) = self.recorded.ranked::<4>("in.latents")?;
            let (inputs, output) = self.config.io_names();
            let t = s.sampler.plan(s.default_steps)?.timesteps[0];
            let mut run = Run::default();
            run.inputs.insert(inputs[0].into(), x);
            run.inputs.insert(inputs[1].into(), Tensor::f32(&[batch], vec![t as f32; batch]));
            run.inputs.insert(inputs[2].into(), self.labels("in.class_labels")?);
            let module = forward_module(self.config, batch, (height, width), self.model.stored())?;
            let expected = self.recorded.expect(name, Source::Output(output.into()))?;
            runs.push(self.case_run("forward", once(module, "forward"), run, vec![expected]));
        }
        Ok(runs)
    }

    /// A diffusers pipeline (`call` of `case.json`), up to its picture if it has an autoencoder.
    fn pipeline(&self, case: &Value) -> Result<Option<CaseRun>, Diagnostics> {
        if !self.recorded.has("out.latents") {
            return Ok(None);
        }
        let field = |name: &str| case.get("call").and_then(|c| c.get(name));
        let missing = |name: &str| {
            Diagnostic::new("case", format!("`call` of case.json lacks `{name}`")).expected_found("its value", "none")
        };
        let labels: Vec<i32> = field("class_labels")
            .and_then(|v| serde_json::from_value(v.clone()).ok())
            .ok_or_else(|| missing("class_labels"))?;
        let steps = field("num_inference_steps").and_then(Value::as_u64).unwrap_or(50) as usize;
        let scale = field("guidance_scale").and_then(Value::as_f64).unwrap_or(4.0);
        let s = &self.model.sampling;
        let guidance = match s.null_class.filter(|_| scale > 1.0) {
            Some(null_class) => Guidance::On { guided: s.guided, null_class },
            None => Guidance::Off,
        };
        let (latents, shape) = self.recorded.ranked::<4>("in.latents")?;
        let plan = s.sampler.plan(steps)?;
        let noise = recorded_noise(self.recorded, "in.noise", &s.sampler, plan.steps(), shape)?;
        let size: usize = shape.iter().product();
        let mut run = run_of_plan(&s.sampler, &plan, shape, latents, |k| noise[k * size..(k + 1) * size].to_vec());
        run.inputs.insert("class_labels".into(), self.in_table(Tensor::i32(&[labels.len()], labels))?);
        if guidance != Guidance::Off {
            run.inputs.insert("guidance_scale".into(), Tensor::f32(&[], vec![scale as f32]));
        }
        let dit = Dit(self.config);
        let mut module = sampling_module(&self.model.name, &dit, &s.sampler, guidance, shape[0], self.model.stored())?;
        let mut expected = vec![self.recorded.expect("latents", Source::Output("latents".into()))?];
        if let Some(vae) = &self.model.vae {
            let [batch, latent @ ..] = shape;
            crate::vae::add(&mut module, vae, batch, latent, None, self.model.stored())?;
            let image = self.recorded.expect("image", Source::Picture("image".into()))?;
            expected.push(image.map(|e| Expected { tolerance: TRAJECTORY_TOLERANCE, ..e }));
        }
        Ok(Some(self.case_run("sample", module, run, expected)))
    }

    /// A recorded trajectory `name`: the number of steps is its own.
    #[allow(clippy::too_many_arguments)] // names of recorded tensors
    fn trajectory(
        &self,
        name: &str,
        sampler: &Sampler,
        guidance: Guidance,
        first: &str,
        labels: &str,
        scale: &str,
        noise: &str,
    ) -> Result<CaseRun, Diagnostics> {
        let (_, [points, ..]) = self.recorded.ranked::<5>(&format!("out.{name}"))?;
        let (latents, shape) = self.recorded.ranked::<4>(first)?;
        let plan = sampler.plan(points.saturating_sub(1))?;
        let noise = recorded_noise(self.recorded, noise, sampler, plan.steps(), shape)?;
        let size: usize = shape.iter().product();
        let mut run = run_of_plan(sampler, &plan, shape, latents, |k| noise[k * size..(k + 1) * size].to_vec());
        run.inputs.insert("class_labels".into(), self.labels(labels)?);
        let scale = match self.recorded.has(scale) {
            true => scalar(self.recorded.get(scale)?),
            false => Tensor::f32(&[], vec![self.model.sampling.default_guidance_scale as f32]),
        };
        run.inputs.insert("guidance_scale".into(), scale);
        run.trace = vec!["latents".into()];
        let dit = Dit(self.config);
        let module = sampling_module(&self.model.name, &dit, sampler, guidance, shape[0], self.model.stored())?;
        let expected = self.recorded.expect(name, Source::Trajectory("latents".into()))?;
        Ok(self.case_run(name, module, run, vec![expected]))
    }

    fn labels(&self, name: &str) -> Result<Tensor, Diagnostic> {
        let labels = self.recorded.get(name)?;
        self.in_table(labels)
    }
    /// Labels, checked against the label table.
    fn in_table(&self, labels: Tensor) -> Result<Tensor, Diagnostic> {
        let rows = self.config.label_rows();
        match labels.to_f64().into_iter().find(|&l| l < 0.0 || l >= rows as f64) {
            None => Ok(labels),
            Some(label) => Err(Diagnostic::new("case", "a recorded label is no row of the label table")
                .expected_found(format!("0 to {}", rows - 1), label)),
        }
    }
    fn case_run(&self, name: &str, module: Module, run: Run, expected: Vec<Option<Expected>>) -> CaseRun {
        let weights = self.model.checkpoint.clone();
        CaseRun { name: name.into(), module, weights, run, expected: expected.into_iter().flatten().collect() }
    }
}

/// A recorded number or list as f32 (timesteps are recorded as integers).
fn floats(tensor: Tensor) -> Tensor {
    Tensor::f32(&tensor.sizes(), tensor.to_f32())
}

/// A recorded number, whatever its rank.
fn scalar(tensor: Tensor) -> Tensor {
    Tensor::f32(&[], vec![tensor.to_f32().first().copied().unwrap_or(0.0)])
}
