//! Plans as text, work larger than a target's bindings, and schedules.

mod common;

use selvedge_codegen::{Options, Target, compile};
use selvedge_ir::generate;
use selvedge_ir::interp::Run;
use selvedge_ir::parse::parse;
use selvedge_ir::{Interpreter, Module, Tensor, TensorType};
use selvedge_runtime::{RunRequest, StepReport};
use std::collections::BTreeMap;

fn module(text: &str) -> Module {
    parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Two linear layers with an activation between them: two dispatches, everything else is inside them.
const MLP: &str = r#"module @mlp

weight "fc1.weight" : f16[64,32]
weight "fc1.bias" : f32[64]
weight "fc2.weight" : f16[32,64]

fn @mlp(%x: f32[10,32]) -> f32[10,32] {
  %w1 = weight "fc1.weight" : f16[64,32]
  %b1 = weight "fc1.bias" : f32[64]
  %h = contract %x, %w1 spec=[ik,jk->ij] dtype=f32 : f32[10,64]
  %b = broadcast %b1 axes=[1] shape=[10,64] : f32[10,64]
  %a = map %h, %b body={x, y| (x + y) * sigmoid(x + y)} : f32[10,64]
  %w2 = weight "fc2.weight" : f16[32,64]
  %o = contract %a, %w2 spec=[ik,jk->ij] dtype=f32 : f32[10,32]
  %y = map %o, %x body={x, y| x + y} : f32[10,32]
  return y=%y
}
"#;

#[test]
fn an_mlp_is_two_dispatches() {
    let compiled =
        compile(&module(MLP), &Target::portable(), &Options { size: "batch=10".to_string(), ..Options::default() })
            .unwrap();
    let expected = include_str!("plans/mlp.txt");
    let got = compiled.text();
    if std::env::var_os("BLESS").is_some() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans/mlp.txt");
        std::fs::write(file, &got).expect("the golden file can be written");
        return;
    }
    assert_eq!(got, expected, "run with BLESS=1 to accept");
}

/// A cast behind a kernel is left to the store, which rounds once, and to the bits that are stored.
#[test]
fn what_is_stored_in_halves_is_rounded_once() {
    let text = r#"weight "w" : f32[64,32]

fn @f(%x: f32[10,32]) -> f32[10,32] {
  %w = weight "w" : f32[64,32]
  %h = contract %x, %w spec=[ik,jk->ij] dtype=f32 : f32[10,64]
  %s = map %h body={x| f16(x * 2.0)} : f16[10,64]
  %a = map %s body={x| f16(sigmoid(f32(x)))} : f16[10,64]
  %y = contract %a, %w spec=[ij,jk->ik] dtype=f32 : f32[10,32]
  return y=%y
}
"#;
    let compiled = compile(&module(text), &Target::portable(), &Options::default()).unwrap();
    // Four elements in each function that stores, and the functions' own heads.
    let count = |what: &str| compiled.kernels[0].matches(what).count();
    assert_eq!((count("round_f16("), count("bits_f16(")), (5, 5), "{}", compiled.kernels[0]);
}

#[test]
fn a_choice_of_the_caller_changes_the_kernel_and_nothing_else() {
    let target = Target::portable();
    let default = compile(&module(MLP), &target, &Options::default()).unwrap();
    assert_eq!(default.tunables.len(), 2, "two contractions of different shapes: {:?}", default.tunables);
    for (key, tunable) in &default.tunables {
        assert_eq!((tunable.chosen, tunable.dispatches.len()), (0, 1), "{key}");
        let other = tunable.candidates.last().unwrap();
        let choices = BTreeMap::from([(key.clone(), other.clone()), ("no such key".to_string(), "x".to_string())]);
        let chosen = compile(&module(MLP), &target, &Options { choices, ..Options::default() }).unwrap();
        assert_eq!(chosen.tunables[key].name(), other);
        let (function, dispatch) = tunable.dispatches[0];
        for (d, (a, b)) in (0..).zip(default.plan().dispatches().zip(chosen.plan().dispatches())) {
            let kernel = |c: &selvedge_codegen::Compiled, k: u32| c.manifest.kernels[k as usize].clone();
            let (a, b) = (kernel(&default, a.kernel), kernel(&chosen, b.kernel));
            assert_eq!(a.hash != b.hash, (function, dispatch) == (0, d), "{} and {}", a.choice, b.choice);
        }
    }
}

