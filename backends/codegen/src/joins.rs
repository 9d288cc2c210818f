//! Weights that lie one behind the other, so that a join of them is a weight itself and costs nothing.

use selvedge_ir::{Module, Op, TensorType};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The joins of a module that can be laid out: each of their weights is read nowhere else.
#[derive(Clone, Debug, Default)]
pub struct Joins {
    /// The parts of each join, by its name.
    joins: BTreeMap<String, Vec<(String, TensorType)>>,
}

impl Joins {
    /// Finds them. A weight that is read in another way too, or in two joins, keeps a place of its own, and its joins are copies.
    pub fn of(module: &Module) -> Joins {
        let mut found: BTreeMap<String, Vec<(String, TensorType)>> = BTreeMap::new();
        let mut elsewhere: BTreeSet<&str> = BTreeSet::new();
        for function in &module.functions {
            let weight = |id| match function.op(id) {
                Some((Op::Weight(w), _)) => Some(w.name.as_str()),
                Some(_) | None => None,
            };
            for id in function.ids() {
                match function.joined_weights(id) {
                    Some(weights) => {
                        let parts: Vec<(String, TensorType)> =
                            weights.iter().map(|w| (w.name.clone(), w.ty.clone())).collect();
                        let words = |(_, ty): &(String, TensorType)| {
                            let bytes = ty.elements().map(|n| n * ty.dtype.bits() / 8);
                            ty.dtype.is_float() && bytes.is_some_and(|b| b.is_multiple_of(4))
                        };
                        match parts.iter().all(words) {
                            true => _ = found.insert(name(parts.iter().map(|(n, _)| n.as_str())), parts),
                            false => elsewhere.extend(weights.iter().map(|w| w.name.as_str())),
                        }
                    }
                    None => elsewhere.extend(function.reads(id).iter().filter_map(|a| weight(*a))),
                }
            }
            elsewhere.extend(function.returns.iter().filter_map(|r| weight(r.value)));
        }
        let mut uses: HashMap<&str, usize> = HashMap::new();
        found.values().flatten().for_each(|(name, _)| *uses.entry(name).or_default() += 1);
        let twice: BTreeSet<String> = uses
            .into_iter()
            .filter(|(n, uses)| *uses > 1 || elsewhere.contains(n))
            .map(|(n, _)| n.to_string())
            .collect();
        found.retain(|_, parts| parts.iter().all(|(n, _)| !twice.contains(n)));
        Joins { joins: found }
    }
    /// The name of the weight that a join of weights is, if they lie one behind the other.
    pub fn named<'n>(&self, weights: impl Iterator<Item = &'n str>) -> Option<String> {
        let name = name(weights);
        self.joins.contains_key(&name).then_some(name)
    }
    /// The weights behind a joined one's name.
    pub fn parts(&self, name: &str) -> Option<&[(String, TensorType)]> {
        self.joins.get(name).map(Vec::as_slice)
    }
}

/// Unlike any name in a checkpoint: names there have no line ends.
fn name<'n>(weights: impl Iterator<Item = &'n str>) -> String {
    weights.collect::<Vec<_>>().join("\n")
}
