//! Functions and modules made better: saturated and extracted, or rewritten greedily.

use super::analysis::Classes;
use super::cost::{self, Rates};
use super::encode::{Choice, Encoded, Label, decode, node_term};
use super::extract::{Alt, Chosen, Extraction, Space};
use super::greedy::greedy;
use super::group::Grouped;
use super::origin::Origins;
use super::report::{Alternative, FunctionReport, Reason};
use super::rule::{Rule, Term};
use super::run::{Limits, Saturated, saturate};
use crate::{Notes, Pass, rules};
use egg::Id;
use selvedge_ir::attr::Attr;
use selvedge_ir::known::FastMap;
use selvedge_ir::{Def, Diagnostic, Function, Module, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Plans that are kept of each function, the best included.
pub const BEST: usize = 4;
/// Alternatives of a value that a report lists.
const MOST_ALTERNATIVES: usize = 6;
/// Rules a value that a report lists as refused.
const MOST_REFUSALS: usize = 8;

/// How rules are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Strategy {
    /// In one e-graph, from which the cheapest program is taken.
    #[default]
    Saturate,
    /// One after another, each where it does not make the program dearer.
    Greedy,
}

/// The programs next to the best of a function, best first.
#[derive(Clone, Debug)]
pub struct NextBest {
    programs: Vec<Function>,
    /// Where calls that follow each other count as one: few of the programs are ever wanted whole.
    grouped: Option<Grouped>,
}

impl NextBest {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.programs.len()
    }
    /// The best program is the only one.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }
    /// One of them; `None` if there are fewer.
    ///
    /// # Errors
    /// A fault of the compiler: a value is read before it is there.
    pub fn program(&self, at: usize) -> Option<Result<Function, Diagnostic>> {
        self.programs.get(at).map(|program| self.whole(program.clone()))
    }
    fn whole(&self, program: Function) -> Result<Function, Diagnostic> {
        let Some(grouped) = &self.grouped else { return Ok(program) };
        let mut whole = grouped.expanded(program)?;
        name_all(&mut whole);
        Ok(whole)
    }
}

/// The pass.
#[derive(Clone, Debug)]
pub struct Saturate {
    /// The laws.
    pub rules: Vec<Rule>,
    /// What the cost model knows of the device.
    pub rates: Rates,
    /// Limits that shape results.
    pub limits: Limits,
    /// How the rules are used.
    pub strategy: Strategy,
    /// Which of the best programs of a function is taken, by its name: 1 is next to the best. Others get the best.
    pub ranks: BTreeMap<String, usize>,
}

impl Saturate {
    /// All rules, for a device.
    pub fn new(rates: Rates, strategy: Strategy) -> Saturate {
        Saturate { rules: rules::all(), rates, limits: Limits::default(), strategy, ranks: BTreeMap::new() }
    }
    /// One function: the best program, what was done, and the programs next to the best.
    ///
    /// # Errors
    /// A fault of a rule, or the time for an abort is over.
    pub fn function(&self, function: &Function) -> Result<(Function, FunctionReport, NextBest), Diagnostic> {
        let grouped = Grouped::of(function)?;
        let (best, report, programs) = self.rewritten(grouped.as_ref().map_or(function, |g| &g.function))?;
        let next = NextBest { programs, grouped };
        Ok((next.whole(best)?, report, next))
    }

    fn rewritten(&self, function: &Function) -> Result<(Function, FunctionReport, Vec<Function>), Diagnostic> {
        match self.strategy {
            Strategy::Saturate => self.saturated(function),
            Strategy::Greedy => self.greedy(function),
        }
    }

