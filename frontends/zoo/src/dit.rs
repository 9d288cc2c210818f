//! DiT: the class-conditional diffusion transformer with adaLN-Zero (Peebles and Xie, 2023), in the key layouts of the
//! original repository (class `DiT`) and of diffusers (class `DiTTransformer2DModel`).

use crate::config::Fields;
use crate::embed::sincos_2d;
use selvedge_model::nn::{
    Activation, AdaLnModulation, Attention, Embedding, LayerNorm, Linear, Mlp, PatchEmbed, Sinusoid, TimestepEmbedding,
    modulate, unpatchify,
};
use selvedge_model::{DType, Diagnostic, Diagnostics, ModuleBuilder, Scope, Shape, Tensor};
use serde_json::Value;

/// Added to the variance in every norm but diffusers' feed-forward norm, which has its own field.
const NORM_EPS: f64 = 1e-6;

/// Whose names the weights have, and what differs with them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DitLayout {
    /// facebookresearch/DiT: fused qkv, one conditioning vector, the position table in the checkpoint.
    Original,
    /// diffusers: separate q, k, v, embedders in every block, a computed position table.
    Diffusers {
        /// q, k and v have biases (`attention_bias`).
        attention_bias: bool,
        /// Added to the variance before the feed-forward part (`norm_eps`).
        norm_eps: f64,
        /// That norm has weights (`norm_elementwise_affine`).
        norm_affine: bool,
        /// GELU of the feed-forward part, exact or by tanh (`activation_fn`).
        activation: Activation,
    },
}

/// The architecture's sizes. Both layouts read into this.
#[derive(Clone, Debug, PartialEq)]
pub struct DitConfig {
    /// Key layout.
    pub layout: DitLayout,
    /// Side of the (square) latent the model was trained on.
    pub input_size: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Channels of the latent.
    pub in_channels: usize,
    /// Channels of the output; twice `in_channels` with a learned variance.
    pub out_channels: usize,
    /// Features of a token; a multiple of `num_heads`.
    pub hidden_size: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Features inside the feed-forward part.
    pub mlp_hidden_size: usize,
    /// Classes, the null class not counted.
    pub num_classes: usize,
    /// The label table has a row `num_classes` for the null class of classifier-free guidance.
    pub has_null_class: bool,
}

