//! `quantize-weights` and `unpack-weights`: integer weights with a scale for each group.

use crate::Pass;
use crate::rebuild::{Rebuild, rebuild};
use selvedge_ir::dtype::Packed;
use selvedge_ir::module::WeightDecl;
use selvedge_ir::op::OpClass;
use selvedge_ir::ops::{Broadcast, Iota, Map, Reshape, Weight};
use selvedge_ir::scalar::{Binary, Body, Scalar};
use selvedge_ir::{DType, Diagnostic, Function, Module, Op, TensorType, ValueId};
use std::collections::BTreeSet;

/// Elements that may share a scale, the preferred number first.
const GROUPS: [usize; 2] = [64, 32];

/// Stores matrices of products as integers of 4 or 8 bits with an f32 scale for each group of 64 (or 32) neighbours in a row.
///
/// Quantised are float weights of rank 2 that nothing but products reads, through views or not, and whose rows divide into groups.
/// Everything else keeps its type: vectors, embedding tables that are looked up, convolutions' kernels, results of functions.
/// Products read the numbers that the integers stand for, and accumulate in f32.
pub struct QuantizeWeights {
    /// 4 or 8.
    pub bits: u8,
}

impl Pass for QuantizeWeights {
    fn name(&self) -> &'static str {
        "quantize-weights"
    }
    fn summary(&self) -> &'static str {
        "stores matrices of products as integers with group scales"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        if !matches!(self.bits, 4 | 8) {
            return Err(Diagnostic::new("quantize-weights", "weights are integers of 4 or 8 bits")
                .expected_found("4 or 8", self.bits));
        }
        let (mut read, mut refused) = (BTreeSet::new(), BTreeSet::new());
        module.functions.iter().for_each(|f| uses(f, &mut read, &mut refused));
        let mut chosen = BTreeSet::new();
        for weight in module.weights.iter_mut().filter(|w| read.contains(&w.name) && !refused.contains(&w.name)) {
            if let Some(ty) = quantized(&weight.ty, self.bits) {
                weight.ty = ty;
                chosen.insert(weight.name.clone());
            }
        }
        for function in &mut module.functions {
            *function = rebuild(function, |r, _, op, args| match op {
                Op::Weight(w) if chosen.contains(&w.name) => {
                    let ty = quantized(&w.ty, self.bits).unwrap_or_else(|| w.ty.clone());
                    let packed = r.copy(&Weight { name: w.name.clone(), ty }.into(), &[])?;
                    r.copy(&Map { body: Body::cast(DType::F32) }.into(), &[packed])
                }
                op => r.copy(op, args),
            })?;
        }
        Ok(module)
    }
}

/// The packed type of a matrix; `None` if it has none.
fn quantized(ty: &TensorType, bits: u8) -> Option<TensorType> {
    let sizes = ty.shape.get()?;
    let [_, columns] = sizes[..] else { return None };
    let group = GROUPS.into_iter().find(|g| columns > 0 && columns.is_multiple_of(*g))?;
    let packed = Packed { bits, axis: 1, group: group as u32, scale_f16: false, zero_point: false };
    ty.dtype.is_float().then(|| TensorType { dtype: DType::Packed(packed), shape: ty.shape.clone() })
}

/// The weight behind views.
fn weight(function: &Function, mut id: ValueId) -> Option<String> {
    loop {
        match function.op(id) {
            Some((Op::Weight(w), _)) => return Some(w.name.clone()),
            Some((Op::Transpose(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Slice(_), args)) => id = args[0],
            Some(_) | None => return None,
        }
    }
}

/// Adds the weights that products read, and those that anything else does.
fn uses(function: &Function, read: &mut BTreeSet<String>, refused: &mut BTreeSet<String>) {
    for id in function.ids() {
        let Some((op, args)) = function.op(id) else { continue };
        let weights = args.iter().filter_map(|a| weight(function, *a));
        match op.class() {
            OpClass::Contract => read.extend(weights),
            OpClass::View if matches!(op, Op::Transpose(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Slice(_)) => {}
            OpClass::Leaf
            | OpClass::Map
            | OpClass::Reduce
            | OpClass::Window
            | OpClass::Scan
            | OpClass::View
            | OpClass::Index
            | OpClass::Composite => refused.extend(weights),
        }
    }
    refused.extend(function.returns.iter().filter_map(|r| weight(function, r.value)));
    refused.extend(function.calls.iter().flat_map(|c| &c.args).filter_map(|a| weight(function, *a)));
}

/// Writes out what a packed weight means: a weight `NAME` of words, one `NAME.scales`, and the arithmetic between them. Kernels
/// absorb it where they read the weight.
///
/// A word holds 32 / bits neighbours of a row, the first in its lowest bits.
pub struct UnpackWeights;

impl Pass for UnpackWeights {
    fn name(&self) -> &'static str {
        "unpack-weights"
    }
    fn summary(&self) -> &'static str {
        "writes packed weights as words, scales and the arithmetic between them"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        let mut weights = Vec::new();
        for weight in &module.weights {
            match parts(&weight.name, &weight.ty)? {
                Some([words, scales]) => weights.extend([words, scales].map(|w| WeightDecl { ty: w.ty, name: w.name })),
                None => weights.push(weight.clone()),
            }
        }
        module.weights = weights;
        for function in &mut module.functions {
            *function = rebuild(function, |r, _, op, args| match op {
                Op::Weight(w) => match (parts(&w.name, &w.ty)?, w.ty.dtype) {
                    (Some(parts), DType::Packed(packed)) => unpacked(r, &w.ty, packed, parts),
                    (_, _) => r.copy(op, args),
                },
                op => r.copy(op, args),
            })?;
        }
        Ok(module)
    }
}

