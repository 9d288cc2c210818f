//! The text form's parser: `parse(print(m)) = m`.
use crate::{diag::Diagnostics, module::Module};
/// Parses a module; declared types are checked against inferred ones.
///
/// # Errors
/// All errors found, with their places.
pub fn parse(text: &str) -> Result<Module, Diagnostics> {
    let _ = text;
    todo!()
}
