//! FLUX.1 (Black Forest Labs, 2024), with the weights' names of diffusers (class `FluxTransformer2DModel`): double-stream blocks,
//! then blocks of one stream, rotary positions of three axes, and guidance as an input of the distilled model.

use crate::config::{Fields, divides, in_range};
use crate::joint::{
    Branch, Heads, Projections, adaptive_norm, feed_forward, pooled_embedding, split_tokens, timestep_embedding,
};
use selvedge_model::nn::Linear;
use selvedge_model::{DType, Diagnostic, Diagnostics, Graph, ModuleBuilder, Scope, Shape, Tensor, concat};
use serde_json::Value;

/// Period of the slowest rotation, over 2π.
const ROPE_THETA: f64 = 10000.0;

/// The architecture's sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct FluxConfig {
    /// Side of the patches that an output token holds; 1, since latents come packed.
    pub patch_size: usize,
    /// Features of a packed latent token (2×2 pixels of each channel).
    pub in_channels: usize,
    /// Features of an output token, over the square of `patch_size`.
    pub out_channels: usize,
    /// Features inside; a multiple of `num_heads`.
    pub hidden_size: usize,
    /// Blocks of two streams.
    pub num_layers: usize,
    /// Blocks of one stream, after those.
    pub num_single_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Features of a text token.
    pub joint_attention_dim: usize,
    /// Features of the pooled text.
    pub pooled_projection_dim: usize,
    /// The model takes the guidance scale as an input (FLUX.1 dev).
    pub guidance_embeds: bool,
    /// Features of a head that each axis of the position rotates (plane, row, column); even, together the head size.
    pub axes_dims: [usize; 3],
}

