//! Configurations of PixArt-Σ.

use crate::config::{Fields, divides, in_range};
use selvedge_model::Diagnostic;
use selvedge_model::nn::Activation;
use serde_json::{Map, Value};

/// Whose names the weights have, and what differs with them.
#[derive(Clone, Debug, PartialEq)]
pub enum PixArtLayout {
    /// PixArt-alpha/PixArt-sigma (class `PixArtMS`): fused qkv and kv, masked text tokens left out.
    Original {
        /// LayerNorms of q and k over all features, before the heads are cut.
        qk_norm: bool,
        /// Fewer keys and values in some blocks.
        kv_compression: Option<KvCompression>,
    },
    /// diffusers (class `PixArtTransformer2DModel`): separate q, k, v, masked text tokens pushed down by 10,000.
    Diffusers {
        /// q, k and v have biases (`attention_bias`).
        attention_bias: bool,
        /// Added to the variance in the norms of the blocks (`norm_eps`).
        norm_eps: f64,
        /// Those norms have weights (`norm_elementwise_affine`).
        norm_affine: bool,
        /// GELU of the feed-forward part, exact or by tanh (`activation_fn`).
        activation: Activation,
    },
}

/// K/V token compression: self-attention of some blocks sees a grid that is smaller by a factor on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct KvCompression {
    /// What makes the smaller grid.
    pub sampling: KvSampling,
    /// The factor, above 1.
    pub factor: usize,
    /// Blocks that compress; others do not.
    pub layers: Vec<usize>,
}

/// How keys and values are compressed by a factor R.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvSampling {
    /// `conv`: a depth-wise convolution R×R of stride R, then LayerNorm; a remainder of the grid is left out.
    Conv,
    /// `ave`: the first token of each R×R block (nearest resizing, in spite of the name); a remainder is left out.
    Nearest,
    /// `uniform`: the first token of each R×R block of a grid that R divides.
    Uniform,
    /// `uniform_every`: every R-th token in reading order, of a number that R divides.
    UniformEvery,
}

/// The architecture's sizes. Both layouts read into this.
#[derive(Clone, Debug, PartialEq)]
pub struct PixArtConfig {
    /// Key layout.
    pub layout: PixArtLayout,
    /// Side of the (square) latent that positions are measured by; latents may have any size.
    pub input_size: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Channels of the latent.
    pub in_channels: usize,
    /// Channels of the output; twice `in_channels` with a learned variance.
    pub out_channels: usize,
    /// Features of a token; a multiple of `num_heads` and of 4.
    pub hidden_size: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Features inside the feed-forward part.
    pub mlp_hidden_size: usize,
    /// Features of a text token.
    pub caption_channels: usize,
    /// Text tokens are projected to `hidden_size` features first; without it they have `caption_channels` in the attention.
    pub caption_projection: bool,
    /// Positions are divided by this: pixels of a side / 512.
    pub position_scale: f64,
    /// Height, width and aspect ratio of the picture condition the blocks, too.
    pub micro_condition: bool,
}

