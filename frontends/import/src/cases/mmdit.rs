//! Cases of the multimodal transformers.

use super::CaseRun;
use super::component::Component;
use selvedge_ir::Diagnostics;
use selvedge_zoo::flux::{self, FluxConfig};
use selvedge_zoo::sd3::{self, Sd3Config};

/// Stable Diffusion 3.
pub(super) fn sd3(case: &Component) -> Result<Vec<CaseRun>, Diagnostics> {
    let config = Sd3Config::from_json(case.config)?;
    case.check(sd3::expected_weights(&config)?, |_| false)?;
    let [batch, _, height, width] = case.sizes("in.hidden_states")?;
    let [_, text_tokens, _] = case.sizes("in.encoder_hidden_states")?;
    let module = sd3::forward_module(&config, batch, (height, width), text_tokens, case.stored())?;
    Ok(vec![case.call(module, "forward")?])
}

/// FLUX.1.
pub(super) fn flux(case: &Component) -> Result<Vec<CaseRun>, Diagnostics> {
    let config = FluxConfig::from_json(case.config)?;
    case.check(flux::expected_weights(&config)?, |_| false)?;
    let [batch, image_tokens, _] = case.sizes("in.hidden_states")?;
    let [_, text_tokens, _] = case.sizes("in.encoder_hidden_states")?;
    let module = flux::forward_module(&config, batch, image_tokens, text_tokens, case.stored())?;
    Ok(vec![case.call(module, "forward")?])
}