impl FluxConfig {
    /// Reads a `config.json` of class `FluxTransformer2DModel`. `patch_size`, `out_channels`, `guidance_embeds` and `axes_dims_rope`
    /// may be absent and have then diffusers' defaults, as in configurations that are older than these fields.
    ///
    /// # Errors
    /// K1 a field is missing, K2 has the wrong type, K3 has a value that is not supported, K4 the class is another,
    /// K5 fields contradict each other; the message names field and class.
    pub fn from_json(config: &Value) -> Result<FluxConfig, Diagnostic> {
        const CLASS: &str = "FluxTransformer2DModel";
        let fields = Fields::new(CLASS, config);
        let class = fields.text("_class_name")?;
        if class != CLASS {
            return Err(Diagnostic::new("K4", format!("`{class}` is not a class of this architecture"))
                .expected_found(format!("`{CLASS}`"), format!("`{class}`")));
        }
        let axes = match fields.has("axes_dims_rope") {
            true => fields.indices("axes_dims_rope")?,
            false => vec![16, 56, 56],
        };
        let axes_dims =
            <[usize; 3]>::try_from(axes).map_err(|_| fields.unsupported("axes_dims_rope", "three numbers"))?;
        let (num_heads, in_channels) = (fields.count("num_attention_heads")?, fields.count("in_channels")?);
        let config = FluxConfig {
            patch_size: if fields.has("patch_size") { fields.count("patch_size")? } else { 1 },
            in_channels,
            out_channels: if fields.has("out_channels") { fields.count("out_channels")? } else { in_channels },
            hidden_size: num_heads * fields.count("attention_head_dim")?,
            num_layers: fields.index("num_layers")?,
            num_single_layers: fields.index("num_single_layers")?,
            num_heads,
            joint_attention_dim: fields.count("joint_attention_dim")?,
            pooled_projection_dim: fields.count("pooled_projection_dim")?,
            guidance_embeds: fields.has("guidance_embeds") && fields.flag("guidance_embeds")?,
            axes_dims,
        };
        config.check()?;
        Ok(config)
    }
    /// The published models, `flux-dev` and `flux-schnell`. `None` for another name.
    pub fn preset(name: &str) -> Option<FluxConfig> {
        let guidance_embeds = match name {
            "flux-dev" => true,
            "flux-schnell" => false,
            _ => return None,
        };
        Some(FluxConfig {
            patch_size: 1,
            in_channels: 64,
            out_channels: 64,
            hidden_size: 3072,
            num_layers: 19,
            num_single_layers: 38,
            num_heads: 24,
            joint_attention_dim: 4096,
            pooled_projection_dim: 768,
            guidance_embeds,
            axes_dims: [16, 56, 56],
        })
    }
    /// Names that [`FluxConfig::preset`] knows.
    pub const PRESETS: [&'static str; 2] = ["flux-dev", "flux-schnell"];

    /// What no single field can tell (K5).
    fn check(&self) -> Result<(), Diagnostic> {
        in_range(&[
            ("patch_size", self.patch_size, 1 << 8),
            ("in_channels", self.in_channels, 1 << 14),
            ("out_channels", self.out_channels, 1 << 14),
            ("num_attention_heads", self.num_heads, 1 << 10),
            ("num_attention_heads · attention_head_dim", self.hidden_size, 1 << 17),
            ("num_layers + num_single_layers", self.num_layers + self.num_single_layers, 1 << 10),
            ("joint_attention_dim", self.joint_attention_dim, 1 << 17),
            ("pooled_projection_dim", self.pooled_projection_dim, 1 << 17),
        ])?;
        divides(
            ("num_attention_heads · attention_head_dim", self.hidden_size),
            ("num_attention_heads", self.num_heads),
        )?;
        let head = self.hidden_size / self.num_heads;
        if self.axes_dims.iter().sum::<usize>() != head || self.axes_dims.iter().any(|d| !d.is_multiple_of(2)) {
            let what = "`axes_dims_rope` does not fill `attention_head_dim` with pairs";
            return Err(Diagnostic::new("K5", what)
                .expected_found(format!("even numbers whose sum is {head}"), format!("{:?}", self.axes_dims)));
        }
        Ok(())
    }
}

/// Rotations of queries and keys by position: cos and sin f32 [tokens, head size], each value twice, for a pair of neighbours.
pub struct Rotary {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
}

impl Rotary {
    /// From ids f32 [tokens, 3] (plane, row, column; fractions are allowed), the text's first. Angles are f32 products.
    pub fn of_ids(config: &FluxConfig, ids: &Tensor) -> Rotary {
        let angles = (0..3).map(|axis| {
            let waves = frequencies(config.axes_dims[axis]);
            let waves = ids.graph().constant(DType::F32, [1, waves.len()], &waves);
            ids.narrow(-1, axis, 1) * waves
        });
        let angles = concat(&angles.collect::<Vec<_>>().iter().collect::<Vec<_>>(), -1).named("angles");
        Rotary { cos: twice(&angles.cos()), sin: twice(&angles.sin()) }
    }
    /// For `text` tokens at the origin, then a grid of packed latents at (0, row, column), as the pipelines place them. Sines are
    /// taken in f64, as the reference takes them.
    pub fn of_grid(graph: &Graph, config: &FluxConfig, text: usize, (height, width): (usize, usize)) -> Rotary {
        let [plane, row, column] = config.axes_dims;
        let table = |f: fn(f64) -> f64| {
            let along = |dims: usize, shape: [usize; 3]| {
                let waves = frequencies(dims);
                let angles = (0..shape[0] * shape[1]).flat_map(|i| waves.iter().map(move |w| i as f64 * w));
                let values: Vec<f64> = angles.map(f).flat_map(|x| [x, x]).collect();
                graph.constant(DType::F32, shape, &values).broadcast_to([height, width, dims])
            };
            // One small table an axis; the grid is a broadcast of each.
            let (rows, columns) = (along(row, [height, 1, row]), along(column, [1, width, column]));
            let origin = |shape: [usize; 3]| graph.full(DType::F32, shape, f(0.0));
            let grid = concat(&[&origin([height, width, plane]), &rows, &columns], -1).flatten(0, 1);
            concat(&[&origin([1, text, plane + row + column]).squeeze(0), &grid], 0)
        };
        Rotary { cos: table(f64::cos).named("cos"), sin: table(f64::sin).named("sin") }
    }
}

/// θ^(−2i/d) for the d/2 pairs of an axis.
fn frequencies(dims: usize) -> Vec<f64> {
    (0..dims / 2).map(|i| ROPE_THETA.powf(-((2 * i) as f64) / dims as f64)).collect()
}

/// [N, D/2] to [N, D], each value twice.
fn twice(x: &Tensor) -> Tensor {
    let (tokens, pairs) = (x.size(0), x.size(1));
    x.unsqueeze(-1).broadcast_to([tokens, pairs, 2]).flatten(1, 2)
}

/// What the conditioning vector is made of.
pub struct Conditioning {
    /// Time from 0 to 1, f32 [B].
    pub timestep: Tensor,
    /// Guidance scale f32 [B], with `guidance_embeds`.
    pub guidance: Option<Tensor>,
    /// Pooled text f32 [B, pooled_projection_dim].
    pub pooled: Tensor,
}

/// The network: packed latent tokens f32 [B, N, in_channels] and text tokens f32 [B, T, joint_attention_dim] to f32
/// [B, N, patch_size²·out_channels]; the rotations are of T + N tokens, the text's first. Mistakes are recorded in the graph.
pub fn forward(
    weights: &Scope,
    config: &FluxConfig,
    latent: &Tensor,
    text: &Tensor,
    conditioning: &Conditioning,
    rotary: &Rotary,
) -> Tensor {
    if let Err(impossible) = config.check() {
        return latent.graph().fail(impossible);
    }
    let (w, d) = (weights, config.hidden_size);
    let c = conditioning_vector(&w.sub("time_text_embed"), config, conditioning);
    let mut x = Linear::new(&w.sub("x_embedder"), config.in_channels, d).forward(latent);
    let mut text = Linear::new(&w.sub("context_embedder"), config.joint_attention_dim, d).forward(text);
    for i in 0..config.num_layers {
        let weights = &w.sub("transformer_blocks").sub(i);
        (x, text) = Block { weights, config, c: &c, rotary }.double(&x, &text);
    }
    let text_tokens = text.size(1);
    let mut all = concat(&[&text, &x], 1);
    for i in 0..config.num_single_layers {
        let weights = &w.sub("single_transformer_blocks").sub(i);
        all = Block { weights, config, c: &c, rotary }.single(&all);
    }
    let [_, x] = split_tokens(&all, text_tokens);
    let x = adaptive_norm(&w.sub("norm_out.linear"), d, &c, &x);
    Linear::new(&w.sub("proj_out"), d, config.patch_size * config.patch_size * config.out_channels).forward(&x)
}

/// Time, guidance and pooled text as one vector f32 [B, hidden_size].
fn conditioning_vector(embed: &Scope, config: &FluxConfig, from: &Conditioning) -> Tensor {
    let d = config.hidden_size;
    let time = timestep_embedding(&embed.sub("timestep_embedder"), d, &(&from.timestep * 1000.0));
    let time = match (config.guidance_embeds, &from.guidance) {
        (false, None) => time,
        (true, Some(guidance)) => time + timestep_embedding(&embed.sub("guidance_embedder"), d, &(guidance * 1000.0)),
        (true, None) => {
            let what = Diagnostic::new("M1", "this model takes the guidance scale as an input");
            return time.graph().fail(what.expected_found("f32 [B]", "none"));
        }
        (false, Some(guidance)) => {
            let what = Diagnostic::new("M1", "this model takes no guidance scale (`guidance_embeds` is false)");
            return time.graph().fail(what.expected_found("none", guidance.shape()));
        }
    };
    let pooled = pooled_embedding(&embed.sub("text_embedder"), config.pooled_projection_dim, d, &from.pooled);
    (time + pooled).named("c")
}

/// A block of either kind.
struct Block<'a> {
    weights: &'a Scope,
    config: &'a FluxConfig,
    c: &'a Tensor,
    rotary: &'a Rotary,
}

