//! Tokenizers against what transformers gives for the same files (`cases.json` names the versions).

use selvedge_import::tokenizer::{Spiece, TextTokenizer, TokenizerKind};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers").join(name)
}

fn check(name: &str, tokenizer: &TextTokenizer) {
    let text = fs::read_to_string(folder(name).join("cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let cases = cases["cases"].as_array().unwrap();
    assert!(cases.len() > 20);
    for case in cases {
        let (text, length) = (case["text"].as_str().unwrap(), case["length"].as_u64().unwrap() as usize);
        let got = tokenizer.encode(text, length).unwrap();
        let list = |name: &str| serde_json::from_value::<Vec<i32>>(case[name].clone()).unwrap();
        assert_eq!(got.ids, list("ids"), "{name}: {text:?} as {length} tokens");
        assert_eq!(got.mask, list("attention_mask"), "{name}: {text:?} as {length} tokens");
        assert_eq!(got.lost.as_deref().map(str::trim), case["lost"].as_str().map(str::trim), "{name}: {text:?}");
    }
}

#[test]
fn tokens_are_those_of_the_reference() {
    for (name, kind) in [("clip", TokenizerKind::Clip), ("t5", TokenizerKind::T5)] {
        let tokenizer = TextTokenizer::open(&folder(name), kind).unwrap();
        check(name, &tokenizer);
        // As a compiled program carries it.
        let text = tokenizer.to_json().unwrap();
        check(name, &TextTokenizer::from_json(name, &text, tokenizer.pad_id).unwrap());
        // As `tokenizer.json`, whose own padding and truncation do not matter.
        let whole = TempDir::new().unwrap();
        let mut json: Value = serde_json::from_str(&text).unwrap();
        json["truncation"] =
            serde_json::json!({"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0});
        fs::write(whole.path().join("tokenizer.json"), json.to_string()).unwrap();
        fs::copy(folder(name).join("tokenizer_config.json"), whole.path().join("tokenizer_config.json")).unwrap();
        check(name, &TextTokenizer::open(whole.path(), kind).unwrap());
    }
}

#[test]
fn limits_are_read() {
    let clip = TextTokenizer::open(&folder("clip"), TokenizerKind::Clip).unwrap();
    assert_eq!((clip.model_max_length, clip.pad_id), (Some(77), 0));
    let error = clip.encode("a cat", 1).unwrap_err().to_string();
    assert!(error.contains("no room") && error.contains("2 tokens or more"), "{error}");
}

#[test]
fn folders_without_a_tokenizer_say_what_is_missing() {
    let says = |folder: &Path, kind, parts: &[&str]| {
        let error = TextTokenizer::open(folder, kind).unwrap_err().to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "`{part}` is not said in: {error}"));
    };
    let empty = TempDir::new().unwrap();
    says(empty.path(), TokenizerKind::Clip, &["no tokenizer", "vocab.json and merges.txt", "an empty folder"]);
    says(empty.path(), TokenizerKind::T5, &["no tokenizer", "spiece.model"]);
    says(&empty.path().join("tokenizer_2"), TokenizerKind::T5, &["tokenizer_2` is missing", "fetch it"]);
    fs::write(empty.path().join("spiece.model"), "version https://git-lfs").unwrap();
    says(empty.path(), TokenizerKind::T5, &["no SentencePiece model", "fetch the file again"]);
    fs::write(empty.path().join("vocab.json"), r#"{"a": 0}"#).unwrap();
    fs::write(empty.path().join("merges.txt"), "#version: 0.2\na b c\n").unwrap();
    says(empty.path(), TokenizerKind::Clip, &["lacks a special token", "<|startoftext|>"]);
    fs::write(empty.path().join("vocab.json"), r#"{"<|startoftext|>": 0, "<|endoftext|>": 1}"#).unwrap();
    says(empty.path(), TokenizerKind::Clip, &["merges.txt`, line 2", "two words"]);
    fs::write(empty.path().join("tokenizer.json"), "{}").unwrap();
    says(empty.path(), TokenizerKind::Clip, &["tokenizer.json` is no tokenizer"]);
}

/// Any prefix of a model is refused or read, without a panic.
#[test]
fn damaged_models_are_refused() {
    let bytes = fs::read(folder("t5").join("spiece.model")).unwrap();
    let whole = Spiece::read(&bytes).unwrap();
    assert_eq!((whole.pieces.len(), whole.unk_id, whole.pieces[3].0.as_str()), (700, 2, "▁"));
    assert!(!whole.charsmap.is_empty());
    for length in (0..400).chain((400..bytes.len()).step_by(997)) {
        let _ = Spiece::read(&bytes[..length]);
    }
    assert!(Spiece::read(&bytes[..1]).is_err());
    assert!(Spiece::read(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
}
