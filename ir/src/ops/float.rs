//! Float arithmetic in f32 and in f64, written once for both.
use super::DType;
use crate::scalar::{Binary, Unary};
use crate::tensor::Data;

/// f32 or f64.
pub(super) trait Real: Copy + PartialOrd + 'static {
    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    /// Rounds to what the dtype holds; f64 evaluation never rounds.
    fn rounded(self, dtype: DType) -> Self;
    fn unary(op: Unary, x: Self) -> Self;
    fn binary(op: Binary, x: Self, y: Self) -> Self;
    fn add(self, y: Self) -> Self;
    fn mul(self, y: Self) -> Self;
    fn slice(data: &Data) -> &[Self];
    fn data(values: Vec<Self>) -> Data;
}

macro_rules! real {
    ($t:ident, $variant:ident, |$x:ident, $dtype:ident| $round:expr) => {
        impl Real for $t {
            fn from_f64(x: f64) -> $t {
                x as $t
            }
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn rounded(self, $dtype: DType) -> $t {
                let $x = self;
                $round
            }
            fn unary(op: Unary, x: $t) -> $t {
                match op {
                    Unary::Neg => -x,
                    Unary::Abs => x.abs(),
                    Unary::Sign if x > 0.0 => 1.0,
                    Unary::Sign if x < 0.0 => -1.0,
                    Unary::Sign => x * 0.0, // keeps a NaN
                    Unary::Floor => x.floor(),
                    Unary::Ceil => x.ceil(),
                    Unary::Round => x.round_ties_even(),
                    Unary::Trunc => x.trunc(),
                    Unary::Exp => x.exp(),
                    Unary::Exp2 => x.exp2(),
                    Unary::Log => x.ln(),
                    Unary::Log2 => x.log2(),
                    Unary::Sqrt => x.sqrt(),
                    Unary::Rsqrt => 1.0 / x.sqrt(),
                    Unary::Sin => x.sin(),
                    Unary::Cos => x.cos(),
                    Unary::Tanh => x.tanh(),
                    Unary::Erf => erf(x as f64) as $t,
                    Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                    Unary::Not => unreachable!("typed: `not` takes no float"),
                }
            }
            fn binary(op: Binary, x: $t, y: $t) -> $t {
                match op {
                    Binary::Add => x + y,
                    Binary::Sub => x - y,
                    Binary::Mul => x * y,
                    Binary::Div => x / y,
                    Binary::Rem => x % y,
                    Binary::Pow => x.powf(y),
                    // Of a number and a NaN the number; of −0 and 0 the first.
                    Binary::Min => {
                        if y < x || x.is_nan() {
                            y
                        } else {
                            x
                        }
                    }
                    Binary::Max => {
                        if x < y || x.is_nan() {
                            y
                        } else {
                            x
                        }
                    }
                    Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge | Binary::Eq | Binary::Ne => {
                        unreachable!("comparisons give a bool")
                    }
                    Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr => {
                        unreachable!("typed: bit operations take no float")
                    }
                }
            }
            fn add(self, y: $t) -> $t {
                self + y
            }
            fn mul(self, y: $t) -> $t {
                self * y
            }
            fn slice(data: &Data) -> &[$t] {
                match data {
                    Data::$variant(v) => v,
                    _ => panic!("a float tensor is held in the evaluation's precision"),
                }
            }
            fn data(values: Vec<$t>) -> Data {
                Data::$variant(values)
            }
        }
    };
}
real!(f32, F32, |x, dtype| dtype.round(x));
real!(f64, F64, |x, _dtype| x);

/// Runs a generic function in the arithmetic of a precision.
macro_rules! in_precision {
    ($precision:expr, $f:ident($($arg:expr),*)) => {
        match $precision {
            $crate::interp::Precision::F32 => $f::<f32>($($arg),*),
            $crate::interp::Precision::F64 => $f::<f64>($($arg),*),
        }
    };
}
pub(super) use in_precision;

