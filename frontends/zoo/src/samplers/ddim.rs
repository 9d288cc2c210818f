//! diffusers' `DDIMScheduler`.

use super::diffusers::{Discrete, options};
use super::{Coefficients, Noise, StepForm, StepKind, StepPlan};
use selvedge_ir::Diagnostic;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const CLASS: &str = "DDIMScheduler";

/// The scheduler's options, and those of its `step`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ddim {
    /// Options shared with other schedulers.
    #[serde(flatten)]
    pub discrete: Discrete,
    /// The last step ends at ᾱ = 1; otherwise at the first training step's.
    pub set_alpha_to_one: bool,
    /// Share of the DDPM noise (an argument of `step`, 0 by default).
    pub eta: f64,
    /// ε is derived again from the clamped x0 (an argument of `step`).
    pub use_clipped_model_output: bool,
}

impl Default for Ddim {
    fn default() -> Ddim {
        Ddim { discrete: Discrete::default(), set_alpha_to_one: true, eta: 0.0, use_clipped_model_output: false }
    }
}

impl Ddim {
    /// Reads `scheduler_config.json`.
    ///
    /// # Errors
    /// An option that is unknown or not supported.
    pub fn read(config: &Value) -> Result<Ddim, Diagnostic> {
        let own: Ddim = options(CLASS, config, &[&Discrete::KEYS, &["set_alpha_to_one"]])?;
        own.discrete.check(CLASS)?;
        Ok(own)
    }
    /// What the steps compute.
    pub fn form(&self) -> StepForm {
        let noise = if self.eta == 0.0 { Noise::None } else { Noise::Scaled };
        StepForm {
            functions: vec![StepKind::Affine],
            predicts_x0: true,
            direct: true,
            clip: self.discrete.clip(),
            noise,
            history: 0,
            scales_input: false,
        }
    }
    /// σ and √(1 − ᾱ_prev − σ²), the share of ε; in f32, since with η near 1 the difference cancels and what the reference
    /// steps with is its rounding.
    fn noise(&self, bar: f32, previous: f32) -> (f64, f64) {
        let variance = (1.0 - previous) / (1.0 - bar) * (1.0 - bar / previous);
        let deviation = self.eta as f32 * variance.max(0.0).sqrt();
        let direction = (1.0 - previous - deviation * deviation).max(0.0).sqrt();
        (deviation as f64, direction as f64)
    }
    /// The coefficients.
    ///
    /// # Errors
    /// More steps than were trained, a prediction that is not defined at a step.
    pub fn plan(&self, steps: usize) -> Result<StepPlan, Diagnostic> {
        let timesteps = self.discrete.timesteps(steps)?;
        let cumprod = self.discrete.alphas_cumprod();
        let last = if self.set_alpha_to_one { 1.0 } else { cumprod[0] };
        let stride = self.discrete.num_train_timesteps / steps;
        let mut rows = Vec::with_capacity(timesteps.len());
        for &t in &timesteps {
            let bar = cumprod[t];
            let previous = t.checked_sub(stride).map_or(last, |t| cumprod[t]);
            let (x0, mut epsilon) = self.discrete.predictions(bar, t)?;
            let (deviation, direction) = self.noise(bar as f32, previous as f32);
            let mut next_from_x0 = previous.sqrt();
            if self.use_clipped_model_output {
                let noise = (1.0 - bar).sqrt();
                next_from_x0 -= direction * bar.sqrt() / noise;
                epsilon = [1.0 / noise, 0.0];
            }
            rows.push(Coefficients {
                x0_from_x: x0[0],
                x0_from_m: x0[1],
                next_from_x0,
                next_from_x: direction * epsilon[0],
                next_from_m: direction * epsilon[1],
                deviation,
                ..Coefficients::default()
            });
        }
        let timesteps: Vec<f64> = timesteps.iter().map(|&t| t as f64).collect();
        let mut plan = StepPlan::affine(timesteps.clone(), rows);
        plan.observed = vec![("timesteps", timesteps)];
        Ok(plan)
    }
}
