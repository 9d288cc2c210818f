//! What a tokenizer's folder says beside its vocabulary: special tokens and the longest text.

use super::TokenizerKind;
use crate::files::read_json;
use selvedge_ir::Diagnostic;
use serde_json::Value;
use std::path::Path;

/// Special tokens and limits, from `tokenizer_config.json`, then `special_tokens_map.json`, then the kind's defaults.
pub struct Settings {
    pub bos_token: String,
    pub eos_token: String,
    pub unk_token: String,
    pub pad_token: String,
    /// Sentinels after the vocabulary (T5).
    pub extra_ids: usize,
    pub model_max_length: Option<usize>,
}

impl Settings {
    pub fn read(folder: &Path, kind: TokenizerKind) -> Result<Settings, Diagnostic> {
        let optional = |name: &str| {
            let path = folder.join(name);
            if path.exists() { read_json(&path) } else { Ok(Value::Null) }
        };
        let places = [optional("tokenizer_config.json")?, optional("special_tokens_map.json")?];
        let token = |name: &str, default: &str| {
            // A token is a string, or an object with its text and how it is found in a text.
            let text = |v: &Value| v.as_str().or_else(|| v.get("content")?.as_str()).map(str::to_string);
            places.iter().find_map(|place| place.get(name).and_then(text)).unwrap_or_else(|| default.to_string())
        };
        let [start, end, unknown, pad] = match kind {
            TokenizerKind::Clip => ["<|startoftext|>", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"],
            TokenizerKind::T5 => ["", "</s>", "<unk>", "<pad>"],
        };
        let number = |name: &str| places[0].get(name).and_then(Value::as_u64).map(|n| n as usize);
        Ok(Settings {
            bos_token: token("bos_token", start),
            eos_token: token("eos_token", end),
            unk_token: token("unk_token", unknown),
            pad_token: token("pad_token", pad),
            extra_ids: number("extra_ids").unwrap_or(100).min(10_000),
            // Without a limit transformers writes 10³⁰.
            model_max_length: number("model_max_length").filter(|&n| n < 1 << 24),
        })
    }
}
