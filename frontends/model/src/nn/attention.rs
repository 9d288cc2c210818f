//! Multi-head self-attention.

use super::Linear;
use crate::tensor::Tensor;
use crate::weights::Scope;
use selvedge_ir::{Diagnostic, Shape};

/// Multi-head self-attention over tokens [B, N, hidden], scaled by 1/√(head size).
#[derive(Clone)]
pub struct Attention {
    projections: Projections,
    output: Linear,
    num_heads: usize,
}

#[derive(Clone)]
enum Projections {
    /// One layer to 3·hidden: q, then k, then v.
    Fused(Linear),
    /// One layer each.
    Separate([Linear; 3]),
}

impl Attention {
    /// timm's layout: `qkv` [3·hidden, hidden] and `proj`, both with bias.
    #[track_caller]
    pub fn fused(scope: &Scope, hidden_size: usize, num_heads: usize) -> Attention {
        let qkv = Linear::new(&scope.sub("qkv"), hidden_size, 3 * hidden_size);
        let output = Linear::new(&scope.sub("proj"), hidden_size, hidden_size);
        Attention { projections: Projections::Fused(qkv), output, num_heads }
    }
    /// diffusers' layout: `to_q`, `to_k`, `to_v` (with or without bias) and `to_out.0` (with bias).
    #[track_caller]
    pub fn separate(scope: &Scope, hidden_size: usize, num_heads: usize, bias: bool) -> Attention {
        let q = Linear::with_bias(&scope.sub("to_q"), hidden_size, hidden_size, bias);
        let k = Linear::with_bias(&scope.sub("to_k"), hidden_size, hidden_size, bias);
        let v = Linear::with_bias(&scope.sub("to_v"), hidden_size, hidden_size, bias);
        let output = Linear::new(&scope.sub("to_out.0"), hidden_size, hidden_size);
        Attention { projections: Projections::Separate([q, k, v]), output, num_heads }
    }
    /// [B, N, hidden] to the same shape.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let [q, k, v] = match &self.projections {
            Projections::Fused(qkv) => qkv.forward(x).chunk(-1),
            Projections::Separate([q, k, v]) => [q.forward(x), k.forward(x), v.forward(x)],
        };
        let q = split_heads(&q, self.num_heads);
        let k = split_heads(&k, self.num_heads);
        let v = split_heads(&v, self.num_heads);
        let scale = 1.0 / (q.size(-1) as f64).sqrt();
        self.output.forward(&merge_heads(&q.attention(&k, &v, scale)))
    }
}

/// [B, N, heads·D] to [B, heads, N, D].
#[track_caller]
pub fn split_heads(x: &Tensor, num_heads: usize) -> Tensor {
    let Some(ty) = x.ty() else { return x.clone() };
    let features = x.size(-1);
    if ty.rank() != 3 || num_heads == 0 || !features.is_multiple_of(num_heads) {
        let what = Diagnostic::new("M1", format!("{} cannot be split into {num_heads} heads", ty.shape));
        return x.fail(what.expected_found(format!("[B,N,{num_heads}·D]"), ty.shape));
    }
    x.unflatten(-1, &[num_heads, features / num_heads]).permute([0, 2, 1, 3])
}

/// [B, heads, N, D] to [B, N, heads·D].
#[track_caller]
pub fn merge_heads(x: &Tensor) -> Tensor {
    let tokens = x.permute([0, 2, 1, 3]);
    let shape = tokens.shape();
    match shape.0.as_slice() {
        [b, n, h, d] => tokens.reshape(Shape(vec![b.clone(), n.clone(), h * d])),
        _ => tokens, // poisoned: `permute` takes four axes
    }
}
