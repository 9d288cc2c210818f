//! Views: attributes and operands that fit the extents that are wanted.

use super::Maker;
use egg::{ENodeOrVar, Id};
use selvedge_ir::attr::Attr;
use selvedge_ir::func::ValueId;
use selvedge_ir::{OpKind, Shape};

impl Maker<'_> {
    pub(super) fn transpose(&mut self, perm: Id, x: Id, want: Option<&[usize]>) -> Option<ValueId> {
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
    pub(super) fn reshape(&mut self, shape: Id, x: Id, want: Option<&[usize]>) -> Option<ValueId> {
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
    pub(super) fn broadcast(&mut self, attrs: &[Id], x: Id, want: Option<&[usize]>) -> Option<ValueId> {
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
    pub(super) fn slice(&mut self, attrs: &[Id], x: Id, want: Option<&[usize]>) -> Option<ValueId> {
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
    pub(super) fn concat(&mut self, axis: Id, args: &[Id]) -> Option<ValueId> {
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
}
