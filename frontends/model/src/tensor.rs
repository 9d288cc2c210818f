//! The lazy tensor: a value of a graph.

use crate::graph::Graph;
use selvedge_ir::{DType, Diagnostic, Dim, Shape, TensorType, ValueId};
use std::fmt;

/// A value of a [`Graph`]; cheap to clone. Operations are methods and the usual operators.
///
/// Elementwise operations broadcast as NumPy does. Where float operands differ in dtype the narrower ones are widened to
/// f32. Axes may be negative, counted from the end.
#[derive(Clone)]
pub struct Tensor {
    graph: Graph,
    /// `None`: poisoned, the mistake is recorded in the graph.
    id: Option<ValueId>,
}

impl Tensor {
    pub(crate) fn new(graph: Graph, id: Option<ValueId>) -> Tensor {
        Tensor { graph, id }
    }
    /// The function this value belongs to.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
    /// Its id in the function; `None` if it is poisoned.
    pub fn id(&self) -> Option<ValueId> {
        self.id
    }
    /// Its type; `None` if it is poisoned.
    pub fn ty(&self) -> Option<TensorType> {
        self.id.map(|id| self.graph.with_builder(|b| b.ty(id).clone()))
    }
    /// Its dtype; f32 if it is poisoned.
    pub fn dtype(&self) -> DType {
        self.ty().map_or(DType::F32, |t| t.dtype)
    }
    /// Its shape; `[]` if it is poisoned.
    pub fn shape(&self) -> Shape {
        self.ty().map_or(Shape::default(), |t| t.shape)
    }
    /// Number of axes; 0 if it is poisoned.
    pub fn rank(&self) -> usize {
        self.shape().rank()
    }
    /// An axis' extent as a number. A symbolic extent is recorded as an error and read as 1; so is one of a poisoned tensor, silently.
    #[track_caller]
    pub fn size(&self, axis: isize) -> usize {
        let Some(axis) = self.axis(axis) else { return 1 };
        let dim = &self.shape().0[axis];
        dim.get().unwrap_or_else(|| {
            self.graph
                .fail(Diagnostic::new("M3", format!("axis {axis} has the symbolic extent {dim}, a number is needed")));
            1
        })
    }
    /// An axis' extent, which may be symbolic; 1 if the tensor is poisoned or there is no such axis (recorded).
    #[track_caller]
    pub fn dim(&self, axis: isize) -> Dim {
        self.axis(axis).map_or(Dim::new(1), |axis| self.shape().0[axis].clone())
    }
    /// The same value with a name for the text form.
    pub fn named(self, name: &str) -> Tensor {
        if let Some(id) = self.id {
            self.graph.with_builder(|b| b.set_name(id, name));
        }
        self
    }

    /// A possibly negative axis as an index; `None` (recorded, unless poisoned) if there is none.
    #[track_caller]
    pub(crate) fn axis(&self, axis: isize) -> Option<usize> {
        let ty = self.ty()?;
        let rank = ty.rank() as isize;
        let index = if axis < 0 { axis + rank } else { axis };
        if (0..rank).contains(&index) {
            return Some(index as usize);
        }
        let what = Diagnostic::new("M3", format!("there is no axis {axis}"));
        self.graph.fail(what.expected_found(format!("an axis from {} to {}", -rank, rank - 1), ty));
        None
    }
    /// Records an error about this tensor and others; returns a poisoned tensor (silently if one is poisoned already).
    #[track_caller]
    pub(crate) fn fail(&self, diagnostic: Diagnostic) -> Tensor {
        if self.id.is_none() { self.graph.poison() } else { self.graph.fail(diagnostic) }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.id, self.ty()) {
            (Some(id), Some(ty)) => write!(f, "%{}: {ty}", id.0),
            _ => f.write_str("poisoned"),
        }
    }
}

/// One axis or several, possibly negative.
pub trait Axes {
    /// The axes as written.
    fn axes(&self) -> Vec<isize>;
}
impl Axes for isize {
    fn axes(&self) -> Vec<isize> {
        vec![*self]
    }
}
impl<const N: usize> Axes for [isize; N] {
    fn axes(&self) -> Vec<isize> {
        self.to_vec()
    }
}
impl Axes for &[isize] {
    fn axes(&self) -> Vec<isize> {
        self.to_vec()
    }
}
