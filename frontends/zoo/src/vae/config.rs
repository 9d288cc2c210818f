//! Sizes of an autoencoder, from the configurations of diffusers and of the original repository.

use crate::config::Fields;
use selvedge_ir::Diagnostic;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Whose names the weights have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VaeLayout {
    /// diffusers: `down_blocks`, `up_blocks`, attention as `to_q`, `to_k`, `to_v`, `to_out.0`.
    Diffusers,
    /// diffusers before 0.18: attention as `query`, `key`, `value`, `proj_attn`. Configurations do not tell; checkpoints do.
    DiffusersOld,
    /// The original repository: `down`, `up` (numbered by resolution), 1×1 convolutions in attention.
    Ldm,
}

/// The architecture's sizes. All layouts read into this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VaeConfig {
    /// Key layout.
    pub layout: VaeLayout,
    /// Channels of the image that is encoded.
    pub in_channels: usize,
    /// Channels of the decoded image.
    pub out_channels: usize,
    /// Channels of the latent.
    pub latent_channels: usize,
    /// Channels between encoder or decoder and the 1×1 convolutions; the latent's, unless the original layout says otherwise.
    pub z_channels: usize,
    /// Channels of each resolution, the image's first; each but the last is halved in size.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a resolution in the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Groups of every norm.
    pub norm_num_groups: usize,
    /// A 1×1 convolution follows the encoder.
    pub quant_conv: bool,
    /// A 1×1 convolution precedes the decoder.
    pub post_quant_conv: bool,
    /// Attention between the two middle blocks.
    pub mid_attention: bool,
    /// Resolutions whose residual blocks are each followed by attention (original layout only).
    pub level_attention: Vec<bool>,
    /// Diffusion models see (latent − shift_factor) · scaling_factor.
    pub scaling_factor: f64,
    /// See [`VaeConfig::scaling_factor`].
    pub shift_factor: f64,
}

impl VaeConfig {
    /// Reads a `config.json` of class `AutoencoderKL`, of diffusers or (fields `ch` and `ch_mult`) the original layout. Old attention names
    /// are not told by it: see [`VaeConfig::with_names`].
    ///
    /// # Errors
    /// K1 a field is missing, K2 has the wrong type, K3 has a value that is not supported, K4 the class is another, K5 fields contradict each
    /// other; the message names field and class.
    pub fn from_json(config: &Value) -> Result<VaeConfig, Diagnostic> {
        let class = Fields::new("a model", config).text("_class_name")?;
        if class != "AutoencoderKL" {
            return Err(Diagnostic::new("K4", format!("`{class}` is not a class of this architecture"))
                .expected_found("`AutoencoderKL`", format!("`{class}`")));
        }
        let fields = Fields::new("AutoencoderKL", config);
        let config = if fields.has("ch_mult") { ldm(&fields, config)? } else { diffusers(&fields, config)? };
        config.check()?;
        Ok(config)
    }
    /// The published autoencoders, diffusers layout: `sd` (also of DiT), `sdxl` (also of PixArt-Σ; the empty name), `sd3`, `flux`. `None` for
    /// another name.
    pub fn preset(name: &str) -> Option<VaeConfig> {
        let (latent_channels, quant_conv, scaling_factor, shift_factor) = match name {
            "sd" => (4, true, 0.18215, 0.0),
            "" | "sdxl" => (4, true, 0.13025, 0.0),
            "sd3" => (16, false, 1.5305, 0.0609),
            "flux" => (16, false, 0.3611, 0.1159),
            _ => return None,
        };
        Some(VaeConfig {
            layout: VaeLayout::Diffusers,
            in_channels: 3,
            out_channels: 3,
            latent_channels,
            z_channels: latent_channels,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            norm_num_groups: 32,
            quant_conv,
            post_quant_conv: quant_conv,
            mid_attention: true,
            level_attention: vec![false; 4],
            scaling_factor,
            shift_factor,
        })
    }
    /// The same with the generation of attention names that a checkpoint has; `has` tells whether it has a tensor.
    pub fn with_names(mut self, has: impl Fn(&str) -> bool) -> VaeConfig {
        if self.layout == VaeLayout::Diffusers && has("decoder.mid_block.attentions.0.query.weight") {
            self.layout = VaeLayout::DiffusersOld;
        }
        self
    }
    /// Pixels per side of a latent's element.
    pub fn downscale(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1).min(30)
    }
    /// What no single field can tell (K5).
    pub(super) fn check(&self) -> Result<(), Diagnostic> {
        let levels = self.block_out_channels.len();
        let sizes = [
            ("in_channels", self.in_channels, 1 << 12),
            ("out_channels", self.out_channels, 1 << 12),
            ("the latent's channels", self.latent_channels, 1 << 12),
            ("z_channels", self.z_channels, 1 << 12),
            ("the number of resolutions", levels, 10),
            ("the number of layers of a block", self.layers_per_block, 1 << 8),
            ("the number of groups", self.norm_num_groups, 1 << 14),
        ];
        let widths = self.block_out_channels.iter().map(|&c| ("a block's number of channels", c, 1 << 14));
        for (name, value, most) in sizes.into_iter().chain(widths) {
            if value == 0 || value > most {
                let message = format!("config of AutoencoderKL: `{name}` is out of range");
                return Err(Diagnostic::new("K5", message).expected_found(format!("1 to {most}"), value));
            }
        }
        if let Some(width) = self.block_out_channels.iter().find(|c| !c.is_multiple_of(self.norm_num_groups)) {
            return Err(Diagnostic::new("K5", "config of AutoencoderKL: a norm's groups do not divide its channels")
                .expected_found(format!("a multiple of {} (norm_num_groups)", self.norm_num_groups), width));
        }
        if self.level_attention.len() != levels {
            return Err(Diagnostic::new("K5", "attention is told for another number of resolutions")
                .expected_found(levels, self.level_attention.len()));
        }
        if self.scaling_factor == 0.0 {
            return Err(Diagnostic::new("K5", "config of AutoencoderKL: `scaling_factor` is zero")
                .expected_found("another number", 0));
        }
        Ok(())
    }
}

