//! `merge-contractions`: products of one value with several weights become one product with the weights joined.
//!
//! x · a and x · b are the columns of x · [a b]: x is read once, one kernel runs instead of several, and its tiles are fuller.
//! The joined weight is a [`Function::joined_weights`], which code generation gives neighbouring memory: nothing is copied.
//! What follows each product in the same way (a bias, an activation) follows the joined product.
//!
//! The test of cost needs no numbers, since each condition alone decides:
//! - what reads a result must take a slice of it for free: views, norms, products and attention do. A map does not, unless
//!   each result has the same one: else it would leave its product's kernel (gate and up of a gated unit stay apart);
//! - a returned result would be copied out;
//! - a product behind one of the results comes too early for those after it: they belong to another block, and blocks with
//!   slices of one value between them are no longer alike (the modulations of all blocks stay apart; they are tabulated).

use crate::Pass;
use crate::readers::Readers;
use crate::rebuild::{Rebuild, rebuild};
use selvedge_ir::known::FastMap;
use selvedge_ir::op::OpClass;
use selvedge_ir::ops::{Broadcast, Concat, Contract, Map, Slice};
use selvedge_ir::scalar::Body;
use selvedge_ir::spec::Role;
use selvedge_ir::{DType, Def, Diagnostic, Function, Module, Op, Place, Shape, ValueId};
use std::collections::{BTreeMap, HashMap};

/// Results of a merged product begin at multiples of so many elements, so that kernels read them by fours.
const ALIGNED: usize = 4;

/// Merges products of one value with weights.
pub struct MergeContractions {
    /// Bytes that a joined weight may have: what one binding of the device reaches.
    pub limit: usize,
}

impl Pass for MergeContractions {
    fn name(&self) -> &'static str {
        "merge-contractions"
    }
    fn summary(&self) -> &'static str {
        "makes one product of those that multiply one value with several weights"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        let mut named: FastMap<&str, usize> = FastMap::default();
        for function in &module.functions {
            for weight in function.ids().filter_map(|id| weight_name(function, id)) {
                *named.entry(weight).or_default() += 1;
            }
        }
        let all = module.functions.iter().map(|function| Search::new(function, &named).groups(self.limit));
        let all: Vec<Vec<Group>> = all.collect();
        for (function, groups) in module.functions.iter_mut().zip(all) {
            if !groups.is_empty() {
                *function = merged(function, &groups)?;
            }
        }
        Ok(module)
    }
}

fn weight_name(function: &Function, id: ValueId) -> Option<&str> {
    match function.op(id) {
        Some((Op::Weight(w), _)) => Some(&w.name),
        Some(_) | None => None,
    }
}

/// A map behind a product: its body, the operand that is the product, and what it does to the vectors in its other operands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Tail {
    body: Body,
    product: usize,
    /// For each other operand the bodies between the weight and the repetition.
    vectors: Vec<(DType, Vec<Body>)>,
}

/// What products must share to be merged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    x: ValueId,
    op: Contract,
    dtype: DType,
    /// Extents of the weight but for its first.
    rest: Vec<usize>,
    tails: Vec<Tail>,
}

/// One product, with the maps behind it.
#[derive(Clone, Debug)]
struct Member {
    contract: ValueId,
    /// The maps' values, in order.
    tails: Vec<ValueId>,
    columns: usize,
    bytes: usize,
}

impl Member {
    fn last(&self) -> ValueId {
        self.tails.last().copied().unwrap_or(self.contract)
    }
}

/// Products to be merged.
struct Group {
    key: Key,
    members: Vec<Member>,
    bytes: usize,
    /// The first product that depends on one of the members.
    until: ValueId,
}

struct Search<'f> {
    function: &'f Function,
    named: &'f FastMap<&'f str, usize>,
    readers: Readers,
    returned: Vec<bool>,
}

