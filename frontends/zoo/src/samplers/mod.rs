//! Samplers: what the host computes before a run (in f64, as table rows) and what a step computes on the device.
//!
//! A [`Sampler`] is a configuration. [`Sampler::form`] says which arithmetic its steps need (compile-time data);
//! [`Sampler::plan`] gives the coefficients for a number of steps (run-time data). Nearly all samplers are one
//! affine step:
//!
//! ```text
//! x0   = x0_from_x · x + x0_from_m · m         m: the model's output; clamped if the form says so
//! next = next_from_x0 · x0 + next_from_x · x + next_from_m · m + deviation · noise
//! ```
//!
//! and differ in the coefficients only. Multistep samplers add earlier predictions of x0 to `next`, and carry them.

pub mod betas;
pub mod ddim;
pub mod ddpm;
pub mod diffusers;
pub mod dpm_solver;
pub mod euler;
pub mod flow_match_euler;
pub mod gaussian;
pub mod rectified_flow;
pub mod sigmas;
pub mod step;

pub use ddim::Ddim;
pub use ddpm::Ddpm;
pub use dpm_solver::DpmSolver;
pub use euler::EulerDiscrete;
pub use flow_match_euler::FlowMatchEuler;
pub use gaussian::{Gaussian, GaussianMethod};
pub use rectified_flow::{FlowMethod, RectifiedFlow};

use selvedge_ir::Diagnostic;
use serde::{Deserialize, Serialize};

/// Most steps of a run, and of a training schedule; beyond it tables would not fit memory, and nothing would be gained.
pub const MAX_STEPS: usize = 100_000;

/// A sampler with its configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Sampler {
    /// Gaussian diffusion as in the DiT repository.
    Gaussian(Gaussian),
    /// diffusers' `DDIMScheduler`.
    Ddim(Ddim),
    /// diffusers' `DDPMScheduler`.
    Ddpm(Ddpm),
    /// diffusers' `DPMSolverMultistepScheduler`.
    DpmSolver(DpmSolver),
    /// diffusers' `EulerDiscreteScheduler`.
    EulerDiscrete(EulerDiscrete),
    /// diffusers' `FlowMatchEulerDiscreteScheduler`.
    FlowMatchEuler(FlowMatchEuler),
    /// Straight paths between noise and data, followed by Euler's or Heun's method.
    RectifiedFlow(RectifiedFlow),
}

/// What the steps of a sampler compute; fixed when a program is compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct StepForm {
    /// Step functions, in the order of [`StepPlan::functions`].
    pub functions: Vec<StepKind>,
    /// The steps predict x0; it may be traced as `pred_xstart`.
    pub predicts_x0: bool,
    /// The model's output enters the next x directly, not only by way of x0.
    pub direct: bool,
    /// x0 is clamped to [−clip, clip].
    pub clip: Option<f64>,
    /// How noise enters.
    pub noise: Noise,
    /// Earlier predictions of x0 that steps read, carried under the names [`HISTORY`]: at most two, and none before there is one.
    pub history: usize,
    /// The model sees x times `input_scale`.
    pub scales_input: bool,
}

/// Names of the carried predictions of x0, the last step's first.
pub const HISTORY: [&str; 2] = ["previous_x0", "older_x0"];

/// The method of one step function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// One evaluation of the model and the affine step.
    Affine,
    /// Two evaluations: an Euler step, then the step with the mean of both slopes (no x0, no noise).
    Heun,
}

impl StepKind {
    /// Name of the step function in a program.
    pub fn function_name(self) -> &'static str {
        match self {
            StepKind::Affine => "step",
            StepKind::Heun => "step_heun",
        }
    }
}

/// How noise enters a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// Not at all; programs have no noise input.
    None,
    /// With the deviation of the row.
    Scaled,
    /// With deviation exp(½·log variance), where the second half of the model's channels, v in [−1, 1],
    /// chooses log variance between the row's bounds; times the row's deviation (0 or 1).
    LearnedRange,
}

