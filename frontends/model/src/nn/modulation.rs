//! Adaptive layer norm: shifts, scales and gates from a conditioning vector.

use super::Linear;
use crate::tensor::Tensor;
use crate::weights::Scope;

/// Linear(SiLU(c)), cut into vectors: c [B, D] to N times [B, 1, D], ready to broadcast over tokens.
#[derive(Clone)]
pub struct AdaLnModulation {
    linear: Linear,
}

impl AdaLnModulation {
    /// `parts` vectors of `hidden_size`, from a conditioning vector of the same size.
    #[track_caller]
    pub fn new(scope: &Scope, hidden_size: usize, parts: usize) -> AdaLnModulation {
        AdaLnModulation { linear: Linear::new(scope, hidden_size, parts * hidden_size) }
    }
    /// The vectors in the order of the weight's rows: `let [shift, scale, gate] = modulation.forward(&c);`.
    #[track_caller]
    pub fn forward<const N: usize>(&self, c: &Tensor) -> [Tensor; N] {
        self.linear.forward(&c.silu()).unsqueeze(1).chunk(-1)
    }
}

/// x · (1 + scale) + shift.
#[track_caller]
pub fn modulate(x: &Tensor, shift: &Tensor, scale: &Tensor) -> Tensor {
    x * (1.0 + scale) + shift
}
