//! What the tests are made of: reading test files, drawing inputs, running them, comparing results, documentation
//! that is generated. The format of a test file and the rule for tolerances are in `docs/TESTING.md`.

pub mod case;
pub mod check;
pub mod compare;
pub mod draw;
pub mod gpu;
pub mod models;
pub mod passes;
pub mod reference;
pub mod rules;
pub mod runner;
pub mod sample;

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a folder of the repository").to_path_buf()
}

/// True if expectations are to be rewritten (`BLESS=1`).
pub fn blessing() -> bool {
    std::env::var_os("BLESS").is_some_and(|v| v == "1")
}

/// All files below a folder whose names end so, sorted; folders named `target` or beginning with a dot are left out.
pub fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if name.ends_with(end) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A path below the root, with `/`.
pub fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

/// Compares a generated text with a file, or rewrites the file when blessing.
///
/// # Errors
/// The first line that differs, and how to rewrite the file.
pub fn check_generated(path: &Path, want: &str) -> Result<(), String> {
    if blessing() {
        return std::fs::write(path, want).map_err(|e| format!("{}: {e}", relative(path)));
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    if found == want {
        return Ok(());
    }
    let line = found.lines().zip(want.lines()).take_while(|(a, b)| a == b).count();
    let at = |text: &str| text.lines().nth(line).unwrap_or("(nothing)").to_string();
    Err(format!(
        "{} is not current; BLESS=1 rewrites it\nline {}\n  found    {}\n  expected {}",
        relative(path),
        line + 1,
        at(&found),
        at(want)
    ))
}