/// Coefficients of one step, in the order of a row of the table `coefficients`.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Coefficients {
    /// Share of x in the predicted x0.
    pub x0_from_x: f64,
    /// Share of the model's output in the predicted x0.
    pub x0_from_m: f64,
    /// Share of x0 in the next x.
    pub next_from_x0: f64,
    /// Share of x in the next x.
    pub next_from_x: f64,
    /// Share of the model's output in the next x.
    pub next_from_m: f64,
    /// Multiplies the noise.
    pub deviation: f64,
    /// Log variance at v = −1 ([`Noise::LearnedRange`]).
    pub log_variance_min: f64,
    /// Log variance at v = 1.
    pub log_variance_max: f64,
    /// Share of the last step's x0 in the next x ([`StepForm::history`]).
    pub next_from_previous: f64,
    /// Share of the x0 before that.
    pub next_from_older: f64,
    /// Multiplies x for the model ([`StepForm::scales_input`]).
    pub input_scale: f64,
}

impl Coefficients {
    /// Entries of a row.
    pub const COUNT: usize = 11;

    /// The row.
    pub fn row(&self) -> [f32; Coefficients::COUNT] {
        [
            self.x0_from_x,
            self.x0_from_m,
            self.next_from_x0,
            self.next_from_x,
            self.next_from_m,
            self.deviation,
            self.log_variance_min,
            self.log_variance_max,
            self.next_from_previous,
            self.next_from_older,
            self.input_scale,
        ]
        .map(|x| x as f32)
    }
}

/// The host's part of a run. All lists have one entry a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepPlan {
    /// Which of the form's functions runs.
    pub functions: Vec<usize>,
    /// The timestep that the model receives.
    pub timesteps: Vec<f64>,
    /// The timestep of the second evaluation of [`StepKind::Heun`] (elsewhere the step's end).
    pub next_timesteps: Vec<f64>,
    /// The step's coefficients.
    pub coefficients: Vec<Coefficients>,
    /// Standard deviation of the noise that a run starts from.
    pub init_noise_sigma: f64,
    /// Schedule values to look at, by the reference's name (`sigmas`, `betas`, `posterior_variance` …).
    pub observed: Vec<(&'static str, Vec<f64>)>,
}

impl StepPlan {
    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.functions.len()
    }
    /// A plan of affine steps.
    fn affine(timesteps: Vec<f64>, coefficients: Vec<Coefficients>) -> StepPlan {
        let next_timesteps = timesteps.iter().skip(1).copied().chain([0.0]).take(timesteps.len()).collect();
        StepPlan {
            functions: vec![0; timesteps.len()],
            timesteps,
            next_timesteps,
            coefficients,
            init_noise_sigma: 1.0,
            observed: Vec::new(),
        }
    }
}

impl Sampler {
    /// What the steps compute.
    pub fn form(&self) -> StepForm {
        match self {
            Sampler::Gaussian(s) => s.form(),
            Sampler::Ddim(s) => s.form(),
            Sampler::Ddpm(s) => s.form(),
            Sampler::DpmSolver(s) => s.form(),
            Sampler::EulerDiscrete(s) => s.form(),
            Sampler::FlowMatchEuler(s) => s.form(),
            Sampler::RectifiedFlow(s) => s.form(),
        }
    }
    /// The coefficients of a run of `steps` steps.
    ///
    /// # Errors
    /// Zero steps, more steps than the schedule has, or options that cannot be combined.
    pub fn plan(&self, steps: usize) -> Result<StepPlan, Diagnostic> {
        if steps == 0 {
            return Err(Diagnostic::new("sampler", "a run needs at least one step")
                .expected_found("1 step or more", 0)
                .help("give a positive number of steps"));
        }
        if steps > MAX_STEPS {
            return Err(
                Diagnostic::new("sampler", "too many steps").expected_found(format!("at most {MAX_STEPS}"), steps)
            );
        }
        let plan = match self {
            Sampler::Gaussian(s) => s.plan(steps),
            Sampler::Ddim(s) => s.plan(steps),
            Sampler::Ddpm(s) => s.plan(steps),
            Sampler::DpmSolver(s) => s.plan(steps),
            Sampler::EulerDiscrete(s) => s.plan(steps),
            Sampler::FlowMatchEuler(s) => s.plan(steps),
            Sampler::RectifiedFlow(s) => s.plan(steps),
        }?;
        match plan.coefficients.iter().position(|c| c.row().iter().any(|x| !x.is_finite())) {
            None => Ok(plan),
            Some(k) => Err(Diagnostic::new("sampler", format!("step {k} of {steps} is not defined by this schedule"))
                .expected_found("finite coefficients", format!("{:?}", plan.coefficients[k]))
                .help("the schedule has no noise or no signal left there, or is degenerate for so few steps")),
        }
    }
}
