//! Classifier-free guidance: one batch [conditional; unconditional], combined on the device.

use crate::samplers::step::first_channels;
use selvedge_ir::DType;
use selvedge_model::{Tensor, concat};
use serde::{Deserialize, Serialize};

/// Which channels of the model's output are guided; the others pass through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guided {
    /// All channels that predict the sample (not those that predict a variance).
    All,
    /// The first channels only: the DiT repository guides three, whatever the latent has.
    First(usize),
}

impl Guided {
    /// Number of guided channels of a sample of `channels` channels.
    pub fn count(self, channels: usize) -> usize {
        match self {
            Guided::All => channels,
            Guided::First(n) => n.min(channels),
        }
    }
}

/// The conditional half twice: the batch that both evaluations read.
#[track_caller]
pub fn both(half: &Tensor) -> Tensor {
    concat(&[half, half], 0)
}

/// Labels of the doubled batch: the given ones, then as many null classes.
#[track_caller]
pub fn with_null(labels: &Tensor, null_class: usize) -> Tensor {
    let null = labels.graph().full(DType::I32, labels.shape(), null_class as f64);
    concat(&[labels, &null], 0)
}

/// Guidance on the model's output for a doubled batch [2·B, K, H, W]: on the first `count` channels
/// unconditional + scale · (conditional − unconditional), elsewhere the conditional half's own values. Gives [B, K, H, W].
#[track_caller]
pub fn combine(output: &Tensor, count: usize, scale: &Tensor) -> Tensor {
    let [conditional, _] = output.chunk(0);
    join(&guided(output, count, scale), &rest(&conditional, count))
}

/// As [`combine`] for both halves, as `forward_with_cfg` returns them: the guided channels are equal in both, the others
/// each half's own. Gives [2·B, K, H, W].
#[track_caller]
pub fn combine_both(output: &Tensor, count: usize, scale: &Tensor) -> Tensor {
    join(&both(&guided(output, count, scale)), &rest(output, count))
}

#[track_caller]
fn guided(output: &Tensor, count: usize, scale: &Tensor) -> Tensor {
    let [conditional, unconditional] = first_channels(output, count).chunk(0);
    &unconditional + scale * (conditional - &unconditional)
}

/// Channels from `count` on, if there are any.
#[track_caller]
fn rest(output: &Tensor, count: usize) -> Option<Tensor> {
    let channels = output.size(1);
    (channels > count).then(|| output.narrow(1, count, channels - count))
}

#[track_caller]
fn join(guided: &Tensor, rest: &Option<Tensor>) -> Tensor {
    match rest {
        Some(rest) => concat(&[guided, rest], 1),
        None => guided.clone(),
    }
}
