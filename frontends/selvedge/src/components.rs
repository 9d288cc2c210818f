//! The components of a pipeline: what each is, what it holds, and the work it does in each stage.

use crate::flops;
use crate::inspect::facts;
use selvedge_import::LoadedModel;
use selvedge_import::model::Architecture;
use selvedge_ir::Module;
use selvedge_zoo::clip::ClipTextConfig;
use selvedge_zoo::pipelines::TextModel;
use selvedge_zoo::t5::T5Config;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// By the first word of their weights' names, in the order in which data goes through them; other weights are the transformer's.
const PARTS: [&str; 5] = ["text_encoder", "text_encoder_2", "text_encoder_3", TRANSFORMER, "vae"];
const TRANSFORMER: &str = "transformer";

/// The component of a weight.
fn part(weight: &str) -> usize {
    let at = |name: &str| PARTS.iter().position(|p| *p == name);
    weight.split('.').next().and_then(at).or_else(|| at(TRANSFORMER)).unwrap_or(0)
}

/// `{"NAME": {"what", "tensors", "parameters", "memory_bytes", "dtypes", "gflop": {"FUNCTION": …}}}`: weights of `stored`, work of
/// the functions that the schedule of `program` runs.
pub(crate) fn components(model: Option<&LoadedModel>, program: &Module, stored: &Module) -> Value {
    let mut weights: BTreeMap<usize, Vec<(String, u64, u64)>> = BTreeMap::new();
    for w in &stored.weights {
        let fact = (w.ty.dtype.to_string(), w.ty.elements().unwrap_or(0) as u64, w.ty.dtype.bits() as u64);
        weights.entry(part(&w.name)).or_default().push(fact);
    }
    let mut work: BTreeMap<usize, Map<String, Value>> = BTreeMap::new();
    let s = &program.schedule;
    let steps = s.steps.iter().flat_map(|l| &l.functions);
    for name in [&s.prepare, &s.condition].into_iter().flatten().chain(steps).chain(&s.decode) {
        for (of, flops) in flops::by_part(program, name, &part) {
            let of = of.unwrap_or_else(|| part(TRANSFORMER));
            work.entry(of).or_default().insert(name.clone(), json!(flops as f64 / 1e9));
        }
    }
    let all = weights.into_iter().map(|(of, tensors)| {
        let mut object = facts(tensors.into_iter());
        if let Some(what) = model.and_then(|m| what(m, PARTS[of])) {
            object["what"] = json!(what);
        }
        object["gflop"] = work.remove(&of).unwrap_or_default().into();
        (PARTS[of].to_string(), object)
    });
    all.collect::<Map<_, _>>().into()
}

/// What a component is, in a phrase.
fn what(model: &LoadedModel, name: &str) -> Option<String> {
    let t5 = |c: &T5Config| format!("T5 encoder, {} layers of {}", c.num_layers, c.d_model);
    let clip = |c: &ClipTextConfig| format!("CLIP text encoder, {} layers of {}", c.num_layers, c.hidden_size);
    if name == "vae" {
        let c = model.vae.as_ref()?;
        return Some(format!(
            "AutoencoderKL, blocks of {:?}, {} latent channels",
            c.block_out_channels, c.latent_channels
        ));
    }
    match &model.architecture {
        Architecture::Dit(c) => Some(format!("DiT, {} blocks of {}, patch {}", c.depth, c.hidden_size, c.patch_size)),
        Architecture::Text(text) => match (&text.model, name) {
            (TextModel::PixArt(m), "text_encoder") => Some(t5(&m.t5)),
            (TextModel::PixArt(m), _) => {
                let c = &m.transformer;
                Some(format!("PixArt, {} blocks of {}, patch {}", c.depth, c.hidden_size, c.patch_size))
            }
            (TextModel::Sd3(m), "text_encoder") => Some(clip(&m.clip[0])),
            (TextModel::Sd3(m), "text_encoder_2") => Some(clip(&m.clip[1])),
            (TextModel::Sd3(m), "text_encoder_3") => m.t5.as_ref().map(t5),
            (TextModel::Sd3(m), _) => {
                let c = &m.transformer;
                Some(format!("SD3 MM-DiT, {} blocks of {}, patch {}", c.num_layers, c.hidden_size, c.patch_size))
            }
            (TextModel::Flux(m), "text_encoder") => Some(clip(&m.clip)),
            (TextModel::Flux(m), "text_encoder_2") => Some(t5(&m.t5)),
            (TextModel::Flux(m), _) => {
                let c = &m.transformer;
                Some(format!(
                    "FLUX, {} double and {} single blocks of {}",
                    c.num_layers, c.num_single_layers, c.hidden_size
                ))
            }
        },
    }
}
