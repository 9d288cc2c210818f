//! DiT checkpoints: sampling defaults, and the zoo's network as the samplers see it.

use crate::cases::gaussian;
use crate::files::{brief, text_field};
use crate::model::Sampling;
use selvedge_ir::Diagnostic;
use selvedge_model::{Graph, Tensor};
use selvedge_zoo::dit::{DitConfig, DitLayout, forward};
use selvedge_zoo::guidance::Guided;
use selvedge_zoo::program::Decoder;
use selvedge_zoo::samplers::diffusers::Discrete;
use selvedge_zoo::samplers::{Ddim, FlowMethod, Gaussian, RectifiedFlow, Sampler};
use selvedge_zoo::sampling::Denoiser;
use serde_json::Value;

/// The network with its sizes.
pub struct Dit<'a>(pub &'a DitConfig);

impl Denoiser for Dit<'_> {
    fn sample_shape(&self) -> [usize; 3] {
        [self.0.in_channels, self.0.input_size, self.0.input_size]
    }
    fn forward(&self, graph: &Graph, x: &Tensor, timesteps: &Tensor, class_labels: &Tensor) -> Tensor {
        forward(&graph.weights(), self.0, x, timesteps, class_labels)
    }
}

/// Tensors that a checkpoint may hold though the model computes them: older diffusers versions saved the position table.
pub fn ignored(config: &DitConfig, name: &str) -> bool {
    match config.layout {
        DitLayout::Original => false,
        DitLayout::Diffusers { .. } => name == "pos_embed.pos_embed",
    }
}

/// How a model is sampled: by the `sampling` block of its configuration, else as its repository does by default (original layout:
/// `sample.py`, 250 DDPM steps, guidance 4 on three channels; diffusers: DiTPipeline with DDIM, 50 steps, guidance 4).
///
/// # Errors
/// A block of an unknown kind, or with a field missing or of a wrong kind.
pub fn sampling(origin: &str, json: &Value, config: &DitConfig) -> Result<Sampling, Diagnostic> {
    let latents = Decoder::Missing(
        "this model makes latents; the folder has no autoencoder (AutoencoderKL) that turns them into a picture".into(),
    );
    if let Some(block) = json.get("sampling") {
        return described(origin, block, config, latents);
    }
    Ok(match config.layout {
        DitLayout::Original => Sampling {
            sampler: Sampler::Gaussian(Gaussian::new(config.learns_sigma())),
            default_steps: 250,
            default_guidance_scale: 4.0,
            guided: Guided::First(3),
            guidance_floor: false,
            null_class: config.null_class(),
            pixel_range: [-1.0, 1.0],
            decoder: latents,
        },
        DitLayout::Diffusers { .. } => {
            let discrete = Discrete { clip_sample: false, ..Discrete::default() };
            Sampling::diffusers(Sampler::Ddim(Ddim { discrete, ..Ddim::default() }), config.null_class(), latents)
        }
    })
}

fn described(origin: &str, block: &Value, config: &DitConfig, latents: Decoder) -> Result<Sampling, Diagnostic> {
    let place = format!("{origin} (`sampling`)");
    let number = |field: &str| {
        block.get(field).and_then(Value::as_f64).filter(|x| x.is_finite()).ok_or_else(|| {
            let found = block.get(field).map_or("none".to_string(), brief);
            Diagnostic::new("import", format!("field `{field}` is missing or no number in {place}"))
                .expected_found("a number", found)
        })
    };
    let count = |field: &str| {
        number(field).and_then(|x| {
            if x >= 1.0 && x.fract() == 0.0 && x < 1e6 {
                return Ok(x as usize);
            }
            Err(Diagnostic::new("import", format!("field `{field}` of {place}"))
                .expected_found("a positive whole number", x))
        })
    };
    let sampler = match text_field(&place, block, "kind")? {
        "rectified-flow" => {
            let prediction = text_field(&place, block, "prediction")?;
            if prediction != "velocity" {
                return Err(Diagnostic::new("import", format!("unsupported prediction in {place}"))
                    .expected_found("`velocity`", format!("`{prediction}`")));
            }
            let method = match block.get("method") {
                None => FlowMethod::Euler,
                Some(Value::String(m)) if m == "euler" => FlowMethod::Euler,
                Some(Value::String(m)) if m == "heun" => FlowMethod::Heun,
                Some(other) => {
                    return Err(Diagnostic::new("import", format!("unsupported `method` in {place}"))
                        .expected_found("`euler` or `heun`", brief(other)));
                }
            };
            Sampler::RectifiedFlow(RectifiedFlow { method, timestep_scale: number("timestep_scale")? })
        }
        "gaussian" => Sampler::Gaussian(gaussian(block)?),
        other => {
            return Err(Diagnostic::new("import", format!("unknown kind of sampling in {place}"))
                .expected_found("`rectified-flow` or `gaussian`", format!("`{other}`")));
        }
    };
    let null_class = match block.get("null_class") {
        None => config.null_class(),
        Some(value) => {
            let class = value.as_u64().map(|n| n as usize).filter(|&n| n < config.label_rows());
            Some(class.ok_or_else(|| {
                Diagnostic::new("import", format!("field `null_class` of {place} is no row of the label table"))
                    .expected_found(format!("a whole number below {}", config.label_rows()), brief(value))
            })?)
        }
    };
    let pixel_range = match block.get("pixel_range") {
        None => None,
        Some(value) => {
            Some(serde_json::from_value::<[f64; 2]>(value.clone()).ok().filter(|r| r[0] < r[1]).ok_or_else(|| {
                Diagnostic::new("import", format!("field `pixel_range` of {place}"))
                    .expected_found("two rising numbers", brief(value))
            })?)
        }
    };
    Ok(Sampling {
        sampler,
        default_steps: count("default_steps")?,
        default_guidance_scale: number("default_guidance_scale")?,
        guided: Guided::All,
        guidance_floor: false,
        null_class,
        decoder: if pixel_range.is_some() { Decoder::Pixels } else { latents },
        pixel_range: pixel_range.unwrap_or([-1.0, 1.0]),
    })
}
