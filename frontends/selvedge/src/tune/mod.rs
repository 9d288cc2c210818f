//! Choosing kernels by measurement: candidates of each unit are timed on the device, in the plan they belong to.
//!
//! First the programs: of each function the optimiser keeps the few that its cost model finds best, and whole functions say which
//! it is ([`plans`]). Then the kernels: every round compiles the plan with another candidate of every unit, runs it on the same inputs, compares the outputs with
//! the default's, and times each dispatch by the device's timestamps. The winners together must then be faster than the
//! defaults in whole functions, run in turns; otherwise the defaults stay. Winners are kept in the [`crate::cache`].

mod measure;
mod plans;
mod store;

pub use plans::Rival;
pub use store::Store;

use crate::cache::DeviceCache;
use crate::compile::Compiled;
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::gpu::{Gpu, GpuSession};
use crate::memory::Residency;
use crate::selftest;
use measure::{Inputs, Trial};
use selvedge_codegen::Choices;
use selvedge_ir::Diagnostic;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How much to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Nothing, and no winners of the cache: the code generator's defaults.
    Off,
    /// At most [`QUICK`] candidates a unit.
    Quick,
    /// All candidates, more samples, and close candidates compared by whole functions.
    Full,
}

/// Candidates a unit besides the default that [`Level::Quick`] looks at.
pub const QUICK: usize = 4;
/// A candidate must save so much of the default's time to be taken alone.
const MARGIN: f64 = 0.03;
/// Candidates within this of the best are close: whole functions decide.
const CLOSE: f64 = 0.05;

impl std::str::FromStr for Level {
    type Err = Error;
    fn from_str(text: &str) -> Result<Level, Error> {
        match text {
            "off" => Ok(Level::Off),
            "quick" => Ok(Level::Quick),
            "full" => Ok(Level::Full),
            _ => Err(Diagnostic::new("tune", format!("`{text}` is no level of tuning"))
                .help("off, quick or full")
                .into()),
        }
    }
}

impl Level {
    fn samples(self) -> usize {
        match self {
            Level::Off | Level::Quick => 3,
            Level::Full => 7,
        }
    }
    fn candidates(self) -> usize {
        match self {
            Level::Off => 0,
            Level::Quick => QUICK,
            Level::Full => usize::MAX,
        }
    }
}

/// What tuning found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Programs of functions that were measured against the one that the cost model finds best.
    pub programs: Vec<Rival>,
    /// Units that were measured.
    pub measured: usize,
    /// Units whose default was replaced: key, default and winner.
    pub changed: Vec<(String, String, String)>,
    /// Candidates that did not compile, load or compute the same: key, candidate and why.
    pub rejected: Vec<(String, String, String)>,
    /// Milliseconds of all functions with the defaults, and with what was chosen: medians of runs in turns.
    pub whole_ms: Option<(f64, f64)>,
}

impl Report {
    /// Lines for people.
    pub fn lines(&self) -> Vec<String> {
        let whole = match self.whole_ms {
            Some((before, after)) => format!(": {before:.2} ms with the defaults, {after:.2} ms with the winners"),
            None => String::new(),
        };
        let mut lines: Vec<String> = self.programs.iter().map(ToString::to_string).collect();
        lines.push(format!("{} units measured, {} changed{whole}", self.measured, self.changed.len()));
        lines.extend(self.changed.iter().map(|(key, a, b)| format!("  {key}: {b} instead of {a}")));
        lines.extend(self.rejected.iter().map(|(key, c, why)| format!("  {key}: {c} is rejected: {why}")));
        lines
    }
    /// `{"programs": [{"function", "rank", "model_us", "best_ms", "ms", "taken", "why"}], "measured", "changed": [{"unit", "default", "choice"}], "rejected": […], "default_ms", "tuned_ms"}`
    pub fn to_json(&self) -> Value {
        let changed = self.changed.iter().map(|(key, a, b)| json!({ "unit": key, "default": a, "choice": b }));
        let rejected = self.rejected.iter().map(|(key, c, why)| json!({ "unit": key, "choice": c, "why": why }));
        json!({
            "programs": self.programs.iter().map(Rival::to_json).collect::<Vec<_>>(),
            "measured": self.measured, "changed": changed.collect::<Vec<_>>(), "rejected": rejected.collect::<Vec<_>>(),
            "default_ms": self.whole_ms.map(|w| w.0), "tuned_ms": self.whole_ms.map(|w| w.1),
        })
    }
}

