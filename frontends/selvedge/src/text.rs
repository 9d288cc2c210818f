//! Modules in text form: reading files, trying functions.

use crate::compile::{self, Settings};
use crate::device::Device;
use crate::error::Error;
use crate::weights::{Random, Weights};
use selvedge_ir::{Diagnostic, Module, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Reads and verifies a module.
///
/// # Errors
/// The file cannot be read; its text has errors (all of them, with their places).
pub fn read(path: &Path) -> Result<Module, Error> {
    let file = path.display().to_string();
    let source =
        std::fs::read_to_string(path).map_err(|e| Diagnostic::new("ir", format!("cannot read `{file}`: {e}")))?;
    parse(&file, source)
}

/// Parses and verifies a text; `file` is its name for messages.
///
/// # Errors
/// All errors of the text, with their places.
pub fn parse(file: &str, source: String) -> Result<Module, Error> {
    let module = match selvedge_ir::parse::parse(&source) {
        Ok(module) => module,
        Err(errors) => return Err(Error::Text { file: file.to_string(), source, errors }),
    };
    match selvedge_ir::verify::verify(&module) {
        Ok(()) => Ok(module),
        Err(errors) => Err(Error::Text { file: file.to_string(), source, errors }),
    }
}

/// Calls a function with inputs and weights from [`Random`] (inputs uniform in [−1, 1)).
///
/// # Errors
/// No such function, symbols left, device trouble.
pub fn run(
    module: &Module,
    function: &str,
    seed: u64,
    device: &Device,
    settings: &Settings,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let random = Random { seed };
    let called = module
        .function(function)
        .ok_or_else(|| Diagnostic::new("call", format!("there is no function `{function}`")))?;
    let mut inputs = BTreeMap::new();
    for (name, id) in called.params() {
        let ty = called.ty(id);
        let tensor = random.scaled(&format!("input {name}"), ty, 1.0).ok_or_else(|| {
            Diagnostic::new("ir", format!("input `{name}` has symbols in its type {ty}"))
                .help("give them values with --dim NAME=N")
        })?;
        inputs.insert(name.to_string(), tensor);
    }
    let weights: Weights = Arc::new(random);
    let pipeline = serde_json::Value::Null;
    let mut session = compile::session_with(module.clone(), weights, pipeline, device, settings, &mut |_| {})?;
    session.call(function, &inputs)
}