    fn saturated(&self, function: &Function) -> Result<(Function, FunctionReport, Vec<Function>), Diagnostic> {
        let started = Instant::now();
        let Saturated { encoded, applications, refused, rules: reports, rounds, stopped } =
            saturate(function, &self.rules, &self.limits)?;
        let saturated = started.elapsed();
        let started = Instant::now();
        let mut space = Space::new(function, &encoded, &self.rates);
        let fault = || Diagnostic::new("saturate internal", format!("@{} has no program", function.name));
        let found = space.extract(function, &encoded).ok_or_else(fault)?;
        let origins = Origins::new(function, &encoded, &applications);
        let write = |chosen: &Chosen| {
            let choice = Extracted { space: &space, chosen, encoded: &encoded, origins: &origins };
            let (mut function, values) = decode(function, &encoded, &choice)?;
            name_all(&mut function);
            Ok::<_, Diagnostic>((function, values))
        };
        let (best, values) = write(&found.best)?;
        let kept = found.best(BEST);
        let others = kept.iter().skip(1).map(|c| write(c).map(|(f, _)| f)).collect::<Result<_, _>>()?;
        let before = cost::of_function(function, &self.rates);
        let report = FunctionReport {
            name: function.name.clone(),
            nodes: encoded.graph.total_size(),
            classes: encoded.graph.number_of_classes(),
            rounds,
            stopped,
            rules: reports,
            seconds_before: before.seconds,
            seconds_after: found.best.seconds,
            kernels: (before.kernels.len(), found.best.kernels),
            best: kept.iter().map(|c| c.seconds).collect(),
            reasons: self.reasons(&best, &values, &space, &found, &origins, &self.refusals(&encoded, &refused)),
            time: (saturated, started.elapsed()),
        };
        Ok((best, report, others))
    }

    fn greedy(&self, function: &Function) -> Result<(Function, FunctionReport, Vec<Function>), Diagnostic> {
        let started = Instant::now();
        let (mut best, rules) = greedy(function, &self.rules, &self.rates)?;
        name_all(&mut best);
        let before = cost::of_function(function, &self.rates);
        let after = cost::of_function(&best, &self.rates);
        let report = FunctionReport {
            name: function.name.clone(),
            nodes: best.values.len(),
            classes: best.values.len(),
            rounds: rules.iter().map(|r| r.applied).sum(),
            stopped: None,
            rules,
            seconds_before: before.seconds,
            seconds_after: after.seconds,
            kernels: (before.kernels.len(), after.kernels.len()),
            best: vec![after.seconds],
            reasons: Vec::new(),
            time: (started.elapsed(), Duration::ZERO),
        };
        Ok((best, report, Vec::new()))
    }

    /// What rules said of each class that they left as it was.
    fn refusals(
        &self,
        encoded: &Encoded,
        refused: &[(usize, Id, String)],
    ) -> BTreeMap<Id, Vec<(&'static str, String)>> {
        let mut of: BTreeMap<Id, Vec<(&'static str, String)>> = BTreeMap::new();
        for (rule, class, why) in refused {
            let said = of.entry(encoded.graph.find(*class)).or_default();
            let name = self.rules[*rule].name;
            if said.len() < MOST_REFUSALS && said.iter().all(|(known, _)| *known != name) {
                said.push((name, why.clone()));
            }
        }
        of
    }

    /// Why each value of the best program is what it is.
    fn reasons(
        &self,
        best: &Function,
        values: &BTreeMap<Id, ValueId>,
        space: &Space,
        found: &Extraction,
        origins: &Origins,
        refusals: &BTreeMap<Id, Vec<(&'static str, String)>>,
    ) -> Vec<Reason> {
        let mut others: BTreeMap<usize, Vec<Alternative>> = BTreeMap::new();
        for trial in &found.trials {
            let alt = &space.alts[trial.class][trial.alt];
            let term = alt.op.as_ref().map_or_else(String::new, term_text);
            let seconds = trial.chosen.as_ref().map(|c| c.seconds);
            others.entry(trial.class).or_default().push(Alternative { term, seconds });
        }
        let mut reasons = Vec::new();
        for &class in &found.best.order {
            let alt = &space.alts[class][found.best.alts[class]];
            let Some(value) = values.get(&space.ids[class]) else { continue };
            let mut alternatives = others.remove(&class).unwrap_or_default();
            alternatives.sort_by(|a, b| {
                let key = |x: &Alternative| x.seconds.unwrap_or(f64::INFINITY);
                key(a).total_cmp(&key(b)).then_with(|| a.term.cmp(&b.term))
            });
            alternatives.truncate(MOST_ALTERNATIVES);
            let chain: Vec<&'static str> = origins.chain(&alt.node).iter().map(|r| self.rules[*r].name).collect();
            let refused = refusals.get(&space.ids[class]).cloned().unwrap_or_default();
            if !chain.is_empty() || !alternatives.is_empty() || !refused.is_empty() {
                let value = best.value(*value).name.clone().unwrap_or_default();
                reasons.push(Reason { value, chain, alternatives, refused });
            }
        }
        reasons
    }
}

impl Pass for Saturate {
    fn name(&self) -> &'static str {
        "saturate"
    }
    fn summary(&self) -> &'static str {
        "rewrites each function by the rules, and keeps the cheapest program"
    }
    fn parts(&self) -> Vec<&'static str> {
        self.rules.iter().map(|rule| rule.name).collect()
    }
    fn with_parts(&self, keep: &dyn Fn(&str) -> bool) -> Option<Box<dyn Pass>> {
        let rules = self.rules.iter().filter(|rule| keep(rule.name)).cloned().collect();
        Some(Box::new(Saturate { rules, ..self.clone() }))
    }
    fn run(&self, module: Module) -> Result<Module, Diagnostic> {
        self.run_noting(module, &mut Notes::default())
    }
    fn run_noting(&self, mut module: Module, notes: &mut Notes) -> Result<Module, Diagnostic> {
        for function in &mut module.functions {
            let (best, report, others) = self.function(function)?;
            let rank = self.ranks.get(&function.name).copied().unwrap_or(0);
            let next = rank.checked_sub(1).and_then(|next| others.program(next));
            *function = next.transpose()?.unwrap_or(best);
            notes.saturation.push(report);
            notes.next_best.push(others);
        }
        Ok(module)
    }
}

