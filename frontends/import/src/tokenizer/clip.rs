//! CLIP's tokenizer from `vocab.json` and `merges.txt`.

use super::settings::Settings;
use super::{nothing_to_read, parse, read_text};
use crate::files::read_json;
use selvedge_ir::{Diagnostic, Diagnostics};
use serde_json::{Value, json};
use std::path::Path;
use tokenizers::Tokenizer;

/// Marks the last piece of a word.
pub const END_OF_WORD: &str = "</w>";

/// Contractions, words, single digits, and runs of anything else.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Reads both files; text is composed (NFC), its white space joined, and lowered, as in transformers' `CLIPTokenizer`.
pub fn open(folder: &Path, settings: &Settings) -> Result<Tokenizer, Diagnostics> {
    let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
    if !vocab.is_file() || !merges.is_file() {
        return Err(nothing_to_read(folder, "tokenizer.json, or vocab.json and merges.txt"));
    }
    let vocabulary = read_json(&vocab)?;
    let id = |token: &str| {
        vocabulary.get(token).and_then(Value::as_u64).ok_or_else(|| {
            Diagnostic::new("tokenizer", format!("`{}` lacks a special token", vocab.display()))
                .expected_found(format!("`{token}`"), "nothing of this name")
        })
    };
    let (start, end) =
        ((&settings.bos_token, id(&settings.bos_token)?), (&settings.eos_token, id(&settings.eos_token)?));
    let mut pairs = Vec::new();
    for (line, text) in read_text(&merges)?.lines().enumerate() {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            [first, ..] if *first == "#version:" => {}
            [a, b] => pairs.push([a.to_string(), b.to_string()]),
            _ => {
                let message = format!("`{}`, line {}: a merge is two pieces", merges.display(), line + 1);
                return Err(Diagnostic::new("tokenizer", message).expected_found("two words", words.len()).into());
            }
        }
    }
    let special = [start, end].map(|(token, id)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
    });
    let text = json!({
        "version": "1.0",
        "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}, {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {
            "type": "RobertaProcessing", "sep": [end.0, end.1], "cls": [start.0, start.1], "trim_offsets": false,
            "add_prefix_space": false,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "unk_token": settings.unk_token, "continuing_subword_prefix": "", "end_of_word_suffix": END_OF_WORD,
            "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": pairs,
        },
    });
    Ok(parse(&folder.display().to_string(), &text.to_string())?)
}