impl<'f> Search<'f> {
    fn new(function: &'f Function, named: &'f FastMap<&'f str, usize>) -> Search<'f> {
        let readers = Readers::of(function);
        let mut returned = vec![false; function.values.len()];
        function.returns.iter().for_each(|r| returned[r.value.0 as usize] = true);
        Search { function, named, readers, returned }
    }

    fn groups(&self, limit: usize) -> Vec<Group> {
        let mut done: Vec<Group> = Vec::new();
        let mut open: FastMap<Key, Group> = FastMap::default();
        for id in self.function.ids() {
            let Some((key, member)) = self.member(id) else { continue };
            let until = self.first_product_behind(member.last());
            let fits = |g: &Group| {
                let start: usize = g.members.iter().map(|m| m.columns).sum();
                id < g.until && g.bytes + member.bytes <= limit && start.is_multiple_of(ALIGNED)
            };
            match open.get_mut(&key).filter(|g| fits(g)) {
                Some(group) => {
                    group.bytes += member.bytes;
                    group.until = group.until.min(until);
                    group.members.push(member);
                }
                None => {
                    let group = Group { key: key.clone(), bytes: member.bytes, members: vec![member], until };
                    done.extend(open.insert(key, group));
                }
            }
        }
        done.extend(open.into_values());
        done.retain(|g| g.members.len() > 1);
        done.sort_by_key(|g| g.members[0].contract);
        done
    }

    /// A product of a value with a weight that nothing else reads, whose readers take slices.
    fn member(&self, id: ValueId) -> Option<(Key, Member)> {
        let (Op::Contract(contract), &[x, w]) = self.function.op(id)? else { return None };
        let spec = &contract.spec;
        if !self.alone(w) || spec.role(*spec.b.first()?) != Some(Role::Columns) {
            return None;
        }
        let ty = self.function.ty(w);
        let sizes = ty.shape.get()?;
        let axis = spec.out.iter().position(|l| *l == spec.b[0])?;
        let (columns, rest) = (sizes[0], sizes[1..].to_vec());
        let bytes = ty.elements()? * ty.dtype.bits() / 8;
        if !bytes.is_multiple_of(4) {
            return None;
        }
        let (mut tails, mut values, mut last) = (Vec::new(), Vec::new(), id);
        while let Some((tail, value)) = self.tail(last, axis) {
            tails.push(tail);
            values.push(value);
            last = value;
        }
        let sliced = |reader: &ValueId| match self.function.op(*reader) {
            Some((op, _)) => match op.class() {
                OpClass::View | OpClass::Contract | OpClass::Composite => true,
                OpClass::Leaf | OpClass::Map | OpClass::Reduce | OpClass::Window | OpClass::Scan | OpClass::Index => {
                    false
                }
            },
            None => false,
        };
        if self.returned[last.0 as usize] || !self.readers.of_value(last).iter().all(sliced) {
            return None;
        }
        let key = Key { x, op: contract.clone(), dtype: ty.dtype, rest, tails };
        Some((key, Member { contract: id, tails: values, columns, bytes }))
    }

    /// A weight with one reader in the whole module.
    fn alone(&self, id: ValueId) -> bool {
        let once = |name: &str| self.named.get(name) == Some(&1);
        weight_name(self.function, id).is_some_and(once) && self.readers.of_value(id).len() == 1
    }

    /// The only reader of a value, if it is a map whose other operands are weights repeated along all axes but `axis`.
    fn tail(&self, id: ValueId, axis: usize) -> Option<(Tail, ValueId)> {
        let [reader] = *self.readers.of_value(id) else { return None };
        if self.returned[id.0 as usize] {
            return None;
        }
        let (Op::Map(map), args) = self.function.op(reader)? else { return None };
        let product = args.iter().position(|a| *a == id)?;
        let mut vectors = Vec::new();
        for arg in args.iter().filter(|a| **a != id) {
            let (Op::Broadcast(b), &[mut vector]) = self.function.op(*arg)? else { return None };
            if b.axes != [axis] || b.shape != self.function.ty(id).shape || self.readers.of_value(*arg).len() != 1 {
                return None;
            }
            let mut bodies = Vec::new();
            while let Some((Op::Map(map), &[inner])) = self.function.op(vector) {
                if self.readers.of_value(vector).len() != 1 {
                    return None;
                }
                bodies.push(map.body.clone());
                vector = inner;
            }
            let ty = self.function.ty(vector);
            let whole = ty.elements() == self.function.ty(id).shape.get().map(|s| s[axis]);
            if !self.alone(vector) || !whole || !(ty.elements()? * ty.dtype.bits() / 8).is_multiple_of(4) {
                return None;
            }
            vectors.push((ty.dtype, bodies));
        }
        // The map of a product by itself reads it once.
        (args.iter().filter(|a| **a == id).count() == 1).then_some(())?;
        Some((Tail { body: map.body.clone(), product, vectors }, reader))
    }

    /// The first product, convolution or attention that a value has a part in; behind all values if there is none.
    fn first_product_behind(&self, id: ValueId) -> ValueId {
        let mut reached: BTreeMap<ValueId, ()> = self.readers.of_value(id).iter().map(|r| (*r, ())).collect();
        while let Some((next, ())) = reached.pop_first() {
            match self.function.op(next) {
                Some((op, _)) => match op.class() {
                    OpClass::Contract | OpClass::Window => return next,
                    OpClass::Composite if matches!(op, Op::Attention(_) | Op::LocalAttention(_)) => return next,
                    OpClass::Composite
                    | OpClass::Leaf
                    | OpClass::Map
                    | OpClass::Reduce
                    | OpClass::Scan
                    | OpClass::View
                    | OpClass::Index => {}
                },
                None => return next,
            }
            reached.extend(self.readers.of_value(next).iter().map(|r| (*r, ())));
        }
        ValueId(self.function.values.len() as u32)
    }
}

/// The function with each group as one product.
fn merged(function: &Function, groups: &[Group]) -> Result<Function, Diagnostic> {
    // What stands for a value: a slice of a group's product, or nothing, since only the group reads it.
    let mut slices: HashMap<ValueId, (usize, usize)> = HashMap::new();
    let mut inner: HashMap<ValueId, usize> = HashMap::new();
    for (g, group) in groups.iter().enumerate() {
        let mut start = 0;
        for member in &group.members {
            slices.insert(member.last(), (g, start));
            let all = std::iter::once(member.contract).chain(member.tails.iter().copied());
            all.filter(|id| *id != member.last()).for_each(|id| _ = inner.insert(id, g));
            start += member.columns;
        }
    }
    let mut products: Vec<Option<ValueId>> = vec![None; groups.len()];
    rebuild(function, |r, id, op, args| {
        let group = inner.get(&id).copied().or(slices.get(&id).map(|(g, _)| *g));
        let Some(g) = group else { return r.copy(op, args) };
        let whole = match products[g] {
            Some(whole) => whole,
            None => *products[g].insert(product(r, &groups[g])?),
        };
        let Some((_, start)) = slices.get(&id) else { return Ok(whole) };
        let spec = &groups[g].key.op.spec;
        let axis = spec.out.iter().position(|l| *l == spec.b[0]).expect("the weight's columns are in the result");
        let sizes = r.from.ty(id).shape.sizes();
        let mut begin = vec![0; sizes.len()];
        begin[axis] = *start;
        let end = begin.iter().zip(&sizes).map(|(b, n)| b + n).collect();
        let slice = Slice { start: begin, end, step: vec![1; sizes.len()] };
        r.to.try_push(slice, &[whole])
    })
}

/// The product of a group, with the maps behind it.
fn product(r: &mut Rebuild, group: &Group) -> Result<ValueId, Diagnostic> {
    let function = r.from;
    let x = r.map[group.key.x.0 as usize];
    let operand = |id: ValueId, n: usize| function.reads(id)[n];
    let weights: Vec<ValueId> = group.members.iter().map(|m| operand(m.contract, 1)).collect();
    let weight = joined(r, &weights)?;
    let mut whole = r.to.try_push(group.key.op.clone(), &[x, weight])?;
    r.to.set_places(whole, places(function, group.members.iter().map(|m| m.contract)));
    let spec = &group.key.op.spec;
    let axis = spec.out.iter().position(|l| *l == spec.b[0]).expect("the weight's columns are in the result");
    for (n, tail) in group.key.tails.iter().enumerate() {
        let shape = r.to.ty(whole).shape.clone();
        let mut args = Vec::with_capacity(tail.vectors.len() + 1);
        for slot in 0..=tail.vectors.len() {
            if slot == tail.product {
                args.push(whole);
                continue;
            }
            let vectors: Vec<ValueId> = group.members.iter().map(|m| operand(operand(m.tails[n], slot), 0)).collect();
            let vector = joined(r, &vectors)?;
            args.push(r.to.try_push(Broadcast { shape: Shape::new(&shape.sizes()), axes: vec![axis] }, &[vector])?);
        }
        whole = r.to.try_push(Map { body: tail.body.clone() }, &args)?;
        r.to.set_places(whole, places(function, group.members.iter().map(|m| m.tails[n])));
    }
    Ok(whole)
}

/// Weights, or equal maps of weights, joined along their first axis.
fn joined(r: &mut Rebuild, values: &[ValueId]) -> Result<ValueId, Diagnostic> {
    if let Def::Op { op: Op::Map(map), .. } = &r.from.value(values[0]).def {
        let below: Vec<ValueId> = values.iter().map(|v| r.from.reads(*v)[0]).collect();
        let below = joined(r, &below)?;
        return r.to.try_push(Map { body: map.body.clone() }, &[below]);
    }
    let mut parts = Vec::with_capacity(values.len());
    for value in values {
        let Some((op, _)) = r.from.op(*value) else {
            return Err(Diagnostic::new("merge-contractions internal", "a joined value is no weight"));
        };
        parts.push(r.to.try_push(op.clone(), &[])?);
    }
    r.to.try_push(Concat { axis: 0 }, &parts)
}

fn places(function: &Function, ids: impl Iterator<Item = ValueId>) -> Vec<Place> {
    let mut all: Vec<Place> = Vec::new();
    for place in ids.flat_map(|id| function.value(id).places.clone()) {
        if !all.contains(&place) {
            all.push(place);
        }
    }
    all
}
