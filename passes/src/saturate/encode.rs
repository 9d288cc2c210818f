//! Functions as e-graphs, and back.

use super::analysis::{Classes, Facts, Graph};
use super::language::Node;
use super::rule::Term;
use egg::Id;
use selvedge_ir::attr::Attr;
use selvedge_ir::func::{Builder, CallId, Target};
use selvedge_ir::{Def, Diagnostic, Function, Op, Place, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// A function in a graph: the class of each value. Calls cut the graph: their results are leaves, their arguments roots.
#[derive(Debug)]
pub struct Encoded {
    /// The graph.
    pub graph: Graph,
    /// For each value of the function, its class (not canonical after unions).
    pub ids: Vec<Id>,
}

/// Adds an operator to a graph.
pub fn add(graph: &mut Graph, op: &Op, operands: &[Id]) -> Id {
    let mut children: Vec<Id> = op.attrs().into_iter().map(|a| graph.add(Node::Attr(a))).collect();
    children.extend(operands);
    graph.add(Node::Op(op.kind(), children.into()))
}

/// Adds a term to a graph; nodes that were not there go to `new`.
pub fn add_term(graph: &mut Graph, term: &Term, new: &mut Vec<Node>) -> Id {
    match term {
        Term::Class(id) => graph.find(*id),
        Term::Op(op, args) => {
            let args: Vec<Id> = args.iter().map(|a| add_term(graph, a, new)).collect();
            let mut children: Vec<Id> = op.attrs().into_iter().map(|a| graph.add(Node::Attr(a))).collect();
            children.extend(args);
            let node = Node::Op(op.kind(), children.into());
            if graph.lookup(node.clone()).is_none() {
                new.push(node.clone());
            }
            graph.add(node)
        }
    }
}

/// Builds the graph of a function.
pub fn encode(function: &Function) -> Encoded {
    let mut graph = Graph::new(Facts::default());
    let mut ids: Vec<Id> = Vec::with_capacity(function.values.len());
    for id in function.ids() {
        ids.push(match &function.value(id).def {
            Def::Op { op, args } => {
                let args: Vec<Id> = args.iter().map(|a| ids[a.0 as usize]).collect();
                add(&mut graph, op, &args)
            }
            Def::Result { .. } => {
                let number = graph.analysis.params.len() as u32;
                graph.analysis.params.push(function.ty(id).clone());
                graph.add(Node::Param(number))
            }
        });
    }
    graph.rebuild();
    Encoded { graph, ids }
}

/// What is remembered of the values of a class for people.
#[derive(Clone, Debug, Default)]
pub struct Label {
    /// Preferred name.
    pub name: Option<String>,
    /// Origins.
    pub places: Vec<Place>,
}

/// Which node stands for a class when a function is written.
pub trait Choice {
    /// The chosen term of a canonical class: one operator on classes, or a whole term.
    fn term(&self, class: Id) -> Option<Term>;
    /// What is remembered of it.
    fn label(&self, class: Id) -> Label;
}

/// Writes a function from chosen terms. Parameters stay as they are, calls keep their order. Also says which value
/// stands for each class.
///
/// # Errors
/// A class without a term, or one that depends on itself: a fault of extraction.
pub fn decode(
    function: &Function,
    encoded: &Encoded,
    choice: &dyn Choice,
) -> Result<(Function, BTreeMap<Id, ValueId>), Diagnostic> {
    let mut writer = Writer {
        function,
        encoded,
        choice,
        to: Builder::new(function.name.clone()),
        done: BTreeMap::new(),
        open: BTreeSet::new(),
        calls: vec![None; function.calls.len()],
        params: Vec::new(),
    };
    for id in function.ids() {
        if let Def::Result { call, index } = function.value(id).def {
            writer.params.push((call, index, id));
        }
    }
    for (name, id) in function.params() {
        let new = writer.to.input(name, function.ty(id).clone());
        writer.to.set_places(new, function.value(id).places.clone());
        if let Some(label) = &function.value(id).name {
            writer.to.set_name(new, label.clone());
        }
        writer.done.insert(encoded.graph.find(encoded.ids[id.0 as usize]), new);
    }
    for call in 0..function.calls.len() {
        writer.call(CallId(call as u32))?;
    }
    for r in &function.returns {
        let value = writer.value(encoded.ids[r.value.0 as usize])?;
        match &r.target {
            Target::Output(name) => writer.to.output(name.clone(), value),
            Target::State(name) => writer.to.write_state(name.clone(), value),
        }
    }
    Ok((writer.to.finish(), writer.done))
}

struct Writer<'a> {
    function: &'a Function,
    encoded: &'a Encoded,
    choice: &'a dyn Choice,
    to: Builder,
    done: BTreeMap<Id, ValueId>,
    open: BTreeSet<Id>,
    calls: Vec<Option<Vec<ValueId>>>,
    params: Vec<(CallId, u32, ValueId)>,
}

