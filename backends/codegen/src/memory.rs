//! Where tensors lie: buffers, regions, and reuse of memory by lifetimes.

use crate::tensor::{Tensor, TensorId, padded};
use selvedge_bundle::manifest::{ALIGN, Access, Buffer, Region};

/// First and last dispatch (by index) between which a tensor's contents matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Which tensor.
    pub tensor: TensorId,
    /// The dispatch that writes it first.
    pub first: usize,
    /// The last one that reads or writes it; `usize::MAX` if it must outlive the pass.
    pub last: usize,
}

/// Buffers of one usage, filled from the start.
#[derive(Clone, Debug)]
pub struct Space {
    label: &'static str,
    access: Access,
    /// Index of this space's first buffer in the plan; its buffers are consecutive.
    base: u32,
    /// Largest buffer.
    limit: u64,
    /// Bytes in use of each buffer.
    used: Vec<u64>,
}

impl Space {
    /// An empty space whose buffers come after `base` others.
    pub fn new(label: &'static str, access: Access, base: u32, limit: u64) -> Space {
        Space { label, access, base, limit: (limit / ALIGN * ALIGN).max(ALIGN), used: Vec::new() }
    }
    /// Index of its first buffer.
    pub fn base(&self) -> u32 {
        self.base
    }
    /// Its buffers.
    pub fn buffers(&self) -> Vec<Buffer> {
        let label =
            |i: usize| if self.used.len() == 1 { self.label.to_string() } else { format!("{} {i}", self.label) };
        let buffer =
            |(i, bytes): (usize, &u64)| Buffer { label: label(i), bytes: *bytes, access: self.access, stage: None };
        self.used.iter().enumerate().map(buffer).collect()
    }
    /// Splits a tensor into pieces that fit a buffer.
    fn pieces(&self, tensor: &Tensor) -> Vec<u64> {
        let bytes = tensor.bytes();
        let mut pieces: Vec<u64> = vec![self.limit; (bytes / self.limit) as usize];
        if !bytes.is_multiple_of(self.limit) || pieces.is_empty() {
            pieces.push(bytes % self.limit);
        }
        pieces
    }
    /// Puts a tensor behind everything else, for good.
    pub fn append(&mut self, tensor: &mut Tensor) {
        for bytes in self.pieces(tensor) {
            let size = padded(bytes);
            let fits = |used: &u64| used + size <= self.limit;
            let at = self.used.iter().position(fits).unwrap_or_else(|| {
                self.used.push(0);
                self.used.len() - 1
            });
            tensor.pieces.push(Region { buffer: self.base + at as u32, offset: self.used[at], bytes });
            self.used[at] += size;
        }
    }
    /// Places tensors with lifetimes behind what was appended, sharing memory where lifetimes do not meet; the space
    /// grows to hold them. Larger tensors choose first and take the smallest gap that fits.
    ///
    /// `floor` is what [`Space::floor`] gave before the first function, so that functions share the memory.
    pub fn place(&mut self, lifetimes: &[Lifetime], floor: &[u64], tensors: &mut [Tensor]) {
        let mut order: Vec<Lifetime> = lifetimes.to_vec();
        order.sort_by_key(|l| (std::cmp::Reverse(tensors[l.tensor].bytes()), l.first, l.tensor));
        let mut placed: Vec<(Lifetime, Region)> = Vec::new();
        for life in order {
            for bytes in self.pieces(&tensors[life.tensor]) {
                let region = self.gap(&placed, life, padded(bytes), floor);
                placed.push((life, Region { bytes: padded(bytes), ..region }));
                tensors[life.tensor].pieces.push(Region { bytes, ..region });
            }
        }
    }
    /// Where what comes later than the appended tensors begins, in each buffer.
    pub fn floor(&self) -> Vec<u64> {
        self.used.clone()
    }
    /// The smallest free range, in the first buffer that has one or can grow.
    fn gap(&mut self, placed: &[(Lifetime, Region)], life: Lifetime, size: u64, floor: &[u64]) -> Region {
        for at in 0.. {
            let buffer = self.base + at as u32;
            let mut taken: Vec<(u64, u64)> = placed
                .iter()
                .filter(|(l, r)| r.buffer == buffer && l.first <= life.last && life.first <= l.last)
                .map(|(_, r)| (r.offset, r.offset + r.bytes))
                .collect();
            taken.sort_unstable();
            let mut start = floor.get(at).copied().unwrap_or(0);
            let mut best: Option<(u64, u64)> = None;
            for (low, high) in taken {
                if low >= start + size && best.is_none_or(|(gap, _)| low - start < gap) {
                    best = Some((low - start, start));
                }
                start = start.max(high);
            }
            let offset = match best {
                Some((_, offset)) => offset,
                None if start + size <= self.limit => start,
                None => continue,
            };
            if self.used.len() <= at {
                self.used.push(0);
            }
            self.used[at] = self.used[at].max(offset + size);
            return Region { buffer, offset, bytes: size };
        }
        unreachable!("an empty buffer holds any piece")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_ir::DType;
    use selvedge_shaders::memory::Layout;

    fn tensor(elements: u64) -> Tensor {
        Tensor {
            label: String::new(),
            dtype: DType::F32,
            layout: Layout::Words,
            elements,
            panels: None,
            pieces: Vec::new(),
        }
    }

    #[test]
    fn lifetimes_that_do_not_meet_share_memory() {
        let mut tensors: Vec<Tensor> = [64, 128, 64, 64].map(tensor).to_vec();
        let life = |tensor, first, last| Lifetime { tensor, first, last };
        let mut space = Space::new("arena", Access::ReadWrite, 0, 1 << 20);
        space.place(&[life(0, 0, 1), life(1, 1, 2), life(2, 2, 3), life(3, 0, 3)], &[], &mut tensors);
        let offsets: Vec<u64> = tensors.iter().map(|t| t.pieces[0].offset).collect();
        assert_eq!(offsets[0], offsets[2]);
        assert_eq!(space.buffers()[0].bytes, 1024);
    }

    #[test]
    fn a_tensor_larger_than_a_buffer_has_pieces() {
        let mut tensors = [tensor(300), tensor(10)];
        let mut space = Space::new("arena", Access::ReadWrite, 1, 512);
        tensors.iter_mut().for_each(|t| space.append(t));
        let sizes: Vec<u64> = tensors[0].pieces.iter().map(|r| r.bytes).collect();
        assert_eq!(sizes, [512, 512, 176]);
        assert_eq!(tensors[1].pieces[0], Region { buffer: 3, offset: 256, bytes: 40 });
        assert_eq!(space.buffers().iter().map(|b| b.bytes).collect::<Vec<_>>(), [512, 512, 512]);
    }
}