impl DitConfig {
    /// Reads a `config.json` of class `DiT` or `DiTTransformer2DModel`.
    ///
    /// # Errors
    /// K1 a field is missing, K2 has the wrong type, K3 has a value that is not supported, K4 the class is another,
    /// K5 fields contradict each other; the message names field and class.
    pub fn from_json(config: &Value) -> Result<DitConfig, Diagnostic> {
        match Fields::new("a model", config).text("_class_name")? {
            "DiT" => Self::original(&Fields::new("DiT", config)),
            "DiTTransformer2DModel" => Self::diffusers(&Fields::new("DiTTransformer2DModel", config)),
            other => Err(Diagnostic::new("K4", format!("`{other}` is not a class of this architecture"))
                .expected_found("`DiT` or `DiTTransformer2DModel`", format!("`{other}`"))),
        }
    }
    fn original(fields: &Fields) -> Result<DitConfig, Diagnostic> {
        let (hidden_size, in_channels) = (fields.count("hidden_size")?, fields.count("in_channels")?);
        let mlp_hidden_size = (hidden_size as f64 * fields.number("mlp_ratio")?) as usize; // truncated, as in Python
        if mlp_hidden_size == 0 {
            return Err(fields.unsupported("mlp_ratio", "a positive ratio"));
        }
        let config = DitConfig {
            layout: DitLayout::Original,
            input_size: fields.count("input_size")?,
            patch_size: fields.count("patch_size")?,
            in_channels,
            out_channels: if fields.flag("learn_sigma")? { 2 * in_channels } else { in_channels },
            hidden_size,
            depth: fields.count("depth")?,
            num_heads: fields.count("num_heads")?,
            mlp_hidden_size,
            num_classes: fields.count("num_classes")?,
            has_null_class: fields.number("class_dropout_prob")? > 0.0,
        };
        config.check()?;
        Ok(config)
    }
    fn diffusers(fields: &Fields) -> Result<DitConfig, Diagnostic> {
        let flag = |name: &str, default: bool| if fields.has(name) { fields.flag(name) } else { Ok(default) };
        let activation =
            match if fields.has("activation_fn") { fields.text("activation_fn")? } else { "gelu-approximate" } {
                "gelu-approximate" => Activation::GeluTanh,
                "gelu" => Activation::Gelu,
                _ => return Err(fields.unsupported("activation_fn", "`gelu-approximate` or `gelu`")),
            };
        if fields.has("norm_type") && fields.text("norm_type")? != "ada_norm_zero" {
            return Err(fields.unsupported("norm_type", "`ada_norm_zero`"));
        }
        let layout = DitLayout::Diffusers {
            attention_bias: flag("attention_bias", true)?,
            norm_eps: if fields.has("norm_eps") { fields.number("norm_eps")? } else { 1e-5 },
            norm_affine: flag("norm_elementwise_affine", false)?,
            activation,
        };
        let in_channels = fields.count("in_channels")?;
        let num_heads = fields.count("num_attention_heads")?;
        let hidden_size = num_heads * fields.count("attention_head_dim")?;
        let config = DitConfig {
            layout,
            input_size: fields.count("sample_size")?,
            patch_size: fields.count("patch_size")?,
            in_channels,
            out_channels: if fields.has("out_channels") { fields.count("out_channels")? } else { in_channels },
            hidden_size,
            depth: fields.count("num_layers")?,
            num_heads,
            mlp_hidden_size: 4 * hidden_size,
            num_classes: fields.count("num_embeds_ada_norm")?,
            has_null_class: true,
        };
        if !hidden_size.is_multiple_of(4) {
            let what =
                "the position table takes a hidden size (num_attention_heads · attention_head_dim) divisible by 4";
            return Err(Diagnostic::new("K5", what).expected_found("a multiple of 4", hidden_size));
        }
        config.check()?;
        Ok(config)
    }
    /// What no single field can tell (K5).
    fn check(&self) -> Result<(), Diagnostic> {
        let (hidden_size, num_heads, input_size, computed_positions) = match self.layout {
            DitLayout::Original => ("hidden_size", "num_heads", "input_size", false),
            DitLayout::Diffusers { .. } => {
                ("num_attention_heads · attention_head_dim", "num_attention_heads", "sample_size", true)
            }
        };
        // Far above any model, and low enough that element counts stay whole numbers.
        for (name, value, most) in [
            (hidden_size, self.hidden_size, 1 << 17),
            (num_heads, self.num_heads, 1 << 10),
            ("the feed-forward size", self.mlp_hidden_size, 1 << 20),
            ("the number of blocks", self.depth, 1 << 10),
            ("in_channels", self.in_channels, 1 << 12),
            ("out_channels", self.out_channels, 1 << 13),
            (input_size, self.input_size, 1 << 11),
            ("patch_size", self.patch_size, 1 << 11),
            ("the number of classes", self.num_classes, 1 << 24),
        ] {
            if value == 0 || value > most {
                let message = format!("`{name}` is out of range");
                return Err(Diagnostic::new("K5", message).expected_found(format!("1 to {most}"), value));
            }
        }
        let divides = |what: (&str, usize), by: (&str, usize)| {
            if what.1.is_multiple_of(by.1) {
                return Ok(());
            }
            let message = format!("`{}` is not divisible by `{}`", what.0, by.0);
            Err(Diagnostic::new("K5", message).expected_found(format!("a multiple of {}", by.1), what.1))
        };
        divides((hidden_size, self.hidden_size), (num_heads, self.num_heads))?;
        divides((input_size, self.input_size), ("patch_size", self.patch_size))?;
        if computed_positions {
            divides((hidden_size, self.hidden_size), ("4, the parts of the position table", 4))?;
        }
        Ok(())
    }