impl Writer<'_> {
    fn fault(&self, message: String) -> Diagnostic {
        Diagnostic::new("saturate internal", format!("@{}: {message}", self.function.name))
    }

    fn value(&mut self, id: Id) -> Result<ValueId, Diagnostic> {
        let id = self.encoded.graph.find(id);
        if let Some(done) = self.done.get(&id) {
            return Ok(*done);
        }
        if !self.open.insert(id) {
            return Err(self.fault("a chosen term contains itself".to_string()));
        }
        let param = self.encoded.graph[id].nodes.iter().find_map(|n| match n {
            Node::Param(i) => Some(*i),
            Node::Attr(_) | Node::Op(..) => None,
        });
        let label = self.choice.label(id);
        let new = match (self.choice.term(id), param) {
            (Some(term), _) => self.term(&term, &label)?,
            (None, Some(number)) => {
                let (call, index, _) = self.params[number as usize];
                self.call(call)?[index as usize]
            }
            (None, None) => return Err(self.fault("a class has no chosen term".to_string())),
        };
        self.open.remove(&id);
        if let (None, Some(name)) = (&self.to.function().value(new).name, label.name) {
            self.to.set_name(new, name);
        }
        self.done.insert(id, new);
        Ok(new)
    }

    fn term(&mut self, term: &Term, label: &Label) -> Result<ValueId, Diagnostic> {
        match term {
            Term::Class(id) => self.value(*id),
            Term::Op(op, args) => {
                let args: Vec<ValueId> = args.iter().map(|a| self.term(a, label)).collect::<Result<_, _>>()?;
                let new = self.to.try_push((**op).clone(), &args)?;
                self.to.set_places(new, label.places.clone());
                Ok(new)
            }
        }
    }

    fn call(&mut self, call: CallId) -> Result<Vec<ValueId>, Diagnostic> {
        if let Some(results) = &self.calls[call.0 as usize] {
            return Ok(results.clone());
        }
        let statement = &self.function.calls[call.0 as usize];
        let args: Vec<ValueId> =
            statement.args.iter().map(|a| self.value(self.encoded.ids[a.0 as usize])).collect::<Result<_, _>>()?;
        let old: Vec<ValueId> = self.params.iter().filter(|(c, _, _)| *c == call).map(|(_, _, id)| *id).collect();
        let types: Vec<_> = old.iter().map(|id| self.function.ty(*id).clone()).collect();
        let results = self.to.call(statement.function.clone(), &args, &types);
        for (new, old) in results.iter().zip(&old) {
            let old = self.function.value(*old);
            self.to.set_places(*new, old.places.clone());
            if let Some(name) = &old.name {
                self.to.set_name(*new, name.clone());
            }
        }
        self.calls[call.0 as usize] = Some(results.clone());
        Ok(results)
    }
}

/// The operator of a node as a term on classes.
pub fn node_term(classes: Classes, node: &Node) -> Option<Term> {
    let (kind, attributes, operands) = node.parts()?;
    let attributes: Vec<Attr> = attributes.iter().map(|id| classes.attr(*id).clone()).collect();
    let op = Op::from_attrs(kind, &attributes).ok()?;
    Some(Term::op(op, operands.iter().map(|id| Term::Class(*id)).collect::<Vec<_>>()))
}