/// A program on an adapter, with the kernels that were chosen for it.
pub struct Ready {
    /// The program.
    pub compiled: Arc<Compiled>,
    /// The session, which loads the program again if it loses its device.
    pub session: GpuSession,
    /// What was measured, if anything was.
    pub report: Report,
}

/// Loads a program that was compiled with the defaults, as the adapter's level of tuning says (see [`Gpu::tuned`]). Candidates
/// are measured with all weights on the device, so nothing is measured for a program that has them stage by stage. A winner of the cache with which it does not compile or load is dropped, named in a note, and replaced by the default.
///
/// # Errors
/// The program does not load with the defaults either; device trouble.
pub fn ready(gpu: &Gpu, compiled: Compiled, residency: Residency, events: &mut Observer) -> Result<Ready, Error> {
    let (compiled, report) = match gpu.tune() {
        Some(Level::Off) => (compiled, Report::default()),
        Some(Level::Quick | Level::Full) if residency == Residency::Staged => {
            let why =
                "kernels are not measured: that takes all weights on the device, and the memory is too small for them";
            events(Event::Note(format!("{why}; winners of earlier measurements are used")));
            (cached(gpu, compiled, events)?, Report::default())
        }
        Some(level) => tune(gpu, compiled, level, events)?,
        None => (cached(gpu, compiled, events)?, Report::default()),
    };
    let tests = compiled.self_tests()?;
    selftest::check(gpu, tests.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())), true)?;
    let load = |compiled: &Arc<Compiled>, events: &mut Observer| compiled.load(gpu, residency, events);
    let compiled = Arc::new(compiled);
    let (compiled, session) = match load(&compiled, events) {
        Err(Error::Device(_)) if !chosen(&compiled).is_empty() => {
            let attempt = |choices: &Choices| load(&Arc::new(compiled.again(choices)?), &mut |_| {}).map(|_| ());
            let (good, bad) = sift(chosen(&compiled), attempt);
            forget(&DeviceCache::of(gpu), &bad, events);
            let compiled = Arc::new(compiled.again(&good)?);
            let session = load(&compiled, events)?;
            (compiled, session)
        }
        session => (compiled, session?),
    };
    Ok(Ready { compiled, session, report })
}

/// The choices of a plan that are not the defaults.
fn chosen(compiled: &Compiled) -> Choices {
    let others = compiled.tunables().iter().filter(|(_, t)| t.chosen != 0);
    others.map(|(key, t)| (key.clone(), t.name().to_string())).collect()
}

/// The plan with the winners that the cache has for this adapter; those that do not compile any more are dropped, and named
/// in a note.
///
/// # Errors
/// The plan does not compile without them either.
pub fn cached(gpu: &Gpu, compiled: Compiled, events: &mut Observer) -> Result<Compiled, Error> {
    let cache = DeviceCache::of(gpu);
    let store = Store::read(&cache);
    let compiled = plans::known(&store, compiled, gpu, events)?;
    let relevant = relevant(&store.choices(), &compiled);
    let (choices, mut dropped) = sift(relevant, |choices| compiled.again(choices).map(|_| ()));
    let stale = store.stale(compiled.tunables()).into_iter();
    dropped.extend(stale.map(|(key, name)| (key, name, "it is no candidate".to_string())));
    forget(&cache, &dropped, events);
    if choices.is_empty() {
        return Ok(compiled);
    }
    compiled.again(&choices)
}

/// Choices that differ from the plan's own.
fn relevant(choices: &Choices, compiled: &Compiled) -> Choices {
    let differs = |(key, tunable): (&String, &selvedge_codegen::Tunable)| {
        let choice = choices.get(key)?;
        let known = tunable.candidates.contains(choice) && choice != tunable.name();
        known.then(|| (key.clone(), choice.clone()))
    };
    compiled.tunables().iter().filter_map(differs).collect()
}

/// Drops winners that failed from the cache and says so.
pub(crate) fn forget(cache: &DeviceCache, dropped: &[(String, String, String)], events: &mut Observer) {
    if dropped.is_empty() {
        return;
    }
    for (key, choice, why) in dropped {
        events(Event::Note(format!("tuned kernel `{choice}` of `{key}` is dropped, the default is used: {why}")));
    }
    Store::default().write(cache, &dropped.iter().map(|d| d.0.clone()).collect::<Vec<_>>());
}

