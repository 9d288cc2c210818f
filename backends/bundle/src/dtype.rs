//! Element types by name: their size in a bundle and their safetensors spelling.

/// Bytes of a weight's element; `None` for a type that format 1 does not hold.
/// A bool takes a 32-bit word, as on the device.
pub fn element_bytes(dtype: &str) -> Option<u64> {
    match dtype {
        "f32" | "i32" | "u32" | "bool" => Some(4),
        "f16" | "bf16" => Some(2),
        _ => None,
    }
}

/// Bytes of a weight; `None` if the dtype is unknown or the size does not fit 64 bits.
pub fn weight_bytes(dtype: &str, shape: &[u64]) -> Option<u64> {
    elements(shape)?.checked_mul(element_bytes(dtype)?)
}

/// Number of elements; `None` if it does not fit 64 bits.
pub(crate) fn elements(shape: &[u64]) -> Option<u64> {
    shape.iter().try_fold(1u64, |product, extent| product.checked_mul(*extent))
}

/// The safetensors name of a weight's dtype.
pub(crate) fn safetensors_name(dtype: &str) -> Option<&'static str> {
    match dtype {
        "f32" => Some("F32"),
        "f16" => Some("F16"),
        "bf16" => Some("BF16"),
        "i32" => Some("I32"),
        "u32" | "bool" => Some("U32"),
        _ => None,
    }
}
