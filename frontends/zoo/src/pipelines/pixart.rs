//! PixArt-Σ: the text as states of T5, padding masked in the encoder and in the network.

use crate::pixart::{Inputs, PixArtConfig, forward};
use crate::sampling::{TextDenoiser, TextPort, TokenPort};
use crate::t5::{self, T5Config};
use selvedge_model::{DType, Graph, Tensor};

/// PixArt's network with its text encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct PixArtText {
    /// `text_encoder`.
    pub t5: T5Config,
    /// `transformer`.
    pub transformer: PixArtConfig,
    /// Tokens of a text.
    pub text_tokens: usize,
    /// Height and width of the picture, which a model with micro-conditioning reads.
    pub pixels: [usize; 2],
}

impl TextDenoiser for PixArtText {
    fn tokens(&self) -> Vec<TokenPort> {
        vec![TokenPort {
            name: "input_ids",
            mask: Some("attention_mask"),
            tokenizer: "tokenizer",
            length: self.text_tokens,
            vocab_size: self.t5.vocab_size,
        }]
    }
    fn text(&self) -> Vec<TextPort> {
        vec![
            TextPort { name: "prompt_embeds", dtype: DType::F32, row: vec![self.text_tokens, self.t5.d_model] },
            TextPort { name: "prompt_attention_mask", dtype: DType::I32, row: vec![self.text_tokens] },
        ]
    }
    fn encode(&self, graph: &Graph, tokens: &[(Tensor, Option<Tensor>)]) -> Vec<Tensor> {
        let [(ids, Some(mask))] = tokens else { unreachable!("the inputs are those of `tokens`") };
        vec![t5::forward(&graph.weights().sub("text_encoder"), &self.t5, ids, Some(mask)), mask.clone()]
    }
    fn forward(&self, graph: &Graph, x: &Tensor, timesteps: &Tensor, text: &[Tensor], _: Option<&Tensor>) -> Tensor {
        let [caption, mask] = text else { unreachable!("the inputs are those of `text`") };
        let rows = x.size(0);
        let size = self.transformer.micro_condition.then(|| {
            let [height, width] = self.pixels.map(|n| n as f64);
            let each = |values: &[f64]| {
                graph.constant(DType::F32, [1, values.len()], values).broadcast_to([rows, values.len()])
            };
            [each(&[height, width]), each(&[height / width])]
        });
        let inputs = Inputs {
            latent: x,
            timestep: timesteps,
            caption,
            caption_mask: Some(mask),
            size: size.as_ref().map(|[hw, ratio]| [hw, ratio]),
        };
        forward(&graph.weights().sub("transformer"), &self.transformer, &inputs)
    }
}