impl Block<'_> {
    /// Two streams: joint attention, the text first, then each its own feed-forward part.
    fn double(&self, x: &Tensor, text: &Tensor) -> (Tensor, Tensor) {
        let (w, d, heads) = (self.weights, self.config.hidden_size, self.config.num_heads);
        let image = Branch::adaptive(&w.sub("norm1.linear"), d, self.c);
        let context = Branch::adaptive(&w.sub("norm1_context.linear"), d, self.c);
        let attn = w.sub("attn");
        let image_heads = Projections::image(&attn, d, heads, true).forward(&image[0].enter(x));
        let text_heads = Projections::text(&attn, d, heads, true).forward(&context[0].enter(text));
        let both = self.attention(text_heads.then(&image_heads));
        let [attended_text, attended] = split_tokens(&both, text.size(1));

        let finish = |[attn, mlp]: &[Branch; 2], x: &Tensor, attended: &Tensor, out: &str, ff: &str| {
            let x = attn.leave(x, &Linear::new(&w.sub(out), d, d).forward(attended));
            mlp.leave(&x, &feed_forward(&w.sub(ff), d).forward(&mlp.enter(&x)))
        };
        let x = finish(&image, x, &attended, "attn.to_out.0", "ff");
        let text = finish(&context, text, &attended_text, "attn.to_add_out", "ff_context");
        (x, text)
    }
    /// One stream: attention and feed-forward part side by side, joined by one linear layer.
    fn single(&self, x: &Tensor) -> Tensor {
        let (w, d) = (self.weights, self.config.hidden_size);
        let [branch] = Branch::adaptive(&w.sub("norm.linear"), d, self.c);
        let entered = branch.enter(x);
        let heads = Projections::image(&w.sub("attn"), d, self.config.num_heads, true).forward(&entered);
        let mlp = Linear::new(&w.sub("proj_mlp"), d, 4 * d).forward(&entered).gelu_tanh();
        let both = concat(&[&self.attention(heads), &mlp], -1);
        branch.leave(x, &Linear::new(&w.sub("proj_out"), 5 * d, d).forward(&both))
    }
    fn attention(&self, heads: Heads) -> Tensor {
        heads.rotated(&self.rotary.cos, &self.rotary.sin).attention()
    }
}

