//! Rules: named, directed laws. A rule is a value; only the driver changes a graph.

use super::analysis::{Classes, Graph};
use super::language::{Discriminant, Node, commuted, pattern};
use egg::{ENodeOrVar, Id, Language, Pattern, PatternAst, Searcher as _, Var};
use selvedge_ir::attr::{Attr, AttrValue};
use selvedge_ir::{Op, OpKind, TensorType};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// When a rule is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Pointwise identities, constants, reassociation.
    Algebra,
    /// Transposes, reshapes, broadcasts and slices sunk, merged and cancelled.
    Layout,
    /// Contractions: canonical forms, absorbed transposes, chains.
    Contract,
    /// Composites discovered from primitives.
    Composite,
    /// Neighbours taken into a composite or a contraction.
    Fuse,
}

impl Phase {
    /// All of them, in the order in which they begin.
    pub const ALL: [Phase; 5] = [Phase::Algebra, Phase::Layout, Phase::Contract, Phase::Composite, Phase::Fuse];
    /// The name in reports.
    pub fn text(self) -> &'static str {
        match self {
            Phase::Algebra => "algebra",
            Phase::Layout => "layout",
            Phase::Contract => "contract",
            Phase::Composite => "composite",
            Phase::Fuse => "fuse",
        }
    }
}

/// Why a rule does not apply where its left side matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Refusal(pub Cow<'static, str>);

impl From<&'static str> for Refusal {
    fn from(reason: &'static str) -> Refusal {
        Refusal(reason.into())
    }
}
impl From<String> for Refusal {
    fn from(reason: String) -> Refusal {
        Refusal(reason.into())
    }
}

/// The right side of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// A tensor that the left side bound.
    Class(Id),
    /// An operator on terms.
    Op(Box<Op>, Vec<Term>),
}

impl Term {
    /// An operator on terms.
    pub fn op(op: impl Into<Op>, args: impl Into<Vec<Term>>) -> Term {
        Term::Op(Box::new(op.into()), args.into())
    }
    /// The term's type; what the operators' `infer` says.
    ///
    /// # Errors
    /// The violated constraint.
    pub fn infer(&self, classes: Classes) -> Result<TensorType, String> {
        match self {
            Term::Class(id) => Ok(classes.ty(*id).clone()),
            Term::Op(op, args) => {
                let types: Vec<TensorType> = args.iter().map(|a| a.infer(classes)).collect::<Result<_, _>>()?;
                let types: Vec<&TensorType> = types.iter().collect();
                op.infer(&types).map_err(|e| e.diagnostic(op.kind().text()).to_string())
            }
        }
    }
}

/// A place where a rule's left side holds.
#[derive(Clone)]
pub struct Match<'g> {
    /// The graph's facts.
    pub classes: Classes<'g>,
    /// The class that the left side is.
    pub root: Id,
    pub(super) bound: Cow<'g, [(String, Id)]>,
}

impl<'g> Match<'g> {
    /// The class of a variable, named without `?`.
    ///
    /// # Panics
    /// If the left side has no such variable, which is a mistake in the rule.
    pub fn id(&self, name: &str) -> Id {
        match self.bound.iter().find(|(n, _)| n == name) {
            Some((_, id)) => *id,
            None => panic!("a rule asks for `?{name}`, which its left side does not bind"),
        }
    }
    /// The classes of the variables with this prefix and a number, in order: operands of a variadic operator.
    pub fn all(&self, prefix: &str) -> Vec<Id> {
        let numbered = |n: &str| n.strip_prefix(prefix).and_then(|n| n.parse::<usize>().ok());
        let mut found: Vec<(usize, Id)> = self.bound.iter().filter_map(|(n, id)| Some((numbered(n)?, *id))).collect();
        found.sort_unstable_by_key(|(number, _)| *number);
        found.into_iter().map(|(_, id)| id).collect()
    }
    /// A bound tensor as a term.
    pub fn term(&self, name: &str) -> Term {
        Term::Class(self.id(name))
    }
    /// A bound tensor's type.
    pub fn ty(&self, name: &str) -> &'g TensorType {
        self.classes.ty(self.id(name))
    }
    /// The matched value's type; the right side must have it.
    pub fn root_ty(&self) -> &'g TensorType {
        self.classes.ty(self.root)
    }
    /// A bound tensor's extents. Symbols are specialised before saturation.
    pub fn sizes(&self, name: &str) -> Vec<usize> {
        self.ty(name).shape.sizes()
    }
    /// The value of all elements of a bound tensor, if it is one constant.
    pub fn splat(&self, name: &str) -> Option<f64> {
        self.classes.tensor(self.id(name)).splat.map(|x| x.0)
    }
    /// A bound attribute as any of the types an operator's field may have.
    ///
    /// # Panics
    /// If the attribute is of another kind, which is a mistake in the rule.
    pub fn attr<T: AttrValue>(&self, name: &str) -> T {
        let attr: &Attr = self.classes.attr(self.id(name));
        T::from_attr(attr).unwrap_or_else(|| panic!("a rule reads `?{name}` = {attr} as another kind"))
    }
}

