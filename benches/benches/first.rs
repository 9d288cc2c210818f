//! What a driver takes to make kernels ready, and to run them: every candidate of the units of some programs, each in a process of
//! its own.
//!
//!     MESA_SHADER_CACHE_DISABLE=true cargo bench --workspace --bench first [-- [FILTER] [CANDIDATES]]
//!
//! A line: CPU seconds of loading (the kernel's text checked, translated, compiled, and one workgroup run), the most memory of the
//! process, CPU milliseconds of a run (least of several), and the candidate. FILTER is a part of a program's name, or an IR file whose
//! functions are the programs; CANDIDATES a part of a candidate's name, `=` and all of it, or `default`. `BENCH_RUNNER` is put
//! before the program, as cargo's runner is; `BENCH_TEXT` names a file for the text of the last kernel. Nothing is asserted.

use selvedge::compile::{self, Compiled, Options};
use selvedge::gpu::{Gpu, GpuSession};
use selvedge::ir::{Module, Tensor};
use selvedge::weights::Random;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Runs of which the least counts.
const RUNS: usize = 5;
/// Set for a process that measures one candidate: key and name.
const ONE: &str = "BENCH_FIRST";

fn function(name: &str, parameters: &str, body: &str) -> String {
    format!("fn @{name}({parameters}) {{\n  %y = {body}\n  return y=%y\n}}\n")
}

/// Names of programs and their texts.
fn programs(filter: &str, whole: bool) -> Vec<(String, String)> {
    if filter.ends_with(".ir") {
        let text = std::fs::read_to_string(filter).expect("the file is there");
        return vec![(filter.to_string(), text)];
    }
    let mut all = Vec::new();
    for head in [8, 32, 40, 64, 72, 80, 96, 128, 256] {
        let x = format!("f32[1,4,256,{head}]");
        let body = format!("attention %q, %k, %v scale=0.125 causal=false : {x}");
        all.push((format!("attention_{head}"), format!("%q: {x}, %k: {x}, %v: {x}"), body));
    }
    let x = "f32[1,2,1024,64]";
    let grid = "text=0 height=32 width=32 radius=8 shape=circle";
    let body = format!("local_attention %q, %k, %v scale=0.125 {grid} : {x}");
    all.push(("local".to_string(), format!("%q: {x}, %k: {x}, %v: {x}"), body));
    for (name, m, n, k) in [("linear", 256, 384, 384), ("few_rows", 2, 1152, 384)] {
        let body = format!("contract %a, %b spec=[ik,jk->ij] dtype=f32 : f32[{m},{n}]");
        all.push((name.to_string(), format!("%a: f32[{m},{k}], %b: f32[{n},{k}]"), body));
    }
    for (name, size, padding) in [("convolution", 3, 1), ("convolution_of_one", 1, 0)] {
        let window = format!("size=[{size},{size}] stride=[1,1] padding=[{padding}:{padding},{padding}:{padding}]");
        let body = format!("window %x, %k kind=conv {window} dilation=[1,1] groups=1 : f32[1,64,32,32]");
        all.push((name.to_string(), format!("%x: f32[1,64,32,32], %k: f32[64,64,{size},{size}]"), body));
    }
    for (name, body) in [
        ("layer_norm", "layer_norm %x eps=1e-6 : f32[256,1152]"),
        ("softmax", "softmax %x axis=1 : f32[256,1152]"),
        ("sum", "reduce %x kind=sum axes=[1] : f32[256]"),
        ("gelu", "map %x body={x| x * sigmoid(x * 1.702)} : f32[256,1152]"),
    ] {
        all.push((name.to_string(), "%x: f32[256,1152]".to_string(), body.to_string()));
    }
    let found = all.into_iter().filter(|(name, ..)| if whole { name == filter } else { name.contains(filter) });
    found.map(|(name, parameters, body)| (name.clone(), function(&name, &parameters, &body))).collect()
}