#[test]
fn looking_units_up_changes_nothing() {
    let options = generate::Options { weights: true, calls: true, operators: 24, ..generate::Options::default() };
    for (seed, target) in (0..60).zip(common::targets().into_iter().cycle()) {
        let module = generate::module(seed, &options);
        let compile = |fresh| compile(&module, &target, &Options { fresh, ..Options::default() });
        match (compile(true), compile(false)) {
            (Ok(fresh), Ok(memo)) => {
                assert_eq!(fresh.manifest, memo.manifest, "seed {seed}, {}\n{module}", target.name);
                assert_eq!(fresh.kernels, memo.kernels, "seed {seed}, {}\n{module}", target.name);
            }
            (fresh, memo) => assert_eq!(fresh.err(), memo.err(), "seed {seed}, {}\n{module}", target.name),
        }
    }
}

#[test]
fn equal_blocks_share_kernels() {
    let block = |i: usize, x: &str| {
        format!(
            "  %w{i} = weight \"w{i}\" : f32[32,32]
  %c{i} = contract {x}, %w{i} spec=[ik,jk->ij] dtype=f32 : f32[10,32]
  %y{i} = map %c{i}, {x} body={{x, y| tanh(x) + y}} : f32[10,32]\n"
        )
    };
    let weights: String = (0..6).map(|i| format!("weight \"w{i}\" : f32[32,32]\n")).collect();
    let blocks: String =
        (0..6).map(|i| block(i, &if i == 0 { "%x".to_string() } else { format!("%y{}", i - 1) })).collect();
    let text = format!("{weights}\nfn @f(%x: f32[10,32]) -> f32[10,32] {{\n{blocks}  return y=%y5\n}}\n");
    let compiled = compile(&module(&text), &Target::portable(), &Options::default()).unwrap();
    assert_eq!(compiled.plan().functions[0].dispatches.len(), 6);
    assert_eq!(compiled.kernels.len(), 1);
}

#[test]
fn memory_is_reused_along_a_chain() {
    let steps: String = (0..20)
        .map(|i| {
            let x = if i == 0 { "%x".to_string() } else { format!("%y{}", i - 1) };
            format!("  %y{i} = scan {x} kind=sum axis=0 reverse=false exclusive=false : f32[64,64]\n")
        })
        .collect();
    let text = format!("fn @f(%x: f32[64,64]) -> f32[64,64] {{\n{steps}  return y=%y19\n}}\n");
    let compiled = compile(&module(&text), &Target::portable(), &Options::default()).unwrap();
    // The input, the result, and two between them.
    assert!(compiled.plan().peak_bytes() <= 4 * 64 * 64 * 4, "{}", compiled.text());
}

