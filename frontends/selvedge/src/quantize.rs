//! Integer weights made of a checkpoint's floats: round to nearest, symmetric, a scale for each group.

use crate::compile::Settings;
use crate::error::Error;
use crate::weights::{Stored, Weights};
use rayon::prelude::*;
use selvedge_import::storage::Location;
use selvedge_ir::dtype::Packed;
use selvedge_ir::interp::WeightSource;
use selvedge_ir::{DType, Data, Diagnostic, Module, Tensor, TensorType};
use selvedge_passes::{Pass, QuantizeWeights};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What quantising did to a program's weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Bits of an integer.
    pub bits: u8,
    /// Weights that are integers now, of how many.
    pub weights: [usize; 2],
    /// ‖w − stored‖ / ‖w‖ over all of them.
    pub rel_l2: f64,
    /// The weight with the largest error of its own, and that error.
    pub worst: (String, f64),
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Report { bits, weights: [quantised, all], rel_l2, worst } = self;
        write!(f, "weights: {quantised} of {all} in int{bits}, rel_l2 {rel_l2:.2e} to the checkpoint's")?;
        if worst.1 > 0.0 {
            write!(f, ", at most {:.2e} (`{}`)", worst.1, worst.0)?;
        }
        Ok(())
    }
}

/// The module with integer weights and their source, if the settings ask for them.
///
/// Element q of a group of weights w is round(w / s) with s = max |w| / (2^(bits−1) − 1), ties to even; it stands for q · s in f32.
/// A group of zeros has s = 0.
///
/// # Errors
/// A weight that cannot be read, or is not finite.
pub(crate) fn apply(
    module: Module,
    weights: Weights,
    settings: &Settings,
) -> Result<(Module, Weights, Option<Report>), Error> {
    let Some(bits) = settings.integer_bits else { return Ok((module, weights, None)) };
    let before: BTreeMap<String, TensorType> = module.weights.iter().map(|w| (w.name.clone(), w.ty.clone())).collect();
    let module = QuantizeWeights { bits }.run(module)?;
    let mut plan = BTreeMap::new();
    for weight in &module.weights {
        if let DType::Packed(packed) = weight.ty.dtype {
            plan.insert(weight.name.clone(), (before[&weight.name].clone(), packed));
        }
    }
    let source = Quantised { source: weights, plan };
    let errors = source.errors()?;
    let sum = |f: &dyn Fn(&(String, f64, f64)) -> f64| errors.iter().map(f).sum::<f64>();
    let ratio = |error: f64, norm: f64| if norm > 0.0 { (error / norm).sqrt() } else { 0.0 };
    let worst = errors.iter().map(|(name, error, norm)| (name.clone(), ratio(*error, *norm)));
    let report = Report {
        bits,
        weights: [errors.len(), before.len()],
        rel_l2: ratio(sum(&|e| e.1), sum(&|e| e.2)),
        worst: worst.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default(),
    };
    Ok((module, Arc::new(source), Some(report)))
}

/// Integers and scales of some weights, made when they are asked for; the others come from the source.
struct Quantised {
    source: Weights,
    /// The source's type of each quantised weight, and how it is packed.
    plan: BTreeMap<String, (TensorType, Packed)>,
}

/// A quantised weight.
struct Integers {
    values: Vec<i8>,
    scales: Vec<f32>,
}

impl Quantised {
    fn integers(&self, name: &str, ty: &TensorType, packed: Packed) -> Result<Integers, Diagnostic> {
        let floats = self.source.weight(name, ty)?.to_f32();
        quantise(&floats, packed).ok_or_else(|| {
            Diagnostic::new("dtype", format!("weight `{name}` cannot be stored as integers"))
                .expected_found("finite elements", "an infinity or NaN")
        })
    }
    /// For each weight its name, ‖w − stored‖² and ‖w‖².
    fn errors(&self) -> Result<Vec<(String, f64, f64)>, Diagnostic> {
        let error = |(name, (ty, packed)): (&String, &(TensorType, Packed))| {
            let floats = self.source.weight(name, ty)?.to_f32();
            let integers = self.integers(name, ty, *packed)?;
            let square = |x: f64| x * x;
            let mut sums = (0.0, 0.0);
            for (w, stored) in floats.iter().zip(dequantise(&integers, *packed)) {
                sums.0 += square(f64::from(*w) - f64::from(stored));
                sums.1 += square(f64::from(*w));
            }
            Ok((name.clone(), sums.0, sums.1))
        };
        self.plan.par_iter().map(error).collect()
    }
    /// The part of a quantised weight that a name and type ask for.
    fn part(&self, name: &str, asked: &TensorType) -> Result<Option<Tensor>, Diagnostic> {
        if let Some((base, (ty, packed))) =
            name.strip_suffix(".scales").and_then(|base| Some((base, self.plan.get(base)?)))
        {
            let scales = self.integers(base, ty, *packed)?.scales;
            return Ok(Some(Tensor::new(asked.clone(), Data::F32(scales))));
        }
        let Some((ty, packed)) = self.plan.get(name) else { return Ok(None) };
        let integers = self.integers(name, ty, *packed)?;
        let data = match asked.dtype {
            DType::U32 => Data::U32(words(&integers.values, packed.bits)),
            DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::Bool | DType::Packed(_) => {
                Data::F32(dequantise(&integers, *packed))
            }
        };
        Ok(Some(Tensor::new(asked.clone(), data)))
    }
}

