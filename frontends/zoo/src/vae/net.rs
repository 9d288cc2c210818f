//! The network: encoder, decoder, and their blocks.

use super::{VaeConfig, VaeLayout};
use selvedge_ir::ops::ResizeKind;
use selvedge_model::nn::{Conv, GroupNorm};
use selvedge_model::{Scope, Tensor, WindowOptions};

/// Added to the variance in every norm.
const NORM_EPS: f64 = 1e-6;
/// Bounds of the posterior's log variance.
const LOGVAR: (f64, f64) = (-30.0, 20.0);

/// Image f32 [B, in_channels, H, W] to the posterior's moments [B, 2·latent_channels, H/f, W/f]: mean, then log variance within −30 to 20.
/// `weights` is the root of the checkpoint. Mistakes, an impossible configuration (K5) among them, are recorded in the graph.
pub fn encode(weights: &Scope, config: &VaeConfig, image: &Tensor) -> Tensor {
    if let Err(impossible) = config.check() {
        return image.graph().fail(impossible);
    }
    let net = Net { config, keys: Keys::of(config.layout) };
    let scope = weights.sub("encoder");
    let widths = &config.block_out_channels;
    let mut width = widths[0];
    let mut h = conv3(&scope.sub("conv_in"), config.in_channels, width, image);
    for (level, &out) in widths.iter().enumerate() {
        let place = scope.sub(net.keys.down).sub(level);
        for layer in 0..config.layers_per_block {
            h = net.layer(&place, level, layer, width, &h);
            width = out;
        }
        if level + 1 < widths.len() {
            h = downsample(&place.sub(net.keys.downsample), width, &h);
        }
    }
    h = net.middle(&scope.sub(net.keys.mid), width, &h);
    h = net.norm(&scope.sub(net.keys.norm_out), width, &h).silu();
    let mut moments = conv3(&scope.sub("conv_out"), width, 2 * config.z_channels, &h);
    if config.quant_conv {
        moments = conv1(&weights.sub("quant_conv"), 2 * config.z_channels, 2 * config.latent_channels, &moments);
    }
    let [mean, logvar] = moments.chunk(1);
    selvedge_model::concat(&[&mean, &logvar.clamp(LOGVAR.0, LOGVAR.1)], 1).named("moments")
}

/// Latent f32 [B, latent_channels, h, w] (as encoded: neither scaled nor shifted) to an image [B, out_channels, h·f, w·f], black −1, white 1.
/// `weights` is the root of the checkpoint. Mistakes, an impossible configuration (K5) among them, are recorded in the graph.
pub fn decode(weights: &Scope, config: &VaeConfig, latent: &Tensor) -> Tensor {
    if let Err(impossible) = config.check() {
        return latent.graph().fail(impossible);
    }
    let net = Net { config, keys: Keys::of(config.layout) };
    let scope = weights.sub("decoder");
    let widths = &config.block_out_channels;
    let levels = widths.len();
    let mut width = widths[levels - 1];
    let mut z = latent.clone();
    if config.post_quant_conv {
        z = conv1(&weights.sub("post_quant_conv"), config.latent_channels, config.z_channels, &z);
    }
    let mut h = conv3(&scope.sub("conv_in"), config.z_channels, width, &z);
    h = net.middle(&scope.sub(net.keys.mid), width, &h);
    for level in (0..levels).rev() {
        let place = scope.sub(net.keys.up).sub(if net.keys.up_by_level { level } else { levels - 1 - level });
        for layer in 0..=config.layers_per_block {
            h = net.layer(&place, level, layer, width, &h);
            width = widths[level];
        }
        if level > 0 {
            h = upsample(&place.sub(net.keys.upsample), width, &h);
        }
    }
    h = net.norm(&scope.sub(net.keys.norm_out), width, &h).silu();
    conv3(&scope.sub("conv_out"), width, config.out_channels, &h)
}

/// A diffusion model's latents to a picture with black 0 and white 1: decode(latents / scaling_factor + shift_factor) / 2 + ½, clamped.
pub fn latents_to_image(weights: &Scope, config: &VaeConfig, latents: &Tensor) -> Tensor {
    image_of_size(weights, config, latents, None)
}

/// As [`latents_to_image`], then resized (linearly, to cover) and cut in the middle to a height and width, as PixArt's pipelines do
/// with the pictures of a size that was trained.
pub fn image_of_size(weights: &Scope, config: &VaeConfig, latents: &Tensor, size: Option<[usize; 2]>) -> Tensor {
    let mut z = latents / config.scaling_factor;
    if config.shift_factor != 0.0 {
        z = z + config.shift_factor;
    }
    let mut image = decode(weights, config, &z);
    if let Some(size) = size {
        image = covering(&image, size);
    }
    (image * 0.5 + 0.5).clamp(0.0, 1.0)
}

/// Resized so that it covers height and width, and cut in the middle.
fn covering(image: &Tensor, [height, width]: [usize; 2]) -> Tensor {
    let (h, w) = (image.size(2), image.size(3));
    if (h, w) == (height, width) {
        return image.clone();
    }
    let ratio = (height as f64 / h as f64).max(width as f64 / w as f64);
    let [resized_h, resized_w] = [h, w].map(|n| (n as f64 * ratio) as usize); // truncated, as in Python
    let resized = image.resize(ResizeKind::Linear, &[resized_h, resized_w]);
    let middle = |all: usize, part: usize| all.saturating_sub(part) / 2;
    resized.narrow(2, middle(resized_h, height), height).narrow(3, middle(resized_w, width), width)
}

