//! DiT against the reference implementations' recorded cases, and its configurations' mistakes.

mod common;

use common::{Case, rel_l2};
use selvedge_ir::{DType, Precision, Tensor};
use selvedge_zoo::digits;
use selvedge_zoo::dit::{DitConfig, expected_weights, forward_module};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Runs the model of a case on inputs given by the reference's names, in a precision.
fn run(case: &Case, config: &DitConfig, inputs: [Tensor; 3], precision: Precision) -> Tensor {
    let sizes = inputs[0].sizes();
    let stored = case.dtypes();
    let module = forward_module(config, sizes[0], (sizes[2], sizes[3]), move |name| stored.get(name).copied());
    let module = module.expect("the case's configuration is supported");
    selvedge_ir::verify::verify(&module).expect("the verifier accepts what the model API builds");
    let interpreter = selvedge_ir::Interpreter::new(&module, &case.weights).precision(precision);
    let inputs = inputs.map(|t| t.in_precision(precision));
    let mut outputs = interpreter.call("forward", &inputs, &mut BTreeMap::new()).expect("the module evaluates");
    outputs.remove(0).1
}

fn check(case: &Case, inputs: [&str; 3], output: &str) {
    let config = DitConfig::from_json(&case.config).expect("the fixture's configuration is supported");
    let inputs = inputs.map(|name| case.tensor(&format!("in.{name}")));
    let inputs = [inputs[0].clone(), as_f32(&inputs[1]), inputs[2].clone()];
    let want = case.tensor(&format!("out.{output}"));
    for precision in [Precision::F32, Precision::F64] {
        let got = run(case, &config, inputs.clone(), precision);
        assert_eq!(got.sizes(), want.sizes());
        let error = rel_l2(&got, &want);
        println!("{}: {output} {precision:?} rel_l2 {error:.2e}", case.name);
        assert!(error <= 1e-5, "{}: {output} differs by {error:.2e} in {precision:?}", case.name);
    }
}

fn as_f32(t: &Tensor) -> Tensor {
    Tensor::f32(&t.sizes(), t.to_f32())
}

#[test]
fn diffusers_layout_meets_its_fixture() {
    check(&Case::fixture("dit"), ["hidden_states", "timestep", "class_labels"], "sample");
}

#[test]
fn original_layout_meets_its_fixtures() {
    for name in ["dit-original", "dit-original-nosigma"] {
        let case = Case::fixture(name);
        check(&case, ["x", "t", "y"], "out");
    }
}

#[test]
fn digits_meets_its_recorded_velocity() {
    let config: Value = serde_json::from_str(digits::CONFIG).expect("the asset is valid");
    let case = Case::new("digits", config, digits::MODEL, digits::RECORDED);
    let config = DitConfig::from_json(&case.config).expect("digits is supported");
    let want = case.tensor("out.velocity_at_first_step_without_guidance");
    let labels = case.tensor("in.class_labels");
    // One image is enough for the reference's speed; the trajectory is checked with the faster host kernels.
    let first = |t: &Tensor| {
        let sizes = t.sizes();
        let n = sizes[1..].iter().product::<usize>();
        let shape: Vec<usize> = std::iter::once(1).chain(sizes[1..].iter().copied()).collect();
        Tensor::f32(&shape, t.to_f32()[..n].to_vec())
    };
    let label = labels.to_f64()[0] as i32;
    let inputs = [first(&case.tensor("in.latents")), Tensor::f32(&[1], vec![1000.0]), Tensor::i32(&[1], vec![label])];
    let error = rel_l2(&run(&case, &config, inputs, Precision::F32), &first(&want));
    println!("digits: rel_l2 {error:.2e}");
    assert!(error <= 1e-5, "differs by {error:.2e}");
}

/// A checkpoint in f16 is computed as its values in f32 are; a sample does not depend on its batch.
#[test]
fn halves_and_batches_change_nothing() {
    for name in ["dit", "dit-original"] {
        let mut case = Case::fixture(name);
        let config = DitConfig::from_json(&case.config).expect("supported");
        let sizes = [3, config.in_channels, config.input_size, config.input_size];
        let noise = |n: usize| (0..n).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<f32>>();
        let one = sizes[1..].iter().product::<usize>();
        let inputs = |batch: std::ops::Range<usize>| {
            let shape = [batch.len(), sizes[1], sizes[2], sizes[3]];
            let t = batch.clone().map(|i| 311.0 * i as f32 + 0.5).collect();
            let y = batch.clone().map(|i| 4 * i as i32).collect();
            let x = noise(3 * one)[batch.start * one..batch.end * one].to_vec();
            [Tensor::f32(&shape, x), Tensor::f32(&[batch.len()], t), Tensor::i32(&[batch.len()], y)]
        };
        let typed = |t: &Tensor, dtype: DType| {
            let rounded: Vec<f64> = t.to_f32().iter().map(|&x| f64::from(DType::F16.round(x))).collect();
            std::sync::Arc::new(Tensor::from_f64(t.ty.with_dtype(dtype), &rounded, Precision::F32))
        };
        case.weights = case.weights.iter().map(|(n, t)| (n.clone(), typed(t, DType::F32))).collect();
        let wide = run(&case, &config, inputs(0..3), Precision::F64);
        case.weights = case.weights.iter().map(|(n, t)| (n.clone(), typed(t, DType::F16))).collect();
        let narrow = run(&case, &config, inputs(0..3), Precision::F64);
        assert_eq!(wide, narrow, "{name}");
        let last = run(&case, &config, inputs(2..3), Precision::F64);
        assert_eq!(narrow.to_f64()[2 * last.len()..], last.to_f64(), "{name}");
    }
}

