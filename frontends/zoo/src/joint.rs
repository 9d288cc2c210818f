//! What the multimodal transformers share (MM-DiT: Esser et al., 2024; FLUX.1): an image and a text stream, each with its own
//! weights, that meet in one attention. Weights are named as in diffusers.

use selvedge_model::nn::{
    Activation, AdaLnModulation, LayerNorm, Linear, Mlp, RmsNorm, Sinusoid, TimestepEmbedding, merge_heads, modulate,
    split_heads,
};
use selvedge_model::{Scope, Tensor, concat};
use std::array::from_fn;

/// Added to the variance in every norm.
const NORM_EPS: f64 = 1e-6;

/// Sinusoid of 256 values, linear, SiLU, linear: f32 [B] to f32 [B, hidden_size]. For timesteps and for distilled guidance.
pub fn timestep_embedding(scope: &Scope, hidden_size: usize, timestep: &Tensor) -> Tensor {
    TimestepEmbedding::new(scope, ["linear_1", "linear_2"], hidden_size, Sinusoid::dit()).forward(timestep)
}

/// Linear, SiLU, linear: the pooled text f32 [B, pooled_dim] to f32 [B, hidden_size].
pub fn pooled_embedding(scope: &Scope, pooled_dim: usize, hidden_size: usize, pooled: &Tensor) -> Tensor {
    let first = Linear::new(&scope.sub("linear_1"), pooled_dim, hidden_size);
    let second = Linear::new(&scope.sub("linear_2"), hidden_size, hidden_size);
    Mlp::new(first, second, Activation::Silu).forward(pooled)
}

/// Shift, scale and gate of a residual branch, each [B, 1, hidden_size].
pub struct Branch {
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
}

impl Branch {
    /// adaLN-Zero: N branches from the conditioning vector c [B, hidden_size], by one linear layer of SiLU(c).
    pub fn adaptive<const N: usize>(linear: &Scope, hidden_size: usize, c: &Tensor) -> [Branch; N] {
        let parts = Linear::new(linear, hidden_size, 3 * N * hidden_size).forward(&c.silu()).unsqueeze(1);
        let parts = parts.chunks(3 * N, -1);
        from_fn(|i| Branch {
            shift: parts[3 * i].clone(),
            scale: parts[3 * i + 1].clone(),
            gate: parts[3 * i + 2].clone(),
        })
    }
    /// What the branch computes on: LN(x)·(1 + scale) + shift.
    pub fn enter(&self, x: &Tensor) -> Tensor {
        modulate(&LayerNorm::plain(NORM_EPS).forward(x), &self.shift, &self.scale)
    }
    /// The residual sum: x + gate·y.
    pub fn leave(&self, x: &Tensor, y: &Tensor) -> Tensor {
        x + &self.gate * y
    }
}

/// LN(x)·(1 + scale) + shift without a gate. In this layer of diffusers (`AdaLayerNormContinuous`) the scale comes first.
pub fn adaptive_norm(linear: &Scope, hidden_size: usize, c: &Tensor, x: &Tensor) -> Tensor {
    let [scale, shift] = AdaLnModulation::new(linear, hidden_size, 2).forward(c);
    modulate(&LayerNorm::plain(NORM_EPS).forward(x), &shift, &scale)
}

/// Linear to four times the features, GELU by tanh, linear back.
pub fn feed_forward(scope: &Scope, hidden_size: usize) -> Mlp {
    let first = Linear::new(&scope.sub("net.0.proj"), hidden_size, 4 * hidden_size);
    let second = Linear::new(&scope.sub("net.2"), 4 * hidden_size, hidden_size);
    Mlp::new(first, second, Activation::GeluTanh)
}

/// One stream's projections to queries, keys and values.
pub struct Projections {
    q: Linear,
    k: Linear,
    v: Linear,
    qk_norm: Option<(RmsNorm, RmsNorm)>,
    num_heads: usize,
}

impl Projections {
    /// The stream whose layers are `to_q`, `to_k`, `to_v`; with `qk_norm`, an RMS norm of each query and key head (`norm_q`, `norm_k`).
    pub fn image(attn: &Scope, hidden_size: usize, num_heads: usize, qk_norm: bool) -> Projections {
        Projections::named(attn, ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"], hidden_size, num_heads, qk_norm)
    }
    /// The stream whose layers are `add_q_proj`, `add_k_proj`, `add_v_proj` (`norm_added_q`, `norm_added_k`).
    pub fn text(attn: &Scope, hidden_size: usize, num_heads: usize, qk_norm: bool) -> Projections {
        let layers = ["add_q_proj", "add_k_proj", "add_v_proj"];
        Projections::named(attn, layers, ["norm_added_q", "norm_added_k"], hidden_size, num_heads, qk_norm)
    }
    fn named(
        attn: &Scope,
        layers: [&str; 3],
        norms: [&str; 2],
        hidden_size: usize,
        num_heads: usize,
        qk_norm: bool,
    ) -> Projections {
        let [q, k, v] = layers.map(|name| Linear::new(&attn.sub(name), hidden_size, hidden_size));
        let norm = |name: &str| RmsNorm::new(&attn.sub(name), hidden_size / num_heads, NORM_EPS);
        let qk_norm = qk_norm.then(|| (norm(norms[0]), norm(norms[1])));
        Projections { q, k, v, qk_norm, num_heads }
    }
    /// Tokens [B, N, hidden_size] to their heads.
    pub fn forward(&self, x: &Tensor) -> Heads {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|layer| split_heads(&layer.forward(x), self.num_heads));
        match &self.qk_norm {
            Some((norm_q, norm_k)) => Heads { q: norm_q.forward(&q), k: norm_k.forward(&k), v },
            None => Heads { q, k, v },
        }
    }
}

/// Queries, keys and values, each [B, heads, N, head size].
pub struct Heads {
    /// Queries.
    pub q: Tensor,
    /// Keys.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
}

impl Heads {
    /// The tokens of `self`, then those of `next`.
    pub fn then(&self, next: &Heads) -> Heads {
        let join = |a: &Tensor, b: &Tensor| concat(&[a, b], 2);
        Heads { q: join(&self.q, &next.q), k: join(&self.k, &next.k), v: join(&self.v, &next.v) }
    }
    /// Queries and keys rotated by position: tables [N, head size], pairs are neighbours.
    pub fn rotated(self, cos: &Tensor, sin: &Tensor) -> Heads {
        Heads { q: self.q.rope(cos, sin, true), k: self.k.rope(cos, sin, true), v: self.v }
    }
    /// Every token attends to all: [B, N, hidden_size].
    pub fn attention(&self) -> Tensor {
        self.attention_of(&self.q)
    }
    /// Other queries attend to these keys and values.
    pub fn attention_of(&self, q: &Tensor) -> Tensor {
        let scale = 1.0 / (q.size(-1) as f64).sqrt();
        merge_heads(&q.attention(&self.k, &self.v, scale))
    }
}

/// Tokens [B, N, hidden_size] to the first `first` and the others.
pub fn split_tokens(tokens: &Tensor, first: usize) -> [Tensor; 2] {
    let parts = tokens.split(1, &[first, tokens.size(1).saturating_sub(first)]);
    parts.try_into().expect("two lengths give two parts")
}
