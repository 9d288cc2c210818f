//! Choices among kernels: what may be chosen, and what was.
//!
//! Where a lowering arm can compute a unit in several ways, it names the unit by a **key** (its structure: operator, shapes,
//! dtypes, whatever else decides its speed) and lists **candidates**, the model's default first. Without choices of the
//! caller the default is taken, so that compiling needs no device. A tuner compiles with other choices, and measures.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;

/// Names of candidates by the keys of units.
pub type Choices = BTreeMap<String, String>;

/// A unit that could be computed in several ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunable {
    /// Names of the candidates, the default first.
    pub candidates: Vec<String>,
    /// Which was taken.
    pub chosen: usize,
    /// Function and position of each dispatch that computes such a unit.
    pub dispatches: Vec<(u32, u32)>,
}

impl Tunable {
    /// Name of the candidate that was taken.
    pub fn name(&self) -> &str {
        &self.candidates[self.chosen]
    }
}

/// The choices of a compilation, and a record of where there was one.
#[derive(Debug, Default)]
pub struct Tuning {
    wanted: Choices,
    found: RefCell<BTreeMap<String, Tunable>>,
}

impl Tuning {
    /// With the choices of the caller; those that do not apply are ignored.
    pub fn new(wanted: Choices) -> Tuning {
        Tuning { wanted, found: RefCell::default() }
    }

    /// The candidate to take for a unit: the one whose name the caller gave, or the first. `candidates` is not empty; names
    /// are what `Display` prints, and each occurs once.
    pub fn pick<C: Clone + Display>(&self, key: &str, candidates: &[C]) -> C {
        let chosen = match self.wanted.get(key) {
            Some(name) => candidates.iter().position(|c| c.to_string() == *name).unwrap_or(0),
            None => 0,
        };
        let mut found = self.found.borrow_mut();
        if !found.contains_key(key) {
            let names = candidates.iter().map(C::to_string).collect();
            found.insert(key.to_string(), Tunable { candidates: names, chosen, dispatches: Vec::new() });
        }
        candidates[chosen].clone()
    }

    /// Notes that a dispatch computes a unit with this key.
    pub fn dispatched(&self, key: &str, function: u32, dispatch: u32) {
        if let Some(tunable) = self.found.borrow_mut().get_mut(key) {
            tunable.dispatches.push((function, dispatch));
        }
    }

    /// Everything that was chosen, by key.
    pub fn into_found(self) -> BTreeMap<String, Tunable> {
        self.found.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_candidate_is_the_default_and_unknown_names_change_nothing() {
        let wanted = [("a", "two"), ("b", "gone")].map(|(k, v)| (k.to_string(), v.to_string()));
        let tuning = Tuning::new(wanted.into());
        let candidates = ["one", "two", "three"];
        assert_eq!(["a", "b", "c"].map(|key| tuning.pick(key, &candidates)), ["two", "one", "one"]);
        tuning.dispatched("a", 0, 3);
        let found = tuning.into_found();
        assert_eq!((found["a"].name(), &found["a"].dispatches[..]), ("two", &[(0, 3)][..]));
        assert_eq!((found["b"].chosen, found.len()), (0, 3));
    }
}
