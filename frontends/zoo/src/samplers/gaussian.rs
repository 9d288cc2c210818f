//! Gaussian diffusion as in the DiT repository: respaced DDPM and DDIM on a discrete noise schedule, in f64.

use super::betas::BetaSchedule;
use super::{Coefficients, MAX_STEPS, Noise, StepForm, StepKind, StepPlan};
use selvedge_ir::Diagnostic;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The repository's `create_diffusion` and the choice of loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gaussian {
    /// β of the training steps.
    pub noise_schedule: BetaSchedule,
    /// Number of training steps.
    pub diffusion_steps: usize,
    /// Which training steps to take, in the repository's notation (`"250"`, `"4,3,2"`, `"ddim10"`, `"8,0"`);
    /// absent: as many as the run asks for, spread evenly.
    pub timestep_respacing: Option<String>,
    /// The loop.
    pub method: GaussianMethod,
    /// Variance of the DDPM steps.
    pub variance: GaussianVariance,
    /// The predicted x0 is clamped to [−1, 1].
    pub clip_denoised: bool,
    /// The model predicts x0 rather than the noise.
    pub predict_xstart: bool,
}

/// The sampling loop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loop", rename_all = "snake_case")]
pub enum GaussianMethod {
    /// `p_sample_loop`.
    Ddpm,
    /// `ddim_sample_loop`.
    Ddim {
        /// Share of the DDPM noise.
        eta: f64,
    },
}

/// Variance of a DDPM step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GaussianVariance {
    /// Chosen by the second half of the model's channels between posterior variance and β.
    LearnedRange,
    /// The posterior variance.
    FixedSmall,
    /// β.
    FixedLarge,
}

/// The respaced process.
#[derive(Clone, Debug, PartialEq)]
pub struct Spaced {
    /// Training step of each step, rising.
    pub timestep_map: Vec<usize>,
    /// β of each step.
    pub betas: Vec<f64>,
    /// Running product of 1 − β.
    pub alphas_cumprod: Vec<f64>,
    /// Variance of q(x_{t−1} | x_t, x_0).
    pub posterior_variance: Vec<f64>,
}

impl Gaussian {
    /// The repository's defaults for a model: `linear`, 1000 steps, DDPM, x0 not clamped (latents);
    /// learned-range variance if the model learns sigma, else fixed-large.
    pub fn new(learn_sigma: bool) -> Gaussian {
        Gaussian {
            noise_schedule: BetaSchedule::Linear,
            diffusion_steps: 1000,
            timestep_respacing: None,
            method: GaussianMethod::Ddpm,
            variance: if learn_sigma { GaussianVariance::LearnedRange } else { GaussianVariance::FixedLarge },
            clip_denoised: false,
            predict_xstart: false,
        }
    }

    /// What the steps compute.
    pub fn form(&self) -> StepForm {
        let noise = match (self.method, self.variance) {
            (GaussianMethod::Ddpm, GaussianVariance::LearnedRange) => Noise::LearnedRange,
            (GaussianMethod::Ddpm, GaussianVariance::FixedSmall | GaussianVariance::FixedLarge) => Noise::Scaled,
            (GaussianMethod::Ddim { eta: 0.0 }, _) => Noise::None,
            (GaussianMethod::Ddim { .. }, _) => Noise::Scaled,
        };
        let clip = self.clip_denoised.then_some(1.0);
        StepForm {
            functions: vec![StepKind::Affine],
            predicts_x0: true,
            direct: false,
            clip,
            noise,
            history: 0,
            scales_input: false,
        }
    }

