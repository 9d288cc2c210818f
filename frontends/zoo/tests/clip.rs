//! CLIP's text encoders against the reference implementation's recorded case, and their configurations' mistakes.

mod common;

use common::{Case, rel_l2};
use selvedge_ir::func::Target;
use selvedge_ir::{DType, Precision, Tensor};
use selvedge_model::nn::Activation;
use selvedge_zoo::clip::{ClipTextConfig, Pooling, expected_weights, forward_module};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

type Outputs = BTreeMap<String, Tensor>;

fn case() -> (Case, ClipTextConfig) {
    let case = Case::fixture("clip-text");
    let config = ClipTextConfig::from_json(&case.config).expect("the fixture's configuration is supported");
    (case, config)
}

fn run(case: &Case, config: &ClipTextConfig, ids: &Tensor, precision: Precision) -> Outputs {
    let (sizes, stored) = (ids.sizes(), case.dtypes());
    let module = forward_module(config, sizes[0], sizes[1], move |name| stored.get(name).copied()).expect("it builds");
    selvedge_ir::verify::verify(&module).expect("the verifier accepts what the model API builds");
    let interpreter = selvedge_ir::Interpreter::new(&module, &case.weights).precision(precision);
    let outputs = interpreter.call("forward", std::slice::from_ref(ids), &mut BTreeMap::new());
    let name = |target| match target {
        Target::Output(name) => name,
        Target::State(name) => panic!("the encoder has no state `{name}`"),
    };
    outputs.expect("the module evaluates").into_iter().map(|(target, value)| (name(target), value)).collect()
}

fn with(base: &Value, changes: &[(&str, Value)]) -> Value {
    let mut config = base.clone();
    for (field, value) in changes {
        config[*field] = value.clone();
    }
    config
}

#[test]
fn fixture_is_met() {
    let (case, config) = case();
    for precision in [Precision::F32, Precision::F64] {
        let got = run(&case, &config, &case.tensor("in.input_ids"), precision);
        for name in ["last_hidden_state", "penultimate", "text_embeds"] {
            let error = rel_l2(&got[name], &case.tensor(&format!("out.{name}")));
            println!("{name} {precision:?}: rel_l2 {error:.2e}");
            assert!(error <= 1e-5, "{name}: {error:.2e} in {precision:?}");
        }
    }
}

/// What a token becomes does not depend on the tokens after it, nor on the length.
#[test]
fn tokens_see_only_those_before_them() {
    let (case, config) = case();
    let ids = case.tensor("in.input_ids").to_f64();
    let text = |length: usize| Tensor::i32(&[1, length], ids[..length].iter().map(|&x| x as i32).collect());
    let long = run(&case, &config, &text(16), Precision::F64);
    let short = run(&case, &config, &text(5), Precision::F64);
    let n = 5 * config.hidden_size;
    assert_eq!(short["last_hidden_state"].to_f64(), long["last_hidden_state"].to_f64()[..n]);
    assert_eq!(short["penultimate"].sizes(), [1, 5, config.hidden_size]);
    let error = forward_module(&config, 1, 17, |_| None).expect_err("16 positions").to_string();
    assert!(error.contains("at most 16 tokens") && error.contains("17"), "{error}");
}

#[test]
fn the_end_of_text_is_pooled_by_the_configurations_age() {
    let (case, config) = case();
    let rows = [[98, 5, 99, 99, 7], [98, 5, 6, 7, 8], [98, 99, 97, 99, 2]];
    let ids = Tensor::i32(&[3, 5], rows.concat());
    let row = |outputs: &Outputs, text: usize, token: usize| {
        let start = (text * 5 + token) * config.hidden_size;
        outputs["last_hidden_state"].to_f64()[start..start + config.hidden_size].to_vec()
    };
    // New rule: the first token that is the configured end of text, else the first token. Old: the first of the highest id.
    for (eos, pooling, tokens) in [
        (99, Pooling::FirstOf(99), [2, 0, 1]),
        (2, Pooling::HighestId, [2, 0, 1]),
        (97, Pooling::FirstOf(97), [0, 0, 2]),
        (7, Pooling::FirstOf(7), [4, 3, 0]),
    ] {
        let config =
            ClipTextConfig::from_json(&with(&case.config, &[("eos_token_id", json!(eos))])).expect("supported");
        assert_eq!(config.pooling, pooling);
        let outputs = run(&case, &config, &ids, Precision::F64);
        for (text, token) in tokens.into_iter().enumerate() {
            let pooled = &outputs["pooler_output"].to_f64()[text * config.hidden_size..][..config.hidden_size];
            assert_eq!(pooled, row(&outputs, text, token), "end {eos}, text {text}");
        }
    }
    let old = ClipTextConfig::from_json(&with(&case.config, &[("eos_token_id", json!(2))])).expect("supported");
    let outputs = run(&case, &old, &Tensor::i32(&[1, 5], vec![4, 2, 9, 30, 1]), Precision::F64);
    assert_eq!(outputs["pooler_output"].to_f64(), row(&outputs, 0, 3));
}

