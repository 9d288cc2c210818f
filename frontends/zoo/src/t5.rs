//! T5 v1.1, the encoder alone (Raffel et al., 2020; Shazeer, 2020): the text encoder of PixArt, SD3 and FLUX, in the key
//! layout of transformers (class `T5EncoderModel`).
//!
//! Positions enter as a learned bias of the attention scores by distance; scores are not scaled, norms are RMS norms before
//! each part, linear layers have no bias.

use crate::config::{Fields, in_range};
use selvedge_model::nn::{Activation, Embedding, Linear, RmsNorm, merge_heads, split_heads};
use selvedge_model::{DType, Diagnostic, Diagnostics, ModuleBuilder, Scope, Shape, Tensor};
use serde_json::Value;

/// Added to the score of a masked key: with it every score is this number, so that a row without keys is their mean.
const MASKED: f64 = -1e30;

/// The encoder's sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct T5Config {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Features of a token.
    pub d_model: usize,
    /// Features of a head.
    pub d_kv: usize,
    /// Features inside the feed-forward part.
    pub d_ff: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Attention heads; `num_heads · d_kv` need not be `d_model`.
    pub num_heads: usize,
    /// Rows of the position bias: half for keys before the query, half for keys after it.
    pub relative_attention_num_buckets: usize,
    /// Distance from which all keys share a bucket.
    pub relative_attention_max_distance: usize,
    /// Added to the mean square in the norms.
    pub layer_norm_epsilon: f64,
    /// Nonlinearity of the feed-forward part.
    pub activation: Activation,
    /// The feed-forward part is activation(wi_0·x) ∘ (wi_1·x), as in v1.1; else activation(wi·x).
    pub gated: bool,
    /// Which of its two names the token table has in the checkpoint.
    pub token_table: TokenTable,
}

/// Names of the token table; a checkpoint has either or both, which are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenTable {
    /// `shared.weight`.
    #[default]
    Shared,
    /// `encoder.embed_tokens.weight`.
    Encoder,
}

impl TokenTable {
    /// The table's place in the checkpoint.
    pub fn scope(self) -> &'static str {
        match self {
            TokenTable::Shared => "shared",
            TokenTable::Encoder => "encoder.embed_tokens",
        }
    }
    /// The name to read in a checkpoint that has these tensors.
    pub fn among(has: impl Fn(&str) -> bool) -> TokenTable {
        match !has("shared.weight") && has("encoder.embed_tokens.weight") {
            true => TokenTable::Encoder,
            false => TokenTable::Shared,
        }
    }
}

impl T5Config {
    /// Reads a `config.json` of transformers' T5.
    ///
    /// # Errors
    /// K1 a size is missing, K2 a field has the wrong type, K3 has a value that is not supported, K5 fields contradict each
    /// other; the message names field and class.
    pub fn from_json(config: &Value) -> Result<T5Config, Diagnostic> {
        let fields = Fields::new("T5EncoderModel", config);
        let count_or = |name: &str, default: usize| if fields.has(name) { fields.count(name) } else { Ok(default) };
        let (activation, gated) = feed_forward(&fields)?;
        let config = T5Config {
            vocab_size: fields.count("vocab_size")?,
            d_model: fields.count("d_model")?,
            d_kv: fields.count("d_kv")?,
            d_ff: fields.count("d_ff")?,
            num_layers: fields.count("num_layers")?,
            num_heads: fields.count("num_heads")?,
            relative_attention_num_buckets: count_or("relative_attention_num_buckets", 32)?,
            relative_attention_max_distance: count_or("relative_attention_max_distance", 128)?,
            layer_norm_epsilon: match fields.has("layer_norm_epsilon") {
                true => fields.number("layer_norm_epsilon")?,
                false => 1e-6,
            },
            activation,
            gated,
            token_table: TokenTable::default(),
        };
        config.check()?;
        Ok(config)
    }
    /// What no single field can tell (K5).
    fn check(&self) -> Result<(), Diagnostic> {
        in_range(&[
            ("vocab_size", self.vocab_size, 1 << 24),
            ("d_model", self.d_model, 1 << 17),
            ("d_kv", self.d_kv, 1 << 14),
            ("d_ff", self.d_ff, 1 << 20),
            ("num_layers", self.num_layers, 1 << 10),
            ("num_heads", self.num_heads, 1 << 10),
            ("relative_attention_num_buckets", self.relative_attention_num_buckets, 1 << 16),
            ("relative_attention_max_distance", self.relative_attention_max_distance, 1 << 24),
        ])?;
        let what = |message: &str| Diagnostic::new("K5", format!("config of T5EncoderModel: {message}"));
        let buckets = self.relative_attention_num_buckets;
        if buckets < 4 {
            let what = what("`relative_attention_num_buckets` leaves no bucket to single distances");
            return Err(what.expected_found("4 or more", buckets));
        }
        if self.relative_attention_max_distance <= buckets / 4 {
            let what = what("`relative_attention_max_distance` lies among the single distances of the buckets");
            return Err(what.expected_found(format!("more than {}", buckets / 4), self.relative_attention_max_distance));
        }
        Ok(())
    }
    /// The published XXL encoder (4.76 billion parameters), whose last hidden states have 4096 features.
    pub fn v1_1_xxl() -> T5Config {
        T5Config {
            vocab_size: 32128,
            d_model: 4096,
            d_kv: 64,
            d_ff: 10240,
            num_layers: 24,
            num_heads: 64,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            activation: Activation::GeluTanh,
            gated: true,
            token_table: TokenTable::default(),
        }
    }
    /// The bucket of a key `relative` tokens after the query: one a distance when near, then logarithmic up to the largest.
    pub fn bucket(&self, relative: i64) -> usize {
        let side = self.relative_attention_num_buckets / 2;
        let (offset, distance) = (if relative > 0 { side } else { 0 }, relative.unsigned_abs() as usize);
        let single = side / 2;
        if distance < single {
            return offset + distance;
        }
        // In f32 as the reference computes it, so that distances at a border fall on the same side.
        let log = |ratio: f32| f64::from(ratio).ln() as f32;
        let span = (self.relative_attention_max_distance as f64 / single as f64).ln() as f32;
        let steps = log(distance as f32 / single as f32) / span * (side - single) as f32;
        offset + (single + steps as usize).min(side - 1)
    }
}

