//! Passes by name, for `//! pass NAME`.

use selvedge_ir::Module;

/// Runs the pass of a name.
///
/// # Errors
/// There is no such pass, or it fails.
pub fn run(name: &str, module: &Module) -> Result<Module, String> {
    let _ = module;
    Err(format!("there is no pass `{name}`"))
}