/// What a custom searcher found at one node: variables, by name without `?`.
pub type Bindings = Vec<(String, Id)>;

type Finder = dyn Fn(Classes, Id, &Op, &[Id]) -> Vec<Bindings> + Send + Sync;
type Applier = dyn Fn(&Match) -> Result<Term, Refusal> + Send + Sync;

/// A pattern and its variables with their names.
type Named = (Arc<Pattern<Node>>, Vec<(Var, String)>);

#[derive(Clone)]
enum Left {
    Patterns(Vec<Named>),
    Custom(OpKind, Arc<Finder>),
}

/// A named, directed law.
#[derive(Clone)]
pub struct Rule {
    /// `root-what-happens`, as in `transpose-of-transpose`.
    pub name: &'static str,
    /// The law in one line of mathematics, with its domain if that is not everything.
    pub law: &'static str,
    /// When it is tried.
    pub phase: Phase,
    /// The two sides are equal over the reals, but the right one leaves out a rounding that the left one does.
    pub skips_rounding: bool,
    left: Left,
    right: Arc<Applier>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}", self.name)
    }
}

/// What a search found: the root, the variables, and the nodes of the left side (for explanations).
pub(super) struct Found {
    pub root: Id,
    pub bound: Bindings,
    pub left: Vec<Node>,
}

