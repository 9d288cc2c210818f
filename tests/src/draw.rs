//! Inputs drawn at random: the same for the same names, on every machine.

use selvedge_ir::{DType, Tensor, interp::Precision, shape::TensorType};

/// A xorshift generator.
pub struct Random(u64);

impl Random {
    /// A generator whose sequence depends on the text only.
    pub fn named(text: &str) -> Random {
        // FNV-1a
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, c| (h ^ u64::from(c)).wrapping_mul(0x100_0000_01b3));
        Random(hash | 1)
    }
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }
    /// Uniform between −2 and 2.
    pub fn float(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 51) as f64 - 2.0
    }
}

/// A tensor of random elements: floats between −2 and 2 (rounded to the dtype), i32 from −8 to 8, u32 from 0 to 8,
/// bools. The name decides the sequence.
pub fn tensor(name: &str, ty: &TensorType) -> Tensor {
    let mut random = Random::named(name);
    let count = ty.elements().unwrap_or(0);
    let mut element = || match ty.dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_) => random.float() as f32 as f64,
        DType::I32 => random.below(17) as f64 - 8.0,
        DType::U32 => random.below(9) as f64,
        DType::Bool => random.below(2) as f64,
    };
    let values: Vec<f64> = (0..count).map(|_| element()).collect();
    Tensor::from_f64(ty.clone(), &values, Precision::F32)
}
