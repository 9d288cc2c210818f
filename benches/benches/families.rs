//! Every kernel family through the whole compiler, and its candidates beside the default in turns.
//!
//!     cargo bench -p selvedge-benches --bench families [-- FILTER]
//!
//! After criterion's figures of a program, each unit with a choice is listed: the time of the whole function with another
//! candidate over its time with the default, both the least of runs in turns. Below 1 the candidate is faster. With `BENCH_CPU` set
//! times are CPU time of the process, for software drivers on a busy machine.

use criterion::{Criterion, criterion_group, criterion_main};
use selvedge::compile::{self, Compiled, Options};
use selvedge::gpu::{Gpu, GpuSession};
use selvedge::ir::{Module, Tensor};
use selvedge::weights::Random;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Name, parameters and body of a function that returns %y; `%w`, if it is among the parameters, is a weight.
const PROGRAMS: [(&str, &str, &str); 23] = [
    ("linear", "%a: f32[1024,1152], %w: f32[1152,1152]", "contract %a, %w spec=[ik,jk->ij] dtype=f32 : f32[1024,1152]"),
    (
        "linear_wide",
        "%a: f32[1024,1152], %w: f32[4608,1152]",
        "contract %a, %w spec=[ik,jk->ij] dtype=f32 : f32[1024,4608]",
    ),
    (
        "linear_long",
        "%a: f32[1024,4608], %w: f32[1152,4608]",
        "contract %a, %w spec=[ik,jk->ij] dtype=f32 : f32[1024,1152]",
    ),
    (
        "linear_half",
        "%a: f32[1024,1152], %w: f16[1152,1152]",
        "contract %a, %w spec=[ik,jk->ij] dtype=f32 : f32[1024,1152]",
    ),
    ("few_rows", "%a: f32[2,1152], %w: f32[6912,1152]", "contract %a, %w spec=[ik,jk->ij] dtype=f32 : f32[2,6912]"),
    (
        "batched",
        "%a: f32[16,1024,64], %b: f32[16,1024,64]",
        "contract %a, %b spec=[bik,bjk->bij] dtype=f32 : f32[16,1024,1024]",
    ),
    (
        "attention",
        "%q: f32[1,4,1024,64], %k: f32[1,4,1024,64], %v: f32[1,4,1024,64]",
        "attention %q, %k, %v scale=0.125 causal=false : f32[1,4,1024,64]",
    ),
    (
        "local_attention",
        "%q: f32[1,2,4096,64], %k: f32[1,2,4096,64], %v: f32[1,2,4096,64]",
        "local_attention %q, %k, %v scale=0.125 text=0 height=64 width=64 radius=8 shape=circle : f32[1,2,4096,64]",
    ),
    (
        "convolution",
        "%x: f32[1,64,64,64], %w: f32[64,64,3,3]",
        "window %x, %w kind=conv size=[3,3] stride=[1,1] padding=[1:1,1:1] dilation=[1,1] groups=1 : f32[1,64,64,64]",
    ),
    (
        "convolution_wide",
        "%x: f32[1,512,32,32], %w: f32[512,512,3,3]",
        "window %x, %w kind=conv size=[3,3] stride=[1,1] padding=[1:1,1:1] dilation=[1,1] groups=1 : f32[1,512,32,32]",
    ),
    (
        "convolution_of_one",
        "%x: f32[1,512,32,32], %w: f32[512,512,1,1]",
        "window %x, %w kind=conv size=[1,1] stride=[1,1] padding=[0:0,0:0] dilation=[1,1] groups=1 : f32[1,512,32,32]",
    ),
    ("layer_norm", "%x: f32[1024,1152]", "layer_norm %x eps=1e-6 : f32[1024,1152]"),
    ("rms_norm", "%x: f32[1024,1152], %s: f32[1152]", "rms_norm %x, %s eps=1e-6 : f32[1024,1152]"),
    ("group_norm", "%x: f32[1,128,128,128]", "group_norm %x groups=32 eps=1e-6 : f32[1,128,128,128]"),
    ("softmax", "%x: f32[4096,1024]", "softmax %x axis=1 : f32[4096,1024]"),
    ("sum", "%x: f32[1024,1152]", "reduce %x kind=sum axes=[1] : f32[1024]"),
    ("sum_columns", "%x: f32[1024,1152]", "reduce %x kind=sum axes=[0] : f32[1152]"),
    ("gelu", "%x: f32[1024,4608]", "map %x body={x| x * sigmoid(x * 1.702)} : f32[1024,4608]"),
    ("transpose", "%x: f32[1024,1152]", "transpose %x perm=[1,0] : f32[1152,1024]"),
    ("copy", "%x: f32[1024,1152]", "slice %x start=[256,0] end=[768,1152] step=[1,1] : f32[512,1152]"),
    ("join", "%x: f32[1,24,154,64], %z: f32[1,24,1024,64]", "concat %x, %z axis=2 : f32[1,24,1178,64]"),
    ("scan", "%x: f32[256,4096]", "scan %x kind=sum axis=1 reverse=false exclusive=false : f32[256,4096]"),
    ("topk", "%x: f32[64,1024]", "topk %x k=64 axis=1 largest=true : i32[64,64]"),
];

