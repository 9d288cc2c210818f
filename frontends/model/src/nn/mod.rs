//! Layers: weights read from a [`Scope`](crate::Scope) in PyTorch's conventions, applied by `forward`.
//!
//! A layer computes in its input's dtype; weights are used as the checkpoint stores them.

mod attention;
mod embed;
mod linear;
mod modulation;
mod norm;

pub use attention::{Attention, merge_heads, split_heads};
pub use embed::{PatchEmbed, Sinusoid, TimestepEmbedding, unpatchify};
pub use linear::{Activation, Conv, Embedding, Linear, Mlp};
pub use modulation::{AdaLnModulation, modulate};
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
