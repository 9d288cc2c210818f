//! SD3 and FLUX against the reference implementation's recorded cases, and their configurations' mistakes.

mod common;

use common::{Case, rel_l2};
use selvedge_ir::{DType, Diagnostics, Module, Precision, Shape, Tensor};
use selvedge_model::ModuleBuilder;
use selvedge_zoo::flux::{self, FluxConfig, Rotary};
use selvedge_zoo::sd3::{self, Sd3Config};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

type Weights = BTreeMap<String, Arc<Tensor>>;

/// Runs `forward` with inputs by name, in a precision.
fn run(module: &Module, weights: &Weights, input: impl Fn(&str) -> Tensor, precision: Precision) -> Tensor {
    selvedge_ir::verify::verify(module).expect("the verifier accepts what the model API builds");
    let forward = module.function("forward").expect("it has one function");
    let inputs: Vec<Tensor> = forward.params().iter().map(|(name, _)| input(name).in_precision(precision)).collect();
    let interpreter = selvedge_ir::Interpreter::new(module, weights).precision(precision);
    interpreter.call("forward", &inputs, &mut BTreeMap::new()).expect("the module evaluates").remove(0).1
}

fn sd3_module(case: &Case, config: &Sd3Config, batch: usize, size: (usize, usize), text: usize) -> Module {
    let stored = case.dtypes();
    sd3::forward_module(config, batch, size, text, move |name| stored.get(name).copied()).expect("it builds")
}

fn flux_module(case: &Case, config: &FluxConfig, batch: usize, image: usize, text: usize) -> Module {
    let stored = case.dtypes();
    flux::forward_module(config, batch, image, text, move |name| stored.get(name).copied()).expect("it builds")
}

fn sd3_case() -> (Case, Sd3Config) {
    let case = Case::fixture("sd3");
    let config = Sd3Config::from_json(&case.config).expect("the fixture's configuration is supported");
    (case, config)
}

fn flux_case() -> (Case, FluxConfig) {
    let case = Case::fixture("flux");
    let config = FluxConfig::from_json(&case.config).expect("the fixture's configuration is supported");
    (case, config)
}

fn as_f32(t: &Tensor) -> Tensor {
    Tensor::f32(&t.sizes(), t.to_f32())
}

/// Values of no pattern, the same in each run.
fn wave(shape: &[usize], pace: f32) -> Tensor {
    let n = shape.iter().product::<usize>();
    Tensor::f32(shape, (0..n).map(|i| (i as f32 * pace).sin()).collect())
}

/// Inputs for a module without recorded ones: waves, times within the range.
fn made_up(module: &Module) -> impl Fn(&str) -> Tensor {
    let forward = module.function("forward").expect("it has one function");
    let shapes: BTreeMap<String, Vec<usize>> = forward
        .params()
        .iter()
        .map(|(name, id)| (name.to_string(), forward.ty(*id).shape.get().expect("numbers")))
        .collect();
    move |name| wave(&shapes[name], 0.37 + name.len() as f32 / 100.0)
}

#[test]
fn fixtures_are_met() {
    let (case, config) = sd3_case();
    let module = sd3_module(&case, &config, 2, (8, 8), 5);
    let (flux_case, flux_config) = flux_case();
    let flux_module = flux_module(&flux_case, &flux_config, 2, 16, 6);
    for (case, module) in [(&case, &module), (&flux_case, &flux_module)] {
        let want = case.tensor("out.sample");
        // The reference rounds the angles of times and guidance (to 1000·guidance radians) to f32; in f64 they are others.
        for (precision, most) in [(Precision::F32, 1e-5), (Precision::F64, 1e-4)] {
            let got = run(module, &case.weights, |name| as_f32(&case.tensor(&format!("in.{name}"))), precision);
            assert_eq!(got.sizes(), want.sizes());
            let error = rel_l2(&got, &want);
            println!("{}: {precision:?} rel_l2 {error:.2e}", case.name);
            assert!(error <= most, "{}: {error:.2e} in {precision:?}", case.name);
        }
    }
}

