//! Sources of weights: kept in memory, random, or in a compiled file.

use crate::link::LinkedFiles;
use rayon::prelude::*;
use selvedge_bundle::{Bundle, WeightBytes};
use selvedge_import::Checkpoint;
use selvedge_import::storage::Location;
use selvedge_ir::dtype::Class;
use selvedge_ir::interp::WeightSource;
use selvedge_ir::{DType, Data, Diagnostic, Tensor, TensorType};
use selvedge_zoo::random::philox4x32;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Weights that can be had as bytes, too.
pub trait Stored: WeightSource + Send + Sync {
    /// A weight's elements in the declared dtype, little-endian, row-major (bool: one byte each).
    ///
    /// # Errors
    /// As [`WeightSource::weight`].
    fn bytes(&self, name: &str, ty: &TensorType) -> Result<Cow<'_, [u8]>, Diagnostic> {
        Ok(Cow::Owned(self.weight(name, ty)?.to_bytes()))
    }
    /// Gives back what memory it can; called now and then while all weights are read one after the other.
    fn release(&self) {}
    /// Where those bytes lie on disk; `None` if the file has them in another form.
    ///
    /// # Errors
    /// This source has no file for the weight.
    fn location(&self, name: &str, _ty: &TensorType) -> Result<Option<Location<'_>>, Diagnostic> {
        Err(Diagnostic::new("link", format!("weight `{name}` is in no checkpoint file")))
    }
}

/// Shared weights.
pub type Weights = Arc<dyn Stored>;

impl Stored for Random {
    /// Made piece by piece in the wanted form, without the tensor in f32 beside it.
    fn bytes(&self, name: &str, ty: &TensorType) -> Result<Cow<'_, [u8]>, Diagnostic> {
        let half: Option<fn(f32) -> u16> = match ty.dtype {
            DType::F16 => Some(selvedge_ir::dtype::f32_to_f16),
            DType::BF16 => Some(selvedge_ir::dtype::f32_to_bf16),
            DType::F32 | DType::I32 | DType::U32 | DType::Bool | DType::Packed(_) => None,
        };
        match (half, ty.elements()) {
            (Some(half), Some(count)) => {
                let scale = Random::scale(ty);
                let halves = words(self.key(name), count, |w| half(uniform(w) * scale).to_le_bytes());
                Ok(Cow::Owned(halves.into_flattened()))
            }
            _ => Ok(Cow::Owned(self.weight(name, ty)?.to_bytes())),
        }
    }
}
impl Stored for BTreeMap<String, Arc<Tensor>> {}
impl Stored for Checkpoint {
    fn release(&self) {
        Checkpoint::release(self);
    }
    fn bytes(&self, name: &str, ty: &TensorType) -> Result<Cow<'_, [u8]>, Diagnostic> {
        if self.dtype(name) == Some(ty.dtype) && self.shape(name).map(<[usize]>::to_vec) == ty.shape.get() {
            return Checkpoint::bytes(self, name);
        }
        if let Some(bytes) = self.recast(name, ty)? {
            return Ok(Cow::Owned(bytes));
        }
        Ok(Cow::Owned(self.weight(name, ty)?.to_bytes()))
    }
    fn location(&self, name: &str, ty: &TensorType) -> Result<Option<Location<'_>>, Diagnostic> {
        let location = Checkpoint::location(self, name)?;
        let as_stored = self.dtype(name) == Some(ty.dtype) && self.shape(name).map(<[usize]>::to_vec) == ty.shape.get();
        Ok(location.filter(|_| as_stored))
    }
}
impl<S: Stored> Stored for Cached<S> {
    fn release(&self) {
        self.source.release();
    }
    fn bytes(&self, name: &str, ty: &TensorType) -> Result<Cow<'_, [u8]>, Diagnostic> {
        self.source.bytes(name, ty)
    }
    fn location(&self, name: &str, ty: &TensorType) -> Result<Option<Location<'_>>, Diagnostic> {
        self.source.location(name, ty)
    }
}

/// A weight's bytes as a bundle has them: truth values are words there.
///
/// # Errors
/// As [`WeightSource::weight`].
pub fn bundle_bytes<'w>(weights: &'w dyn Stored, name: &str, ty: &TensorType) -> Result<Cow<'w, [u8]>, Diagnostic> {
    let bytes = weights.bytes(name, ty)?;
    Ok(match ty.dtype {
        DType::Bool => Cow::Owned(bytes.iter().flat_map(|&b| u32::from(b != 0).to_le_bytes()).collect()),
        DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::U32 | DType::Packed(_) => bytes,
    })
}

/// Keeps every weight that was asked for, decoded.
pub struct Cached<S> {
    source: S,
    known: Mutex<BTreeMap<String, Arc<Tensor>>>,
}

impl<S> Cached<S> {
    /// A cache over a source.
    pub fn new(source: S) -> Cached<S> {
        Cached { source, known: Mutex::new(BTreeMap::new()) }
    }
}

impl<S: WeightSource> WeightSource for Cached<S> {
    fn weight(&self, name: &str, ty: &TensorType) -> Result<Arc<Tensor>, Diagnostic> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tensor) = known().get(name)
            && tensor.ty == *ty
        {
            return Ok(tensor.clone());
        }
        let tensor = self.source.weight(name, ty)?;
        known().insert(name.to_string(), tensor.clone());
        Ok(tensor)
    }
}

