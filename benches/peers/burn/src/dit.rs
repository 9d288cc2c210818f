//! DiT as a user of burn would write it: its modules, its fused activations, one product for q, k and v.

use crate::attention::Kind;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::silu;
use burn::tensor::module::{embedding, layer_norm};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};

/// The sizes of a DiT.
#[derive(Clone, Copy)]
pub struct Config {
    pub batch: usize,
    /// Side of the picture, in pixels or latents, and of a patch.
    pub side: usize,
    pub patch: usize,
    pub channels: usize,
    pub out_channels: usize,
    pub hidden: usize,
    pub depth: usize,
    pub heads: usize,
    pub classes: usize,
}

const FREQUENCIES: usize = 256;
const EPSILON: f64 = 1e-6;

struct Block {
    modulation: Linear,
    qkv: Linear,
    projection: Linear,
    first: Linear,
    second: Linear,
}

pub struct Dit {
    config: Config,
    patches: Linear,
    positions: Tensor<3>,
    frequencies: Tensor<2>,
    time: [Linear; 2],
    classes: Tensor<2>,
    blocks: Vec<Block>,
    modulation: Linear,
    last: Linear,
    /// The norms of DiT have no weights; burn's want some.
    ones: Tensor<1>,
}

impl Dit {
    /// With random weights: `Linear` draws them as burn's default does.
    pub fn new(config: Config, device: &Device) -> Dit {
        let (d, side) = (config.hidden, config.side / config.patch);
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Uniform(-0.05, 0.05), device);
        let area = config.patch * config.patch;
        let frequency = |i| (-(10000f64.ln()) * i as f64 / 128.0).exp() as f32;
        let frequencies: Vec<f32> = (0..FREQUENCIES / 2).map(frequency).collect();
        Dit {
            patches: linear(area * config.channels, d),
            positions: random([side * side, d]).unsqueeze(),
            frequencies: Tensor::from_data(TensorData::new(frequencies, [1, FREQUENCIES / 2]), device),
            time: [linear(FREQUENCIES, d), linear(d, d)],
            classes: random([config.classes + 1, d]),
            blocks: (0..config.depth)
                .map(|_| Block {
                    modulation: linear(d, 6 * d),
                    qkv: linear(d, 3 * d),
                    projection: linear(d, d),
                    first: linear(d, 4 * d),
                    second: linear(4 * d, d),
                })
                .collect(),
            modulation: linear(d, 2 * d),
            last: linear(d, area * config.out_channels),
            ones: Tensor::ones([d], device),
            config,
        }
    }

    /// Floating-point operations of the products of a forward, as the compiler counts them.
    pub fn flops(&self) -> f64 {
        let c = &self.config;
        let (d, tokens) = (c.hidden as f64, (c.side / c.patch).pow(2) as f64);
        let area = (c.patch * c.patch) as f64;
        let block = tokens * (3.0 + 1.0 + 8.0) * d * d + 6.0 * d * d + 2.0 * tokens * tokens * d;
        let rest =
            tokens * area * (c.channels + c.out_channels) as f64 * d + FREQUENCIES as f64 * d + d * d + 2.0 * d * d;
        2.0 * c.batch as f64 * (c.depth as f64 * block + rest)
    }

    /// The network's value for pictures `[batch, channels, side, side]`, times and labels `[batch]`.
    pub fn forward(&self, x: Tensor<4>, t: Tensor<1>, y: Tensor<1, Int>, attention: Kind) -> Tensor<4> {
        let c = &self.config;
        let (p, n, batch, d) = (c.patch, c.side / c.patch, c.batch, c.hidden);
        let patches = x.reshape([batch, c.channels, n, p, n, p]).permute([0, 2, 4, 1, 3, 5]).reshape([
            batch,
            n * n,
            c.channels * p * p,
        ]);
        let mut x = self.patches.forward(patches) + self.positions.clone();
        let angles = t.unsqueeze_dim::<2>(1) * self.frequencies.clone();
        let t = Tensor::cat(vec![angles.clone().cos(), angles.sin()], 1);
        let t = self.time[1].forward(silu(self.time[0].forward(t)));
        let y = embedding(self.classes.clone(), y.unsqueeze_dim::<2>(1)).reshape([batch, d]);
        let condition = silu(t + y);
        for block in &self.blocks {
            let m = block.modulation.forward(condition.clone()).reshape([batch, 1, 6 * d]);
            let [shift1, scale1, gate1, shift2, scale2, gate2] = parts(m);
            let qkv = block
                .qkv
                .forward(self.modulated(x.clone(), shift1, scale1))
                .reshape([batch, n * n, 3, c.heads, d / c.heads])
                .permute([2, 0, 3, 1, 4]);
            let [q, k, v] = [0usize, 1, 2].map(|i| qkv.clone().slice([i..i + 1]).squeeze_dim::<4>(0));
            let heads = attention.of(q, k, v).swap_dims(1, 2).reshape([batch, n * n, d]);
            x = x + gate1 * block.projection.forward(heads);
            let hidden = gelu(block.first.forward(self.modulated(x.clone(), shift2, scale2)));
            x = x + gate2 * block.second.forward(hidden);
        }
        let m = self.modulation.forward(condition).reshape([batch, 1, 2 * d]);
        let [shift, scale] = parts(m);
        self.last
            .forward(self.modulated(x, shift, scale))
            .reshape([batch, n, n, p, p, c.out_channels])
            .permute([0, 5, 1, 3, 2, 4])
            .reshape([batch, c.out_channels, c.side, c.side])
    }

    fn modulated(&self, x: Tensor<3>, shift: Tensor<3>, scale: Tensor<3>) -> Tensor<3> {
        layer_norm(x, self.ones.clone(), None, EPSILON) * (scale + 1.0) + shift
    }
}

/// GELU by tanh, as burn's `gelu_approximate`, with the cube as two multiplications instead of a power.
fn gelu(x: Tensor<3>) -> Tensor<3> {
    let inner = x.clone() + x.clone() * x.clone() * x.clone() * 0.044715;
    x * ((inner * (2.0 / std::f64::consts::PI).sqrt()).tanh() + 1.0) * 0.5
}

/// The parts of a modulation, equal in size.
fn parts<const N: usize>(m: Tensor<3>) -> [Tensor<3>; N] {
    let size = m.dims()[2] / N;
    std::array::from_fn(|i| m.clone().slice([0..m.dims()[0], 0..1, i * size..(i + 1) * size]))
}
