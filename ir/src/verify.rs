//! The verifier: numbered invariants, all violations reported.
use crate::{diag::Diagnostics, module::Module};
/// Checks every invariant.
///
/// # Errors
/// All violations.
pub fn verify(module: &Module) -> Result<(), Diagnostics> {
    let _ = module;
    todo!()
}
