//! What `condition` gave (what the text encoders say of a prompt, as a rule), kept for runs that ask for the same.

use selvedge_ir::Tensor;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Bytes of the host's memory for it; the oldest goes first.
const MOST_BYTES: u64 = 1 << 30;

/// Outputs of `condition` by its inputs.
pub(crate) struct Conditions<T> {
    known: VecDeque<Known<T>>,
    kept: bool,
    /// How often it ran.
    pub runs: usize,
}

struct Known<T> {
    inputs: BTreeMap<String, Tensor>,
    outputs: Arc<T>,
    bytes: u64,
}

impl<T> Default for Conditions<T> {
    fn default() -> Self {
        Conditions { known: VecDeque::new(), kept: false, runs: 0 }
    }
}

impl<T> Conditions<T> {
    /// From now on what it gives is kept.
    pub fn keep(&mut self) {
        self.kept = true;
    }
    /// What it gives should be handed to [`Conditions::insert`].
    pub fn kept(&self) -> bool {
        self.kept
    }
    /// What it gave for these of the inputs of a run.
    pub fn find<'n>(
        &self,
        names: impl Iterator<Item = &'n str> + Clone,
        inputs: &BTreeMap<String, Tensor>,
    ) -> Option<Arc<T>> {
        let same = |known: &&Known<T>| names.clone().all(|n| known.inputs.get(n) == inputs.get(n));
        self.known.iter().find(same).map(|known| known.outputs.clone())
    }
    /// Keeps what it gave.
    pub fn insert<'n>(
        &mut self,
        names: impl Iterator<Item = &'n str>,
        inputs: &BTreeMap<String, Tensor>,
        outputs: T,
        bytes: u64,
    ) {
        let inputs = names.filter_map(|n| Some((n.to_string(), inputs.get(n)?.clone()))).collect();
        self.known.push_back(Known { inputs, outputs: Arc::new(outputs), bytes });
        while self.known.iter().map(|k| k.bytes).sum::<u64>() > MOST_BYTES {
            self.known.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(prompt: i32, noise: i32) -> BTreeMap<String, Tensor> {
        [("prompt", prompt), ("noise", noise)].map(|(n, x)| (n.to_string(), Tensor::i32(&[1], vec![x]))).into()
    }

    #[test]
    fn only_what_it_reads_matters() {
        let names = ["prompt"];
        let mut all: Conditions<char> = Conditions::default();
        all.insert(names.into_iter(), &inputs(1, 1), 'a', 1);
        all.insert(names.into_iter(), &inputs(2, 1), 'b', 1);
        let find = |all: &Conditions<char>, prompt| all.find(names.into_iter(), &inputs(prompt, 7)).map(|c| *c);
        assert_eq!([find(&all, 1), find(&all, 2), find(&all, 3)], [Some('a'), Some('b'), None]);
        all.insert(names.into_iter(), &inputs(3, 1), 'c', MOST_BYTES - 1);
        assert_eq!([find(&all, 1), find(&all, 2), find(&all, 3)], [None, Some('b'), Some('c')]);
    }
}
