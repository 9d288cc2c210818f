//! WGSL of memory access: elements of a dtype in `array<vec4<u32>>` bindings.

use selvedge_ir::DType;

/// How elements lie in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// One 32-bit word an element, whatever the dtype: tensors of the arena, but for some of f16 and bf16. Those that are here
    /// are f32 words holding rounded values, bool is 0 or 1.
    Words,
    /// The checkpoint's own format: f16 and bf16 two to a word, low half first; 32-bit types and bool as words. So lie weights,
    /// and f16 and bf16 tensors that are written by fours.
    Packed,
}

/// The WGSL type that holds a value of a dtype in registers.
pub fn register(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_) => "f32",
        DType::I32 => "i32",
        DType::U32 => "u32",
        DType::Bool => "bool",
    }
}

/// Bytes that `count` elements take (whole words).
pub fn bytes(dtype: DType, layout: Layout, count: u64) -> u64 {
    match (layout, dtype) {
        (Layout::Packed, DType::F16 | DType::BF16) => count.div_ceil(2) * 4,
        (Layout::Packed, DType::Packed(p)) => (count * p.bits as u64).div_ceil(32) * 4,
        _ => count * 4,
    }
}

/// An expression of the register type: element `index` (a u32 expression without side effects) of binding `b{binding}`.
///
/// Integers of a quantised weight (`DType::Packed`) come as f32, without scale and zero.
pub fn load(binding: u32, dtype: DType, layout: Layout, index: &str) -> String {
    let word = |shift: u32| {
        let (vector, part) =
            (shift + 2, if shift == 0 { format!("({index})") } else { format!("(({index}) >> {shift}u)") });
        format!("b{binding}[({index}) >> {vector}u][{part} & 3u]")
    };
    match (dtype, layout) {
        (DType::F32, _) | (DType::F16 | DType::BF16, Layout::Words) => format!("bitcast<f32>({})", word(0)),
        (DType::F16, Layout::Packed) => format!("load_f16({}, {index})", word(1)),
        (DType::BF16, Layout::Packed) => format!("load_bf16({}, {index})", word(1)),
        (DType::I32, _) => format!("bitcast<i32>({})", word(0)),
        (DType::U32, _) => word(0),
        (DType::Bool, _) => format!("({} != 0u)", word(0)),
        (DType::Packed(p), _) => {
            let (shift, mask) = if p.bits == 4 { (3, 7) } else { (2, 3) };
            let (place, bits) = (format!("(({index}) & {mask}u) * {}u", p.bits), p.bits);
            format!("f32(extractBits(bitcast<i32>({}), {place}, {bits}u))", word(shift))
        }
    }
}

/// A `vec4<f32>` expression: elements index..index+3 of a float dtype; the index must be a multiple of 4.
///
/// # Panics
/// For dtypes other than f32, f16 and bf16.
pub fn load4(binding: u32, dtype: DType, layout: Layout, index: &str) -> String {
    match (dtype, layout) {
        (DType::F32, _) | (DType::F16 | DType::BF16, Layout::Words) => {
            format!("bitcast<vec4<f32>>(b{binding}[({index}) >> 2u])")
        }
        (DType::F16, Layout::Packed) => format!("load4_f16(b{binding}[({index}) >> 3u], {index})"),
        (DType::BF16, Layout::Packed) => format!("load4_bf16(b{binding}[({index}) >> 3u], {index})"),
        (DType::I32 | DType::U32 | DType::Bool | DType::Packed(_), _) => {
            panic!("load4 takes f32, f16 or bf16, not {dtype}")
        }
    }
}

/// An expression of the value rounded to what a dtype can hold; the value itself for 32-bit types.
pub fn round(dtype: DType, value: &str) -> String {
    match dtype {
        DType::F16 => format!("round_f16({value})"),
        DType::BF16 => format!("round_bf16({value})"),
        DType::F32 | DType::I32 | DType::U32 | DType::Bool | DType::Packed(_) => value.to_string(),
    }
}

/// An expression of the word that holds two values of f16 or bf16, the first in its low half; they are rounded.
///
/// # Panics
/// For other dtypes.
pub fn pack(dtype: DType, low: &str, high: &str) -> String {
    let bits = match dtype {
        DType::F16 => "bits_f16",
        DType::BF16 => "bits_bf16",
        DType::F32 | DType::I32 | DType::U32 | DType::Bool | DType::Packed(_) => {
            panic!("two to a word are f16 or bf16, not {dtype}")
        }
    };
    format!("({bits}({low}) | ({bits}({high}) << 16u))")
}

/// A statement that stores a value (of the register type) as element `index` of an arena tensor, rounded to the dtype.
pub fn store(binding: u32, dtype: DType, index: &str, value: &str) -> String {
    let word = match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_) => format!("bitcast<u32>({})", round(dtype, value)),
        DType::I32 => format!("bitcast<u32>({value})"),
        DType::U32 => value.to_string(),
        DType::Bool => format!("select(0u, 1u, {value})"),
    };
    format!("b{binding}[({index}) >> 2u][({index}) & 3u] = {word};")
}

/// A statement that stores a `vec4<f32>` as elements index..index+3 of an arena tensor of a float dtype, rounded; the
/// index must be a multiple of 4.
///
/// # Panics
/// For dtypes other than f32, f16 and bf16.
pub fn store4(binding: u32, dtype: DType, index: &str, value: &str) -> String {
    let value = match dtype {
        DType::F32 => value.to_string(),
        DType::F16 => format!("round4_f16({value})"),
        DType::BF16 => format!("round4_bf16({value})"),
        DType::I32 | DType::U32 | DType::Bool | DType::Packed(_) => {
            panic!("store4 takes f32, f16 or bf16, not {dtype}")
        }
    };
    format!("b{binding}[({index}) >> 2u] = bitcast<vec4<u32>>({value});")
}
