//! What a step of DiT-S/2 costs, by its plan: no device is needed.

use selvedge::compile::{self, Optimizer, Options, Settings};
use selvedge::explain::activation_bytes;
use selvedge::model::{Graph, Tensor};
use selvedge::target::Target;
use selvedge::weights::Random;
use selvedge::zoo::dit::{DitConfig, forward};
use selvedge::zoo::guidance::Guided;
use selvedge::zoo::samplers::{Gaussian, Sampler};
use selvedge::zoo::sampling::{Denoiser, Guidance, sampling_module};
use std::sync::Arc;

struct Model(DitConfig);

impl Denoiser for Model {
    fn sample_shape(&self) -> [usize; 3] {
        [self.0.in_channels, self.0.input_size, self.0.input_size]
    }
    fn forward(&self, g: &Graph, x: &Tensor, timesteps: &Tensor, class_labels: &Tensor) -> Tensor {
        forward(&g.weights(), &self.0, x, timesteps, class_labels)
    }
}

/// Dispatches of a step at batch 2 (one image with guidance), and the bytes of activations that it moves.
fn step(optimizer: Optimizer) -> (usize, u64) {
    let config = DitConfig::preset("dit-s-2").expect("a published size");
    let guidance = Guidance::On { guided: Guided::First(3), null_class: config.num_classes };
    let sampler = Sampler::Gaussian(Gaussian::new(true));
    let module = sampling_module("dit-s-2", &Model(config), &sampler, guidance, 1, |_| None).expect("the model builds");
    let settings = Settings { optimizer, ..Settings::default() };
    let options = Options { settings, ..Options::new(Target::portable()) };
    let compiled =
        compile::compile(module, Arc::new(Random::default()), Default::default(), &options).expect("it compiles");
    let plan = &compiled.manifest().plans[0];
    let step = plan.functions.iter().find(|f| f.name == "step").expect("a step");
    (step.dispatches.len(), activation_bytes(step))
}

#[test]
fn a_block_takes_at_most_eight_dispatches_and_few_bytes_move() {
    let (_, all) = step(Optimizer::None);
    for optimizer in [Optimizer::Greedy, Optimizer::Saturate] {
        let (dispatches, moved) = step(optimizer);
        assert!(dispatches <= 12 * 8 + 6, "{optimizer}: {dispatches} dispatches");
        assert!(moved as f64 <= 0.45 * all as f64, "{optimizer}: {moved} of {all} bytes");
    }
}
