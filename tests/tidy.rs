//! Rules of the repository, as tests. Each failure says what to do.

use selvedge_ir::ops::OpKind;
use selvedge_tests::{check_generated, files, models, passes, reference, relative, root, rules};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A file has at most this many lines; a larger one has more than one theme.
const MOST_LINES: usize = 500;

/// DESIGN's table: who may import whom. A crate that is not listed does not exist.
const IMPORTS: [(&str, &[&str]); 13] = [
    ("ir", &[]),
    ("passes", &["selvedge-ir", "egg"]),
    ("shaders", &["selvedge-ir", "thiserror"]),
    ("backends/bundle", &["serde", "serde_json", "safetensors", "blake3", "memmap2", "thiserror"]),
    (
        "backends/codegen",
        &["selvedge-ir", "selvedge-shaders", "selvedge-bundle", "naga", "petgraph", "serde", "serde_json", "thiserror"],
    ),
    ("backends/runtime", &["selvedge-bundle", "wgpu", "pollster", "bytemuck", "half", "thiserror", "rayon"]),
    ("frontends/model", &["selvedge-ir"]),
    ("frontends/zoo", &["selvedge-ir", "selvedge-model", "serde", "serde_json", "thiserror"]),
    (
        "frontends/import",
        &[
            "selvedge-ir",
            "selvedge-model",
            "selvedge-zoo",
            "safetensors",
            "memmap2",
            "half",
            "serde",
            "serde_json",
            "strsim",
            "thiserror",
            "tokenizers",
        ],
    ),
    (
        "frontends/selvedge",
        &[
            "selvedge-ir",
            "selvedge-passes",
            "selvedge-model",
            "selvedge-zoo",
            "selvedge-import",
            "selvedge-bundle",
            "selvedge-codegen",
            "selvedge-runtime",
            "gemm",
            "rayon",
            "half",
            "serde",
            "serde_json",
            "thiserror",
        ],
    ),
    (
        "frontends/cli",
        &["selvedge", "annotate-snippets", "clap", "indicatif", "png", "serde", "serde_json", "tempfile", "thiserror"],
    ),
    ("tests", &["selvedge", "selvedge-ir", "selvedge-passes", "libtest-mimic", "proptest", "serde_json", "tempfile"]),
    (
        "benches",
        &[
            "selvedge",
            "selvedge-codegen",
            "selvedge-ir",
            "selvedge-passes",
            "selvedge-shaders",
            "criterion",
            "wgpu",
            "pollster",
            "bytemuck",
        ],
    ),
];

/// Crates with one module that may contain unsafe code.
const UNSAFE: [&str; 3] = ["frontends/import/", "frontends/selvedge/", "backends/runtime/"];

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", relative(path)))
}

fn members() -> Vec<PathBuf> {
    IMPORTS.iter().map(|(folder, _)| root().join(folder)).collect()
}

#[track_caller]
fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn operators_have_files_that_break_each_constraint() {
    let mut problems = Vec::new();
    for kind in OpKind::ALL {
        let path = root().join("tests/filetests/ops").join(format!("{}.ir", kind.text()));
        let Ok(text) = std::fs::read_to_string(&path) else {
            problems.push(format!("`{}` has no test file; write {}", kind.text(), relative(&path)));
            continue;
        };
        if !text.contains("//! run interp") {
            problems.push(format!("{} does not run its functions", relative(&path)));
        }
        for (number, constraint) in reference::constraints(*kind).0 {
            // Declarations are the module's: these two are checked by the verifier, under its own numbers.
            let code = match kind {
                OpKind::Weight => "V7".to_string(),
                OpKind::State => "V8".to_string(),
                _ => format!("{} C{number}", kind.text()),
            };
            if !text.lines().any(|l| l.contains(&format!("//~ {code} ")) || l.ends_with(&format!("//~ {code}"))) {
                problems.push(format!("{} breaks no C{number}: {constraint}", relative(&path)));
            }
        }
    }
    none(&problems);
}

#[test]
fn passes_have_files() {
    let missing = passes::names().into_iter().filter_map(|name| {
        let path = root().join("tests/filetests/passes").join(format!("{}.ir", name.replace('-', "_")));
        (!path.exists()).then(|| format!("pass `{name}` has no test file; write {}", relative(&path)))
    });
    none(&missing.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
}

#[test]
fn skeletons_have_stubs_and_tests() {
    let tests: String = files(&root().join("shaders/tests"), ".rs").iter().map(|p| read(p)).collect();
    let mut problems = Vec::new();
    let folder = root().join("shaders/wgsl");
    for path in files(&folder, ".wgsl") {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if path.parent() != Some(&folder) || name.ends_with(".stubs.wgsl") {
            continue;
        }
        let stem = name.trim_end_matches(".wgsl");
        if !folder.join(format!("{stem}.stubs.wgsl")).exists() {
            problems.push(format!("{} has no stubs", relative(&path)));
        }
        let camel: String = stem.split('_').map(|w| w[..1].to_uppercase() + &w[1..]).collect();
        if !(tests.contains(stem) || tests.contains(&camel)) {
            problems.push(format!("{} has no test in shaders/tests", relative(&path)));
        }
    }
    none(&problems);
}

#[test]
fn crates_import_what_they_may() {
    let mut problems = Vec::new();
    for (folder, allowed) in IMPORTS {
        for dependency in section(&read(&root().join(folder).join("Cargo.toml")), "[dependencies]") {
            if !allowed.contains(&dependency.as_str()) {
                problems.push(format!(
                    "{folder} may not import {dependency} (docs/ARCHITECTURE.md; the list is in tidy.rs)"
                ));
            }
        }
    }
    let workspace = read(&root().join("Cargo.toml"));
    for folder in workspace.split("members = [").nth(1).and_then(|t| t.split(']').next()).unwrap_or("").split('"') {
        let listed = IMPORTS.iter().any(|(f, _)| *f == folder) || folder.trim_matches([',', ' ', '\n']).is_empty();
        if !listed {
            problems.push(format!("{folder} is a member of the workspace and not in the table of tidy.rs"));
        }
    }
    none(&problems);
}

/// Names of the dependencies in one section of a manifest.
fn section(manifest: &str, header: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|l| l.trim() != header).skip(1).take_while(|l| !l.starts_with('['));
    lines.filter_map(|l| Some(l.split_once(['.', ' ', '='])?.0.to_string())).filter(|n| !n.starts_with('#')).collect()
}