    /// The published configurations, original layout, 256-pixel latents (4×32×32), learned variance, 1000 classes:
    /// `dit-s-2` … `dit-xl-8` (size S, B, L or XL; patch 2, 4 or 8). `None` for another name.
    pub fn preset(name: &str) -> Option<DitConfig> {
        let (size, patch) = name.strip_prefix("dit-")?.split_once('-')?;
        let (hidden_size, depth, num_heads) = match size {
            "s" => (384, 12, 6),
            "b" => (768, 12, 12),
            "l" => (1024, 24, 16),
            "xl" => (1152, 28, 16),
            _ => return None,
        };
        let patch_size = match patch {
            "2" => 2,
            "4" => 4,
            "8" => 8,
            _ => return None,
        };
        Some(DitConfig {
            layout: DitLayout::Original,
            input_size: 32,
            patch_size,
            in_channels: 4,
            out_channels: 8,
            hidden_size,
            depth,
            num_heads,
            mlp_hidden_size: 4 * hidden_size,
            num_classes: 1000,
            has_null_class: true,
        })
    }
    /// Names that [`DitConfig::preset`] knows.
    pub const PRESETS: [&'static str; 12] = [
        "dit-s-2", "dit-s-4", "dit-s-8", "dit-b-2", "dit-b-4", "dit-b-8", "dit-l-2", "dit-l-4", "dit-l-8", "dit-xl-2",
        "dit-xl-4", "dit-xl-8",
    ];
    /// The output has variance channels after the noise channels.
    pub fn learns_sigma(&self) -> bool {
        self.out_channels == 2 * self.in_channels
    }
    /// The label of the null class, if there is one.
    pub fn null_class(&self) -> Option<usize> {
        self.has_null_class.then_some(self.num_classes)
    }
    /// Rows of the label table; labels are below it.
    pub fn label_rows(&self) -> usize {
        self.num_classes + usize::from(self.has_null_class)
    }
    /// The reference's names of latent, timestep and label, and of the output.
    pub fn io_names(&self) -> ([&'static str; 3], &'static str) {
        match self.layout {
            DitLayout::Original => (["x", "t", "y"], "out"),
            DitLayout::Diffusers { .. } => (["hidden_states", "timestep", "class_labels"], "sample"),
        }
    }
}

/// The network: latent f32 [B, C, H, W], timestep f32 [B], label i32 [B] to f32 [B, out_channels, H, W].
///
/// `weights` is the root of the checkpoint. With the original layout H and W are the configuration's `input_size`, which the
/// stored position table has; with diffusers' any multiples of the patch (the table is stretched, as there). Mistakes, K5 among
/// them for an impossible configuration, are recorded in the graph.
pub fn forward(weights: &Scope, config: &DitConfig, x: &Tensor, timestep: &Tensor, label: &Tensor) -> Tensor {
    if let Err(impossible) = config.check() {
        return x.graph().fail(impossible);
    }
    let grid = (x.size(-2) / config.patch_size, x.size(-1) / config.patch_size);
    let net = Net { weights, config, grid };
    match config.layout {
        DitLayout::Original => net.original(x, timestep, label),
        DitLayout::Diffusers { .. } => net.diffusers(x, timestep, label),
    }
}

struct Net<'a> {
    weights: &'a Scope,
    config: &'a DitConfig,
    grid: (usize, usize),
}

