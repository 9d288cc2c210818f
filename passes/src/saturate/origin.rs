//! Where a node of a saturated graph came from: the program, or a rule and the nodes of its left side.

use super::encode::Encoded;
use super::language::Node;
use super::run::Application;
use egg::{Id, Language as _};
use selvedge_ir::{Def, Function, Place};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Origins of nodes, and names of classes.
pub struct Origins<'a> {
    names: BTreeMap<Id, String>,
    places: HashMap<Node, Vec<Place>>,
    applied: HashMap<Node, usize>,
    applications: &'a [Application],
    encoded: &'a Encoded,
}

impl<'a> Origins<'a> {
    /// Of a saturated function.
    pub fn new(function: &Function, encoded: &'a Encoded, applications: &'a [Application]) -> Origins<'a> {
        let mut origins =
            Origins { names: BTreeMap::new(), places: HashMap::new(), applied: HashMap::new(), applications, encoded };
        for id in function.ids() {
            let value = function.value(id);
            let class = encoded.graph.find(encoded.ids[id.0 as usize]);
            if let Some(name) = &value.name {
                origins.names.entry(class).or_insert_with(|| name.clone());
            }
            if let Def::Op { op, args } = &value.def {
                let args: Vec<Id> = args.iter().map(|a| encoded.ids[a.0 as usize]).collect();
                let attributes: Option<Vec<Id>> =
                    op.attrs().into_iter().map(|a| encoded.graph.lookup(Node::Attr(a))).collect();
                let Some(mut children) = attributes else { continue };
                children.extend(args);
                let places =
                    origins.places.entry(origins.canonical(&Node::Op(op.kind(), children.into()))).or_default();
                for place in &value.places {
                    if !places.contains(place) {
                        places.push(*place);
                    }
                }
            }
        }
        for (number, application) in applications.iter().enumerate() {
            for node in &application.new {
                let node = origins.canonical(node);
                if !origins.places.contains_key(&node) {
                    origins.applied.entry(node).or_insert(number);
                }
            }
        }
        origins
    }

    fn canonical(&self, node: &Node) -> Node {
        node.clone().map_children(|id| self.encoded.graph.find(id))
    }

    /// The name of a class.
    pub fn name(&self, class: Id) -> Option<&String> {
        self.names.get(&class)
    }

    /// Applications that led to a node, in order.
    fn history(&self, node: &Node) -> (BTreeSet<usize>, Vec<Place>) {
        let mut applications = BTreeSet::new();
        let mut places: Vec<Place> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![self.canonical(node)];
        while let Some(node) = open.pop() {
            if !seen.insert(node.clone()) {
                continue;
            }
            for place in self.places.get(&node).into_iter().flatten() {
                if !places.contains(place) {
                    places.push(*place);
                }
            }
            if let Some(&number) = self.applied.get(&node) {
                applications.insert(number);
                open.extend(self.applications[number].left.iter().map(|n| self.canonical(n)));
            }
        }
        places.sort();
        (applications, places)
    }

    /// The rules that led to a node, in order of application, as places in the list of rules.
    pub fn chain(&self, node: &Node) -> Vec<usize> {
        let mut chain: Vec<usize> = Vec::new();
        for number in self.history(node).0 {
            let rule = self.applications[number].rule;
            if chain.last() != Some(&rule) {
                chain.push(rule);
            }
        }
        chain
    }

    /// Where the model code says what a node computes.
    pub fn places(&self, node: &Node) -> Vec<Place> {
        self.history(node).1
    }
}
