//! PixArt-Σ against the reference implementations' recorded cases, its layouts against each other, and its configurations'
//! mistakes.

mod common;

use common::{Case, rel_l2};
use selvedge_ir::func::Target;
use selvedge_ir::{DType, Interpreter, Precision, Tensor};
use selvedge_zoo::pixart::{
    CallSize, KvSampling, PixArtConfig, PixArtLayout, expected_weights, forward_module, ignored,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

type Inputs = BTreeMap<String, Tensor>;
type Weights = BTreeMap<String, Arc<Tensor>>;

const FIXTURES: [&str; 6] = [
    "pixart-sigma",
    "pixart-original-plain",
    "pixart-original-conv",
    "pixart-original-uniform",
    "pixart-original-uniform-every",
    "pixart-original-micro",
];

/// Outputs by name, for inputs by the reference's names.
fn run(case: &Case, config: &PixArtConfig, inputs: &Inputs, precision: Precision) -> Inputs {
    let names = config.io_names();
    let (x, y) = (inputs[names.latent].sizes(), inputs[names.caption].sizes());
    let size = CallSize {
        batch: x[0],
        latent: (x[2], x[3]),
        caption_tokens: y[y.len() - 2],
        masked: inputs.contains_key(names.caption_mask),
    };
    let stored = case.dtypes();
    let module = forward_module(config, size, move |name| stored.get(name).copied());
    let module = module.expect("the configuration is supported");
    selvedge_ir::verify::verify(&module).expect("the verifier accepts what the model API builds");
    let function = module.function("forward").expect("it has one");
    let args: Vec<Tensor> =
        function.params().into_iter().map(|(name, _)| inputs[name].clone().in_precision(precision)).collect();
    let named = |(target, tensor): (Target, Tensor)| match target {
        Target::Output(name) => (name, tensor),
        Target::State(name) => panic!("no state `{name}` is written"),
    };
    let interpreter = Interpreter::new(&module, &case.weights).precision(precision);
    interpreter
        .call("forward", &args, &mut BTreeMap::new())
        .expect("the module evaluates")
        .into_iter()
        .map(named)
        .collect()
}

/// The recorded inputs that the network takes.
fn recorded(case: &Case, config: &PixArtConfig) -> Inputs {
    let names = config.io_names();
    let mut inputs = Inputs::new();
    for name in [names.latent, names.timestep, names.caption, names.caption_mask] {
        let tensor = case.tensor(&format!("in.{name}"));
        let tensor = if name == names.timestep { Tensor::f32(&tensor.sizes(), tensor.to_f32()) } else { tensor };
        inputs.insert(name.to_string(), tensor);
    }
    for name in names.size.into_iter().filter(|_| config.micro_condition) {
        inputs.insert(name.to_string(), case.tensor(&format!("in.{name}")));
    }
    inputs
}

fn config_of(case: &Case) -> PixArtConfig {
    PixArtConfig::from_json(&case.config).expect("the fixture's configuration is supported")
}

/// A repeatable tensor without structure.
fn waves(shape: &[usize], phase: f32) -> Tensor {
    let n = shape.iter().product::<usize>();
    Tensor::f32(shape, (0..n).map(|i| (i as f32 * 0.731 + phase).sin()).collect())
}

#[test]
fn both_layouts_meet_their_fixtures() {
    for name in FIXTURES {
        let case = Case::fixture(name);
        let config = config_of(&case);
        let outputs: &[&str] = if name == "pixart-sigma" { &["sample"] } else { &["out", "eps"] };
        for precision in [Precision::F32, Precision::F64] {
            let got = run(&case, &config, &recorded(&case, &config), precision);
            assert_eq!(got.keys().map(String::as_str).collect::<Vec<_>>().len(), outputs.len());
            for output in outputs {
                let want = case.tensor(&format!("out.{output}"));
                assert_eq!(got[*output].sizes(), want.sizes());
                let error = rel_l2(&got[*output], &want);
                println!("{name}: {output} {precision:?} rel_l2 {error:.2e}");
                assert!(error <= 1e-5, "{name}: {output} differs by {error:.2e} in {precision:?}");
            }
        }
    }
}

/// Weights of the original layout under diffusers' names, as its conversion script has them.
fn converted(weights: &Weights) -> Weights {
    let mut all = Weights::new();
    for (name, tensor) in weights {
        let name = name
            .replace("x_embedder.proj", "pos_embed.proj")
            .replace("t_embedder.", "adaln_single.emb.timestep_embedder.")
            .replace("csize_embedder.", "adaln_single.emb.resolution_embedder.")
            .replace("ar_embedder.", "adaln_single.emb.aspect_ratio_embedder.")
            .replace("mlp.0.", "linear_1.")
            .replace("mlp.2.", "linear_2.")
            .replace("t_block.1", "adaln_single.linear")
            .replace("y_embedder.y_proj.fc", "caption_projection.linear_")
            .replace("final_layer.linear", "proj_out")
            .replace("final_layer.", "")
            .replace("blocks.", "transformer_blocks.")
            .replace("cross_attn.q_linear", "attn2.to_q")
            .replace("cross_attn.kv_linear", "attn2.k_v")
            .replace("cross_attn.proj", "attn2.to_out.0")
            .replace("attn.proj", "attn1.to_out.0")
            .replace("attn.qkv", "attn1.q_k_v")
            .replace("mlp.fc1", "ff.net.0.proj")
            .replace("mlp.fc2", "ff.net.2");
        let Some((place, kind)) = name.split_once("q_k_v").or_else(|| name.split_once("k_v")) else {
            all.insert(name, tensor.clone());
            continue;
        };
        let parts: &[&str] = if name.contains("q_k_v") { &["to_q", "to_k", "to_v"] } else { &["to_k", "to_v"] };
        let mut sizes = tensor.sizes();
        sizes[0] /= parts.len();
        for (part, values) in parts.iter().zip(tensor.to_f32().chunks_exact(sizes.iter().product())) {
            all.insert(format!("{place}{part}{kind}"), Arc::new(Tensor::f32(&sizes, values.to_vec())));
        }
    }
    all
}

/// One network in both layouts, with the size's embeddings, which no recorded case of diffusers has.
#[test]
fn layouts_agree() {
    let mut case = Case::fixture("pixart-original-micro");
    let config = config_of(&case);
    let inputs = recorded(&case, &config);
    let original = run(&case, &config, &inputs, Precision::F64);

    let json = json!({"_class_name": "PixArtTransformer2DModel", "num_attention_heads": 4, "attention_head_dim": 12,
        "in_channels": 4, "out_channels": 8, "num_layers": 2, "cross_attention_dim": 48, "sample_size": 16,
        "patch_size": 2, "caption_channels": 24, "use_additional_conditions": true});
    let other = PixArtConfig::from_json(&json).expect("supported");
    let (from, to) = (config.io_names(), other.io_names());
    let y = &inputs[from.caption];
    let mut theirs = Inputs::new();
    theirs.insert(to.latent.into(), inputs[from.latent].clone());
    theirs.insert(to.timestep.into(), inputs[from.timestep].clone());
    theirs.insert(to.caption.into(), Tensor::f32(&[y.sizes()[0], y.sizes()[2], y.sizes()[3]], y.to_f32()));
    theirs.insert(to.caption_mask.into(), inputs[from.caption_mask].clone());
    for (from, to) in from.size.iter().zip(to.size) {
        theirs.insert(to.into(), inputs[*from].clone());
    }
    case.weights = converted(&case.weights);
    let diffusers = run(&case, &other, &theirs, Precision::F64);
    let error = rel_l2(&diffusers[to.output], &original[from.output]);
    assert!(error <= 1e-13, "{error:.2e}");
}

/// Tokens behind the mask do not matter, nor does how many there are; a caption without text is all text to diffusers and
/// nothing to the original.
#[test]
fn masked_tokens_change_nothing() {
    for name in ["pixart-sigma", "pixart-original-plain"] {
        let case = Case::fixture(name);
        let config = config_of(&case);
        let (names, original) = (config.io_names(), name != "pixart-sigma");
        let mut inputs = recorded(&case, &config);
        let caption = |text: &Tensor, length: usize| {
            let (have, channels) = (text.sizes()[1].min(length), config.caption_channels);
            let filler = waves(&[length, channels], 9.0).to_f32();
            let text = text.to_f32();
            let values = [&text[..have * channels], &filler[have * channels..]].concat();
            let shape = if original { vec![1, 1, length, channels] } else { vec![1, length, channels] };
            Tensor::f32(&shape, values)
        };
        let text = waves(&[1, 5, config.caption_channels], 1.0);
        inputs.insert(names.latent.into(), waves(&[1, config.in_channels, 6, 10], 2.0));
        inputs.insert(names.timestep.into(), Tensor::f32(&[1], vec![412.0]));
        inputs.remove(names.caption_mask);
        inputs.insert(names.caption.into(), caption(&text, 5));
        let alone = run(&case, &config, &inputs, Precision::F64);
        for length in [5, 6, 23] {
            inputs.insert(names.caption.into(), caption(&text, length));
            let mask = (0..length).map(|i| i32::from(i < 5)).collect();
            inputs.insert(names.caption_mask.into(), Tensor::i32(&[1, length], mask));
            let padded = run(&case, &config, &inputs, Precision::F64);
            assert!(rel_l2(&padded[names.output], &alone[names.output]) <= 1e-14, "{name}: {length} tokens");
        }
        inputs.insert(names.caption.into(), caption(&text, 5));
        inputs.insert(names.caption_mask.into(), Tensor::i32(&[1, 5], vec![0; 5]));
        let nothing = run(&case, &config, &inputs, Precision::F64);
        let error = rel_l2(&nothing[names.output], &alone[names.output]);
        assert_eq!(error <= 1e-10, !original, "{name}: {error:.2e}");
    }
}

/// `ave` picks the same tokens as `uniform` where both are defined, and leaves out the remainder of a grid, as `conv` does.
#[test]
fn compressions_on_other_grids() {
    let case = Case::fixture("pixart-original-uniform");
    let sampled = |sampling: KvSampling, factor: usize| {
        let mut config = config_of(&case);
        let PixArtLayout::Original { kv_compression: Some(c), .. } = &mut config.layout else {
            panic!("it compresses")
        };
        (c.sampling, c.factor) = (sampling, factor);
        config
    };
    let base = config_of(&case);
    let inputs = recorded(&case, &base);
    let uniform = run(&case, &base, &inputs, Precision::F64);
    let nearest = run(&case, &sampled(KvSampling::Nearest, 2), &inputs, Precision::F64);
    assert_eq!(uniform["out"], nearest["out"]);

    let size = |latent| CallSize { batch: 1, latent, caption_tokens: 3, masked: true };
    let builds = |sampling, factor, latent| forward_module(&sampled(sampling, factor), size(latent), |_| None);
    for sampling in [KvSampling::Conv, KvSampling::Nearest] {
        let module = builds(sampling, 3, (16, 22)).expect("8×11 tokens become 2×3").to_string();
        assert!(module.contains("[1,4,6,12]"), "six keys for each of 4 heads of 12: {module}");
    }
    for (sampling, factor, latent, part) in [
        (KvSampling::Conv, 3, (4, 22), "at least 3×3"),
        (KvSampling::Uniform, 2, (16, 22), "multiples of 2"),
        (KvSampling::UniformEvery, 3, (16, 22), "a multiple of 3"),
    ] {
        let error = builds(sampling, factor, latent).expect_err("it does not fit").to_string();
        assert!(error.contains(part) && error.contains("×11"), "{error}");
    }
}

/// A checkpoint in halves is computed as its values in f32 are; a sample does not depend on its batch.
#[test]
fn halves_and_batches_change_nothing() {
    for (name, half) in [("pixart-sigma", DType::F16), ("pixart-original-conv", DType::BF16)] {
        let mut case = Case::fixture(name);
        let config = config_of(&case);
        let names = config.io_names();
        let typed = |weights: &Weights, dtype: DType| -> Weights {
            let convert = |t: &Tensor| {
                let rounded: Vec<f64> = t.to_f32().iter().map(|&x| f64::from(half.round(x))).collect();
                Arc::new(Tensor::from_f64(t.ty.with_dtype(dtype), &rounded, Precision::F32))
            };
            weights.iter().map(|(n, t)| (n.clone(), convert(t))).collect()
        };
        let inputs = recorded(&case, &config);
        case.weights = typed(&case.weights, DType::F32);
        let wide = run(&case, &config, &inputs, Precision::F64);
        case.weights = typed(&case.weights, half);
        let narrow = run(&case, &config, &inputs, Precision::F64);
        assert_eq!(wide, narrow, "{name}");
        let last = |t: &Tensor| {
            let sizes = t.sizes();
            let one = t.len() / sizes[0];
            let shape: Vec<usize> = std::iter::once(1).chain(sizes[1..].iter().copied()).collect();
            let from = t.len() - one;
            match t.ty.dtype {
                DType::I32 => Tensor::i32(&shape, t.to_f64()[from..].iter().map(|&x| x as i32).collect()),
                _ => Tensor::f32(&shape, t.to_f32()[from..].to_vec()),
            }
        };
        let single = inputs.iter().map(|(n, t)| (n.clone(), last(t))).collect();
        let single = run(&case, &config, &single, Precision::F64)[names.output].to_f64();
        let all = narrow[names.output].to_f64();
        assert_eq!(all[all.len() - single.len()..], single, "{name}");
    }
}

#[test]
fn expected_weights_are_the_checkpoints() {
    for name in FIXTURES {
        let case = Case::fixture(name);
        let config = config_of(&case);
        let mut want: Vec<(String, String)> =
            expected_weights(&config).expect("it builds").into_iter().map(|(n, s)| (n, s.to_string())).collect();
        want.sort();
        let read = case.weights.iter().filter(|(n, _)| !ignored(&config, n));
        assert_eq!(want, read.map(|(n, t)| (n.clone(), t.ty.shape.to_string())).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn presets_have_the_published_size() {
    for name in PixArtConfig::PRESETS {
        let config = PixArtConfig::preset(name).expect("a preset");
        let weights = expected_weights(&config).expect("it builds");
        let parameters: usize = weights.iter().map(|(_, shape)| shape.elements().get().expect("numbers")).sum();
        assert_eq!(parameters / 1_000_000, 610, "{name}"); // 0.6 billion
    }
    assert!(PixArtConfig::preset("pixart-sigma").is_none() && PixArtConfig::preset("pixart-sigma-300").is_none());
}

fn edited(base: &Value, edits: Value) -> Result<PixArtConfig, selvedge_ir::Diagnostic> {
    let mut config = base.clone();
    config.as_object_mut().expect("an object").extend(edits.as_object().expect("an object").clone());
    PixArtConfig::from_json(&config)
}

#[test]
fn fields_of_diffusers_are_read_as_there() {
    let base = json!({"_class_name": "PixArtTransformer2DModel", "num_attention_heads": 3, "attention_head_dim": 20,
        "in_channels": 3, "num_layers": 1, "cross_attention_dim": 60, "sample_size": 6, "patch_size": 2,
        "caption_channels": 7});
    let config = edited(&base, json!({})).expect("supported");
    assert_eq!((config.out_channels, config.position_scale, config.micro_condition), (8, 1.0, false));
    let config = edited(&base, json!({"out_channels": null, "sample_size": 128, "norm_elementwise_affine": true}));
    let config = config.expect("supported");
    assert_eq!((config.out_channels, config.position_scale, config.micro_condition), (3, 2.0, true));
    let names: Vec<String> = expected_weights(&config).expect("it builds").into_iter().map(|(n, _)| n).collect();
    assert!(names.contains(&"transformer_blocks.0.norm2.bias".to_string()));
    assert!(names.contains(&"adaln_single.emb.aspect_ratio_embedder.linear_2.bias".to_string()));
    // Without a projection the text has the attention's own number of features.
    let raw = edited(&base, json!({"caption_channels": null, "cross_attention_dim": 11, "attention_bias": false}));
    let raw = raw.expect("supported");
    let weights = expected_weights(&raw).expect("it builds");
    let k = weights.iter().find(|(n, _)| n == "transformer_blocks.0.attn2.to_k.weight").expect("it is read");
    assert_eq!(k.1.to_string(), "[60,11]");
    assert!(weights.iter().all(|(n, _)| !n.contains("to_k.bias") && !n.contains("caption_projection")));

    for (edits, parts) in [
        (json!({"_class_name": "PixArt"}), ["PixArtMS", "`PixArt`"]),
        (json!({"norm_type": "ada_norm_zero"}), ["norm_type", "ada_norm_single"]),
        (json!({"attention_type": "gated"}), ["attention_type", "default"]),
        (json!({"activation_fn": "geglu"}), ["activation_fn", "geglu"]),
        (json!({"cross_attention_dim": null}), ["cross_attention_dim", "null"]),
        (json!({"cross_attention_dim": 64}), ["cross_attention_dim", "60"]),
        (json!({"interpolation_scale": 0}), ["interpolation scale", "positive"]),
        (json!({"attention_head_dim": 6, "cross_attention_dim": 18}), ["position table", "18"]),
        (json!({"attention_head_dim": "x"}), ["attention_head_dim", "another kind"]),
        (json!({"patch_size": 7}), ["sample_size", "at least 7"]),
    ] {
        let text = edited(&base, edits).expect_err("unsupported").to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn fields_of_the_original_are_read_as_there() {
    let base = Case::fixture("pixart-original-conv").config;
    let keys = |edits| edited(&base, json!({"kv_compress_config": edits}));
    let none = keys(json!({"sampling": null, "scale_factor": 1, "kv_compress_layer": []})).expect("no compression");
    assert_eq!(none.kv_compression(), None);
    let some = keys(json!({"sampling": "ave", "scale_factor": 2.9, "kv_compress_layer": [1, 70]})).expect("supported");
    let some = some.kv_compression().expect("it compresses");
    assert_eq!((some.sampling, some.factor, &some.layers[..]), (KvSampling::Nearest, 2, &[1, 70][..]));
    let sizes = ["input_size", "patch_size", "in_channels", "hidden_size", "depth", "num_heads", "caption_channels"];
    for size in sizes {
        let mut config = base.clone();
        config.as_object_mut().expect("an object").remove(size);
        let text = PixArtConfig::from_json(&config).expect_err("a size is missing").to_string();
        assert!(text.contains(size) && text.contains("missing") && text.contains("PixArtMS"), "{text}");
    }
    for (edits, parts) in [
        (
            json!({"kv_compress_config": {"sampling": "max", "scale_factor": 2, "kv_compress_layer": [0]}}),
            ["sampling", "max"],
        ),
        (json!({"kv_compress_config": {"sampling": "conv", "kv_compress_layer": [0]}}), ["scale_factor", "missing"]),
        (json!({"kv_compress_config": 3}), ["kv_compress_config", "an object"]),
        (json!({"hidden_size": 44, "micro_condition": true}), ["hidden_size", "3, the parts"]),
        (json!({"num_heads": 5}), ["num_heads", "48"]),
        (json!({"mlp_ratio": 0}), ["mlp_ratio", "positive"]),
    ] {
        let text = edited(&base, edits).expect_err("unsupported").to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}
