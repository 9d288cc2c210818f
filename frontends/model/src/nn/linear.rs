//! Linear, convolution, embedding table, two-layer perceptron.

use crate::contract::WindowOptions;
use crate::tensor::Tensor;
use crate::weights::Scope;
use selvedge_ir::Diagnostic;

/// x·Wᵀ + b over the last axis: `weight` [out, in] and, usually, `bias` [out].
#[derive(Clone)]
pub struct Linear {
    path: String,
    in_features: usize,
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// With bias.
    #[track_caller]
    pub fn new(scope: &Scope, in_features: usize, out_features: usize) -> Linear {
        Linear::with_bias(scope, in_features, out_features, true)
    }
    /// With or without bias.
    #[track_caller]
    pub fn with_bias(scope: &Scope, in_features: usize, out_features: usize, bias: bool) -> Linear {
        let weight = scope.weight("weight", [out_features, in_features]);
        let bias = if bias { Some(scope.weight("bias", [out_features])) } else { None };
        Linear { path: scope.path().to_string(), in_features, weight, bias }
    }
    /// [.., in] to [.., out].
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let Some(ty) = x.ty() else { return x.clone() };
        if ty.shape.0.last().and_then(|d| d.get()) != Some(self.in_features) {
            let what = Diagnostic::new("M1", format!("linear layer `{}` does not fit its input", self.path));
            return x.fail(what.expected_found(format!("[..,{}]", self.in_features), ty.shape));
        }
        let y = x.linear(&self.weight);
        match &self.bias {
            Some(bias) => (y + bias).cast(ty.dtype),
            None => y,
        }
    }
}

/// n-D convolution of [N, in, spatial…]: `weight` [out, in/groups, size…] and, usually, `bias` [out].
#[derive(Clone)]
pub struct Conv {
    weight: Tensor,
    bias: Option<Tensor>,
    options: WindowOptions,
}

impl Conv {
    /// With bias; `size` has one entry a spatial axis.
    #[track_caller]
    pub fn new(scope: &Scope, in_channels: usize, out_channels: usize, size: &[usize], options: WindowOptions) -> Conv {
        Conv::with_bias(scope, in_channels, out_channels, size, options, true)
    }
    /// With or without bias.
    #[track_caller]
    pub fn with_bias(
        scope: &Scope,
        in_channels: usize,
        out_channels: usize,
        size: &[usize],
        options: WindowOptions,
        bias: bool,
    ) -> Conv {
        let mut shape = vec![out_channels, in_channels / options.groups.max(1)];
        shape.extend(size);
        let weight = scope.weight("weight", shape);
        let bias = if bias { Some(scope.weight("bias", [out_channels])) } else { None };
        Conv { weight, bias, options }
    }
    /// [N, in, spatial…] to [N, out, spatial…].
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.conv(&self.weight, &self.options);
        match &self.bias {
            Some(bias) => y.add_channels(bias),
            None => y,
        }
    }
}

/// Rows of a table `weight` [rows, features], as f32.
#[derive(Clone)]
pub struct Embedding {
    table: Tensor,
}

impl Embedding {
    /// The table below a place.
    #[track_caller]
    pub fn new(scope: &Scope, rows: usize, features: usize) -> Embedding {
        Embedding { table: scope.weight("weight", [rows, features]) }
    }
    /// Indices [..] (i32 or u32, clamped to the table) to f32 [.., features].
    #[track_caller]
    pub fn forward(&self, indices: &Tensor) -> Tensor {
        self.table.embedding(indices).cast(selvedge_ir::DType::F32)
    }
}

/// A pointwise nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x · Φ(x).
    Gelu,
    /// GELU's tanh approximation.
    GeluTanh,
    /// x · sigmoid(1.702·x), CLIP's approximation of GELU.
    QuickGelu,
    /// x · sigmoid(x).
    Silu,
    /// max(x, 0).
    Relu,
}

impl Activation {
    /// Applies it.
    #[track_caller]
    pub fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Activation::Gelu => x.gelu(),
            Activation::GeluTanh => x.gelu_tanh(),
            Activation::QuickGelu => x.quick_gelu(),
            Activation::Silu => x.silu(),
            Activation::Relu => x.relu(),
        }
    }
}

/// Linear, activation, linear.
#[derive(Clone)]
pub struct Mlp {
    first: Linear,
    second: Linear,
    activation: Activation,
}

impl Mlp {
    /// From its two layers; timm names them `fc1` and `fc2`, diffusers `net.0.proj` and `net.2`.
    pub fn new(first: Linear, second: Linear, activation: Activation) -> Mlp {
        Mlp { first, second, activation }
    }
    /// [.., in] to [.., out].
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.second.forward(&self.activation.apply(&self.first.forward(x)))
    }
}
