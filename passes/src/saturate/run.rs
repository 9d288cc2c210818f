//! The driver: phases in order, with limits that never look at the clock.

use super::analysis::{Classes, Graph};
use super::encode::{Encoded, add_term, encode};
use super::language::Node;
use super::report::RuleReport;
use super::rule::{Found, Match, Phase, Rule, Term};
use egg::Id;
use selvedge_ir::{Diagnostic, Function};
use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// Nodes that the graph of one function may have.
pub const MOST_NODES: usize = 40_000;
/// Rounds of search and application in one phase.
pub const MOST_ROUNDS: usize = 16;
/// Places where one rule may match in one round; a rule that finds more is backed off, and allowed twice as many the next time.
pub const MOST_MATCHES: usize = 3_000;
/// Rounds for which a rule is backed off the first time; twice as many the next.
const BACK_OFF_ROUNDS: usize = 2;
/// Saturation of one function that takes longer than this is an error, never a different result.
pub const ABORT_AFTER: Duration = Duration::from_secs(120);

/// Limits of saturation. Those that shape results count nodes, rounds and matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`MOST_NODES`].
    pub nodes: usize,
    /// See [`MOST_ROUNDS`].
    pub rounds: usize,
    /// See [`MOST_MATCHES`].
    pub matches: usize,
    /// See [`ABORT_AFTER`].
    pub abort: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { nodes: MOST_NODES, rounds: MOST_ROUNDS, matches: MOST_MATCHES, abort: ABORT_AFTER }
    }
}

/// One application that changed the graph.
#[derive(Clone, Debug)]
pub struct Application {
    /// The rule, as a place in the list.
    pub rule: usize,
    /// The nodes of the left side, as they were.
    pub left: Vec<Node>,
    /// The nodes that came in with the right side.
    pub new: Vec<Node>,
}

/// A saturated function.
#[derive(Debug)]
pub struct Saturated {
    /// Its graph; without pending unions.
    pub encoded: Encoded,
    /// What was applied, in order.
    pub applications: Vec<Application>,
    /// Rules that matched a class and gave no new term for it, as places in the list, with the reason.
    pub refused: Vec<(usize, Id, String)>,
    /// What each rule did, in the rules' order.
    pub rules: Vec<RuleReport>,
    /// Rounds over all phases.
    pub rounds: usize,
    /// The limit that ended it early, if one did.
    pub stopped: Option<String>,
}

/// Saturates the graph of a function.
///
/// # Errors
/// Two classes of different type were joined (a fault of the rule that is named), or the time for an abort is over.
pub fn saturate(function: &Function, rules: &[Rule], limits: &Limits) -> Result<Saturated, Diagnostic> {
    let mut driver = Driver {
        rules,
        limits,
        started: Instant::now(),
        encoded: encode(function),
        seen: HashSet::new(),
        states: rules.iter().map(|r| State { report: RuleReport::new(r), banned_until: 0, banned: 0 }).collect(),
        applications: Vec::new(),
        refused: Vec::new(),
        round: 0,
        stopped: None,
        function: &function.name,
    };
    driver.no_conflict("encoding")?;
    for phase in Phase::ALL {
        driver.phase(phase)?;
        if driver.stopped.as_deref().is_some_and(|s| s.starts_with("nodes")) {
            break;
        }
    }
    let Driver { encoded, states, applications, refused, round, stopped, .. } = driver;
    let rules = states.into_iter().map(|s| s.report).collect();
    Ok(Saturated { encoded, applications, refused, rules, rounds: round, stopped })
}

struct State {
    report: RuleReport,
    banned_until: usize,
    banned: u32,
}

struct Driver<'r> {
    rules: &'r [Rule],
    limits: &'r Limits,
    started: Instant,
    encoded: Encoded,
    /// Hashes of matches that were tried: rule, root and variables.
    seen: HashSet<u64>,
    states: Vec<State>,
    applications: Vec<Application>,
    refused: Vec<(usize, Id, String)>,
    round: usize,
    stopped: Option<String>,
    function: &'r str,
}