/// A module with one function `forward` whose parameters and output have the reference's names: `hidden_states` f32
/// [batch, image_tokens, in_channels], `encoder_hidden_states` f32 [batch, text_tokens, joint_attention_dim],
/// `pooled_projections` f32 [batch, pooled_projection_dim], `timestep` f32 [batch] (0 to 1), `guidance` f32 [batch] with
/// `guidance_embeds`, `img_ids` f32 [image_tokens, 3] and `txt_ids` f32 [text_tokens, 3] to `sample`. `stored` tells the
/// checkpoint's dtypes.
///
/// # Errors
/// Everything that does not fit, with the place in the model's code.
pub fn forward_module(
    config: &FluxConfig,
    batch: usize,
    image_tokens: usize,
    text_tokens: usize,
    stored: impl Fn(&str) -> Option<DType> + 'static,
) -> Result<selvedge_ir::Module, Diagnostics> {
    let mut module = ModuleBuilder::new("flux").stored_as(stored);
    module.function("forward", |g| {
        let latent = g.input("hidden_states", DType::F32, [batch, image_tokens, config.in_channels]);
        let text = g.input("encoder_hidden_states", DType::F32, [batch, text_tokens, config.joint_attention_dim]);
        let conditioning = Conditioning {
            pooled: g.input("pooled_projections", DType::F32, [batch, config.pooled_projection_dim]),
            timestep: g.input("timestep", DType::F32, [batch]),
            guidance: config.guidance_embeds.then(|| g.input("guidance", DType::F32, [batch])),
        };
        let image_ids = g.input("img_ids", DType::F32, [image_tokens, 3]);
        let text_ids = g.input("txt_ids", DType::F32, [text_tokens, 3]);
        let rotary = Rotary::of_ids(config, &concat(&[&text_ids, &image_ids], 0));
        g.output("sample", &forward(&g.weights(), config, &latent, &text, &conditioning, &rotary));
    });
    module.build()
}

/// Names and shapes of all weights of the model, in the order of first use.
///
/// # Errors
/// K5 the configuration is impossible (one made by [`FluxConfig::from_json`] is not).
pub fn expected_weights(config: &FluxConfig) -> Result<Vec<(String, Shape)>, Diagnostics> {
    let module = forward_module(config, 1, 1, 1, |_| None)?;
    Ok(module.weights.into_iter().map(|w| (w.name, w.ty.shape)).collect())
}
