//! The T5 encoder against its recorded case, properties of masks and positions, and its configurations' mistakes.

mod common;

use common::{Case, rel_l2};
use selvedge_ir::{DType, Interpreter, Precision, Tensor};
use selvedge_model::nn::Activation;
use selvedge_zoo::t5::{T5Config, TokenTable, expected_weights, forward_module, ignored};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn run(case: &Case, config: &T5Config, ids: &Tensor, mask: Option<&Tensor>, precision: Precision) -> Tensor {
    let [batch, tokens] = ids.sizes()[..] else { panic!("ids are rows") };
    let stored = case.dtypes();
    let module = forward_module(config, (batch, tokens), mask.is_some(), move |name| stored.get(name).copied());
    let module = module.expect("the configuration is supported");
    selvedge_ir::verify::verify(&module).expect("the verifier accepts what the model API builds");
    let inputs: Vec<Tensor> = [Some(ids), mask].into_iter().flatten().cloned().collect();
    let interpreter = Interpreter::new(&module, &case.weights).precision(precision);
    interpreter.call("forward", &inputs, &mut BTreeMap::new()).expect("the module evaluates").remove(0).1
}

fn fixture() -> (Case, T5Config) {
    let case = Case::fixture("t5-encoder");
    let config = T5Config::from_json(&case.config).expect("the fixture's configuration is supported");
    (case, config)
}

#[test]
fn encoder_meets_its_fixture() {
    let (case, config) = fixture();
    let want = case.tensor("out.last_hidden_state");
    let (ids, mask) = (case.tensor("in.input_ids"), case.tensor("in.attention_mask"));
    for precision in [Precision::F32, Precision::F64] {
        let error = rel_l2(&run(&case, &config, &ids, Some(&mask), precision), &want);
        println!("t5-encoder {precision:?}: rel_l2 {error:.2e}");
        assert!(error <= 1e-5, "differs by {error:.2e} in {precision:?}");
    }
}

/// What follows the text behind the mask, and how much of it, does not reach the text.
#[test]
fn padding_changes_nothing() {
    let (case, config) = fixture();
    let text: Vec<i32> = (0..7).map(|i| 3 + 11 * i).collect();
    let alone = run(&case, &config, &Tensor::i32(&[1, 7], text.clone()), None, Precision::F64);
    for (length, filler) in [(7, 0), (9, 0), (30, 77)] {
        let mut ids = text.clone();
        ids.resize(length, filler);
        let mask = (0..length).map(|i| i32::from(i < 7)).collect();
        let (ids, mask) = (Tensor::i32(&[1, length], ids), Tensor::i32(&[1, length], mask));
        let padded = run(&case, &config, &ids, Some(&mask), Precision::F64);
        let head = Tensor::from_f64(alone.ty.clone(), &padded.to_f64()[..alone.len()], Precision::F64);
        assert!(rel_l2(&head, &alone) <= 1e-14, "{length} tokens");
    }
}

/// Values of the published encoder's rule (32 buckets, 128 tokens): one bucket a distance below 8, then eight that double every
/// second; keys after the query have the upper half.
#[test]
fn buckets_are_the_published_ones() {
    let config = T5Config::v1_1_xxl();
    let known = [
        (0, 0),
        (1, 1),
        (7, 7),
        (8, 8),
        (11, 8),
        (12, 9),
        (15, 9),
        (16, 10),
        (22, 10),
        (23, 11),
        (31, 11),
        (32, 12),
        (45, 12),
        (46, 13),
        (63, 13),
        (64, 14),
        (90, 14),
        (91, 15),
        (127, 15),
        (128, 15),
        (511, 15),
        (100_000, 15),
    ];
    for (distance, bucket) in known {
        assert_eq!(config.bucket(-distance), bucket, "{distance} before");
        let after = if distance == 0 { 0 } else { 16 + bucket };
        assert_eq!(config.bucket(distance), after, "{distance} after");
    }
    let smallest = T5Config { relative_attention_num_buckets: 5, relative_attention_max_distance: 2, ..config };
    assert!((-9..9).all(|relative| smallest.bucket(relative) < 5));
}

