//! Running the command, and files to give it.
#![allow(dead_code, reason = "each test file uses a part")]

use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What a command did.
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `selvedge` with these arguments.
pub fn selvedge(args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(args)
        .env("SELVEDGE_CACHE", env!("CARGO_TARGET_TMPDIR")) // not the user's
        .output()
        .expect("the command starts");
    Ran {
        status: output.status.code().expect("it was not killed"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Ran {
    /// It did what it was asked.
    pub fn ok(self) -> Ran {
        assert_eq!(self.status, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
    /// It refused with this status, and said these words.
    pub fn refused(self, status: i32, words: &[&str]) -> Ran {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not said in:\n{}", self.stderr);
        }
        self
    }
    /// The one JSON object on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// A copy of a fixture's model in a folder of its own.
pub fn copy(name: &str) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    for file in ["config.json", "model.safetensors", "io.safetensors", "case.json"] {
        let from = fixture(name).join(file);
        if from.exists() {
            std::fs::copy(from, folder.path().join(file)).expect("fixtures are readable");
        }
    }
    folder
}

pub fn text(path: &Path) -> String {
    path.to_str().expect("paths of tests are UTF-8").to_string()
}

pub fn edit_config(folder: &Path, edit: impl Fn(&mut Value)) {
    let path = folder.join("config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).expect("it is there")).expect("valid JSON");
    edit(&mut json);
    std::fs::write(path, json.to_string()).expect("writable");
}

/// Rewrites the header of a safetensors file; the data stays.
pub fn edit_header(path: &Path, edit: impl Fn(&mut Map<String, Value>)) {
    let bytes = std::fs::read(path).expect("it is there");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).expect("valid JSON");
    edit(&mut header);
    let text = Value::from(header).to_string();
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text.as_bytes());
    out.extend(&bytes[8 + length..]);
    std::fs::write(path, out).expect("writable");
}
