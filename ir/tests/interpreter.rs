//! Calls and schedules: binding, state, traces, and errors instead of panics.

use selvedge_ir::func::Target;
use selvedge_ir::interp::{HostKernels, Run};
use selvedge_ir::parse::parse;
use selvedge_ir::verify::verify;
use selvedge_ir::{Diagnostic, Interpreter, Module, Op, Precision, Tensor, TensorType};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// x ← x·a + row + scale, where `condition` gives scale = 10·label, and a state counts the steps.
const SAMPLER: &str = "module @sampler
weight \"a\" : f32[]
state \"count\" : f32[]
fn @prepare() {
  %a = weight \"a\" : f32[]
  %d = map %a body={x| x * 2.0} : f32[]
  return a=%d
}
fn @condition(%label: f32[]) {
  %s = map %label body={x| x * 10.0} : f32[]
  return scale=%s
}
fn @step(%x: f32[], %a: f32[], %row: f32[], %scale: f32[]) {
  %n = state \"count\" : f32[]
  %m = map %n body={x| x + 1.0} : f32[]
  %y = map %x, %a, %row, %scale body={x, y, z, w| x * y + z + w} : f32[]
  return x=%y, counted=%m, state \"count\"=%m
}
fn @hold(%x: f32[]) {
  %n = state \"count\" : f32[]
  return x=%x, counted=%n
}
fn @decode(%x: f32[], %scale: f32[]) {
  %y = map %x, %scale body={x, y| x - y} : f32[]
  return picture=%y
}
schedule {
  prepare @prepare
  condition @condition
  steps @step, @hold carry(x) table(row: f32[])
  decode @decode
  trace(counted)
}
";

fn sampler() -> Module {
    let module = parse(SAMPLER).unwrap_or_else(|e| panic!("{e}"));
    verify(&module).unwrap_or_else(|e| panic!("{e}"));
    module
}

fn scalar(x: f32) -> Tensor {
    Tensor::f32(&[], vec![x])
}

fn weights() -> BTreeMap<String, Arc<Tensor>> {
    [("a".to_string(), Arc::new(scalar(0.25)))].into()
}

fn request(steps: &[usize]) -> Run {
    let rows = (1..=steps.len()).map(|k| k as f32).collect();
    Run {
        inputs: [("x".to_string(), scalar(4.0)), ("label".to_string(), scalar(3.0))].into(),
        steps: steps.to_vec(),
        tables: [("row".to_string(), Tensor::f32(&[steps.len()], rows))].into(),
        trace: vec!["x".to_string(), "counted".to_string()],
    }
}

fn run(request: &Run) -> Result<selvedge_ir::interp::RunOutput, Diagnostic> {
    Interpreter::new(&sampler(), &weights()).run(request, &mut |_| {})
}