impl Rule {
    /// A rule of one or more patterns (each in all orders of commuting maps) that bind the same variables.
    ///
    /// # Panics
    /// If a pattern cannot be read, which is a mistake in the rule.
    pub fn new(
        name: &'static str,
        law: &'static str,
        phase: Phase,
        patterns: &[&str],
        right: impl Fn(&Match) -> Result<Term, Refusal> + Send + Sync + 'static,
    ) -> Rule {
        let read = |text: &&str| {
            let variants = pattern(text).and_then(|ast| commuted(&ast));
            variants.unwrap_or_else(|e| panic!("rule {name}: {e}")).into_iter().map(|ast| {
                let pattern = Pattern::new(ast);
                let names = pattern.vars().into_iter().map(|v| (v, v.to_string().trim_start_matches('?').to_string()));
                let names = names.collect();
                (Arc::new(pattern), names)
            })
        };
        let left = Left::Patterns(patterns.iter().flat_map(read).collect());
        Rule { name, law, phase, skips_rounding: false, left, right: Arc::new(right) }
    }
    /// A rule with a searcher written by hand, for operators of any number of operands: it is given each node of the
    /// kind, as its class, operator and operands.
    pub fn custom(
        name: &'static str,
        law: &'static str,
        phase: Phase,
        root: OpKind,
        left: impl Fn(Classes, Id, &Op, &[Id]) -> Vec<Bindings> + Send + Sync + 'static,
        right: impl Fn(&Match) -> Result<Term, Refusal> + Send + Sync + 'static,
    ) -> Rule {
        Rule {
            name,
            law,
            phase,
            skips_rounding: false,
            left: Left::Custom(root, Arc::new(left)),
            right: Arc::new(right),
        }
    }
    /// The patterns of the left side, for those who make instances of it; none if it is a searcher written by hand.
    pub fn patterns(&self) -> Vec<&PatternAst<Node>> {
        match &self.left {
            Left::Patterns(patterns) => patterns.iter().map(|(pattern, _)| &pattern.ast).collect(),
            Left::Custom(..) => Vec::new(),
        }
    }
    /// Declares that the right side leaves out a rounding.
    pub fn skipping_a_rounding(mut self) -> Rule {
        self.skips_rounding = true;
        self
    }
    /// A broken copy for mutation checks: `f` changes what the right side gives. No compiler path calls this.
    pub fn mutated(&self, f: impl Fn(&Match, Term) -> Term + Send + Sync + 'static) -> Rule {
        let right = self.right.clone();
        Rule { right: Arc::new(move |m| right(m).map(|term| f(m, term))), ..self.clone() }
    }
    /// The right side at a match, type-checked.
    ///
    /// # Errors
    /// The rule's own refusal, or that a term's operator refuses its operands. A right side of another type than the
    /// left one is a fault of the rule: `Err(Err(what))`.
    pub(super) fn apply(&self, at: &Match) -> Result<Term, Result<Refusal, String>> {
        let term = (self.right)(at).map_err(Ok)?;
        let ty = term.infer(at.classes).map_err(|e| Ok(Refusal(format!("ill-typed: {e}").into())))?;
        match ty == *at.root_ty() {
            true => Ok(term),
            false => Err(Err(format!("rule {} gives {ty} for {}", self.name, at.root_ty()))),
        }
    }
    /// Everywhere the left side holds, `limit` places at most.
    pub(super) fn search(&self, graph: &Graph, limit: usize) -> Vec<Found> {
        let mut found = Vec::new();
        match &self.left {
            Left::Patterns(patterns) => {
                for (pattern, names) in patterns {
                    let left = limit.saturating_sub(found.len());
                    for matches in pattern.search_with_limit(graph, left) {
                        for subst in &matches.substs {
                            let bound: Bindings =
                                names.iter().filter_map(|(v, n)| Some((n.clone(), *subst.get(*v)?))).collect();
                            let nodes = instance(graph, &pattern.ast, |v| subst.get(v).copied());
                            found.push(Found { root: matches.eclass, bound, left: nodes });
                        }
                    }
                }
            }
            Left::Custom(kind, finder) => {
                let classes = graph.classes_for_op(&Discriminant::Op(*kind));
                let mut ids: Vec<Id> = classes.into_iter().flatten().collect();
                ids.sort_unstable();
                for id in ids {
                    for node in graph[id].nodes.iter().filter(|n| n.discriminant() == Discriminant::Op(*kind)) {
                        let Some((op, operands)) = Classes(graph).op(node) else { continue };
                        for bound in finder(Classes(graph), id, &op, operands) {
                            if found.len() == limit {
                                return found;
                            }
                            found.push(Found { root: id, bound, left: vec![node.clone()] });
                        }
                    }
                }
            }
        }
        found
    }
}

/// The nodes of a pattern's instance that are operators, operands first.
fn instance(graph: &Graph, ast: &PatternAst<Node>, var: impl Fn(Var) -> Option<Id>) -> Vec<Node> {
    let mut ids: Vec<Option<Id>> = Vec::with_capacity(ast.len());
    let mut nodes = Vec::new();
    for part in ast.iter() {
        let id = match part {
            ENodeOrVar::Var(v) => var(*v),
            ENodeOrVar::ENode(node) => {
                let children: Option<Vec<Id>> = node.children().iter().map(|c| ids[usize::from(*c)]).collect();
                children.and_then(|children| {
                    let mut children = children.into_iter();
                    let node = node.clone().map_children(|_| children.next().expect("one for each"));
                    let id = graph.lookup(node.clone());
                    if matches!(node, Node::Op(..)) {
                        nodes.push(node);
                    }
                    id
                })
            }
        };
        ids.push(id);
    }
    nodes
}
