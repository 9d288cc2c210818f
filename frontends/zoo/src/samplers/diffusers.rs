//! What diffusers' discrete schedulers share: the noise schedule, the choice of timesteps, the prediction type, and
//! reading a `scheduler_config.json`.

use super::betas::{BetaSchedule, alphas_cumprod_f32, linspace, rescale_zero_terminal_snr};
use super::{Ddim, Ddpm, DpmSolver, EulerDiscrete, FlowMatchEuler, MAX_STEPS, Sampler};
use selvedge_ir::Diagnostic;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Scheduler classes that can be read.
pub const CLASSES: [&str; 5] = [
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
];

/// Options of all discrete schedulers, by diffusers' names and with its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Discrete {
    /// Number of training steps.
    pub num_train_timesteps: usize,
    /// First β.
    pub beta_start: f64,
    /// Last β.
    pub beta_end: f64,
    /// How β runs between them.
    pub beta_schedule: BetaSchedule,
    /// β given one by one instead.
    pub trained_betas: Option<Vec<f64>>,
    /// β are rescaled so that the last step has no signal.
    pub rescale_betas_zero_snr: bool,
    /// What the model predicts.
    pub prediction_type: Prediction,
    /// x0 is clamped.
    pub clip_sample: bool,
    /// Bound of the clamp.
    pub clip_sample_range: f64,
    /// How the timesteps of a run are chosen.
    pub timestep_spacing: Spacing,
    /// Added to the timesteps of leading spacing.
    pub steps_offset: usize,
    /// Dynamic thresholding; not supported.
    pub thresholding: bool,
    /// Has no effect without `thresholding`.
    pub dynamic_thresholding_ratio: f64,
    /// Has no effect without `thresholding`.
    pub sample_max_value: f64,
}

/// What a model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise ε.
    Epsilon,
    /// x0.
    Sample,
    /// v = √ᾱ·ε − √(1 − ᾱ)·x0.
    VPrediction,
    /// The velocity ε − x0 of a straight path (DPM-Solver only).
    FlowPrediction,
}

/// How the timesteps of a run are chosen from the training steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Multiples of the whole ratio, from 0.
    Leading,
    /// Back from the last step by the ratio.
    Trailing,
    /// Both ends and equal steps between.
    Linspace,
}

impl Default for Discrete {
    fn default() -> Discrete {
        Discrete {
            num_train_timesteps: 1000,
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::Linear,
            trained_betas: None,
            rescale_betas_zero_snr: false,
            prediction_type: Prediction::Epsilon,
            clip_sample: true,
            clip_sample_range: 1.0,
            timestep_spacing: Spacing::Leading,
            steps_offset: 0,
            thresholding: false,
            dynamic_thresholding_ratio: 0.995,
            sample_max_value: 1.0,
        }
    }
}

impl Discrete {
    /// Names of the options.
    pub const KEYS: [&str; 14] = [
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
        "prediction_type",
        "clip_sample",
        "clip_sample_range",
        "timestep_spacing",
        "steps_offset",
        "thresholding",
        "dynamic_thresholding_ratio",
        "sample_max_value",
    ];