#[test]
fn crates_inherit_lints_and_versions() {
    let mut problems = Vec::new();
    for folder in members() {
        let manifest = folder.join("Cargo.toml");
        let text = read(&manifest);
        for needed in ["[lints]\nworkspace = true", "version.workspace = true", "edition.workspace = true"] {
            if !text.contains(needed) {
                problems.push(format!("{} lacks `{}`", relative(&manifest), needed.replace('\n', " ")));
            }
        }
        for header in ["[dependencies]", "[dev-dependencies]"] {
            let lines = text.lines().skip_while(|l| l.trim() != header).skip(1).take_while(|l| !l.starts_with('['));
            for line in lines.filter(|l| !l.trim().is_empty() && !l.contains("workspace = true") && !l.starts_with('#'))
            {
                problems.push(format!("{}: versions are the workspace's: {line}", relative(&manifest)));
            }
        }
    }
    none(&problems);
}

#[test]
fn files_have_one_theme() {
    let mut problems = Vec::new();
    for end in [".rs", ".wgsl"] {
        for path in members().iter().flat_map(|m| files(m, end)) {
            let lines = read(&path).lines().count();
            if lines > MOST_LINES {
                problems
                    .push(format!("{} has {lines} lines, at most {MOST_LINES}; split it by theme", relative(&path)));
            }
        }
    }
    none(&problems);
}

#[test]
fn nothing_names_a_machine() {
    // Put together here, so that this file does not contain them.
    let patterns = ["work", "root", "tmp", "home"].map(|folder| format!("/{folder}/"));
    let mut problems = Vec::new();
    for end in [".rs", ".toml", ".md", ".wgsl", ".ir", ".json", "scripts/setup", "scripts/test"] {
        for path in files(&root(), end).into_iter().filter(|p| !relative(p).starts_with("tests/fixtures/")) {
            for (number, line) in read(&path).lines().enumerate() {
                if patterns.iter().any(|p| line.contains(p.as_str())) {
                    problems.push(format!("{}:{}: an absolute path: {}", relative(&path), number + 1, line.trim()));
                }
            }
        }
    }
    none(&problems);
}

#[test]
fn unsafe_code_is_where_it_is_named() {
    let allow = ["allow", "(unsafe_code)"].concat();
    let found: Vec<String> = members()
        .iter()
        .flat_map(|m| files(m, ".rs"))
        .filter(|p| read(p).contains(&allow))
        .map(|p| relative(&p))
        .collect();
    let mut problems = Vec::new();
    for path in &found {
        let place = UNSAFE.iter().find(|u| path.starts_with(**u));
        let alone = place.is_some_and(|u| found.iter().filter(|f| f.starts_with(u)).count() == 1);
        if !alone {
            problems.push(format!("{path}: unsafe code lives in one module each of {}", UNSAFE.join(", ")));
        }
    }
    none(&problems);
}

#[test]
fn the_reference_is_current() {
    let page = reference::page().unwrap_or_else(|e| panic!("{e}"));
    check_generated(&root().join("docs/IR.md"), &page).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn the_readme_lists_the_models_and_their_proofs() {
    let path = root().join("README.md");
    let text = models::readme(&read(&path)).unwrap_or_else(|e| panic!("{e}"));
    check_generated(&path, &text).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn the_reference_s_example_is_a_module() {
    let page = include_str!("src/grammar.md");
    let example = page.split("```text\n").nth(1).and_then(|t| t.split("```").next()).unwrap_or("");
    let module = selvedge_ir::parse::parse(example).unwrap_or_else(|e| panic!("{e}"));
    selvedge_ir::verify::verify(&module).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn rules_have_examples_and_their_page_is_current() {
    let all = selvedge_passes::rules::all();
    let names: BTreeSet<&str> = all.iter().map(|r| r.name).collect();
    assert_eq!(names.len(), all.len(), "two rules have one name");
    let strays = files(&root().join("tests/filetests/rules"), ".ir").into_iter().filter_map(|path| {
        let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        (!names.contains(name.as_str())).then(|| format!("{} is the example of no rule", relative(&path)))
    });
    none(&strays.collect::<Vec<_>>());
    let page = rules::page().unwrap_or_else(|e| panic!("{e}"));
    check_generated(&root().join("docs/RULES.md"), &page).unwrap_or_else(|e| panic!("{e}"));
}