#[test]
fn names_and_classes_of_several_versions() {
    let (mut case, config) = case();
    let ids = case.tensor("in.input_ids");
    let want = run(&case, &config, &ids, Precision::F32);
    let names = |config: &ClipTextConfig| {
        let mut names: Vec<String> = expected_weights(config).expect("it builds").into_iter().map(|w| w.0).collect();
        names.sort();
        names
    };
    assert_eq!(names(&config), case.weights.keys().cloned().collect::<Vec<_>>());

    // Without projection and class name, as text encoders of pipelines are saved; with the names of newer and older versions.
    let json = with(&case.config, &[("_class_name", json!(null)), ("architectures", json!(["CLIPTextModel"]))]);
    let mut json = json;
    json.as_object_mut().expect("an object").remove("_class_name");
    let plain = ClipTextConfig::from_json(&json).expect("supported");
    assert_eq!((plain.projection_dim, plain.nested_names), (None, true));
    case.weights.remove("text_projection.weight");
    for nested in [true, false] {
        if !nested {
            let bare = |(name, t): (&String, &Arc<Tensor>)| (name.replace("text_model.", ""), t.clone());
            case.weights = case.weights.iter().map(bare).collect();
        }
        let config = plain.clone().named_as_in(|name| case.weights.contains_key(name));
        assert_eq!(config.nested_names, nested);
        assert_eq!(names(&config), case.weights.keys().cloned().collect::<Vec<_>>());
        let got = run(&case, &config, &ids, Precision::F32);
        assert_eq!(got["pooler_output"], want["pooler_output"]);
        assert!(!got.contains_key("text_embeds"));
    }
    assert!(ClipTextConfig::ignores("text_model.embeddings.position_ids"));
}

#[test]
fn halves_are_widened() {
    let (mut case, config) = case();
    let ids = case.tensor("in.input_ids");
    let typed = |t: &Tensor, dtype: DType| {
        let rounded: Vec<f64> = t.to_f32().iter().map(|&x| f64::from(DType::F16.round(x))).collect();
        Arc::new(Tensor::from_f64(t.ty.with_dtype(dtype), &rounded, Precision::F32))
    };
    case.weights = case.weights.iter().map(|(n, t)| (n.clone(), typed(t, DType::F32))).collect();
    let wide = run(&case, &config, &ids, Precision::F64);
    case.weights = case.weights.iter().map(|(n, t)| (n.clone(), typed(t, DType::F16))).collect();
    assert_eq!(run(&case, &config, &ids, Precision::F64), wide);
}

#[test]
fn configuration_mistakes_name_field_and_class() {
    let (case, config) = case();
    assert_eq!((config.activation, config.projection_dim), (Activation::QuickGelu, Some(24)));
    let gelu = ClipTextConfig::from_json(&with(&case.config, &[("hidden_act", json!("gelu"))])).expect("supported");
    assert_eq!(gelu.activation, Activation::Gelu);
    let fails = |changes: &[(&str, Value)]| {
        ClipTextConfig::from_json(&with(&case.config, changes)).expect_err("a mistake").to_string()
    };
    for (field, value) in [
        ("hidden_act", json!("relu")),
        ("hidden_size", json!(0)),
        ("hidden_size", json!(30)),
        ("num_hidden_layers", json!("three")),
        ("eos_token_id", json!(-1)),
        ("layer_norm_eps", json!(null)),
    ] {
        if field == "layer_norm_eps" {
            let config = ClipTextConfig::from_json(&with(&case.config, &[(field, value)])).expect("it has a default");
            assert_eq!(config.norm_eps, 1e-5);
            continue;
        }
        let text = fails(&[(field, value)]);
        assert!(text.contains(field), "{text}");
    }
    let text = fails(&[("_class_name", json!("CLIPModel"))]);
    assert!(text.contains("CLIPTextModelWithProjection") && text.contains("`CLIPModel`"), "{text}");
    let mut missing = case.config.clone();
    missing.as_object_mut().expect("an object").remove("vocab_size");
    let text = ClipTextConfig::from_json(&missing).expect_err("a field is missing").to_string();
    assert!(text.contains("vocab_size") && text.contains("CLIPTextModelWithProjection"), "{text}");
}
