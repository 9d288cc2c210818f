//! Device memory: what a plan takes, whether it may, and what would fit instead.

use crate::compile::{self, Compiled, Options};
use crate::device::Device;
use crate::error::Error;
use crate::explain::bytes;
use crate::weights::Weights;
use selvedge_bundle::manifest::{Access, Manifest, Plan, Stage};
use selvedge_ir::{Diagnostic, Module};
use selvedge_passes::{Pass, Strips};
use selvedge_zoo::program::PipelineInfo;
use serde_json::{Value, json};

/// Where a plan's weights are while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// All on the device, from load to end.
    Whole,
    /// Those that one stage alone reads (a text encoder, an autoencoder) only while it runs; each run brings them again.
    Staged,
}

/// A plan's memory by what it is for, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Activations, inputs, outputs and states: one arena for all stages.
    pub arena: u64,
    /// Weights that several stages read.
    pub shared: u64,
    /// Weights that one stage alone reads.
    pub stages: [(Stage, u64); 4],
    /// Of all these weights, f32 matrices: what f16 would halve. Shared, then by stage.
    halvable: [u64; 5],
}

impl Usage {
    /// Of a plan.
    pub fn new(manifest: &Manifest, plan: &Plan) -> Usage {
        let of = |access: Access, stage: Option<Stage>| {
            let buffers = plan.buffers.iter().filter(|b| b.access == access && b.stage == stage);
            buffers.map(|b| b.bytes).sum::<u64>()
        };
        let mut halvable = [0; 5];
        for slot in &plan.weights {
            let weight = &manifest.weights[slot.weight as usize];
            if weight.dtype == "f32" && weight.shape.len() > 1 {
                let stage = plan.buffers[slot.region.buffer as usize].stage;
                let at = stage.and_then(|s| Stage::ALL.iter().position(|x| *x == s)).map_or(0, |i| i + 1);
                halvable[at] += slot.region.bytes;
            }
        }
        Usage {
            arena: of(Access::ReadWrite, None),
            shared: of(Access::Read, None),
            stages: Stage::ALL.map(|s| (s, of(Access::Read, Some(s)))),
            halvable,
        }
    }
    /// Planned peak.
    pub fn peak(&self, residency: Residency) -> u64 {
        let stages = self.stages.iter().map(|(_, n)| *n);
        self.arena
            + self.shared
            + match residency {
                Residency::Whole => stages.sum::<u64>(),
                Residency::Staged => stages.max().unwrap_or(0),
            }
    }
    /// The same with f32 matrices in half.
    fn halved(&self) -> Usage {
        let mut half = self.clone();
        half.shared -= half.halvable[0] / 2;
        for (stage, halvable) in half.stages.iter_mut().zip(&self.halvable[1..]) {
            stage.1 -= halvable / 2;
        }
        half
    }
    /// The same with another share of activations.
    fn scaled(&self, share: f64) -> Usage {
        Usage { arena: (self.arena as f64 * share).ceil() as u64, ..self.clone() }
    }
    /// `{"arena_bytes", "shared_weight_bytes", "stage_weight_bytes": {…}, "planned_peak_bytes", "staged_peak_bytes"}`
    pub fn to_json(&self) -> Value {
        let stages: serde_json::Map<String, Value> = self
            .stages
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(s, n)| (format!("{}_bytes", name(*s)), json!(n)))
            .collect();
        json!({
            "activations_bytes": self.arena, "shared_weights_bytes": self.shared, "weights_of_one_stage": stages,
            "planned_peak_bytes": self.peak(Residency::Whole), "staged_peak_bytes": self.peak(Residency::Staged),
        })
    }
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Prepare => "prepare",
        Stage::Condition => "condition",
        Stage::Steps => "steps",
        Stage::Decode => "decode",
    }
}

/// What a program could be compiled for instead, when its plan does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freedom {
    /// Samples of the plan, if they may be fewer.
    pub batch: usize,
    /// The picture may be smaller.
    pub size: bool,
}

/// Name of the function of a decoder without a sampling program.
const DECODE: &str = "decode";

/// How a plan fits into `budget` bytes; without one it is loaded whole.
///
/// # Errors
/// It does not fit, even with each stage's weights there only while it runs; the message says what would.
pub fn fit(manifest: &Manifest, budget: Option<u64>, freedom: Freedom) -> Result<Residency, Diagnostic> {
    let (Some(budget), Some(plan)) = (budget, manifest.plans.first()) else { return Ok(Residency::Whole) };
    let usage = Usage::new(manifest, plan);
    match [Residency::Whole, Residency::Staged].into_iter().find(|r| usage.peak(*r) <= budget) {
        Some(residency) => Ok(residency),
        None => Err(refusal(&manifest.name, &usage, budget, freedom)),
    }
}

