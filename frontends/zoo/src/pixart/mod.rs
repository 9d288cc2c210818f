//! PixArt-Σ: the text-conditional diffusion transformer with adaLN-single and K/V token compression (Chen et al., 2024), in
//! the key layouts of the original repository (class `PixArtMS`) and of diffusers (class `PixArtTransformer2DModel`).
//!
//! What differs from DiT: one modulation for all blocks, to which each adds its own table; cross-attention to the text in every
//! block; a position table that is computed for the latent's size.

mod attention;
mod config;

pub use config::{IoNames, KvCompression, KvSampling, PixArtConfig, PixArtLayout};

use crate::embed::sincos_2d;
use attention::{cross_attention, keys_mask, self_attention};
use selvedge_model::nn::{
    Activation, LayerNorm, Linear, Mlp, PatchEmbed, Sinusoid, TimestepEmbedding, modulate, unpatchify,
};
use selvedge_model::{DType, Diagnostic, Diagnostics, ModuleBuilder, Scope, Shape, Tensor, concat};

/// Added to the variance in the last norm, and in all norms of the original layout's blocks.
const NORM_EPS: f64 = 1e-6;

/// Where the parts are in a checkpoint.
struct Names {
    patches: &'static str,
    timestep: &'static str,
    /// Embedders of (height, width) and of the aspect ratio.
    size: [&'static str; 2],
    /// The two layers of each of these embedders.
    embedder: [&'static str; 2],
    modulation: &'static str,
    caption: [&'static str; 2],
    blocks: &'static str,
    mlp: [&'static str; 2],
    head: &'static str,
    head_table: &'static str,
}

const ORIGINAL: Names = Names {
    patches: "x_embedder.proj",
    timestep: "t_embedder",
    size: ["csize_embedder", "ar_embedder"],
    embedder: ["mlp.0", "mlp.2"],
    modulation: "t_block.1",
    caption: ["y_embedder.y_proj.fc1", "y_embedder.y_proj.fc2"],
    blocks: "blocks",
    mlp: ["mlp.fc1", "mlp.fc2"],
    head: "final_layer.linear",
    head_table: "final_layer.scale_shift_table",
};

const DIFFUSERS: Names = Names {
    patches: "pos_embed.proj",
    timestep: "adaln_single.emb.timestep_embedder",
    size: ["adaln_single.emb.resolution_embedder", "adaln_single.emb.aspect_ratio_embedder"],
    embedder: ["linear_1", "linear_2"],
    modulation: "adaln_single.linear",
    caption: ["caption_projection.linear_1", "caption_projection.linear_2"],
    blocks: "transformer_blocks",
    mlp: ["ff.net.0.proj", "ff.net.2"],
    head: "proj_out",
    head_table: "scale_shift_table",
};

/// What the network is evaluated on.
pub struct Inputs<'a> {
    /// Latent f32 [B, in_channels, H, W]; H and W are multiples of the patch.
    pub latent: &'a Tensor,
    /// Timestep f32 [B].
    pub timestep: &'a Tensor,
    /// States of the text encoder, f32 [B, L, caption_channels] or [B, 1, L, caption_channels].
    pub caption: &'a Tensor,
    /// 1 for text and 0 for padding, [B, L] of any number type; without it all tokens are text. diffusers also takes what is
    /// added to the scores, f32 [B, 1, L].
    pub caption_mask: Option<&'a Tensor>,
    /// Height and width in pixels f32 [B, 2], and aspect ratio f32 [B, 1]; needed with `micro_condition`, else unused.
    pub size: Option<[&'a Tensor; 2]>,
}

/// The network, to f32 [B, out_channels, H, W]: noise, then the channels of a learned variance.
///
/// `weights` is the root of the checkpoint. Mistakes, K5 among them for an impossible configuration, are recorded in the graph.
pub fn forward(weights: &Scope, config: &PixArtConfig, inputs: &Inputs) -> Tensor {
    let graph = weights.graph();
    if let Err(impossible) = config.check() {
        return graph.fail(impossible);
    }
    let names = match config.layout {
        PixArtLayout::Original { .. } => &ORIGINAL,
        PixArtLayout::Diffusers { .. } => &DIFFUSERS,
    };
    let (x, d, p) = (inputs.latent, config.hidden_size, config.patch_size);
    let net = Net { weights, config, names, grid: (x.size(-2) / p, x.size(-1) / p) };

    let patches = PatchEmbed::new(&weights.sub(names.patches), p, config.in_channels, d);
    let positions = sincos_2d(graph, d, net.grid, config.input_size / p, config.position_scale);
    let mut h = patches.forward(x) + positions;
    let t = net.condition(inputs).named("t");
    let t0 = Linear::new(&weights.sub(names.modulation), d, 6 * d).forward(&t.silu()).unflatten(-1, &[6, d]);
    let text = net.text(inputs.caption);
    let mask = inputs.caption_mask.map(|mask| keys_mask(config, mask));
    for i in 0..config.depth {
        h = net.block(i, &h, &t0, &text, mask.as_ref());
    }
    net.head(&h, &t)
}

struct Net<'a> {
    weights: &'a Scope,
    config: &'a PixArtConfig,
    names: &'a Names,
    grid: (usize, usize),
}

impl Net<'_> {
    /// What the modulations are made from, [B, D]: the timestep and, with micro-conditioning, height, width and aspect ratio in a
    /// third of the features each.
    fn condition(&self, inputs: &Inputs) -> Tensor {
        let embed = |name: &str, features: usize, numbers: &Tensor| {
            let embedding =
                TimestepEmbedding::new(&self.weights.sub(name), self.names.embedder, features, Sinusoid::dit());
            embedding.forward(numbers)
        };
        let d = self.config.hidden_size;
        let t = embed(self.names.timestep, d, inputs.timestep);
        match (self.config.micro_condition, inputs.size) {
            (false, _) => t,
            (true, None) => {
                let what = "the model is conditioned on the picture's height, width and aspect ratio";
                t.graph().fail(Diagnostic::new("M1", what).expected_found("both inputs", "none"))
            }
            (true, Some(sizes)) => {
                // Each number of a sample is embedded on its own; a sample's embeddings are joined.
                let [hw, ratio] = [0, 1].map(|i| {
                    let numbers = sizes[i].flatten(0, -1);
                    embed(self.names.size[i], d / 3, &numbers).unflatten(0, &[sizes[i].size(0), sizes[i].size(-1)])
                });
                t + concat(&[&hw.flatten(1, 2), &ratio.flatten(1, 2)], -1)
            }
        }
    }
    /// The text as the attention sees it, [B, L, features].
    fn text(&self, caption: &Tensor) -> Tensor {
        let caption = if caption.rank() == 4 { &caption.squeeze(1) } else { caption };
        if !self.config.caption_projection {
            return caption.clone();
        }
        let d = self.config.hidden_size;
        let [first, second] = self.names.caption.map(|name| self.weights.sub(name));
        let (first, second) = (Linear::new(&first, self.config.caption_channels, d), Linear::new(&second, d, d));
        Mlp::new(first, second, Activation::GeluTanh).forward(caption)
    }
    /// h ← h + gate₁·attention(mod₁(LN(h))); h ← h + cross-attention(h, text); h ← h + gate₂·mlp(mod₂(LN(h))).
    fn block(&self, i: usize, h: &Tensor, t0: &Tensor, text: &Tensor, mask: Option<&Tensor>) -> Tensor {
        let (c, d) = (self.config, self.config.hidden_size);
        let block = self.weights.sub(self.names.blocks).sub(i);
        let [shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp] =
            (block.weight("scale_shift_table", [6, d]) + t0).chunk(1);
        let (norm1, norm2, activation) = match c.layout {
            PixArtLayout::Original { .. } => {
                (LayerNorm::plain(NORM_EPS), LayerNorm::plain(NORM_EPS), Activation::GeluTanh)
            }
            PixArtLayout::Diffusers { norm_eps, norm_affine: false, activation, .. } => {
                (LayerNorm::plain(norm_eps), LayerNorm::plain(norm_eps), activation)
            }
            PixArtLayout::Diffusers { norm_eps, norm_affine: true, activation, .. } => {
                let norm = |name: &str| LayerNorm::new(&block.sub(name), d, norm_eps);
                (norm("norm1"), norm("norm2"), activation)
            }
        };
        let [fc1, fc2] = self.names.mlp.map(|name| block.sub(name));
        let (fc1, fc2) = (Linear::new(&fc1, d, c.mlp_hidden_size), Linear::new(&fc2, c.mlp_hidden_size, d));

        let x = modulate(&norm1.forward(h), &shift_attn, &scale_attn);
        let h = h + gate_attn * self_attention(&block, c, i, &x, self.grid);
        let h = &h + cross_attention(&block, c, &h, text, mask);
        let x = modulate(&norm2.forward(&h), &shift_mlp, &scale_mlp);
        &h + gate_mlp * Mlp::new(fc1, fc2, activation).forward(&x)
    }
    /// Norm modulated by the condition itself, linear, and tokens back to an image.
    fn head(&self, h: &Tensor, t: &Tensor) -> Tensor {
        let (c, d, p) = (self.config, self.config.hidden_size, self.config.patch_size);
        let [shift, scale] = (self.weights.weight(self.names.head_table, [2, d]) + t.unsqueeze(1)).chunk(1);
        let linear = Linear::new(&self.weights.sub(self.names.head), d, p * p * c.out_channels);
        let y = linear.forward(&modulate(&LayerNorm::plain(NORM_EPS).forward(h), &shift, &scale));
        unpatchify(&y, self.grid, p)
    }
}

/// Sizes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallSize {
    /// Samples.
    pub batch: usize,
    /// Height and width of the latent.
    pub latent: (usize, usize),
    /// Text tokens, padding counted.
    pub caption_tokens: usize,
    /// The call has a caption mask.
    pub masked: bool,
}

/// A module with one function `forward` whose parameters and output have the reference's names ([`PixArtConfig::io_names`]) and
/// shapes: latent f32 [batch, C, height, width], timestep f32 [batch], caption f32 [batch, L, caption_channels] (original layout:
/// [batch, 1, L, caption_channels]), mask i32 [batch, L], with micro-conditioning f32 [batch, 2] and [batch, 1]. The original
/// layout also returns `eps`, the first half of the channels, which is what its sampler reads. `stored` tells the checkpoint's
/// dtypes.
///
/// # Errors
/// Everything that does not fit, with the place in the model's code.
pub fn forward_module(
    config: &PixArtConfig,
    size: CallSize,
    stored: impl Fn(&str) -> Option<DType> + 'static,
) -> Result<selvedge_ir::Module, Diagnostics> {
    let CallSize { batch, latent: (height, width), caption_tokens, masked } = size;
    let original = matches!(config.layout, PixArtLayout::Original { .. });
    let mut module = ModuleBuilder::new("pixart").stored_as(stored);
    module.function("forward", |g| {
        let names = config.io_names();
        let latent = g.input(names.latent, DType::F32, [batch, config.in_channels, height, width]);
        let timestep = g.input(names.timestep, DType::F32, [batch]);
        let mut caption_shape = vec![batch, caption_tokens, config.caption_channels];
        if original {
            caption_shape.insert(1, 1);
        }
        let caption = g.input(names.caption, DType::F32, caption_shape);
        let mask = masked.then(|| g.input(names.caption_mask, DType::I32, [batch, caption_tokens]));
        let sizes = config.micro_condition.then(|| {
            let [hw, ratio] = names.size;
            [g.input(hw, DType::F32, [batch, 2]), g.input(ratio, DType::F32, [batch, 1])]
        });
        let inputs = Inputs {
            latent: &latent,
            timestep: &timestep,
            caption: &caption,
            caption_mask: mask.as_ref(),
            size: sizes.as_ref().map(|[hw, ratio]| [hw, ratio]),
        };
        let output = forward(&g.weights(), config, &inputs);
        g.output(names.output, &output);
        if original {
            g.output("eps", &output.narrow(1, 0, config.out_channels.div_ceil(2)));
        }
    });
    module.build()
}

/// Names and shapes of all weights the model reads, in the order of first use.
///
/// # Errors
/// K5 the configuration is impossible (one made by [`PixArtConfig::from_json`] is not).
pub fn expected_weights(config: &PixArtConfig) -> Result<Vec<(String, Shape)>, Diagnostics> {
    // The smallest latent that every compression divides; no weight depends on it.
    let side = config.patch_size.saturating_mul(config.kv_compression().map_or(1, |c| c.factor));
    let size = CallSize { batch: 1, latent: (side, side), caption_tokens: 1, masked: false };
    let module = forward_module(config, size, |_| None)?;
    Ok(module.weights.into_iter().map(|w| (w.name, w.ty.shape)).collect())
}

/// Tensors that a checkpoint may hold though the network does not read them: position tables, which it computes, and the
/// original's null caption, which a sampler reads.
pub fn ignored(config: &PixArtConfig, name: &str) -> bool {
    match config.layout {
        PixArtLayout::Original { .. } => ["pos_embed", "y_embedder.y_embedding"].contains(&name),
        PixArtLayout::Diffusers { .. } => name == "pos_embed.pos_embed",
    }
}
