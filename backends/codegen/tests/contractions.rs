//! Every family and tile of contractions that may be chosen computes what the interpreter computes.

mod common;

use selvedge_codegen::{Options, Target, compile};
use selvedge_ir::parse::parse;

/// Contractions of odd and even sizes, with prologue and epilogue, batched and chained, of f32 and of halves.
fn modules() -> Vec<String> {
    let cases = [
        (5, 12, 8, "f16"),
        (37, 28, 50, "f32"),
        (70, 65, 33, "bf16"),
        (3, 130, 18, "f32"),
        (40, 72, 68, "f16"),
        (45, 70, 24, "f32"),
    ];
    let text = |(m, n, k, dtype): (u32, u32, u32, &str)| {
        format!(
            "weight \"w\" : {dtype}[{n},{k}]
weight \"b\" : f32[{n}]

fn @f(%x: {dtype}[{m},{k}], %r: f32[{m},{n}]) -> f32[{m},{n}] {{
  %w = weight \"w\" : {dtype}[{n},{k}]
  %b = weight \"b\" : f32[{n}]
  %wf = map %w body={{x| f32(x)}} : f32[{n},{k}]
  %xf = map %x body={{x| f32(x)}} : f32[{m},{k}]
  %c = contract %xf, %wf spec=[ik,jk->ij] dtype=f32 : f32[{m},{n}]
  %bb = broadcast %b axes=[1] shape=[{m},{n}] : f32[{m},{n}]
  %y = map %c, %bb, %r body={{x, y, z| (x + y) * sigmoid(z) + z}} : f32[{m},{n}]
  return y=%y
}}

fn @g(%x: {dtype}[2,{m},{k}], %z: {dtype}[2,{k},{n}]) -> {dtype}[2,{m},{n}] {{
  %c = contract %x, %z spec=[bik,bkj->bij] dtype={dtype} : {dtype}[2,{m},{n}]
  return y=%c
}}
"
        )
    };
    cases.map(text).to_vec()
}

#[test]
fn all_candidates_agree_with_the_interpreter() {
    let target = common::device();
    let words = Target { wide: false, avx512: true, ..target.clone() };
    let mut families = std::collections::BTreeSet::new();
    for (i, text) in modules().iter().enumerate() {
        let module = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        families.extend(common::check_candidates(&module, &target, i as u64));
        if target.wide {
            common::check_candidates(&module, &words, i as u64);
        }
    }
    let mut wanted = vec!["contract", "contract_shared"];
    if target.subgroup.is_some_and(|s| s.min == s.max) {
        wanted.push("contract_subgroup");
        if !target.cooperative.is_empty() && target.f16 {
            wanted.push("contract_cooperative");
        }
    }
    for family in wanted {
        assert!(families.contains(family), "{family} did not run: {families:?}");
    }
}

/// What is chosen for GPUs, whose few tiles share their sums among invocations.
#[test]
fn candidates_of_gpus_agree_too() {
    let target = Target { gpu: true, subgroup: None, cooperative: Vec::new(), ..common::device() };
    let mut sliced = 0;
    // Of odd sizes, and of one with few rows.
    for (i, text) in [1, 3].map(|i| modules().swap_remove(i)).iter().enumerate() {
        let module = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        common::check_candidates(&module, &target, 50 + i as u64);
        let compiled = compile(&module, &target, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        let names = compiled.tunables.values().flat_map(|t| &t.candidates);
        sliced += names.filter(|name| name.contains("slices")).count();
    }
    assert!(sliced > 0, "no candidate splits K");
}

/// Attention of a few queries on GPUs: no kernel of its own, but products whose sums over keys are split.
#[test]
fn few_queries_split_their_keys() {
    let target = Target { gpu: true, subgroup: None, cooperative: Vec::new(), ..common::device() };
    let text = |queries: usize| {
        format!(
            "fn @f(%q: f32[1,2,{queries},32], %k: f32[1,2,1030,32], %v: f32[1,2,1030,32]) -> f32[1,2,{queries},32] {{
  %y = attention %q, %k, %v scale=0.1767767 causal=false : f32[1,2,{queries},32]
  return y=%y
}}
"
        )
    };
    for (queries, few) in [(3, true), (17, false)] {
        let module = parse(&text(queries)).unwrap_or_else(|e| panic!("{e}"));
        let families = common::check_candidates(&module, &target, 70);
        assert_eq!(families.contains("attention"), !few, "{queries} queries: {families:?}");
        let compiled = compile(&module, &target, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        let mut names = compiled.tunables.values().flat_map(|t| &t.candidates);
        assert_eq!(names.any(|name| name.contains("slices")), few, "{queries} queries");
    }
}

/// The driver that `scripts/test` runs this on is known to have cooperative matrices.
#[test]
#[ignore = "needs cooperative matrices: scripts/test runs it on the newer driver that scripts/setup unpacks"]
fn cooperative_matrices_are_there() {
    let target = common::device();
    assert!(!target.cooperative.is_empty() && target.f16, "the device lists no cooperative matrices: {target:?}");
}
