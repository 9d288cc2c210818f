//! Finding things in folders: JSON files, and the safetensors files of a checkpoint.

use crate::checkpoint::Checkpoint;
use crate::storage::Storage;
use selvedge_ir::{Diagnostic, Diagnostics};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Names (without endings) that diffusers gives to checkpoints.
const PLAIN: [&str; 2] = ["diffusion_pytorch_model", "model"];

/// Reads a JSON file.
///
/// # Errors
/// It is not there, cannot be read, or is not JSON (with line and column).
pub fn read_json(path: &Path) -> Result<Value, Diagnostic> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Diagnostic::new("import", format!("`{shown}` is missing"))
            .help("fetch it together with the other files of the model"),
        _ => Diagnostic::new("import", format!("cannot read `{shown}`: {e}")),
    })?;
    parse_json(&shown.to_string(), &text)
}

/// Parses JSON that came from `origin`; it has to be an object.
///
/// # Errors
/// It is not JSON, or not an object.
pub fn parse_json(origin: &str, text: &str) -> Result<Value, Diagnostic> {
    if let Some(pointer) = lfs_pointer(origin, text.as_bytes()) {
        return Err(pointer);
    }
    let value: Value = serde_json::from_str(&without_infinities(text)).map_err(|e| {
        Diagnostic::new("import", format!("`{origin}` is not valid JSON: {e}"))
            .help("correct the file or fetch it again")
    })?;
    if value.is_object() {
        return Ok(value);
    }
    Err(Diagnostic::new("import", format!("`{origin}` does not hold an object")).expected_found("{ … }", brief(&value)))
}

/// The error for a file of which only git-lfs' pointer is there; `None` for others.
pub fn lfs_pointer(origin: &str, content: &[u8]) -> Option<Diagnostic> {
    if !content.starts_with(b"version https://git-lfs.github.com/spec/") {
        return None;
    }
    let what = Diagnostic::new("import", format!("`{origin}` was not downloaded"));
    let found = format!("a git-lfs pointer to it ({} bytes)", content.len());
    Some(
        what.expected_found("the file itself", found)
            .help("run `git lfs pull` in the model's folder, or fetch the file again"),
    )
}

/// Python writes −∞ as `-Infinity`, which is not JSON (diffusers' `lambda_min_clipped`): outside strings it becomes null, kept in its place.
fn without_infinities(text: &str) -> Cow<'_, str> {
    const TOKEN: &str = "-Infinity";
    if !text.contains(TOKEN) {
        return Cow::Borrowed(text);
    }
    let (mut out, mut rest, mut quoted) = (String::with_capacity(text.len()), text, false);
    while let Some(c) = rest.chars().next() {
        let length = if !quoted && rest.starts_with(TOKEN) {
            out.push_str("     null");
            TOKEN.len()
        } else {
            // An escaped character in a string never ends it.
            let escaped = if quoted && c == '\\' { rest[1..].chars().next().map_or(0, char::len_utf8) } else { 0 };
            quoted ^= c == '"';
            let length = c.len_utf8() + escaped;
            out.push_str(&rest[..length]);
            length
        };
        rest = &rest[length..];
    }
    Cow::Owned(out)
}

/// A text field of a configuration.
///
/// # Errors
/// It is missing or not text.
pub fn text_field<'a>(origin: &str, config: &'a Value, field: &str) -> Result<&'a str, Diagnostic> {
    match config.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Diagnostic::new("import", format!("field `{field}` of `{origin}` has a wrong kind"))
            .expected_found("text", brief(other))),
        None => Err(Diagnostic::new("import", format!("field `{field}` is missing in `{origin}`"))
            .expected_found(format!("a field `{field}`"), "none")),
    }
}

/// A value, cut to a length that fits a message.
pub fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { format!("{}…", text.chars().take(60).collect::<String>()) }
}

