//! Cases of the T5 encoder.

use super::CaseRun;
use super::component::Component;
use selvedge_ir::Diagnostics;
use selvedge_zoo::t5::{self, T5Config, TokenTable};

/// The encoder on recorded tokens, with or without a mask.
pub(super) fn encoder(case: &Component) -> Result<Vec<CaseRun>, Diagnostics> {
    let mut config = T5Config::from_json(case.config)?;
    config.token_table = TokenTable::among(|name| case.checkpoint.shape(name).is_some());
    case.check(t5::expected_weights(&config)?, |name| t5::ignored(&config, name))?;
    case.check_indices("in.input_ids", config.vocab_size)?;
    let masked = case.recorded.has("in.attention_mask");
    let module = t5::forward_module(&config, case.sizes::<2>("in.input_ids")?.into(), masked, case.stored())?;
    Ok(vec![case.call(module, "forward")?])
}