    /// The respaced process; `steps` counts only without a respacing of its own.
    ///
    /// # Errors
    /// A respacing that cannot be met.
    pub fn spaced(&self, steps: usize) -> Result<Spaced, Diagnostic> {
        if !(1..=MAX_STEPS).contains(&self.diffusion_steps) {
            return Err(Diagnostic::new("sampler", "number of training steps (`diffusion_steps`) out of range")
                .expected_found(format!("1 to {MAX_STEPS}"), self.diffusion_steps));
        }
        let respacing = self.timestep_respacing.clone().unwrap_or_else(|| steps.to_string());
        let taken = space_timesteps(self.diffusion_steps, &respacing)?;
        let betas = self.noise_schedule.named_f64(self.diffusion_steps)?;
        let mut spaced =
            Spaced { timestep_map: Vec::new(), betas: vec![], alphas_cumprod: vec![], posterior_variance: vec![] };
        let (mut product, mut last, mut own) = (1.0, 1.0, 1.0);
        for (i, beta) in betas.iter().enumerate() {
            product *= 1.0 - beta;
            if !taken.contains(&i) {
                continue;
            }
            let beta = 1.0 - product / last;
            last = product;
            let previous = own;
            own *= 1.0 - beta;
            spaced.timestep_map.push(i);
            spaced.betas.push(beta);
            spaced.alphas_cumprod.push(own);
            spaced.posterior_variance.push(beta * (1.0 - previous) / (1.0 - own));
        }
        Ok(spaced)
    }

    /// The coefficients; step k is index n − 1 − k of the respaced process.
    ///
    /// # Errors
    /// A respacing that cannot be met, or one that gives another number of steps than asked for.
    pub fn plan(&self, steps: usize) -> Result<StepPlan, Diagnostic> {
        let spaced = self.spaced(steps)?;
        let n = spaced.betas.len();
        if n != steps {
            let respacing = self.timestep_respacing.as_deref().unwrap_or_default();
            return Err(Diagnostic::new("sampler", format!("the respacing `{respacing}` fixes the number of steps"))
                .expected_found(n, steps));
        }
        let order = (0..n).rev();
        let coefficients = order.clone().map(|i| self.step(&spaced, i)).collect();
        let timesteps: Vec<f64> = order.map(|i| spaced.timestep_map[i] as f64).collect();
        let mut plan = StepPlan::affine(timesteps.clone(), coefficients);
        plan.observed = vec![
            ("betas", spaced.betas),
            ("posterior_variance", spaced.posterior_variance),
            ("timestep_map", spaced.timestep_map.iter().map(|&t| t as f64).collect()),
            ("model_timesteps", timesteps),
        ];
        Ok(plan)
    }

    fn step(&self, spaced: &Spaced, i: usize) -> Coefficients {
        let bar = spaced.alphas_cumprod[i];
        let previous = if i > 0 { spaced.alphas_cumprod[i - 1] } else { 1.0 };
        let beta = spaced.betas[i];
        let noisy = if i > 0 { 1.0 } else { 0.0 };
        // x0 = √(1/ᾱ)·x − √(1/ᾱ − 1)·ε
        let (recip, recipm1) = ((1.0 / bar).sqrt(), (1.0 / bar - 1.0).sqrt());
        let mut c = Coefficients::default();
        (c.x0_from_x, c.x0_from_m) = if self.predict_xstart { (0.0, 1.0) } else { (recip, -recipm1) };
        match self.method {
            GaussianMethod::Ddpm => {
                c.next_from_x0 = beta * previous.sqrt() / (1.0 - bar);
                c.next_from_x = (1.0 - previous) * (1.0 - beta).sqrt() / (1.0 - bar);
                // The first posterior variance is 0; the second stands in for it.
                let clipped = spaced.posterior_variance[if i == 0 { 1.min(spaced.betas.len() - 1) } else { i }];
                match self.variance {
                    GaussianVariance::LearnedRange => {
                        c.deviation = noisy;
                        c.log_variance_min = clipped.max(f64::MIN_POSITIVE).ln();
                        c.log_variance_max = beta.ln();
                    }
                    GaussianVariance::FixedSmall => c.deviation = noisy * clipped.sqrt(),
                    GaussianVariance::FixedLarge => c.deviation = noisy * beta.sqrt(),
                }
            }
            GaussianMethod::Ddim { eta } => {
                // In f32, since with η near 1 the difference below cancels and what the reference steps with is its rounding.
                let (b, p) = (bar as f32, previous as f32);
                let sigma = eta as f32 * ((1.0 - p) / (1.0 - b)).sqrt() * (1.0 - b / p).sqrt();
                let direction = (1.0 - p - sigma * sigma).max(0.0).sqrt() as f64;
                // ε is derived again from the (clamped) x0: ε = (√(1/ᾱ)·x − x0) / √(1/ᾱ − 1).
                let (sigma, direction) = (sigma as f64, direction / recipm1);
                c.next_from_x0 = previous.sqrt() - direction;
                c.next_from_x = direction * recip;
                c.deviation = noisy * sigma;
            }
        }
        c
    }
}