#[test]
fn expected_weights_are_the_checkpoints() {
    let names = |weights: Vec<(String, Shape)>| {
        let mut names: Vec<(String, String)> = weights.into_iter().map(|(n, s)| (n, s.to_string())).collect();
        names.sort();
        names
    };
    let found = |case: &Case| -> Vec<(String, String)> {
        case.weights.iter().map(|(n, t)| (n.clone(), t.ty.shape.to_string())).collect()
    };
    let (case, config) = sd3_case();
    assert_eq!(names(sd3::expected_weights(&config).expect("it builds")), found(&case));
    let (case, config) = flux_case();
    assert_eq!(names(flux::expected_weights(&config).expect("it builds")), found(&case));
}

/// The position table is cut in its middle, rounded up and to the left: a table that is that part gives the same picture.
#[test]
fn positions_are_cut_from_the_middle() {
    let (case, config) = sd3_case();
    let most = config.pos_embed_max_size; // 12
    // Grid in patches; side of the smaller table, and where in the larger one it begins. 5 of 12 begin at (12 − 5) / 2 = 3;
    // of 4×6, the rows 4 to 7 and the columns 3 to 8 are taken.
    for (grid, side, begin) in [((5, 5), 5, 3), ((4, 6), 6, 3), ((6, 4), 6, 3), ((12, 12), 12, 0)] {
        let size = (grid.0 * config.patch_size, grid.1 * config.patch_size);
        let module = sd3_module(&case, &config, 1, size, 3);
        let whole = run(&module, &case.weights, made_up(&module), Precision::F64);
        assert_eq!(whole.sizes(), [1, config.out_channels, size.0, size.1]);

        let table = case.weights["pos_embed.pos_embed"].to_f32();
        let hidden = config.hidden_size;
        let row = |y: usize| table[(y * most + begin) * hidden..(y * most + begin + side) * hidden].to_vec();
        let part: Vec<f32> = (begin..begin + side).flat_map(row).collect();
        let mut weights = case.weights.clone();
        weights.insert("pos_embed.pos_embed".into(), Arc::new(Tensor::f32(&[1, side * side, hidden], part)));
        let smaller = Sd3Config { pos_embed_max_size: side, ..config.clone() };
        let module = sd3_module(&case, &smaller, 1, size, 3);
        assert_eq!(run(&module, &weights, made_up(&module), Precision::F64), whole, "{grid:?}");
    }
    let error = sd3::forward_module(&config, 1, (26, 8), 3, |_| None).expect_err("13 rows of patches").to_string();
    assert!(error.contains("at most 24×24") && error.contains("26×8"), "{error}");
    assert!(sd3::forward_module(&config, 1, (9, 8), 3, |_| None).is_err());
}

/// The pipelines' table is that of their ids, but for the rounding of angles.
#[test]
fn rotations_of_a_grid_are_those_of_its_ids() {
    let (_, config) = flux_case();
    let (text, (height, width)) = (5, (3, 4));
    let mut module = ModuleBuilder::new("rotary");
    let mut ids = vec![0.0; 3 * text];
    for y in 0..height {
        ids.extend((0..width).flat_map(|x| [0.0, y as f32, x as f32]));
    }
    module.function("forward", |g| {
        let ids = g.input("ids", DType::F32, [text + height * width, 3]);
        let (a, b) = (Rotary::of_ids(&config, &ids), Rotary::of_grid(g, &config, text, (height, width)));
        g.output("difference", &selvedge_model::stack(&[&(a.cos - b.cos), &(a.sin - b.sin)], 0));
    });
    let module = module.build().expect("it builds");
    let ids = Tensor::f32(&[text + height * width, 3], ids);
    let difference = run(&module, &Weights::new(), |_| ids.clone(), Precision::F32);
    assert_eq!(difference.sizes(), [2, text + height * width, 24]);
    assert!(difference.to_f32().iter().all(|d| d.abs() < 1e-6), "{difference:?}");
}

