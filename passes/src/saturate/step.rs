//! One application of one rule to a function: what file tests, property tests and the greedy baseline use.

use super::analysis::Classes;
use super::encode::{Choice, Encoded, Label, decode, encode, node_term};
use super::rule::{Match, Refusal, Rule, Term};
use egg::Id;
use selvedge_ir::{Diagnostic, Function};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Places a single application looks at, at most.
const MOST_PLACES: usize = 10_000;

/// What a rule does at one place of a function.
#[derive(Clone, Debug)]
pub enum Step {
    /// The function with the left side replaced.
    Rewritten(Function),
    /// The left side is there, and the rule does not apply.
    Refused(Refusal),
}

/// Everywhere a rule's left side holds in a function, and what comes of it.
///
/// # Errors
/// A right side of another type than the left one: a fault of the rule.
pub fn steps(function: &Function, rule: &Rule) -> Result<Vec<Step>, Diagnostic> {
    let encoded = encode(function);
    let labels = labels(function, &encoded);
    let mut steps = Vec::new();
    for found in rule.search(&encoded.graph, MOST_PLACES) {
        let at = Match { classes: Classes(&encoded.graph), root: found.root, bound: Cow::Owned(found.bound) };
        match rule.apply(&at) {
            Ok(term) => {
                if let Some(new) = replaced(function, &encoded, &labels, found.root, &term)? {
                    steps.push(Step::Rewritten(new));
                }
            }
            Err(Ok(refusal)) => steps.push(Step::Refused(refusal)),
            Err(Err(fault)) => return Err(Diagnostic::new("saturate internal", fault)),
        }
    }
    Ok(steps)
}

/// The function after a rule was applied wherever it applies, again and again, `limit` times at most.
///
/// # Errors
/// As [`steps`].
pub fn exhaust(function: &Function, rule: &Rule, limit: usize) -> Result<Function, Diagnostic> {
    let mut function = function.clone();
    for _ in 0..limit {
        let rewritten = steps(&function, rule)?.into_iter().find_map(|s| match s {
            Step::Rewritten(new) if new != function => Some(new),
            Step::Rewritten(_) | Step::Refused(_) => None,
        });
        let Some(new) = rewritten else { break };
        function = new;
    }
    Ok(function)
}

/// Names and places of each class of a function without unions.
pub(super) fn labels(function: &Function, encoded: &Encoded) -> BTreeMap<Id, Label> {
    let mut labels: BTreeMap<Id, Label> = BTreeMap::new();
    for (value, id) in function.values.iter().zip(&encoded.ids) {
        let label = labels.entry(encoded.graph.find(*id)).or_default();
        if label.name.is_none() {
            label.name = value.name.clone();
        }
        for place in &value.places {
            if !label.places.contains(place) {
                label.places.push(*place);
            }
        }
    }
    labels
}

/// The function with a class replaced by a term; `None` if the term contains the class.
pub(super) fn replaced(
    function: &Function,
    encoded: &Encoded,
    labels: &BTreeMap<Id, Label>,
    root: Id,
    term: &Term,
) -> Result<Option<Function>, Diagnostic> {
    let root = encoded.graph.find(root);
    if contains(encoded, term, root) {
        return Ok(None);
    }
    let choice = Replaced { encoded, labels, root, term };
    decode(function, encoded, &choice).map(|(f, _)| Some(f))
}

fn contains(encoded: &Encoded, term: &Term, root: Id) -> bool {
    match term {
        Term::Class(id) => encoded.graph.find(*id) == root,
        Term::Op(_, args) => args.iter().any(|a| contains(encoded, a, root)),
    }
}

struct Replaced<'a> {
    encoded: &'a Encoded,
    labels: &'a BTreeMap<Id, Label>,
    root: Id,
    term: &'a Term,
}

impl Choice for Replaced<'_> {
    fn term(&self, class: Id) -> Option<Term> {
        if class == self.root {
            return Some(self.term.clone());
        }
        // Without unions a class is one node.
        let node = self.encoded.graph[class].nodes.first()?;
        node_term(Classes(&self.encoded.graph), node)
    }
    fn label(&self, class: Id) -> Label {
        self.labels.get(&class).cloned().unwrap_or_default()
    }
}
