//! diffusers' `DDPMScheduler`.

use super::diffusers::{Discrete, options};
use super::{Coefficients, Noise, StepForm, StepKind, StepPlan};
use selvedge_ir::Diagnostic;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const CLASS: &str = "DDPMScheduler";

/// The scheduler's options.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ddpm {
    /// Options shared with other schedulers.
    #[serde(flatten)]
    pub discrete: Discrete,
    /// Variance of the noise.
    pub variance_type: Variance,
}

/// Variance of a step's noise. (`learned` and `fixed_large_log` take the root of a logarithm in diffusers; they are
/// not defined here.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variance {
    /// The posterior variance.
    #[default]
    FixedSmall,
    /// The same by way of its logarithm.
    FixedSmallLog,
    /// β of the step.
    FixedLarge,
    /// Between both, chosen by the second half of the model's channels.
    LearnedRange,
}

impl Ddpm {
    /// Reads `scheduler_config.json`.
    ///
    /// # Errors
    /// An option that is unknown or not supported.
    pub fn read(config: &Value) -> Result<Ddpm, Diagnostic> {
        let own: Ddpm = options(CLASS, config, &[&Discrete::KEYS, &["variance_type"]])?;
        own.discrete.check(CLASS)?;
        Ok(own)
    }
    /// What the steps compute.
    pub fn form(&self) -> StepForm {
        let noise = match self.variance_type {
            Variance::FixedSmall | Variance::FixedSmallLog | Variance::FixedLarge => Noise::Scaled,
            Variance::LearnedRange => Noise::LearnedRange,
        };
        StepForm {
            functions: vec![StepKind::Affine],
            predicts_x0: true,
            direct: false,
            clip: self.discrete.clip(),
            noise,
            history: 0,
            scales_input: false,
        }
    }
    /// The coefficients.
    ///
    /// # Errors
    /// More steps than were trained, a prediction that is not defined at a step.
    pub fn plan(&self, steps: usize) -> Result<StepPlan, Diagnostic> {
        let timesteps = self.discrete.timesteps(steps)?;
        let cumprod = self.discrete.alphas_cumprod();
        let mut rows = Vec::with_capacity(timesteps.len());
        for (k, &t) in timesteps.iter().enumerate() {
            let bar = cumprod[t];
            let previous = timesteps.get(k + 1).map_or(1.0, |&t| cumprod[t]);
            let alpha = (bar as f32 / previous as f32) as f64; // as the reference holds it: 1 − α is small
            let (x0, _) = self.discrete.predictions(bar, t)?;
            let small = ((1.0 - previous) / (1.0 - bar) * (1.0 - alpha)).max(1e-20);
            let noisy = if t > 0 { 1.0 } else { 0.0 };
            rows.push(Coefficients {
                x0_from_x: x0[0],
                x0_from_m: x0[1],
                next_from_x0: previous.sqrt() * (1.0 - alpha) / (1.0 - bar),
                next_from_x: alpha.sqrt() * (1.0 - previous) / (1.0 - bar),
                deviation: noisy
                    * match self.variance_type {
                        Variance::FixedSmall | Variance::FixedSmallLog => small.sqrt(),
                        Variance::FixedLarge => (1.0 - alpha).sqrt(),
                        Variance::LearnedRange => 1.0,
                    },
                log_variance_min: small.ln(),
                log_variance_max: (1.0 - alpha).max(1e-20).ln(),
                ..Coefficients::default()
            });
        }
        let timesteps: Vec<f64> = timesteps.iter().map(|&t| t as f64).collect();
        let mut plan = StepPlan::affine(timesteps.clone(), rows);
        plan.observed = vec![("timesteps", timesteps)];
        Ok(plan)
    }
}
