//! Instances of a rule's left side: random types, attributes and operands that fit a pattern.

mod contract;
mod views;

use crate::hints::{Hint, Leaf};
use egg::{ENodeOrVar, Id, PatternAst, Var};
use selvedge_ir::attr::{Attr, Literal};
use selvedge_ir::func::{Builder, Function, ValueId};
use selvedge_ir::generate::Rng;
use selvedge_ir::ops::{Broadcast, Const, Iota, Map};
use selvedge_ir::scalar::{Binary, Body, F64};
use selvedge_ir::{DType, Op, OpKind, Shape, Tensor, TensorType};
use selvedge_passes::saturate::Node;
use std::collections::BTreeMap;

/// A function whose output is an instance of the pattern; `None` if the random choices do not fit together.
pub fn instance(ast: &PatternAst<Node>, hint: &Hint, seed: u64) -> Option<Function> {
    let mut maker = Maker {
        ast,
        hint,
        rng: Rng::new(seed),
        b: Builder::new("main"),
        values: BTreeMap::new(),
        attrs: BTreeMap::new(),
        made: BTreeMap::new(),
    };
    let root = Id::from(ast.len() - 1);
    let value = maker.value(root, None)?;
    maker.b.output("y", value);
    Some(maker.b.finish())
}

struct Maker<'a> {
    ast: &'a PatternAst<Node>,
    hint: &'a Hint,
    rng: Rng,
    b: Builder,
    values: BTreeMap<Var, ValueId>,
    attrs: BTreeMap<Var, Attr>,
    /// Equal operators are one value, as in a graph.
    made: BTreeMap<(Op, Vec<ValueId>), ValueId>,
}

const MOST_ELEMENTS: usize = 600;

