//! What is known of every class: types by the operators' own `infer`, constants, and when a value is known.

use super::language::{Node, operator};
use egg::{Analysis, DidMerge, EGraph, Id};
use selvedge_ir::attr::Attr;
use selvedge_ir::interp::Precision;
use selvedge_ir::scalar::F64;
use selvedge_ir::{Op, Tensor, TensorType};

/// The e-graph of a function.
pub type Graph = EGraph<Node, Facts>;

/// The analysis: what nodes cannot say themselves.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Types of the values from outside, by the number in [`Node::Param`].
    pub params: Vec<TensorType>,
    /// Set when two classes of different type were joined: the types, for the driver, which knows the rule.
    pub conflict: Option<String>,
}

/// When a value is known, as far as saturation asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// Computed from constants.
    Const,
    /// Computed from constants and weights.
    Load,
    /// Depends on an input, a state or a call.
    Run,
}

/// What is known of a class.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// It is this attribute.
    Attr(Attr),
    /// It is a tensor.
    Tensor(TensorFact),
}

/// What is known of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorFact {
    /// Its type.
    pub ty: TensorType,
    /// The value of all its elements, if it is one constant.
    pub splat: Option<F64>,
    /// When it is known at the latest.
    pub binding: Binding,
}

impl Analysis<Node> for Facts {
    type Data = Fact;
    fn make(graph: &mut Graph, node: &Node, _: Id) -> Fact {
        match fact(graph, node) {
            Ok(fact) => fact,
            Err(message) => {
                graph.analysis.conflict.get_or_insert(message);
                Fact::Attr(Attr::Flag(false))
            }
        }
    }
    fn merge(&mut self, to: &mut Fact, from: Fact) -> DidMerge {
        match (to, from) {
            (Fact::Tensor(a), Fact::Tensor(b)) if a.ty == b.ty => {
                let (splat, binding) = (a.splat.or(b.splat), a.binding.min(b.binding));
                let merged =
                    DidMerge(splat != a.splat || binding != a.binding, splat != b.splat || binding != b.binding);
                (a.splat, a.binding) = (splat, binding);
                merged
            }
            (Fact::Attr(a), Fact::Attr(b)) if *a == b => DidMerge(false, false),
            (a, b) => {
                self.conflict.get_or_insert_with(|| format!("{} with {}", a.name(), b.name()));
                DidMerge(false, true)
            }
        }
    }
}

impl Fact {
    fn name(&self) -> String {
        match self {
            Fact::Attr(a) => format!("the attribute {a}"),
            Fact::Tensor(t) => t.ty.to_string(),
        }
    }
}

fn fact(graph: &Graph, node: &Node) -> Result<Fact, String> {
    let (kind, attributes, operands) = match node {
        Node::Attr(a) => return Ok(Fact::Attr(a.clone())),
        Node::Param(i) => {
            let ty = graph.analysis.params[*i as usize].clone();
            return Ok(Fact::Tensor(TensorFact { ty, splat: None, binding: Binding::Run }));
        }
        Node::Op(..) => node.parts().expect("an operator has parts"),
    };
    let attributes: Vec<Attr> = attributes
        .iter()
        .map(|id| match &graph[*id].data {
            Fact::Attr(a) => Ok(a.clone()),
            Fact::Tensor(t) => Err(format!("`{}` has a tensor {} for an attribute", kind.text(), t.ty)),
        })
        .collect::<Result<_, _>>()?;
    let operands: Vec<&TensorFact> = operands
        .iter()
        .map(|id| match &graph[*id].data {
            Fact::Tensor(t) => Ok(t),
            Fact::Attr(a) => Err(format!("`{}` has the attribute {a} for an operand", kind.text())),
        })
        .collect::<Result<_, _>>()?;
    let op = operator(kind, &attributes).map_err(|e| format!("`{}` has a wrong attribute `{e}`", kind.text()))?;
    let types: Vec<&TensorType> = operands.iter().map(|t| &t.ty).collect();
    let ty = op.infer(&types).map_err(|e| e.diagnostic(kind.text()).to_string())?;
    let latest = operands.iter().map(|t| t.binding).max().unwrap_or(Binding::Const);
    let (splat, binding) = match &op {
        Op::Const(c) => (constant(c), Binding::Const),
        Op::Weight(_) => (None, Binding::Load),
        Op::Input(_) | Op::State(_) => (None, Binding::Run),
        Op::Transpose(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Slice(_) => (operands[0].splat, latest),
        _ => (None, latest),
    };
    Ok(Fact::Tensor(TensorFact { ty, splat, binding }))
}

/// The value that all elements of a constant have.
fn constant(c: &selvedge_ir::ops::Const) -> Option<F64> {
    let width = c.data.0.len().checked_div(c.ty.elements()?)?;
    let first = c.data.0.get(..width).filter(|w| !w.is_empty())?;
    if !c.data.0.chunks_exact(width).all(|chunk| chunk == first) {
        return None;
    }
    let one = Tensor::from_bytes(TensorType::new(c.ty.dtype, [] as [usize; 0]), first).ok()?;
    one.in_precision(Precision::F64).to_f64().first().copied().map(F64)
}

/// A graph's facts, for those who read.
#[derive(Clone, Copy)]
pub struct Classes<'g>(pub &'g Graph);

impl<'g> Classes<'g> {
    /// What is known of a tensor.
    ///
    /// # Panics
    /// If the class is an attribute, which is a mistake in a rule.
    pub fn tensor(self, id: Id) -> &'g TensorFact {
        match &self.0[id].data {
            Fact::Tensor(t) => t,
            Fact::Attr(a) => panic!("a rule takes the attribute {a} for a tensor"),
        }
    }
    /// A tensor's type.
    pub fn ty(self, id: Id) -> &'g TensorType {
        &self.tensor(id).ty
    }
    /// An attribute's value.
    ///
    /// # Panics
    /// If the class is a tensor, which is a mistake in a rule.
    pub fn attr(self, id: Id) -> &'g Attr {
        match &self.0[id].data {
            Fact::Attr(a) => a,
            Fact::Tensor(t) => panic!("a rule takes a tensor {} for an attribute", t.ty),
        }
    }
    /// The ways to compute a class: operators with their operands, in the graph's order.
    pub fn ops(self, id: Id) -> impl Iterator<Item = (Op, &'g [Id])> {
        self.0[id].nodes.iter().filter_map(move |node| self.op(node))
    }
    /// A node's operator and operands.
    pub fn op(self, node: &'g Node) -> Option<(Op, &'g [Id])> {
        let (kind, attributes, operands) = node.parts()?;
        let attributes: Vec<Attr> = attributes.iter().map(|id| self.attr(*id).clone()).collect();
        operator(kind, &attributes).ok().map(|op| (op, operands))
    }
}
