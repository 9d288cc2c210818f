//! Attention of PixArt-Σ: among the latent's tokens, with fewer keys in some blocks, and to the text.

use super::config::{KvCompression, KvSampling, PixArtConfig, PixArtLayout};
use selvedge_model::nn::{Attention, Conv, LayerNorm, Linear, merge_heads, split_heads};
use selvedge_model::{DType, Diagnostic, Scope, Tensor, WindowOptions};

/// PyTorch's default, in the norms inside the attention.
const NORM_EPS: f64 = 1e-5;

/// Self-attention of block `index` on tokens [B, H·W, D] of a grid.
pub(super) fn self_attention(
    block: &Scope,
    config: &PixArtConfig,
    index: usize,
    x: &Tensor,
    grid: (usize, usize),
) -> Tensor {
    let (d, heads) = (config.hidden_size, config.num_heads);
    match &config.layout {
        PixArtLayout::Diffusers { attention_bias, .. } => {
            Attention::separate(&block.sub("attn1"), d, heads, *attention_bias).forward(x)
        }
        PixArtLayout::Original { qk_norm, kv_compression } => {
            let attn = block.sub("attn");
            let [mut q, mut k, mut v] = Linear::new(&attn.sub("qkv"), d, 3 * d).forward(x).chunk(-1);
            if *qk_norm {
                q = LayerNorm::new(&attn.sub("q_norm"), d, NORM_EPS).forward(&q);
                k = LayerNorm::new(&attn.sub("k_norm"), d, NORM_EPS).forward(&k);
            }
            if let Some(compression) = kv_compression.as_ref().filter(|c| c.layers.contains(&index)) {
                [k, v] = [k, v].map(|tokens| compress(&attn, compression, &tokens, grid));
            }
            Linear::new(&attn.sub("proj"), d, d).forward(&attended(&q, &k, &v, heads, None))
        }
    }
}

/// Attention of tokens x [B, N, D] to text [B, L, features].
pub(super) fn cross_attention(
    block: &Scope,
    config: &PixArtConfig,
    x: &Tensor,
    text: &Tensor,
    mask: Option<&Tensor>,
) -> Tensor {
    let (d, heads) = (config.hidden_size, config.num_heads);
    match config.layout {
        PixArtLayout::Original { .. } => {
            let attn = block.sub("cross_attn");
            let q = Linear::new(&attn.sub("q_linear"), d, d).forward(x);
            let [k, v] = Linear::new(&attn.sub("kv_linear"), d, 2 * d).forward(text).chunk(-1);
            Linear::new(&attn.sub("proj"), d, d).forward(&attended(&q, &k, &v, heads, mask))
        }
        PixArtLayout::Diffusers { attention_bias, .. } => {
            let attn = block.sub("attn2");
            let text_features = if config.caption_projection { d } else { config.caption_channels };
            let layer = |name: &str, features| Linear::with_bias(&attn.sub(name), features, d, attention_bias);
            let q = layer("to_q", d).forward(x);
            let (k, v) = (layer("to_k", text_features).forward(text), layer("to_v", text_features).forward(text));
            Linear::new(&attn.sub("to_out.0"), d, d).forward(&attended(&q, &k, &v, heads, mask))
        }
    }
}

/// A caption mask as the attention takes it, [B, 1, 1, L]: the original leaves masked tokens out; diffusers adds −10,000 to their
/// scores, so that a caption of masked tokens alone is seen as if none were masked.
pub(super) fn keys_mask(config: &PixArtConfig, mask: &Tensor) -> Tensor {
    let values = mask.cast(DType::F32);
    let keys = match config.layout {
        PixArtLayout::Original { .. } => values.not_equal(0.0).unsqueeze(1),
        PixArtLayout::Diffusers { .. } if mask.rank() == 3 => values,
        PixArtLayout::Diffusers { .. } => ((1.0 - values) * -10000.0).unsqueeze(1),
    };
    keys.unsqueeze(1)
}

/// softmax(q·kᵀ/√(head size))·v by heads, on tokens [B, N, D] and [B, M, D].
fn attended(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Option<&Tensor>) -> Tensor {
    let [q, k, v] = [q, k, v].map(|tokens| split_heads(tokens, heads));
    let scale = 1.0 / (q.size(-1) as f64).sqrt();
    merge_heads(&q.attention_with(&k, &v, scale, mask, false))
}

/// Fewer tokens [B, M, D] from [B, H·W, D].
fn compress(attn: &Scope, compression: &KvCompression, tokens: &Tensor, (height, width): (usize, usize)) -> Tensor {
    let (r, d) = (compression.factor, tokens.size(-1));
    let fits = match compression.sampling {
        KvSampling::Conv | KvSampling::Nearest => height >= r && width >= r,
        KvSampling::Uniform => height.is_multiple_of(r) && width.is_multiple_of(r),
        KvSampling::UniformEvery => (height * width).is_multiple_of(r),
    };
    if tokens.id().is_some() && !fits {
        let what = format!("keys and values of {height}×{width} tokens cannot be compressed by {r}");
        let expected = match compression.sampling {
            KvSampling::Conv | KvSampling::Nearest => format!("at least {r}×{r} tokens"),
            KvSampling::Uniform => format!("multiples of {r} on both sides"),
            KvSampling::UniformEvery => format!("a multiple of {r} tokens"),
        };
        let what = Diagnostic::new("M1", what).expected_found(expected, format!("{height}×{width}"));
        return tokens.graph().fail(what.help("choose another size of the picture"));
    }
    match compression.sampling {
        KvSampling::Conv => {
            let options = WindowOptions::new().stride(&[r]).groups(d);
            let image = tokens.permute([0, 2, 1]).unflatten(-1, &[height, width]);
            let smaller = Conv::new(&attn.sub("sr"), d, d, &[r, r], options).forward(&image);
            LayerNorm::new(&attn.sub("norm"), d, NORM_EPS).forward(&smaller.flatten(2, 3).permute([0, 2, 1]))
        }
        KvSampling::Nearest | KvSampling::Uniform => {
            let rows = tokens.unflatten(1, &[height, width]).slice(1, 0, height / r * r, r);
            rows.slice(2, 0, width / r * r, r).flatten(1, 2)
        }
        KvSampling::UniformEvery => tokens.slice(1, 0, height * width, r),
    }
}
