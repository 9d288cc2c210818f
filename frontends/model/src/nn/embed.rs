//! Timesteps to vectors, images to tokens and back.

use super::{Activation, Linear, Mlp};
use crate::pointwise::map;
use crate::tensor::Tensor;
use crate::views::concat;
use crate::weights::Scope;
use selvedge_ir::scalar::{Binary, Unary};
use selvedge_ir::{DType, Diagnostic, Dim, Shape};

/// Sinusoidal embedding of a timestep: with h = dim/2 frequencies fᵢ = max_period^(−i/(h − freq_shift)),
/// the halves are sin(t·f) and cos(t·f); an odd dim gets a zero at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sinusoid {
    /// Size of the embedding.
    pub dim: usize,
    /// Cosines in the first half (diffusers' `flip_sin_to_cos`; the order of the original DiT).
    pub cos_first: bool,
    /// diffusers' `downscale_freq_shift`.
    pub freq_shift: f64,
    /// Period of the slowest wave, over 2π.
    pub max_period: f64,
}

impl Sinusoid {
    /// DiT's: 256 values, cosines first, no shift, period 10,000.
    pub fn dit() -> Sinusoid {
        Sinusoid { dim: 256, cos_first: true, freq_shift: 0.0, max_period: 10000.0 }
    }
    /// Frequencies as PyTorch computes them, in f32 before the exponential: at t near 1000 a last-place difference shows.
    fn frequencies(&self) -> Vec<f64> {
        let half = self.dim / 2;
        let log = (-self.max_period.ln()) as f32;
        let span = (half as f64 - self.freq_shift) as f32;
        (0..half).map(|i| f64::from(log * i as f32 / span).exp()).collect()
    }
    /// Timesteps f32 [B] to f32 [B, dim].
    #[track_caller]
    pub fn forward(&self, timestep: &Tensor) -> Tensor {
        let Some(ty) = timestep.ty() else { return timestep.clone() };
        if ty.rank() != 1 || self.dim < 2 {
            let what = Diagnostic::new("M1", "timesteps are embedded one a sample, in at least two values");
            return timestep.fail(what.expected_found("[B]", ty));
        }
        let graph = timestep.graph();
        let half = self.dim / 2;
        let frequencies = graph.constant(DType::F32, [1, half], &self.frequencies()).named("frequencies");
        let t = timestep.cast(DType::F32).unsqueeze(-1);
        let wave = |f: Unary| {
            move |b: &mut selvedge_ir::scalar::BodyBuilder, x: &[u32]| {
                let angle = b.binary(Binary::Mul, x[0], x[1]);
                b.unary(f, angle)
            }
        };
        let (sin, cos) = (map(&[&t, &frequencies], wave(Unary::Sin)), map(&[&t, &frequencies], wave(Unary::Cos)));
        let both = if self.cos_first { concat(&[&cos, &sin], -1) } else { concat(&[&sin, &cos], -1) };
        if self.dim.is_multiple_of(2) { both } else { both.pad(&[(0, 0), (0, 1)], 0.0) }
    }
}

/// Sinusoid, then linear, SiLU, linear: timesteps [B] to [B, hidden].
#[derive(Clone)]
pub struct TimestepEmbedding {
    sinusoid: Sinusoid,
    mlp: Mlp,
}

impl TimestepEmbedding {
    /// The layers' names below `scope` are `["mlp.0", "mlp.2"]` in the original DiT, `["linear_1", "linear_2"]` in diffusers.
    #[track_caller]
    pub fn new(scope: &Scope, layers: [&str; 2], hidden_size: usize, sinusoid: Sinusoid) -> TimestepEmbedding {
        let first = Linear::new(&scope.sub(layers[0]), sinusoid.dim, hidden_size);
        let second = Linear::new(&scope.sub(layers[1]), hidden_size, hidden_size);
        TimestepEmbedding { sinusoid, mlp: Mlp::new(first, second, Activation::Silu) }
    }
    /// Timesteps f32 [B] to f32 [B, hidden].
    #[track_caller]
    pub fn forward(&self, timestep: &Tensor) -> Tensor {
        self.mlp.forward(&self.sinusoid.forward(timestep))
    }
}

/// Non-overlapping patches to tokens: a convolution `weight` [hidden, C, p, p] of stride p with `bias` [hidden].
#[derive(Clone)]
pub struct PatchEmbed {
    weight: Tensor,
    bias: Tensor,
    patch_size: usize,
}

impl PatchEmbed {
    /// Weights below a place named `proj` as a rule.
    #[track_caller]
    pub fn new(scope: &Scope, patch_size: usize, in_channels: usize, hidden_size: usize) -> PatchEmbed {
        let weight = scope.weight("weight", [hidden_size, in_channels, patch_size, patch_size]);
        PatchEmbed { weight, bias: scope.weight("bias", [hidden_size]), patch_size }
    }
    /// [B, C, H, W] to [B, (H/p)·(W/p), hidden], tokens row by row.
    ///
    /// Written as a product of flattened patches with the flattened kernel, which is what the convolution is.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let Some(ty) = x.ty() else { return x.clone() };
        let p = Dim::new(self.patch_size);
        let kernel = self.weight.shape();
        let grid = match ty.shape.0.as_slice() {
            [_, c, h, w] if kernel.0.get(1) == Some(c) => h.div_exact(&p).zip(w.div_exact(&p)),
            _ => None,
        };
        let (Some((h, w)), [b, c, ..]) = (grid, ty.shape.0.as_slice()) else {
            let what =
                Diagnostic::new("M1", format!("an image cannot be cut into patches of {p}×{p} for a kernel {kernel}"));
            return x.fail(what.expected_found(format!("[B,C,{p}·h,{p}·w] with the kernel's C"), ty.shape));
        };
        let pixels = &(c * &p) * &p;
        let patches = x
            .reshape(Shape(vec![b.clone(), c.clone(), h.clone(), p.clone(), w.clone(), p.clone()]))
            .permute([0, 2, 4, 1, 3, 5])
            .reshape(Shape(vec![b.clone(), &h * &w, pixels]));
        (patches.linear(&self.weight.flatten(1, 3)) + &self.bias).cast(ty.dtype)
    }
}

/// Tokens back to an image: [B, h·w, p·p·C] to [B, C, h·p, w·p], each token holding its patch as (row, column, channel).
#[track_caller]
pub fn unpatchify(tokens: &Tensor, grid: (usize, usize), patch_size: usize) -> Tensor {
    let Some(ty) = tokens.ty() else { return tokens.clone() };
    let ((h, w), p) = (grid, patch_size);
    let channels = ty.shape.0.get(2).and_then(|d| d.div_exact(&Dim::new(p * p)));
    let (Some(c), [b, n, _]) = (channels, ty.shape.0.as_slice()) else {
        let what = Diagnostic::new("M1", format!("tokens of {p}×{p} patches cannot be read from {}", ty.shape));
        return tokens.fail(what.expected_found(format!("[B,{},{}·C]", h * w, p * p), ty.shape));
    };
    if n.get() != Some(h * w) {
        let what = Diagnostic::new("M1", format!("{n} tokens do not fill a grid of {h}×{w}"));
        return tokens.fail(what.expected_found(h * w, n));
    }
    let (h, w, p) = (Dim::new(h), Dim::new(w), Dim::new(p));
    tokens
        .reshape(Shape(vec![b.clone(), h.clone(), w.clone(), p.clone(), p.clone(), c.clone()]))
        .permute([0, 5, 1, 3, 2, 4])
        .reshape(Shape(vec![b.clone(), c, &h * &p, &w * &p]))
}
