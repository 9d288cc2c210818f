//! Instances of a rule's left side: random types, attributes and operands that fit a pattern.

use crate::hints::{Hint, Leaf};
use egg::{ENodeOrVar, Id, PatternAst, Var};
use selvedge_ir::attr::{Attr, Literal};
use selvedge_ir::func::{Builder, Function, ValueId};
use selvedge_ir::generate::Rng;
use selvedge_ir::ops::{Broadcast, Const, Iota, Map};
use selvedge_ir::scalar::{Binary, Body, F64};
use selvedge_ir::spec::ContractSpec;
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
    fn transpose(&mut self, perm: Id, x: Id, want: Option<&[usize]>) -> Option<ValueId> {
        if let (Some(want), ENodeOrVar::Var(v)) = (want, &self.ast[perm]) {
            let v = *v;
            let perm = match self.attrs.get(&v) {
                Some(attr) => Self::list(attr)?,
                None => self.rng.permutation(want.len()),
            };
            if perm.len() != want.len() {
                return None;
            }
            self.attrs.insert(v, Self::ints(&perm));
            let mut sizes = vec![0; perm.len()];
            perm.iter().enumerate().for_each(|(i, &p)| sizes[p] = want[i]);
            let value = self.value(x, Some(&sizes))?;
            return self.finish(OpKind::Transpose, &[Self::ints(&perm)], &[value]);
        }
        let value = self.value(x, None)?;
        let rank = self.sizes(value).len();
        let perm = self.attr(perm, |m| Self::ints(&m.rng.permutation(rank)))?;
        self.finish(OpKind::Transpose, &[perm], &[value])
    }
    /// Other extents of as many elements: axes merged, split, unit axes put in or taken out.
    fn regrouped(&mut self, sizes: &[usize]) -> Vec<usize> {
        let mut new = sizes.to_vec();
        for _ in 0..self.rng.between(1, 2) {
            match self.rng.below(4) {
                0 if new.len() >= 2 => {
                    let at = self.rng.below(new.len() - 1);
                    new[at] *= new.remove(at + 1);
                }
                1 => {
                    if let Some(at) = new.iter().position(|&n| n == 4 || n == 6) {
                        new[at] /= 2;
                        new.insert(at, 2);
                    }
                }
                2 if new.len() < 5 => {
                    let at = self.rng.between(0, new.len());
                    new.insert(at, 1);
                }
                _ => {
                    if let Some(at) = new.iter().position(|&n| n == 1) {
                        new.remove(at);
                    }
                }
            }
        }
        new
    }
    fn reshape(&mut self, shape: Id, x: Id, want: Option<&[usize]>) -> Option<ValueId> {
        let below = match (want, self.is_leaf(x)) {
            (Some(want), true) => Some(self.regrouped(want)),
            _ => None,
        };
        let value = self.value(x, below.as_deref())?;
        let sizes = self.sizes(value);
        let shape = self.attr(shape, |m| {
            let merged = |m: &mut Self| {
                // Trailing axes as one, or groups of the second axis with all that follows: what norms reshape to.
                let at = m.rng.below(sizes.len().max(1));
                let groups = sizes.get(1).map_or(1, |&c| if c % 2 == 0 { 2 } else { 1 });
                let mut new = sizes[..at].to_vec();
                new.push(sizes[at..].iter().product());
                let grouped = vec![sizes[0], groups, sizes[1..].iter().product::<usize>() / groups];
                if m.rng.chance(0.5) || sizes.len() < 2 { new } else { grouped }
            };
            let drawn = match want {
                Some(want) => want.to_vec(),
                None if m.rng.chance(0.4) && !sizes.is_empty() => merged(m),
                // Back to what a variable is: splits of what was merged below.
                None if m.rng.chance(0.3) => m.values.values().next().map_or(sizes.clone(), |v| m.sizes(*v)),
                None => m.regrouped(&sizes),
            };
            Attr::Shape(Shape::new(&drawn))
        })?;
        self.finish(OpKind::Reshape, &[shape], &[value])
    }
    fn broadcast(&mut self, attrs: &[Id], x: Id, want: Option<&[usize]>) -> Option<ValueId> {
        if let (true, Some(want)) = (self.is_leaf(x), want) {
            let bound = match &self.ast[attrs[1]] {
                ENodeOrVar::Var(v) => self.attrs.get(v).and_then(Self::list),
                ENodeOrVar::ENode(_) => None,
            };
            let drawn: Vec<usize> = (0..want.len()).filter(|_| self.rng.chance(0.5)).collect();
            let axes = bound.unwrap_or(drawn);
            let sizes: Vec<usize> = axes.iter().map(|&a| if self.rng.chance(0.15) { 1 } else { want[a] }).collect();
            let value = self.value(x, Some(&sizes))?;
            let shape = self.attr(attrs[0], |_| Attr::Shape(Shape::new(want)))?;
            let axes = self.attr(attrs[1], |_| Self::ints(&axes))?;
            return self.finish(OpKind::Broadcast, &[shape, axes], &[value]);
        }
        let value = self.value(x, None)?;
        let sizes = self.sizes(value);
        let (shape, axes) = match want {
            Some(want) => {
                // A rising place for each axis.
                let mut places = Vec::new();
                let mut options: Vec<Vec<usize>> = vec![Vec::new()];
                for &n in &sizes {
                    let longer = |chosen: &Vec<usize>| {
                        let from = chosen.last().map_or(0, |l| l + 1);
                        let fits = |&i: &usize| want[i] == n || n == 1;
                        (from..want.len()).filter(fits).map(|i| [&chosen[..], &[i]].concat()).collect::<Vec<_>>()
                    };
                    options = options.iter().flat_map(longer).collect();
                }
                if options.is_empty() {
                    return None;
                }
                places.extend(self.rng.pick(&options).clone());
                (want.to_vec(), places)
            }
            None => {
                let (mut shape, mut axes) = (Vec::new(), Vec::new());
                for &n in &sizes {
                    if self.rng.chance(0.3) {
                        shape.push(self.extent());
                    }
                    axes.push(shape.len());
                    shape.push(if n == 1 && self.rng.chance(0.3) { self.extent() } else { n });
                }
                if self.rng.chance(0.4) {
                    shape.push(self.extent());
                }
                (shape, axes)
            }
        };
        let shape = self.attr(attrs[0], |_| Attr::Shape(Shape::new(&shape)))?;
        let axes = self.attr(attrs[1], |_| Self::ints(&axes))?;
        self.finish(OpKind::Broadcast, &[shape, axes], &[value])
    }
    fn slice(&mut self, attrs: &[Id], x: Id, want: Option<&[usize]>) -> Option<ValueId> {
        let below: Option<Vec<usize>> =
            want.filter(|_| self.is_leaf(x)).map(|w| w.iter().map(|n| n + self.rng.below(3)).collect());
        let value = self.value(x, below.as_deref())?;
        let sizes = self.sizes(value);
        let (mut start, mut end, mut step) = (Vec::new(), Vec::new(), Vec::new());
        for (i, &n) in sizes.iter().enumerate() {
            let length = want.and_then(|w| w.get(i)).copied();
            let first = self.rng.between(0, n - length.unwrap_or(1).min(n));
            start.push(first);
            end.push(length.map_or_else(|| self.rng.between(first + 1, n), |l| first + l));
            step.push(if length.is_some() { 1 } else { self.rng.between(1, 2) });
        }
        let start = self.attr(attrs[0], |_| Self::ints(&start))?;
        let end = self.attr(attrs[1], |_| Self::ints(&end))?;
        let step = self.attr(attrs[2], |_| Self::ints(&step))?;
        self.finish(OpKind::Slice, &[start, end, step], &[value])
    }
    fn concat(&mut self, axis: Id, args: &[Id]) -> Option<ValueId> {
        let mut values = vec![self.value(args[0], None)?];
        let sizes = self.sizes(values[0]);
        let axis = self.attr(axis, |m| Attr::Int(m.rng.below(sizes.len()) as i64))?;
        let Attr::Int(at) = axis else { return None };
        for arg in &args[1..] {
            let mut other = sizes.clone();
            if self.is_leaf(*arg) {
                *other.get_mut(at as usize)? = self.extent();
                values.push(self.value(*arg, Some(&other))?);
            } else {
                values.push(self.value(*arg, None)?);
            }
        }
        self.finish(OpKind::Concat, &[axis], &values)
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
    /// A contraction: each axis of the operands that are there gets a role at random, fresh ones are drawn to fit.
    fn contract(&mut self, attrs: &[Id], args: &[Id], want: Option<&[usize]>) -> Option<ValueId> {
        let fresh: Vec<bool> = args.iter().map(|a| self.is_leaf(*a)).collect();
        let mut known: [Option<ValueId>; 2] = [None, None];
        for i in [0, 1] {
            if !fresh[i] {
                known[i] = Some(self.value(args[i], None)?);
            }
        }
        let bound = match &self.ast[attrs[0]] {
            ENodeOrVar::Var(v) => self.attrs.get(v).cloned(),
            ENodeOrVar::ENode(Node::Attr(attr)) => Some(attr.clone()),
            ENodeOrVar::ENode(_) => None,
        };
        let mut extents: BTreeMap<u8, usize> = BTreeMap::new();
        let spec = match bound {
            Some(Attr::Spec(spec)) => {
                for (letters, id) in [(&spec.a, known[0]), (&spec.b, known[1])] {
                    if let Some(id) = id {
                        extents.extend(letters.iter().copied().zip(self.sizes(id)));
                    }
                }
                spec
            }
            _ => self.spec(known, want, &mut extents)?,
        };
        if let Some(want) = want {
            extents.extend(spec.out.iter().copied().zip(want.iter().copied()));
        }
        for l in spec.a.iter().chain(&spec.b) {
            if !extents.contains_key(l) {
                let n = self.rng.between(1, 3);
                extents.insert(*l, n);
            }
        }
        let mut values = Vec::new();
        for (i, letters) in [&spec.a, &spec.b].into_iter().enumerate() {
            let sizes: Vec<usize> = letters.iter().map(|l| extents[l]).collect();
            values.push(match known[i] {
                Some(id) => id,
                None => self.value(args[i], Some(&sizes))?,
            });
        }
        let narrow = self.hint.narrow_results;
        let spec = self.attr(attrs[0], |_| Attr::Spec(spec))?;
        let dtype = self.attr(attrs[1], |_| Attr::DType(if narrow { DType::F16 } else { DType::F32 }))?;
        self.finish(OpKind::Contract, &[spec, dtype], &values)
    }
    fn spec(
        &mut self,
        known: [Option<ValueId>; 2],
        want: Option<&[usize]>,
        extents: &mut BTreeMap<u8, usize>,
    ) -> Option<ContractSpec> {
        let (mut a, mut b, mut out): (Vec<u8>, Vec<u8>, Vec<u8>) = Default::default();
        let mut next = 0u8;
        let mut letter = |extents: &mut BTreeMap<u8, usize>, n: usize| {
            extents.insert(next, n);
            next += 1;
            next - 1
        };
        match (known, want) {
            ([None, None], Some(want)) => {
                for &n in want {
                    let l = letter(extents, n);
                    out.push(l);
                    match self.rng.below(3) {
                        0 => a.push(l),
                        1 => b.push(l),
                        _ => {
                            a.push(l);
                            b.push(l);
                        }
                    }
                }
            }
            ([None, None], None) => {
                for role in [0, 1, 2] {
                    for _ in 0..self.rng.between(0, if role == 0 { 2 } else { 1 }) {
                        let l = letter(extents, self.rng.between(1, 3));
                        out.push(l);
                        if role != 2 {
                            a.push(l);
                        }
                        if role != 1 {
                            b.push(l);
                        }
                    }
                }
            }
            (known, None) => {
                // The axes of one that is there: batch, rows or summed; those of both: matched by extent at random.
                let (this, other) = match known {
                    [Some(x), y] => (x, y),
                    [None, Some(y)] => (y, None),
                    [None, None] => unreachable!("handled above"),
                };
                let mut mine = Vec::new();
                for n in self.sizes(this) {
                    mine.push(letter(extents, n));
                }
                let mut theirs: Vec<u8> = Vec::new();
                if let Some(other) = other {
                    for n in self.sizes(other) {
                        let free: Vec<u8> =
                            mine.iter().copied().filter(|l| extents[l] == n && !theirs.contains(l)).collect();
                        let l = if !free.is_empty() && self.rng.chance(0.8) {
                            *self.rng.pick(&free)
                        } else {
                            letter(extents, n)
                        };
                        theirs.push(l);
                    }
                    for l in mine.iter().chain(&theirs) {
                        let both = mine.contains(l) && theirs.contains(l);
                        if !out.contains(l) && (!both || self.rng.chance(0.4)) {
                            out.push(*l);
                        }
                    }
                } else {
                    for &l in &mine {
                        match self.rng.below(3) {
                            0 => {
                                theirs.push(l);
                                out.push(l);
                            }
                            1 => out.push(l),
                            _ => theirs.push(l),
                        }
                    }
                    if self.rng.chance(0.8) {
                        let l = letter(extents, self.rng.between(1, 3));
                        theirs.push(l);
                        out.push(l);
                    }
                }
                let swap = known[0].is_none();
                (a, b) = if swap { (theirs.clone(), mine) } else { (mine, theirs.clone()) };
                let both_known = other.is_some();
                let n = out.len();
                let perm = self.rng.permutation(n);
                out = perm.iter().map(|&p| out[p]).collect();
                if !both_known {
                    let fresh = if swap { &mut a } else { &mut b };
                    let perm = self.rng.permutation(fresh.len());
                    *fresh = perm.iter().map(|&p| fresh[p]).collect();
                }
                return ContractSpec::new(&a, &b, &out).ok().inspect(|new| renamed(extents, &a, &b, new));
            }
            (_, Some(_)) => return self.spec_known_and_wanted(known, want?, extents),
        }
        for _ in 0..self.rng.between(1, 2) {
            let l = letter(extents, self.rng.between(1, 3));
            a.push(l);
            b.push(l);
        }
        for list in [&mut a, &mut b] {
            let perm = self.rng.permutation(list.len());
            *list = perm.iter().map(|&p| list[p]).collect();
        }
        if want.is_none() {
            let perm = self.rng.permutation(out.len());
            out = perm.iter().map(|&p| out[p]).collect();
        }
        ContractSpec::new(&a, &b, &out).ok().inspect(|new| renamed(extents, &a, &b, new))
    }
    /// With an operand and the result given: the result's axes are found in the operand by extent, or are the other's.
    fn spec_known_and_wanted(
        &mut self,
        known: [Option<ValueId>; 2],
        want: &[usize],
        extents: &mut BTreeMap<u8, usize>,
    ) -> Option<ContractSpec> {
        let [Some(this), None] = known else { return None };
        let sizes = self.sizes(this);
        let a: Vec<u8> = (0..sizes.len() as u8).collect();
        extents.extend(a.iter().copied().zip(sizes));
        let (mut b, mut out) = (Vec::new(), Vec::new());
        for (i, n) in want.iter().enumerate() {
            let free: Vec<u8> = a.iter().copied().filter(|l| extents[l] == *n && !out.contains(l)).collect();
            if !free.is_empty() && self.rng.chance(0.7) {
                let l = *self.rng.pick(&free);
                out.push(l);
                if self.rng.chance(0.4) {
                    b.push(l);
                }
            } else {
                let l = 50 + i as u8;
                extents.insert(l, *n);
                out.push(l);
                b.push(l);
            }
        }
        b.extend(a.iter().filter(|l| !out.contains(l)));
        ContractSpec::new(&a, &b, &out).ok().inspect(|new| renamed(extents, &a, &b, new))
    }
}

/// Extents by the letters of a spec, which are named in order of appearance.
fn renamed(extents: &mut BTreeMap<u8, usize>, a: &[u8], b: &[u8], spec: &ContractSpec) {
    let old = std::mem::take(extents);
    for (letters, new) in [(a, &spec.a), (b, &spec.b)] {
        for (l, n) in letters.iter().zip(new) {
            extents.insert(*n, old[l]);
        }
    }
}
