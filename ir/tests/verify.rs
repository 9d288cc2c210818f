//! For each invariant of the verifier, modules that break it and nothing else.

use selvedge_ir::func::{CallId, Def, ValueId};
use selvedge_ir::parse::parse;
use selvedge_ir::verify::verify;
use selvedge_ir::{DType, Module};
use std::collections::BTreeSet;

/// A module that has everything and verifies.
const GOOD: &str = r#"module @good
weight "w" : f32[4,4]
state "kv" : f32[2,4]
fn @prepare() {
  %w = weight "w" : f32[4,4]
  return packed=%w
}
fn @condition(%label: f32[2]) {
  return scale=%label
}
fn @step(%latent: f32[2,4], %t: f32[], %row: f32[2], %packed: f32[4,4], %scale: f32[2]) {
  %kv = state "kv" : f32[2,4]
  %y = contract %latent, %packed spec=[ab,bc->ac] dtype=f32 : f32[2,4]
  %a, %b = call @pair(%y, %kv) : f32[2,4], f32[2,4]
  return latent=%a, x0=%y, state "kv"=%b
}
fn @pair(%x: f32[2,4], %y: f32[2,4]) {
  %s = map %x, %y body={x, y| x + y} : f32[2,4]
  return s=%s, x=%x
}
fn @decode(%latent: f32[2,4]) {
  %n = iota axis=0 : i32[3]
  return image=%latent
}
fn @rows(%t: f32[3]) {
  %e = broadcast %t shape=[3,2] axes=[0] : f32[3,2]
  return row=%e
}
schedule {
  prepare @prepare
  condition @condition
  steps @step carry(latent) table(t: f32[]) tabulate 3 @rows
  decode @decode
  trace(x0, latent)
}
"#;

fn good() -> Module {
    parse(GOOD).unwrap_or_else(|e| panic!("{e}"))
}

fn codes(module: &Module) -> BTreeSet<String> {
    verify(module).err().into_iter().flat_map(|d| d.0).map(|d| d.code).collect()
}