/// The training steps that a respacing takes: `ddimN` is the fixed stride that gives N steps; otherwise a
/// list of counts, one for each of as many equal sections, spread evenly over their section.
///
/// # Errors
/// A count that is not a number, larger than its section, or without a stride.
pub fn space_timesteps(diffusion_steps: usize, respacing: &str) -> Result<BTreeSet<usize>, Diagnostic> {
    let bad = |message: String| {
        Diagnostic::new("sampler", format!("timestep respacing `{respacing}`: {message}"))
            .help("write a number of steps, comma-separated counts by section, or `ddimN`")
    };
    let number =
        |text: &str| text.trim().parse::<usize>().map_err(|_| bad(format!("`{text}` is not a number of steps")));
    if respacing.is_empty() {
        return Ok((0..diffusion_steps).collect());
    }
    let taken: BTreeSet<usize> = if let Some(count) = respacing.strip_prefix("ddim") {
        let count = number(count)?;
        let stride = (1..diffusion_steps).find(|&s| diffusion_steps.div_ceil(s) == count);
        let stride =
            stride.ok_or_else(|| bad(format!("no whole stride takes exactly {count} of {diffusion_steps} steps")))?;
        (0..diffusion_steps).step_by(stride).collect()
    } else {
        let counts = respacing.split(',').map(number).collect::<Result<Vec<_>, _>>()?;
        let (size, extra) = (diffusion_steps / counts.len(), diffusion_steps % counts.len());
        let mut taken = BTreeSet::new();
        let mut start = 0;
        for (i, &count) in counts.iter().enumerate() {
            let size = size + usize::from(i < extra);
            if count > size {
                return Err(bad(format!("a section of {size} steps cannot give {count}")));
            }
            let stride = if count <= 1 { 1.0 } else { (size - 1) as f64 / (count - 1) as f64 };
            let mut at = 0.0f64;
            for _ in 0..count {
                taken.insert(start + at.round_ties_even() as usize);
                at += stride; // summed, not multiplied: rounding as in the reference
            }
            start += size;
        }
        taken
    };
    if taken.is_empty() {
        return Err(bad("it takes no step at all".to_string()));
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn respacings_take_the_steps_of_the_reference() {
        let take = |text: &str| space_timesteps(1000, text).unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(take("4,3,2"), [0, 111, 222, 333, 334, 500, 666, 667, 999]);
        assert_eq!(take("8,0"), [0, 71, 143, 214, 285, 356, 428, 499]);
        assert_eq!(take("ddim5"), [0, 200, 400, 600, 800]);
        assert_eq!(take("7"), [0, 166, 333, 500, 666, 832, 999]);
        assert_eq!(take("250").len(), 250);
        assert_eq!(take("").len(), 1000);
        for bad in ["ddim600", "x", "501,0", "0", "ddim", "1001"] {
            assert!(space_timesteps(1000, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_steps_give_the_schedule_itself() {
        let sampler = Gaussian::new(true);
        let spaced = sampler.spaced(1000).unwrap();
        let betas = BetaSchedule::Linear.named_f64(1000).unwrap();
        for (a, b) in spaced.betas.iter().zip(&betas) {
            assert!((a - b).abs() < 1e-13);
        }
    }
}