impl Driver<'_> {
    fn fault(&self, message: String) -> Diagnostic {
        Diagnostic::new("saturate internal", format!("@{}: {message}", self.function))
    }

    fn no_conflict(&self, by: &str) -> Result<(), Diagnostic> {
        match &self.encoded.graph.analysis.conflict {
            Some(what) => Err(self.fault(format!("{by} joins {what}"))),
            None => Ok(()),
        }
    }

    /// Rounds with the rules of a phase and of those before it, until nothing changes.
    fn phase(&mut self, phase: Phase) -> Result<(), Diagnostic> {
        if !self.rules.iter().any(|r| r.phase == phase) {
            return Ok(());
        }
        let active: Vec<usize> = (0..self.rules.len()).filter(|&i| self.rules[i].phase <= phase).collect();
        for round in 0.. {
            if round == self.limits.rounds {
                self.stopped.get_or_insert(format!("rounds of phase {}", phase.text()));
                break;
            }
            self.round += 1;
            let found: Vec<(usize, Vec<Found>)> = active.iter().map(|&i| (i, self.search(i))).collect();
            let mut changed = false;
            for (rule, found) in found {
                changed |= self.apply(rule, found)?;
                if self.stopped.is_some() {
                    break;
                }
            }
            self.encoded.graph.rebuild();
            let last = self.applications.last().map_or("nothing", |a| self.rules[a.rule].name);
            self.no_conflict(&format!("after rule {last}, congruence"))?;
            let waiting = active.iter().any(|&i| self.states[i].banned_until > self.round);
            if self.stopped.is_some() || !changed && !waiting {
                break;
            }
        }
        Ok(())
    }

    /// The new matches of a rule; none while it is backed off.
    fn search(&mut self, rule: usize) -> Vec<Found> {
        if self.states[rule].banned_until > self.round {
            return Vec::new();
        }
        let started = Instant::now();
        let allowed = self.limits.matches << self.states[rule].banned;
        let mut found = self.rules[rule].search(&self.encoded.graph, allowed + 1);
        let state = &mut self.states[rule];
        if found.len() > allowed {
            state.banned_until = self.round + (BACK_OFF_ROUNDS << state.banned);
            state.banned += 1;
            state.report.backed_off += 1;
            found.clear();
        }
        let graph = &self.encoded.graph;
        found.retain(|f| self.seen.insert(key(rule, f, graph)));
        state.report.matches += found.len();
        state.report.time += started.elapsed();
        found
    }

    fn apply(&mut self, rule: usize, found: Vec<Found>) -> Result<bool, Diagnostic> {
        let started = Instant::now();
        if started.duration_since(self.started) > self.limits.abort {
            return Err(self.fault(format!(
                "saturation takes longer than {} s; it has {} nodes, and works on rule {}",
                self.limits.abort.as_secs(),
                self.encoded.graph.total_size(),
                self.rules[rule].name
            )));
        }
        let mut changed = false;
        for f in found {
            let at = Match { classes: Classes(&self.encoded.graph), root: f.root, bound: Cow::Borrowed(&f.bound) };
            match self.rules[rule].apply(&at) {
                Ok(term) => changed |= self.join(rule, f, &term)?,
                Err(Ok(refusal)) => {
                    let why = refusal.0.into_owned();
                    self.refused.push((rule, f.root, why.clone()));
                    *self.states[rule].report.refusals.entry(why).or_default() += 1;
                }
                Err(Err(fault)) => return Err(self.fault(fault)),
            }
            if self.encoded.graph.total_size() > self.limits.nodes {
                self.stopped = Some(format!("nodes: {} in rule {}", self.limits.nodes, self.rules[rule].name));
                break;
            }
        }
        self.states[rule].report.time += started.elapsed();
        Ok(changed)
    }

    /// Joins the matched class with the right side.
    fn join(&mut self, rule: usize, found: Found, term: &Term) -> Result<bool, Diagnostic> {
        let mut new = Vec::new();
        let right = add_term(&mut self.encoded.graph, term, &mut new);
        let joined = self.encoded.graph.union(found.root, right);
        self.no_conflict(&format!("rule {}", self.rules[rule].name))?;
        if joined {
            self.states[rule].report.applied += 1;
            self.applications.push(Application { rule, left: found.left, new });
        }
        Ok(joined)
    }
}

fn key(rule: usize, found: &Found, graph: &Graph) -> u64 {
    let mut hasher = DefaultHasher::new();
    (rule, graph.find(found.root)).hash(&mut hasher);
    found.bound.iter().for_each(|(name, id)| (name, graph.find(*id)).hash(&mut hasher));
    // Attributes with a literal in the pattern are no variables: the nodes tell such matches apart.
    found.left.hash(&mut hasher);
    hasher.finish()
}
