//! What is wrong with a model folder is said in full, and nothing panics.

use selvedge_import::cases;
use selvedge_import::files::open_checkpoint;
use selvedge_import::{Checkpoint, ProgramOptions, load};
use selvedge_zoo::program::Decoder;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// A copy of a fixture's files in a folder of its own.
fn copy(name: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture(name).join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn error(folder: &Path) -> String {
    load(folder.to_str().unwrap()).expect_err("the folder is broken").to_string()
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not said in: {text}");
    }
}

fn edit_config(folder: &Path, edit: impl Fn(&mut Value)) {
    let path = folder.join("config.json");
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    edit(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// Rewrites the header of a safetensors file; the data stays.
fn edit_header(path: &Path, edit: impl Fn(&mut serde_json::Map<String, Value>)) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    edit(header.as_object_mut().unwrap());
    let text = header.to_string();
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text.as_bytes());
    out.extend(&bytes[8 + length..]);
    fs::write(path, out).unwrap();
}

#[test]
fn folders_that_are_no_models() {
    let folder = TempDir::new().unwrap();
    assert_says(&error(folder.path()), &["config.json", "an empty folder"]);
    assert_says(&error(&folder.path().join("nowhere")), &["there is no model", "digits"]);
    fs::write(folder.path().join("config.json"), "{").unwrap();
    assert_says(&error(folder.path()), &["config.json", "not valid JSON", "line 1"]);
    fs::write(folder.path().join("config.json"), "[1]").unwrap();
    assert_says(&error(folder.path()), &["config.json", "object"]);
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    assert_says(&error(folder.path()), &["_class_name", "missing"]);
    fs::write(folder.path().join("config.json"), r#"{"_class_name": "UNet2DModel"}"#).unwrap();
    assert_says(&error(folder.path()), &["UNet2DModel", "DiT", "DiTTransformer2DModel"]);
    assert_says(&error(&folder.path().join("config.json")), &["is a file", "folder"]);
}

#[test]
fn configurations_that_are_wrong() {
    let folder = copy("dit-original");
    edit_config(folder.path(), |c| drop(c.as_object_mut().unwrap().remove("depth")));
    assert_says(&error(folder.path()), &["depth", "missing", "config.json"]);
    edit_config(folder.path(), |c| c["depth"] = json!("three"));
    assert_says(&error(folder.path()), &["depth", "three", "config.json"]);
    edit_config(folder.path(), |c| (c["depth"], c["num_heads"]) = (json!(3), json!(5)));
    assert_says(&error(folder.path()), &["hidden_size", "num_heads", "multiple of 5", "64"]);
    edit_config(folder.path(), |c| (c["num_heads"], c["sampling"]) = (json!(4), json!({"kind": "magic"})));
    assert_says(&error(folder.path()), &["sampling", "magic", "rectified-flow"]);
}

#[test]
fn weights_that_are_not_there() {
    let folder = copy("dit");
    let weights = folder.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::remove_file(&weights).unwrap();
    assert_says(&error(folder.path()), &["no weights", "config.json"]);
    fs::write(folder.path().join("a.safetensors"), &bytes).unwrap();
    fs::write(folder.path().join("b.safetensors"), &bytes).unwrap();
    assert_says(&error(folder.path()), &["several checkpoints", "a.safetensors", "b.safetensors"]);
    // Of variants the plain name is taken.
    fs::write(folder.path().join("diffusion_pytorch_model.safetensors"), &bytes).unwrap();
    load(folder.path().to_str().unwrap()).unwrap();
}

#[test]
fn files_that_are_damaged() {
    let folder = copy("dit");
    let weights = folder.path().join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    for (bytes, parts) in [
        (&b""[..], &["not a safetensors file", "too short"][..]),
        (b"hello", &["not a safetensors file"]),
        (b"PK\x03\x04 this is a zip file, not what was asked for", &["not a safetensors file", "announce"]),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all!", &["not a safetensors file", "JSON"]),
        (&whole[..100], &["truncated", "100 bytes in all"]),
        (&whole[..whole.len() - 1], &["truncated", &format!("{} bytes", whole.len())]),
    ] {
        fs::write(&weights, bytes).unwrap();
        assert_says(&error(folder.path()), parts);
    }
    let mut longer = whole.clone();
    longer.push(0);
    fs::write(&weights, &longer).unwrap();
    assert_says(&error(folder.path()), &["not as long as its header says"]);
}

#[test]
fn headers_that_lie() {
    for (edit, parts) in [
        (
            (|h| h["proj_out_1.bias"]["data_offsets"] = json!([4, 8])) as fn(&mut serde_json::Map<String, Value>),
            ["offsets", "header"],
        ),
        (|h| h["proj_out_1.bias"]["shape"] = json!([3, 5]), ["shape and number of bytes", "header"]),
        (|h| h["proj_out_1.bias"]["shape"] = json!([u64::MAX, u64::MAX]), ["larger than any memory", "header"]),
        (|h| h["proj_out_1.bias"]["dtype"] = json!("F7"), ["F7", "header"]),
    ] {
        let folder = copy("dit");
        edit_header(&folder.path().join("model.safetensors"), edit);
        assert_says(&error(folder.path()), &parts);
    }
}

#[test]
fn a_checkpoint_of_another_model_is_one_list() {
    let folder = copy("dit");
    edit_header(&folder.path().join("model.safetensors"), |h| {
        let moved = h.remove("proj_out_1.bias").unwrap();
        h.insert("proj_out_1.biases".into(), moved); // one missing, one extra
        h["proj_out_1.weight"]["shape"] = json!([64, 128]); // transposed
        h["proj_out_2.bias"]["dtype"] = json!("F8_E4M3");
        h["proj_out_2.bias"]["shape"] = json!([128]);
    });
    let text = error(folder.path());
    assert_says(
        &text,
        &[
            "tensor `proj_out_1.bias` is missing",
            "similar names that are there: `proj_out_1.biases`",
            "tensor `proj_out_1.biases` (F32[128])",
            "expected [128,64], found [64,128]",
            "unsupported dtype",
            "F8_E4M3",
            "expected [32], found [128]",
        ],
    );
    assert_eq!(text.lines().count(), 5, "{text}");
}

#[test]
fn a_checkpoint_of_the_other_layout_names_what_it_lacks() {
    let folder = copy("dit");
    fs::copy(fixture("dit-original").join("config.json"), folder.path().join("config.json")).unwrap();
    assert_says(
        &error(folder.path()),
        &["`blocks.0.attn.qkv.weight` is missing", "`proj_out_1.bias`", "not of this model"],
    );
}

/// Splits a checkpoint into two shards with an index.
fn shard(folder: &Path) -> PathBuf {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let names: Vec<&String> = header.keys().filter(|k| *k != "__metadata__").collect();
    let mut map = serde_json::Map::new();
    for (i, part) in names.chunks(names.len().div_ceil(2)).enumerate() {
        let file = format!("model-{:05}-of-00002.safetensors", i + 1);
        let (mut own, mut data) = (serde_json::Map::new(), Vec::new());
        for name in part {
            let mut entry = header[*name].clone();
            let at = |k: usize| entry["data_offsets"][k].as_u64().unwrap() as usize + 8 + length;
            let content = &bytes[at(0)..at(1)];
            entry["data_offsets"] = json!([data.len(), data.len() + content.len()]);
            data.extend(content);
            own.insert(name.to_string(), entry);
            map.insert(name.to_string(), json!(file));
        }
        let text = Value::Object(own).to_string();
        fs::write(folder.join(file), [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &data].concat()).unwrap();
    }
    let index = folder.join("model.safetensors.index.json");
    fs::write(&index, json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    index
}

#[test]
fn shards_are_one_checkpoint() {
    let folder = copy("dit");
    let whole = Checkpoint::open_file(&folder.path().join("model.safetensors")).unwrap();
    let index = shard(folder.path());
    let split = open_checkpoint(folder.path()).unwrap();
    assert!(whole.names().eq(split.names()));
    for name in whole.names() {
        assert_eq!(whole.tensor(name).unwrap(), split.tensor(name).unwrap());
        assert_eq!(whole.bytes(name).unwrap(), split.bytes(name).unwrap());
    }
    load(folder.path().to_str().unwrap()).unwrap();
    // A shard that is not there, a tensor in no shard, and a place outside the folder.
    fs::rename(folder.path().join("model-00002-of-00002.safetensors"), folder.path().join("elsewhere")).unwrap();
    assert_says(&error(folder.path()), &["model-00002-of-00002.safetensors", "cannot read"]);
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("model-00002-of", "model-00001-of")).unwrap();
    assert_says(&error(folder.path()), &["is not in the shard"]);
    fs::write(&index, text.replace("model-00002-of-00002", "../model")).unwrap();
    assert_says(&error(folder.path()), &["in no file of the folder", "../model"]);
    fs::write(&index, "{}").unwrap();
    assert_says(&error(folder.path()), &["weight_map"]);
}

#[test]
fn numbers_are_read_in_every_dtype() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.safetensors");
    let write = |dtype: &str, shape: Value, data: &[u8]| {
        let header = json!({"t": {"dtype": dtype, "shape": shape, "data_offsets": [0, data.len()]}}).to_string();
        fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()).unwrap();
        Checkpoint::open_file(&path).unwrap()
    };
    let values = |c: &Checkpoint| c.tensor("t").unwrap().to_f64();
    assert_eq!(values(&write("I64", json!([2]), &[-5i64, 7].map(i64::to_le_bytes).concat())), [-5.0, 7.0]);
    assert_eq!(values(&write("F64", json!([1]), &0.5f64.to_le_bytes())), [0.5]);
    assert_eq!(values(&write("F16", json!([1]), &[0x00, 0x3c])), [1.0]);
    assert_eq!(values(&write("BF16", json!([1]), &[0xc0, 0x3f])), [1.5]);
    assert_eq!(values(&write("I16", json!([1]), &(-3i16).to_le_bytes())), [-3.0]);
    assert_eq!(values(&write("U8", json!([2]), &[1, 255])), [1.0, 255.0]);
    assert_eq!(values(&write("I8", json!([1]), &[255])), [-1.0]);
    assert_eq!(values(&write("U32", json!([1]), &u32::MAX.to_le_bytes())), [u32::MAX as f64]);
    assert_eq!(values(&write("BOOL", json!([2]), &[0, 1])), [0.0, 1.0]);
    assert!(values(&write("F32", json!([0]), &[])).is_empty());
    let large = write("I64", json!([1]), &(1i64 << 31).to_le_bytes());
    assert_says(&large.tensor("t").unwrap_err().to_string(), &["does not fit 32 bits", "2147483648"]);
    assert!(large.bytes("t").is_err());
    assert!(write("F8_E4M3", json!([1]), &[0]).tensor("t").is_err());
    assert_says(&large.tensor("u").unwrap_err().to_string(), &["`u` is not in"]);
}

