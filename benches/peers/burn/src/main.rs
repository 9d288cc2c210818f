//! The workloads of `docs/PERFORMANCE.md` in burn, for a comparison on one machine: tensors of the host in and out.
//!
//! usage: selvedge-peer-burn [--runs N] [--attention own|products] [--check] WORKLOAD
//!
//! Prints one JSON object. A first phase lets burn's autotune choose its kernels and finds which form of attention is the
//! faster; `--check` also compares attention with plain loops in f64.

mod attention;
mod dit;

use attention::Kind;
use burn::tensor::wgpu::WgpuBackend;
use burn::tensor::{Device, Int, Tensor, TensorData};
use dit::{Config, Dit};
use std::time::Instant;

/// What a workload computes, with its weights on the device.
enum Work {
    Dit(Box<Dit>, Config),
    Attention([usize; 4]),
}

fn workload(name: &str, device: &Device) -> Option<Work> {
    let small = Config {
        batch: 8,
        side: 28,
        patch: 2,
        channels: 1,
        out_channels: 1,
        hidden: 128,
        depth: 6,
        heads: 4,
        classes: 10,
    };
    let latent = Config { batch: 2, side: 32, channels: 4, out_channels: 8, classes: 1000, ..small };
    let config = match name {
        "w1" => small,
        "w2" => Config { hidden: 384, depth: 12, heads: 6, ..latent },
        "w3" => Config { batch: 1, side: 64, hidden: 1152, depth: 2, heads: 16, ..latent },
        "w4a" => return Some(Work::Attention([1, 16, 1024, 64])),
        "w4b" => return Some(Work::Attention([1, 16, 4096, 64])),
        _ => return None,
    };
    Some(Work::Dit(Box::new(Dit::new(config, device)), config))
}

impl Work {
    /// Inputs in the host's memory: three attention operands, or picture, times and labels.
    fn inputs(&self) -> Vec<TensorData> {
        match self {
            Work::Attention(shape) => (1..4).map(|seed| random(shape, seed)).collect(),
            Work::Dit(_, c) => vec![
                random(&[c.batch, c.channels, c.side, c.side], 1),
                TensorData::new((0..c.batch).map(|i| 100.0 * i as f32 + 7.0).collect(), [c.batch]),
                TensorData::new((0..c.batch as i32).map(|i| i % 8).collect(), [c.batch]),
            ],
        }
    }

    fn output_shape(&self) -> [usize; 4] {
        match self {
            Work::Attention(shape) => *shape,
            Work::Dit(_, c) => [c.batch, c.out_channels, c.side, c.side],
        }
    }

    /// Bytes of the scores of one attention.
    fn score_bytes(&self) -> usize {
        let (batch, heads, tokens) = match self {
            Work::Attention([batch, heads, tokens, _]) => (*batch, *heads, *tokens),
            Work::Dit(_, c) => (c.batch, c.heads, (c.side / c.patch).pow(2)),
        };
        4 * batch * heads * tokens * tokens
    }

    fn flops(&self) -> f64 {
        match self {
            Work::Attention([batch, heads, tokens, d]) => 4.0 * (batch * heads * tokens * tokens * d) as f64,
            Work::Dit(dit, _) => dit.flops(),
        }
    }

    /// From tensors of the host to a tensor of the host.
    fn forward(&self, inputs: Vec<TensorData>, kind: Kind, device: &Device) -> TensorData {
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().expect("three inputs");
        let output = match self {
            Work::Attention(_) => {
                let [q, k, v] = std::array::from_fn(|_| Tensor::<4>::from_data(next(), device));
                kind.of(q, k, v)
            }
            Work::Dit(dit, _) => {
                let (x, t) = (Tensor::from_data(next(), device), Tensor::from_data(next(), device));
                dit.forward(x, t, Tensor::<1, Int>::from_data(next(), device), kind)
            }
        };
        output.into_data()
    }
}

/// Uniform in [−1, 1).
fn random(shape: &[usize], seed: u64) -> TensorData {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let draw = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    TensorData::new((0..shape.iter().product()).map(draw).collect::<Vec<f32>>(), shape.to_vec())
}

/// Milliseconds of a forward, and its result. Copies of the inputs are made before the clock starts.
fn timed(work: &Work, inputs: &[TensorData], kind: Kind, device: &Device) -> (f64, TensorData) {
    let inputs = inputs.to_vec();
    let started = Instant::now();
    let output = work.forward(inputs, kind, device);
    output.as_slice::<f32>().expect("f32"); // burn may read back no sooner than this
    (started.elapsed().as_secs_f64() * 1e3, output)
}

