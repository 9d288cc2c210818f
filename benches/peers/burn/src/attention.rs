//! Attention in the two forms that burn has.

use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Tensor, module};

/// How attention is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// burn's attention function; autotune chooses what is behind it.
    Own,
    /// Two products and a softmax between.
    Products,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Own, Kind::Products];

    pub fn text(self) -> &'static str {
        match self {
            Kind::Own => "own",
            Kind::Products => "products",
        }
    }

    /// softmax(q kᵀ / √d) v of `[batch, heads, tokens, d]`.
    pub fn of(self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
        match self {
            Kind::Own => module::attention(q, k, v, None, None, AttentionModuleOptions::default()),
            Kind::Products => {
                let scale = 1.0 / (q.dims()[3] as f64).sqrt();
                let scores = q.matmul(k.transpose()) * scale;
                burn::tensor::activation::softmax(scores, 3).matmul(v)
            }
        }
    }
}
