//! One random operator on what is there.
use super::body::{self, TAME};
use super::rng::Rng;
use super::{Options, tensor};
use crate::attr::Literal;
use crate::dtype::{Class, DType};
use crate::func::{Builder, Function, ValueId};
use crate::op::OpClass;
use crate::ops::*;
use crate::scalar::Body;
use crate::shape::{Shape, TensorType};
use crate::spec::ContractSpec;

/// What is known of a value: a bound of its magnitude, and whether every correct evaluation gives the same bits.
#[derive(Clone, Copy)]
pub(super) struct Fact {
    pub(super) bound: f64,
    pub(super) exact: bool,
}

/// A function under construction.
pub(super) struct Emit<'a> {
    b: Builder,
    pub(super) rng: &'a mut Rng,
    pub(super) options: &'a Options,
    facts: Vec<Fact>,
    weights: usize,
}

impl<'a> Emit<'a> {
    pub(super) fn new(b: Builder, rng: &'a mut Rng, options: &'a Options) -> Emit<'a> {
        Emit { b, rng, options, facts: Vec::new(), weights: 0 }
    }
    /// May this kind be drawn?
    pub(super) fn allows(&self, kind: OpKind) -> bool {
        match kind {
            OpKind::Input | OpKind::State => false,
            OpKind::Weight => self.options.weights,
            _ => self.options.composites || kind.class() != OpClass::Composite,
        }
    }
    /// Two to five parameters, the first a float of rank 3 or 4.
    pub(super) fn parameters(&mut self) {
        let floats: Vec<DType> = self.options.dtypes.iter().copied().filter(|d| d.is_float()).collect();
        for i in 0..self.rng.between(2, 5) {
            let dtype = if i == 0 { *self.rng.pick(&floats) } else { *self.rng.pick(&self.options.dtypes) };
            let rank = if i == 0 { self.rng.between(3, 4) } else { self.rng.between(0, 4) };
            let ty = TensorType { dtype, shape: self.shape(rank) };
            self.b.input(format!("p{i}"), ty);
            self.note(leaf(dtype));
        }
    }
    /// A read of the state variable `memory`.
    pub(super) fn state(&mut self) -> ValueId {
        let ty = TensorType { dtype: DType::F32, shape: self.shape(2) };
        let op = State { name: "memory".to_string(), ty };
        self.add(op.into(), &[], leaf(DType::F32))
    }
    /// A call with arguments of the callee's parameters' types.
    pub(super) fn call(&mut self, callee: &Function) {
        let args: Vec<ValueId> = callee.params().iter().map(|(_, id)| self.leaf_like(callee.ty(*id))).collect();
        let types: Vec<TensorType> = callee.returns.iter().map(|r| callee.ty(r.value).clone()).collect();
        let results = self.b.call(callee.name.clone(), &args, &types);
        // What the callee does to its arguments is not known here; both bounds are those of its own values.
        results.iter().zip(types).for_each(|(_, ty)| {
            self.note(Fact { bound: if ty.dtype.is_float() { TAME } else { f64::MAX }, exact: !ty.dtype.is_float() })
        });
    }
    /// The function; some values are returned, the last one always.
    pub(super) fn finish(mut self, state: Option<ValueId>) -> Function {
        let n = self.facts.len();
        let mut kept = vec![n - 1];
        for _ in 0..self.rng.between(1, 3) {
            let id = self.rng.below(n);
            if !kept.contains(&id) {
                kept.push(id);
            }
        }
        for (i, id) in kept.into_iter().enumerate() {
            self.b.output(format!("y{i}"), ValueId(id as u32));
        }
        if let Some(state) = state {
            let ty = self.b.ty(state).clone();
            let same: Vec<ValueId> = self.b.function().ids().filter(|id| *self.b.ty(*id) == ty).collect();
            let value = *self.rng.pick(&same);
            self.b.write_state("memory", value);
        }
        self.b.finish()
    }

    fn note(&mut self, fact: Fact) {
        self.facts.push(fact);
    }
    pub(super) fn fact(&self, id: ValueId) -> Fact {
        self.facts[id.0 as usize]
    }
    pub(super) fn ty(&self, id: ValueId) -> TensorType {
        self.b.ty(id).clone()
    }
    pub(super) fn extent(&mut self) -> usize {
        match self.rng.below(20) {
            0 if self.options.empty => 0,
            0 | 1 => *self.rng.pick(&[7, 8, 16]),
            _ => self.rng.between(1, 5),
        }
    }
    pub(super) fn shape(&mut self, rank: usize) -> Shape {
        let mut sizes: Vec<usize> = (0..rank).map(|_| self.extent()).collect();
        while sizes.iter().product::<usize>() > self.options.max_elements {
            sizes.iter_mut().for_each(|n| *n = n.div_ceil(2));
        }
        Shape::new(&sizes)
    }
    /// Adds an operator unless its value is too large, and brings the value back into range.
    pub(super) fn push(&mut self, op: Op, args: &[ValueId], fact: Fact) -> Option<ValueId> {
        let types: Vec<&TensorType> = args.iter().map(|a| self.b.ty(*a)).collect();
        let ty = op.infer(&types).unwrap_or_else(|e| panic!("the generator made an ill-typed {op:?}: {e:?}"));
        if ty.elements()? > self.options.max_elements { None } else { Some(self.add(op, args, fact)) }
    }
    /// Adds an operator that is well-typed, and brings its value back into range.
    fn add(&mut self, op: Op, args: &[ValueId], fact: Fact) -> ValueId {
        let id = self.b.push(op, args).expect("well-typed");
        let ty = self.ty(id);
        self.note(fact);
        let tamed = Body::build(1, |b| {
            let x = body::Node { id: b.arg(0), dtype: ty.dtype, bound: fact.bound, exact: fact.exact };
            body::tame(b, x).id
        });
        if tamed == Body::identity() {
            return id;
        }
        let id = self.b.push(Map { body: tamed }, &[id]).expect("scaling keeps the type");
        self.note(Fact { bound: TAME, ..fact });
        id
    }
    /// A value with a property; later ones are likelier.
    pub(super) fn find(&mut self, good: impl Fn(&TensorType, Fact) -> bool) -> Option<ValueId> {
        let all: Vec<ValueId> =
            self.b.function().ids().filter(|id| good(self.b.ty(*id), self.facts[id.0 as usize])).collect();
        let from = if self.rng.chance(0.5) { all.len().saturating_sub(4) } else { 0 };
        if all.is_empty() { None } else { Some(*self.rng.pick(&all[from..])) }
    }
    /// A constant (or weight, or broadcast constant) of a type.
    fn fresh(&mut self, ty: &TensorType) -> ValueId {
        if self.options.weights && self.rng.chance(0.5) && self.b.function().name == "main" {
            self.weights += 1;
            let op = Weight { name: format!("w{}", self.weights), ty: ty.clone() };
            return self.add(op.into(), &[], leaf(ty.dtype));
        }
        let last: Vec<_> = ty.shape.0.iter().rev().take(1).cloned().collect();
        let small = TensorType { dtype: ty.dtype, shape: Shape(last) };
        let wide = ty.rank() > 1 && self.rng.chance(0.5);
        let constant = self.constant(if wide { &small } else { ty });
        if !wide {
            return constant;
        }
        let op = Broadcast { shape: ty.shape.clone(), axes: vec![ty.rank() - 1] };
        self.add(op.into(), &[constant], leaf(ty.dtype))
    }
    fn constant(&mut self, ty: &TensorType) -> ValueId {
        let data = Literal::from(&tensor(self.rng, ty));
        self.add(Const { data, ty: ty.clone() }.into(), &[], leaf(ty.dtype))
    }
    /// A value of a type: one that is there, or a new one.
    pub(super) fn like(&mut self, ty: &TensorType) -> ValueId {
        match self.find(|t, _| t == ty) {
            Some(id) if self.rng.chance(0.7) => id,
            _ => self.fresh(ty),
        }
    }
    /// A value of a type with a leaf's range.
    pub(super) fn leaf_like(&mut self, ty: &TensorType) -> ValueId {
        let leaf = leaf(ty.dtype);
        self.find(|t, f| t == ty && f.bound <= leaf.bound && f.exact).unwrap_or_else(|| self.constant(ty))
    }
    /// Indices for an axis of `extent`, some of them outside.
    fn indices(&mut self, shape: Shape) -> ValueId {
        let dtype = *self.rng.pick(&[DType::I32, DType::U32]);
        self.like(&TensorType { dtype, shape })
    }

    /// Adds an operator of a kind (and what it needs); `None` if there is nothing to apply it to.
    pub(super) fn operator(&mut self, kind: OpKind) -> Option<ValueId> {
        let sensitive = self.options.sensitive;
        let number = |t: &TensorType| t.dtype.is_float() || t.dtype.is_int();
        match kind {
            OpKind::Input | OpKind::State => None,
            OpKind::Weight => {
                let ty = self.some_type();
                self.weights += 1;
                let name = format!("{}.w{}", self.b.function().name, self.weights);
                self.push(Weight { name, ty: ty.clone() }.into(), &[], leaf(ty.dtype))
            }
            OpKind::Const => {
                let ty = self.some_type();
                Some(self.constant(&ty))
            }
            OpKind::Iota => {
                let rank = self.rng.between(1, 3);
                let dtype = *self.rng.pick(&[DType::F32, DType::I32, DType::U32]);
                let op = Iota { axis: self.rng.below(rank), ty: TensorType { dtype, shape: self.shape(rank) } };
                self.push(op.into(), &[], Fact { bound: 5.0, exact: true })
            }
            OpKind::Map => {
                let x = self.find(|_, _| true)?;
                let mut args = vec![x];
                for _ in 0..self.rng.below(3) {
                    let dtype =
                        if self.rng.chance(0.6) { self.ty(x).dtype } else { *self.rng.pick(&self.options.dtypes) };
                    let ty = self.ty(x).with_dtype(dtype);
                    args.push(self.like(&ty));
                }
                let known: Vec<_> =
                    args.iter().map(|a| (self.ty(*a).dtype, self.fact(*a).bound, self.fact(*a).exact)).collect();
                let (body, node) = body::random(self.rng, &known, sensitive);
                self.push(Map { body }.into(), &args, Fact { bound: node.bound, exact: node.exact })
            }
            OpKind::Reduce => {
                let kind = *self.rng.pick(ReduceKind::ALL);
                let index = matches!(kind, ReduceKind::Argmax | ReduceKind::Argmin);
                let extreme = matches!(kind, ReduceKind::Max | ReduceKind::Min);
                let x = self.find(|t, f| {
                    (number(t) || extreme)
                        && t.rank() > usize::from(index)
                        && !t.shape.0.iter().any(|d| d.get() == Some(0))
                        && (!index || sensitive || f.exact)
                })?;
                let ty = self.ty(x);
                let axes: Vec<usize> = if index {
                    vec![self.rng.below(ty.rank())]
                } else {
                    (0..ty.rank()).filter(|_| self.rng.chance(0.5)).collect()
                };
                let count: usize = axes.iter().filter_map(|&a| ty.shape.0[a].get()).product();
                let fact = self.folded(x, kind == ReduceKind::Sum, kind == ReduceKind::Prod, count)?;
                let fact = if index { Fact { bound: 5.0, exact: fact.exact || self.fact(x).exact } } else { fact };
                self.push(Reduce { kind, axes }.into(), &[x], fact)
            }
            OpKind::Contract => self.contract(),
            OpKind::Window => self.window(),
            OpKind::Scan => {
                let x = self.find(|t, _| number(t) && t.rank() > 0)?;
                let ty = self.ty(x);
                let axis = self.rng.below(ty.rank());
                let kind = *self.rng.pick(ScanKind::ALL);
                let fact = self.folded(x, kind == ScanKind::Sum, kind == ScanKind::Prod, ty.shape.0[axis].get()?)?;
                // The neutral elements of max and min are not tame.
                let exclusive =
                    self.rng.chance(0.4) && !(ty.dtype.is_float() && matches!(kind, ScanKind::Max | ScanKind::Min));
                let bound = if exclusive && !ty.dtype.is_float() { f64::MAX } else { fact.bound.max(1.0) };
                let op = Scan { kind, axis, reverse: self.rng.chance(0.5), exclusive };
                self.push(op.into(), &[x], Fact { bound, ..fact })
            }
            OpKind::Transpose => self.transpose(),
            OpKind::Reshape => self.reshape(),
            OpKind::Broadcast => self.broadcast(),
            OpKind::Slice => self.slice(),
            OpKind::Pad => self.pad(),
            OpKind::Concat => self.concat(),
            OpKind::Gather | OpKind::Scatter => {
                let scatter = kind == OpKind::Scatter;
                let x = self.find(|t, _| {
                    t.rank() > 0 && (!scatter || number(t)) && !t.shape.0.iter().any(|d| d.get() == Some(0))
                })?;
                let ty = self.ty(x);
                let axis = self.rng.below(ty.rank());
                let batch = self.rng.between(0, axis);
                let rest = self.rng.between(0, 1);
                let mut shape = ty.shape.0[..batch].to_vec();
                shape.extend(self.shape(rest).0);
                let indices = self.indices(Shape(shape));
                let gather = Gather { axis, batch };
                if !scatter {
                    return self.push(gather.into(), &[x, indices], self.fact(x));
                }
                let updates = Op::from(gather).infer(&[&ty, &self.ty(indices)]).ok()?;
                if updates.elements()? > self.options.max_elements {
                    return None;
                }
                let count = updates.elements()? as f64;
                let updates = self.like(&updates);
                let kind = *self.rng.pick(ScatterKind::ALL);
                let (a, u) = (self.fact(x), self.fact(updates));
                let add = kind == ScatterKind::Add;
                let bound = if add { a.bound + u.bound * count } else { a.bound.max(u.bound) };
                let exact = a.exact && u.exact && !(add && ty.dtype.is_float());
                self.push(Scatter { kind, axis, batch }.into(), &[x, indices, updates], Fact { bound, exact })
            }
            OpKind::Topk => {
                let x = self.find(|t, f| number(t) && t.rank() > 0 && (sensitive || f.exact))?;
                let axis = self.rng.below(self.ty(x).rank());
                let k = self.rng.between(0, self.ty(x).shape.0[axis].get()?).max(usize::from(!self.options.empty));
                let largest = self.rng.chance(0.5);
                let exact = self.fact(x).exact;
                self.push(Topk { k, axis, largest }.into(), &[x], Fact { bound: 5.0, exact })
            }
            OpKind::Softmax => self.softmax(),
            OpKind::LayerNorm => self.layer_norm(),
            OpKind::RmsNorm => self.rms_norm(),
            OpKind::GroupNorm => self.group_norm(),
            OpKind::Attention => self.attention(),
            OpKind::LocalAttention => self.local_attention(),
            OpKind::Rope => self.rope(),
            OpKind::PoolTokens => self.pool_tokens(),
            OpKind::Resize => self.resize(),
        }
    }

    fn some_type(&mut self) -> TensorType {
        let rank = self.rng.between(0, 3);
        TensorType { dtype: *self.rng.pick(&self.options.dtypes), shape: self.shape(rank) }
    }
    /// What combining `count` elements of `x` gives; `None` where a product would leave the range.
    fn folded(&self, x: ValueId, sum: bool, product: bool, count: usize) -> Option<Fact> {
        let fact = self.fact(x);
        let float = self.b.ty(x).dtype.class() == Class::Float;
        let exact = fact.exact && !(float && (sum || product));
        let bound = if sum {
            fact.bound * count as f64
        } else if product && float {
            if fact.bound > 2.0 || count > 10 {
                return None;
            }
            fact.bound.powi(count as i32).max(1.0)
        } else if product {
            f64::MAX
        } else {
            fact.bound
        };
        Some(Fact { bound, exact })
    }
    /// Letters: some of the first operand's axes are batch, some summed, the rest rows; one column is added.
    fn contract(&mut self) -> Option<ValueId> {
        let a = self.find(|t, _| t.dtype.is_float() && t.rank() > 0)?;
        let ty = self.ty(a);
        let letters: Vec<u8> = (0..ty.rank() as u8).collect();
        let (mut shared, mut out, mut summed) = (Vec::new(), Vec::new(), 1);
        for &l in &letters {
            match self.rng.below(3) {
                0 => {
                    shared.push(l);
                    out.push(l);
                }
                1 => {
                    shared.push(l);
                    summed *= ty.shape.0[l as usize].get()?;
                }
                _ => out.push(l),
            }
        }
        let column = ty.rank() as u8;
        let columns = self.extent();
        shared.push(column);
        out.push(column);
        let b_letters: Vec<u8> = self.rng.permutation(shared.len()).iter().map(|&i| shared[i]).collect();
        let out: Vec<u8> = self.rng.permutation(out.len()).iter().map(|&i| out[i]).collect();
        let dim = |l: &u8| ty.shape.0.get(*l as usize).cloned().unwrap_or(columns.into());
        let b_shape = Shape(b_letters.iter().map(dim).collect());
        if b_shape.elements().get()? > self.options.max_elements {
            return None;
        }
        let float = *self.rng.pick(&[ty.dtype, DType::F32]);
        let b = self.like(&TensorType { dtype: float, shape: b_shape });
        let spec = ContractSpec::new(&letters, &b_letters, &out).expect("letters are batch, row, column or summed");
        let bound = self.fact(a).bound * self.fact(b).bound * summed as f64;
        let dtype = *self.rng.pick(&[DType::F32, ty.dtype]);
        self.push(Contract { spec, dtype }.into(), &[a, b], Fact { bound, exact: false })
    }
    fn window(&mut self) -> Option<ValueId> {
        let x = self.find(|t, _| {
            t.dtype.is_float() && (3..=5).contains(&t.rank()) && !t.shape.0.iter().any(|d| d.get() == Some(0))
        })?;
        let ty = self.ty(x);
        let sizes = ty.shape.sizes();
        let kind = *self.rng.pick(WindowKind::ALL);
        let (mut size, mut stride, mut padding, mut dilation) = (vec![], vec![], vec![], vec![]);
        for &extent in &sizes[2..] {
            let taps = self.rng.between(1, 3);
            let step = self.rng.between(1, 2);
            let span = step * (taps - 1) + 1;
            // Enough padding for one window, less than a window on each side.
            let before = self.rng.between(0, span - 1);
            let after = self.rng.between(0, span - 1).max(span.saturating_sub(extent + before));
            size.push(taps);
            dilation.push(step);
            stride.push(self.rng.between(1, 3));
            padding.push((before, after));
        }
        let taps: usize = size.iter().product();
        let mut op = Window { kind, size, stride, padding, dilation, groups: 1 };
        let fact = self.fact(x);
        if kind != WindowKind::Conv {
            let sum = kind == WindowKind::Sum;
            let bound = if sum { fact.bound * taps as f64 } else { fact.bound };
            // A dilated maximum may see padding alone.
            if !sum && op.dilation.iter().any(|&d| d > 1) {
                op.padding.iter_mut().for_each(|p| *p = (0, 0));
                let fits = |(i, n): (usize, &usize)| op.dilation[i] * (op.size[i] - 1) < *n;
                if !sizes[2..].iter().enumerate().all(fits) {
                    return None;
                }
            }
            return self.push(op.into(), &[x], Fact { bound, exact: fact.exact && !sum });
        }
        let divisors: Vec<usize> = (1..=sizes[1]).filter(|g| sizes[1].is_multiple_of(*g)).collect();
        op.groups = *self.rng.pick(&divisors);
        let outputs = op.groups * self.rng.between(1, 2);
        let per_group = sizes[1] / op.groups;
        let kernel: Vec<usize> = [outputs, per_group].into_iter().chain(op.size.iter().copied()).collect();
        let dtype = *self.rng.pick(&[ty.dtype, DType::F32]);
        let kernel = self.leaf_like(&TensorType { dtype, shape: Shape::new(&kernel) });
        let bound = fact.bound * self.fact(kernel).bound * (taps * per_group) as f64;
        self.push(op.into(), &[x, kernel], Fact { bound, exact: false })
    }
}

/// The range of random leaves (see `tensor`).
fn leaf(dtype: DType) -> Fact {
    Fact { bound: if dtype.is_float() { 2.0 } else { 8.0 }, exact: true }
}
