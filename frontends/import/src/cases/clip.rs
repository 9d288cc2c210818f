//! Cases of CLIP's text encoders.

use super::CaseRun;
use super::component::Component;
use selvedge_ir::{Diagnostic, Diagnostics};
use selvedge_zoo::clip::{self, ClipTextConfig};

/// CLIP's text encoders.
pub(super) fn text(case: &Component) -> Result<Vec<CaseRun>, Diagnostics> {
    let config = ClipTextConfig::from_json(case.config)?.named_as_in(|name| case.checkpoint.shape(name).is_some());
    case.check(clip::expected_weights(&config)?, ClipTextConfig::ignores)?;
    let [batch, length] = case.sizes("in.input_ids")?;
    let ids = case.recorded.get("in.input_ids")?.to_f64();
    if let Some(id) = ids.into_iter().find(|id| !(0.0..config.vocab_size as f64).contains(id)) {
        let what = Diagnostic::new("case", "a recorded token is no row of the token table");
        return Err(what.expected_found(format!("0 to {}", config.vocab_size - 1), id).into());
    }
    let module = clip::forward_module(&config, batch, length, case.stored())?;
    Ok(vec![case.call(module, "forward")?])
}
