//! How a program's tensors are stored: activations as halves, packed weights as words.

use super::passes::run_passes;
use crate::dump::Dump;
use crate::error::Error;
use crate::ranges;
use crate::weights::Weights;
use selvedge_ir::{DType, Module};
use selvedge_passes::{DeadCode, HalfActivations, InlineCalls, Notes, Pass, UnpackWeights};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The optimised module with activations in f16, by ranges that are measured on it.
pub(crate) fn halved(
    module: Module,
    weights: &Weights,
    pipeline: &Value,
    dump: &mut Dump,
    stages: &mut Vec<(String, Duration)>,
    notes: &mut Notes,
) -> Result<Module, Error> {
    let started = Instant::now();
    let ranges = ranges::measure(&module, weights, pipeline)?;
    stages.push(("ranges".to_string(), started.elapsed()));
    let pass: Box<dyn Pass> = Box::new(HalfActivations { ranges });
    run_passes(module, std::iter::once(pass.as_ref()), dump, stages, notes)
}

/// The module as code generation reads it: packed weights as words and scales, and of functions without a schedule only the
/// caller's `own`, since blocks that outlining made are nobody's to call and would take memory.
pub(crate) fn written_out(
    module: Module,
    own: &BTreeSet<String>,
    dump: &mut Dump,
    stages: &mut Vec<(String, Duration)>,
    notes: &mut Notes,
) -> Result<Module, Error> {
    let packed = module.weights.iter().any(|w| matches!(w.ty.dtype, DType::Packed(_)));
    let library = module.schedule.is_empty();
    if !packed && (!library || module.functions.iter().all(|f| own.contains(&f.name))) {
        return Ok(module);
    }
    // A packed weight may be a parameter of a block; what it consists of may not.
    let mut module = InlineCalls.run(module)?;
    if library {
        module.functions.retain(|f| own.contains(&f.name));
    } else {
        module = DeadCode.run(module)?;
    }
    let unpack: Option<Box<dyn Pass>> = packed.then(|| Box::new(UnpackWeights) as Box<dyn Pass>);
    run_passes(module, unpack.iter().map(Box::as_ref), dump, stages, notes)
}
