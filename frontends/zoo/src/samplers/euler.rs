//! diffusers' `EulerDiscreteScheduler`: Euler's method on dx/dσ, where x = x0 + σ·ε is scaled to unit variance for the model.

use super::betas::{linspace, linspace_f32};
use super::diffusers::{Discrete, Prediction, Spacing, options};
use super::sigmas::{FinalSigma, Respacing, TrainingSigmas};
use super::{Coefficients, Noise, StepForm, StepKind, StepPlan};
use selvedge_ir::Diagnostic;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const CLASS: &str = "EulerDiscreteScheduler";
/// Options of [`Discrete`] that this class has.
const SHARED: [&str; 9] = [
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
];
const KEYS: [&str; 5] = ["interpolation_type", "sigma_min", "sigma_max", "timestep_type", "final_sigmas_type"];

/// The scheduler's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EulerDiscrete {
    /// Options shared with other schedulers; those of clamping have no effect here.
    #[serde(flatten)]
    pub discrete: Discrete,
    /// How σ are spaced.
    #[serde(flatten)]
    pub respacing: Respacing,
    /// How σ are taken between training steps.
    pub interpolation_type: Interpolation,
    /// Smallest σ of a respacing, instead of the run's own.
    pub sigma_min: Option<f64>,
    /// Largest σ of a respacing, instead of the run's own.
    pub sigma_max: Option<f64>,
    /// What the model receives for a timestep.
    pub timestep_type: TimestepType,
    /// The σ that a run ends at.
    pub final_sigmas_type: FinalSigma,
}

/// How σ are taken between training steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Linear in σ at the timesteps.
    Linear,
    /// Equal steps of ln σ over the whole range (one more than steps, so that the run ends at the smallest).
    LogLinear,
}

/// What the model receives for a timestep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepType {
    /// A training step.
    Discrete,
    /// ¼·ln σ, with v-prediction (with others a training step, as in diffusers).
    Continuous,
}

impl Default for EulerDiscrete {
    fn default() -> EulerDiscrete {
        EulerDiscrete {
            discrete: Discrete { timestep_spacing: Spacing::Linspace, ..Discrete::default() },
            respacing: Respacing::default(),
            interpolation_type: Interpolation::Linear,
            sigma_min: None,
            sigma_max: None,
            timestep_type: TimestepType::Discrete,
            final_sigmas_type: FinalSigma::Zero,
        }
    }
}

impl EulerDiscrete {
    /// Reads `scheduler_config.json`.
    ///
    /// # Errors
    /// An option that is unknown or not supported.
    pub fn read(config: &Value) -> Result<EulerDiscrete, Diagnostic> {
        // diffusers knows sample prediction by two names here, and null for options that are off.
        let mut config = config.clone();
        if let Some(map) = config.as_object_mut() {
            map.retain(|key, value| !(value.is_null() && Respacing::KEYS.contains(&key.as_str())));
            if map.get("prediction_type") == Some(&Value::from("original_sample")) {
                map.insert("prediction_type".to_string(), Value::from("sample"));
            }
        }
        let mut own: EulerDiscrete = options(CLASS, &config, &[&SHARED, &Respacing::KEYS, &KEYS])?;
        own.discrete.linspace_by_default(&config);
        own.discrete.check(CLASS)?;
        own.respacing.check(CLASS)?;
        Ok(own)
    }
    /// What the steps compute.
    pub fn form(&self) -> StepForm {
        StepForm {
            functions: vec![StepKind::Affine],
            predicts_x0: true,
            direct: true,
            clip: None,
            noise: Noise::None,
            history: 0,
            scales_input: true,
        }
    }
    /// Timesteps, and σ at the ends of all steps (at least one more).
    fn schedule(&self, steps: usize) -> Result<(Vec<f64>, Vec<f64>), Diagnostic> {
        let trained = self.discrete.num_train_timesteps;
        let single = |t: f64| (t as f32) as f64;
        let mut timesteps: Vec<f64> = match self.discrete.timestep_spacing {
            Spacing::Linspace => linspace(0.0, (trained - 1) as f64, steps).iter().rev().map(|&t| single(t)).collect(),
            Spacing::Leading | Spacing::Trailing => self.discrete.timesteps(steps)?.iter().map(|&t| t as f64).collect(),
        };
        let training = TrainingSigmas::new(&self.discrete);
        let mut sigmas: Vec<f64> = match self.interpolation_type {
            Interpolation::Linear => timesteps.iter().map(|&t| training.at(t)).collect(),
            Interpolation::LogLinear => {
                let (low, high) = training.log_range();
                linspace_f32(high as f32, low as f32, steps + 1).iter().map(|l| l.exp() as f64).collect()
            }
        };
        let ends = sigmas.first().zip(sigmas.last());
        let (max, min) = ends.map_or((0.0, 0.0), |(a, b)| (self.sigma_max.unwrap_or(*a), self.sigma_min.unwrap_or(*b)));
        if let Some(spaced) = self.respacing.spaced(max, min, steps) {
            timesteps = spaced.iter().map(|&s| training.timestep(s)).collect();
            sigmas = spaced;
        }
        sigmas.push(match self.final_sigmas_type {
            FinalSigma::Zero => 0.0,
            FinalSigma::SigmaMin => training.min(),
        });
        sigmas.iter_mut().for_each(|s| *s = single(*s));
        if self.timestep_type == TimestepType::Continuous && self.discrete.prediction_type == Prediction::VPrediction {
            timesteps = sigmas[..timesteps.len()].iter().map(|s| 0.25 * s.ln()).collect();
        }
        Ok((timesteps, sigmas))
    }
    /// The coefficients.
    ///
    /// # Errors
    /// More steps than were trained with leading or trailing spacing.
    pub fn plan(&self, steps: usize) -> Result<StepPlan, Diagnostic> {
        let (timesteps, sigmas) = self.schedule(steps)?;
        let step = |pair: &[f64]| {
            let (sigma, next) = (pair[0], pair[1]);
            let variance = sigma * sigma + 1.0;
            let (x0_from_x, x0_from_m) = match self.discrete.prediction_type {
                Prediction::Epsilon => (1.0, -sigma),
                Prediction::Sample => (0.0, 1.0),
                Prediction::VPrediction => (1.0 / variance, -sigma / variance.sqrt()),
                Prediction::FlowPrediction => (f64::NAN, f64::NAN), // refused by `read`; undefined coefficients are refused, too
            };
            let dt = next - sigma;
            Coefficients {
                x0_from_x,
                x0_from_m,
                next_from_x: 1.0 + dt * (1.0 - x0_from_x) / sigma,
                next_from_m: -dt * x0_from_m / sigma,
                input_scale: 1.0 / variance.sqrt(),
                ..Coefficients::default()
            }
        };
        let rows = sigmas.windows(2).take(timesteps.len()).map(step).collect();
        let mut plan = StepPlan::affine(timesteps.clone(), rows);
        let max = sigmas.iter().copied().fold(0.0, f64::max);
        plan.init_noise_sigma = match self.discrete.timestep_spacing {
            Spacing::Linspace | Spacing::Trailing => max,
            Spacing::Leading => (max * max + 1.0).sqrt(),
        };
        plan.observed = vec![("timesteps", timesteps), ("sigmas", sigmas)];
        Ok(plan)
    }
}
