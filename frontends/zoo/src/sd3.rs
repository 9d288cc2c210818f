//! Stable Diffusion 3 and 3.5: the multimodal diffusion transformer, MM-DiT (Esser et al., 2024), with the weights' names of
//! diffusers (class `SD3Transformer2DModel`).

use crate::config::{Fields, divides, in_range};
use crate::joint::{
    Branch, Heads, Projections, adaptive_norm, feed_forward, pooled_embedding, split_tokens, timestep_embedding,
};
use selvedge_model::nn::{Linear, PatchEmbed, unpatchify};
use selvedge_model::{DType, Diagnostic, Diagnostics, ModuleBuilder, Scope, Shape, Tensor};
use serde_json::Value;

/// The architecture's sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Sd3Config {
    /// Side of the latents that pipelines make by default.
    pub sample_size: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Channels of the latent.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Features of a token; a multiple of `num_heads`.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Features of a text token.
    pub joint_attention_dim: usize,
    /// Features of the pooled text.
    pub pooled_projection_dim: usize,
    /// Side, in patches, of the stored position table, from whose middle a smaller grid is cut.
    pub pos_embed_max_size: usize,
    /// Blocks in which the image attends to itself once more (SD3.5 medium); rising.
    pub dual_attention_layers: Vec<usize>,
    /// Queries and keys are RMS-normalised by head (SD3.5).
    pub qk_norm: bool,
}

