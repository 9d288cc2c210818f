//! How far results may differ. The tolerance is derived, never chosen: see `docs/TESTING.md`.

use selvedge_ir::{DType, Tensor};

/// How often the gap between f32 and f64 evaluation may be exceeded: other orders of summation are as likely to be
/// worse as better than the interpreter's.
const GAPS: f64 = 8.0;
/// Units in the last place of the largest magnitude that are always allowed, for gaps that happen to be 0.
const ULPS: f64 = 16.0;

/// The distance between neighbouring values of a dtype near 1; 0 for integers and bool, which are exact.
fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2f64.powi(-23),
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        DType::I32 | DType::U32 | DType::Bool | DType::Packed(_) => 0.0,
    }
}

/// The error allowed for an element: the larger of an absolute bound and one relative to the wanted value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowed {
    /// For every element.
    pub absolute: f64,
    /// Times the wanted element's magnitude.
    pub relative: f64,
}

impl Allowed {
    /// For values written in a test, from the interpreter's evaluations: 8 gaps, or 16 units in the element's last place.
    pub fn for_literals(single: &Tensor, double: &Tensor) -> Allowed {
        let epsilon = epsilon(single.ty.dtype);
        let gaps = if epsilon == 0.0 { 0.0 } else { GAPS * gap(single, double) };
        Allowed { absolute: gaps, relative: ULPS * epsilon }
    }
    /// For another device or another order of operations: 8 gaps, or 16 units in the last place of the largest element.
    pub fn for_devices(single: &Tensor, double: &Tensor) -> Allowed {
        let exact = Allowed::for_literals(single, double);
        let magnitude = double.to_f64().iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(0.0, f64::max);
        Allowed { absolute: exact.absolute.max(exact.relative * magnitude), relative: 0.0 }
    }
}

/// The largest finite difference between evaluations in f32 and in f64.
fn gap(single: &Tensor, double: &Tensor) -> f64 {
    let (single, double) = (single.to_f64(), double.to_f64());
    single.iter().zip(&double).map(|(a, b)| (a - b).abs()).filter(|x| x.is_finite()).fold(0.0, f64::max)
}

/// Compares element by element; NaN equals NaN, infinities equal themselves.
///
/// # Errors
/// The first element that differs too much, with both values and what was allowed.
pub fn compare(what: &str, got: &Tensor, want: &Tensor, allowed: Allowed) -> Result<(), String> {
    if got.ty != want.ty {
        return Err(format!("{what}: expected type {}, found {}", want.ty, got.ty));
    }
    for (i, (g, w)) in got.to_f64().into_iter().zip(want.to_f64()).enumerate() {
        let bound = allowed.absolute.max(allowed.relative * w.abs());
        let close = g.is_finite() && w.is_finite() && (g - w).abs() <= bound;
        if !(g == w || (g.is_nan() && w.is_nan()) || close) {
            return Err(format!("{what}, element {i}: expected {w:?}, found {g:?}, allowed error {bound:e}"));
        }
    }
    Ok(())
}
