//! Strided reading: the loop behind views and behind operators that first bring axes into order.
use crate::shape::strides;
use crate::tensor::Data;

/// Applies an expression to the elements whatever their kind, keeping the kind.
macro_rules! elements {
    ($data:expr, $v:ident => $e:expr) => {
        match $data {
            $crate::tensor::Data::F32($v) => $crate::tensor::Data::F32($e),
            $crate::tensor::Data::F64($v) => $crate::tensor::Data::F64($e),
            $crate::tensor::Data::I32($v) => $crate::tensor::Data::I32($e),
            $crate::tensor::Data::U32($v) => $crate::tensor::Data::U32($e),
            $crate::tensor::Data::Bool($v) => $crate::tensor::Data::Bool($e),
        }
    };
}
pub(super) use elements;

/// A reading of a row-major tensor: sizes of the result, and for each result axis the step in the source.
pub(super) struct View {
    pub(super) offset: usize,
    pub(super) sizes: Vec<usize>,
    pub(super) steps: Vec<usize>,
}

impl View {
    /// Axes of a tensor of `sizes` in another order.
    pub(super) fn permuted(sizes: &[usize], perm: &[usize]) -> View {
        let steps = strides(sizes);
        View {
            offset: 0,
            sizes: perm.iter().map(|&p| sizes[p]).collect(),
            steps: perm.iter().map(|&p| steps[p]).collect(),
        }
    }
    /// Calls `row` with the source offset of each innermost row, in row-major order of the other axes.
    pub(super) fn rows(&self, mut row: impl FnMut(usize)) {
        let outer = self.sizes.len().saturating_sub(1);
        if self.sizes.contains(&0) {
            return;
        }
        let mut index = vec![0usize; outer];
        let mut offset = self.offset;
        loop {
            row(offset);
            let mut axis = outer;
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                index[axis] += 1;
                offset += self.steps[axis];
                if index[axis] < self.sizes[axis] {
                    break;
                }
                offset -= self.steps[axis] * self.sizes[axis];
                index[axis] = 0;
            }
        }
    }
    /// Length and step of an innermost row.
    pub(super) fn row(&self) -> (usize, usize) {
        (self.sizes.last().copied().unwrap_or(1), self.steps.last().copied().unwrap_or(1))
    }
    fn is_identity(&self, len: usize) -> bool {
        self.offset == 0 && self.sizes.iter().product::<usize>() == len && self.steps == strides(&self.sizes)
    }
    /// The elements read, row-major.
    pub(super) fn read<T: Copy>(&self, from: &[T]) -> Vec<T> {
        if self.is_identity(from.len()) {
            return from.to_vec();
        }
        let mut to = Vec::with_capacity(self.sizes.iter().product());
        let (count, step) = self.row();
        self.rows(|offset| match step {
            1 => to.extend_from_slice(&from[offset..offset + count]),
            0 => to.extend(std::iter::repeat_n(from[offset], count)),
            _ => to.extend((0..count).map(|i| from[offset + i * step])),
        });
        to
    }
    /// [`View::read`] of any kind of elements.
    pub(super) fn read_data(&self, from: &Data) -> Data {
        elements!(from, v => self.read(v))
    }
}

/// Elements before, along and after an axis: a row-major tensor is [before, extent, after].
pub(super) fn around(sizes: &[usize], axis: usize) -> (usize, usize, usize) {
    (sizes[..axis].iter().product(), sizes[axis], sizes[axis + 1..].iter().product())
}