impl Sd3Config {
    /// Reads a `config.json` of class `SD3Transformer2DModel`. `out_channels`, `dual_attention_layers` and `qk_norm` may be absent,
    /// as in configurations that are older than these fields.
    ///
    /// # Errors
    /// K1 a field is missing, K2 has the wrong type, K3 has a value that is not supported, K4 the class is another,
    /// K5 fields contradict each other; the message names field and class.
    pub fn from_json(config: &Value) -> Result<Sd3Config, Diagnostic> {
        const CLASS: &str = "SD3Transformer2DModel";
        let fields = Fields::new(CLASS, config);
        let class = fields.text("_class_name")?;
        if class != CLASS {
            return Err(Diagnostic::new("K4", format!("`{class}` is not a class of this architecture"))
                .expected_found(format!("`{CLASS}`"), format!("`{class}`")));
        }
        let qk_norm = fields.has("qk_norm");
        if qk_norm && fields.text("qk_norm")? != "rms_norm" {
            return Err(fields.unsupported("qk_norm", "`rms_norm` or null"));
        }
        let (num_heads, in_channels) = (fields.count("num_attention_heads")?, fields.count("in_channels")?);
        let hidden_size = num_heads * fields.count("attention_head_dim")?;
        let caption_projection_dim = fields.count("caption_projection_dim")?;
        if caption_projection_dim != hidden_size {
            let what = "`caption_projection_dim` is not `num_attention_heads` · `attention_head_dim`: text and image \
                        tokens have one size";
            return Err(Diagnostic::new("K5", what).expected_found(hidden_size, caption_projection_dim));
        }
        let mut dual_attention_layers = match fields.has("dual_attention_layers") {
            true => fields.indices("dual_attention_layers")?,
            false => Vec::new(),
        };
        dual_attention_layers.sort_unstable();
        dual_attention_layers.dedup();
        let config = Sd3Config {
            sample_size: fields.count("sample_size")?,
            patch_size: fields.count("patch_size")?,
            in_channels,
            out_channels: if fields.has("out_channels") { fields.count("out_channels")? } else { in_channels },
            hidden_size,
            num_layers: fields.count("num_layers")?,
            num_heads,
            joint_attention_dim: fields.count("joint_attention_dim")?,
            pooled_projection_dim: fields.count("pooled_projection_dim")?,
            pos_embed_max_size: fields.count("pos_embed_max_size")?,
            dual_attention_layers,
            qk_norm,
        };
        config.check()?;
        Ok(config)
    }
    /// The published models: `sd3-medium`, `sd3.5-medium`, `sd3.5-large`. `None` for another name.
    pub fn preset(name: &str) -> Option<Sd3Config> {
        let (num_layers, pos_embed_max_size, dual, qk_norm) = match name {
            "sd3-medium" => (24, 192, 0, false),
            "sd3.5-medium" => (24, 384, 13, true),
            "sd3.5-large" => (38, 192, 0, true),
            _ => return None,
        };
        Some(Sd3Config {
            sample_size: 128,
            patch_size: 2,
            in_channels: 16,
            out_channels: 16,
            hidden_size: 64 * num_layers,
            num_layers,
            num_heads: num_layers,
            joint_attention_dim: 4096,
            pooled_projection_dim: 2048,
            pos_embed_max_size,
            dual_attention_layers: (0..dual).collect(),
            qk_norm,
        })
    }
    /// Names that [`Sd3Config::preset`] knows.
    pub const PRESETS: [&'static str; 3] = ["sd3-medium", "sd3.5-medium", "sd3.5-large"];

    /// What no single field can tell (K5).
    fn check(&self) -> Result<(), Diagnostic> {
        in_range(&[
            ("sample_size", self.sample_size, 1 << 12),
            ("patch_size", self.patch_size, 1 << 8),
            ("in_channels", self.in_channels, 1 << 12),
            ("out_channels", self.out_channels, 1 << 12),
            ("num_attention_heads", self.num_heads, 1 << 10),
            ("num_attention_heads · attention_head_dim", self.hidden_size, 1 << 17),
            ("num_layers", self.num_layers, 1 << 10),
            ("joint_attention_dim", self.joint_attention_dim, 1 << 17),
            ("pooled_projection_dim", self.pooled_projection_dim, 1 << 17),
            ("pos_embed_max_size", self.pos_embed_max_size, 1 << 11),
        ])?;
        divides(
            ("num_attention_heads · attention_head_dim", self.hidden_size),
            ("num_attention_heads", self.num_heads),
        )?;
        match self.dual_attention_layers.iter().find(|&&i| i >= self.num_layers) {
            None => Ok(()),
            Some(block) => Err(Diagnostic::new("K5", "`dual_attention_layers` names a block that is not there")
                .expected_found(format!("numbers below {}", self.num_layers), block)),
        }
    }
}

/// The network: latent f32 [B, in_channels, H, W], text tokens f32 [B, T, joint_attention_dim], pooled text f32
/// [B, pooled_projection_dim] and timestep f32 [B] (from 0 to 1000) to f32 [B, out_channels, H, W].
///
/// H and W are multiples of the patch, at most `pos_embed_max_size` patches. Mistakes are recorded in the graph.
pub fn forward(
    weights: &Scope,
    config: &Sd3Config,
    latent: &Tensor,
    text: &Tensor,
    pooled: &Tensor,
    timestep: &Tensor,
) -> Tensor {
    if let Err(impossible) = config.check() {
        return latent.graph().fail(impossible);
    }
    let (w, d, p) = (weights, config.hidden_size, config.patch_size);
    let grid = (latent.size(-2) / p, latent.size(-1) / p);
    let c = (timestep_embedding(&w.sub("time_text_embed.timestep_embedder"), d, timestep)
        + pooled_embedding(&w.sub("time_text_embed.text_embedder"), config.pooled_projection_dim, d, pooled))
    .named("c");

    let patches = PatchEmbed::new(&w.sub("pos_embed.proj"), p, config.in_channels, d).forward(latent);
    let mut x = patches + cropped_positions(w, config, grid);
    let mut text = Linear::new(&w.sub("context_embedder"), config.joint_attention_dim, d).forward(text);
    for i in 0..config.num_layers {
        let block = Block {
            weights: &w.sub("transformer_blocks").sub(i),
            config,
            c: &c,
            dual: config.dual_attention_layers.contains(&i),
            last: i + 1 == config.num_layers,
        };
        let (image, context) = block.forward(&x, &text);
        (x, text) = (image, context.unwrap_or(text));
    }
    let x = adaptive_norm(&w.sub("norm_out.linear"), d, &c, &x);
    let patches = Linear::new(&w.sub("proj_out"), d, p * p * config.out_channels).forward(&x);
    unpatchify(&patches, grid, p)
}

/// The middle of the stored position table: f32 [1, height·width, hidden_size], rounded as the table is stored.
fn cropped_positions(weights: &Scope, config: &Sd3Config, (height, width): (usize, usize)) -> Tensor {
    let (most, d) = (config.pos_embed_max_size, config.hidden_size);
    let table = weights.weight("pos_embed.pos_embed", [1, most * most, d]);
    if height > most || width > most {
        let what = Diagnostic::new("M1", "the latent is larger than the checkpoint's position table");
        let (p, q) = (config.patch_size, config.patch_size * most);
        return table.graph().fail(
            what.expected_found(format!("at most {q}×{q}"), format!("{}×{}", height * p, width * p))
                .help("make a smaller picture"),
        );
    }
    let (top, left) = ((most - height) / 2, (most - width) / 2);
    let rows = table.unflatten(1, &[most, most]).narrow(1, top, height);
    rows.narrow(2, left, width).flatten(1, 2).named("pos_embed")
}

/// A block of two streams.
struct Block<'a> {
    weights: &'a Scope,
    config: &'a Sd3Config,
    c: &'a Tensor,
    /// The image attends to itself once more.
    dual: bool,
    /// The text stream ends here.
    last: bool,
}

