//! diffusers' `FlowMatchEulerDiscreteScheduler`.

use super::betas::linspace;
use super::diffusers::{options, unsupported};
use super::sigmas::Respacing;
use super::{Coefficients, Noise, StepForm, StepKind, StepPlan};
use selvedge_ir::Diagnostic;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const CLASS: &str = "FlowMatchEulerDiscreteScheduler";
const KEYS: [&str; 11] = [
    "num_train_timesteps",
    "shift",
    "use_dynamic_shifting",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "invert_sigmas",
    "shift_terminal",
    "time_shift_type",
    "stochastic_sampling",
];

/// The scheduler's options, and the arguments of `set_timesteps`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowMatchEuler {
    /// σ = 1 is timestep `num_train_timesteps`.
    pub num_train_timesteps: usize,
    /// Static shift of σ.
    pub shift: f64,
    /// σ is shifted by `mu` instead of `shift`.
    pub use_dynamic_shifting: bool,
    /// `mu` at `base_image_seq_len` tokens.
    pub base_shift: f64,
    /// `mu` at `max_image_seq_len` tokens.
    pub max_shift: f64,
    /// Tokens of the smallest image.
    pub base_image_seq_len: usize,
    /// Tokens of the largest image.
    pub max_image_seq_len: usize,
    /// σ runs from 0 to 1.
    pub invert_sigmas: bool,
    /// σ is stretched to end at this value.
    pub shift_terminal: Option<f64>,
    /// How σ are spaced between the shifted ends.
    #[serde(flatten)]
    pub respacing: Respacing,
    /// How `mu` shifts.
    pub time_shift_type: TimeShift,
    /// Each step goes to x0 and noises again.
    pub stochastic_sampling: bool,
    /// Amount of dynamic shifting (an argument of `set_timesteps`; see [`FlowMatchEuler::mu_for_tokens`]).
    pub mu: Option<f64>,
    /// σ of the steps before shifting, given one by one (an argument of `set_timesteps`).
    pub sigmas: Option<Vec<f64>>,
    /// As if `sigmas` were 1, …, 1/steps in equal steps, which is what FLUX's pipeline gives.
    pub sigmas_by_steps: bool,
}

/// Kind of dynamic shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeShift {
    /// e^mu takes the part of the shift.
    Exponential,
    /// mu does.
    Linear,
}

impl Default for FlowMatchEuler {
    fn default() -> FlowMatchEuler {
        FlowMatchEuler {
            num_train_timesteps: 1000,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: 0.5,
            max_shift: 1.15,
            base_image_seq_len: 256,
            max_image_seq_len: 4096,
            invert_sigmas: false,
            shift_terminal: None,
            respacing: Respacing::default(),
            time_shift_type: TimeShift::Exponential,
            stochastic_sampling: false,
            mu: None,
            sigmas: None,
            sigmas_by_steps: false,
        }
    }
}

impl FlowMatchEuler {
    /// Reads `scheduler_config.json`.
    ///
    /// # Errors
    /// An option that is unknown or not supported.
    pub fn read(config: &Value) -> Result<FlowMatchEuler, Diagnostic> {
        let own: FlowMatchEuler = options(CLASS, config, &[&KEYS, &Respacing::KEYS])?;
        own.respacing.check(CLASS)?;
        if own.num_train_timesteps == 0 {
            return Err(unsupported(CLASS, "num_train_timesteps", "a positive number", "0"));
        }
        Ok(own)
    }
    /// `mu` as the pipelines compute it: linear in the number of image tokens.
    pub fn mu_for_tokens(&self, tokens: usize) -> f64 {
        let (base, max) = (self.base_image_seq_len as f64, self.max_image_seq_len as f64);
        let slope = (self.max_shift - self.base_shift) / (max - base);
        self.base_shift + slope * (tokens as f64 - base)
    }
    /// What the steps compute.
    pub fn form(&self) -> StepForm {
        let noise = if self.stochastic_sampling { Noise::Scaled } else { Noise::None };
        let stochastic = self.stochastic_sampling;
        StepForm {
            functions: vec![StepKind::Affine],
            predicts_x0: stochastic,
            direct: !stochastic,
            clip: None,
            noise,
            history: 0,
            scales_input: false,
        }
    }
    /// σ at the ends of all steps (one more than steps), in f64.
    ///
    /// # Errors
    /// Dynamic shifting without `mu`, or `sigmas` of another length.
    pub fn sigmas(&self, steps: usize) -> Result<Vec<f64>, Diagnostic> {
        let shifted = |s: f64| self.shift * s / (1.0 + (self.shift - 1.0) * s);
        let mut sigmas = match &self.sigmas {
            Some(own) if own.len() != steps => {
                return Err(Diagnostic::new("sampler", "the given sigmas fix the number of steps")
                    .expected_found(own.len(), steps));
            }
            Some(own) => own.clone(),
            None if self.sigmas_by_steps => linspace(1.0, 1.0 / steps as f64, steps),
            None => {
                // The ends are shifted once here and all values again below, as the reference does.
                let end = |t: f64| if self.use_dynamic_shifting { t } else { shifted(t) };
                linspace(end(1.0), end(1.0 / self.num_train_timesteps as f64), steps)
            }
        };
        if self.use_dynamic_shifting {
            let mu = self.mu.ok_or_else(|| {
                Diagnostic::new("sampler", "dynamic shifting needs an amount")
                    .expected_found("`mu`", "none")
                    .help("set `mu`, or derive it from the number of image tokens")
            })?;
            let amount = match self.time_shift_type {
                TimeShift::Exponential => mu.exp(),
                TimeShift::Linear => mu,
            };
            sigmas.iter_mut().for_each(|s| *s = amount / (amount + (1.0 / *s - 1.0)));
        } else {
            sigmas.iter_mut().for_each(|s| *s = shifted(*s));
        }
        if let (Some(terminal), Some(&last)) = (self.shift_terminal.filter(|&t| t != 0.0), sigmas.last()) {
            let scale = (1.0 - last) / (1.0 - terminal);
            sigmas.iter_mut().for_each(|s| *s = 1.0 - (1.0 - *s) / scale);
        }
        if let (Some(&max), Some(&min)) = (sigmas.first(), sigmas.last())
            && let Some(spaced) = self.respacing.spaced(max, min, steps)
        {
            sigmas = spaced;
        }
        if self.invert_sigmas {
            sigmas.iter_mut().for_each(|s| *s = 1.0 - *s);
        }
        sigmas.push(if self.invert_sigmas { 1.0 } else { 0.0 });
        Ok(sigmas)
    }
    /// The coefficients.
    ///
    /// # Errors
    /// As [`FlowMatchEuler::sigmas`].
    pub fn plan(&self, steps: usize) -> Result<StepPlan, Diagnostic> {
        let sigmas = self.sigmas(steps)?;
        let step = |pair: &[f64]| {
            let (sigma, next) = (pair[0], pair[1]);
            if self.stochastic_sampling {
                Coefficients {
                    x0_from_x: 1.0,
                    x0_from_m: -sigma,
                    next_from_x0: 1.0 - next,
                    deviation: next,
                    ..Coefficients::default()
                }
            } else {
                Coefficients { next_from_x: 1.0, next_from_m: next - sigma, ..Coefficients::default() }
            }
        };
        let timesteps: Vec<f64> = sigmas[..steps].iter().map(|s| s * self.num_train_timesteps as f64).collect();
        let mut plan = StepPlan::affine(timesteps.clone(), sigmas.windows(2).map(step).collect());
        plan.observed = vec![("timesteps", timesteps), ("sigmas", sigmas)];
        Ok(plan)
    }
}