impl PixArtConfig {
    /// Reads a `config.json` of class `PixArtMS` or `PixArtTransformer2DModel`. Fields that are absent have the reference's
    /// defaults, but for sizes.
    ///
    /// # Errors
    /// K1 a field is missing, K2 has the wrong type, K3 has a value that is not supported, K4 the class is another,
    /// K5 fields contradict each other; the message names field and class.
    pub fn from_json(config: &Value) -> Result<PixArtConfig, Diagnostic> {
        let config = match Fields::new("a model", config).text("_class_name")? {
            "PixArtMS" => Self::original(&Fields::new("PixArtMS", config), config)?,
            "PixArtTransformer2DModel" => Self::diffusers(&Fields::new("PixArtTransformer2DModel", config))?,
            other => {
                return Err(Diagnostic::new("K4", format!("`{other}` is not a class of this architecture"))
                    .expected_found("`PixArtMS` or `PixArtTransformer2DModel`", format!("`{other}`")));
            }
        };
        config.check()?;
        Ok(config)
    }
    fn original(fields: &Fields, config: &Value) -> Result<PixArtConfig, Diagnostic> {
        let flag = |name: &str, default: bool| if fields.has(name) { fields.flag(name) } else { Ok(default) };
        let (hidden_size, in_channels) = (fields.count("hidden_size")?, fields.count("in_channels")?);
        let mlp_hidden_size = (hidden_size as f64 * fields.number("mlp_ratio")?) as usize; // truncated, as in Python
        if mlp_hidden_size == 0 {
            return Err(fields.unsupported("mlp_ratio", "a positive ratio"));
        }
        const COMPRESSION: &str = "kv_compress_config";
        let kv_compression = match config.get(COMPRESSION) {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => kv_compression(map)?,
            Some(_) => return Err(fields.unsupported(COMPRESSION, "an object or null")),
        };
        Ok(PixArtConfig {
            layout: PixArtLayout::Original { qk_norm: flag("qk_norm", false)?, kv_compression },
            input_size: fields.count("input_size")?,
            patch_size: fields.count("patch_size")?,
            in_channels,
            out_channels: if flag("pred_sigma", true)? { 2 * in_channels } else { in_channels },
            hidden_size,
            depth: fields.count("depth")?,
            num_heads: fields.count("num_heads")?,
            mlp_hidden_size,
            caption_channels: fields.count("caption_channels")?,
            caption_projection: true,
            position_scale: if fields.has("pe_interpolation") { fields.number("pe_interpolation")? } else { 1.0 },
            micro_condition: flag("micro_condition", false)?,
        })
    }
    fn diffusers(fields: &Fields) -> Result<PixArtConfig, Diagnostic> {
        let flag = |name: &str, default: bool| if fields.has(name) { fields.flag(name) } else { Ok(default) };
        for (name, only) in [("norm_type", "ada_norm_single"), ("attention_type", "default")] {
            if fields.has(name) && fields.text(name)? != only {
                return Err(fields.unsupported(name, &format!("`{only}`")));
            }
        }
        if flag("only_cross_attention", false)? {
            return Err(fields.unsupported("only_cross_attention", "false"));
        }
        let activation =
            match if fields.has("activation_fn") { fields.text("activation_fn")? } else { "gelu-approximate" } {
                "gelu-approximate" => Activation::GeluTanh,
                "gelu" => Activation::Gelu,
                _ => return Err(fields.unsupported("activation_fn", "`gelu-approximate` or `gelu`")),
            };
        let input_size = fields.count("sample_size")?;
        let in_channels = fields.count("in_channels")?;
        let num_heads = fields.count("num_attention_heads")?;
        let hidden_size = num_heads * fields.count("attention_head_dim")?;
        let caption_projection = fields.has("caption_channels");
        let cross_attention_dim = match fields.is_null("cross_attention_dim") {
            true => return Err(fields.unsupported("cross_attention_dim", "a number of features")),
            false if fields.has("cross_attention_dim") => fields.count("cross_attention_dim")?,
            false => 1152,
        };
        if caption_projection && cross_attention_dim != hidden_size {
            let what = "the projected caption does not fit the attention: `cross_attention_dim` differs from \
                        `num_attention_heads` · `attention_head_dim`";
            return Err(Diagnostic::new("K5", what).expected_found(hidden_size, cross_attention_dim));
        }
        Ok(PixArtConfig {
            layout: PixArtLayout::Diffusers {
                attention_bias: flag("attention_bias", true)?,
                norm_eps: if fields.has("norm_eps") { fields.number("norm_eps")? } else { 1e-6 },
                norm_affine: flag("norm_elementwise_affine", false)?,
                activation,
            },
            input_size,
            patch_size: fields.count("patch_size")?,
            in_channels,
            out_channels: match fields.is_null("out_channels") {
                true => in_channels,
                false if fields.has("out_channels") => fields.count("out_channels")?,
                false => 8,
            },
            hidden_size,
            depth: fields.count("num_layers")?,
            num_heads,
            mlp_hidden_size: 4 * hidden_size,
            caption_channels: match caption_projection {
                true => fields.count("caption_channels")?,
                false => cross_attention_dim,
            },
            caption_projection,
            position_scale: match fields.has("interpolation_scale") {
                true => fields.number("interpolation_scale")?,
                false => (input_size / 64).max(1) as f64,
            },
            micro_condition: flag("use_additional_conditions", input_size == 128)?,
        })
    }
    /// What no single field can tell (K5).
    pub(super) fn check(&self) -> Result<(), Diagnostic> {
        let (hidden_size, num_heads, input_size) = match self.layout {
            PixArtLayout::Original { .. } => ("hidden_size", "num_heads", "input_size"),
            PixArtLayout::Diffusers { .. } => {
                ("num_attention_heads · attention_head_dim", "num_attention_heads", "sample_size")
            }
        };
        let factor = self.kv_compression().map_or(1, |c| c.factor);
        in_range(&[
            (hidden_size, self.hidden_size, 1 << 17),
            (num_heads, self.num_heads, 1 << 10),
            ("the feed-forward size", self.mlp_hidden_size, 1 << 20),
            ("the number of blocks", self.depth, 1 << 10),
            ("in_channels", self.in_channels, 1 << 12),
            ("out_channels", self.out_channels, 1 << 13),
            (input_size, self.input_size, 1 << 11),
            ("patch_size", self.patch_size, 1 << 11),
            ("caption_channels", self.caption_channels, 1 << 17),
            ("scale_factor", factor, 1 << 10),
        ])?;
        let hidden = (hidden_size, self.hidden_size);
        divides(hidden, (num_heads, self.num_heads))?;
        divides(hidden, ("4, the parts of the position table", 4))?;
        if self.micro_condition {
            divides(hidden, ("3, the parts of the size's embedding", 3))?;
        }
        if self.input_size < self.patch_size {
            let what = Diagnostic::new("K5", format!("`{input_size}` is smaller than a patch"));
            return Err(what.expected_found(format!("at least {}", self.patch_size), self.input_size));
        }
        if !(self.position_scale.is_finite() && self.position_scale > 0.0) {
            let what = Diagnostic::new("K5", "positions are divided by the interpolation scale");
            return Err(what.expected_found("a positive number", self.position_scale));
        }
        Ok(())
    }
    /// Compression of keys and values, if any block has it.
    pub fn kv_compression(&self) -> Option<&KvCompression> {
        match &self.layout {
            PixArtLayout::Original { kv_compression, .. } => kv_compression.as_ref(),
            PixArtLayout::Diffusers { .. } => None,
        }
    }

