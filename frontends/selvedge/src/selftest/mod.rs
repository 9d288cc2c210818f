//! Self-tests of kernel families: made with the compiler, carried by bundles, run once on every driver.

use crate::bench::inputs;
use crate::cache::DeviceCache;
use crate::compile::parts;
use crate::error::Error;
use crate::gpu::Gpu;
use selvedge_bundle::selftest::{SelfTest, Vector};
use selvedge_codegen::{Choices, Compiled, Options, Target};
use selvedge_ir::func;
use selvedge_ir::interp::{Interpreter, Precision};
use selvedge_ir::{DType, Data, Diagnostic, Module, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// Functions that lead to the families.
const SAMPLES: &str = include_str!("samples.ir");
/// File of passed tests in the cache: a hash a line.
const PASSED: &str = "selftests";
/// What is allowed besides rounding alone: as for the tests of kernels against the interpreter (docs/TESTING.md).
const GAPS: f64 = 8.0;
const ULPS: f64 = 16.0;

/// Tests for kernel families on a target: family, and a bundle that tests it. Families that no sample reaches are missing.
///
/// # Errors
/// A fault of the compiler.
pub fn vectors(target: &Target, families: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let module = crate::text::parse("samples.ir", SAMPLES.to_string())?;
    let mut made: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let names: Vec<String> = module.functions.iter().map(|f| f.name.clone()).collect();
    // First what the code generator chooses for small shapes, then its other candidates.
    for others in [false, true] {
        for name in &names {
            if families.iter().all(|family| made.contains_key(family)) {
                return Ok(made);
            }
            let mut sample = module.clone();
            sample.functions.retain(|f| f.name == *name);
            // A target may lack what a sample needs.
            let Ok(default) = compile(&sample, target, Choices::new()) else { continue };
            let mut variants = Vec::new();
            if others {
                for (key, tunable) in &default.tunables {
                    let choices = tunable.candidates.iter().skip(1).map(|c| Choices::from([(key.clone(), c.clone())]));
                    variants.extend(choices.filter_map(|choices| compile(&sample, target, choices).ok()));
                }
            } else {
                variants.push(default);
            }
            for compiled in variants {
                let new = compiled.manifest.kernels.iter().map(|k| &k.name);
                let new: BTreeSet<&String> =
                    new.filter(|family| families.contains(*family) && !made.contains_key(*family)).collect();
                for family in new {
                    made.insert(family.clone(), vector(&sample, name, family, compiled.clone())?);
                }
            }
        }
    }
    Ok(made)
}

fn compile(module: &Module, target: &Target, choices: Choices) -> Result<Compiled, Error> {
    let options = Options { choices, ..Options::default() };
    Ok(selvedge_codegen::compile(module, target, &options)?)
}

/// A compiled sample with inputs, and outputs of the interpreter.
fn vector(module: &Module, function: &str, family: &str, compiled: Compiled) -> Result<Vec<u8>, Error> {
    let named = inputs(module, function)?;
    let body = module.function(function).ok_or_else(|| Diagnostic::new("self-test", format!("no `{function}`")))?;
    let arguments: Vec<Tensor> = body.params().iter().map(|(name, _)| named[*name].clone()).collect();
    let none: BTreeMap<String, std::sync::Arc<Tensor>> = BTreeMap::new();
    let outputs = |precision| -> Result<BTreeMap<String, Tensor>, Error> {
        let interpreter = Interpreter::new(module, &none).precision(precision);
        let returned = interpreter.call(function, &arguments, &mut BTreeMap::new())?;
        let named = returned.into_iter().filter_map(|(target, value)| match target {
            func::Target::Output(name) => Some((name, value)),
            func::Target::State(_) => None,
        });
        Ok(named.collect())
    };
    let (single, double) = (outputs(Precision::F32)?, outputs(Precision::F64)?);
    let test = SelfTest {
        family: family.to_string(),
        function: function.to_string(),
        inputs: named.iter().map(|(name, tensor)| words(name, tensor, 0.0)).collect(),
        outputs: single.iter().map(|(name, tensor)| words(name, tensor, bound(tensor, &double[name]))).collect(),
    };
    let mut manifest = compiled.manifest;
    manifest.pipeline = serde_json::to_value(test).expect("a self-test has string keys and finite numbers only");
    parts(manifest, compiled.kernels)?
        .to_bytes()
        .map_err(|e| Error::Internal(Diagnostic::new("self-test", e.to_string())))
}

/// The error that rounding may make on another device: 8 gaps between f32 and f64, or 16 units in the last place of the
/// largest element.
fn bound(single: &Tensor, double: &Tensor) -> f64 {
    let epsilon = match single.ty.dtype {
        DType::F32 => f32::EPSILON as f64,
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        DType::I32 | DType::U32 | DType::Bool | DType::Packed(_) => return 0.0,
    };
    let (single, double) = (single.to_f64(), double.to_f64());
    let gap = single.iter().zip(&double).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let largest = double.iter().map(|x| x.abs()).fold(0.0, f64::max);
    (GAPS * gap).max(ULPS * epsilon * largest)
}

fn words(name: &str, tensor: &Tensor, bound: f64) -> Vector {
    let words = match &tensor.data {
        Data::F32(v) => v.iter().map(|x| x.to_bits()).collect(),
        Data::F64(v) => v.iter().map(|x| (*x as f32).to_bits()).collect(),
        Data::I32(v) => v.iter().map(|x| *x as u32).collect(),
        Data::U32(v) => v.clone(),
        Data::Bool(v) => v.iter().map(|b| u32::from(*b)).collect(),
    };
    let shape = tensor.sizes().iter().map(|n| *n as u64).collect();
    Vector { name: name.to_string(), dtype: tensor.ty.dtype.to_string(), shape, words, bound }
}

/// Runs the tests that this adapter and driver have not passed yet, and remembers that they have.
///
/// # Errors
/// [`Error::Device`] names the family that fails.
pub fn check<'t>(gpu: &Gpu, tests: impl Iterator<Item = (&'t str, &'t [u8])>, trusted: bool) -> Result<(), Error> {
    let cache = DeviceCache::of(gpu);
    let file = cache.read(PASSED).unwrap_or_default();
    let mut passed: BTreeSet<String> = String::from_utf8_lossy(&file).lines().map(str::to_string).collect();
    let known = passed.len();
    for (_, bytes) in tests {
        let hash = selvedge_bundle::hash(bytes);
        if !passed.contains(&hash) {
            gpu.self_test(bytes, trusted)?;
            passed.insert(hash);
        }
    }
    if passed.len() > known {
        cache.write(PASSED, passed.into_iter().collect::<Vec<_>>().join("\n").as_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_that_a_target_uses_has_a_test() {
        let width = |n| Some(selvedge_codegen::Subgroups { min: n, max: n });
        let processor = Target { subgroup: width(8), wide: true, ..Target::portable() };
        let gpu = Target { subgroup: width(32), gpu: true, f16: true, cooperative: vec![16], ..Target::portable() };
        let families: BTreeSet<String> = selvedge_codegen::families().into_iter().map(str::to_string).collect();
        let targets = [Target::portable(), processor, gpu];
        let made = targets.iter().flat_map(|target| vectors(target, &families).expect("samples compile"));
        let made: BTreeSet<String> = made.map(|(family, _)| family).collect();
        let missing: Vec<&String> = families.difference(&made).collect();
        assert!(missing.is_empty(), "no sample in samples.ir leads to {missing:?}; made: {made:?}");
    }

    #[test]
    fn a_driver_passes_and_a_wrong_result_is_found() {
        let gpu = Gpu::open(None).expect("these tests need a GPU driver");
        let families = BTreeSet::from(["contract", "contract_subgroup", "map"].map(str::to_string));
        let made = vectors(&gpu.target(), &families).expect("samples compile");
        for (family, bytes) in &made {
            gpu.self_test(bytes, true).unwrap_or_else(|e| panic!("{family}: {e}"));
            // The same kernels with another expectation.
            let bundle = selvedge_bundle::read(bytes).expect("it was just made");
            let mut test = bundle.self_test().expect("it is a self-test");
            test.outputs[0].words[3] ^= 1 << 23;
            let mut manifest = bundle.manifest().clone();
            manifest.pipeline = serde_json::to_value(test).expect("plain");
            let texts = (0..manifest.kernels.len()).filter_map(|i| bundle.kernel(i)).map(str::to_string).collect();
            let wrong = parts(manifest, texts).expect("consistent").to_bytes().expect("written");
            let error = gpu.self_test(&wrong, true).expect_err("a factor of two");
            assert!(matches!(error, Error::Device(_)) && error.to_string().contains(family.as_str()), "{error}");
        }
    }
}