/// The choices that work, and those that do not with what they say. `attempt` tries some choices together; if all of them
/// fail together, each is tried alone.
fn sift(
    choices: Choices,
    mut attempt: impl FnMut(&Choices) -> Result<(), Error>,
) -> (Choices, Vec<(String, String, String)>) {
    if choices.is_empty() || attempt(&choices).is_ok() {
        return (choices, Vec::new());
    }
    let (mut good, mut bad) = (Choices::new(), Vec::new());
    for (key, choice) in choices {
        match attempt(&Choices::from([(key.clone(), choice.clone())])) {
            Ok(()) => drop(good.insert(key, choice)),
            Err(e) => bad.push((key, choice, e.to_string())),
        }
    }
    // Each is good alone; together they may still be too much.
    if !good.is_empty() && attempt(&good).is_err() {
        let why = "it does not go with the others";
        bad.extend(std::mem::take(&mut good).into_iter().map(|(k, c)| (k, c, why.to_string())));
    }
    (good, bad)
}

/// Measures the candidates of a plan on an adapter and gives the plan with the winners, which are also written to the cache.
/// The plan was compiled for this adapter, with the defaults.
///
/// # Errors
/// The defaults themselves fail; device trouble that is not a candidate's fault.
pub fn tune(gpu: &Gpu, compiled: Compiled, level: Level, events: &mut Observer) -> Result<(Compiled, Report), Error> {
    if level == Level::Off {
        return Ok((compiled, Report::default()));
    }
    let cache = DeviceCache::of(gpu);
    let mut store = Store::read(&cache);
    let (compiled, programs) = plans::choose(gpu, compiled, level, &mut store, events)?;
    let open: Vec<String> = compiled
        .tunables()
        .iter()
        .filter(|(key, t)| {
            t.candidates.len() > 1 && !t.dispatches.is_empty() && store.winner(key, &t.candidates).is_none()
        })
        .map(|(key, _)| key.clone())
        .collect();
    if open.is_empty() {
        store.write(&cache, &[]);
        return Ok((cached(gpu, compiled, events)?, Report { programs, ..Report::default() }));
    }
    let count = |key: &String| compiled.tunables()[key].candidates.len().min(level.candidates().saturating_add(1));
    let rounds = open.iter().map(count).max().unwrap_or(1);
    let total = rounds as u64 + 2;
    let mut done = 0;
    let mut step = |events: &mut Observer| {
        done += 1;
        events(Event::Tune { done, total });
    };
    let mut report = Report { measured: open.len(), programs, ..Report::default() };
    let inputs = Inputs::of(&compiled)?;
    // The winners of earlier runs stay in place while the others are measured.
    let mut base = relevant(&store.choices(), &compiled);
    let mut default = Trial::run(gpu, &compiled.again(&base)?, &inputs, level.samples());
    if default.is_err() && !base.is_empty() {
        let (good, bad) = sift(base, |choices| Trial::run(gpu, &compiled.again(choices)?, &inputs, 1).map(|_| ()));
        forget(&cache, &bad, events);
        bad.iter().for_each(|(key, _, _)| store.remove(key));
        report.rejected.extend(bad);
        base = good;
        default = Trial::run(gpu, &compiled.again(&base)?, &inputs, level.samples());
    }
    let default = default?;
    step(events);
    // Milliseconds by unit and candidate.
    let mut times: BTreeMap<&String, Vec<(String, f64)>> = BTreeMap::new();
    for key in &open {
        let name = compiled.tunables()[key].candidates[0].clone();
        times.entry(key).or_default().push((name, default.ms(key)));
    }
    for round in 1..rounds {
        let candidate = |key: &String| {
            let name = compiled.tunables()[key].candidates.get(round).filter(|_| round < count(key))?;
            Some((key.clone(), name.clone()))
        };
        let tried: Choices = open.iter().filter_map(candidate).collect();
        let with = |choices: &Choices| {
            let all: Choices = base.iter().chain(choices).map(|(k, c)| (k.clone(), c.clone())).collect();
            let trial = Trial::run(gpu, &compiled.again(&all)?, &inputs, level.samples())?;
            default.same_as(&trial)?;
            Ok::<Trial, Error>(trial)
        };
        let mut note = |trial: &Trial, choices: &Choices| {
            for (key, name) in choices {
                if let Some((key, list)) = times.remove_entry(key) {
                    let mut list: Vec<(String, f64)> = list;
                    list.push((name.clone(), trial.ms(key)));
                    times.insert(key, list);
                }
            }
        };
        match with(&tried) {
            Ok(trial) => note(&trial, &tried),
            Err(_) => {
                // One of them is to blame, or several: each is tried alone.
                for (key, name) in &tried {
                    let alone = Choices::from([(key.clone(), name.clone())]);
                    match with(&alone) {
                        Ok(trial) => note(&trial, &alone),
                        Err(e) => report.rejected.push((key.clone(), name.clone(), e.to_string())),
                    }
                }
            }
        }
        step(events);
    }
    let mut wanted = base.clone();
    let mut close: Vec<(String, String)> = Vec::new();
    for (key, list) in &times {
        let best = list.iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("the default was timed");
        if best.1 < list[0].1 * (1.0 - MARGIN) {
            wanted.insert((*key).clone(), best.0.clone());
        }
        let rivals = list.iter().filter(|c| c.0 != best.0 && c.1 < best.1 * (1.0 + CLOSE));
        close.extend(rivals.map(|c| ((*key).clone(), c.0.clone())));
    }
    let chosen = whole(gpu, &compiled, &inputs, &default, &base, wanted, &close, level, &mut report)?;
    step(events);
    for key in &open {
        let tunable = &compiled.tunables()[key];
        let choice = chosen.get(key).cloned().unwrap_or_else(|| tunable.candidates[0].clone());
        if choice != tunable.candidates[0] {
            report.changed.push((key.clone(), tunable.candidates[0].clone(), choice.clone()));
        }
        store.insert(key, &tunable.candidates, &choice);
    }
    store.write(&cache, &[]);
    Ok((compiled.again(&chosen)?, report))
}

