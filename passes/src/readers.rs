//! Who reads a value.

use selvedge_ir::{Function, ValueId};

/// The values that read each value of a function, in order; one that reads it twice is there once.
pub(crate) struct Readers {
    /// Of each value the place behind its last reader in `all`; its first is where those of the value before end.
    ends: Vec<u32>,
    all: Vec<ValueId>,
}

impl Readers {
    /// The readers of all values. A call's results all read its arguments.
    pub(crate) fn of(function: &Function) -> Readers {
        let mut ends = vec![0u32; function.values.len()];
        let read = |id: ValueId| {
            let args = function.reads(id);
            args.iter().enumerate().filter(|(i, a)| !args[..*i].contains(a)).map(|(_, a)| a.0 as usize)
        };
        function.ids().for_each(|id| read(id).for_each(|a| ends[a] += 1));
        let mut sum = 0;
        for end in &mut ends {
            sum += std::mem::replace(end, sum);
        }
        // Each end is a beginning until its value's readers are there.
        let mut all = vec![ValueId(0); sum as usize];
        for id in function.ids() {
            for a in read(id) {
                all[ends[a] as usize] = id;
                ends[a] += 1;
            }
        }
        Readers { ends, all }
    }
    /// The readers of a value.
    pub(crate) fn of_value(&self, id: ValueId) -> &[ValueId] {
        let at = id.0 as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.all[start as usize..self.ends[at] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_ir::ops::{Map, Transpose};
    use selvedge_ir::scalar::Body;
    use selvedge_ir::{Builder, DType, TensorType};

    #[test]
    fn readers_are_in_order_and_there_once() {
        let mut b = Builder::new("f");
        let x = b.input("x", TensorType::new(DType::F32, [2, 2]));
        let sum = || {
            Body::build(2, |b| {
                let (x, y) = (b.arg(0), b.arg(1));
                b.binary(selvedge_ir::scalar::Binary::Add, x, y)
            })
        };
        let y = b.push(Map { body: sum() }, &[x, x]).unwrap();
        let z = b.push(Transpose { perm: vec![1, 0] }, &[x]).unwrap();
        let w = b.push(Map { body: sum() }, &[y, z]).unwrap();
        let readers = Readers::of(&b.finish());
        assert_eq!(readers.of_value(x), [y, z]);
        assert_eq!((readers.of_value(y), readers.of_value(z)), (&[w][..], &[w][..]));
        assert!(readers.of_value(w).is_empty());
    }
}