/// A checkpoint in bf16 is computed as its values in f32 are; a sample does not depend on its batch.
#[test]
fn halves_and_batches_change_nothing() {
    fn check(case: &mut Case, build: &dyn Fn(&Case, usize) -> Module) {
        let typed = |t: &Tensor, dtype: DType| {
            let rounded: Vec<f64> = t.to_f32().iter().map(|&x| f64::from(DType::BF16.round(x))).collect();
            Arc::new(Tensor::from_f64(t.ty.with_dtype(dtype), &rounded, Precision::F32))
        };
        let as_dtype = |weights: &Weights, dtype| weights.iter().map(|(n, t)| (n.clone(), typed(t, dtype))).collect();
        let last = |t: Tensor| {
            let one = t.len() / t.sizes()[0];
            t.to_f64()[t.len() - one..].to_vec()
        };
        case.weights = as_dtype(&case.weights, DType::F32);
        let module = build(case, 2);
        let wide = run(&module, &case.weights, made_up(&module), Precision::F64);
        case.weights = as_dtype(&case.weights, DType::BF16);
        let module = build(case, 2);
        let inputs = made_up(&module);
        let narrow = run(&module, &case.weights, &inputs, Precision::F64);
        assert_eq!(wide, narrow, "{}", case.name);
        // Ids are of all samples; the other inputs' first axis is the batch.
        let second = |name: &str| {
            let t = inputs(name);
            if name.ends_with("ids") {
                return t;
            }
            let mut sizes = t.sizes();
            sizes[0] = 1;
            Tensor::f32(&sizes, t.to_f32()[t.len() / 2..].to_vec())
        };
        let single = run(&build(case, 1), &case.weights, second, Precision::F64);
        assert_eq!(last(narrow), single.to_f64(), "{}", case.name);
    }
    let (mut case, config) = sd3_case();
    check(&mut case, &|case, batch| sd3_module(case, &config, batch, (6, 4), 3));
    let (mut case, config) = flux_case();
    check(&mut case, &|case, batch| flux_module(case, &config, batch, 7, 3));
}

#[test]
fn other_configurations_build() {
    let types = |module: &Module| {
        let forward = module.function("forward").expect("it has one function");
        forward.ty(forward.outputs()[0].1).to_string()
    };
    // SD3: no norms of queries and keys, no second attention, more output channels, one block, halves as stored.
    let base = json!({"_class_name": "SD3Transformer2DModel", "sample_size": 32, "patch_size": 1, "in_channels": 3,
        "out_channels": 5, "num_layers": 1, "attention_head_dim": 6, "num_attention_heads": 3, "joint_attention_dim": 7,
        "caption_projection_dim": 18, "pooled_projection_dim": 9, "pos_embed_max_size": 9, "qk_norm": null});
    let config = Sd3Config::from_json(&base).expect("supported");
    let module = sd3::forward_module(&config, 3, (7, 9), 11, |_| Some(DType::F16)).expect("it builds");
    assert_eq!(types(&module), "f32[3,5,7,9]");
    assert!(module.weights.iter().all(|w| w.ty.dtype == DType::F16));
    assert!(!module.weights.iter().any(|w| ["norm_q", "to_add_out", "ff_context"].iter().any(|p| w.name.contains(p))));
    assert_eq!(selvedge_ir::parse::parse(&module.to_string()).expect("it reads back"), module);

    // FLUX: no guidance, blocks of one kind only, an axis of no features.
    let base = json!({"_class_name": "FluxTransformer2DModel", "in_channels": 12, "num_layers": 0, "num_single_layers": 1,
        "attention_head_dim": 10, "num_attention_heads": 3, "joint_attention_dim": 7, "pooled_projection_dim": 9,
        "axes_dims_rope": [2, 4, 4]});
    let config = FluxConfig::from_json(&base).expect("supported");
    let module = flux::forward_module(&config, 2, 15, 1, |_| None).expect("it builds");
    assert_eq!(types(&module), "f32[2,15,12]");
    assert!(!module.weights.iter().any(|w| w.name.contains("guidance")));
    let forward = module.function("forward").expect("it has one function");
    assert!(!forward.params().iter().any(|(name, _)| *name == "guidance"));
    let double = FluxConfig { num_layers: 1, num_single_layers: 0, ..config };
    assert!(flux::forward_module(&double, 1, 4, 2, |_| None).is_ok());
}

