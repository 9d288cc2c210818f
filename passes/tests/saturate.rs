//! The engine's laws, with rules of its own: limits, faults, sharing, determinism.

use selvedge_ir::ops::{Contract, Map, Transpose};
use selvedge_ir::parse::parse;
use selvedge_ir::scalar::{Binary, Body, Unary};
use selvedge_ir::spec::ContractSpec;
use selvedge_ir::{DType, Function, Op};
use selvedge_passes::saturate::{Limits, Match, Phase, Rates, Rule, Saturate, Strategy, Term};
use selvedge_passes::{Notes, Pass};
use std::collections::BTreeMap;

fn function(text: &str) -> Function {
    parse(text).unwrap_or_else(|e| panic!("{e}")).functions.remove(0)
}

fn engine(rules: Vec<Rule>, strategy: Strategy) -> Saturate {
    Saturate { rules, rates: Rates::default(), limits: Limits::default(), strategy, ranks: BTreeMap::new() }
}

fn kinds(function: &Function) -> Vec<&'static str> {
    function.ids().filter_map(|id| function.op(id)).map(|(op, _)| op.kind().text()).collect()
}

/// (a·b)·c = a·(b·c)
fn reassociate() -> Rule {
    Rule::new(
        "contract-reassociate",
        "(a·b)·c = a·(b·c)",
        Phase::Contract,
        &["(contract [ik,kj->ij] f32 (contract [ik,kj->ij] f32 ?a ?b) ?c)"],
        |m: &Match| {
            let spec = ContractSpec::parse("ik,kj->ij").map_err(|_| "spec")?;
            let product = |a, b| Term::op(Contract { spec: spec.clone(), dtype: DType::F32 }, [a, b]);
            Ok(product(m.term("a"), product(m.term("b"), m.term("c"))))
        },
    )
}

const CHAIN: &str = "fn @f(%a: f32[512,512], %b: f32[512,512], %c: f32[512,1]) {
  %ab = contract %a, %b spec=[ik,kj->ij] dtype=f32 : f32[512,512]
  %abc = contract %ab, %c spec=[ik,kj->ij] dtype=f32 : f32[512,1]
  return y=%abc
}";

#[test]
fn the_cheaper_order_of_a_chain_is_taken_by_both_strategies() {
    let chain = function(CHAIN);
    for strategy in [Strategy::Saturate, Strategy::Greedy] {
        let (best, report, _) = engine(vec![reassociate()], strategy).function(&chain).unwrap();
        assert!(report.seconds_after < report.seconds_before, "{report}");
        let shapes: Vec<String> = best.values.iter().map(|v| v.ty.to_string()).collect();
        assert_eq!(shapes[3..], ["f32[512,1]", "f32[512,1]"], "{strategy:?}");
    }
}

#[test]
fn a_rank_takes_a_program_next_to_the_best() {
    let module = parse(CHAIN).unwrap();
    let run = |rank: usize| {
        let engine =
            Saturate { ranks: [("f".to_string(), rank)].into(), ..engine(vec![reassociate()], Strategy::Saturate) };
        let mut notes = Notes::default();
        let function = engine.run_noting(module.clone(), &mut notes).unwrap().functions.remove(0);
        (function, notes)
    };
    let (best, notes) = run(0);
    let (next, _) = run(1);
    assert_eq!(next, notes.next_best[0].program(0).unwrap().unwrap());
    assert_ne!(best, next);
    assert!(notes.saturation[0].best[0] < notes.saturation[0].best[1]);
    // There are no more programs than that: the best stays.
    assert_eq!(run(9).0, best);
}

#[test]
fn what_is_shared_counts_once() {
    // a·b is needed anyway, so that (a·b)·c costs one small product more, and a·(b·c) would cost two.
    let shared = function(&CHAIN.replace("return y=%abc", "return y=%abc, ab=%ab"));
    let (best, report, others) = engine(vec![reassociate()], Strategy::Saturate).function(&shared).unwrap();
    assert_eq!(kinds(&best).iter().filter(|k| **k == "contract").count(), 2, "{report}");
    // The other order is still known, and dearer.
    assert_eq!((report.best.len(), others.len()), (2, 1));
    assert!(report.best[0] < report.best[1]);
}

#[test]
fn a_rule_of_another_type_is_named() {
    let wrong =
        Rule::new("transpose-dropped", "none: this rule is wrong", Phase::Layout, &["(transpose ?p ?x)"], |m| {
            Ok(m.term("x"))
        });
    let f = function("fn @f(%x: f32[2,3]) {\n  %t = transpose %x perm=[1,0] : f32[3,2]\n  return y=%t\n}");
    let error = engine(vec![wrong], Strategy::Saturate).function(&f).unwrap_err();
    assert!(error.to_string().contains("rule transpose-dropped gives f32[2,3] for f32[3,2]"), "{error}");
}