fn diffusers(fields: &Fields, json: &Value) -> Result<VaeConfig, Diagnostic> {
    let count = |name: &str, default: usize| if fields.has(name) { fields.count(name) } else { Ok(default) };
    let flag = |name: &str, default: bool| if fields.has(name) { fields.flag(name) } else { Ok(default) };
    let number = |name: &str, default: f64| if fields.has(name) { fields.number(name) } else { Ok(default) };
    let block_out_channels = counts(fields, json, "block_out_channels", "block widths")?.unwrap_or(vec![64]);
    for (name, kind) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")] {
        let Some(types) = json.get(name).filter(|v| !v.is_null()) else { continue };
        let fits = |types: &Vec<Value>| types.len() == block_out_channels.len() && types.iter().all(|t| t == kind);
        if !types.as_array().is_some_and(fits) {
            return Err(fields.unsupported(name, &format!("{} times `{kind}`", block_out_channels.len())));
        }
    }
    if fields.has("act_fn") && !["silu", "swish"].contains(&fields.text("act_fn")?) {
        return Err(fields.unsupported("act_fn", "`silu`"));
    }
    for name in ["latents_mean", "latents_std"] {
        if fields.has(name) {
            return Err(fields.unsupported(name, "null"));
        }
    }
    let latent_channels = count("latent_channels", 4)?;
    Ok(VaeConfig {
        layout: VaeLayout::Diffusers,
        in_channels: count("in_channels", 3)?,
        out_channels: count("out_channels", 3)?,
        latent_channels,
        z_channels: latent_channels,
        level_attention: vec![false; block_out_channels.len()],
        block_out_channels,
        layers_per_block: count("layers_per_block", 1)?,
        norm_num_groups: count("norm_num_groups", 32)?,
        quant_conv: flag("use_quant_conv", true)?,
        post_quant_conv: flag("use_post_quant_conv", true)?,
        mid_attention: flag("mid_block_add_attention", true)?,
        scaling_factor: number("scaling_factor", 0.18215)?,
        shift_factor: number("shift_factor", 0.0)?,
    })
}

fn ldm(fields: &Fields, json: &Value) -> Result<VaeConfig, Diagnostic> {
    let ch = fields.count("ch")?;
    let multiples = counts(fields, json, "ch_mult", "channel multiples")?.unwrap_or_default();
    let attended = counts(fields, json, "attn_resolutions", "resolutions")?.unwrap_or_default();
    // Levels are counted from the nominal resolution, whatever size an image has.
    let resolution = fields.count("resolution")?;
    if fields.has("double_z") && !fields.flag("double_z")? {
        return Err(fields.unsupported("double_z", "true"));
    }
    let number = |name: &str, default: f64| if fields.has(name) { fields.number(name) } else { Ok(default) };
    let z_channels = fields.count("z_channels")?;
    Ok(VaeConfig {
        layout: VaeLayout::Ldm,
        in_channels: fields.count("in_channels")?,
        out_channels: fields.count("out_ch")?,
        latent_channels: if fields.has("embed_dim") { fields.count("embed_dim")? } else { z_channels },
        z_channels,
        level_attention: (0..multiples.len()).map(|i| attended.contains(&(resolution >> i.min(24)))).collect(),
        block_out_channels: multiples.iter().map(|m| m * ch).collect(),
        layers_per_block: fields.count("num_res_blocks")?,
        norm_num_groups: if fields.has("num_groups") { fields.count("num_groups")? } else { 32 },
        quant_conv: true,
        post_quant_conv: true,
        mid_attention: true,
        scaling_factor: number("scaling_factor", 1.0)?,
        shift_factor: number("shift_factor", 0.0)?,
    })
}

/// A list of numbers from 1 to 2¹⁶; `None` if the field is absent or null.
fn counts(fields: &Fields, json: &Value, name: &str, what: &str) -> Result<Option<Vec<usize>>, Diagnostic> {
    let Some(value) = json.get(name).filter(|v| !v.is_null()) else { return Ok(None) };
    let list = serde_json::from_value::<Vec<usize>>(value.clone()).ok();
    match list.filter(|l| l.len() <= 10 && l.iter().all(|&n| (1..=1 << 16).contains(&n))) {
        Some(list) => Ok(Some(list)),
        None => Err(fields.unsupported(name, &format!("a list of at most ten {what}, each from 1 to 65536"))),
    }
}
