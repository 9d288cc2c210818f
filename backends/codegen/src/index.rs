//! Symbolic index expressions: what a kernel computes to find an element.
//!
//! An [`Index`] is a sum of products `coefficient · atom` plus a constant, kept in one normal form; every value
//! is a natural number that fits a `u32`, and its range is known. Constructors simplify by ranges, so that
//! splitting a linear index into coordinates and joining them again folds away, and so that two kernels'
//! equal addresses compare equal.

mod wgsl;

use std::rc::Rc;

/// A natural number known at run time: `Σ coefficient · atom + constant`.
///
/// Invariant: terms are sorted by atom, no coefficient is 0, no atom is provably constant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Index {
    terms: Vec<(Atom, u64)>,
    constant: u64,
}

/// A part of an index that is not a sum.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Atom {
    /// A variable of the kernel with values `0..=max`.
    Var { name: Rc<str>, max: u64 },
    /// Quotient by a constant.
    Div(Rc<Index>, u64),
    /// Remainder by a constant.
    Mod(Rc<Index>, u64),
    /// The smaller of an index and a constant.
    Min(Rc<Index>, u64),
    /// An index minus a constant, 0 where that would be negative.
    Less(Rc<Index>, u64),
    /// A constant minus an index that is never larger.
    From(u64, Rc<Index>),
}

