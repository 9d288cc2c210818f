//! Normalisations.

use crate::tensor::Tensor;
use crate::weights::Scope;

/// (x − mean) / √(variance + eps) over the last axis; affine with `weight` and `bias` [features], or plain.
#[derive(Clone)]
pub struct LayerNorm {
    affine: Option<(Tensor, Tensor)>,
    eps: f64,
}

impl LayerNorm {
    /// With weight and bias.
    #[track_caller]
    pub fn new(scope: &Scope, features: usize, eps: f64) -> LayerNorm {
        LayerNorm { affine: Some((scope.weight("weight", [features]), scope.weight("bias", [features]))), eps }
    }
    /// Without weights.
    pub fn plain(eps: f64) -> LayerNorm {
        LayerNorm { affine: None, eps }
    }
    /// [.., features] to the same shape.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match &self.affine {
            Some((weight, bias)) => x.layer_norm(Some(weight), Some(bias), self.eps),
            None => x.layer_norm(None, None, self.eps),
        }
    }
}

/// x / √(mean(x²) + eps) over the last axis, times `weight` [features].
#[derive(Clone)]
pub struct RmsNorm {
    weight: Option<Tensor>,
    eps: f64,
}

impl RmsNorm {
    /// With weight.
    #[track_caller]
    pub fn new(scope: &Scope, features: usize, eps: f64) -> RmsNorm {
        RmsNorm { weight: Some(scope.weight("weight", [features])), eps }
    }
    /// Without weight.
    pub fn plain(eps: f64) -> RmsNorm {
        RmsNorm { weight: None, eps }
    }
    /// [.., features] to the same shape.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.rms_norm(self.weight.as_ref(), self.eps)
    }
}

/// Normalises [N, C, spatial…] by groups of channels, with `weight` and `bias` [C].
#[derive(Clone)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// With weight and bias.
    #[track_caller]
    pub fn new(scope: &Scope, groups: usize, channels: usize, eps: f64) -> GroupNorm {
        let (weight, bias) = (scope.weight("weight", [channels]), scope.weight("bias", [channels]));
        GroupNorm { weight, bias, groups, eps }
    }
    /// [N, C, spatial…] to the same shape.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.group_norm(self.groups, Some(&self.weight), Some(&self.bias), self.eps)
    }
}
