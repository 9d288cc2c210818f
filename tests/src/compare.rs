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

/// The error allowed for each element of a tensor, from its evaluations in f32 and in f64.
pub fn allowed(single: &Tensor, double: &Tensor) -> f64 {
    if epsilon(single.ty.dtype) == 0.0 {
        return 0.0;
    }
    let (single, values) = (single.to_f64(), double.to_f64());
    let finite = |x: &f64| x.is_finite();
    let gap = single.iter().zip(&values).map(|(a, b)| (a - b).abs()).filter(finite).fold(0.0, f64::max);
    let magnitude = values.iter().map(|x| x.abs()).filter(finite).fold(0.0, f64::max);
    (GAPS * gap).max(ULPS * epsilon(double.ty.dtype) * magnitude)
}

/// Compares element by element; NaN equals NaN, infinities equal themselves.
///
/// # Errors
/// The first element that differs too much, with both values and what was allowed.
pub fn compare(what: &str, got: &Tensor, want: &Tensor, allowed: f64) -> Result<(), String> {
    if got.ty != want.ty {
        return Err(format!("{what}: expected type {}, found {}", want.ty, got.ty));
    }
    for (i, (g, w)) in got.to_f64().into_iter().zip(want.to_f64()).enumerate() {
        let same = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= allowed;
        if !same {
            return Err(format!("{what}, element {i}: expected {w:?}, found {g:?}, allowed error {allowed:e}"));
        }
    }
    Ok(())
}
