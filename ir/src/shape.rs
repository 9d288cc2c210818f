//! Shapes and tensor types. All shape arithmetic lives here and in the operators' `infer`.

use crate::dim::Dim;
use crate::dtype::DType;
use std::fmt;

/// The extents of a tensor's axes, outermost first (row-major).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    /// A shape of known numbers.
    pub fn new(dims: &[usize]) -> Shape {
        Shape(dims.iter().map(|&d| Dim::new(d)).collect())
    }
    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }
    /// Number of elements.
    pub fn elements(&self) -> Dim {
        self.0.iter().fold(Dim::new(1), |a, b| &a * b)
    }
    /// The extents as numbers, if all are known.
    pub fn get(&self) -> Option<Vec<usize>> {
        self.0.iter().map(Dim::get).collect()
    }
    /// The extents as numbers.
    ///
    /// # Panics
    /// If a symbol is left; callers specialise symbols first.
    pub fn sizes(&self) -> Vec<usize> {
        self.get().unwrap_or_else(|| panic!("shape {self} still has symbols; specialise the module first"))
    }
    /// The shape that both broadcast to under NumPy's rule (aligned at the last axis, 1 stretches).
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.rank().max(other.rank());
        let one = Dim::new(1);
        let at = |s: &Shape, i: usize| (i + s.rank()).checked_sub(rank).map_or(one.clone(), |j| s.0[j].clone());
        (0..rank)
            .map(|i| {
                let (a, b) = (at(self, i), at(other, i));
                match () {
                    _ if a == b || b.is_one() => Some(a),
                    _ if a.is_one() => Some(b),
                    _ => None,
                }
            })
            .collect::<Option<Vec<_>>>()
            .map(Shape)
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Shape {
        Shape::new(dims)
    }
}
impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Shape {
        Shape::new(&dims)
    }
}
impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Shape {
        Shape::new(&dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.0.iter().map(Dim::to_string).collect();
        write!(f, "[{}]", dims.join(","))
    }
}

/// Element type and shape of a tensor. Prints as `f32[B,197,768]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
}

impl TensorType {
    /// A type from its parts.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> TensorType {
        TensorType { dtype, shape: shape.into() }
    }
    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.rank()
    }
    /// Number of elements, if known.
    pub fn elements(&self) -> Option<usize> {
        // Most shapes are numbers: a plain product.
        let known = self.shape.0.iter().try_fold(1usize, |n, dim| n.checked_mul(dim.get()?));
        known.filter(|n| i64::try_from(*n).is_ok()).or_else(|| self.shape.elements().get())
    }
    /// The same shape with another dtype.
    pub fn with_dtype(&self, dtype: DType) -> TensorType {
        TensorType { dtype, shape: self.shape.clone() }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// Row-major strides of known extents.
pub fn strides(sizes: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; sizes.len()];
    for i in (1..sizes.len()).rev() {
        strides[i - 1] = strides[i] * sizes[i];
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        let s = |d: &[usize]| Shape::new(d);
        assert_eq!(s(&[2, 1, 4]).broadcast(&s(&[3, 1])), Some(s(&[2, 3, 4])));
        assert_eq!(s(&[2, 3]).broadcast(&s(&[2, 4])), None);
        assert_eq!(s(&[]).broadcast(&s(&[5])), Some(s(&[5])));
    }
}