fn refusal(program: &str, usage: &Usage, budget: u64, freedom: Freedom) -> Diagnostic {
    let least = usage.peak(Residency::Staged);
    let weights = usage.shared + usage.stages.iter().map(|(_, n)| *n).max().unwrap_or(0);
    let found =
        format!("{}: {} of weights at a time and {} of activations", bytes(least), bytes(weights), bytes(usage.arena));
    let mut would = Vec::new();
    let mut offer = |what: String, usage: Usage| {
        let peak = usage.peak(Residency::Staged);
        if peak <= budget {
            would.push(format!("{what} (about {})", bytes(peak)));
        }
    };
    let one = 1.0 / freedom.batch.max(1) as f64;
    if usage.halved() != *usage {
        offer("--dtype f16".to_string(), usage.halved());
    }
    if freedom.batch > 1 {
        offer("one image at a time".to_string(), usage.scaled(one));
        if usage.halved() != *usage {
            offer("one image at a time with --dtype f16".to_string(), usage.halved().scaled(one));
        }
    }
    if freedom.size {
        for (share, side) in [(0.5625, "three quarters"), (0.25, "half"), (0.0625, "a quarter")] {
            offer(format!("a picture of {side} the width and height"), usage.scaled(share));
        }
        offer("half the width and height with --dtype f16".to_string(), usage.halved().scaled(0.25));
    }
    let rest = format!("a device, or --max-memory, of at least {}", bytes(least));
    would.truncate(3);
    would.push(rest);
    Diagnostic::new("memory", format!("`{program}` does not fit into the device memory it may take"))
        .expected_found(format!("at most {}", bytes(budget)), found)
        .help(format!("what would fit: {}", would.join("; ")))
}

/// Compiles a program so that it fits into `budget` bytes: as it is; else with each stage's weights there only while it runs; else
/// with its decoder in row strips (see [`Strips`]), as few as will do.
///
/// # Errors
/// As [`compile::compile`]; [`fit`]'s refusal where nothing of this helps.
pub fn compile_to_fit(
    module: Module,
    weights: Weights,
    pipeline: Value,
    options: &Options,
    budget: Option<u64>,
) -> Result<(Compiled, Residency), Error> {
    let info = serde_json::from_value::<PipelineInfo>(pipeline.clone()).ok();
    let freedom = info.map_or(Freedom::default(), |i| Freedom { batch: i.batch, size: i.family != "dit" });
    let compiled = compile::compile(module.clone(), weights.clone(), pipeline.clone(), options)?;
    let least = |compiled: &Compiled| {
        let manifest = compiled.manifest();
        manifest.plans.first().map_or(0, |plan| Usage::new(manifest, plan).peak(Residency::Staged))
    };
    let mut refused = match fit(compiled.manifest(), budget, freedom) {
        Ok(residency) => return Ok((compiled, residency)),
        Err(refused) => (least(&compiled), refused),
    };
    // A decoder alone is not scheduled.
    let alone = || module.function(DECODE).filter(|_| module.schedule.is_empty()).map(|f| f.name.clone());
    if let Some(function) = module.schedule.decode.clone().or_else(alone) {
        // More strips than these would mostly compute halos.
        for strips in [2, 4, 8, 16] {
            let striped = Strips { function: function.clone(), strips }.run(module.clone())?;
            if striped == module {
                break;
            }
            let compiled = compile::compile(striped, weights.clone(), pipeline.clone(), options)?;
            match fit(compiled.manifest(), budget, freedom) {
                Ok(residency) => return Ok((compiled, residency)),
                // What is said of a refusal is said of the plan that came nearest.
                Err(error) if least(&compiled) < refused.0 => refused = (least(&compiled), error),
                Err(_) => {}
            }
        }
    }
    Err(refused.1.into())
}

/// The bytes that a device can be expected to give: the free memory of the machine for adapters that run on its processor;
/// `None` where nothing tells.
pub fn available(device: &Device) -> Option<u64> {
    let Device::Gpu(gpu) = device else { return None };
    if gpu.facts().kind != "cpu" {
        return None;
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

/// Bytes from text: `4GiB`, `800M`, `1.5 GB`; binary units, whatever they are called.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no amount of memory: write 4GiB or 800MiB");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim();
    let unit =
        match text[text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 1u64,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            _ => return Err(wrong()),
        };
    match digits.parse::<f64>() {
        Ok(n) if n.is_finite() && n > 0.0 && n * (unit as f64) < 1e18 => Ok((n * unit as f64) as u64),
        Ok(_) | Err(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Usage {
        let gib = |n: u64| n << 30;
        Usage {
            arena: gib(2),
            shared: 0,
            stages: [(Stage::Prepare, 0), (Stage::Condition, gib(8)), (Stage::Steps, gib(4)), (Stage::Decode, gib(1))],
            halvable: [0, 0, gib(8), gib(4), 0],
        }
    }

    #[test]
    fn stages_take_turns() {
        let u = usage();
        assert_eq!(u.peak(Residency::Whole), 15 << 30);
        assert_eq!(u.peak(Residency::Staged), 10 << 30);
        assert_eq!(u.halved().peak(Residency::Staged), 6 << 30);
    }

    #[test]
    fn a_refusal_says_what_would_fit() {
        let text = refusal("m", &usage(), 7 << 30, Freedom { batch: 4, size: true }).to_string();
        assert!(text.contains("at most 7.00 GiB") && text.contains("10.00 GiB"), "{text}");
        assert!(text.contains("--dtype f16 (about 6.00 GiB)") && text.contains("at least 10.00 GiB"), "{text}");
        assert!(!text.contains("one image at a time (about"), "8.5 GiB do not fit: {text}");
        let small = refusal("m", &usage(), 1 << 30, Freedom::default()).to_string();
        assert!(!small.contains("about"), "{small}");
    }

    #[test]
    fn amounts_are_read() {
        assert_eq!(
            ["4GiB", "1.5g", "800 MB", "77"].map(|t| parse(t).ok()),
            [Some(4 << 30), Some(3 << 29), Some(800 << 20), Some(77)]
        );
        for bad in ["", "GiB", "-1G", "4X", "nan", "1e400"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
