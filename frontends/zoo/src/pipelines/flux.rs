//! FLUX.1: the text as states of T5, and pooled by CLIP; latents packed into tokens of 2×2 pixels.

use crate::clip::{self, ClipTextConfig};
use crate::flux::{Conditioning, FluxConfig, Rotary, forward};
use crate::sampling::{TextDenoiser, TextPort, TokenPort};
use crate::t5::{self, T5Config};
use selvedge_model::{DType, Graph, Tensor};

/// Side of a token's patch of the latent.
pub const PACKING: usize = 2;

/// Timesteps of the network run from 0 to 1.
const TIMESTEPS: f64 = 1000.0;

/// The network with its text encoders.
#[derive(Clone, Debug, PartialEq)]
pub struct FluxText {
    /// `text_encoder`.
    pub clip: ClipTextConfig,
    /// `text_encoder_2`.
    pub t5: T5Config,
    /// `transformer`.
    pub transformer: FluxConfig,
    /// Tokens of a text in CLIP.
    pub clip_tokens: usize,
    /// Tokens of a text in T5.
    pub text_tokens: usize,
    /// Height and width of the latent, multiples of [`PACKING`].
    pub latent: (usize, usize),
}

impl TextDenoiser for FluxText {
    fn tokens(&self) -> Vec<TokenPort> {
        let clip = TokenPort {
            name: "input_ids",
            mask: None,
            tokenizer: "tokenizer",
            length: self.clip_tokens,
            vocab_size: self.clip.vocab_size,
        };
        let t5 = TokenPort {
            name: "input_ids_2",
            mask: None,
            tokenizer: "tokenizer_2",
            length: self.text_tokens,
            vocab_size: self.t5.vocab_size,
        };
        vec![clip, t5]
    }
    fn text(&self) -> Vec<TextPort> {
        vec![
            TextPort { name: "prompt_embeds", dtype: DType::F32, row: vec![self.text_tokens, self.t5.d_model] },
            TextPort { name: "pooled_prompt_embeds", dtype: DType::F32, row: vec![self.clip.hidden_size] },
        ]
    }
    fn encode(&self, graph: &Graph, tokens: &[(Tensor, Option<Tensor>)]) -> Vec<Tensor> {
        let [(clip_ids, _), (t5_ids, _)] = tokens else { unreachable!("the inputs are those of `tokens`") };
        let weights = graph.weights();
        let pooled = clip::forward(&weights.sub("text_encoder"), &self.clip, clip_ids).pooler_output;
        vec![t5::forward(&weights.sub("text_encoder_2"), &self.t5, t5_ids, None), pooled]
    }
    fn embeds_guidance(&self) -> bool {
        self.transformer.guidance_embeds
    }
    fn forward(
        &self,
        graph: &Graph,
        x: &Tensor,
        timesteps: &Tensor,
        text: &[Tensor],
        guidance: Option<&Tensor>,
    ) -> Tensor {
        let [text, pooled] = text else { unreachable!("the inputs are those of `text`") };
        let grid = (self.latent.0 / PACKING, self.latent.1 / PACKING);
        let conditioning =
            Conditioning { timestep: timesteps / TIMESTEPS, guidance: guidance.cloned(), pooled: pooled.clone() };
        let rotary = Rotary::of_grid(graph, &self.transformer, self.text_tokens, grid);
        let weights = graph.weights().sub("transformer");
        unpack(&forward(&weights, &self.transformer, &pack(x), text, &conditioning, &rotary), grid)
    }
}

/// Latent [B, C, H, W] to tokens [B, H/2·W/2, 4·C], channels before the place in the patch.
pub fn pack(x: &Tensor) -> Tensor {
    let (height, width) = (x.size(2) / PACKING, x.size(3) / PACKING);
    let patches = x.unflatten(3, &[width, PACKING]).unflatten(2, &[height, PACKING]);
    patches.permute([0, 2, 4, 1, 3, 5]).flatten(3, 5).flatten(1, 2)
}

/// The inverse of [`pack`] for a grid of tokens.
pub fn unpack(tokens: &Tensor, (height, width): (usize, usize)) -> Tensor {
    let channels = tokens.size(2) / (PACKING * PACKING);
    let patches = tokens.unflatten(2, &[channels, PACKING, PACKING]).unflatten(1, &[height, width]);
    patches.permute([0, 3, 1, 4, 2, 5]).flatten(4, 5).flatten(2, 3)
}
