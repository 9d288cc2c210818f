//! The exponential and its kin without branches, so that loops over them become vector code.

/// Adding 1.5·2²³ rounds to a whole number, which then stands in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// eˣ within 2 units in the last place; results below 2⁻¹²⁵ become 0.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let clamped = if x > 88.8 { 88.8 } else { x };
    let clamped = if clamped < -87.0 { -87.0 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    // ln 2 in two parts, so that the reduction is exact to 2⁻³⁵.
    let r = (clamped - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4 * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_65;
    let p = p * r + 0.5;
    let y = p * (r * r) + r + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32).wrapping_add(126);
    let scaled = y * f32::from_bits((exponent as u32) << 23) * 2.0;
    let scaled = if x > 88.722_83 { f32::INFINITY } else { scaled };
    let scaled = if x < -86.6 { 0.0 } else { scaled };
    if x.is_nan() { x } else { scaled }
}

/// 1/(1 + e⁻ˣ) within 3 units in the last place.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent within 3 units in the last place.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    // Odd polynomial near 0, where the quotient would cancel (Cephes' coefficients).
    let p = -5.704_988_7e-3 * z + 2.063_909e-2;
    let p = p * z - 5.373_971_6e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 3.333_328e-1;
    let small = x + x * z * p;
    let large = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
    if a < 0.625 { small } else { large.copysign(x) }
}

#[cfg(test)]
mod tests {
    /// Largest error in units in the last place over a dense sample.
    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, from: f32, to: f32) -> f64 {
        let steps = 1_000_003;
        (0..=steps)
            .map(|i| {
                let x = from + (to - from) * (i as f32 / steps as f32);
                let want = exact(x as f64);
                let ulp = (want.abs() as f32).max(f32::MIN_POSITIVE) as f64 * 2f64.powi(-24);
                (f(x) as f64 - want).abs() / ulp / 2.0
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn close_to_the_exact_function() {
        assert!(worst(super::exp, f64::exp, -86.0, 88.7) < 2.0);
        assert!(worst(super::exp, f64::exp, -1.0, 1.0) < 2.0);
        assert!(worst(super::sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -30.0, 30.0) < 3.0);
        assert!(worst(super::tanh, f64::tanh, -12.0, 12.0) < 3.0);
        assert!(worst(super::tanh, f64::tanh, -0.7, 0.7) < 3.0);
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!(super::exp(0.0), 1.0);
        assert_eq!(super::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(super::exp(-1e30), 0.0);
        assert_eq!(super::exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(super::exp(89.0), f32::INFINITY);
        assert!(super::exp(f32::NAN).is_nan());
        assert!(super::tanh(f32::NAN).is_nan() && super::sigmoid(f32::NAN).is_nan());
        assert_eq!([super::tanh(1e9), super::tanh(-1e9)], [1.0, -1.0]);
        assert_eq!([super::sigmoid(1e9), super::sigmoid(-1e9)], [1.0, 0.0]);
    }
}
