//! Attention over sequences as long as pictures of 2048 pixels have, and attention and sums longer than drivers' loops.

mod common;

use selvedge_codegen::{Options, compile};
use selvedge_ir::parse::parse;
use selvedge_ir::{Data, Tensor};
use std::collections::BTreeMap;

/// One head, n queries and m keys of size d; a few rows are compared with sums in f64 on the host.
fn check(n: usize, m: usize, d: usize) {
    let text = format!(
        "fn @f(%q: f32[1,1,{n},{d}], %k: f32[1,1,{m},{d}], %v: f32[1,1,{m},{d}]) -> f32[1,1,{n},{d}] {{
  %y = attention %q, %k, %v scale=3.0 causal=false : f32[1,1,{n},{d}]
  return y=%y
}}
"
    );
    let module = parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let compiled = compile(&module, &common::device(), &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let families: Vec<&str> = compiled.manifest.kernels.iter().map(|k| k.name.as_str()).collect();
    assert!(families.iter().all(|f| f.starts_with("attention")), "the scores are not stored: {families:?}");
    let function = &module.functions[0];
    let mut random = common::Random(5);
    let args: Vec<Tensor> = function.params().iter().map(|(_, id)| random.tensor(function.ty(*id))).collect();
    let inputs: BTreeMap<_, _> =
        function.params().iter().zip(&args).map(|((n, _), t)| (n.to_string(), common::to_host(t))).collect();
    let mut session = common::load(&compiled, &BTreeMap::new());
    let got = common::from_host(&session.call("f", &inputs).unwrap_or_else(|e| panic!("{e}"))["y"]);
    let element = |t: &Tensor, i: usize| match &t.data {
        Data::F32(v) => f64::from(v[i]),
        Data::F64(_) | Data::I32(_) | Data::U32(_) | Data::Bool(_) => unreachable!("inputs are f32"),
    };
    // A sum of m terms in f32 that is rescaled every 4 keys at most.
    let allowed = (m as f64 / 4.0) * 2f64.powi(-24);
    for row in [0, 1, n / 3, n / 2, n - 2, n - 1] {
        let score =
            |j: usize| 3.0 * (0..d).map(|c| element(&args[0], row * d + c) * element(&args[1], j * d + c)).sum::<f64>();
        let scores: Vec<f64> = (0..m).map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        for c in 0..d {
            let want = (0..m).map(|j| weights[j] * element(&args[2], j * d + c)).sum::<f64>() / total;
            let got = got[row * d + c];
            assert!((got - want).abs() <= allowed, "row {row}, column {c} of {n}x{m}: {got}, want {want}");
        }
    }
}

#[test]
fn pictures_of_16384_tokens() {
    check(16_384, 16_384, 8);
}

#[test]
fn more_keys_than_a_loop_has_iterations() {
    check(4, 70_000, 8);
}

/// The sums of a matrix of these extents along an axis, by every candidate, compared with sums in f64 on the host.
fn check_sums(sizes: [usize; 2], axis: usize) {
    let [n, m] = sizes;
    let count = sizes[1 - axis];
    let text = format!(
        "fn @f(%x: f32[{n},{m}]) -> f32[{count}] {{
  %y = reduce %x kind=sum axes=[{axis}] : f32[{count}]
  return y=%y
}}
"
    );
    let module = parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let x = common::Random(6).tensor(module.functions[0].ty(module.functions[0].params()[0].1));
    let Data::F32(elements) = &x.data else { unreachable!("the input is f32") };
    let (mut want, mut most) = (vec![0.0f64; count], vec![0.0f64; count]);
    for (i, element) in elements.iter().enumerate() {
        let at = [i % m, i / m][axis];
        want[at] += f64::from(*element);
        most[at] += f64::from(element.abs());
    }
    let inputs = BTreeMap::from([("x".to_string(), common::to_host(&x))]);
    let compiled = |options: &Options| {
        compile(&module, &common::device(), options).unwrap_or_else(|e| panic!("{sizes:?}, axis {axis}: {e}"))
    };
    let mut all = vec![Options::default()];
    for (key, tunable) in compiled(&all[0]).tunables {
        let choices = tunable.candidates.into_iter().skip(1).map(|c| BTreeMap::from([(key.clone(), c)]));
        all.extend(choices.map(|choices| Options { choices, ..Options::default() }));
    }
    assert!(all.len() > 1, "sums of {sizes:?} along {axis} have no candidates");
    for options in all {
        let mut session = common::load(&compiled(&options), &BTreeMap::new());
        let got = common::from_host(&session.call("f", &inputs).unwrap_or_else(|e| panic!("{e}"))["y"]);
        for ((got, want), most) in got.iter().zip(&want).zip(&most) {
            assert!(
                (got - want).abs() <= 1e-6 * most,
                "{sizes:?}, axis {axis}, {:?}: {got}, want {want}",
                options.choices
            );
        }
    }
}

#[test]
fn sums_longer_than_a_loop() {
    check_sums([2, 2_000_000], 1);
    check_sums([1_000_000, 4], 0);
}
