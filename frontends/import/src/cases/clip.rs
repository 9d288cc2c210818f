//! Cases of CLIP's text encoders.

use super::CaseRun;
use super::component::Component;
use selvedge_ir::Diagnostics;
use selvedge_zoo::clip::{self, ClipTextConfig};

/// CLIP's text encoders.
pub(super) fn text(case: &Component) -> Result<Vec<CaseRun>, Diagnostics> {
    let config = ClipTextConfig::from_json(case.config)?.named_as_in(|name| case.checkpoint.shape(name).is_some());
    case.check(clip::expected_weights(&config)?, ClipTextConfig::ignores)?;
    let [batch, length] = case.sizes("in.input_ids")?;
    case.check_indices("in.input_ids", config.vocab_size)?;
    let module = clip::forward_module(&config, batch, length, case.stored())?;
    Ok(vec![case.call(module, "forward")?])
}