#[test]
fn presets_have_the_published_sizes() {
    // The position table is no parameter.
    let count = |weights: Result<Vec<(String, Shape)>, Diagnostics>| {
        let weights = weights.expect("it builds");
        let parameters = weights.iter().filter(|(name, _)| name != "pos_embed.pos_embed");
        parameters.map(|(_, shape)| shape.elements().get().expect("numbers")).sum::<usize>()
    };
    let sd3 = |name: &str| count(sd3::expected_weights(&Sd3Config::preset(name).expect("a preset")));
    let flux = |name: &str| count(flux::expected_weights(&FluxConfig::preset(name).expect("a preset")));
    assert_eq!(Sd3Config::PRESETS.map(sd3), [2_028_328_000, 2_243_171_520, 8_056_627_520]);
    assert_eq!(FluxConfig::PRESETS.map(flux), [11_901_408_320, 11_891_178_560]);
    assert!(Sd3Config::preset("sd3").is_none() && FluxConfig::preset("flux").is_none());
}

#[test]
fn configuration_mistakes_name_field_and_class() {
    fn with(base: &Value, field: &str, value: Option<Value>) -> Value {
        let mut config = base.clone();
        let object = config.as_object_mut().expect("a configuration is an object");
        match value {
            Some(value) => object.insert(field.to_string(), value),
            None => object.remove(field),
        };
        config
    }
    let sd3 = |config: &Value| Sd3Config::from_json(config).expect_err("a mistake").to_string();
    let flux = |config: &Value| FluxConfig::from_json(config).expect_err("a mistake").to_string();
    let (sd3_base, flux_base) = (Case::fixture("sd3").config, Case::fixture("flux").config);
    let shared = [
        "in_channels",
        "num_layers",
        "attention_head_dim",
        "num_attention_heads",
        "joint_attention_dim",
        "pooled_projection_dim",
    ];
    for field in shared.iter().chain(&["sample_size", "patch_size", "caption_projection_dim", "pos_embed_max_size"]) {
        let text = sd3(&with(&sd3_base, field, None));
        assert!(text.contains(field) && text.contains("SD3Transformer2DModel"), "{text}");
    }
    for field in shared.iter().chain(&["num_single_layers"]) {
        let text = flux(&with(&flux_base, field, None));
        assert!(text.contains(field) && text.contains("FluxTransformer2DModel"), "{text}");
    }
    for (field, value) in [
        ("qk_norm", json!("layer_norm")),
        ("dual_attention_layers", json!([3])),
        ("dual_attention_layers", json!(0)),
        ("caption_projection_dim", json!(32)),
        ("pos_embed_max_size", json!(null)),
        ("num_layers", json!(0)),
        ("_class_name", json!("UNet")),
    ] {
        let text = sd3(&with(&sd3_base, field, Some(value.clone())));
        assert!(text.contains(field) || text.contains("UNet"), "{field} {value}: {text}");
    }
    for (field, value) in [
        ("axes_dims_rope", json!([4, 10])),
        ("axes_dims_rope", json!([5, 9, 10])),
        ("axes_dims_rope", json!([4, 10, 12])),
        ("guidance_embeds", json!("yes")),
        ("num_layers", json!(-1)),
        ("_class_name", json!("UNet")),
    ] {
        let text = flux(&with(&flux_base, field, Some(value.clone())));
        assert!(text.contains(field) || text.contains("UNet"), "{field} {value}: {text}");
    }
    assert!(sd3::forward_module(&Sd3Config { num_heads: 0, ..sd3_case().1 }, 1, (8, 8), 2, |_| None).is_err());
}