    /// Refuses what is not supported.
    pub(super) fn check(&self, class: &str) -> Result<(), Diagnostic> {
        if self.prediction_type == Prediction::FlowPrediction {
            let expected = "epsilon, sample or v_prediction";
            return Err(unsupported(class, "prediction_type", expected, "flow_prediction"));
        }
        self.check_schedule(class)
    }
    /// As [`Discrete::check`], any prediction type.
    pub(super) fn check_schedule(&self, class: &str) -> Result<(), Diagnostic> {
        if self.thresholding {
            return Err(unsupported(class, "thresholding", "false", "true"));
        }
        if !(1..=MAX_STEPS).contains(&self.num_train_timesteps) {
            let expected = format!("1 to {MAX_STEPS}");
            return Err(unsupported(class, "num_train_timesteps", expected, self.num_train_timesteps));
        }
        if let Some(betas) = &self.trained_betas
            && betas.len() != self.num_train_timesteps
        {
            return Err(unsupported(
                class,
                "trained_betas",
                format!("{} values (num_train_timesteps)", self.num_train_timesteps),
                betas.len(),
            ));
        }
        Ok(())
    }
    /// Some classes choose `linspace` where a configuration does not say.
    pub(super) fn linspace_by_default(&mut self, config: &Value) {
        if config.get("timestep_spacing").is_none() {
            self.timestep_spacing = Spacing::Linspace;
        }
    }
    /// Bound of the clamp on x0.
    pub(super) fn clip(&self) -> Option<f64> {
        self.clip_sample.then_some(self.clip_sample_range)
    }
    /// ᾱ of each training step.
    pub fn alphas_cumprod(&self) -> Vec<f64> {
        let betas = match &self.trained_betas {
            Some(betas) => betas.iter().map(|&b| b as f32).collect(),
            None => self.beta_schedule.f32_tensor(self.beta_start, self.beta_end, self.num_train_timesteps),
        };
        let betas = if self.rescale_betas_zero_snr { rescale_zero_terminal_snr(&betas) } else { betas };
        alphas_cumprod_f32(&betas)
    }
    /// The training steps of a run, falling.
    ///
    /// # Errors
    /// More steps than were trained, or an offset beyond the last training step.
    pub fn timesteps(&self, steps: usize) -> Result<Vec<usize>, Diagnostic> {
        let trained = self.num_train_timesteps;
        if steps == 0 || steps > trained {
            return Err(Diagnostic::new("sampler", "number of steps out of range")
                .expected_found(format!("1 to {trained} (num_train_timesteps)"), steps));
        }
        let timesteps: Vec<usize> = match self.timestep_spacing {
            Spacing::Leading => (0..steps).rev().map(|i| i * (trained / steps) + self.steps_offset).collect(),
            Spacing::Linspace => {
                linspace(0.0, (trained - 1) as f64, steps).iter().rev().map(|t| t.round_ties_even() as usize).collect()
            }
            Spacing::Trailing => {
                let ratio = trained as f64 / steps as f64;
                let count = (trained as f64 / ratio).ceil() as usize;
                let delta = (trained as f64 - ratio) - trained as f64; // as numpy's arange takes its step
                (0..count)
                    .map(|i| ((trained as f64 + i as f64 * delta).round_ties_even() as usize).saturating_sub(1))
                    .collect()
            }
        };
        match timesteps.iter().find(|&&t| t >= trained) {
            None => Ok(timesteps),
            Some(t) => Err(Diagnostic::new("sampler", "a timestep lies beyond the training steps")
                .expected_found(format!("below {trained}"), t)
                .help("use fewer steps or a smaller `steps_offset`")),
        }
    }
    /// Shares of x and the model's output in x0, and in ε.
    ///
    /// # Errors
    /// ε prediction at a step without signal, sample prediction at a step without noise.
    pub(super) fn predictions(&self, bar: f64, timestep: usize) -> Result<([f64; 2], [f64; 2]), Diagnostic> {
        let (signal, noise) = (bar.sqrt(), (1.0 - bar).sqrt());
        let undefined = |what: &str| {
            Diagnostic::new("sampler", format!("{what} prediction is not defined at timestep {timestep}"))
                .expected_found("0 < alphas_cumprod < 1", bar)
        };
        match self.prediction_type {
            Prediction::Epsilon if signal == 0.0 => Err(undefined("epsilon")
                .help("a schedule rescaled to zero terminal SNR goes with `v_prediction`, or leave the last step out")),
            Prediction::Epsilon => Ok(([1.0 / signal, -noise / signal], [0.0, 1.0])),
            Prediction::Sample if noise == 0.0 => Err(undefined("sample")),
            Prediction::Sample => Ok(([0.0, 1.0], [1.0 / noise, -signal / noise])),
            Prediction::VPrediction => Ok(([signal, -noise], [noise, signal])),
            Prediction::FlowPrediction => Err(undefined("flow")),
        }
    }
}

/// Reads a scheduler's configuration (`scheduler_config.json`).
///
/// # Errors
/// An unknown class, an option that the class does not have or that is not supported, a value of a wrong kind.
pub fn read(class: &str, config: &Value) -> Result<Sampler, Diagnostic> {
    match class {
        "DDIMScheduler" => Ddim::read(config).map(Sampler::Ddim),
        "DDPMScheduler" => Ddpm::read(config).map(Sampler::Ddpm),
        "DPMSolverMultistepScheduler" => DpmSolver::read(config).map(Sampler::DpmSolver),
        "EulerDiscreteScheduler" => EulerDiscrete::read(config).map(Sampler::EulerDiscrete),
        "FlowMatchEulerDiscreteScheduler" => FlowMatchEuler::read(config).map(Sampler::FlowMatchEuler),
        other => Err(Diagnostic::new("sampler", format!("unknown scheduler class `{other}`"))
            .expected_found(CLASSES.join(", "), format!("`{other}`"))
            .help("choose one of these in scheduler_config.json and model_index.json")),
    }
}

