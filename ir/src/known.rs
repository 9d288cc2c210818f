//! Finding equal values of a function fast: passes and code generation ask for each value whether it is there already.

use crate::func::{Function, ValueId};
use crate::ops::Op;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A hasher for keys that nobody chooses to collide: a multiplication a word.
#[derive(Clone, Copy, Debug, Default)]
pub struct FastHasher(u64);

/// A map whose order is never read.
pub type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<FastHasher>>;

/// Odd, with bits all over: 2⁶⁴ divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for FastHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, x: u8) {
        self.write_u64(x.into());
    }
    fn write_u16(&mut self, x: u16) {
        self.write_u64(x.into());
    }
    fn write_u32(&mut self, x: u32) {
        self.write_u64(x.into());
    }
    fn write_u64(&mut self, x: u64) {
        self.0 = (self.0.rotate_left(5) ^ x).wrapping_mul(SPREAD);
    }
    fn write_usize(&mut self, x: usize) {
        self.write_u64(x as u64);
    }
    fn finish(&self) -> u64 {
        // The product's high bits depend on all of its factors' bits; tables read the low ones.
        self.0.rotate_left(26)
    }
}

/// Values of a function by operator and operands. The operators stay in the function; here are only their hashes.
#[derive(Clone, Debug, Default)]
pub struct Known(FastMap<u64, ValueId>);

/// Where a value that is not known yet belongs.
#[derive(Clone, Copy, Debug)]
pub struct Slot(u64);

impl Known {
    /// The value of `function` that applies `op` to `args`, or the place for one.
    ///
    /// # Errors
    /// The place, if there is no such value.
    pub fn find(&self, function: &Function, op: &Op, args: &[ValueId]) -> Result<ValueId, Slot> {
        let mut hasher = FastHasher::default();
        op.hash(&mut hasher);
        args.hash(&mut hasher);
        let mut slot = hasher.finish();
        while let Some(id) = self.0.get(&slot) {
            if function.op(*id) == Some((op, args)) {
                return Ok(*id);
            }
            slot = slot.wrapping_add(1);
        }
        Err(Slot(slot))
    }
    /// Remembers a value at the place that [`Known::find`] gave for it, before anything else was remembered.
    pub fn insert(&mut self, slot: Slot, id: ValueId) {
        self.0.insert(slot.0, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Transpose;
    use crate::{Builder, DType, TensorType};

    #[test]
    fn equal_values_are_found_and_others_are_not() {
        let mut b = Builder::new("f");
        let x = b.input("x", TensorType::new(DType::F32, [2, 3]));
        let y = b.push(Transpose { perm: vec![1, 0] }, &[x]).unwrap();
        let mut known = Known::default();
        let op = Op::from(Transpose { perm: vec![1, 0] });
        let slot = known.find(b.function(), &op, &[x]).unwrap_err();
        known.insert(slot, y);
        assert_eq!(known.find(b.function(), &op, &[x]).ok(), Some(y));
        assert!(known.find(b.function(), &op, &[y]).is_err());
        // Another value whose hash is the same lies behind it.
        let Slot(taken) = slot;
        known.0.insert(taken, x);
        let Slot(next) = known.find(b.function(), &op, &[x]).unwrap_err();
        assert_eq!(next, taken.wrapping_add(1));
    }
}
