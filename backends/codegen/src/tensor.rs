//! Tensors in memory: what they hold, in which order, and where.

use selvedge_bundle::Panels;
use selvedge_bundle::manifest::{ALIGN, Region};
use selvedge_ir::DType;
use selvedge_shaders::memory::{self, Layout};

/// Index of a tensor in the plan's table.
pub type TensorId = usize;

/// A tensor in memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// For people.
    pub label: String,
    /// Element type.
    pub dtype: DType,
    /// Weights keep the checkpoint's format, and so do f16 and bf16 tensors of the arena that are written by fours; everything
    /// else takes a word an element.
    pub layout: Layout,
    /// Number of elements.
    pub elements: u64,
    /// The order of its elements, if it is not row-major: weights only.
    pub panels: Option<Panels>,
    /// Where it is; empty until memory is planned. Pieces follow each other and all but the last end at multiples of [`ALIGN`].
    pub pieces: Vec<Region>,
}

impl Tensor {
    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        memory::bytes(self.dtype, self.layout, self.elements)
    }
}

/// Bytes rounded up to whole regions; an empty tensor has one, too.
pub fn padded(bytes: u64) -> u64 {
    bytes.max(1).div_ceil(ALIGN) * ALIGN
}