impl Net<'_> {
    fn original(&self, x: &Tensor, timestep: &Tensor, label: &Tensor) -> Tensor {
        let (w, d) = (self.weights, self.config.hidden_size);
        let side = self.config.input_size / self.config.patch_size;
        if x.id().is_some() && self.grid != (side, side) {
            let size = self.config.input_size;
            let what = "the checkpoint's position table is made for another size";
            let found = format!("{}×{}", x.size(-2), x.size(-1));
            return x
                .graph()
                .fail(Diagnostic::new("M1", what).expected_found(format!("a latent of {size}×{size}"), found));
        }
        let tokens = self.patches("x_embedder.proj").forward(x) + w.weight("pos_embed", [1, side * side, d]);
        let t = TimestepEmbedding::new(&w.sub("t_embedder"), ["mlp.0", "mlp.2"], d, Sinusoid::dit()).forward(timestep);
        let y = Embedding::new(&w.sub("y_embedder.embedding_table"), self.config.label_rows(), d).forward(label);
        let c = (t + y).named("c");

        let mut h = tokens;
        for i in 0..self.config.depth {
            let block = w.sub("blocks").sub(i);
            let modulation = AdaLnModulation::new(&block.sub("adaLN_modulation.1"), d, 6).forward(&c);
            let attention = Attention::fused(&block.sub("attn"), d, self.config.num_heads);
            let mlp = self.mlp(&block.sub("mlp.fc1"), &block.sub("mlp.fc2"), Activation::GeluTanh);
            h = self.block(&h, modulation, attention, mlp, LayerNorm::plain(NORM_EPS));
        }
        let last = w.sub("final_layer");
        let [shift, scale] = AdaLnModulation::new(&last.sub("adaLN_modulation.1"), d, 2).forward(&c);
        self.head(&h, &shift, &scale, &last.sub("linear"))
    }

    fn diffusers(&self, x: &Tensor, timestep: &Tensor, label: &Tensor) -> Tensor {
        let DitLayout::Diffusers { attention_bias, norm_eps, norm_affine, activation } = self.config.layout else {
            unreachable!("`forward` chooses by layout");
        };
        let (w, d) = (self.weights, self.config.hidden_size);
        let base_size = self.config.input_size / self.config.patch_size;
        let mut h = self.patches("pos_embed.proj").forward(x) + sincos_2d(x.graph(), d, self.grid, base_size, 1.0);
        for i in 0..self.config.depth {
            let block = w.sub("transformer_blocks").sub(i);
            let c = self.condition(&block.sub("norm1.emb"), timestep, label);
            let modulation = AdaLnModulation::new(&block.sub("norm1.linear"), d, 6).forward(&c);
            let attention = Attention::separate(&block.sub("attn1"), d, self.config.num_heads, attention_bias);
            let mlp = self.mlp(&block.sub("ff.net.0.proj"), &block.sub("ff.net.2"), activation);
            let norm = match norm_affine {
                true => LayerNorm::new(&block.sub("norm3"), d, norm_eps),
                false => LayerNorm::plain(norm_eps),
            };
            h = self.block(&h, modulation, attention, mlp, norm);
        }
        // The output's modulation reads the first block's embedders.
        let c = self.condition(&w.sub("transformer_blocks.0.norm1.emb"), timestep, label);
        let [shift, scale] = AdaLnModulation::new(&w.sub("proj_out_1"), d, 2).forward(&c);
        self.head(&h, &shift, &scale, &w.sub("proj_out_2"))
    }

    /// diffusers' CombinedTimestepLabelEmbeddings.
    fn condition(&self, emb: &Scope, timestep: &Tensor, label: &Tensor) -> Tensor {
        let d = self.config.hidden_size;
        let sinusoid = Sinusoid { freq_shift: 1.0, ..Sinusoid::dit() };
        let t = TimestepEmbedding::new(&emb.sub("timestep_embedder"), ["linear_1", "linear_2"], d, sinusoid);
        let y = Embedding::new(&emb.sub("class_embedder.embedding_table"), self.config.label_rows(), d);
        t.forward(timestep) + y.forward(label)
    }
    fn patches(&self, name: &str) -> PatchEmbed {
        let c = self.config;
        PatchEmbed::new(&self.weights.sub(name), c.patch_size, c.in_channels, c.hidden_size)
    }
    fn mlp(&self, first: &Scope, second: &Scope, activation: Activation) -> Mlp {
        let (d, inner) = (self.config.hidden_size, self.config.mlp_hidden_size);
        Mlp::new(Linear::new(first, d, inner), Linear::new(second, inner, d), activation)
    }
    /// h ← h + gate₁·attention(LN(h)·(1+scale₁)+shift₁); h ← h + gate₂·mlp(LN(h)·(1+scale₂)+shift₂).
    fn block(
        &self,
        h: &Tensor,
        modulation: [Tensor; 6],
        attention: Attention,
        mlp: Mlp,
        mlp_norm: LayerNorm,
    ) -> Tensor {
        let [shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp] = modulation;
        let attended = attention.forward(&modulate(&LayerNorm::plain(NORM_EPS).forward(h), &shift_attn, &scale_attn));
        let h = h + gate_attn * attended;
        &h + gate_mlp * mlp.forward(&modulate(&mlp_norm.forward(&h), &shift_mlp, &scale_mlp))
    }
    /// Modulated norm, linear, and tokens back to an image.
    fn head(&self, h: &Tensor, shift: &Tensor, scale: &Tensor, linear: &Scope) -> Tensor {
        let (c, p) = (self.config, self.config.patch_size);
        let linear = Linear::new(linear, c.hidden_size, p * p * c.out_channels);
        let y = linear.forward(&modulate(&LayerNorm::plain(NORM_EPS).forward(h), shift, scale));
        unpatchify(&y, self.grid, p)
    }
}

/// A module with one function `forward` whose parameters and output have the reference's names ([`DitConfig::io_names`]):
/// latent f32 [batch, C, height, width], timestep f32 [batch], label i32 [batch]. `stored` tells the checkpoint's dtypes.
///
/// # Errors
/// Everything that does not fit, with the place in the model's code.
pub fn forward_module(
    config: &DitConfig,
    batch: usize,
    (height, width): (usize, usize),
    stored: impl Fn(&str) -> Option<DType> + 'static,
) -> Result<selvedge_ir::Module, Diagnostics> {
    let mut module = ModuleBuilder::new("dit").stored_as(stored);
    module.function("forward", |g| {
        let ([x, t, y], output) = config.io_names();
        let x = g.input(x, DType::F32, [batch, config.in_channels, height, width]);
        let t = g.input(t, DType::F32, [batch]);
        let y = g.input(y, DType::I32, [batch]);
        g.output(output, &forward(&g.weights(), config, &x, &t, &y));
    });
    module.build()
}

/// Names and shapes of all weights the model reads, in the order of first use.
///
/// # Errors
/// K5 the configuration is impossible (one made by [`DitConfig::from_json`] is not).
pub fn expected_weights(config: &DitConfig) -> Result<Vec<(String, Shape)>, Diagnostics> {
    let module = forward_module(config, 1, (config.input_size, config.input_size), |_| None)?;
    Ok(module.weights.into_iter().map(|w| (w.name, w.ty.shape)).collect())
}