/// Opens the checkpoint of a model folder: the files of an index (`*.safetensors.index.json`), else its only safetensors file.
/// `io.safetensors` is a recorded case, never a checkpoint.
///
/// # Errors
/// No checkpoint, several without an index, a shard of the index that is missing or lacks a tensor, a damaged file.
pub fn open_checkpoint(folder: &Path) -> Result<Checkpoint, Diagnostics> {
    let names = list(folder)?;
    // Variants (`….fp16.safetensors`) may lie beside the checkpoint; the plain name is the one that diffusers loads.
    let plain = |paths: Vec<&'_ PathBuf>, end: &str| -> Vec<PathBuf> {
        let named = |p: &&&PathBuf| PLAIN.iter().any(|stem| file_name(p) == format!("{stem}{end}"));
        match paths.iter().filter(named).collect::<Vec<_>>().as_slice() {
            [one] => vec![one.to_path_buf()],
            _ => paths.into_iter().cloned().collect(),
        }
    };
    let index_end = ".safetensors.index.json";
    let indices = plain(names.iter().filter(|p| ends_with(p, index_end)).collect(), index_end);
    if let [index] = indices.as_slice() {
        return open_shards(folder, index);
    }
    let weights = names.iter().filter(|p| ends_with(p, ".safetensors") && !ends_with(p, "io.safetensors"));
    let files = plain(weights.collect(), ".safetensors");
    let shown = folder.display();
    match (files.as_slice(), indices.len()) {
        ([file], 0) => Checkpoint::open_file(file),
        ([], 0) => Err(Diagnostic::new("import", format!("no weights in `{shown}`"))
            .expected_found("one `*.safetensors` file, or shards with `*.safetensors.index.json`", found(&names))
            .help("give the folder that holds config.json and the weights")
            .into()),
        (many, _) => {
            let list = if indices.is_empty() { many } else { indices.as_slice() };
            let list: Vec<String> = list.iter().map(|p| file_name(p)).collect();
            Err(Diagnostic::new("import", format!("several checkpoints in `{shown}`"))
                .expected_found("one safetensors file or one index", list.join(", "))
                .help("keep one of them in the folder")
                .into())
        }
    }
}

fn open_shards(folder: &Path, index: &Path) -> Result<Checkpoint, Diagnostics> {
    let json = read_json(index)?;
    let shown = index.display();
    let Some(map) = json.get("weight_map").and_then(Value::as_object) else {
        return Err(Diagnostic::new("import", format!("`{shown}` has no `weight_map`"))
            .expected_found("an object from tensor names to file names", "none")
            .into());
    };
    let mut problems = Vec::new();
    let mut shards = BTreeSet::new();
    for (tensor, file) in map {
        match file.as_str() {
            // A shard lies beside its index; anything else is not followed.
            Some(name) if Path::new(name).components().count() == 1 && !name.starts_with("..") => {
                shards.insert(name);
            }
            _ => problems.push(
                Diagnostic::new("import", format!("`{shown}` places tensor `{tensor}` in no file of the folder"))
                    .expected_found("a file name", brief(file)),
            ),
        }
    }
    let mut files = Vec::new();
    let (there, missing): (Vec<&str>, Vec<&str>) = shards.iter().copied().partition(|s| folder.join(s).exists());
    if !missing.is_empty() {
        let count = missing.len();
        let list = missing.into_iter().take(4).collect::<Vec<_>>().join(", ");
        let more = if count > 4 { ", …" } else { "" };
        problems.push(
            Diagnostic::new(
                "import",
                format!("cannot read all shards of `{shown}`: {count} were not downloaded ({list}{more})"),
            )
            .expected_found(format!("{} files", shards.len()), format!("{} of them", there.len()))
            .help("fetch the shards that are missing into this folder"),
        );
    }
    for shard in there {
        match Storage::open(&folder.join(shard)) {
            Ok(file) => files.push(file),
            Err(e) => problems.push(e),
        }
    }
    if problems.is_empty() {
        for (tensor, file) in map {
            let at = file.as_str().map(|f| folder.join(f).display().to_string()).unwrap_or_default();
            if !files.iter().any(|f| f.origin == at && f.entries().contains_key(tensor)) {
                problems.push(
                    Diagnostic::new("import", format!("tensor `{tensor}` is not in the shard that `{shown}` names"))
                        .expected_found(format!("it in `{at}`"), "nothing of this name"),
                );
            }
        }
    }
    if problems.is_empty() { Checkpoint::new(files) } else { Err(Diagnostics(problems)) }
}

/// The entries of a folder, sorted.
///
/// # Errors
/// It is not there, or no folder.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let shown = folder.display();
    let cannot = |e: std::io::Error| Diagnostic::new("import", format!("cannot read the folder `{shown}`: {e}"));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        paths.push(entry.map_err(cannot)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// What a folder holds, for messages.
pub fn found(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().take(8).map(|p| file_name(p)).collect();
    match (names.is_empty(), paths.len() > 8) {
        (true, _) => "an empty folder".to_string(),
        (false, more) => format!("{}{}", names.join(", "), if more { ", …" } else { "" }),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn ends_with(path: &Path, end: &str) -> bool {
    file_name(path).ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinities_of_python_are_null_and_text_stays() {
        let json = parse_json("x", r#"{"a": -Infinity, "b": "-Infinity \" -Infinity", "c": [1, -Infinity]}"#).unwrap();
        assert_eq!(json["a"], Value::Null);
        assert_eq!(json["b"], "-Infinity \" -Infinity");
        assert_eq!(json["c"][1], Value::Null);
        assert!(parse_json("x", r#"{"a": Infinity}"#).is_err());
    }
}