/// CPU time of all threads of this process in milliseconds, where Linux counts it.
fn cpu_ms() -> f64 {
    let nanoseconds = |task: std::fs::DirEntry| -> Option<u64> {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    let tasks = std::fs::read_dir("/proc/self/task").ok();
    tasks.map_or(f64::NAN, |t| t.flatten().filter_map(nanoseconds).sum::<u64>() as f64 / 1e6)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Largest difference of some rows of attention from plain loops in f64, relative to the largest element.
fn difference(inputs: &[TensorData], output: &TensorData, [_, heads, tokens, d]: [usize; 4]) -> f64 {
    let slice = |t: &TensorData| t.as_slice::<f32>().expect("f32").to_vec();
    let [q, k, v] = std::array::from_fn(|i| slice(&inputs[i]));
    let got = slice(output);
    let (mut worst, mut largest) = (0f64, 0f64);
    for (head, row) in [(0, 0), (heads / 2, tokens / 3), (heads - 1, tokens - 1)] {
        let at = |i: usize| (head * tokens + i) * d;
        let dot = |j: usize| (0..d).map(|e| f64::from(q[at(row) + e]) * f64::from(k[at(j) + e])).sum::<f64>();
        let weights: Vec<f64> = (0..tokens).map(|j| (dot(j) / (d as f64).sqrt()).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for e in 0..d {
            let want = weights.iter().enumerate().map(|(j, w)| w * f64::from(v[at(j) + e])).sum::<f64>() / sum;
            worst = worst.max((want - f64::from(got[at(row) + e])).abs());
            largest = largest.max(want.abs());
        }
    }
    worst / largest
}

fn main() {
    let (mut runs, mut kinds, mut check, mut names) = (5, Kind::ALL.to_vec(), false, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match argument.as_str() {
            "--runs" => runs = value().parse().expect("--runs N"),
            "--attention" => {
                let name = value();
                kinds.retain(|k| k.text() == name);
                assert!(!kinds.is_empty(), "--attention own|products");
            }
            "--check" => check = true,
            _ => names.push(argument),
        }
    }
    let [name] = names.as_slice() else { panic!("one workload: w1 w2 w3 w4a w4b") };
    let (device, setup) =
        Device::wgpu_options().graphics_api(WgpuBackend::Vulkan).init_with_setup().expect("a Vulkan device");
    let adapter = setup.adapter.get_info();
    let work = workload(name, &device).unwrap_or_else(|| panic!("no workload `{name}`: w1 w2 w3 w4a w4b"));
    let inputs = work.inputs();
    // burn refuses a buffer of 1 GiB on lavapipe, and its device is of no use after that.
    kinds.retain(|k| *k == Kind::Own || work.score_bytes() < 1 << 30);

    let started = Instant::now();
    let mut kind = (f64::INFINITY, kinds[0]);
    for candidate in kinds {
        for _ in 0..3 {
            let (ms, output) = timed(&work, &inputs, candidate, &device);
            eprintln!("{name}, attention {}: {ms:.1} ms", candidate.text());
            kind = if ms < kind.0 { (ms, candidate) } else { kind };
            assert_eq!(output.shape().to_vec(), work.output_shape(), "the output's shape");
            let values = output.as_slice::<f32>().expect("f32");
            assert!(values.iter().all(|v| v.is_finite()), "outputs are finite");
            if let (true, Work::Attention(shape)) = (check, &work) {
                let difference = difference(&inputs, &output, *shape);
                assert!(difference < 1e-4, "attention {} is off by {difference:.1e}", candidate.text());
                eprintln!("{name}, attention {}: off by {difference:.1e}", candidate.text());
            }
        }
    }
    assert!(kind.0.is_finite(), "no form of attention fits `{name}`");
    let kind = kind.1;
    let warm_up = started.elapsed().as_secs_f64();

    let (mut times, mut least_cpu) = (Vec::new(), f64::INFINITY);
    for _ in 0..runs {
        let before = cpu_ms();
        times.push(timed(&work, &inputs, kind, &device).0);
        least_cpu = least_cpu.min(cpu_ms() - before);
    }
    let report = serde_json::json!({
        "workload": name,
        "median_ms": median(&mut times),
        "best_ms": times[0],
        "cpu_ms": least_cpu,
        "gflop": work.flops() / 1e9,
        "device": adapter.name,
        "driver": format!("{} {}", adapter.driver, adapter.driver_info),
        "peer": "burn",
        "attention": kind.text(),
        "warm_up_s": warm_up,
    });
    println!("{report}");
}
