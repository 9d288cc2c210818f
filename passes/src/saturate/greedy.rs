//! The baseline: the same rules and the same cost, one application after another.

use super::analysis::Classes;
use super::cost::{self, Rates};
use super::encode::encode;
use super::report::RuleReport;
use super::rule::{Match, Phase, Rule};
use super::step::{labels, replaced};
use selvedge_ir::{Diagnostic, Function};
use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

/// Applications in one function.
pub const MOST_STEPS: usize = 2_000;
/// Rewritten functions that are looked at, in values: bounds the work.
const MOST_VISITS: usize = 20_000_000;
/// Places of one rule that are looked at in one step.
const MOST_PLACES: usize = 1_000;

/// The function after each rule was applied, phase by phase, wherever the plan does not get dearer by it.
///
/// # Errors
/// A fault of a rule.
pub fn greedy(function: &Function, rules: &[Rule], rates: &Rates) -> Result<(Function, Vec<RuleReport>), Diagnostic> {
    let mut reports: Vec<RuleReport> = rules.iter().map(RuleReport::new).collect();
    let mut now = function.clone();
    let mut seconds = cost::of_function(&now, rates).seconds;
    let mut seen = HashSet::from([key(&now)]);
    let (mut steps, mut visits) = (0, 0);
    for phase in Phase::ALL {
        if !rules.iter().any(|r| r.phase == phase) {
            continue;
        }
        while steps < MOST_STEPS && visits < MOST_VISITS {
            let better = step(&now, seconds, phase, rules, rates, &mut reports, &mut seen, &mut visits)?;
            let Some((next, cost)) = better else { break };
            (now, seconds) = (next, cost);
            steps += 1;
        }
    }
    Ok((now, reports))
}

/// The first application, in order of rules and places, that gives a function not seen before and not dearer.
#[allow(clippy::too_many_arguments)] // the search's whole state
fn step(
    now: &Function,
    seconds: f64,
    phase: Phase,
    rules: &[Rule],
    rates: &Rates,
    reports: &mut [RuleReport],
    seen: &mut HashSet<u64>,
    visits: &mut usize,
) -> Result<Option<(Function, f64)>, Diagnostic> {
    let encoded = encode(now);
    let labels = labels(now, &encoded);
    for (rule, report) in rules.iter().zip(reports).filter(|(r, _)| r.phase <= phase) {
        let started = Instant::now();
        for found in rule.search(&encoded.graph, MOST_PLACES) {
            report.matches += 1;
            let at = Match { classes: Classes(&encoded.graph), root: found.root, bound: Cow::Owned(found.bound) };
            let term = match rule.apply(&at) {
                Ok(term) => term,
                Err(Ok(refusal)) => {
                    *report.refusals.entry(refusal.0.into_owned()).or_default() += 1;
                    continue;
                }
                Err(Err(fault)) => return Err(Diagnostic::new("saturate internal", fault)),
            };
            let Some(next) = replaced(now, &encoded, &labels, found.root, &term)? else { continue };
            *visits += next.values.len();
            if !seen.insert(key(&next)) {
                continue;
            }
            let cost = cost::of_function(&next, rates).seconds;
            if cost <= seconds {
                report.applied += 1;
                report.time += started.elapsed();
                return Ok(Some((next, cost)));
            }
        }
        report.time += started.elapsed();
    }
    Ok(None)
}

fn key(function: &Function) -> u64 {
    let mut hasher = DefaultHasher::new();
    function.values.iter().for_each(|v| v.def.hash(&mut hasher));
    function.returns.hash(&mut hasher);
    function.calls.hash(&mut hasher);
    hasher.finish()
}
