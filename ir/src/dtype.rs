//! Element types.

use std::fmt;

/// The element type of a tensor.
///
/// Arithmetic on `f16` and `bf16` is done in `f32`; a node rounds once, at its own dtype.
/// `bool` occupies a 32-bit word (0 or 1) in device buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16: the upper half of a binary32, rounded to nearest even.
    BF16,
    /// 32-bit two's complement, wrapping.
    I32,
    /// 32-bit unsigned, wrapping.
    U32,
    /// Truth value.
    Bool,
    /// A quantised weight: small integers with one scale a group.
    Packed(Packed),
}

/// Layout of a quantised weight: element = (q − zero) · scale, one scale (and zero) for each `group`
/// consecutive elements along `axis`.
///
/// In a checkpoint the tensor `NAME` holds the integers (row-major, little-endian, `8 / bits` a byte, low
/// nibble first), `NAME.scales` the scales and, with `zero_point`, `NAME.zeros` the zeros (as f32);
/// both have the weight's shape with `axis` divided by `group`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Packed {
    /// 4 or 8 bits an element, two's complement.
    pub bits: u8,
    /// Axis along which groups run.
    pub axis: u8,
    /// Elements that share a scale.
    pub group: u32,
    /// Scales are f16 rather than f32.
    pub scale_f16: bool,
    /// Zeros are stored; without them they are 0.
    pub zero_point: bool,
}

/// What arithmetic a dtype takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// f32, f16, bf16 and packed weights: computed in f32 (or f64 on request).
    Float,
    /// i32.
    Signed,
    /// u32.
    Unsigned,
    /// bool.
    Bool,
}

impl DType {
    /// The plain dtypes, in the order of the reference.
    pub const PLAIN: [DType; 6] = [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::Bool];

    /// The kind of arithmetic.
    pub fn class(self) -> Class {
        match self {
            DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_) => Class::Float,
            DType::I32 => Class::Signed,
            DType::U32 => Class::Unsigned,
            DType::Bool => Class::Bool,
        }
    }
    /// f32, f16 or bf16.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }
    /// i32 or u32.
    pub fn is_int(self) -> bool {
        matches!(self, DType::I32 | DType::U32)
    }
    /// Bits an element takes in a buffer (scales of packed weights not counted).
    pub fn bits(self) -> usize {
        match self {
            DType::F32 | DType::I32 | DType::U32 | DType::Bool => 32,
            DType::F16 | DType::BF16 => 16,
            DType::Packed(p) => p.bits as usize,
        }
    }
    /// Parses a plain dtype's name (`f32` …).
    pub fn plain(name: &str) -> Option<DType> {
        DType::PLAIN.into_iter().find(|d| d.to_string() == name)
    }
    /// Rounds a value to what this dtype can hold, through f32.
    pub fn round(self, x: f32) -> f32 {
        match self {
            DType::F16 => f16_to_f32(f32_to_f16(x)),
            DType::BF16 => bf16_to_f32(f32_to_bf16(x)),
            DType::F32 | DType::I32 | DType::U32 | DType::Bool | DType::Packed(_) => x,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DType::F32 => f.write_str("f32"),
            DType::F16 => f.write_str("f16"),
            DType::BF16 => f.write_str("bf16"),
            DType::I32 => f.write_str("i32"),
            DType::U32 => f.write_str("u32"),
            DType::Bool => f.write_str("bool"),
            DType::Packed(p) => {
                let scale = if p.scale_f16 { "f16" } else { "f32" };
                let zero = if p.zero_point { ",zero" } else { "" };
                write!(f, "q{}<axis={},group={},scale={scale}{zero}>", p.bits, p.axis, p.group)
            }
        }
    }
}

/// Rounds to binary16, to nearest even; overflow gives infinity, denormals are kept.
pub fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude >= 0x7f80_0000 {
        return sign | if magnitude > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
    }
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00; // 65520 and above round to infinity
    }
    if magnitude < 0x3880_0000 {
        // Denormal: adding 2^-1 · ulp-aligned 0.5 lets the float unit round to nearest even.
        let shifted = f32::from_bits(magnitude) + 0.5;
        return sign | (shifted.to_bits() - 0x3f00_0000) as u16;
    }
    let odd = (magnitude >> 13) & 1;
    let rounded = magnitude + 0xfff + odd - 0x3800_0000;
    sign | (rounded >> 13) as u16
}

/// Widens a binary16.
pub fn f16_to_f32(h: u16) -> f32 {
    let sign = ((h as u32) & 0x8000) << 16;
    let exponent = (h >> 10) & 0x1f;
    let fraction = (h & 0x3ff) as u32;
    let magnitude = match exponent {
        0 => return f32::from_bits(sign | (fraction as f32 * 2f32.powi(-24)).to_bits()),
        31 => 0x7f80_0000 | (fraction << 13),
        e => ((e as u32 + 112) << 23) | (fraction << 13),
    };
    f32::from_bits(sign | magnitude)
}

/// Rounds to bfloat16, to nearest even.
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return ((bits >> 16) as u16) | 0x0040;
    }
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Widens a bfloat16.
pub fn bf16_to_f32(h: u16) -> f32 {
    f32::from_bits((h as u32) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_a_round_trip() {
        for h in 0..=u16::MAX {
            let wide = f16_to_f32(h);
            if wide.is_nan() {
                assert!(f16_to_f32(f32_to_f16(wide)).is_nan());
            } else {
                assert_eq!(f32_to_f16(wide), h);
            }
        }
    }

    #[test]
    fn halves_round_to_nearest_even() {
        assert_eq!(f16_to_f32(f32_to_f16(2049.0)), 2048.0);
        assert_eq!(f16_to_f32(f32_to_f16(2051.0)), 2052.0);
        assert_eq!(f32_to_f16(65519.9), 0x7bff);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
        assert_eq!(f32_to_f16(2f32.powi(-25)), 0);
        assert_eq!(f32_to_f16(2f32.powi(-25) * 1.5), 1);
        assert_eq!(bf16_to_f32(f32_to_bf16(1.0 + 2f32.powi(-8))), 1.0);
    }
}
