//! The text form's printer.
use crate::module::Module;
/// Prints a module.
pub fn print(module: &Module) -> String {
    let _ = module;
    todo!()
}
