//! diffusers' `DPMSolverMultistepScheduler`: DPM-Solver++ (Lu et al. 2022), which predicts x0 and extrapolates it in
//! λ = ln(α/σ) from the last one to three predictions.

use super::betas::linspace;
use super::diffusers::{Discrete, Prediction, Spacing, options, unsupported};
use super::sigmas::{FinalSigma, Respacing, TrainingSigmas};
use super::{Coefficients, Noise, StepForm, StepKind, StepPlan};
use selvedge_ir::Diagnostic;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

const CLASS: &str = "DPMSolverMultistepScheduler";
/// Below this number of steps `lower_order_final` acts.
const FEW_STEPS: usize = 15;
/// Options of [`Discrete`] that this class has.
const SHARED: [&str; 12] = [
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
];
const KEYS: [&str; 13] = [
    "solver_order",
    "algorithm_type",
    "solver_type",
    "lower_order_final",
    "euler_at_final",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "flow_shift",
    "final_sigmas_type",
    "lambda_min_clipped",
    "variance_type",
    "use_dynamic_shifting",
    "time_shift_type",
];

/// The scheduler's options, and the arguments of `set_timesteps`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DpmSolver {
    /// Options shared with other schedulers; those of clamping have no effect here.
    #[serde(flatten)]
    pub discrete: Discrete,
    /// How σ are spaced.
    #[serde(flatten)]
    pub respacing: Respacing,
    /// Predictions that a step uses: 1, 2 or 3.
    pub solver_order: usize,
    /// The differential equation that is followed.
    pub algorithm_type: DpmAlgorithm,
    /// Form of the second-order step.
    pub solver_type: DpmSolverType,
    /// The last two steps have orders 2 and 1 in runs of fewer than 15 steps.
    pub lower_order_final: bool,
    /// The last step has order 1.
    pub euler_at_final: bool,
    /// Equal steps of λ.
    pub use_lu_lambdas: bool,
    /// σ of a straight path: α = 1 − σ.
    pub use_flow_sigmas: bool,
    /// Shift of the straight path's σ.
    pub flow_shift: f64,
    /// The σ that a run ends at.
    pub final_sigmas_type: FinalSigma,
    /// Training steps with a smaller λ are left out; absent: none (diffusers writes −Infinity).
    #[serde(deserialize_with = "clipped")]
    pub lambda_min_clipped: Option<f64>,
    /// Has to be absent: models whose output has a variance are cut before.
    pub variance_type: Option<String>,
    /// `mu` may set the flow's shift.
    pub use_dynamic_shifting: bool,
    /// How `mu` shifts.
    pub time_shift_type: DpmTimeShift,
    /// ln of the flow's shift (an argument of `set_timesteps`).
    pub mu: Option<f64>,
}

/// The differential equation that is followed. (`dpmsolver` and `sde-dpmsolver`, which diffusers deprecates, are not defined here.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum DpmAlgorithm {
    /// The ordinary one.
    #[default]
    #[serde(rename = "dpmsolver++", alias = "deis")]
    DpmSolverPlusPlus,
    /// The stochastic one.
    #[serde(rename = "sde-dpmsolver++")]
    SdeDpmSolverPlusPlus,
}

/// Form of the second-order step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DpmSolverType {
    /// The slope is taken in the middle.
    #[default]
    #[serde(alias = "logrho", alias = "bh1", alias = "bh2")]
    Midpoint,
    /// The slope is integrated exactly.
    Heun,
}

/// How `mu` shifts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DpmTimeShift {
    /// By e^mu.
    #[default]
    Exponential,
}

impl Default for DpmSolver {
    fn default() -> DpmSolver {
        DpmSolver {
            discrete: Discrete { timestep_spacing: Spacing::Linspace, ..Discrete::default() },
            respacing: Respacing::default(),
            solver_order: 2,
            algorithm_type: DpmAlgorithm::DpmSolverPlusPlus,
            solver_type: DpmSolverType::Midpoint,
            lower_order_final: true,
            euler_at_final: false,
            use_lu_lambdas: false,
            use_flow_sigmas: false,
            flow_shift: 1.0,
            final_sigmas_type: FinalSigma::Zero,
            lambda_min_clipped: None,
            variance_type: None,
            use_dynamic_shifting: false,
            time_shift_type: DpmTimeShift::Exponential,
            mu: None,
        }
    }
}