    /// The published model (0.6 billion parameters, diffusers layout) as trained for pictures of a size: `pixart-sigma-256`,
    /// `-512`, `-1024`, `-2048`. `None` for another name.
    pub fn preset(name: &str) -> Option<PixArtConfig> {
        let (input_size, position_scale) = match name.strip_prefix("pixart-sigma-")? {
            "256" => (32, 0.5),
            "512" => (64, 1.0),
            "1024" => (128, 2.0),
            "2048" => (256, 4.0),
            _ => return None,
        };
        let layout = PixArtLayout::Diffusers {
            attention_bias: true,
            norm_eps: 1e-6,
            norm_affine: false,
            activation: Activation::GeluTanh,
        };
        Some(PixArtConfig {
            layout,
            input_size,
            patch_size: 2,
            in_channels: 4,
            out_channels: 8,
            hidden_size: 1152,
            depth: 28,
            num_heads: 16,
            mlp_hidden_size: 4 * 1152,
            caption_channels: 4096,
            caption_projection: true,
            position_scale,
            micro_condition: false,
        })
    }
    /// Names that [`PixArtConfig::preset`] knows.
    pub const PRESETS: [&'static str; 4] =
        ["pixart-sigma-256", "pixart-sigma-512", "pixart-sigma-1024", "pixart-sigma-2048"];
    /// The reference's names of the inputs and of the output.
    pub fn io_names(&self) -> IoNames {
        match self.layout {
            PixArtLayout::Original { .. } => IoNames {
                latent: "x",
                timestep: "timestep",
                caption: "y",
                caption_mask: "mask",
                size: ["img_hw", "aspect_ratio"],
                output: "out",
            },
            PixArtLayout::Diffusers { .. } => IoNames {
                latent: "hidden_states",
                timestep: "timestep",
                caption: "encoder_hidden_states",
                caption_mask: "encoder_attention_mask",
                size: ["resolution", "aspect_ratio"],
                output: "sample",
            },
        }
    }
}

/// Names of inputs and output in the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoNames {
    /// The latent.
    pub latent: &'static str,
    /// Its timestep.
    pub timestep: &'static str,
    /// The text encoder's states.
    pub caption: &'static str,
    /// Which of them are text.
    pub caption_mask: &'static str,
    /// Height and width of the picture in pixels, and its aspect ratio.
    pub size: [&'static str; 2],
    /// The output.
    pub output: &'static str,
}

/// `kv_compress_config`; no compression is `None`.
fn kv_compression(map: &Map<String, Value>) -> Result<Option<KvCompression>, Diagnostic> {
    let object = Value::Object(map.clone());
    let fields = Fields::new("PixArtMS (`kv_compress_config`)", &object);
    let layers = fields.indices("kv_compress_layer")?;
    let factor = fields.number("scale_factor")? as usize; // truncated, as in Python
    if layers.is_empty() || factor <= 1 {
        return Ok(None);
    }
    let expected = "`conv`, `ave`, `uniform` or `uniform_every`";
    if fields.is_null("sampling") {
        return Err(fields.unsupported("sampling", expected));
    }
    let sampling = match fields.text("sampling")? {
        "conv" => KvSampling::Conv,
        "ave" => KvSampling::Nearest,
        "uniform" => KvSampling::Uniform,
        "uniform_every" => KvSampling::UniformEvery,
        _ => return Err(fields.unsupported("sampling", expected)),
    };
    Ok(Some(KvCompression { sampling, factor, layers }))
}