#[test]
fn work_larger_than_bindings_is_split() {
    for text in [
        // One row is longer than all windows together.
        "fn @f(%x: f32[2,90000]) -> f32[2] {\n  %y = reduce %x kind=sum axes=[1] : f32[2]\n  return y=%y\n}\n",
        // So is one operand of a contraction.
        "fn @f(%x: f32[3,300], %w: f32[300,120]) -> f32[3,120] {
  %y = contract %x, %w spec=[ik,kj->ij] dtype=f32 : f32[3,120]
  return y=%y\n}\n",
        "fn @f(%x: f32[40,6], %i: i32[9000], %u: f32[9000,6]) -> f32[40,6] {
  %y = scatter %x, %i, %u kind=set axis=0 batch=0 : f32[40,6]
  return y=%y\n}\n",
        "fn @f(%x: f32[1,40,20,20], %k: f32[9,40,3,3]) -> f32[1,9,20,20] {
  %y = window %x, %k kind=conv size=[3,3] stride=[1,1] padding=[1:1,1:1] dilation=[1,1] groups=1 : f32[1,9,20,20]
  return y=%y\n}\n",
        "fn @f(%x: f32[1,8,70,70]) -> f32[1,8,70,70] {
  %n = group_norm %x groups=2 eps=0.000001 : f32[1,8,70,70]
  %y = map %n body={x| x * sigmoid(x)} : f32[1,8,70,70]
  return y=%y\n}\n",
        "fn @f(%x: f32[30000]) -> f32[30000] {\n  %y = map %x body={x| x + 1.0} : f32[30000]\n  return y=%y\n}\n",
    ] {
        for (i, target) in common::device_targets().iter().enumerate() {
            common::check(&module(text), target, i as u64);
        }
    }
}

#[test]
fn joins_of_many_tensors_are_divided() {
    let count = 19;
    let names: Vec<String> = (0..count).map(|i| format!("%x{i}")).collect();
    let parameters: Vec<String> = names.iter().map(|n| format!("{n}: f32[500]")).collect();
    let text = format!(
        "fn @f({}) -> f32[{n}] {{\n  %y = concat {} axis=0 : f32[{n}]\n  return y=%y\n}}\n",
        parameters.join(", "),
        names.join(", "),
        n = 500 * count,
    );
    for (i, target) in common::device_targets().iter().enumerate() {
        common::check(&module(&text), target, i as u64);
    }
}

#[test]
fn refusals_name_the_operator() {
    let text = "weight \"w\" : q4<axis=1,group=32,scale=f16>[8,64]\n
fn @f(%x: f32[2,64]) -> f32[2,8] {
  %w = weight \"w\" : q4<axis=1,group=32,scale=f16>[8,64]
  %d = map %w body={x| f32(x)} : f32[8,64]
  %y = contract %x, %d spec=[ik,jk->ij] dtype=f32 : f32[2,8]
  return y=%y\n}\n";
    let error = compile(&module(text), &Target::portable(), &Options::default()).unwrap_err().to_string();
    assert!(error.contains("`w`") && error.contains("quantised"), "{error}");
    let mut none = Target::portable();
    none.storage_buffers = 1;
    let text = "fn @f(%x: f32[2], %z: f32[70000000]) -> f32[2] {
  %s = slice %z start=[0] end=[2] step=[1] : f32[2]
  %y = map %x, %s body={x, y| x + y} : f32[2]\n  return y=%y\n}\n";
    let error = compile(&module(text), &none, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("codegen map") && error.contains("at most 1 buffers"), "{error}");
}

/// A sampling program with every stage, a state, a table and a traced output.
const PROGRAM: &str = r#"module @program

weight "w" : f32[6,6]
state "count" : f32[6]

fn @prepare() -> f32[6,6] {
  %w = weight "w" : f32[6,6]
  %p = map %w body={x| x * 0.5} : f32[6,6]
  return packed=%p
}

fn @condition(%label: i32[], %packed: f32[6,6]) -> f32[6], f32[6] {
  %c = gather %packed, %label axis=0 batch=0 : f32[6]
  %d = map %c body={x| x + 1.0} : f32[6]
  return cond=%c, offset=%d
}

fn @step(%latent: f32[6], %dt: f32[], %cond: f32[6], %packed: f32[6,6], %gain: f32[6]) -> f32[6], f32[6], f32[6] {
  %v = contract %packed, %latent spec=[ij,j->i] dtype=f32 : f32[6]
  %count = state "count" : f32[6]
  %one = map %count body={x| x + 1.0} : f32[6]
  %t = broadcast %dt axes=[] shape=[6] : f32[6]
  %velocity = map %v, %cond, %count, %gain body={x, y, z, w| x + y * w + z * 0.1} : f32[6]
  %next = map %latent, %velocity, %t body={x, y, z| x + y * z} : f32[6]
  return latent=%next, velocity=%velocity, state "count"=%one
}