/// `feed_forward_proj`: the activation and whether it gates, `relu` if absent as in transformers.
fn feed_forward(fields: &Fields) -> Result<(Activation, bool), Diagnostic> {
    const NAME: &str = "feed_forward_proj";
    let text = if fields.has(NAME) { fields.text(NAME)? } else { "relu" };
    let (gated, name) = match text.strip_prefix("gated-") {
        Some("gelu") => (true, "gelu_new"), // T5 v1.1 spells the tanh form so
        Some(name) => (true, name),
        None => (false, text),
    };
    let activation = match name {
        "gelu_new" => Activation::GeluTanh,
        "gelu" => Activation::Gelu,
        "silu" => Activation::Silu,
        "relu" => Activation::Relu,
        _ => return Err(fields.unsupported(NAME, "`relu`, `gelu`, `gelu_new` or `silu`, with or without `gated-`")),
    };
    if fields.has("dense_act_fn") && fields.text("dense_act_fn")? != name {
        return Err(fields.unsupported("dense_act_fn", &format!("`{name}`, which is that of `{NAME}`")));
    }
    Ok((activation, gated))
}

/// The encoder: token ids i32 [B, N] to the last hidden states f32 [B, N, d_model].
///
/// `attention_mask` [B, N] of any number type is 1 for tokens and 0 for padding; without it all are tokens. Ids beyond the
/// table are clamped, so check them before. Mistakes are recorded in the graph.
pub fn forward(weights: &Scope, config: &T5Config, input_ids: &Tensor, attention_mask: Option<&Tensor>) -> Tensor {
    if let Err(impossible) = config.check() {
        return input_ids.graph().fail(impossible);
    }
    if input_ids.id().is_some() && input_ids.rank() != 2 {
        let what = Diagnostic::new("M1", "token ids are rows of one length");
        return input_ids.graph().fail(what.expected_found("[B,N]", input_ids.shape()));
    }
    let (c, encoder) = (config, weights.sub("encoder"));
    let norm = |scope: Scope| RmsNorm::new(&scope, c.d_model, c.layer_norm_epsilon);
    let mut bias = position_bias(&encoder.sub("block.0.layer.0.SelfAttention"), c, input_ids.size(-1));
    if let Some(mask) = attention_mask {
        let keys = (1.0 - mask.cast(DType::F32)) * MASKED;
        bias = bias + keys.unsqueeze(1).unsqueeze(1);
    }
    let bias = bias.named("position_bias");

    let mut h = Embedding::new(&weights.sub(c.token_table.scope()), c.vocab_size, c.d_model).forward(input_ids);
    for i in 0..c.num_layers {
        let [attention, feed_forward] = [0, 1].map(|part| encoder.sub("block").sub(i).sub("layer").sub(part));
        let x = norm(attention.sub("layer_norm")).forward(&h);
        h = h + self_attention(&attention.sub("SelfAttention"), c, &x, &bias);
        let x = norm(feed_forward.sub("layer_norm")).forward(&h);
        h = h + dense(&feed_forward.sub("DenseReluDense"), c, &x);
    }
    norm(encoder.sub("final_layer_norm")).forward(&h)
}