/// The weights of words and of scales that a packed weight consists of.
fn parts(name: &str, ty: &TensorType) -> Result<Option<[Weight; 2]>, Diagnostic> {
    let DType::Packed(packed) = ty.dtype else { return Ok(None) };
    let per_word = 32 / packed.bits as usize;
    let sizes = ty.shape.get().unwrap_or_default();
    let (last, group) = (sizes.len().wrapping_sub(1), packed.group as usize);
    let fits = packed.axis as usize == last && !packed.zero_point && !packed.scale_f16;
    if !fits || group == 0 || !group.is_multiple_of(per_word) || !sizes[last].is_multiple_of(group) {
        return Err(Diagnostic::new(
            "unpack-weights",
            format!("weight `{name}` is packed in a way that no kernel reads"),
        )
        .expected_found("groups of whole words along the last axis, scales in f32, no zero points", ty.dtype));
    }
    let with = |divisor: usize, dtype| {
        let mut sizes = sizes.clone();
        sizes[last] /= divisor;
        TensorType::new(dtype, sizes)
    };
    let words = Weight { name: name.to_string(), ty: with(per_word, DType::U32) };
    let scales = Weight { name: format!("{name}.scales"), ty: with(group, DType::F32) };
    Ok(Some([words, scales]))
}

/// f32(integer) · scale, of the weight's shape.
fn unpacked(r: &mut Rebuild, ty: &TensorType, packed: Packed, parts: [Weight; 2]) -> Result<ValueId, Diagnostic> {
    let bits = u32::from(packed.bits);
    let [words, scales] = parts;
    let split = |ty: &TensorType, inner: usize| {
        let mut sizes = ty.shape.sizes();
        sizes.push(inner);
        TensorType::new(ty.dtype, sizes)
    };
    let by_words = split(&words.ty, 32 / bits as usize);
    let by_groups = split(&scales.ty, packed.group as usize);
    let rank = by_words.shape.0.len();
    let outer: Vec<usize> = (0..rank - 1).collect();
    let word = r.copy(&words.into(), &[])?;
    let word = r.copy(&Broadcast { axes: outer.clone(), shape: by_words.shape.clone() }.into(), &[word])?;
    let place = r.copy(&Iota { axis: rank - 1, ty: by_words.clone() }.into(), &[])?;
    // The integer's bits go to the top of the word, and down again with the sign.
    let body = Body::build(2, |b| {
        let (word, place) = (b.arg(0), b.arg(1));
        let (width, rest) = (b.add(Scalar::Uint(bits)), b.add(Scalar::Uint(32 - bits)));
        let below = b.binary(Binary::Mul, place, width);
        let shift = b.binary(Binary::Sub, rest, below);
        let high = b.binary(Binary::Shl, word, shift);
        let signed = b.add(Scalar::Bits(DType::I32, high));
        let back = b.add(Scalar::Int(32 - bits as i32));
        let integer = b.binary(Binary::Shr, signed, back);
        b.cast(DType::F32, integer)
    });
    let integers = r.copy(&Map { body }.into(), &[word, place])?;
    let integers = r.copy(&Reshape { shape: by_groups.shape.clone() }.into(), &[integers])?;
    let scale = r.copy(&scales.into(), &[])?;
    let scale = r.copy(&Broadcast { axes: outer, shape: by_groups.shape.clone() }.into(), &[scale])?;
    let product = r.copy(&Map { body: Body::binary(Binary::Mul) }.into(), &[integers, scale])?;
    r.copy(&Reshape { shape: ty.shape.clone() }.into(), &[product])
}