impl Index {
    /// The constant `c`.
    pub fn constant(c: u64) -> Index {
        Index { terms: Vec::new(), constant: c }
    }
    /// A variable with values `0..count`; one with a single value is the constant 0.
    pub fn var(name: &str, count: u64) -> Index {
        if count <= 1 { Index::constant(0) } else { Index::atom(Atom::Var { name: name.into(), max: count - 1 }) }
    }
    fn atom(atom: Atom) -> Index {
        Index { terms: vec![(atom, 1)], constant: 0 }
    }
    /// The value, if it is known.
    pub fn get(&self) -> Option<u64> {
        self.terms.is_empty().then_some(self.constant)
    }
    /// Least and largest possible value.
    pub fn range(&self) -> (u64, u64) {
        self.terms.iter().fold((self.constant, self.constant), |(low, high), (atom, c)| {
            let (l, h) = atom.range();
            (low.saturating_add(c.saturating_mul(l)), high.saturating_add(c.saturating_mul(h)))
        })
    }
    /// Largest possible value.
    pub fn high(&self) -> u64 {
        self.range().1
    }
    /// The sum.
    pub fn add(&self, other: &Index) -> Index {
        let mut terms = self.terms.clone();
        for (atom, c) in &other.terms {
            match terms.binary_search_by(|(a, _)| a.cmp(atom)) {
                Ok(i) => terms[i].1 += c,
                Err(i) => terms.insert(i, (atom.clone(), *c)),
            }
        }
        Index { terms, constant: self.constant + other.constant }.joined()
    }
    /// The sum with a constant.
    pub fn plus(&self, c: u64) -> Index {
        Index { terms: self.terms.clone(), constant: self.constant + c }
    }
    /// The product with a constant.
    pub fn times(&self, c: u64) -> Index {
        if c == 0 {
            return Index::constant(0);
        }
        Index { terms: self.terms.iter().map(|(a, k)| (a.clone(), k * c)).collect(), constant: self.constant * c }
    }
    /// This as a sum of what depends on no other variables than these, and the rest.
    pub fn apart(&self, names: &[&str]) -> (Index, Index) {
        let (ours, theirs) = self.terms.iter().cloned().partition(|(atom, _)| atom.only_of(names));
        (Index { terms: ours, constant: 0 }, Index { terms: theirs, constant: self.constant })
    }
    fn only_of(&self, names: &[&str]) -> bool {
        self.terms.iter().all(|(atom, _)| atom.only_of(names))
    }
    /// The quotient by a positive constant.
    pub fn div(&self, d: u64) -> Index {
        assert!(d > 0, "division of an index by zero");
        if d == 1 {
            return self.clone();
        }
        let (whole, rest) = self.split(d);
        whole.add(&rest.div_rest(d))
    }
    /// The remainder by a positive constant.
    pub fn rem(&self, d: u64) -> Index {
        assert!(d > 0, "remainder of an index by zero");
        self.split(d).1.rem_rest(d)
    }
    /// `self = d · whole + rest` with the coefficients of `rest` below `d`.
    fn split(&self, d: u64) -> (Index, Index) {
        let part = |f: &dyn Fn(u64) -> u64| Index {
            terms: self.terms.iter().map(|(a, c)| (a.clone(), f(*c))).filter(|(_, c)| *c > 0).collect(),
            constant: f(self.constant),
        };
        (part(&|c| c / d), part(&|c| c % d))
    }
    /// Quotient of an index whose coefficients are below `d`.
    fn div_rest(&self, d: u64) -> Index {
        let (low, high) = self.range();
        if low / d == high / d {
            return Index::constant(low / d);
        }
        // All coefficients share a factor with d, and the constant's rest cannot carry.
        let g = self.common_factor(d);
        if g > 1 {
            return Index { constant: self.constant / g, ..self.scaled_down(g) }.div(d / g);
        }
        if let Some((large, _, g)) = self.carried(d) {
            return large.div(d / g);
        }
        if let [(atom, 1)] = self.terms.as_slice()
            && self.constant == 0
        {
            match atom {
                Atom::Div(x, a) => return x.div(a * d),
                // (x mod a) / d = (x / d) mod (a / d) where d divides a.
                Atom::Mod(x, a) if a % d == 0 => return x.div(d).rem(a / d),
                _ => {}
            }
        }
        Index::atom(Atom::Div(Rc::new(self.clone()), d))
    }
    /// Remainder of an index whose coefficients are below `d`.
    fn rem_rest(&self, d: u64) -> Index {
        let (low, high) = self.range();
        if low / d == high / d {
            let q = low / d * d;
            if q <= self.constant {
                return Index { terms: self.terms.clone(), constant: self.constant - q };
            }
        }
        if d == 1 {
            return Index::constant(0);
        }
        let g = self.common_factor(d);
        if g > 1 {
            let inner = Index { constant: self.constant / g, ..self.scaled_down(g) }.rem(d / g);
            return inner.times(g).plus(self.constant % g);
        }
        if let Some((large, small, g)) = self.carried(d) {
            return large.rem(d / g).times(g).add(&small);
        }
        if let [(Atom::Mod(x, a), 1)] = self.terms.as_slice()
            && self.constant == 0
            && a % d == 0
        {
            return x.rem(d);
        }
        Index::atom(Atom::Mod(Rc::new(self.clone()), d))
    }
    /// `self = g · large + small` with `g` > 1 a divisor of `d`, and `small` below it: it never carries into a multiple of `g`.
    fn carried(&self, d: u64) -> Option<(Index, Index, u64)> {
        let mut factors: Vec<u64> = self.terms.iter().map(|(_, c)| *c).collect();
        factors.sort_unstable_by_key(|c| std::cmp::Reverse(*c));
        let mut g = d;
        let divisors = factors.into_iter().map(|c| {
            g = gcd(g, c);
            g
        });
        let (large, small, g) = divisors
            .map(|g| {
                let (large, small) = self.split(g);
                (large, small, g)
            })
            .find(|(large, small, g)| *g > 1 && small.high() < *g && large.get() != Some(0))?;
        Some((large, small, g))
    }
    /// Greatest common divisor of `d` and all coefficients.
    fn common_factor(&self, d: u64) -> u64 {
        self.terms.iter().fold(d, |g, (_, c)| gcd(g, *c))
    }
    fn scaled_down(&self, g: u64) -> Index {
        Index { terms: self.terms.iter().map(|(a, c)| (a.clone(), c / g)).collect(), constant: 0 }
    }
    /// The smaller of this and a constant.
    pub fn at_most(&self, c: u64) -> Index {
        let (low, high) = self.range();
        match () {
            _ if high <= c => self.clone(),
            _ if low >= c => Index::constant(c),
            _ => Index::atom(Atom::Min(Rc::new(self.clone()), c)),
        }
    }
    /// This minus a constant; 0 where that would be negative.
    pub fn less(&self, c: u64) -> Index {
        let high = self.high();
        match () {
            _ if c <= self.constant => Index { terms: self.terms.clone(), constant: self.constant - c },
            _ if high <= c => Index::constant(0),
            _ => {
                // What can be taken off the constant is, so that equal differences compare equal.
                let rest = Index { terms: self.terms.clone(), constant: 0 };
                Index::atom(Atom::Less(Rc::new(rest), c - self.constant))
            }
        }
    }
    /// A constant minus this, which is never larger than `c`.
    pub fn taken_from(c: u64, index: &Index) -> Index {
        debug_assert!(index.high() <= c, "{c} - {index} may be negative");
        match index.get() {
            Some(x) => Index::constant(c - x),
            None => Index::atom(Atom::From(c, Rc::new(index.clone()))),
        }
    }
    /// Joins `d·(x / d) + x mod d` to `x`, as often as it occurs.
    fn joined(mut self) -> Index {
        'again: loop {
            for (i, (atom, c)) in self.terms.iter().enumerate() {
                let Atom::Mod(x, d) = atom else { continue };
                let quotient = x.div(*d);
                let factor = c * d;
                // The quotient's terms must all be here, in the right multiples.
                let mut rest = self.clone();
                rest.terms.remove(i);
                if rest.take(&quotient, factor) {
                    self = rest.add(&x.times(*c));
                    continue 'again;
                }
            }
            return self;
        }
    }
    /// Subtracts `factor · other` if every term is there in at least that multiple (a constant alone is not taken).
    fn take(&mut self, other: &Index, factor: u64) -> bool {
        if other.terms.is_empty() {
            return false;
        }
        let Some(constant) = self.constant.checked_sub(other.constant * factor) else { return false };
        let mut terms = self.terms.clone();
        for (atom, c) in &other.terms {
            let Ok(i) = terms.binary_search_by(|(a, _)| a.cmp(atom)) else { return false };
            let Some(left) = terms[i].1.checked_sub(c * factor) else { return false };
            terms[i].1 = left;
        }
        terms.retain(|(_, c)| *c > 0);
        self.terms = terms;
        self.constant = constant;
        true
    }
    /// The remainder by `d` where it is the same for all values of the variables.
    pub fn known_rem(&self, d: u64) -> Option<u64> {
        self.rem(d).get()
    }
    /// The value for given values of the variables.
    pub fn eval(&self, values: &dyn Fn(&str) -> u64) -> u64 {
        self.terms.iter().map(|(a, c)| a.eval(values) * c).sum::<u64>() + self.constant
    }
    /// Number of operations that printing takes, roughly.
    pub fn cost(&self) -> usize {
        self.terms.iter().map(|(a, c)| a.cost() + usize::from(*c != 1) + 1).sum()
    }
}