/// An operator with its attributes, as text.
fn term_text(op: &Op) -> String {
    let attributes = op.kind().attributes().iter().zip(op.attrs());
    let shown = attributes.filter(|(_, a)| !matches!(a, Attr::Type(_) | Attr::Data(_)));
    let text: Vec<String> = shown.map(|((name, _, _), a)| format!(" {name}={a}")).collect();
    format!("{}{}", op.kind().text(), text.concat())
}

/// Gives every value a name of its own, so that reports can speak of it after later passes.
fn name_all(function: &mut Function) {
    let mut taken: FastMap<&str, ()> = FastMap::default();
    let names = function.values.iter().map(|v| v.name.as_deref());
    let nameless: Vec<bool> = names.map(|n| n.is_none_or(|n| taken.insert(n, ()).is_some())).collect();
    let (mut next, mut made) = (0, BTreeSet::new());
    let mut names: Vec<(usize, String)> = Vec::new();
    for (at, value) in function.values.iter().enumerate().filter(|(at, _)| nameless[*at]) {
        let kind = match &value.def {
            Def::Op { op, .. } => op.kind().text(),
            Def::Result { .. } => "result",
        };
        let name = loop {
            let name = format!("{kind}{next}");
            if !taken.contains_key(name.as_str()) && made.insert(name.clone()) {
                break name;
            }
            next += 1;
        };
        names.push((at, name));
    }
    names.into_iter().for_each(|(at, name)| function.values[at].name = Some(name));
}

struct Extracted<'a> {
    space: &'a Space<'a>,
    chosen: &'a Chosen,
    encoded: &'a Encoded,
    origins: &'a Origins<'a>,
}

impl Extracted<'_> {
    fn alt(&self, class: Id) -> Option<&Alt> {
        let place = *self.space.index.get(&class)?;
        self.space.alts[place].get(self.chosen.alts[place])
    }
}

impl Choice for Extracted<'_> {
    fn term(&self, class: Id) -> Option<Term> {
        node_term(Classes(&self.encoded.graph), &self.alt(class)?.node)
    }
    fn label(&self, class: Id) -> Label {
        let places = self.alt(class).map(|alt| self.origins.places(&alt.node)).unwrap_or_default();
        Label { name: self.origins.name(class).cloned(), places }
    }
}
