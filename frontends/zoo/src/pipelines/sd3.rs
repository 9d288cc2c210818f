//! Stable Diffusion 3: two CLIP encoders and T5. The penultimate states of both CLIPs lie side by side and are filled up with zeros to
//! the features of T5, whose tokens follow; the projected pooled states, joined, condition the modulation.

use crate::clip::{self, ClipTextConfig};
use crate::sampling::{TextDenoiser, TextPort, TokenPort};
use crate::sd3::{Sd3Config, forward};
use crate::t5::{self, T5Config};
use selvedge_model::{DType, Diagnostic, Graph, Tensor, concat};

/// The network with its text encoders.
#[derive(Clone, Debug, PartialEq)]
pub struct Sd3Text {
    /// `text_encoder` and `text_encoder_2`, both with a projection.
    pub clip: [ClipTextConfig; 2],
    /// `text_encoder_3`; without it its tokens are zeros.
    pub t5: Option<T5Config>,
    /// `transformer`.
    pub transformer: Sd3Config,
    /// Tokens of a text in CLIP.
    pub clip_tokens: usize,
    /// Tokens of a text in T5.
    pub text_tokens: usize,
}

impl TextDenoiser for Sd3Text {
    fn tokens(&self) -> Vec<TokenPort> {
        let clip = |i: usize, name, tokenizer| TokenPort {
            name,
            mask: None,
            tokenizer,
            length: self.clip_tokens,
            vocab_size: self.clip[i].vocab_size,
        };
        let t5 = self.t5.as_ref().map(|t5| TokenPort {
            name: "input_ids_3",
            mask: None,
            tokenizer: "tokenizer_3",
            length: self.text_tokens,
            vocab_size: t5.vocab_size,
        });
        [clip(0, "input_ids", "tokenizer"), clip(1, "input_ids_2", "tokenizer_2")].into_iter().chain(t5).collect()
    }
    fn text(&self) -> Vec<TextPort> {
        let c = &self.transformer;
        let row = vec![self.clip_tokens + self.text_tokens, c.joint_attention_dim];
        vec![
            TextPort { name: "prompt_embeds", dtype: DType::F32, row },
            TextPort { name: "pooled_prompt_embeds", dtype: DType::F32, row: vec![c.pooled_projection_dim] },
        ]
    }
    fn encode(&self, graph: &Graph, tokens: &[(Tensor, Option<Tensor>)]) -> Vec<Tensor> {
        let clip = |i: usize, name: &str| {
            let config = &self.clip[i];
            let text = clip::forward(&graph.weights().sub(name), config, &tokens[i].0);
            let pooled = text.text_embeds.unwrap_or_else(|| {
                let what = Diagnostic::new("M1", format!("`{name}` has no projection of its pooled state"));
                graph.fail(what.expected_found("CLIPTextModelWithProjection", "CLIPTextModel"))
            });
            (text.hidden_states[config.num_layers - 1].clone(), pooled)
        };
        let ((first, pooled), (second, pooled_2)) = (clip(0, "text_encoder"), clip(1, "text_encoder_2"));
        let (dim, rows) = (self.transformer.joint_attention_dim, first.size(0));
        let joined = concat(&[&first, &second], -1);
        let filled = joined.pad(&[(0, 0), (0, 0), (0, dim.saturating_sub(joined.size(-1)))], 0.0);
        let t5 = match (&self.t5, tokens.get(2)) {
            (Some(config), Some((ids, _))) => t5::forward(&graph.weights().sub("text_encoder_3"), config, ids, None),
            (None, _) | (_, None) => graph.full(DType::F32, [rows, self.text_tokens, dim], 0.0),
        };
        vec![concat(&[&filled, &t5], 1), concat(&[&pooled, &pooled_2], -1)]
    }
    fn forward(&self, graph: &Graph, x: &Tensor, timesteps: &Tensor, text: &[Tensor], _: Option<&Tensor>) -> Tensor {
        let [text, pooled] = text else { unreachable!("the inputs are those of `text`") };
        forward(&graph.weights().sub("transformer"), &self.transformer, x, text, pooled, timesteps)
    }
}