impl Atom {
    fn range(&self) -> (u64, u64) {
        match self {
            Atom::Var { max, .. } => (0, *max),
            Atom::Div(x, d) => {
                let (low, high) = x.range();
                (low / d, high / d)
            }
            Atom::Mod(x, d) => (0, (d - 1).min(x.high())),
            Atom::Min(x, c) => {
                let (low, high) = x.range();
                (low.min(*c), high.min(*c))
            }
            Atom::Less(x, c) => {
                let (low, high) = x.range();
                (low.saturating_sub(*c), high.saturating_sub(*c))
            }
            Atom::From(c, x) => {
                let (low, high) = x.range();
                (c.saturating_sub(high), c - low)
            }
        }
    }
    fn only_of(&self, names: &[&str]) -> bool {
        match self {
            Atom::Var { name, .. } => names.contains(&&**name),
            Atom::Div(x, _) | Atom::Mod(x, _) | Atom::Min(x, _) | Atom::Less(x, _) | Atom::From(_, x) => {
                x.only_of(names)
            }
        }
    }
    fn eval(&self, values: &dyn Fn(&str) -> u64) -> u64 {
        match self {
            Atom::Var { name, .. } => values(name),
            Atom::Div(x, d) => x.eval(values) / d,
            Atom::Mod(x, d) => x.eval(values) % d,
            Atom::Min(x, c) => x.eval(values).min(*c),
            Atom::Less(x, c) => x.eval(values).saturating_sub(*c),
            Atom::From(c, x) => c - x.eval(values),
        }
    }
    fn cost(&self) -> usize {
        match self {
            Atom::Var { .. } => 0,
            Atom::Div(x, _) | Atom::Mod(x, _) | Atom::Min(x, _) | Atom::From(_, x) => 1 + x.cost(),
            Atom::Less(x, _) => 2 + x.cost(),
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Coordinates of a row-major linear index in a box of these extents.
pub fn coordinates(linear: &Index, sizes: &[u64]) -> Vec<Index> {
    let mut stride = 1;
    let mut coordinates = vec![Index::constant(0); sizes.len()];
    for axis in (0..sizes.len()).rev() {
        // An empty box has no element; any index will do, and none may divide by zero.
        let size = sizes[axis].max(1);
        let quotient = linear.div(stride);
        coordinates[axis] = if quotient.high() < size { quotient } else { quotient.rem(size) };
        stride *= size;
    }
    coordinates
}

/// The row-major linear index of coordinates.
pub fn linear(coordinates: &[Index], sizes: &[u64]) -> Index {
    coordinates.iter().zip(sizes).fold(Index::constant(0), |sum, (c, size)| sum.times((*size).max(1)).add(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_loop_does_not_change_comes_apart() {
        let (m, k) = (Index::var("m", 12), Index::var("k4", 24));
        let place = m.div(3).times(96).add(&m.rem(3).times(24)).add(&k).plus(5);
        let (row, rest) = place.apart(&["batch", "m"]);
        for i in 0..12 {
            assert_eq!(
                row.eval(&|name| if name == "m" { i } else { panic!("{name} is not a row's") }),
                i / 3 * 96 + i % 3 * 24
            );
        }
        assert_eq!(rest, k.plus(5));
        // A remainder of both stays whole.
        let mixed = m.add(&k).rem(7);
        assert_eq!(mixed.apart(&["m"]), (Index::constant(0), mixed));
    }

    #[test]
    fn splitting_and_joining_fold_away() {
        let x = Index::var("x", 2 * 3 * 4 * 5);
        let sizes = [2, 3, 4, 5];
        assert_eq!(linear(&coordinates(&x, &sizes), &sizes), x);
        let other = [6, 20];
        let through = coordinates(&linear(&coordinates(&x, &sizes), &sizes), &other);
        assert_eq!(linear(&through, &other), x);
        let padded = Index::var("i", 7).times(4).plus(3);
        assert_eq!(padded.div(4).to_string(), "i");
        assert_eq!(padded.rem(4).get(), Some(3));
        assert_eq!(padded.div(8).to_string(), "((i) >> 1u)");
    }

    #[test]
    fn lanes_of_a_vector_share_their_row() {
        let k = Index::var("k4", 96).times(4);
        for lane in 0..4 {
            let at = coordinates(&k.plus(lane), &[6, 64]);
            assert_eq!(at[0], Index::var("k4", 96).div(16));
            assert_eq!(at[1].known_rem(4), Some(lane));
        }
    }

    /// One step that builds an index from an earlier one.
    #[derive(Clone, Debug)]
    enum Step {
        Add(usize, usize),
        Times(usize, u64),
        Plus(usize, u64),
        Div(usize, u64),
        Rem(usize, u64),
        Min(usize, u64),
        Less(usize, u64),
        From(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let (i, c) = (0..100usize, 1..40u64);
        prop_oneof![
            (i.clone(), i.clone()).prop_map(|(a, b)| Step::Add(a, b)),
            (i.clone(), 1..6u64).prop_map(|(a, c)| Step::Times(a, c)),
            (i.clone(), c.clone()).prop_map(|(a, c)| Step::Plus(a, c)),
            (i.clone(), c.clone()).prop_map(|(a, c)| Step::Div(a, c)),
            (i.clone(), c.clone()).prop_map(|(a, c)| Step::Rem(a, c)),
            (i.clone(), c.clone()).prop_map(|(a, c)| Step::Min(a, c)),
            (i.clone(), c).prop_map(|(a, c)| Step::Less(a, c)),
            i.prop_map(Step::From),
        ]
    }

    proptest! {
        #[test]
        fn simplification_keeps_values_and_ranges(
            sizes in prop::collection::vec(1..9u64, 3),
            steps in prop::collection::vec(step(), 1..12),
        ) {
            let names = ["x", "y", "z"];
            let mut built: Vec<Index> = names.iter().zip(&sizes).map(|(n, s)| Index::var(n, *s)).collect();
            for s in &steps {
                let at = |i: usize| built[i % built.len()].clone();
                let next = match *s {
                    Step::Add(a, b) => at(a).add(&at(b)),
                    Step::Times(a, c) => at(a).times(c),
                    Step::Plus(a, c) => at(a).plus(c),
                    Step::Div(a, c) => at(a).div(c),
                    Step::Rem(a, c) => at(a).rem(c),
                    Step::Min(a, c) => at(a).at_most(c),
                    Step::Less(a, c) => at(a).less(c),
                    Step::From(a) => Index::taken_from(at(a).high(), &at(a)),
                };
                built.push(next);
            }
            for x in 0..sizes[0] { for y in 0..sizes[1] { for z in 0..sizes[2] {
                let values = [x, y, z];
                let mut direct: Vec<u64> = values.to_vec();
                for s in &steps {
                    let at = |i: usize| direct[i % direct.len()];
                    let at_max = |i: usize| built[i % direct.len()].high();
                    let next = match *s {
                        Step::Add(a, b) => at(a) + at(b),
                        Step::Times(a, c) => at(a) * c,
                        Step::Plus(a, c) => at(a) + c,
                        Step::Div(a, c) => at(a) / c,
                        Step::Rem(a, c) => at(a) % c,
                        Step::Min(a, c) => at(a).min(c),
                        Step::Less(a, c) => at(a).saturating_sub(c),
                        Step::From(a) => at_max(a) - at(a),
                    };
                    direct.push(next);
                }
                let lookup = |name: &str| values[names.iter().position(|n| *n == name).unwrap()];
                for (index, expected) in built.iter().zip(&direct) {
                    prop_assert_eq!(index.eval(&lookup), *expected, "{}", index);
                    let (low, high) = index.range();
                    prop_assert!(low <= *expected && *expected <= high, "{} outside its range", index);
                }
            }}}
        }
    }
}
