//! README's table of models: the zoo's catalogue, each row with the recorded cases that prove it.

use crate::root;
use selvedge::zoo::catalog::{ENTRIES, Kind};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where the table begins and ends in README.md.
pub const MARKS: [&str; 2] =
    ["<!-- models: made by BLESS=1, from the zoo's catalogue and tests/fixtures -->", "<!-- end of models -->"];

/// Cases by the classes that they run; a pipeline runs all its components.
fn proofs() -> Result<BTreeMap<String, BTreeSet<String>>, String> {
    let folder = root().join("tests/fixtures");
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).map_err(|e| e.to_string())? {
        let case = entry.map_err(|e| e.to_string())?.path();
        let name = case.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let classes = classes(&case)?;
        if classes.is_empty() {
            return Err(format!("the fixture `{name}` names no class"));
        }
        for class in classes {
            all.entry(class).or_default().insert(name.clone());
        }
    }
    Ok(all)
}

fn classes(case: &Path) -> Result<Vec<String>, String> {
    let read = |name: &str| -> Result<Option<Value>, String> {
        let path = case.join(name);
        if !path.exists() {
            return Ok(None);
        }
        // Python writes −∞ in a way that JSON does not know.
        let text = std::fs::read_to_string(&path).map_err(|e| e.to_string())?.replace("-Infinity", "null");
        serde_json::from_str(&text).map(Some).map_err(|e| format!("{}: {e}", path.display()))
    };
    let text = |v: &Value| v.as_str().map(str::to_string);
    if let Some(index) = read("model_index.json")? {
        let components = index.as_object().into_iter().flatten().filter_map(|(_, v)| text(v.get(1)?));
        let tokenizers = |class: &String| !class.contains("Tokenizer");
        return Ok(components.chain(index.get("_class_name").and_then(text)).filter(tokenizers).collect());
    }
    if let Some(config) = read("config.json")? {
        return Ok(config.get("_class_name").and_then(text).into_iter().collect());
    }
    Ok(read("case.json")?.and_then(|case| text(case.get("scheduler")?)).into_iter().collect())
}

/// The table in Markdown.
///
/// # Errors
/// A class without a case, a case whose class is not in the catalogue, files that cannot be read.
pub fn table() -> Result<String, String> {
    let proofs = proofs()?;
    if let Some((class, cases)) = proofs.iter().find(|(class, _)| ENTRIES.iter().all(|e| e.class != **class)) {
        return Err(format!("{cases:?} run `{class}`, which frontends/zoo/src/catalog.rs does not list"));
    }
    let mut text = String::from("| | class | model | what | proved by `tests/fixtures/…` |\n|---|---|---|---|---|\n");
    for kind in Kind::ALL {
        for entry in ENTRIES.iter().filter(|e| e.kind == kind) {
            let cases = proofs.get(entry.class).ok_or_else(|| {
                format!("no case in tests/fixtures runs `{}`, which the catalogue lists", entry.class)
            })?;
            let cases: Vec<String> = cases.iter().map(|c| format!("`{c}`")).collect();
            let (kind, class) = (kind.text(), entry.class);
            text += &format!("| {kind} | `{class}` | {} | {} | {} |\n", entry.model, entry.what, cases.join(" "));
        }
    }
    Ok(text)
}

/// A README with the current table between [`MARKS`].
///
/// # Errors
/// As [`table`]; a mark that is missing.
pub fn readme(text: &str) -> Result<String, String> {
    let (before, rest) = text.split_once(MARKS[0]).ok_or_else(|| format!("README.md lacks the mark `{}`", MARKS[0]))?;
    let (_, after) = rest.split_once(MARKS[1]).ok_or_else(|| format!("README.md lacks the mark `{}`", MARKS[1]))?;
    Ok(format!("{before}{}\n\n{}\n{}{after}", MARKS[0], table()?, MARKS[1]))
}