impl DpmSolver {
    /// Reads `scheduler_config.json`.
    ///
    /// # Errors
    /// An option that is unknown or not supported.
    pub fn read(config: &Value) -> Result<DpmSolver, Diagnostic> {
        let mut own: DpmSolver = options(CLASS, config, &[&SHARED, &Respacing::KEYS, &KEYS])?;
        own.discrete.linspace_by_default(config);
        own.discrete.check_schedule(CLASS)?;
        own.respacing.check(CLASS)?;
        if !(1..=3).contains(&own.solver_order) {
            return Err(unsupported(CLASS, "solver_order", "1, 2 or 3", own.solver_order));
        }
        if let Some(kind) = &own.variance_type {
            return Err(unsupported(CLASS, "variance_type", "null", format!("`{kind}`")));
        }
        Ok(own)
    }
    /// What the steps compute.
    pub fn form(&self) -> StepForm {
        let noise = match self.algorithm_type {
            DpmAlgorithm::DpmSolverPlusPlus => Noise::None,
            DpmAlgorithm::SdeDpmSolverPlusPlus => Noise::Scaled,
        };
        StepForm {
            functions: vec![StepKind::Affine],
            predicts_x0: true,
            direct: false,
            clip: None,
            noise,
            history: self.solver_order - 1,
            scales_input: false,
        }
    }
    /// Timesteps, and σ at the ends of all steps (one more).
    fn schedule(&self, steps: usize) -> Result<(Vec<f64>, Vec<f64>), Diagnostic> {
        let trained = self.discrete.num_train_timesteps;
        if steps > trained {
            return Err(Diagnostic::new("sampler", "number of steps out of range")
                .expected_found(format!("1 to {trained} (num_train_timesteps)"), steps));
        }
        let training = TrainingSigmas::new(&self.discrete);
        let (log_min, log_max) = training.log_range();
        // Cosine schedules are kept fractional, then cut to whole steps; others are rounded.
        let rounded = self.discrete.beta_schedule != super::betas::BetaSchedule::SquaredcosCapV2;
        let of_sigma = |sigmas: &[f64], round: bool| -> Vec<f64> {
            let whole = |t: f64| if round { t.round_ties_even() } else { t.trunc() };
            sigmas.iter().map(|&s| whole(training.timestep(s))).collect()
        };
        let (timesteps, mut sigmas) = if self.respacing.use_karras_sigmas {
            let sigmas = self.respacing.spaced(training.max(), training.min(), steps).unwrap_or_default();
            (of_sigma(&sigmas, rounded), sigmas)
        } else if self.use_lu_lambdas {
            let sigmas: Vec<f64> = linspace(log_max, log_min, steps).iter().map(|l| l.exp()).collect();
            (of_sigma(&sigmas, rounded), sigmas)
        } else if let Some(sigmas) = self.respacing.spaced(training.max(), training.min(), steps) {
            (of_sigma(&sigmas, false), sigmas)
        } else if self.use_flow_sigmas {
            let shift = self.mu.filter(|_| self.use_dynamic_shifting).map_or(self.flow_shift, f64::exp);
            let all = linspace(1.0, 1.0 / trained as f64, steps + 1);
            let shifted = |s: f64| shift * s / (1.0 + (shift - 1.0) * s);
            let sigmas: Vec<f64> = all[1..].iter().rev().map(|alpha| shifted(1.0 - alpha)).collect();
            (sigmas.iter().map(|s| (s * trained as f64).trunc()).collect(), sigmas)
        } else {
            let timesteps = self.timesteps(steps, &training)?;
            let sigmas = timesteps.iter().map(|&t| training.at(t)).collect();
            (timesteps, sigmas)
        };
        sigmas.push(match self.final_sigmas_type {
            FinalSigma::Zero => 0.0,
            FinalSigma::SigmaMin => training.min(),
        });
        sigmas.iter_mut().for_each(|s| *s = (*s as f32) as f64);
        Ok((timesteps, sigmas))
    }
    /// Training steps of a run; unlike other schedulers, `linspace` and `leading` leave the first one out.
    fn timesteps(&self, steps: usize, training: &TrainingSigmas) -> Result<Vec<f64>, Diagnostic> {
        let trained = self.discrete.num_train_timesteps;
        let lambda = |a: f32| a.sqrt().ln() - (1.0 - a).sqrt().ln();
        let clipped = self
            .lambda_min_clipped
            .map_or(0, |least| training.alphas_cumprod.iter().filter(|&&a| (lambda(a) as f64) < least).count());
        let last = trained - clipped;
        if last == 0 {
            return Err(unsupported(
                CLASS,
                "lambda_min_clipped",
                "a value that some training step reaches",
                "none does",
            ));
        }
        let timesteps: Vec<f64> = match self.discrete.timestep_spacing {
            Spacing::Linspace => {
                linspace(0.0, (last - 1) as f64, steps + 1)[1..].iter().rev().map(|t| t.round_ties_even()).collect()
            }
            Spacing::Leading => {
                let ratio = last / (steps + 1);
                (1..=steps).rev().map(|i| (i * ratio + self.discrete.steps_offset) as f64).collect()
            }
            Spacing::Trailing => {
                let ratio = trained as f64 / steps as f64;
                let count = (last as f64 / ratio).ceil() as usize;
                let delta = (last as f64 - ratio) - last as f64; // as numpy's arange takes its step
                (0..count).map(|i| (last as f64 + i as f64 * delta).round_ties_even() - 1.0).collect()
            }
        };
        match timesteps.iter().find(|&&t| t >= trained as f64 || t < 0.0) {
            None => Ok(timesteps),
            Some(t) => Err(Diagnostic::new("sampler", "a timestep lies beyond the training steps")
                .expected_found(format!("0 to {}", trained - 1), t)
                .help("use fewer steps or a smaller `steps_offset`")),
        }
    }
    /// α and σ of the path x = α·x0 + σ·ε at a noise level.
    fn path(&self, sigma: f64) -> (f64, f64) {
        if self.use_flow_sigmas {
            return (1.0 - sigma, sigma);
        }
        let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
        (alpha, sigma * alpha)
    }
    /// Shares of x and the model's output in x0.
    fn prediction(&self, level: f64) -> (f64, f64) {
        let (alpha, sigma) = self.path(level);
        match self.discrete.prediction_type {
            Prediction::Epsilon => (1.0 / alpha, -sigma / alpha),
            Prediction::Sample => (0.0, 1.0),
            Prediction::VPrediction => (alpha, -sigma),
            Prediction::FlowPrediction => (1.0, -level),
        }
    }
    /// Predictions that step k of a run of `steps` uses.
    fn order(&self, k: usize, steps: usize) -> usize {
        let few = self.lower_order_final && steps < FEW_STEPS;
        let ends = k + 1 == steps && (self.euler_at_final || few || self.final_sigmas_type == FinalSigma::Zero);
        let order = self.solver_order.min(k + 1);
        if ends {
            1
        } else if k + 2 == steps && few {
            order.min(2)
        } else {
            order
        }
    }
    /// The coefficients.
    ///
    /// # Errors
    /// More steps than were trained, timesteps beyond the training steps.
    pub fn plan(&self, steps: usize) -> Result<StepPlan, Diagnostic> {
        let (timesteps, sigmas) = self.schedule(steps)?;
        let steps = timesteps.len();
        let rows = (0..steps).map(|k| self.row(&sigmas, k, self.order(k, steps))).collect();
        let mut plan = StepPlan::affine(timesteps.clone(), rows);
        plan.observed = vec![("timesteps", timesteps), ("sigmas", sigmas)];
        Ok(plan)
    }
    /// Step k, from `sigmas[k]` to `sigmas[k + 1]`, with this many predictions.
    fn row(&self, sigmas: &[f64], k: usize, order: usize) -> Coefficients {
        let lambda = |level: f64| {
            let (alpha, sigma) = self.path(level);
            alpha.ln() - sigma.ln()
        };
        let ((alpha, sigma), (_, from)) = (self.path(sigmas[k + 1]), self.path(sigmas[k]));
        let h = lambda(sigmas[k + 1]) - lambda(sigmas[k]);
        // With d = h, or 2·h if noise is added: x0 held, its slope, its curvature.
        let stochastic = self.algorithm_type == DpmAlgorithm::SdeDpmSolverPlusPlus;
        let d = if stochastic { 2.0 * h } else { h };
        let held = -alpha * (-d).exp_m1();
        let slope = alpha * ((-d).exp_m1() / d + 1.0);
        let curvature = if stochastic {
            alpha * ((-(-d).exp_m1() - d) / (d * d) - 0.5)
        } else {
            -alpha * (((-d).exp_m1() + d) / (d * d) - 0.5)
        };
        let r = |i: usize| (lambda(sigmas[k - i]) - lambda(sigmas[k - i - 1])) / h;
        let [now, previous, older] = match order {
            1 => [held, 0.0, 0.0],
            2 => {
                let share = match self.solver_type {
                    DpmSolverType::Midpoint => 0.5 * held / r(0),
                    DpmSolverType::Heun => slope / r(0),
                };
                [held + share, -share, 0.0]
            }
            _ => {
                let (r0, r1) = (r(0), r(1));
                let mixed = (slope * r0 + curvature) / (r0 + r1);
                let (first, second) = ((slope + mixed) / r0, -mixed / r1);
                [held + first, second - first, -second]
            }
        };
        let (x0_from_x, x0_from_m) = self.prediction(sigmas[k]);
        Coefficients {
            x0_from_x,
            x0_from_m,
            next_from_x0: now,
            next_from_previous: previous,
            next_from_older: older,
            next_from_x: sigma / from * if stochastic { (-h).exp() } else { 1.0 },
            deviation: if stochastic { sigma * (-(-d).exp_m1()).sqrt() } else { 0.0 },
            ..Coefficients::default()
        }
    }
}

/// A number, or null for −∞.
fn clipped<'de, D: Deserializer<'de>>(value: D) -> Result<Option<f64>, D::Error> {
    Ok(Option::<f64>::deserialize(value)?.filter(|x| *x != f64::NEG_INFINITY))
}
