//! Contractions: a spec that fits the operands and the result that are there.

use super::Maker;
use egg::{ENodeOrVar, Id};
use selvedge_ir::attr::Attr;
use selvedge_ir::func::ValueId;
use selvedge_ir::spec::ContractSpec;
use selvedge_ir::{DType, OpKind};
use selvedge_passes::saturate::Node;
use std::collections::BTreeMap;

impl Maker<'_> {
    /// A contraction: each axis of the operands that are there gets a role at random, fresh ones are drawn to fit.
    pub(super) fn contract(&mut self, attrs: &[Id], args: &[Id], want: Option<&[usize]>) -> Option<ValueId> {
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