fn @decode(%latent: f32[6], %offset: f32[6]) -> f32[2,3] {
  %s = map %latent, %offset body={x, y| tanh(x) + y} : f32[6]
  %y = reshape %s shape=[2,3] : f32[2,3]
  return image=%y
}

schedule {
  prepare @prepare
  condition @condition
  steps @step carry(latent) table(dt: f32[])
  decode @decode
  trace(velocity)
}
"#;

#[test]
fn a_schedule_runs_as_interpreted() {
    let module = module(PROGRAM);
    let mut random = common::Random(5);
    let weights = common::random_weights(&module, &mut random);
    let mut tensor = |shape: &[usize]| random.tensor(&TensorType::new(selvedge_ir::DType::F32, shape));
    let inputs: BTreeMap<String, Tensor> = [
        ("latent".to_string(), tensor(&[6])),
        ("gain".to_string(), tensor(&[6])),
        ("label".to_string(), Tensor::i32(&[], vec![4])),
    ]
    .into();
    let tables: BTreeMap<String, Tensor> = [("dt".to_string(), tensor(&[3]))].into();
    let steps = vec![0, 0, 0];
    let run = Run { inputs: inputs.clone(), steps, tables: tables.clone(), trace: vec!["velocity".to_string()] };
    let want = Interpreter::new(&module, &weights).run(&run, &mut |_| {}).unwrap();
    for target in common::device_targets() {
        let compiled = compile(&module, &target, &Options::default()).unwrap();
        let mut session = common::load(&compiled, &weights);
        let host = |t: &BTreeMap<String, Tensor>| t.iter().map(|(n, t)| (n.clone(), common::to_host(t))).collect();
        let request = RunRequest {
            inputs: host(&inputs),
            steps: vec![0, 0, 0],
            tables: host(&tables),
            trace: vec!["velocity".to_string()],
            ..RunRequest::default()
        };
        // Twice: a run leaves nothing behind that the next one sees.
        for _ in 0..2 {
            let got = session.run(&request, &mut |_: StepReport| {}).unwrap_or_else(|e| panic!("{}: {e}", target.name));
            let close = |name: &str, got: &[f64], want: &Tensor| {
                for (g, w) in got.iter().zip(want.to_f64()) {
                    assert!((g - w).abs() <= 1e-5 * w.abs().max(1.0), "{name} for {}: {g} and {w}", target.name);
                }
            };
            for (name, want) in &want.outputs {
                close(name, &common::from_host(&got.outputs[name]), want);
            }
            for (k, want) in want.trace["velocity"].iter().enumerate() {
                close("velocity", &common::from_host(&got.trace[k]["velocity"]), want);
            }
        }
    }
}

/// Convolution and normalisation of 1 GiB activations: no buffer or binding of WebGPU's defaults holds one.
#[test]
fn a_gibibyte_activation_has_a_plan() {
    let text = r#"weight "k" : f16[256,256,3,3]

fn @f(%x: f32[1,256,1024,1024]) -> f32[1,256,1024,1024] {
  %k = weight "k" : f16[256,256,3,3]
  %n = group_norm %x groups=32 eps=0.000001 : f32[1,256,1024,1024]
  %s = map %n body={x| x * sigmoid(x)} : f32[1,256,1024,1024]
  %y = window %s, %k kind=conv size=[3,3] stride=[1,1] padding=[1:1,1:1] dilation=[1,1] groups=1 : f32[1,256,1024,1024]
  return y=%y
}
"#;
    let target = Target::portable();
    let compiled = compile(&module(text), &target, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let plan = compiled.plan();
    assert!(plan.functions[0].dispatches.len() < 200, "{}", compiled.text());
    assert!(compiled.kernels.len() < 100, "{}", compiled.text());
}