/// Options of a class from JSON; keys that begin with `_` are notes.
pub(super) fn options<T: DeserializeOwned>(class: &str, config: &Value, known: &[&[&str]]) -> Result<T, Diagnostic> {
    // Left in many files by the scheduler they were converted from; the class itself drops it.
    const DROPPED: &str = "skip_prk_steps";
    let Some(map) = config.as_object() else {
        return Err(Diagnostic::new("sampler", format!("the configuration of {class} is not a JSON object")));
    };
    let known: Vec<&str> = known.iter().flat_map(|k| k.iter().copied()).collect();
    let mut own = serde_json::Map::new();
    for (key, value) in map.iter().filter(|(k, _)| !k.starts_with('_') && *k != DROPPED) {
        if !known.contains(&key.as_str()) {
            return Err(Diagnostic::new("sampler", format!("{class} has no option `{key}`"))
                .expected_found(known.join(", "), format!("`{key}`"))
                .help("remove it from scheduler_config.json if it has no effect, or choose the class that has it"));
        }
        own.insert(key.clone(), value.clone());
    }
    // One by one first, so that the error names the option.
    for (key, value) in &own {
        let alone = Value::Object([(key.clone(), value.clone())].into_iter().collect());
        if let Err(e) = serde_json::from_value::<T>(alone) {
            return Err(Diagnostic::new("sampler", format!("option `{key}` of {class} is not supported: {e}")).help(
                "change it in scheduler_config.json; the pictures will differ from those of the original schedule",
            ));
        }
    }
    serde_json::from_value(Value::Object(own)).map_err(|e| Diagnostic::new("sampler", format!("{class}: {e}")))
}

/// An option whose value is not supported.
pub(super) fn unsupported(
    class: &str,
    option: &str,
    expected: impl std::fmt::Display,
    found: impl std::fmt::Display,
) -> Diagnostic {
    Diagnostic::new("sampler", format!("option `{option}` of {class} is not supported with this value"))
        .expected_found(expected, found)
        .help("change it in scheduler_config.json; the pictures will differ from those of the original schedule")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(spacing: Spacing, steps: usize) -> Vec<usize> {
        Discrete { timestep_spacing: spacing, ..Discrete::default() }.timesteps(steps).unwrap()
    }

    /// Values from the paper on sample steps (Lin et al. 2023, table 2), shifted to count from 0.
    #[test]
    fn spacings_are_those_of_the_paper() {
        assert_eq!(with(Spacing::Leading, 10), [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]);
        assert_eq!(with(Spacing::Trailing, 10), [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]);
        assert_eq!(with(Spacing::Linspace, 10), [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]);
        assert_eq!(with(Spacing::Trailing, 7), [999, 856, 713, 570, 428, 285, 142]);
    }

    #[test]
    fn options_that_are_not_supported_are_named() {
        let config = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        for (class, text, named) in [
            ("DDIMScheduler", r#"{"thresholding": true}"#, "thresholding"),
            ("DDIMScheduler", r#"{"variance_type": "fixed_small"}"#, "variance_type"),
            ("DDIMScheduler", r#"{"beta_schedule": "sigmoid"}"#, "beta_schedule"),
            ("DDIMScheduler", r#"{"trained_betas": [0.1]}"#, "trained_betas"),
            ("DDPMScheduler", r#"{"variance_type": "learned"}"#, "variance_type"),
            ("DDPMScheduler", r#"{"beta_start": "low"}"#, "beta_start"),
            ("DDIMScheduler", r#"{"prediction_type": "flow_prediction"}"#, "flow_prediction"),
            (
                "FlowMatchEulerDiscreteScheduler",
                r#"{"use_beta_sigmas": true, "use_karras_sigmas": true}"#,
                "use_beta_sigmas",
            ),
            ("EulerDiscreteScheduler", r#"{"interpolation_type": "cubic"}"#, "interpolation_type"),
            ("EulerDiscreteScheduler", r#"{"prediction_type": "flow_prediction"}"#, "flow_prediction"),
            ("DPMSolverMultistepScheduler", r#"{"thresholding": true}"#, "thresholding"),
            ("DPMSolverMultistepScheduler", r#"{"algorithm_type": "dpmsolver"}"#, "algorithm_type"),
            ("DPMSolverMultistepScheduler", r#"{"variance_type": "learned_range"}"#, "variance_type"),
            ("DPMSolverMultistepScheduler", r#"{"solver_order": 4}"#, "solver_order"),
            ("DPMSolverMultistepScheduler", r#"{"clip_sample": true}"#, "clip_sample"),
            ("PNDMScheduler", "{}", "PNDMScheduler"),
        ] {
            let error = read(class, &config(text)).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        assert!(read("DDIMScheduler", &config(r#"{"_class_name": "DDIMScheduler", "skip_prk_steps": true}"#)).is_ok());
    }
}
