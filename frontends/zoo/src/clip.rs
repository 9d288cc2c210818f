//! The text encoder of CLIP (Radford et al., 2021): transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`.

use crate::config::{Fields, divides, in_range};
use selvedge_model::nn::{Activation, Embedding, LayerNorm, Linear, Mlp, merge_heads, split_heads};
use selvedge_model::{DType, Diagnostic, Diagnostics, ModuleBuilder, Scope, Shape, Tensor};
use serde_json::Value;

/// Which token's state stands for the whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The token with the highest id, the first of several. Configurations of before 2023 say `eos_token_id: 2`, which is no
    /// end of text in their vocabulary; its end of text is the last id.
    HighestId,
    /// The first token of this id; the first token of all if there is none.
    FirstOf(usize),
}

/// The encoder's sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Rows of the position table: the longest text.
    pub max_positions: usize,
    /// Features of a token; a multiple of `num_heads`.
    pub hidden_size: usize,
    /// Features inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Nonlinearity of the feed-forward part (`hidden_act`).
    pub activation: Activation,
    /// Added to the variance in every norm.
    pub norm_eps: f64,
    /// The pooled token.
    pub pooling: Pooling,
    /// Features of the projected pooled state; `None` for the class without projection.
    pub projection_dim: Option<usize>,
    /// The encoder's weights are named below `text_model`; without projection, newer versions of transformers name them from
    /// the root ([`ClipTextConfig::named_as_in`]).
    pub nested_names: bool,
}

impl ClipTextConfig {
    /// Reads a `config.json`; the class is its `_class_name`, else the first of its `architectures`. Fields that are absent have
    /// transformers' defaults, but for sizes.
    ///
    /// # Errors
    /// K1 a field is missing, K2 has the wrong type, K3 has a value that is not supported, K4 the class is another,
    /// K5 fields contradict each other; the message names field and class.
    pub fn from_json(config: &Value) -> Result<ClipTextConfig, Diagnostic> {
        let class = config.get("_class_name").or_else(|| config.get("architectures")?.get(0)).and_then(Value::as_str);
        let (class, projected) = match class {
            Some("CLIPTextModel") => ("CLIPTextModel", false),
            Some("CLIPTextModelWithProjection") => ("CLIPTextModelWithProjection", true),
            other => {
                let found = other.map_or("none".to_string(), |c| format!("`{c}`"));
                return Err(Diagnostic::new("K4", "the class is not one of CLIP's text encoders")
                    .expected_found("`CLIPTextModel` or `CLIPTextModelWithProjection`", found));
            }
        };
        let fields = Fields::new(class, config);
        let activation = match if fields.has("hidden_act") { fields.text("hidden_act")? } else { "quick_gelu" } {
            "quick_gelu" => Activation::QuickGelu,
            "gelu" => Activation::Gelu,
            _ => return Err(fields.unsupported("hidden_act", "`quick_gelu` or `gelu`")),
        };
        let pooling = match if fields.has("eos_token_id") { fields.index("eos_token_id")? } else { 49407 } {
            2 => Pooling::HighestId,
            id => Pooling::FirstOf(id),
        };
        let config = ClipTextConfig {
            vocab_size: fields.count("vocab_size")?,
            max_positions: fields.count("max_position_embeddings")?,
            hidden_size: fields.count("hidden_size")?,
            intermediate_size: fields.count("intermediate_size")?,
            num_layers: fields.count("num_hidden_layers")?,
            num_heads: fields.count("num_attention_heads")?,
            activation,
            norm_eps: if fields.has("layer_norm_eps") { fields.number("layer_norm_eps")? } else { 1e-5 },
            pooling,
            projection_dim: if projected { Some(fields.count("projection_dim")?) } else { None },
            nested_names: true,
        };
        config.check()?;
        Ok(config)
    }
    /// The same encoder with the names of a checkpoint that has tensors as told.
    pub fn named_as_in(self, has: impl Fn(&str) -> bool) -> ClipTextConfig {
        let nested_names = self.projection_dim.is_some() || !has("embeddings.token_embedding.weight");
        ClipTextConfig { nested_names, ..self }
    }
    /// Tensors that a checkpoint may hold though the model computes them: older versions saved the positions' indices.
    pub fn ignores(name: &str) -> bool {
        name.ends_with("embeddings.position_ids")
    }
    /// What no single field can tell (K5).
    fn check(&self) -> Result<(), Diagnostic> {
        in_range(&[
            ("vocab_size", self.vocab_size, 1 << 24),
            ("max_position_embeddings", self.max_positions, 1 << 20),
            ("hidden_size", self.hidden_size, 1 << 17),
            ("intermediate_size", self.intermediate_size, 1 << 20),
            ("num_hidden_layers", self.num_layers, 1 << 10),
            ("num_attention_heads", self.num_heads, 1 << 10),
            ("projection_dim", self.projection_dim.unwrap_or(1), 1 << 17),
        ])?;
        divides(("hidden_size", self.hidden_size), ("num_attention_heads", self.num_heads))
    }
}

