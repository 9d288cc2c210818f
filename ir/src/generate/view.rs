//! Random views of what is there.
use super::emit::{Emit, Fact};
use crate::func::ValueId;
use crate::ops::*;
use crate::scalar::F64;
use crate::shape::Shape;

impl Emit<'_> {
    /// A value of rank `least` at least, and its extents.
    fn viewed(&mut self, least: usize) -> Option<(ValueId, Vec<usize>)> {
        let x = self.find(|t, _| t.rank() >= least)?;
        Some((x, self.ty(x).shape.sizes()))
    }
    fn push_view(&mut self, op: impl Into<Op>, x: ValueId) -> Option<ValueId> {
        let fact = self.fact(x);
        self.push(op.into(), &[x], fact)
    }
    pub(super) fn transpose(&mut self) -> Option<ValueId> {
        let (x, sizes) = self.viewed(1)?;
        let perm = self.rng.permutation(sizes.len());
        self.push_view(Transpose { perm }, x)
    }
    pub(super) fn reshape(&mut self) -> Option<ValueId> {
        let (x, sizes) = self.viewed(0)?;
        let shape = self.regrouped(&sizes);
        self.push_view(Reshape { shape }, x)
    }
    pub(super) fn broadcast(&mut self) -> Option<ValueId> {
        let (x, sizes) = self.viewed(0)?;
        let (mut shape, mut axes) = (Vec::new(), Vec::new());
        for &n in &sizes {
            if self.rng.chance(0.25) && shape.len() < 5 {
                shape.push(self.extent());
            }
            axes.push(shape.len());
            shape.push(if n == 1 && self.rng.chance(0.5) { self.extent() } else { n });
        }
        if shape.len() < 4 && self.rng.chance(0.4) {
            shape.push(self.extent());
        }
        self.push_view(Broadcast { shape: Shape::new(&shape), axes }, x)
    }
    pub(super) fn slice(&mut self) -> Option<ValueId> {
        let (x, sizes) = self.viewed(1)?;
        let mut op = Slice { start: vec![], end: vec![], step: vec![] };
        for &n in &sizes {
            let least = usize::from(!self.options.empty && n > 0);
            let start = self.rng.between(0, n - least);
            op.start.push(start);
            op.end.push(self.rng.between(start + least, n));
            op.step.push(self.rng.between(1, 2));
        }
        self.push_view(op, x)
    }
    pub(super) fn pad(&mut self) -> Option<ValueId> {
        let (x, sizes) = self.viewed(1)?;
        let padding = sizes.iter().map(|_| (self.rng.below(3), self.rng.below(2))).collect();
        let value = F64(if self.rng.chance(0.5) { 1.0 } else { 0.0 });
        let fact = self.fact(x);
        self.push(Pad { padding, value }.into(), &[x], Fact { bound: fact.bound.max(1.0), ..fact })
    }
    pub(super) fn concat(&mut self) -> Option<ValueId> {
        let (x, sizes) = self.viewed(1)?;
        let axis = self.rng.below(sizes.len());
        let mut other = self.ty(x);
        other.shape.0[axis] = self.extent().into();
        if other.elements()? > self.options.max_elements {
            return None;
        }
        let y = self.like(&other);
        let args = if self.rng.chance(0.3) { vec![y, x, x] } else { vec![x, y] };
        let (a, b) = (self.fact(x), self.fact(y));
        let both = Fact { bound: a.bound.max(b.bound), exact: a.exact && b.exact };
        self.push(Concat { axis }.into(), &args, both)
    }
    /// Another shape of as many elements: two axes joined, one split, or a unit axis added.
    fn regrouped(&mut self, sizes: &[usize]) -> Shape {
        let mut new = sizes.to_vec();
        if new.len() >= 2 && self.rng.chance(0.5) {
            let at = self.rng.below(new.len() - 1);
            let joined = new[at] * new.remove(at + 1);
            new[at] = joined;
        }
        if let Some(at) = new.iter().position(|&n| n % 2 == 0 && n > 0)
            && new.len() < 5
            && self.rng.chance(0.5)
        {
            new[at] /= 2;
            new.insert(at, 2);
        }
        if new.len() < 4 && self.rng.chance(0.3) {
            new.insert(self.rng.between(0, new.len()), 1);
        }
        Shape::new(&new)
    }
}
