//! Targets by name or file.

use crate::device::{Device, DeviceChoice};
use crate::error::Error;
use selvedge_ir::Diagnostic;

pub use selvedge_codegen::target::{Subgroups, Target};

/// `portable`, `this` (the best adapter of this machine), or a JSON file with a target's fields.
///
/// # Errors
/// No adapter for `this`; a file that is not there or not a target.
pub fn parse(text: &str) -> Result<Target, Error> {
    match text {
        "portable" => Ok(Target::portable()),
        "this" => Ok(Device::choose(&DeviceChoice::Gpu, &mut |_| {})?.target()),
        file => {
            let help =
                "a target is `portable`, `this`, or a JSON file as `selvedge devices --json` prints under `target`";
            let json = std::fs::read_to_string(file)
                .map_err(|e| Diagnostic::new("target", format!("cannot read target `{file}`: {e}")).help(help))?;
            serde_json::from_str(&json)
                .map_err(|e| Diagnostic::new("target", format!("`{file}` is no target: {e}")).help(help).into())
        }
    }
}