/// What is added to the score of key j for query i, f32 [1, heads, N, N]: the first block's table at the bucket of j − i.
fn position_bias(attention: &Scope, config: &T5Config, tokens: usize) -> Tensor {
    let graph = attention.graph();
    let table = attention
        .sub("relative_attention_bias")
        .weight("weight", [config.relative_attention_num_buckets, config.num_heads]);
    // One row a distance from 1 − N to N − 1, then a row a pair.
    let last = tokens.saturating_sub(1);
    let buckets: Vec<f64> = (0..=2 * last).map(|i| config.bucket(i as i64 - last as i64) as f64).collect();
    let by_distance = table.embedding(&graph.constant(DType::I32, [buckets.len()], &buckets)).cast(DType::F32);
    let [query, key] = [0, 1].map(|axis| graph.iota(DType::I32, [tokens, tokens], axis));
    by_distance.embedding(&(key - query + last as f64)).permute([2, 0, 1]).unsqueeze(0)
}

/// softmax(q·kᵀ + bias)·v, by heads; x [B, N, d_model] to the same shape.
fn self_attention(scope: &Scope, config: &T5Config, x: &Tensor, bias: &Tensor) -> Tensor {
    let (d, inner) = (config.d_model, config.num_heads * config.d_kv);
    let heads = |name: &str| {
        let projected = Linear::with_bias(&scope.sub(name), d, inner, false).forward(x);
        split_heads(&projected, config.num_heads)
    };
    let attended = heads("q").attention_with(&heads("k"), &heads("v"), 1.0, Some(bias), false);
    Linear::with_bias(&scope.sub("o"), inner, d, false).forward(&merge_heads(&attended))
}

/// The feed-forward part, x [B, N, d_model] to the same shape.
fn dense(scope: &Scope, config: &T5Config, x: &Tensor) -> Tensor {
    let (d, inner) = (config.d_model, config.d_ff);
    let into = |name: &str| Linear::with_bias(&scope.sub(name), d, inner, false).forward(x);
    let hidden = match config.gated {
        true => config.activation.apply(&into("wi_0")) * into("wi_1"),
        false => config.activation.apply(&into("wi")),
    };
    Linear::with_bias(&scope.sub("wo"), inner, d, false).forward(&hidden)
}

/// A module with one function `forward`: `input_ids` i32 [batch, tokens] and, if `masked`, `attention_mask` i32
/// [batch, tokens] to `last_hidden_state` f32 [batch, tokens, d_model]. `stored` tells the checkpoint's dtypes.
///
/// # Errors
/// Everything that does not fit, with the place in the model's code.
pub fn forward_module(
    config: &T5Config,
    (batch, tokens): (usize, usize),
    masked: bool,
    stored: impl Fn(&str) -> Option<DType> + 'static,
) -> Result<selvedge_ir::Module, Diagnostics> {
    let mut module = ModuleBuilder::new("t5").stored_as(stored);
    module.function("forward", |g| {
        let ids = g.input("input_ids", DType::I32, [batch, tokens]);
        let mask = masked.then(|| g.input("attention_mask", DType::I32, [batch, tokens]));
        g.output("last_hidden_state", &forward(&g.weights(), config, &ids, mask.as_ref()));
    });
    module.build()
}

/// Names and shapes of all weights the encoder reads, in the order of first use.
///
/// # Errors
/// K5 the configuration is impossible (one made by [`T5Config::from_json`] is not).
pub fn expected_weights(config: &T5Config) -> Result<Vec<(String, Shape)>, Diagnostics> {
    let module = forward_module(config, (1, 1), false, |_| None)?;
    Ok(module.weights.into_iter().map(|w| (w.name, w.ty.shape)).collect())
}

/// Tensors that a checkpoint may hold though the encoder does not read them: the token table's other name, and the decoder of the
/// whole model.
pub fn ignored(config: &T5Config, name: &str) -> bool {
    let other = match config.token_table {
        TokenTable::Shared => TokenTable::Encoder,
        TokenTable::Encoder => TokenTable::Shared,
    };
    name.strip_suffix(".weight") == Some(other.scope()) || name.starts_with("decoder.") || name == "lm_head.weight"
}
