//! Dimensions: a number, a symbol, or a sum of products, in one normal form.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A symbol's name, as in `B` or `N`.
pub type Symbol = Arc<str>;

/// Product of symbols, sorted; empty for a constant term.
type Monomial = Vec<Symbol>;

/// A dimension in canonical form: equal dimensions compare equal by `==`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Dim(Form);

/// Coefficients saturate at 64 bits, far beyond any tensor, so that arithmetic on absurd text cannot panic.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Form {
    /// No symbol occurs: what every dimension is once a module is specialised, and cheap to copy.
    Number(i64),
    /// A symbol occurs. Terms are sorted by monomial (highest degree first, then by name), no coefficient is zero.
    Sum(Vec<(Monomial, i64)>),
}

impl Dim {
    /// The constant `n`.
    pub fn new(n: usize) -> Dim {
        Dim::constant(i64::try_from(n).unwrap_or(i64::MAX))
    }
    fn constant(n: i64) -> Dim {
        Dim(Form::Number(n))
    }
    /// The symbol `name`.
    pub fn symbol(name: &str) -> Dim {
        Dim(Form::Sum(vec![(vec![Symbol::from(name)], 1)]))
    }
    /// The value, if no symbol occurs and it is not negative.
    pub fn get(&self) -> Option<usize> {
        match self.0 {
            Form::Number(n) => usize::try_from(n).ok(),
            Form::Sum(_) => None,
        }
    }
    /// True for the constant 1.
    pub fn is_one(&self) -> bool {
        self.get() == Some(1)
    }
    /// All symbols that occur.
    pub fn symbols(&self) -> Vec<Symbol> {
        let mut all: Vec<Symbol> = self.terms().into_iter().flat_map(|(m, _)| m).collect();
        all.sort();
        all.dedup();
        all
    }
    /// Replaces symbols by dimensions.
    pub fn substitute(&self, values: &BTreeMap<Symbol, Dim>) -> Dim {
        let Form::Sum(terms) = &self.0 else { return self.clone() };
        let mut sum = Dim::new(0);
        for (monomial, coefficient) in terms {
            let mut product = Dim::constant(*coefficient);
            for symbol in monomial {
                let factor = values.get(symbol).cloned().unwrap_or_else(|| Dim::symbol(symbol));
                product = &product * &factor;
            }
            sum = &sum + &product;
        }
        sum
    }
    /// The quotient, if `other` divides this dimension exactly as a polynomial.
    pub fn div_exact(&self, other: &Dim) -> Option<Dim> {
        if let (Form::Number(a), Form::Number(b)) = (&self.0, &other.0) {
            return (a.checked_rem(*b) == Some(0)).then(|| Dim::constant(a / b));
        }
        let divisor = other.terms();
        let (lead, lead_coefficient) = divisor.first()?;
        let mut rest = self.clone();
        let mut quotient = Dim::new(0);
        while let Some((monomial, coefficient)) = rest.terms().into_iter().next() {
            if coefficient.checked_rem(*lead_coefficient) != Some(0) {
                return None;
            }
            let monomial = divide_monomial(&monomial, lead)?;
            let term = Dim::from_terms([(monomial, coefficient / lead_coefficient)]);
            rest = &rest - &(&term * other);
            quotient = &quotient + &term;
        }
        Some(quotient)
    }
    /// The sum's terms, as many as there are; none for 0.
    fn terms(&self) -> Vec<(Monomial, i64)> {
        match &self.0 {
            Form::Number(0) => Vec::new(),
            Form::Number(n) => vec![(Vec::new(), *n)],
            Form::Sum(terms) => terms.clone(),
        }
    }
    fn from_terms(terms: impl IntoIterator<Item = (Monomial, i64)>) -> Dim {
        let mut sum: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (monomial, coefficient) in terms {
            let term = sum.entry(monomial).or_default();
            *term = coefficient.saturating_add(*term); // absurd extents stay absurd instead of wrapping
        }
        let mut terms: Vec<_> = sum.into_iter().filter(|(_, c)| *c != 0).collect();
        terms.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        match terms.as_slice() {
            [] => Dim::constant(0),
            [(monomial, n)] if monomial.is_empty() => Dim::constant(*n),
            _ => Dim(Form::Sum(terms)),
        }
    }
}