impl Block<'_> {
    /// Image x and text to the next image and, but for the last block, the next text.
    fn forward(&self, x: &Tensor, text: &Tensor) -> (Tensor, Option<Tensor>) {
        let (w, d) = (self.weights, self.config.hidden_size);
        let (attn, mlp, attn2) = self.image_branches();
        let image = self.image_heads("attn", &attn.enter(x));
        let (attended, text) = if self.last {
            // Nothing reads the text any more, so that only the image asks.
            let context = self.text_heads(&adaptive_norm(&w.sub("norm1_context.linear"), d, self.c, text));
            (image.then(&context).attention_of(&image.q), None)
        } else {
            let [attn, mlp] = Branch::adaptive(&w.sub("norm1_context.linear"), d, self.c);
            let context = self.text_heads(&attn.enter(text));
            let both = image.then(&context).attention();
            let [attended, attended_text] = split_tokens(&both, x.size(1));
            let text = attn.leave(text, &Linear::new(&w.sub("attn.to_add_out"), d, d).forward(&attended_text));
            (attended, Some(mlp.leave(&text, &feed_forward(&w.sub("ff_context"), d).forward(&mlp.enter(&text)))))
        };
        let mut y = attn.leave(x, &Linear::new(&w.sub("attn.to_out.0"), d, d).forward(&attended));
        if let Some(attn2) = attn2 {
            let attended = self.image_heads("attn2", &attn2.enter(x)).attention();
            y = attn2.leave(&y, &Linear::new(&w.sub("attn2.to_out.0"), d, d).forward(&attended));
        }
        (mlp.leave(&y, &feed_forward(&w.sub("ff"), d).forward(&mlp.enter(&y))), text)
    }
    /// Joint attention, feed-forward part, and the second attention where there is one.
    fn image_branches(&self) -> (Branch, Branch, Option<Branch>) {
        let (linear, d) = (self.weights.sub("norm1.linear"), self.config.hidden_size);
        if self.dual {
            let [attn, mlp, attn2] = Branch::adaptive(&linear, d, self.c);
            (attn, mlp, Some(attn2))
        } else {
            let [attn, mlp] = Branch::adaptive(&linear, d, self.c);
            (attn, mlp, None)
        }
    }
    fn image_heads(&self, attn: &str, x: &Tensor) -> Heads {
        let c = self.config;
        Projections::image(&self.weights.sub(attn), c.hidden_size, c.num_heads, c.qk_norm).forward(x)
    }
    fn text_heads(&self, text: &Tensor) -> Heads {
        let c = self.config;
        Projections::text(&self.weights.sub("attn"), c.hidden_size, c.num_heads, c.qk_norm).forward(text)
    }
}

/// A module with one function `forward` whose parameters and output have the reference's names: `hidden_states` f32
/// [batch, in_channels, height, width], `encoder_hidden_states` f32 [batch, text_tokens, joint_attention_dim],
/// `pooled_projections` f32 [batch, pooled_projection_dim] and `timestep` f32 [batch] to `sample`. `stored` tells the checkpoint's
/// dtypes.
///
/// # Errors
/// Everything that does not fit, with the place in the model's code.
pub fn forward_module(
    config: &Sd3Config,
    batch: usize,
    (height, width): (usize, usize),
    text_tokens: usize,
    stored: impl Fn(&str) -> Option<DType> + 'static,
) -> Result<selvedge_ir::Module, Diagnostics> {
    let mut module = ModuleBuilder::new("sd3").stored_as(stored);
    module.function("forward", |g| {
        let latent = g.input("hidden_states", DType::F32, [batch, config.in_channels, height, width]);
        let text = g.input("encoder_hidden_states", DType::F32, [batch, text_tokens, config.joint_attention_dim]);
        let pooled = g.input("pooled_projections", DType::F32, [batch, config.pooled_projection_dim]);
        let timestep = g.input("timestep", DType::F32, [batch]);
        g.output("sample", &forward(&g.weights(), config, &latent, &text, &pooled, &timestep));
    });
    module.build()
}

/// Names and shapes of all weights of the model, in the order of first use.
///
/// # Errors
/// K5 the configuration is impossible (one made by [`Sd3Config::from_json`] is not).
pub fn expected_weights(config: &Sd3Config) -> Result<Vec<(String, Shape)>, Diagnostics> {
    let module = forward_module(config, 1, (config.patch_size, config.patch_size), 1, |_| None)?;
    Ok(module.weights.into_iter().map(|w| (w.name, w.ty.shape)).collect())
}
