//! CPU time of passes and code generation against depth: the sampling program of DiT-XL/2 with any number of blocks.
//!
//! `cargo bench -p selvedge-benches --bench depth -- 28 56` prints one line for each; nothing is asserted.

use selvedge::ir::{DType, Module};
use selvedge::model::{Graph, Tensor};
use selvedge::zoo::dit::{DitConfig, forward};
use selvedge::zoo::guidance::Guided;
use selvedge::zoo::samplers::{Gaussian, Sampler};
use selvedge::zoo::sampling::{Denoiser, Guidance, sampling_module};
use selvedge_codegen::Target;
use std::time::Instant;

/// A DiT as samplers see it.
struct Model(DitConfig);

impl Denoiser for Model {
    fn sample_shape(&self) -> [usize; 3] {
        [self.0.in_channels, self.0.input_size, self.0.input_size]
    }
    fn forward(&self, g: &Graph, x: &Tensor, timesteps: &Tensor, class_labels: &Tensor) -> Tensor {
        forward(&g.weights(), &self.0, x, timesteps, class_labels)
    }
}

fn program(depth: usize) -> Module {
    let config = DitConfig { depth, ..DitConfig::preset("dit-xl-2").expect("a published size") };
    let guidance = Guidance::On { guided: Guided::First(3), null_class: config.num_classes };
    let sampler = Sampler::Gaussian(Gaussian::new(true));
    let stored = |name: &str| name.ends_with("weight").then_some(DType::BF16);
    sampling_module("dit-xl-2", &Model(config), &sampler, guidance, 1, stored).expect("the model builds")
}

/// Milliseconds of CPU time of this thread; wall time where the system does not tell.
fn cpu_ms(started: Instant) -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = stat.and_then(|s| s.split_whitespace().next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| started.elapsed().as_secs_f64() * 1e3, |ns| ns / 1e6)
}

fn main() {
    let depths: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let depths = if depths.is_empty() { vec![28, 56] } else { depths };
    let started = Instant::now();
    for depth in depths {
        let mut module = program(depth);
        let mut stages: Vec<(&str, f64)> = Vec::new();
        let mut notes = Default::default();
        let begin = cpu_ms(started);
        for pass in selvedge_passes::passes(&Default::default()) {
            let before = cpu_ms(started);
            module = pass.run_noting(module, &mut notes).expect("the pass runs");
            stages.push((pass.name(), cpu_ms(started) - before));
        }
        let before = cpu_ms(started);
        let compiled =
            selvedge_codegen::compile(&module, &Target::portable(), &Default::default()).expect("it compiles");
        stages.push(("codegen", cpu_ms(started) - before));
        let all = cpu_ms(started) - begin;
        let dispatches: usize = compiled.plan().functions.iter().map(|f| f.dispatches.len()).sum();
        println!(
            "{depth} blocks: {all:.0} ms of CPU time, {dispatches} dispatches, {} kernels",
            compiled.kernels.len()
        );
        stages.iter().for_each(|(name, ms)| println!("  {ms:>9.1} ms  {name}"));
        notes.lines.iter().for_each(|line| println!("  {line}"));
    }
}