fn divide_monomial(a: &[Symbol], b: &[Symbol]) -> Option<Monomial> {
    let mut left = a.to_vec();
    for symbol in b {
        let at = left.iter().position(|s| s == symbol)?;
        left.remove(at);
    }
    Some(left)
}

impl std::ops::Add for &Dim {
    type Output = Dim;
    fn add(self, other: &Dim) -> Dim {
        match (&self.0, &other.0) {
            (Form::Number(a), Form::Number(b)) => Dim::constant(a.saturating_add(*b)),
            _ => Dim::from_terms(self.terms().into_iter().chain(other.terms())),
        }
    }
}

impl std::ops::Sub for &Dim {
    type Output = Dim;
    fn sub(self, other: &Dim) -> Dim {
        self + &(&Dim::constant(-1) * other)
    }
}

impl std::ops::Mul for &Dim {
    type Output = Dim;
    fn mul(self, other: &Dim) -> Dim {
        if let (Form::Number(a), Form::Number(b)) = (&self.0, &other.0) {
            return Dim::constant(a.saturating_mul(*b));
        }
        let (left, right) = (self.terms(), other.terms());
        Dim::from_terms(left.iter().flat_map(|(a, x)| {
            right.iter().map(move |(b, y)| {
                let mut monomial: Monomial = a.iter().chain(b).cloned().collect();
                monomial.sort();
                (monomial, x.saturating_mul(*y))
            })
        }))
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::new(n)
    }
}

impl From<&str> for Dim {
    fn from(name: &str) -> Dim {
        Dim::symbol(name)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = match &self.0 {
            Form::Number(n) => return write!(f, "{n}"),
            Form::Sum(terms) => terms,
        };
        for (i, (monomial, coefficient)) in terms.iter().enumerate() {
            let sign = if *coefficient < 0 {
                "-"
            } else if i > 0 {
                "+"
            } else {
                ""
            };
            f.write_str(sign)?;
            let magnitude = coefficient.unsigned_abs();
            if monomial.is_empty() {
                write!(f, "{magnitude}")?;
                continue;
            }
            if magnitude != 1 {
                write!(f, "{magnitude}*")?;
            }
            f.write_str(&monomial.join("*"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_products_have_one_form() {
        let (b, n) = (Dim::symbol("B"), Dim::symbol("N"));
        let left = &(&b + &n) * &(&b + &n);
        let right = &(&(&b * &b) + &(&(&Dim::new(2) * &n) * &b)) + &(&n * &n);
        assert_eq!(left, right);
        assert_eq!(left.to_string(), "B*B+2*B*N+N*N");
        assert_eq!((&left - &right).get(), Some(0));
    }

    #[test]
    fn division_is_exact_or_refused() {
        let (b, n) = (Dim::symbol("B"), Dim::symbol("N"));
        let square = &(&b + &n) * &(&b + &n);
        assert_eq!(square.div_exact(&(&b + &n)), Some(&b + &n));
        assert_eq!(square.div_exact(&b), None);
        assert_eq!(Dim::new(12).div_exact(&Dim::new(4)), Some(Dim::new(3)));
        assert_eq!(Dim::new(12).div_exact(&Dim::new(5)), None);
        assert_eq!(Dim::new(12).div_exact(&Dim::new(0)), None);
        assert_eq!(Dim::new(0).div_exact(&b), Some(Dim::new(0)));
    }

    #[test]
    fn symbols_are_replaced() {
        let d = &(&Dim::symbol("B") * &Dim::symbol("N")) + &Dim::new(1);
        let values = [(Symbol::from("B"), Dim::new(2)), (Symbol::from("N"), Dim::new(3))].into_iter().collect();
        assert_eq!(d.substitute(&values), Dim::new(7));
    }
}