impl Maker<'_> {
    fn sizes(&self, id: ValueId) -> Vec<usize> {
        self.b.ty(id).shape.sizes()
    }
    fn extent(&mut self) -> usize {
        *self.rng.pick(&[1, 2, 2, 3, 3, 4])
    }
    fn shape(&mut self) -> Vec<usize> {
        let rank = *self.rng.pick(&[1, 2, 2, 3, 3, 4]);
        (0..rank).map(|_| self.extent()).collect()
    }
    fn push(&mut self, op: Op, args: &[ValueId]) -> Option<ValueId> {
        if let Some(id) = self.made.get(&(op.clone(), args.to_vec())) {
            return Some(*id);
        }
        let id = self.b.push(op.clone(), args).ok()?;
        if self.b.ty(id).elements()? > MOST_ELEMENTS {
            return None;
        }
        self.made.insert((op, args.to_vec()), id);
        Some(id)
    }
    /// The value of a pattern's node, of these extents if they are wanted.
    fn value(&mut self, node: Id, want: Option<&[usize]>) -> Option<ValueId> {
        let value = match &self.ast[node] {
            ENodeOrVar::Var(v) => self.variable(*v, want)?,
            ENodeOrVar::ENode(Node::Op(kind, children)) => {
                let (attrs, args) = children.split_at(kind.attributes().len());
                self.operator(*kind, attrs, args, want)?
            }
            ENodeOrVar::ENode(_) => return None,
        };
        match want {
            Some(want) if self.sizes(value) != want => None,
            _ => Some(value),
        }
    }
    fn variable(&mut self, v: Var, want: Option<&[usize]>) -> Option<ValueId> {
        if let Some(id) = self.values.get(&v) {
            return Some(*id);
        }
        let name = v.to_string().trim_start_matches('?').to_string();
        let sizes = want.map(<[usize]>::to_vec).unwrap_or_else(|| self.shape());
        if sizes.iter().product::<usize>() > MOST_ELEMENTS {
            return None;
        }
        let id = match self.hint.leaf(&name) {
            Leaf::Input(dtypes) => {
                let dtype = *self.rng.pick(dtypes);
                let positive = if self.hint.positive.contains(&name.as_str()) { "positive." } else { "" };
                self.b.input(format!("{positive}{name}"), TensorType::new(dtype, sizes))
            }
            Leaf::Repeated => {
                let one = Tensor::f32(&[], vec![*self.rng.pick(&[0.5, -1.25, 1.0])]);
                let c = self.push(Const { data: Literal::from(&one), ty: one.ty }.into(), &[])?;
                self.push(Broadcast { shape: Shape::new(&sizes), axes: vec![] }.into(), &[c])?
            }
            Leaf::Constant => {
                let data = (0..sizes.iter().product()).map(|_| self.rng.below(64) as f32 / 16.0 - 2.0).collect();
                let tensor = Tensor::f32(&sizes, data);
                self.push(Const { data: Literal::from(&tensor), ty: tensor.ty }.into(), &[])?
            }
            Leaf::Causal => {
                let (query, key) = (self.rng.below(sizes.len()), self.rng.below(sizes.len()));
                let ty = TensorType::new(DType::I32, sizes);
                let i = self.push(Iota { axis: query, ty: ty.clone() }.into(), &[])?;
                let j = self.push(Iota { axis: key, ty }.into(), &[])?;
                self.push(Map { body: Body::binary(Binary::Le) }.into(), &[j, i])?
            }
            Leaf::Mask => {
                let dims: Vec<usize> = (0..sizes.len()).filter(|_| self.rng.chance(0.7)).collect();
                let small: Vec<usize> = dims.iter().map(|&i| sizes[i]).collect();
                let mask = self.b.input(name, TensorType::new(DType::F32, small));
                if dims.len() == sizes.len() {
                    mask
                } else {
                    self.push(Broadcast { shape: Shape::new(&sizes), axes: dims }.into(), &[mask])?
                }
            }
            Leaf::Of(texts) => {
                let text = *self.rng.pick(texts);
                let ast = selvedge_passes::saturate::pattern(text).unwrap_or_else(|e| panic!("{text}: {e}"));
                let inner = std::mem::replace(&mut self.ast, Box::leak(Box::new(ast)));
                let id = self.value(Id::from(self.ast.len() - 1), Some(&sizes));
                self.ast = inner;
                id?
            }
        };
        self.values.insert(v, id);
        Some(id)
    }
    /// The attribute at a pattern's node: written, bound, or what the closure draws.
    fn attr(&mut self, node: Id, draw: impl FnOnce(&mut Self) -> Attr) -> Option<Attr> {
        match &self.ast[node] {
            ENodeOrVar::ENode(Node::Attr(attr)) => Some(attr.clone()),
            ENodeOrVar::Var(v) => {
                let v = *v;
                if let Some(attr) = self.attrs.get(&v) {
                    return Some(attr.clone());
                }
                let attr = draw(self);
                self.attrs.insert(v, attr.clone());
                Some(attr)
            }
            ENodeOrVar::ENode(_) => None,
        }
    }
    fn finish(&mut self, kind: OpKind, attrs: &[Attr], args: &[ValueId]) -> Option<ValueId> {
        self.push(Op::from_attrs(kind, attrs).ok()?, args)
    }
    fn is_leaf(&self, node: Id) -> bool {
        matches!(&self.ast[node], ENodeOrVar::Var(v) if !self.values.contains_key(v))
    }
    /// A number list as an attribute.
    fn ints(list: &[usize]) -> Attr {
        Attr::Ints(list.iter().map(|&n| n as i64).collect())
    }
    fn list(attr: &Attr) -> Option<Vec<usize>> {
        match attr {
            Attr::Ints(list) => Some(list.iter().map(|&n| n as usize).collect()),
            _ => None,
        }
    }

    fn operator(&mut self, kind: OpKind, attrs: &[Id], args: &[Id], want: Option<&[usize]>) -> Option<ValueId> {
        match kind {
            OpKind::Map => self.map(attrs[0], args, want),
            OpKind::Reduce => self.reduce(attrs, args[0], want),
            OpKind::Transpose => self.transpose(attrs[0], args[0], want),
            OpKind::Reshape => self.reshape(attrs[0], args[0], want),
            OpKind::Broadcast => self.broadcast(attrs, args[0], want),
            OpKind::Slice => self.slice(attrs, args[0], want),
            OpKind::Concat => self.concat(attrs[0], args),
            OpKind::Contract => self.contract(attrs, args, want),
            OpKind::Softmax => {
                let x = self.value(args[0], want)?;
                let rank = self.sizes(x).len();
                let axis = self.attr(attrs[0], |m| Attr::Int(m.rng.below(rank) as i64))?;
                self.finish(kind, &[axis], &[x])
            }
            OpKind::LayerNorm | OpKind::RmsNorm | OpKind::GroupNorm => self.norm(kind, attrs, args, want),
            OpKind::Attention => self.attention(attrs, args),
            _ => panic!("instances of `{}` are not made yet", kind.text()),
        }
    }
    fn map(&mut self, body: Id, args: &[Id], want: Option<&[usize]>) -> Option<ValueId> {
        let name = match &self.ast[body] {
            ENodeOrVar::Var(v) => v.to_string().trim_start_matches('?').to_string(),
            ENodeOrVar::ENode(_) => String::new(),
        };
        let bodies = self.hint.bodies(&name);
        let body = self.attr(body, |m| {
            let text: &str = bodies[m.rng.below(bodies.len())];
            Attr::Body(selvedge_ir::parse::body(text).expect("a body"))
        })?;
        let mut sizes = want.map(<[usize]>::to_vec);
        let mut values: Vec<Option<ValueId>> = vec![None; args.len()];
        // What is an operator or bound decides the shape; variables follow. A variable that comes first in an operator
        // beside it is drawn there.
        let mut order: Vec<usize> = (0..args.len()).collect();
        order.sort_by_key(|&i| self.is_leaf(args[i]) == (self.hint.operators_first));
        for i in order {
            let value = self.value(args[i], sizes.as_deref())?;
            sizes = Some(self.sizes(value));
            values[i] = Some(value);
        }
        let values: Vec<ValueId> = values.into_iter().collect::<Option<_>>()?;
        self.finish(OpKind::Map, &[body], &values)
    }
    fn reduce(&mut self, attrs: &[Id], x: Id, want: Option<&[usize]>) -> Option<ValueId> {
        let kind = self.attr(attrs[0], |m| Attr::Word(m.rng.pick(&["sum", "max", "min"]).to_string()))?;
        // With extents wanted and a fresh operand, axes are put in.
        let inside = want.filter(|_| self.is_leaf(x)).map(|w| {
            let mut sizes = w.to_vec();
            let at = self.rng.between(0, sizes.len());
            sizes.insert(at, self.rng.between(1, 4));
            (sizes, vec![at])
        });
        let value = self.value(x, inside.as_ref().map(|(s, _)| s.as_slice()))?;
        let rank = self.sizes(value).len();
        let axes = self.attr(attrs[1], |m| {
            if let Some((_, axes)) = &inside {
                return Self::ints(axes);
            }
            let one = m.rng.below(rank.max(1));
            let trailing: Vec<usize> = (one..rank).collect();
            let some: Vec<usize> = (0..rank).filter(|_| m.rng.chance(0.5)).collect();
            let last: Vec<usize> = (rank.saturating_sub(1)..rank).collect();
            let choices = [vec![one], last, trailing, some];
            Self::ints(&choices[m.rng.below(choices.len())])
        })?;
        if Self::list(&axes)?.is_empty() {
            return None;
        }
        self.finish(OpKind::Reduce, &[kind, axes], &[value])
    }
    fn norm(&mut self, kind: OpKind, attrs: &[Id], args: &[Id], want: Option<&[usize]>) -> Option<ValueId> {
        let x = self.value(args[0], want)?;
        let sizes = self.sizes(x);
        let axis = if kind == OpKind::GroupNorm { 1 } else { sizes.len().checked_sub(1)? };
        let channels = *sizes.get(axis)?;
        let mut drawn = Vec::new();
        if kind == OpKind::GroupNorm {
            drawn.push(self.attr(attrs[0], |_| Attr::Int(if channels % 2 == 0 { 2 } else { 1 }))?);
        }
        drawn.push(self.attr(attrs[attrs.len() - 1], |_| Attr::Float(F64(0.125)))?);
        let mut values = vec![x];
        for arg in &args[1..] {
            values.push(self.value(*arg, Some(&[channels]))?);
        }
        self.finish(kind, &drawn, &values)
    }
    fn attention(&mut self, attrs: &[Id], args: &[Id]) -> Option<ValueId> {
        let [b, h, n, m, d, e] = [(); 6].map(|()| self.rng.between(1, 3));
        let scale = self.attr(attrs[0], |_| Attr::Float(F64(0.5)))?;
        let causal = self.attr(attrs[1], |m| Attr::Flag(m.rng.chance(0.3)))?;
        let (b, h, n, m, d, e) = if self.hint.heads_alone { (1, 1, 3, 2, 2, 2) } else { (b, h, n, m, d, e) };
        let shapes = [vec![b, h, n, d], vec![b, h, m, d], vec![b, h, m, e], vec![b, 1, n, m]];
        let mut values = Vec::new();
        for (arg, sizes) in args.iter().zip(shapes) {
            values.push(self.value(*arg, Some(&sizes))?);
        }
        self.finish(OpKind::Attention, &[scale, causal], &values)
    }
}