/// Names of the parts in a layout.
struct Keys {
    down: &'static str,
    up: &'static str,
    /// `up` is numbered by resolution, not by order of use.
    up_by_level: bool,
    layers: &'static str,
    shortcut: &'static str,
    downsample: &'static str,
    upsample: &'static str,
    mid: &'static str,
    mid_parts: [&'static str; 3],
    norm_out: &'static str,
    attention_norm: &'static str,
    /// q, k, v and output.
    attention: [&'static str; 4],
    /// The attention's layers are 1×1 convolutions.
    attention_conv: bool,
}

impl Keys {
    fn of(layout: VaeLayout) -> Keys {
        let diffusers = Keys {
            down: "down_blocks",
            up: "up_blocks",
            up_by_level: false,
            layers: "resnets",
            shortcut: "conv_shortcut",
            downsample: "downsamplers.0.conv",
            upsample: "upsamplers.0.conv",
            mid: "mid_block",
            mid_parts: ["resnets.0", "attentions.0", "resnets.1"],
            norm_out: "conv_norm_out",
            attention_norm: "group_norm",
            attention: ["to_q", "to_k", "to_v", "to_out.0"],
            attention_conv: false,
        };
        match layout {
            VaeLayout::Diffusers => diffusers,
            VaeLayout::DiffusersOld => Keys { attention: ["query", "key", "value", "proj_attn"], ..diffusers },
            VaeLayout::Ldm => Keys {
                down: "down",
                up: "up",
                up_by_level: true,
                layers: "block",
                shortcut: "nin_shortcut",
                downsample: "downsample.conv",
                upsample: "upsample.conv",
                mid: "mid",
                mid_parts: ["block_1", "attn_1", "block_2"],
                norm_out: "norm_out",
                attention_norm: "norm",
                attention: ["q", "k", "v", "proj_out"],
                attention_conv: true,
            },
        }
    }
}

struct Net<'a> {
    config: &'a VaeConfig,
    keys: Keys,
}

impl Net<'_> {
    /// One residual block of a resolution, and its attention if the resolution has one.
    fn layer(&self, place: &Scope, level: usize, layer: usize, from: usize, x: &Tensor) -> Tensor {
        let to = self.config.block_out_channels[level];
        let h = self.residual(&place.sub(self.keys.layers).sub(layer), from, to, x);
        match self.config.level_attention[level] {
            true => self.attention(&place.sub("attn").sub(layer), to, &h),
            false => h,
        }
    }
    /// Residual, attention, residual.
    fn middle(&self, place: &Scope, width: usize, x: &Tensor) -> Tensor {
        let [first, attention, second] = self.keys.mid_parts;
        let mut h = self.residual(&place.sub(first), width, width, x);
        if self.config.mid_attention {
            h = self.attention(&place.sub(attention), width, &h);
        }
        self.residual(&place.sub(second), width, width, &h)
    }
    /// x + conv(silu(norm(conv(silu(norm(x)))))), x by a 1×1 convolution where the width changes.
    fn residual(&self, place: &Scope, from: usize, to: usize, x: &Tensor) -> Tensor {
        let h = conv3(&place.sub("conv1"), from, to, &self.norm(&place.sub("norm1"), from, x).silu());
        let h = conv3(&place.sub("conv2"), to, to, &self.norm(&place.sub("norm2"), to, &h).silu());
        if from == to { x + h } else { conv1(&place.sub(self.keys.shortcut), from, to, x) + h }
    }
    /// x + attention over all positions, one head.
    fn attention(&self, place: &Scope, width: usize, x: &Tensor) -> Tensor {
        let (height, columns) = (x.size(-2), x.size(-1));
        let tokens = self.norm(&place.sub(self.keys.attention_norm), width, x).flatten(2, 3).transpose(1, 2);
        let project = |name: &str, tokens: &Tensor| {
            let place = place.sub(name);
            let weight = match self.keys.attention_conv {
                true => place.weight("weight", [width, width, 1, 1]).reshape([width, width]),
                false => place.weight("weight", [width, width]),
            };
            (tokens.linear(&weight) + place.weight("bias", [width])).cast(x.dtype())
        };
        let [q, k, v, out] = self.keys.attention;
        let [q, k, v] = [q, k, v].map(|name| project(name, &tokens).unsqueeze(1));
        let attended = q.attention(&k, &v, 1.0 / (width as f64).sqrt()).squeeze(1);
        let attended = project(out, &attended).transpose(1, 2);
        x + attended.unflatten(2, &[height, columns])
    }
    fn norm(&self, place: &Scope, width: usize, x: &Tensor) -> Tensor {
        GroupNorm::new(place, self.config.norm_num_groups, width, NORM_EPS).forward(x)
    }
}

/// 3×3, same size.
fn conv3(place: &Scope, from: usize, to: usize, x: &Tensor) -> Tensor {
    Conv::new(place, from, to, &[3, 3], WindowOptions::new().padding(&[1])).forward(x)
}
/// 1×1.
fn conv1(place: &Scope, from: usize, to: usize, x: &Tensor) -> Tensor {
    Conv::new(place, from, to, &[1, 1], WindowOptions::new()).forward(x)
}
/// 3×3 of stride 2, padded at the right and the bottom only.
fn downsample(place: &Scope, width: usize, x: &Tensor) -> Tensor {
    let options = WindowOptions { stride: vec![2], padding: vec![(0, 1)], ..WindowOptions::new() };
    Conv::new(place, width, width, &[3, 3], options).forward(x)
}
/// Every pixel four times, then 3×3.
fn upsample(place: &Scope, width: usize, x: &Tensor) -> Tensor {
    let (b, h, w) = (x.size(0), x.size(-2), x.size(-1));
    let doubled =
        x.reshape([b, width, h, 1, w, 1]).broadcast_to([b, width, h, 2, w, 2]).reshape([b, width, 2 * h, 2 * w]);
    conv3(place, width, width, &doubled)
}