#[test]
fn a_schedule_binds_by_name() {
    let module = sampler();
    let mut seen = Vec::new();
    let weights = weights();
    for precision in [Precision::F32, Precision::F64] {
        let interpreter = Interpreter::new(&module, &weights).precision(precision);
        let output = interpreter.run(&request(&[0, 1, 0]), &mut |k| seen.push(k)).unwrap();
        // 4·0.5 + 1 + 30 = 33; held; 33·0.5 + 3 + 30 = 49.5.
        let trace = |name: &str| output.trace[name].iter().map(|t| t.to_f64()[0]).collect::<Vec<_>>();
        assert_eq!(trace("x"), [33.0, 33.0, 49.5]);
        assert_eq!(trace("counted"), [1.0, 1.0, 2.0]);
        assert_eq!(output.outputs["x"].to_f64(), [49.5]);
        assert_eq!(output.outputs["picture"].to_f64(), [19.5]);
    }
    assert_eq!(seen, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn no_steps_decode_the_first_value() {
    let mut request = request(&[]);
    request.trace.clear();
    assert_eq!(run(&request).unwrap().outputs["picture"].to_f64(), [-26.0]);
}

#[test]
fn bad_requests_are_diagnosed() {
    let code = |change: &dyn Fn(&mut Run)| {
        let mut request = request(&[0, 1]);
        change(&mut request);
        let error = run(&request).unwrap_err();
        (error.code.clone(), error.to_string())
    };
    let (c, text) = code(&|r| r.steps[1] = 2);
    assert!(c == "I5" && text.contains("step 1") && text.contains("an index below 2"), "{text}");
    let (c, text) = code(&|r| _ = r.inputs.remove("x"));
    assert!(c == "I2" && text.contains("`x`"), "{text}");
    let (c, text) = code(&|r| _ = r.inputs.remove("label"));
    assert!(c == "I2" && text.contains("`label`") && text.contains("@condition"), "{text}");
    let (c, text) = code(&|r| _ = r.inputs.insert("label".to_string(), Tensor::f32(&[2], vec![0.0; 2])));
    assert!(c == "I3" && text.contains("expected f32[], found f32[2]"), "{text}");
    let (c, text) = code(&|r| _ = r.tables.remove("row"));
    assert!(c == "I2" && text.contains("`row`"), "{text}");
    let (c, text) = code(&|r| _ = r.tables.insert("row".to_string(), Tensor::f32(&[3], vec![0.0; 3])));
    assert!(c == "I3" && text.contains("expected f32[2], found f32[3]"), "{text}");
    let (c, text) = code(&|r| r.trace.push("y".to_string()));
    assert!(c == "I6" && text.contains("counted"), "{text}");
    let none: BTreeMap<String, Arc<Tensor>> = BTreeMap::new();
    let error = Interpreter::new(&sampler(), &none).run(&request(&[0]), &mut |_| {}).unwrap_err();
    assert!(error.code == "W2" && error.place.is_some(), "{error}");
}

#[test]
fn states_live_across_calls() {
    let module = sampler();
    let weights = weights();
    let interpreter = Interpreter::new(&module, &weights);
    let mut states = BTreeMap::new();
    let args = [1.0, 1.0, 0.0, 0.0].map(scalar);
    for k in 1..4 {
        let results = interpreter.call("step", &args, &mut states).unwrap();
        let targets: Vec<_> = results.iter().map(|r| r.0.clone()).collect();
        let output = |n: &str| Target::Output(n.to_string());
        assert_eq!(targets, [output("x"), output("counted"), Target::State("count".to_string())]);
        assert_eq!(states["count"].to_f64(), [k as f64]);
    }
    let error = interpreter.call("step", &args[1..], &mut states).unwrap_err();
    assert_eq!(error.code, "I2");
    assert_eq!(interpreter.call("nothing", &[], &mut states).unwrap_err().code, "I1");
}

#[test]
fn calls_return_several_values() {
    let module = parse(
        "fn @main(%x: f32[2]) {
  %s, %p = call @both(%x) : f32[2], f32[2]
  %y = map %s, %p body={x, y| x - y} : f32[2]
  return y=%y, x=%x
}
fn @both(%x: f32[2]) {
  %s = map %x body={x| x + x} : f32[2]
  %p = map %x body={x| x * x} : f32[2]
  return s=%s, p=%p
}",
    )
    .unwrap();
    let none: BTreeMap<String, Arc<Tensor>> = BTreeMap::new();
    let x = Tensor::f32(&[2], vec![3.0, 5.0]);
    let results =
        Interpreter::new(&module, &none).call("main", std::slice::from_ref(&x), &mut BTreeMap::new()).unwrap();
    assert_eq!(results[0].1.to_f64(), [-3.0, -15.0]);
    assert_eq!(results[1].1, x);
}

#[test]
fn symbols_and_endless_calls_are_errors() {
    let none: BTreeMap<String, Arc<Tensor>> = BTreeMap::new();
    let symbolic = parse("fn @f(%x: f32[N]) {\n  return x=%x\n}").unwrap();
    let x = Tensor::f32(&[2], vec![0.0; 2]);
    let error =
        Interpreter::new(&symbolic, &none).call("f", std::slice::from_ref(&x), &mut BTreeMap::new()).unwrap_err();
    assert_eq!(error.code, "I4");
    let endless = parse("fn @f(%x: f32[2]) {\n  %y = call @f(%x) : f32[2]\n  return x=%y\n}").unwrap();
    let error = Interpreter::new(&endless, &none).call("f", &[x], &mut BTreeMap::new()).unwrap_err();
    assert_eq!(error.code, "I7");
}

/// Counts the contractions it is asked for.
struct Counts(Cell<usize>);
impl HostKernels for Counts {
    fn eval(&self, op: &Op, args: &[&Tensor], out: &TensorType) -> Option<Tensor> {
        if !matches!(op, Op::Contract(_)) {
            return None;
        }
        self.0.set(self.0.get() + 1);
        Some(op.eval(args, out, Precision::F32))
    }
}

#[test]
fn kernels_reach_into_composites_in_f32_only() {
    let module = parse(
        "fn @f(%q: f32[1,1,2,2]) {
  %y = attention %q, %q, %q scale=1.0 causal=false : f32[1,1,2,2]
  return y=%y
}",
    )
    .unwrap();
    let none: BTreeMap<String, Arc<Tensor>> = BTreeMap::new();
    let q = [Tensor::f32(&[1, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0])];
    let counts = Counts(Cell::new(0));
    let interpreter = Interpreter::new(&module, &none).kernels(&counts);
    let y = interpreter.call("f", &q, &mut BTreeMap::new()).unwrap();
    assert_eq!(counts.0.get(), 2);
    assert_eq!(y, Interpreter::new(&module, &none).call("f", &q, &mut BTreeMap::new()).unwrap());
    let wide = interpreter.precision(Precision::F64);
    wide.call("f", &q, &mut BTreeMap::new()).unwrap();
    assert_eq!(counts.0.get(), 2);
}