#[test]
fn expected_weights_are_the_checkpoints() {
    for name in ["dit", "dit-original", "dit-original-nosigma", "dit-sampling"] {
        let case = Case::fixture(name);
        let config = DitConfig::from_json(&case.config).expect("supported");
        let mut want: Vec<(String, String)> =
            expected_weights(&config).expect("it builds").into_iter().map(|(n, s)| (n, s.to_string())).collect();
        want.sort();
        let found: Vec<(String, String)> =
            case.weights.iter().map(|(n, t)| (n.clone(), t.ty.shape.to_string())).collect();
        assert_eq!(want, found, "{name}");
    }
}

#[test]
fn presets_have_the_published_sizes() {
    let parameters = |name: &str| {
        let config = DitConfig::preset(name).expect("a preset");
        let weights = expected_weights(&config).expect("it builds");
        weights.iter().map(|(_, shape)| shape.elements().get().expect("numbers")).sum::<usize>() as f64 / 1e6
    };
    for name in DitConfig::PRESETS {
        assert!(DitConfig::preset(name).is_some(), "{name}");
    }
    assert!((parameters("dit-xl-2") - 675.13).abs() < 0.01); // the position table counted
    assert!(DitConfig::preset("dit-xl-3").is_none() && DitConfig::preset("dit").is_none());
}

#[test]
fn odd_sizes_build() {
    // Head size 72, an odd grid, a batch of 3, halves as stored, a non-square size where the table is computed.
    let original = json!({"_class_name": "DiT", "input_size": 9, "patch_size": 3, "in_channels": 1, "hidden_size": 216,
        "depth": 1, "num_heads": 3, "mlp_ratio": 2.5, "class_dropout_prob": 0.0, "num_classes": 4, "learn_sigma": false});
    let config = DitConfig::from_json(&original).expect("supported");
    assert_eq!((config.mlp_hidden_size, config.label_rows(), config.null_class()), (540, 4, None));
    let module = forward_module(&config, 3, (9, 9), |_| Some(DType::BF16)).expect("it builds");
    assert!(module.weights.iter().all(|w| w.ty.dtype == DType::BF16));
    assert_eq!(selvedge_ir::parse::parse(&module.to_string()).expect("it reads back"), module);
    let impossible = DitConfig { patch_size: 0, ..config.clone() };
    assert!(forward_module(&impossible, 1, (9, 9), |_| None).expect_err("no patch").to_string().contains("patch_size"));
    let error = forward_module(&config, 3, (9, 12), |_| None).expect_err("the table is for 9×9").to_string();
    assert!(error.contains("9×9") && error.contains("9×12"), "{error}");

    let diffusers = json!({"_class_name": "DiTTransformer2DModel", "sample_size": 6, "patch_size": 2, "in_channels": 3,
        "out_channels": null, "num_attention_heads": 2, "attention_head_dim": 6, "num_layers": 1, "num_embeds_ada_norm": 5,
        "attention_bias": false, "activation_fn": "gelu", "norm_elementwise_affine": true});
    let config = DitConfig::from_json(&diffusers).expect("supported");
    let module = forward_module(&config, 8, (6, 10), |_| Some(DType::F16)).expect("it builds");
    let forward = module.function("forward").expect("it has one function");
    assert_eq!(forward.ty(forward.outputs()[0].1).to_string(), "f32[8,3,6,10]");
    let names: Vec<&str> = module.weights.iter().map(|w| w.name.as_str()).collect();
    assert!(
        names.contains(&"transformer_blocks.0.norm3.weight")
            && !names.contains(&"transformer_blocks.0.attn1.to_q.bias")
    );
}

#[test]
fn configuration_mistakes_name_field_and_class() {
    let original = Case::fixture("dit-original").config;
    let diffusers = Case::fixture("dit").config;
    let text = |base: &Value, field: &str, value: Option<Value>| {
        let mut config = base.clone();
        let object = config.as_object_mut().expect("a configuration is an object");
        match value {
            Some(value) => object.insert(field.to_string(), value),
            None => object.remove(field),
        };
        DitConfig::from_json(&config).expect_err(field).to_string()
    };
    for field in [
        "input_size",
        "patch_size",
        "in_channels",
        "hidden_size",
        "depth",
        "num_heads",
        "mlp_ratio",
        "num_classes",
        "class_dropout_prob",
        "learn_sigma",
    ] {
        let text = text(&original, field, None);
        assert!(text.contains(field) && text.contains("DiT"), "{text}");
    }
    for field in [
        "num_attention_heads",
        "attention_head_dim",
        "in_channels",
        "num_layers",
        "sample_size",
        "patch_size",
        "num_embeds_ada_norm",
    ] {
        let text = text(&diffusers, field, None);
        assert!(text.contains(field) && text.contains("DiTTransformer2DModel"), "{text}");
    }
    let cases = [
        (&original, "num_heads", json!(5), "`hidden_size` is not divisible by `num_heads`"),
        (&original, "patch_size", json!(3), "`input_size` is not divisible by `patch_size`"),
        (&original, "depth", json!(-1), "`depth`"),
        (&original, "depth", json!("three"), "`depth`"),
        (&original, "hidden_size", json!(1u64 << 40), "`hidden_size`"),
        (&original, "mlp_ratio", json!(0.0), "`mlp_ratio`"),
        (&original, "_class_name", json!("UNet"), "`UNet`"),
        (&diffusers, "activation_fn", json!("geglu"), "`activation_fn`"),
        (&diffusers, "norm_type", json!("layer_norm"), "`norm_type`"),
        (&diffusers, "attention_head_dim", json!(0), "`attention_head_dim`"),
    ];
    for (base, field, value, part) in cases {
        let text = text(base, field, Some(value));
        assert!(text.contains(part), "{text}\nshould say {part}");
    }
    assert!(DitConfig::from_json(&json!([])).is_err());
}