/// Integers of a row-major matrix whose groups are neighbours; `None` if an element is not finite.
fn quantise(floats: &[f32], packed: Packed) -> Option<Integers> {
    let most = f32::from((1i8 << (packed.bits - 1)).wrapping_sub(1));
    let mut integers = Integers { values: Vec::with_capacity(floats.len()), scales: Vec::new() };
    for group in floats.chunks(packed.group as usize) {
        let largest = group.iter().fold(0.0f32, |most, x| if x.is_nan() { f32::NAN } else { most.max(x.abs()) });
        if group.iter().any(|x| !x.is_finite()) {
            return None;
        }
        let scale = largest / most;
        integers.scales.push(scale);
        let integer = |x: &f32| if scale > 0.0 { (x / scale).round_ties_even().clamp(-most, most) as i8 } else { 0 };
        integers.values.extend(group.iter().map(integer));
    }
    Some(integers)
}

/// What integers stand for.
fn dequantise(integers: &Integers, packed: Packed) -> Vec<f32> {
    let groups = integers.values.chunks(packed.group as usize).zip(&integers.scales);
    groups.flat_map(|(group, scale)| group.iter().map(move |q| f32::from(*q) * scale)).collect()
}

/// Words of 32 / bits integers each, the first in the lowest bits.
fn words(values: &[i8], bits: u8) -> Vec<u32> {
    let mask = (1u32 << bits) - 1;
    let word = |part: &[i8]| {
        part.iter().zip(0u32..).fold(0, |word, (q, i)| word | ((i32::from(*q) as u32 & mask) << (i * u32::from(bits))))
    };
    values.chunks(32 / bits as usize).map(word).collect()
}

impl WeightSource for Quantised {
    fn weight(&self, name: &str, ty: &TensorType) -> Result<Arc<Tensor>, Diagnostic> {
        match self.part(name, ty)? {
            Some(tensor) => Ok(Arc::new(tensor)),
            None => self.source.weight(name, ty),
        }
    }
}

impl Stored for Quantised {
    fn bytes(&self, name: &str, ty: &TensorType) -> Result<Cow<'_, [u8]>, Diagnostic> {
        match self.part(name, ty)? {
            Some(tensor) => Ok(Cow::Owned(tensor.to_bytes())),
            None => self.source.bytes(name, ty),
        }
    }
    fn release(&self) {
        self.source.release();
    }
    fn location(&self, name: &str, ty: &TensorType) -> Result<Option<Location<'_>>, Diagnostic> {
        let base = name.strip_suffix(".scales").unwrap_or(name);
        if self.plan.contains_key(base) { Ok(None) } else { self.source.location(name, ty) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(bits: u8, group: u32) -> Packed {
        Packed { bits, axis: 1, group, scale_f16: false, zero_point: false }
    }

    #[test]
    fn integers_are_the_nearest_and_words_hold_them_in_order() {
        let floats = [1.0, -1.0, 0.6, 0.0, 2.0, -0.7, 0.3, 0.1];
        let got = quantise(&floats, packed(4, 4)).expect("finite");
        assert_eq!(got.scales, [1.0 / 7.0, 2.0 / 7.0]);
        assert_eq!(got.values, [7, -7, 4, 0, 7, -2, 1, 0]);
        assert_eq!(words(&got.values, 4), [0x01e7_0497]);
        assert_eq!(words(&[1, -1, 127, -127], 8), [0x817f_ff01]);
        assert_eq!(dequantise(&got, packed(4, 4))[..2], [1.0, -1.0]);
    }

    #[test]
    fn zeros_stay_and_what_is_not_finite_is_refused() {
        let got = quantise(&[0.0; 4], packed(8, 4)).expect("finite");
        assert_eq!((got.values, got.scales), (vec![0; 4], vec![0.0]));
        assert!(quantise(&[f32::INFINITY, 0.0], packed(8, 2)).is_none());
        assert!(quantise(&[f32::NAN, 0.0], packed(8, 2)).is_none());
    }
}