#[test]
fn an_ill_typed_right_side_is_refused_and_counted() {
    let ill = Rule::new("transpose-ill", "none: this rule is wrong", Phase::Layout, &["(transpose ?p ?x)"], |m| {
        Ok(Term::op(Transpose { perm: vec![0, 0] }, [m.term("x")]))
    });
    let f = function("fn @f(%x: f32[2,2]) {\n  %t = transpose %x perm=[1,0] : f32[2,2]\n  return y=%t\n}");
    let (best, report, _) = engine(vec![ill], Strategy::Saturate).function(&f).unwrap();
    assert_eq!(best, f);
    let reasons: Vec<&String> = report.rules[0].refusals.keys().collect();
    assert!(reasons.len() == 1 && reasons[0].contains("transpose C1"), "{reasons:?}");
}

/// exp(x) = exp(−(−x)): grows for ever.
fn growing() -> Rule {
    Rule::new("map-grows", "exp x = exp −−x", Phase::Algebra, &["(map {exp} ?x)"], |m| {
        let neg = |x| Term::op(Map { body: Body::unary(Unary::Neg) }, [x]);
        Ok(Term::op(Map { body: Body::unary(Unary::Exp) }, [neg(neg(m.term("x")))]))
    })
}

#[test]
fn limits_end_it_and_are_named() {
    let f = function("fn @f(%x: f32[4]) {\n  %e = map %x body={x| exp(x)} : f32[4]\n  return y=%e\n}");
    let (best, report, _) = engine(vec![growing()], Strategy::Saturate).function(&f).unwrap();
    assert_eq!(kinds(&best), ["input", "map"]);
    assert_eq!(report.stopped.as_deref(), Some("rounds of phase algebra"));
    let mut small = engine(vec![growing()], Strategy::Saturate);
    small.limits.nodes = 12;
    let (_, report, _) = small.function(&f).unwrap();
    assert_eq!(report.stopped.as_deref(), Some("nodes: 12 in rule map-grows"));
}

#[test]
fn a_rule_that_finds_too_much_is_backed_off_and_named() {
    let mut text = "fn @f(%x0: f32[4]) {\n".to_string();
    for i in 0..8 {
        text += &format!("  %x{} = map %x{i} body={{x| exp(x)}} : f32[4]\n", i + 1);
    }
    let f = function(&format!("{text}  return y=%x8\n}}"));
    let mut few = engine(vec![growing()], Strategy::Saturate);
    few.limits.matches = 3;
    let (_, report, _) = few.function(&f).unwrap();
    assert!(report.rules[0].backed_off > 0 && report.to_string().contains("backed off"), "{report}");
}

#[test]
fn commuted_maps_match_in_either_order() {
    let add_neg =
        Rule::new("add-of-neg", "x + −y = x − y", Phase::Algebra, &["(map {+} ?x (map {neg} ?y))"], |m| {
            Ok(Term::op(Map { body: Body::binary(Binary::Sub) }, [m.term("x"), m.term("y")]))
        });
    let f = function(
        "fn @f(%x: f32[4], %y: f32[4]) {\n  %n = map %y body={x| neg(x)} : f32[4]\n  \
         %s = map %n, %x body={x, y| x + y} : f32[4]\n  return y=%s\n}",
    );
    let (best, ..) = engine(vec![add_neg], Strategy::Saturate).function(&f).unwrap();
    let (op, args) = best.op(best.returns[0].value).unwrap();
    assert_eq!(*op, Op::from(Map { body: Body::binary(Binary::Sub) }));
    assert_eq!(args.iter().map(|a| best.value(*a).name.as_deref()).collect::<Vec<_>>(), [Some("x"), Some("y")]);
}

#[test]
fn names_places_and_reasons_survive() {
    let (best, report, _) = engine(vec![reassociate()], Strategy::Saturate).function(&function(CHAIN)).unwrap();
    let result = best.value(best.returns[0].value);
    assert_eq!(result.name.as_deref(), Some("abc"));
    // The left side's origins: lines 2 and 3 of the text.
    assert_eq!(result.places.len(), 2, "{:?}", result.places);
    let reason = report.reasons.iter().find(|r| r.value == "abc").unwrap();
    assert_eq!(reason.chain, ["contract-reassociate"]);
    assert!(reason.alternatives.iter().any(|a| a.seconds.is_some_and(|s| s > report.seconds_after)));
}

#[test]
fn the_same_function_gives_the_same_program() {
    let run = || {
        format!(
            "{:?}",
            engine(vec![reassociate(), growing()], Strategy::Saturate).function(&function(CHAIN)).unwrap().0
        )
    };
    assert_eq!(run(), run());
}
