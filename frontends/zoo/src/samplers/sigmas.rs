//! Noise levels σ = √((1 − ᾱ)/ᾱ): those of the training steps, and how diffusers' schedulers space those of a run.

use super::betas::linspace;
use super::diffusers::Discrete;
use selvedge_ir::Diagnostic;
use serde::{Deserialize, Serialize};

/// Options by which a run's σ are spaced anew, by diffusers' names; at most one is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Respacing {
    /// Equal steps of σ^(1/7) (Karras et al. 2022).
    pub use_karras_sigmas: bool,
    /// Equal steps of ln σ.
    pub use_exponential_sigmas: bool,
    /// Quantiles of the Beta(0.6, 0.6) distribution (Lee et al. 2024).
    pub use_beta_sigmas: bool,
}

impl Respacing {
    /// Names of the options.
    pub const KEYS: [&str; 3] = ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"];

    /// Refuses more than one.
    pub(super) fn check(self, class: &str) -> Result<(), Diagnostic> {
        let set = [self.use_karras_sigmas, self.use_exponential_sigmas, self.use_beta_sigmas];
        if set.iter().filter(|s| **s).count() <= 1 {
            return Ok(());
        }
        Err(Diagnostic::new("sampler", format!("options of {class} exclude each other"))
            .expected_found(format!("at most one of {}", Self::KEYS.join(", ")), "several set"))
    }
    /// `steps` values falling from `max` to `min`; `None` if no option is set.
    pub(super) fn spaced(self, max: f64, min: f64, steps: usize) -> Option<Vec<f64>> {
        const RHO: f64 = 7.0;
        if self.use_karras_sigmas {
            let ends = (max.powf(1.0 / RHO), min.powf(1.0 / RHO));
            Some(linspace(0.0, 1.0, steps).iter().map(|r| (ends.0 + r * (ends.1 - ends.0)).powf(RHO)).collect())
        } else if self.use_exponential_sigmas {
            Some(linspace(max.ln(), min.ln(), steps).iter().map(|l| l.exp()).collect())
        } else if self.use_beta_sigmas {
            Some(linspace(0.0, 1.0, steps).iter().map(|r| min + beta_quantile(1.0 - r) * (max - min)).collect())
        } else {
            None
        }
    }
}

/// Which σ a run ends at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigma {
    /// 0.
    #[default]
    Zero,
    /// That of the first training step.
    SigmaMin,
}

/// σ of the training steps, rising, in f32 as diffusers holds them.
pub(super) struct TrainingSigmas {
    sigmas: Vec<f32>,
    logs: Vec<f32>,
    /// ᾱ of the training steps.
    pub alphas_cumprod: Vec<f32>,
}

impl TrainingSigmas {
    /// Of a noise schedule. One rescaled to zero terminal SNR keeps a trace of signal, so that the last σ is finite.
    pub fn new(discrete: &Discrete) -> TrainingSigmas {
        let mut alphas_cumprod: Vec<f32> = discrete.alphas_cumprod().iter().map(|&a| a as f32).collect();
        if let (true, Some(last)) = (discrete.rescale_betas_zero_snr, alphas_cumprod.last_mut()) {
            *last = 2f32.powi(-24);
        }
        let sigmas: Vec<f32> = alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect();
        TrainingSigmas { logs: sigmas.iter().map(|s| s.ln()).collect(), sigmas, alphas_cumprod }
    }
    /// The smallest.
    pub fn min(&self) -> f64 {
        self.sigmas.first().map_or(0.0, |&s| s as f64)
    }
    /// The largest.
    pub fn max(&self) -> f64 {
        self.sigmas.last().map_or(0.0, |&s| s as f64)
    }
    /// Natural logarithm of the smallest and the largest.
    pub fn log_range(&self) -> (f64, f64) {
        let log = |l: Option<&f32>| l.map_or(0.0, |&l| l as f64);
        (log(self.logs.first()), log(self.logs.last()))
    }
    /// σ at a training step, linear between two, that of the nearest end beyond them.
    pub fn at(&self, timestep: f64) -> f64 {
        let last = self.sigmas.len() - 1;
        let t = timestep.clamp(0.0, last as f64);
        let low = (t.floor() as usize).min(last.saturating_sub(1));
        let high = (low + 1).min(last);
        let (a, b) = (self.sigmas[low] as f64, self.sigmas[high] as f64);
        if t == high as f64 { b } else { a + (b - a) * (t - low as f64) }
    }
    /// The (fractional) training step of a σ, linear in ln σ.
    pub fn timestep(&self, sigma: f64) -> f64 {
        if self.logs.len() < 2 {
            return 0.0;
        }
        let log = sigma.max(1e-10).ln();
        let low = self.logs.iter().rposition(|&l| log - l as f64 >= 0.0).unwrap_or(0).min(self.logs.len() - 2);
        let (a, b) = (self.logs[low] as f64, self.logs[low + 1] as f64);
        let w = ((a - log) / (a - b)).clamp(0.0, 1.0);
        (1.0 - w) * low as f64 + w * (low + 1) as f64
    }
}

/// x below which a Beta(0.6, 0.6) variable lies with probability p.
fn beta_quantile(p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return p.clamp(0.0, 1.0);
    }
    let (mut low, mut high) = (0.0f64, 1.0f64);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if beta_cdf(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function I(x; a, a) for a = 0.6: x^a·Σ (1 − a)ₙ xⁿ / (n!·(a + n)) / B(a, a), on the half where the
/// series converges fast, by symmetry on the other.
fn beta_cdf(x: f64) -> f64 {
    const A: f64 = 0.6;
    /// Γ(0.6)² / Γ(1.2).
    const COMPLETE: f64 = 1.489_192_248_812_817 * 1.489_192_248_812_817 / 0.918_168_742_399_760_6;
    if x > 0.5 {
        return 1.0 - beta_cdf(1.0 - x);
    }
    let (mut term, mut sum) = (1.0, 0.0);
    for n in 0..64 {
        let n = n as f64;
        sum += term / (A + n);
        term *= (1.0 - A + n) / (n + 1.0) * x;
    }
    x.powf(A) * sum / COMPLETE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_quantiles_are_symmetric_and_end_at_the_ends() {
        assert_eq!((beta_quantile(0.0), beta_quantile(1.0)), (0.0, 1.0));
        assert!((beta_quantile(0.5) - 0.5).abs() < 1e-12);
        for p in [0.01, 0.2, 0.4] {
            assert!((beta_quantile(p) + beta_quantile(1.0 - p) - 1.0).abs() < 1e-12);
        }
        // Both series meet in the middle: the constant is the complete function.
        assert!((beta_cdf(0.5) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn timesteps_and_sigmas_are_inverse() {
        let training = TrainingSigmas::new(&Discrete::default());
        for t in [0.0, 1.0, 500.0, 998.0, 999.0] {
            assert!((training.timestep(training.at(t)) - t).abs() < 1e-3, "{t}");
        }
        assert_eq!(training.timestep(1e9), 999.0);
        assert_eq!(training.at(2000.0), training.max());
    }
}