/// The good module with pieces of its text replaced breaks exactly one invariant.
#[track_caller]
fn broken(code: &str, edits: &[(&str, &str)]) {
    let text = edits.iter().fold(GOOD.to_string(), |text, (from, to)| {
        assert!(text.contains(from), "`{from}` is not there");
        text.replace(from, to)
    });
    let module = parse(&text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(codes(&module), BTreeSet::from([code.to_string()]), "{:?}", verify(&module));
}

/// The good module, changed by hand, breaks exactly one invariant.
#[track_caller]
fn broken_by(code: &str, change: impl FnOnce(&mut Module)) {
    let mut module = good();
    change(&mut module);
    assert_eq!(codes(&module), BTreeSet::from([code.to_string()]), "{:?}", verify(&module));
}

#[test]
fn the_good_module_is_accepted() {
    assert_eq!(verify(&good()), Ok(()));
}

#[test]
fn v1_function_names() {
    broken("V1", &[("schedule {", "fn @decode(%latent: f32[2,4]) {\n  return image=%latent\n}\nschedule {")]);
}

#[test]
fn v2_declared_names() {
    broken("V2", &[("\nstate", "\nweight \"w\" : f32[4,4]\nstate")]);
    broken("V2", &[("\nstate", "\nstate \"kv\" : f32[2,4]\nstate")]);
    broken("V2", &[("\nstate", "\nstate \"q\" : q8<axis=0,group=2,scale=f32>[2]\nstate")]);
}

#[test]
fn v3_parameters() {
    broken_by("V3", |m| m.functions[3].values[1].def = m.functions[3].values[0].def.clone());
    broken_by("V3", |m| m.functions[4].values.swap(0, 1));
    broken("V3", &[("fn @condition(%label", "fn @condition(%q: q8<axis=0,group=2,scale=f32>[2], %label")]);
}

#[test]
fn v4_outputs() {
    broken("V4", &[("x0=%y,", "x0=%y, x0=%y,")]);
    broken("V4", &[("state \"kv\"=%b", "state \"kv\"=%b, state \"kv\"=%a")]);
}

#[test]
fn v5_definition_before_use() {
    broken_by("V5", |m| match &mut m.functions[3].values[2].def {
        Def::Op { args, .. } => args[0] = ValueId(2),
        Def::Result { .. } => unreachable!("`%s` is a map"),
    });
    broken_by("V5", |m| m.functions[2].calls[0].args[0] = ValueId(99));
    broken_by("V5", |m| m.functions[4].returns[0].value = ValueId(7));
}

#[test]
fn v6_types() {
    broken_by("V6", |m| m.functions[4].values[1].ty.dtype = DType::U32);
    broken("V6", &[("\nstate", "\nweight \"n\" : f32[-3]\nstate")]);
}

#[test]
fn an_operators_constraint_has_its_own_number() {
    broken_by("map C2", |m| match &mut m.functions[3].values[2].def {
        Def::Op { args, .. } => args.truncate(1),
        Def::Result { .. } => unreachable!("`%s` is a map"),
    });
}

#[test]
fn v7_weights() {
    broken("V7", &[("weight \"w\" : f32[4,4]\nstate", "state")]);
    broken("V7", &[("weight \"w\" : f32[4,4]\nstate", "weight \"w\" : f16[4,4]\nstate")]);
}

#[test]
fn v8_states() {
    broken("V8", &[("state \"kv\" : f32[2,4]\nfn", "fn")]);
    broken("V8", &[("state \"kv\" : f32[2,4]\nfn", "state \"kv\" : f32[2,5]\nfn")]);
    broken("V8", &[("state \"kv\"=%b", "state \"kv\"=%t")]);
    broken("V8", &[("state \"kv\"=%b", "state \"other\"=%b")]);
}

#[test]
fn v9_callees() {
    broken("V9", &[("call @pair", "call @pear")]);
}

#[test]
fn v10_arguments() {
    broken("V10", &[("@pair(%y, %kv)", "@pair(%y)")]);
    broken("V10", &[("@pair(%y, %kv)", "@pair(%y, %t)")]);
}

#[test]
fn v11_results() {
    broken("V11", &[("return s=%s, x=%x", "return s=%s")]);
    broken_by("V11", |m| {
        let call = m.functions[2].calls[0].clone();
        m.functions[2].calls.push(call);
    });
    broken_by("V11", |m| m.functions[2].values[8].def = Def::Result { call: CallId(0), index: 0 });
}

#[test]
fn v12_recursion() {
    let called = "%s, %r = call @pair(%x, %y) : f32[2,4], f32[2,4]";
    broken("V12", &[("%s = map %x, %y body={x, y| x + y} : f32[2,4]", called)]);
}

#[test]
fn v13_states_of_callees() {
    broken("V13", &[("return s=%s, x=%x", "return s=%s, state \"kv\"=%x")]);
}

#[test]
fn v14_functions_of_the_schedule() {
    broken("V14", &[("decode @decode", "decode @nothing")]);
    broken(
        "V14",
        &[("steps @step carry(latent) table(t: f32[]) tabulate 3 @rows", "steps"), ("trace(x0, latent)", "")],
    );
}

#[test]
fn v15_carried_values() {
    broken("V15", &[("carry(latent)", "carry(latent, latent)")]);
    broken("V15", &[("carry(latent)", "carry(latent, scale)")]);
    broken("V15", &[("return latent=%a", "return latent=%t")]);
}

#[test]
fn v16_tables() {
    broken("V16", &[("table(t: f32[])", "table(t: f32[], t: f32[])")]);
    broken("V16", &[("table(t: f32[]) tabulate 3 @rows", "table(t: f32[2])"), ("%row: f32[2], ", "")]);
    broken("V16", &[("table(t: f32[])", "table(t: f32[], u: f32[])")]);
    broken("V16", &[("table(t: f32[])", "table(t: f32[], latent: f32[2,4])")]);
}

#[test]
fn v17_prepare() {
    broken("V17", &[("fn @prepare()", "fn @prepare(%x: f32[])")]);
}

#[test]
fn v18_bindings() {
    broken("V18", &[("scale=%label", "scale=%label, packed=%label")]);
    broken("V18", &[("%scale: f32[2]", "%scale: f32[2], %label: f32[3]")]);
    broken("V18", &[("@decode(%latent: f32[2,4])", "@decode(%latent: f32[2,5])")]);
}

#[test]
fn v19_traces() {
    broken("V19", &[("trace(x0", "trace(x1")]);
}

#[test]
fn v20_tabulate() {
    broken("V20", &[("%t: f32[3]", "%scale2: f32[3]"), ("broadcast %t", "broadcast %scale2")]);
    broken("V20", &[("fn @rows(%t: f32[3]", "fn @rows(%t: f32[3], %latent: f32[2,4]")]);
    broken("V20", &[("return row=%e", "%s = state \"kv\" : f32[2,4]\n  return row=%e")]);
    let none = [("f32[3]", "f32[0]"), ("[3,2]", "[0,2]"), ("tabulate 3", "tabulate 0")];
    broken("V20", &none);
}

#[test]
fn v21_tabulated_rows() {
    broken(
        "V21",
        &[("%e = broadcast %t shape=[3,2] axes=[0] : f32[3,2]", "%e = broadcast %t shape=[2,3] axes=[1] : f32[2,3]")],
    );
    broken("V21", &[("(%t: f32[3])", "(%t: f32[4])"), ("broadcast %t shape=[3,2] axes=[0]", "iota axis=0")]);
    broken("V21", &[("%row: f32[2]", "%row: f32[3]")]);
    broken("V21", &[("%row: f32[2], ", "")]);
    broken("V21", &[("return row=%e", "return row=%e, t=%e")]);
}

#[test]
fn all_violations_are_reported() {
    let text = GOOD
        .replace("call @pair", "call @pear")
        .replace("trace(x0", "trace(x1")
        .replace("weight \"w\" : f32[4,4]\nstate", "state");
    let got = codes(&parse(&text).unwrap());
    assert_eq!(got, ["V19", "V7", "V9"].map(String::from).into());
}
