//! Cases of PixArt-Σ: forwards, and the original repository's guided forward.

use super::CaseRun;
use super::component::Component;
use selvedge_ir::{DType, Diagnostics};
use selvedge_model::{ModuleBuilder, concat};
use selvedge_zoo::guidance::{self, Guided};
use selvedge_zoo::pixart::{self, CallSize, Inputs, PixArtConfig};

/// The network on recorded latents and captions.
pub(super) fn transformer(case: &Component) -> Result<Vec<CaseRun>, Diagnostics> {
    let config = PixArtConfig::from_json(case.config)?;
    case.check(pixart::expected_weights(&config)?, |name| pixart::ignored(&config, name))?;
    let mut runs = Vec::new();
    let names = config.io_names();
    let (latent, caption) = (format!("in.{}", names.latent), format!("in.{}", names.caption));
    if case.recorded.has(&latent) {
        let [batch, _, height, width] = case.sizes(&latent)?;
        let masked = case.recorded.has(&format!("in.{}", names.caption_mask));
        let caption_tokens = caption_tokens(case, &config, &caption)?;
        let size = CallSize { batch, latent: (height, width), caption_tokens, masked };
        runs.push(case.call(pixart::forward_module(&config, size, case.stored())?, "forward")?);
    }
    if case.recorded.has("in.cfg_x") {
        runs.push(guided(case, &config)?);
    }
    Ok(runs)
}

fn caption_tokens(case: &Component, config: &PixArtConfig, name: &str) -> Result<usize, Diagnostics> {
    Ok(match config.layout {
        pixart::PixArtLayout::Original { .. } => case.sizes::<4>(name)?[2],
        pixart::PixArtLayout::Diffusers { .. } => case.sizes::<3>(name)?[1],
    })
}

/// `forward_with_cfg`: the second half of the batch is ignored, guidance acts on the first three channels.
fn guided(case: &Component, config: &PixArtConfig) -> Result<CaseRun, Diagnostics> {
    let [batch, channels, height, width] = case.sizes("in.cfg_x")?;
    let tokens = caption_tokens(case, config, "in.cfg_y")?;
    let masked = case.recorded.has("in.cfg_mask");
    // What the guided call shares with the plain one is repeated to its batch, as the reference does.
    let shared = |name: &str| -> Result<(String, usize), Diagnostics> {
        let own = format!("cfg_{name}");
        let name = if case.recorded.has(&format!("in.{own}")) { own } else { name.to_string() };
        let [rows, _] = case.sizes(&format!("in.{name}"))?;
        Ok((name, rows))
    };
    let [hw, ratio] = config.io_names().size;
    let sizes = if config.micro_condition { Some([shared(hw)?, shared(ratio)?]) } else { None };
    let mut module = ModuleBuilder::new("pixart").stored_as(case.stored());
    module.function("forward_with_cfg", |g| {
        let x = g.input("cfg_x", DType::F32, [batch, channels, height, width]);
        let timestep = g.input("cfg_timestep", DType::F32, [batch]);
        let caption = g.input("cfg_y", DType::F32, [batch, 1, tokens, config.caption_channels]);
        let mask = masked.then(|| g.input("cfg_mask", DType::I32, [batch, tokens]));
        let scale = g.input("cfg_scale", DType::F32, []);
        let sizes = sizes.as_ref().map(|[hw, ratio]| {
            [(hw, 2), (ratio, 1)].map(|((name, rows), features)| {
                let tensor = g.input(name, DType::F32, [*rows, features]);
                concat(&vec![&tensor; (batch / rows.max(&1)).max(1)], 0)
            })
        });
        let [half, _] = x.chunk(0);
        let inputs = Inputs {
            latent: &guidance::both(&half),
            timestep: &timestep,
            caption: &caption,
            caption_mask: mask.as_ref(),
            size: sizes.as_ref().map(|[hw, ratio]| [hw, ratio]),
        };
        let output = pixart::forward(&g.weights(), config, &inputs);
        g.output("cfg_out", &guidance::combine_both(&output, Guided::First(3).count(channels), &scale));
    });
    case.call(module.build()?, "forward_with_cfg")
}