/// What the encoder gives for B texts of N tokens.
pub struct ClipText {
    /// The embeddings, then each layer's result, f32 [B, N, hidden_size]; pipelines that want the penultimate layer take the last but one.
    pub hidden_states: Vec<Tensor>,
    /// The last of them, normalised.
    pub last_hidden_state: Tensor,
    /// The pooled token of it, f32 [B, hidden_size].
    pub pooler_output: Tensor,
    /// That projected, f32 [B, projection_dim], with the class that has a projection.
    pub text_embeds: Option<Tensor>,
}

/// The encoder: token ids i32 [B, N], N at most `max_positions`. Mistakes are recorded in the graph.
pub fn forward(weights: &Scope, config: &ClipTextConfig, input_ids: &Tensor) -> ClipText {
    let text_model = if config.nested_names { weights.sub("text_model") } else { weights.clone() };
    let (d, length) = (config.hidden_size, input_ids.size(-1));
    let embeddings = text_model.sub("embeddings");
    let tokens = Embedding::new(&embeddings.sub("token_embedding"), config.vocab_size, d).forward(input_ids);
    let positions = embeddings.weight("position_embedding.weight", [config.max_positions, d]);
    let mut hidden_states = vec![tokens + fitting(config, &positions, length)];
    for i in 0..config.num_layers {
        let layer = text_model.sub("encoder.layers").sub(i);
        hidden_states.push(block(&layer, config, &hidden_states[i]));
    }
    let last = LayerNorm::new(&text_model.sub("final_layer_norm"), d, config.norm_eps);
    let last_hidden_state = last.forward(&hidden_states[config.num_layers]).named("last_hidden_state");

    let pooled_token = match config.pooling {
        Pooling::HighestId => input_ids.argmax(-1),
        Pooling::FirstOf(id) => input_ids.equal(id as f64).cast(DType::I32).argmax(-1),
    };
    let pooler_output = last_hidden_state.gather(&pooled_token, 1, 1).named("pooler_output");
    let text_embeds = config.projection_dim.map(|projection_dim| {
        Linear::with_bias(&weights.sub("text_projection"), d, projection_dim, false).forward(&pooler_output)
    });
    ClipText { hidden_states, last_hidden_state, pooler_output, text_embeds }
}

/// The first rows of the position table, or a message that the text is too long.
fn fitting(config: &ClipTextConfig, positions: &Tensor, length: usize) -> Tensor {
    if length > config.max_positions {
        let what = "the text has more tokens than the encoder has positions";
        let most = format!("at most {} tokens", config.max_positions);
        return positions.graph().fail(Diagnostic::new("M1", what).expected_found(most, length));
    }
    positions.narrow(0, 0, length)
}

/// A pre-norm layer: h ← h + attention(LN₁(h)); h ← h + mlp(LN₂(h)). A token sees those before it and itself.
fn block(layer: &Scope, config: &ClipTextConfig, h: &Tensor) -> Tensor {
    let (d, inner) = (config.hidden_size, config.intermediate_size);
    let norm = |name: &str| LayerNorm::new(&layer.sub(name), d, config.norm_eps);
    let attention = layer.sub("self_attn");
    let x = norm("layer_norm1").forward(h);
    let project = |name: &str| split_heads(&Linear::new(&attention.sub(name), d, d).forward(&x), config.num_heads);
    let (q, k, v) = (project("q_proj"), project("k_proj"), project("v_proj"));
    let scale = 1.0 / ((d / config.num_heads) as f64).sqrt();
    let attended = merge_heads(&q.attention_with(&k, &v, scale, None, true));
    let h = h + Linear::new(&attention.sub("out_proj"), d, d).forward(&attended);

    let (first, second) = (Linear::new(&layer.sub("mlp.fc1"), d, inner), Linear::new(&layer.sub("mlp.fc2"), inner, d));
    &h + Mlp::new(first, second, config.activation).forward(&norm("layer_norm2").forward(&h))
}

/// A module with one function `forward`: `input_ids` i32 [batch, length] to `last_hidden_state`, `penultimate` (the last hidden
/// state but one, not normalised), `pooler_output` and, with a projection, `text_embeds`. `stored` tells the checkpoint's dtypes.
///
/// # Errors
/// Everything that does not fit, with the place in the model's code.
pub fn forward_module(
    config: &ClipTextConfig,
    batch: usize,
    length: usize,
    stored: impl Fn(&str) -> Option<DType> + 'static,
) -> Result<selvedge_ir::Module, Diagnostics> {
    config.check()?;
    let mut module = ModuleBuilder::new("clip_text").stored_as(stored);
    module.function("forward", |g| {
        let text = forward(&g.weights(), config, &g.input("input_ids", DType::I32, [batch, length]));
        g.output("last_hidden_state", &text.last_hidden_state);
        g.output("penultimate", &text.hidden_states[config.num_layers - 1]);
        g.output("pooler_output", &text.pooler_output);
        if let Some(text_embeds) = &text.text_embeds {
            g.output("text_embeds", text_embeds);
        }
    });
    module.build()
}

/// Names and shapes of all weights the encoder reads, in the order of first use.
///
/// # Errors
/// K5 the configuration is impossible (one made by [`ClipTextConfig::from_json`] is not).
pub fn expected_weights(config: &ClipTextConfig) -> Result<Vec<(String, Shape)>, Diagnostics> {
    let module = forward_module(config, 1, 1, |_| None)?;
    Ok(module.weights.into_iter().map(|w| (w.name, w.ty.shape)).collect())
}