/// Random tensors by name and seed, for benchmarks and for trying modules.
///
/// Element i of a tensor is uniform in [−a, a): Philox4x32-10 with the key FNV-1a(name) xor seed and the counter i / 4 gives
/// four words, of which word i mod 4, as u · 2⁻³² · 2a − a, is taken. a = √(3 / fan-in) for tensors of rank 2 and more
/// (fan-in: the product of all extents but the first), so that activations keep their size; 0.02 for vectors.
/// Integers are the word modulo 8, truth values its lowest bit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Random {
    /// Seed.
    pub seed: u64,
}

impl Random {
    /// The tensor of a name.
    pub fn tensor(&self, name: &str, ty: &TensorType) -> Option<Tensor> {
        self.scaled(name, ty, Random::scale(ty))
    }
    fn scale(ty: &TensorType) -> f32 {
        match ty.shape.get().unwrap_or_default().as_slice() {
            [] | [_] => 0.02,
            [_, fan_in @ ..] => (3.0 / fan_in.iter().product::<usize>().max(1) as f32).sqrt(),
        }
    }
    fn key(&self, name: &str) -> [u32; 2] {
        let key = fnv1a(name) ^ self.seed;
        [key as u32, (key >> 32) as u32]
    }
    /// As [`Random::tensor`] with another a.
    pub fn scaled(&self, name: &str, ty: &TensorType, scale: f32) -> Option<Tensor> {
        let count = ty.elements()?;
        let key = self.key(name);
        let data = match ty.dtype.class() {
            Class::Float => {
                let float = |w: u32| ty.dtype.round(uniform(w) * scale);
                Data::F32(words(key, count, float))
            }
            Class::Signed => Data::I32(words(key, count, |w| (w % 8) as i32)),
            Class::Unsigned => Data::U32(words(key, count, |w| w % 8)),
            Class::Bool => Data::Bool(words(key, count, |w| w & 1 == 1)),
        };
        Some(Tensor::new(ty.clone(), data))
    }
}

/// A word as a number in [−1, 1).
fn uniform(w: u32) -> f32 {
    (w as f64 / 4294967296.0 * 2.0 - 1.0) as f32
}

fn words<T: Copy + Default + Send>(key: [u32; 2], count: usize, f: impl Fn(u32) -> T + Sync) -> Vec<T> {
    let mut values = vec![T::default(); count];
    values.par_chunks_mut(4).with_min_len(4096).enumerate().for_each(|(i, four)| {
        let words = philox4x32([i as u32, (i >> 32) as u32, 0, 0], key);
        four.iter_mut().zip(words).for_each(|(v, w)| *v = f(w));
    });
    values
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3))
}

impl WeightSource for Random {
    fn weight(&self, name: &str, ty: &TensorType) -> Result<Arc<Tensor>, Diagnostic> {
        let tensor = self.tensor(name, ty);
        let unknown =
            || Diagnostic::new("W3", format!("weight `{name}` has symbols in its type")).expected_found("numbers", ty);
        tensor.map(Arc::new).ok_or_else(unknown)
    }
}

/// The weights of a bundle, decoded; `linked` are the files of its links.
///
/// # Errors
/// A weight that was changed, or is of an unknown dtype.
pub fn of_bundle(bundle: &Bundle<'_>, linked: &LinkedFiles) -> Result<BTreeMap<String, Arc<Tensor>>, Diagnostic> {
    let mut all = BTreeMap::new();
    for (i, weight) in bundle.manifest().weights.iter().enumerate() {
        let bad = |e: String| Diagnostic::new("bundle", format!("weight `{}`: {e}", weight.name));
        let bytes = match bundle.weight(i).map_err(|e| bad(e.to_string()))? {
            WeightBytes::Here(bytes) => bytes,
            WeightBytes::Linked(link) => Cow::Borrowed(linked.checked(bundle, i, link)?),
        };
        let dtype = DType::plain(&weight.dtype).ok_or_else(|| bad(format!("unknown dtype `{}`", weight.dtype)))?;
        let sizes: Vec<usize> = weight.shape.iter().map(|&n| n as usize).collect();
        let ty = TensorType::new(dtype, sizes);
        // Truth values are words in a bundle, bytes on the host.
        let narrowed: Vec<u8>;
        let bytes = if dtype == DType::Bool {
            narrowed = bytes.chunks_exact(4).map(|w| (w != [0; 4]) as u8).collect();
            &narrowed
        } else {
            bytes.as_ref()
        };
        all.insert(weight.name.clone(), Arc::new(Tensor::from_bytes(ty, bytes).map_err(bad)?));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_halves_are_the_rounded_numbers() {
        for dtype in [DType::F16, DType::BF16, DType::F32] {
            let ty = TensorType::new(dtype, [7, 9]);
            let random = Random { seed: 3 };
            let tensor = random.tensor("w", &ty).expect("no symbols");
            assert_eq!(random.bytes("w", &ty).expect("no symbols"), tensor.to_bytes());
        }
    }

    #[test]
    fn random_tensors_depend_on_name_and_seed_only() {
        let ty = TensorType::new(DType::F32, [3, 5]);
        let get = |name: &str, seed| Random { seed }.tensor(name, &ty).expect("no symbols").to_f32();
        assert_eq!(get("a", 1), get("a", 1));
        assert_ne!(get("a", 1), get("b", 1));
        assert_ne!(get("a", 1), get("a", 2));
        let a = (3.0f32 / 5.0).sqrt();
        assert!(get("a", 1).iter().all(|x| x.abs() <= a));
    }
}