/// The choices that hold in whole functions, starting from those that won alone.
#[allow(clippy::too_many_arguments)]
fn whole(
    gpu: &Gpu,
    compiled: &Compiled,
    inputs: &Inputs,
    default: &Trial,
    base: &Choices,
    wanted: Choices,
    close: &[(String, String)],
    level: Level,
    report: &mut Report,
) -> Result<Choices, Error> {
    let pairs = 2 * level.samples();
    let mut reference = measure::load(gpu, &compiled.again(base)?, inputs)?;
    // Median milliseconds of `than` and of these choices, run in turns; `None` if they fail together.
    let against = |than: &mut GpuSession, choices: &Choices| -> Result<Option<(f64, f64)>, Error> {
        let Ok(mut other) = compiled.again(choices).and_then(|c| measure::load(gpu, &c, inputs)) else {
            return Ok(None);
        };
        if default.same_outputs(&mut other, inputs).is_err() {
            return Ok(None);
        }
        measure::in_turns(than, &mut other, inputs, pairs).map(Some)
    };
    if wanted == *base && (close.is_empty() || level == Level::Quick) {
        return Ok(wanted);
    }
    let mut chosen = base.clone();
    let mut best: Option<(f64, f64)> = None;
    if wanted != *base
        && let Some((before, after)) = against(&mut reference, &wanted)?
        && after < before
    {
        (chosen, best) = (wanted.clone(), Some((before, after)));
    }
    if level == Level::Full {
        // Together they were no gain: perhaps some of them are. And rivals that were close alone.
        let single: Vec<(String, String)> = match chosen == wanted {
            true => close.to_vec(),
            false => wanted.into_iter().filter(|(key, choice)| base.get(key) != Some(choice)).collect(),
        };
        for (key, choice) in single {
            let mut next = chosen.clone();
            next.insert(key, choice);
            if next == chosen {
                continue;
            }
            if let Some((before, after)) = against(&mut reference, &next)?
                && best.is_none_or(|(b, a)| after / before < a / b)
                && after < before
            {
                (chosen, best) = (next, Some((before, after)));
            }
        }
    }
    report.whole_ms = best;
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_dropped_and_what_works_stays() {
        let choices = ["a", "b", "c"].map(|key| (key.to_string(), format!("fast {key}")));
        let mut tries = 0;
        let (good, bad) = sift(choices.into(), |choices| {
            tries += 1;
            match choices.contains_key("b") {
                true => Err(Error::device("kernel", "it was refused")),
                false => Ok(()),
            }
        });
        assert_eq!(good.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!((bad.len(), bad[0].1.as_str(), tries), (1, "fast b", 5));
        assert!(bad[0].2.contains("refused"), "{bad:?}");
        // Good alone, but not together: none is left.
        let (good, bad) = sift(good, |choices| match choices.len() {
            1 => Ok(()),
            _ => Err(Error::device("memory", "too much")),
        });
        assert_eq!((good.len(), bad.len()), (0, 2));
    }
}