#[test]
fn pipelines_say_what_is_missing() {
    let folder = TempDir::new().unwrap();
    let index = |text: &str| fs::write(folder.path().join("model_index.json"), text).unwrap();
    index(r#"{"_class_name": "KolorsPipeline"}"#);
    assert_says(&error(folder.path()), &["KolorsPipeline", "DiTPipeline", "FluxPipeline"]);
    index(r#"{"_class_name": "DiTPipeline"}"#);
    assert_says(&error(folder.path()), &["does not name the component `transformer`"]);
    index(
        r#"{"_class_name": "DiTPipeline", "transformer": ["diffusers", "DiTTransformer2DModel"], "scheduler": ["diffusers", "PNDMScheduler"]}"#,
    );
    assert_says(&error(folder.path()), &["component folder", "transformer` is missing", "DiTTransformer2DModel"]);
    fs::create_dir(folder.path().join("transformer")).unwrap();
    for (from, to) in [("config.json", "config.json"), ("model.safetensors", "diffusion_pytorch_model.safetensors")] {
        fs::copy(fixture("dit").join(from), folder.path().join("transformer").join(to)).unwrap();
    }
    fs::create_dir(folder.path().join("scheduler")).unwrap();
    fs::write(folder.path().join("scheduler/scheduler_config.json"), "{}").unwrap();
    assert_says(&error(folder.path()), &["PNDMScheduler", "DDIMScheduler"]);
    let model = load(fixture("pipeline-dit").to_str().unwrap()).unwrap();
    let info = model.program(&ProgramOptions::default()).unwrap().info;
    assert_eq!((info.image_shape, info.pixel_range), (Some([3, 32, 32]), [0.0, 1.0]));
    assert_eq!(info.decoder, Decoder::Autoencoder);
    fs::write(
        folder.path().join("scheduler/scheduler_config.json"),
        fs::read(fixture("pipeline-dit").join("scheduler/scheduler_config.json")).unwrap(),
    )
    .unwrap();
    let vae = |named: &str| {
        index(&format!(
            r#"{{"_class_name": "DiTPipeline", "transformer": ["diffusers", "DiTTransformer2DModel"],
                "scheduler": ["diffusers", "DDIMScheduler"], "vae": {named}}}"#
        ));
    };
    vae("null");
    let info = load(folder.path().to_str().unwrap()).unwrap().program(&ProgramOptions::default()).unwrap().info;
    let Decoder::Missing(what) = info.decoder else { panic!("there is no decoder") };
    assert_says(&what, &["names no autoencoder", "4-channel"]);
    vae(r#"["diffusers", "AutoencoderTiny"]"#);
    assert_says(&error(folder.path()), &["AutoencoderTiny", "AutoencoderKL"]);
    vae(r#"["diffusers", "AutoencoderKL"]"#);
    assert_says(&error(folder.path()), &["component folder", "vae", "missing"]);
    fs::create_dir(folder.path().join("vae")).unwrap();
    fs::copy(fixture("vae").join("model.safetensors"), folder.path().join("vae/model.safetensors")).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(fixture("vae").join("config.json")).unwrap()).unwrap();
    let mut with = |field: &str, value: Value| {
        config[field] = value;
        fs::write(folder.path().join("vae/config.json"), config.to_string()).unwrap();
        load(folder.path().to_str().unwrap()).map_err(|e| e.to_string())
    };
    assert!(with("act_fn", json!("silu")).is_ok());
    assert_says(&with("norm_num_groups", json!(5)).unwrap_err(), &["groups", "multiple of 5", "vae/config.json"]);
    with("norm_num_groups", json!(8)).unwrap();
    assert_says(&with("latents_mean", json!([0.0])).unwrap_err(), &["latents_mean"]);
    with("latents_mean", Value::Null).unwrap();
    assert_says(&with("layers_per_block", json!(2)).unwrap_err(), &["resnets.1.conv1.weight", "missing"]);
}

#[test]
fn cases_that_cannot_be_run() {
    let folder = TempDir::new().unwrap();
    let says = |parts: &[&str]| assert_says(&cases::open(folder.path()).unwrap_err().to_string(), parts);
    says(&["io.safetensors"]);
    fs::copy(fixture("scheduler-ddim").join("io.safetensors"), folder.path().join("io.safetensors")).unwrap();
    says(&["no case that can be run", "case.json"]);
    fs::write(folder.path().join("case.json"), r#"{"scheduler": "LCMScheduler"}"#).unwrap();
    says(&["LCMScheduler"]);
    fs::write(
        folder.path().join("case.json"),
        r#"{"scheduler": "DDIMScheduler", "scheduler_config": {"thresholding": true}}"#,
    )
    .unwrap();
    says(&["thresholding"]);
    fs::write(folder.path().join("case.json"), r#"{"scheduler": "DDPMScheduler"}"#).unwrap();
    says(&["in.noise"]);
}

/// Cases of single networks: configuration, weights and recorded tensors have to belong together.
#[test]
fn networks_whose_parts_do_not_fit() {
    let broken = |name: &str, edit: &dyn Fn(&Path)| {
        let folder = copy(name);
        fs::copy(fixture(name).join("io.safetensors"), folder.path().join("io.safetensors")).unwrap();
        edit(folder.path());
        cases::open(folder.path()).expect_err("the case is broken").to_string()
    };
    let set = |field: &'static str, value: Value| {
        move |folder: &Path| edit_config(folder, |config| config[field] = value.clone())
    };
    let text = broken("sd3", &set("dual_attention_layers", json!([0, 1])));
    assert_says(&text, &["transformer_blocks.1.attn2.to_q.weight", "is missing"]);
    assert_says(&broken("sd3", &set("qk_norm", json!(null))), &["attn.norm_q.weight", "is not of this model"]);
    assert_says(&broken("sd3", &set("patch_size", json!(1))), &["pos_embed.proj.weight", "another shape"]);
    assert_says(&broken("flux", &set("axes_dims_rope", json!([24]))), &["axes_dims_rope", "three numbers"]);
    let text = broken("flux", &set("guidance_embeds", json!(false)));
    assert_says(&text, &["guidance_embedder.linear_1.weight", "is not of this model"]);
    let text = broken("clip-text", &set("_class_name", json!("CLIPTextModel")));
    assert_says(&text, &["text_projection.weight", "is not of this model"]);
    let text = broken("flux", &|folder| {
        let without = |header: &mut serde_json::Map<String, Value>| {
            let ids = header.remove("in.img_ids").unwrap();
            header.insert("in.other".into(), ids);
        };
        edit_header(&folder.join("io.safetensors"), without);
    });
    assert_says(&text, &["in.img_ids"]);
}