/// Runs in turns of which the least count.
const TURNS: usize = 5;

fn module(name: &str, parameters: &str, body: &str) -> Module {
    let (inputs, weight) = parameters.split_once(", %w: ").unwrap_or((parameters, ""));
    let [declared, read] = match weight {
        "" => [const { String::new() }; 2],
        ty => [format!("weight \"w\" : {ty}\n\n"), format!("  %w = weight \"w\" : {ty}\n")],
    };
    let text = format!("{declared}fn @{name}({inputs}) {{\n{read}  %y = {body}\n  return y=%y\n}}\n");
    selvedge::ir::parse::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn load(gpu: &Gpu, compiled: &Compiled, name: &str, inputs: &BTreeMap<String, Tensor>) -> GpuSession {
    let bundle = compiled.bundle().expect("consistent");
    let mut session = GpuSession::load(gpu, &bundle, &Default::default(), true, &mut |_| {}).expect("it loads");
    session.call(name, inputs).expect("it runs");
    session
}

fn milliseconds(session: &mut GpuSession, name: &str, runs: usize) -> f64 {
    let on_cpu = std::env::var_os("BENCH_CPU").is_some();
    let start = on_cpu.then(selvedge_benches::cpu_time);
    let wall: f64 = (0..runs).map(|_| session.again(name).expect("it runs")).sum();
    start.map_or(wall, |start| (selvedge_benches::cpu_time() - start).as_secs_f64() * 1e3)
}

fn families(criterion: &mut Criterion) {
    let gpu = Gpu::open(None).expect("benches need a GPU driver");
    println!("{}", gpu.facts());
    for (name, parameters, body) in PROGRAMS {
        // criterion filters by name too, but only after the work of compiling.
        if std::env::args().skip(1).any(|filter| !filter.starts_with('-') && !name.contains(&filter)) {
            continue;
        }
        let module = module(name, parameters, body);
        let weights = Arc::new(Random::default());
        let function = module.function(name).expect("it was just written");
        let input = |(input, id): (&str, _)| {
            (input.to_string(), Random::default().scaled(input, function.ty(id), 1.0).expect("no symbols"))
        };
        let inputs: BTreeMap<String, Tensor> = function.params().into_iter().map(input).collect();
        let compiled = compile::compile(module.clone(), weights, Default::default(), &Options::new(gpu.target()))
            .expect("it compiles");
        let mut session = load(&gpu, &compiled, name, &inputs);
        criterion.bench_function(name, |b| {
            b.iter_custom(|n| Duration::from_secs_f64(milliseconds(&mut session, name, n as usize) / 1e3))
        });
        for (key, tunable) in compiled.tunables() {
            println!("{key}: {}", tunable.candidates[0]);
            for candidate in &tunable.candidates[1..] {
                let other = compiled.again(&[(key.clone(), candidate.clone())].into()).expect("a candidate is legal");
                let mut other = load(&gpu, &other, name, &inputs);
                let (mut least, mut rival) = (f64::INFINITY, f64::INFINITY);
                for _ in 0..TURNS {
                    least = least.min(milliseconds(&mut session, name, 1));
                    rival = rival.min(milliseconds(&mut other, name, 1));
                }
                println!("  {candidate}: {:.2}", rival / least);
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(2));
    targets = families
}
criterion_main!(benches);