#[test]
fn expected_weights_are_the_checkpoints() {
    let (case, config) = fixture();
    for table in [TokenTable::Shared, TokenTable::Encoder] {
        let config = T5Config { token_table: table, ..config.clone() };
        let mut want: Vec<(String, String)> =
            expected_weights(&config).expect("it builds").into_iter().map(|(n, s)| (n, s.to_string())).collect();
        want.sort();
        let found =
            case.weights.iter().filter(|(n, _)| !ignored(&config, n)).map(|(n, t)| (n.clone(), t.ty.shape.to_string()));
        assert_eq!(want, found.collect::<Vec<_>>());
    }
    let has = |name: &str| case.weights.contains_key(name);
    assert_eq!(TokenTable::among(has), TokenTable::Shared);
    assert_eq!(TokenTable::among(|n| n != "shared.weight" && has(n)), TokenTable::Encoder);
    assert_eq!(TokenTable::among(|_| false), TokenTable::Shared);
    let weights = expected_weights(&T5Config::v1_1_xxl()).expect("it builds");
    let parameters: usize = weights.iter().map(|(_, shape)| shape.elements().get().expect("numbers")).sum();
    assert_eq!(parameters, 4_762_310_656); // T5 v1.1 XXL's encoder with its token table
}

#[test]
fn other_configurations_build() {
    let base = json!({"vocab_size": 9, "d_model": 20, "d_kv": 6, "d_ff": 14, "num_layers": 2, "num_heads": 3});
    let with = |edits: Value| {
        let mut config = base.clone();
        config.as_object_mut().expect("an object").extend(edits.as_object().expect("an object").clone());
        T5Config::from_json(&config)
    };
    let plain = with(json!({})).expect("sizes are enough");
    assert_eq!((plain.activation, plain.gated, plain.layer_norm_epsilon), (Activation::Relu, false, 1e-6));
    assert_eq!((plain.relative_attention_num_buckets, plain.relative_attention_max_distance), (32, 128));
    let names: Vec<String> = expected_weights(&plain).expect("it builds").into_iter().map(|(n, _)| n).collect();
    assert!(names.contains(&"encoder.block.1.layer.1.DenseReluDense.wi.weight".to_string()));
    for (name, activation, gated) in [
        ("gated-gelu", Activation::GeluTanh, true),
        ("gated-silu", Activation::Silu, true),
        ("gelu", Activation::Gelu, false),
        ("gelu_new", Activation::GeluTanh, false),
    ] {
        let config = with(json!({"feed_forward_proj": name})).expect("supported");
        assert_eq!((config.activation, config.gated), (activation, gated), "{name}");
        let module = forward_module(&config, (2, 40), true, |_| Some(DType::BF16)).expect("it builds");
        assert!(module.weights.iter().all(|w| w.ty.dtype == DType::BF16));
        assert_eq!(selvedge_ir::parse::parse(&module.to_string()).expect("it reads back"), module);
    }

    let error = |edits: Value| with(edits).expect_err("unsupported").to_string();
    for (edits, parts) in [
        (json!({"d_kv": null}), ["d_kv", "another kind"]),
        (json!({"feed_forward_proj": "gated-tanh"}), ["feed_forward_proj", "gated-tanh"]),
        (json!({"feed_forward_proj": "gated-gelu", "dense_act_fn": "relu"}), ["dense_act_fn", "gelu_new"]),
        (json!({"relative_attention_num_buckets": 2}), ["relative_attention_num_buckets", "4 or more"]),
        (json!({"relative_attention_max_distance": 8}), ["relative_attention_max_distance", "more than 8"]),
        (json!({"num_layers": 5000}), ["num_layers", "out of range"]),
    ] {
        let text = error(edits);
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    for size in ["vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"] {
        let mut config = base.clone();
        config.as_object_mut().expect("an object").remove(size);
        let text = T5Config::from_json(&config).expect_err("a size is missing").to_string();
        assert!(text.contains(size) && text.contains("missing") && text.contains("T5EncoderModel"), "{text}");
    }
}
