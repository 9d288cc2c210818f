//! How far a result is from what is wanted.

use selvedge_ir::dtype::Class;
use selvedge_ir::{Tensor, TensorType};
use serde_json::{Value, json};

/// The default tolerance on rel_l2 in f32.
pub const TOLERANCE: f64 = 1e-4;

/// The distance of one output.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// ‖got − want‖ / ‖want‖; the plain norm if ‖want‖ is 0; NaN if a NaN occurs.
    pub rel_l2: f64,
    /// Largest |got − want|; NaN if a NaN occurs.
    pub max_abs: f64,
    /// What rel_l2 may be; 0 for integers.
    pub tol: f64,
    /// The types, if they differ in shape or class: got, want. Such an output fails.
    pub mismatch: Option<(TensorType, TensorType)>,
}

impl Comparison {
    /// Within tolerance.
    pub fn ok(&self) -> bool {
        // A NaN compares false.
        self.mismatch.is_none() && self.rel_l2 <= self.tol
    }
    /// `{"rel_l2", "max_abs", "tol"}`; a NaN is null.
    pub fn to_json(&self) -> Value {
        let mut all = json!({"rel_l2": self.rel_l2, "max_abs": self.max_abs, "tol": self.tol});
        if let Some((got, want)) = &self.mismatch {
            all["got"] = json!(got.to_string());
            all["want"] = json!(want.to_string());
        }
        all
    }
}

/// Compares a result with what is wanted; integers and bools must be equal.
pub fn compare(got: &Tensor, want: &Tensor, tol: f64) -> Comparison {
    let exact = want.ty.dtype.class() != Class::Float;
    let tol = if exact { 0.0 } else { tol };
    if got.ty.shape != want.ty.shape || (got.ty.dtype.class() == Class::Float) == exact {
        let mismatch = Some((got.ty.clone(), want.ty.clone()));
        return Comparison { rel_l2: f64::NAN, max_abs: f64::NAN, tol, mismatch };
    }
    let (got, want) = (got.to_f64(), want.to_f64());
    let (mut difference, mut norm, mut max_abs) = (0f64, 0f64, 0f64);
    for (g, w) in got.iter().zip(&want) {
        // Equal infinities agree; their difference would be NaN.
        let d = if g == w { 0.0 } else { (g - w).abs() };
        difference += d * d;
        norm += w * w;
        max_abs = if d.is_nan() || max_abs.is_nan() { f64::NAN } else { max_abs.max(d) };
    }
    let rel_l2 = if norm > 0.0 { (difference / norm).sqrt() } else { difference.sqrt() };
    Comparison { rel_l2, max_abs, tol, mismatch: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f(values: &[f32]) -> Tensor {
        Tensor::f32(&[values.len()], values.to_vec())
    }

    #[test]
    fn distances_are_relative_to_what_is_wanted() {
        let c = compare(&f(&[3.0, 4.003]), &f(&[3.0, 4.0]), 1e-3);
        assert!((c.rel_l2 - 0.0006).abs() < 1e-6 && (c.max_abs - 0.003).abs() < 1e-6 && c.ok());
        assert!(!compare(&f(&[3.0, 4.003]), &f(&[3.0, 4.0]), 1e-4).ok());
        assert_eq!(compare(&f(&[0.5]), &f(&[0.0]), 1e-4).rel_l2, 0.5);
        assert!(compare(&f(&[0.0]), &f(&[0.0]), 1e-4).ok());
    }

    #[test]
    fn a_nan_fails_and_integers_are_exact() {
        assert!(!compare(&f(&[f32::NAN]), &f(&[1.0]), 1e9).ok());
        assert!(!compare(&f(&[1.0]), &f(&[f32::NAN]), 1e9).ok());
        assert!(compare(&f(&[f32::NAN]), &f(&[1.0]), 1e9).to_json()["rel_l2"].is_null());
        assert!(!compare(&f(&[1.0, 2.0]), &f(&[1.0]), 1e9).ok());
        let i = |x: i32| Tensor::i32(&[1], vec![x]);
        assert!(compare(&i(1_000_000), &i(1_000_000), 1.0).ok());
        assert!(!compare(&i(1_000_001), &i(1_000_000), 1.0).ok());
    }
}
