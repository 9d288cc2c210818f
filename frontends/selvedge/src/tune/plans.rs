//! The program of a function, chosen among the best by measurement.

use super::measure::{self, Inputs, Trial};
use super::store::Store;
use super::{Level, MARGIN};
use crate::compile::Compiled;
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::gpu::Gpu;
use selvedge_bundle::manifest::Step;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Functions whose programs [`Level::Quick`] measures: those in which most time goes, by the cost model.
const QUICK_FUNCTIONS: usize = 1;

/// A program that was measured against the one which the cost model finds best.
#[derive(Clone, Debug, PartialEq)]
pub struct Rival {
    /// The function.
    pub function: String,
    /// Its place among the best: 1 is next to the best.
    pub rank: usize,
    /// Microseconds by the cost model: of the best, and of this one.
    pub model_us: (f64, f64),
    /// Median milliseconds of all functions with the best and with this one, run in turns; or why it was not measured.
    pub measured_ms: Result<(f64, f64), String>,
    /// It was taken.
    pub taken: bool,
}

impl Rival {
    /// `{"function", "rank", "model_us": [best, this], "best_ms", "ms", "taken", "why"}`; `why` says why it has no times.
    pub fn to_json(&self) -> Value {
        let times = self.measured_ms.as_ref().ok();
        json!({
            "function": self.function, "rank": self.rank, "model_us": [self.model_us.0, self.model_us.1],
            "best_ms": times.map(|t| t.0), "ms": times.map(|t| t.1), "taken": self.taken,
            "why": self.measured_ms.as_ref().err(),
        })
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (best, this) = self.model_us;
        write!(f, "@{}, program {}: {this:.1} µs by the cost model (the best: {best:.1})", self.function, self.rank)?;
        match &self.measured_ms {
            Ok((before, after)) => write!(f, ", measured {after:.2} ms in place of {before:.2}")?,
            Err(why) => write!(f, ", not measured: {why}")?,
        }
        f.write_str(if self.taken { ": taken" } else { "" })
    }
}

/// A function with several programs.
struct Open {
    name: String,
    /// In the cache: what the function is, by its best program.
    key: String,
    /// Names of the programs, the best first.
    candidates: Vec<String>,
    /// Seconds of each, by the cost model.
    seconds: Vec<f64>,
    /// Seconds of all its calls.
    weight: f64,
}

/// Functions with several programs, those in which most time goes first.
fn open(compiled: &Compiled) -> Vec<Open> {
    let (notes, module) = (compiled.notes(), compiled.module());
    let mut all: Vec<Open> = Vec::new();
    for (report, others) in notes.saturation.iter().zip(&notes.next_best) {
        let best = module.function(&report.name).filter(|_| !others.is_empty());
        let Some(best) = best.filter(|_| !compiled.ranks().contains_key(&report.name)) else { continue };
        let calls: usize =
            module.functions.iter().flat_map(|f| &f.calls).filter(|c| c.function == report.name).count().max(1);
        let mut alone = selvedge_ir::Module::new("program");
        alone.functions.push(best.clone());
        let key = format!("program {}", selvedge_bundle::hash(alone.to_string().as_bytes()));
        let candidates = (0..=others.len()).map(|rank| rank.to_string()).collect();
        let seconds = report.best.clone();
        let weight = calls as f64 * report.seconds_after;
        all.push(Open { name: report.name.clone(), key, candidates, seconds, weight });
    }
    all.sort_by(|a, b| b.weight.total_cmp(&a.weight).then_with(|| a.name.cmp(&b.name)));
    all
}

/// The plan with the programs that won on this adapter before.
pub(super) fn known(store: &Store, compiled: Compiled, gpu: &Gpu, events: &mut Observer) -> Result<Compiled, Error> {
    let mut ranks = compiled.ranks().clone();
    for function in open(&compiled) {
        let winner = store.winner(&function.key, &function.candidates).and_then(|c| c.parse().ok());
        if let Some(rank) = winner.filter(|rank| *rank > 0) {
            ranks.insert(function.name, rank);
        }
    }
    if ranks == *compiled.ranks() {
        return Ok(compiled);
    }
    // What the cache says may fit no more; then the cost model decides again.
    match compiled.ranked(&ranks) {
        Ok(mut other) => {
            other.set_chosen(how(gpu, &ranks));
            Ok(other)
        }
        Err(e) => {
            events(Event::Note(format!("programs that were measured before are not used, the cost model's are: {e}")));
            Ok(compiled)
        }
    }
}

