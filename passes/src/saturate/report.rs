//! What saturation did, for people and for tests.

use super::rule::{Phase, Rule};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What one rule did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleReport {
    /// The rule's name.
    pub name: &'static str,
    /// Its law.
    pub law: &'static str,
    /// Its phase.
    pub phase: Phase,
    /// Places that were tried, each once.
    pub matches: usize,
    /// Applications that changed something.
    pub applied: usize,
    /// Refusals by reason.
    pub refusals: BTreeMap<String, usize>,
    /// Times it found more than it may, and was backed off.
    pub backed_off: usize,
    /// Time of search and application.
    pub time: Duration,
}

impl RuleReport {
    /// Of a rule that did nothing yet.
    pub fn new(rule: &Rule) -> RuleReport {
        RuleReport {
            name: rule.name,
            law: rule.law,
            phase: rule.phase,
            matches: 0,
            applied: 0,
            refusals: BTreeMap::new(),
            backed_off: 0,
            time: Duration::ZERO,
        }
    }
}

/// What was done to one function.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionReport {
    /// The function.
    pub name: String,
    /// Nodes and classes of the graph in the end.
    pub nodes: usize,
    /// Classes.
    pub classes: usize,
    /// Rounds over all phases.
    pub rounds: usize,
    /// The limit that ended saturation early, if one did.
    pub stopped: Option<String>,
    /// What each rule did.
    pub rules: Vec<RuleReport>,
    /// Seconds by the cost model before.
    pub seconds_before: f64,
    /// Seconds by the cost model after.
    pub seconds_after: f64,
    /// Kernels by the cost model, before and after.
    pub kernels: (usize, usize),
    /// Seconds of the k best plans by the cost model, best first.
    pub best: Vec<f64>,
    /// Why each value is what it is.
    pub reasons: Vec<Reason>,
    /// Time of saturation and of extraction.
    pub time: (Duration, Duration),
}

/// Why a value of the result is what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// The value's name in the result.
    pub value: String,
    /// The rules that led to it, in the order of application.
    pub chain: Vec<&'static str>,
    /// Other terms of its class.
    pub alternatives: Vec<Alternative>,
    /// Rules that matched it and gave no other term, with the reason.
    pub refused: Vec<(&'static str, String)>,
}

/// A term that was not chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// Its operator, in text.
    pub term: String,
    /// Seconds that the whole function would take with it; none if it would depend on itself.
    pub seconds: Option<f64>,
}

impl FunctionReport {
    /// One line.
    pub fn summary(&self) -> String {
        let us = |s: f64| format!("{:.1} µs", s * 1e6);
        let time = self.time.0 + self.time.1;
        format!(
            "@{}: {} → {} kernels, {} → {} by the cost model ({} nodes, {} rounds, {:.0} ms)",
            self.name,
            self.kernels.0,
            self.kernels.1,
            us(self.seconds_before),
            us(self.seconds_after),
            self.nodes,
            self.rounds,
            time.as_secs_f64() * 1e3
        )
    }
}

impl fmt::Display for FunctionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |s: f64| format!("{:.1} µs", s * 1e6);
        writeln!(
            f,
            "@{}: {} nodes in {} classes after {} rounds; {} → {} kernels, {} → {}",
            self.name,
            self.nodes,
            self.classes,
            self.rounds,
            self.kernels.0,
            self.kernels.1,
            us(self.seconds_before),
            us(self.seconds_after)
        )?;
        if let Some(stopped) = &self.stopped {
            writeln!(f, "  ended by the limit of {stopped}")?;
        }
        for rule in self.rules.iter().filter(|r| r.matches > 0 || r.backed_off > 0) {
            write!(f, "  {:<40} {:>6} matches {:>6} applied", rule.name, rule.matches, rule.applied)?;
            write!(f, " {:>8.1} ms", rule.time.as_secs_f64() * 1e3)?;
            if rule.backed_off > 0 {
                write!(f, "  backed off {} times", rule.backed_off)?;
            }
            for (reason, count) in &rule.refusals {
                write!(f, "  {count} × {reason}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
