//! Noise schedules: β of each training step, and what follows from them.

use selvedge_ir::Diagnostic;
use serde::{Deserialize, Serialize};

/// A named β schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Equal steps from start to end.
    Linear,
    /// Equal steps of √β (latent diffusion).
    ScaledLinear,
    /// ᾱ(t) = cos²((t + 0.008) / 1.008 · π/2), each β at most 0.999.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
}

impl BetaSchedule {
    /// Finds a schedule by the name that configurations use.
    ///
    /// # Errors
    /// The name is none of the known ones.
    pub fn named(name: &str) -> Result<BetaSchedule, Diagnostic> {
        match name {
            "linear" => Ok(BetaSchedule::Linear),
            "scaled_linear" => Ok(BetaSchedule::ScaledLinear),
            "squaredcos_cap_v2" => Ok(BetaSchedule::SquaredcosCapV2),
            other => Err(Diagnostic::new("sampler", "unsupported beta schedule")
                .expected_found("linear, scaled_linear or squaredcos_cap_v2", format!("`{other}`"))),
        }
    }

    /// β in f64, as the DiT repository computes them: `linear` runs from 0.0001 to 0.02, scaled to the number of steps.
    ///
    /// # Errors
    /// `scaled_linear`, which that repository does not define.
    pub fn named_f64(self, steps: usize) -> Result<Vec<f64>, Diagnostic> {
        let scale = 1000.0 / steps as f64;
        match self {
            BetaSchedule::Linear => Ok(linspace(scale * 0.0001, scale * 0.02, steps)),
            BetaSchedule::SquaredcosCapV2 => Ok(squared_cosine(steps)),
            BetaSchedule::ScaledLinear => Err(Diagnostic::new("sampler", "unsupported noise schedule")
                .expected_found("linear or squaredcos_cap_v2", "`scaled_linear`")),
        }
    }

    /// β as diffusers holds them: f32 tensors, so that small 1 − ᾱ agree in all digits.
    pub fn f32_tensor(self, start: f64, end: f64, steps: usize) -> Vec<f32> {
        match self {
            BetaSchedule::Linear => linspace_f32(start as f32, end as f32, steps),
            BetaSchedule::ScaledLinear => {
                linspace_f32(start.sqrt() as f32, end.sqrt() as f32, steps).iter().map(|x| x * x).collect()
            }
            BetaSchedule::SquaredcosCapV2 => squared_cosine(steps).iter().map(|&x| x as f32).collect(),
        }
    }
}

/// ᾱ, the running product of 1 − β, as diffusers holds it: f32 values of a product kept in f64.
pub fn alphas_cumprod_f32(betas: &[f32]) -> Vec<f64> {
    let mut product = 1.0f64;
    betas
        .iter()
        .map(|beta| {
            product *= (1.0f32 - beta) as f64;
            (product as f32) as f64
        })
        .collect()
}

/// Rescales β so that the last step has no signal left (Lin et al. 2023, algorithm 1), in f32 as diffusers does.
pub fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let root: Vec<f32> = alphas_cumprod_f32(betas).iter().map(|&a| (a as f32).sqrt()).collect();
    let (Some(&first), Some(&last)) = (root.first(), root.last()) else { return Vec::new() };
    let scale = first / (first - last);
    let bar: Vec<f32> = root.iter().map(|r| ((r - last) * scale).powi(2)).collect();
    let mut previous = 1.0f32;
    bar.iter()
        .map(|&a| {
            let beta = 1.0 - a / previous;
            previous = a;
            beta
        })
        .collect()
}

/// `count` equal steps from start to end, both included; one value is the start.
pub fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let step = if count > 1 { (end - start) / (count - 1) as f64 } else { 0.0 };
    (0..count).map(|i| if i > 0 && i == count - 1 { end } else { start + i as f64 * step }).collect()
}

/// PyTorch's f32 linspace: counted from the nearer end.
pub(super) fn linspace_f32(start: f32, end: f32, count: usize) -> Vec<f32> {
    let step = if count > 1 { (end - start) / (count - 1) as f32 } else { 0.0 };
    (0..count)
        .map(
            |i| if i < count / 2 || count == 1 { start + step * i as f32 } else { end - step * (count - i - 1) as f32 },
        )
        .collect()
}

fn squared_cosine(steps: usize) -> Vec<f64> {
    let bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
    let n = steps as f64;
    (0..steps).map(|i| (1.0 - bar((i + 1) as f64 / n) / bar(i as f64 / n)).min(0.999)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescaled_schedules_end_without_signal_and_start_alike() {
        let betas = BetaSchedule::ScaledLinear.f32_tensor(0.00085, 0.012, 1000);
        let rescaled = rescale_zero_terminal_snr(&betas);
        let (before, after) = (alphas_cumprod_f32(&betas), alphas_cumprod_f32(&rescaled));
        assert_eq!(after[999], 0.0);
        assert!((after[0] - before[0]).abs() < 1e-6);
    }

    #[test]
    fn linear_schedules_have_their_ends() {
        let betas = BetaSchedule::Linear.f32_tensor(0.0001, 0.02, 1000);
        assert_eq!((betas[0], betas[999]), (0.0001, 0.02));
        let betas = BetaSchedule::Linear.named_f64(500).unwrap();
        assert_eq!((betas[0], betas[499]), (0.0002, 0.04));
    }
}