/// Measures the programs next to the best, in whole functions run in turns, and checks what they compute. A program is taken
/// if it is faster than all before it.
pub(super) fn choose(
    gpu: &Gpu,
    compiled: Compiled,
    level: Level,
    store: &mut Store,
    events: &mut Observer,
) -> Result<(Compiled, Vec<Rival>), Error> {
    let functions: Vec<Open> = open(&compiled);
    let most = match level {
        Level::Off => 0,
        Level::Quick => QUICK_FUNCTIONS,
        Level::Full => usize::MAX,
    };
    let unknown = |f: &&Open| store.winner(&f.key, &f.candidates).is_none();
    let wanted: Vec<&Open> = functions.iter().take(most).filter(unknown).collect();
    if wanted.is_empty() {
        return Ok((known(store, compiled, gpu, events)?, Vec::new()));
    }
    let total = wanted.iter().map(|f| f.candidates.len() as u64 - 1).sum();
    let mut done = 0;
    let inputs = Inputs::of(&compiled)?;
    let reference = Trial::run(gpu, &compiled, &inputs, 1)?;
    let mut best = measure::load(gpu, &compiled, &inputs)?;
    let (mut ranks, mut rivals) = (compiled.ranks().clone(), Vec::<Rival>::new());
    let mut chosen = compiled;
    for function in wanted {
        let mut winner = 0;
        for rank in 1..function.candidates.len() {
            let mut tried = ranks.clone();
            tried.insert(function.name.clone(), rank);
            let other = chosen.ranked(&tried)?;
            let us = |rank: usize| function.seconds.get(rank).map_or(f64::NAN, |s| s * 1e6);
            let mut rival = Rival {
                function: function.name.clone(),
                rank,
                model_us: (us(0), us(rank)),
                measured_ms: Err("it has the same kernels".to_string()),
                taken: false,
            };
            if !same_kernels(&chosen, &other) {
                let session = measure::load(gpu, &other, &inputs);
                let checked = session.and_then(|mut s| reference.same_outputs(&mut s, &inputs).map(|()| s));
                match checked {
                    Ok(mut session) => {
                        let (before, after) = measure::in_turns(&mut best, &mut session, &inputs, 2 * level.samples())?;
                        rival.measured_ms = Ok((before, after));
                        rival.taken = after < before * (1.0 - MARGIN);
                        if rival.taken {
                            (best, chosen, ranks, winner) = (session, other, tried, rank);
                        }
                    }
                    // It does not load, or computes something else: the cost model's choice stays.
                    Err(e) => rival.measured_ms = Err(e.to_string()),
                }
            }
            rivals.push(rival);
            done += 1;
            events(Event::Tune { done, total });
        }
        store.insert(&function.key, &function.candidates, &winner.to_string());
    }
    chosen.set_chosen(how(gpu, &ranks));
    Ok((chosen, rivals))
}

fn same_kernels(a: &Compiled, b: &Compiled) -> bool {
    let kernels = |c: &Compiled| -> Vec<(String, Vec<String>)> {
        let (manifest, plan) = (c.manifest(), &c.manifest().plans[0]);
        let hash = |step: Step| match step {
            Step::Dispatch(_, d) => manifest.kernels[d.kernel as usize].hash.clone(),
            Step::Move(m) => format!("{} copies, {} bytes", m.copies.len(), m.bytes),
        };
        plan.functions.iter().map(|f| (f.name.clone(), f.steps().map(hash).collect())).collect()
    };
    kernels(a) == kernels(b)
}

fn how(gpu: &Gpu, ranks: &BTreeMap<String, usize>) -> String {
    let others: Vec<String> = ranks.iter().map(|(name, rank)| format!("@{name} has program {rank}")).collect();
    let others = if others.is_empty() { "the cost model's best won".to_string() } else { others.join(", ") };
    format!("by measurement on {}: {others}", gpu.facts().name)
}
