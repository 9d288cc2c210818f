//! CPU time of passes and code generation against depth: the sampling program of DiT-XL/2 with any number of blocks.
//!
//! `cargo bench --workspace --bench depth -- 28 56` prints the time of each pass; nothing is asserted.

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

/// Milliseconds of CPU time of this process, which has one thread; wall time where the system does not tell.
fn cpu_ms(started: Instant) -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").ok();
    let nanoseconds = stat.and_then(|s| s.split_whitespace().next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| started.elapsed().as_secs_f64() * 1e3, |ns| ns / 1e6)
}

/// Rounds that the figures are means of: the system's clock ticks in milliseconds.
const ROUNDS: usize = 20;

/// What the rounds of a depth have taken.
struct Sum {
    depth: usize,
    stages: Vec<(String, f64)>,
    facts: String,
}

impl Sum {
    fn total(&self) -> f64 {
        self.stages.iter().map(|(_, ms)| ms).sum()
    }
    fn round(&mut self, started: Instant) {
        let mut module = program(self.depth);
        let mut stages: Vec<(String, f64)> = Vec::new();
        let mut notes = Default::default();
        let options = selvedge_passes::Options { joined_bytes: Some(128 << 20), ..Default::default() };
        for (i, pass) in selvedge_passes::passes(&options).iter().enumerate() {
            let before = cpu_ms(started);
            module = pass.run_noting(module, &mut notes).expect("the pass runs");
            stages.push((format!("{:>2} {}", i + 1, pass.name()), cpu_ms(started) - before));
        }
        let before = cpu_ms(started);
        let compiled =
            selvedge_codegen::compile(&module, &Target::portable(), &Default::default()).expect("it compiles");
        stages.push(("   codegen".to_string(), cpu_ms(started) - before));
        let dispatches: usize = compiled.plan().functions.iter().map(|f| f.dispatches.len()).sum();
        self.facts = format!("{dispatches} dispatches, {} kernels\n{}", compiled.kernels.len(), notes.lines.join("\n"));
        if self.stages.is_empty() {
            self.stages = stages.iter().map(|(name, _)| (name.clone(), 0.0)).collect();
        }
        self.stages.iter_mut().zip(stages).for_each(|(sum, (_, ms))| sum.1 += ms / ROUNDS as f64);
    }
}

fn main() {
    let depths: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let depths = if depths.is_empty() { vec![28, 56] } else { depths };
    let started = Instant::now();
    let mut sums: Vec<Sum> =
        depths.iter().map(|depth| Sum { depth: *depth, stages: Vec::new(), facts: String::new() }).collect();
    for _ in 0..ROUNDS {
        sums.iter_mut().for_each(|sum| sum.round(started));
    }
    for sum in &sums {
        println!("{} blocks: {:.1} ms of CPU time, {}", sum.depth, sum.total(), sum.facts);
    }
    for (i, (name, _)) in sums[0].stages.iter().enumerate() {
        let times: Vec<String> = sums.iter().map(|s| format!("{:>9.2} ms", s.stages[i].1)).collect();
        println!("{}  {name}", times.join(" "));
    }
    if let [first, .., last] = sums.as_slice() {
        println!("ratio {:.3}", last.total() / first.total());
    }
}