/// Most bytes that were in memory.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// CPU time of the process with threads that have ended, in the system's ticks of 10 ms.
fn whole_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this needs Linux");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

fn load(gpu: &Gpu, compiled: &Compiled) -> GpuSession {
    let bundle = compiled.bundle().expect("consistent");
    GpuSession::load(gpu, &bundle, &Default::default(), true, &mut |_| {}).expect("it loads")
}

/// Measures a program as it is.
fn measure(gpu: &Gpu, module: &Module, compiled: &Compiled) -> String {
    let before = whole_time();
    if let Some(file) = std::env::var_os("BENCH_TEXT") {
        let bundle = compiled.bundle().expect("consistent");
        std::fs::write(file, bundle.kernel(0).expect("a kernel")).expect("it is written");
    }
    let mut session = load(gpu, compiled);
    let first = whole_time() - before;
    let mut times = Vec::new();
    for function in &module.functions {
        let input = |(input, id): (&str, _)| {
            (input.to_string(), Random::default().scaled(input, function.ty(id), 1.0).expect("no symbols"))
        };
        let inputs: BTreeMap<String, Tensor> = function.params().into_iter().map(input).collect();
        session.call(&function.name, &inputs).expect("it runs");
        let mut best = Duration::MAX;
        for _ in 0..RUNS {
            let start = selvedge_benches::cpu_time();
            session.again(&function.name).expect("it runs");
            best = best.min(selvedge_benches::cpu_time() - start);
        }
        times.push(format!("{:8.2} ms", best.as_secs_f64() * 1e3));
    }
    format!("{:7.2} s {:5} MiB {}", first.as_secs_f64(), peak() >> 20, times.join(" "))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let filter = arguments.first().map_or("", String::as_str);
    let wanted = arguments.get(1).map_or("", String::as_str);
    let one = std::env::var(ONE).ok();
    let gpu = Gpu::open(None).expect("benches need a GPU driver");
    if one.is_none() {
        println!("{}", gpu.facts());
    }
    for (name, text) in programs(filter, one.is_some()) {
        let module = selvedge::ir::parse::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let weights = Arc::new(Random::default());
        let compiled = compile::compile(module.clone(), weights, Default::default(), &Options::new(gpu.target()))
            .expect("it compiles");
        if let Some(one) = &one {
            let choices = one.split(';').filter_map(|c| c.split_once('=')).map(|(k, c)| (k.to_string(), c.to_string()));
            let other = compiled.again(&choices.collect()).expect("a candidate is legal");
            println!("{}", measure(&gpu, &module, &other));
            continue;
        }
        let mut turns: Vec<(String, String)> = Vec::new();
        for (key, tunable) in compiled.tunables() {
            let fits = |(i, c): (usize, &String)| match (wanted, wanted.strip_prefix('=')) {
                ("default", _) => i == 0,
                (_, Some(whole)) => c == whole,
                (part, None) => c.contains(part),
            };
            let candidates = tunable.candidates.iter().enumerate().filter(|(i, c)| fits((*i, c)));
            turns.extend(candidates.map(|(_, c)| (format!("{key}={c}"), c.clone())));
        }
        if turns.is_empty() {
            turns.push((String::new(), "no choice".to_string()));
        }
        for (choice, candidate) in turns {
            let mut process = Command::new("/proc/self/exe");
            // A program that a loader starts is not its own executable.
            if let Ok(runner) = std::env::var("BENCH_RUNNER") {
                let mut words = runner.split(' ');
                process = Command::new(words.next().unwrap_or_default());
                process.args(words).arg(std::env::args().next().unwrap_or_default());
            }
            let out = process.arg(if filter.ends_with(".ir") { filter } else { &name }).env(ONE, &choice).output();
            let out = out.expect("it starts");
            let line = String::from_utf8_lossy(&out.stdout).trim().to_string();
            let line = if out.status.success() {
                line
            } else {
                format!("failed: {}", String::from_utf8_lossy(&out.stderr).trim())
            };
            println!("{line}  {name}: {candidate}");
        }
    }
}