/// The lowest and the highest finite value: the neutral elements of max and min.
pub(super) fn finite_range(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F32 | DType::Packed(_) => (f32::MIN as f64, f32::MAX as f64),
        DType::F16 => (-65504.0, 65504.0),
        DType::BF16 => {
            let max = crate::dtype::bf16_to_f32(0x7f7f) as f64;
            (-max, max)
        }
        DType::I32 => (i32::MIN as f64, i32::MAX as f64),
        DType::U32 => (0.0, u32::MAX as f64),
        DType::Bool => (0.0, 1.0),
    }
}

/// Gauss error function by W. J. Cody's rational approximations (Math. Comp. 23, 1969); relative error below 1e-15.
pub(super) fn erf(x: f64) -> f64 {
    const A: [f64; 5] = [
        3.161_123_743_870_565_6,
        113.864_154_151_050_16,
        377.485_237_685_302,
        3_209.377_589_138_469_4,
        0.185_777_706_184_603_15,
    ];
    const B: [f64; 4] = [23.601_290_952_344_12, 244.024_637_934_444_17, 1_282.616_526_077_372_3, 2_844.236_833_439_171];
    const C: [f64; 9] = [
        0.564_188_496_988_670_1,
        8.883_149_794_388_376,
        66.119_190_637_141_63,
        298.635_138_197_400_1,
        881.952_221_241_769,
        1_712.047_612_634_070_7,
        2_051.078_377_826_071_6,
        1_230.339_354_797_997_2,
        2.153_115_354_744_038_3e-8,
    ];
    const D: [f64; 8] = [
        15.744_926_110_709_835,
        117.693_950_891_312_5,
        537.181_101_862_009_9,
        1_621.389_574_566_690_3,
        3_290.799_235_733_459_7,
        4_362.619_090_143_247,
        3_439.367_674_143_721_6,
        1_230.339_354_803_749_5,
    ];
    let y = x.abs();
    if x.is_nan() {
        return x;
    }
    if y <= 0.468_75 {
        let z = y * y;
        let (mut num, mut den) = (A[4] * z, z);
        for i in 0..3 {
            num = (num + A[i]) * z;
            den = (den + B[i]) * z;
        }
        return x * (num + A[3]) / (den + B[3]);
    }
    if y > 6.0 {
        return 1f64.copysign(x); // erfc(6) < 3e-17
    }
    let tail = if y <= 4.0 {
        let (mut num, mut den) = (C[8] * y, y);
        for i in 0..7 {
            num = (num + C[i]) * y;
            den = (den + D[i]) * y;
        }
        (-y * y).exp() * (num + C[7]) / (den + D[7])
    } else {
        erfc_tail(y)
    };
    (1.0 - tail).copysign(x)
}

/// erfc(y) for y > 4, where three terms of the asymptotic series' continued fraction already vanish beside 1.
fn erfc_tail(y: f64) -> f64 {
    let mut fraction = 0.0;
    for k in (1..=40).rev() {
        fraction = k as f64 / 2.0 / (y + fraction);
    }
    (-y * y).exp() / (std::f64::consts::PI.sqrt() * (y + fraction))
}

#[cfg(test)]
mod tests {
    use super::erf;

    /// erf by its series of positive terms: 2/√π · e^(−x²) · Σ 2ⁿx²ⁿ⁺¹/(2n+1)!!
    fn series(x: f64) -> f64 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * sum.abs() {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
    }

    #[test]
    fn erf_agrees_with_its_series() {
        for i in -6000..=6000 {
            let x = i as f64 / 1000.0 + 1e-5;
            let (got, want) = (erf(x), series(x));
            assert!((got - want).abs() <= 5e-15 * want.abs(), "erf({x}) = {got}, series {want}");
        }
        assert_eq!(erf(0.0), 0.0);
        assert_eq!(erf(40.0), 1.0);
        assert_eq!(erf(f64::NEG_INFINITY), -1.0);
        assert!((erf(0.5) - 0.520_499_877_813_046_5).abs() < 1e-15);
    }
}
