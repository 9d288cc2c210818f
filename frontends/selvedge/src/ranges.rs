//! Magnitudes of a program's values, measured by the interpreter: what decides which activations may be halves.

use crate::bench::inputs;
use crate::error::Error;
use crate::host::Host;
use crate::weights::Weights;
use selvedge_ir::interp::{Interpreter, Run};
use selvedge_ir::{Data, Diagnostic, Module, Tensor, ValueId};
use selvedge_passes::Ranges;
use selvedge_zoo::program::{self, Conditioning, PipelineInfo, Request, TokenRows};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Steps of the run that is measured: the first has all noise, the last none.
const STEPS: usize = 4;

/// The greatest magnitude of each value of each function, on the host.
///
/// A sampling program runs a few steps from noise, with its own sampler and classes, or with tokens drawn at random; functions
/// without a schedule are called with inputs uniform in [−1, 1).
///
/// # Errors
/// Weights that cannot be read.
pub fn measure(module: &Module, weights: &Weights, pipeline: &Value) -> Result<Ranges, Error> {
    let ranges: RefCell<Ranges> = RefCell::default();
    let observe = |function: &str, id: ValueId, tensor: &Tensor| {
        let mut ranges = ranges.borrow_mut();
        if !ranges.contains_key(function) {
            ranges.insert(function.to_string(), Vec::new());
        }
        let Some(known) = ranges.get_mut(function) else { return };
        let at = id.0 as usize;
        if known.len() <= at {
            known.resize(at + 1, 0.0);
        }
        known[at] = known[at].max(magnitude(tensor));
    };
    let interpreter = Interpreter::new(module, weights.as_ref()).kernels(&Host).observed(&observe);
    match serde_json::from_value::<PipelineInfo>(pipeline.clone()) {
        Ok(info) if module.schedule.steps.is_some() => {
            interpreter.run(&sampling(&info)?, &mut |_| {})?;
        }
        Ok(_) | Err(_) => {
            let called = module.functions.iter().flat_map(|f| &f.calls).map(|c| &c.function);
            let called: Vec<&String> = called.collect();
            for function in module.functions.iter().filter(|f| !called.contains(&&f.name)) {
                let given = inputs(module, &function.name)?;
                let args: Option<Vec<Tensor>> =
                    function.params().iter().map(|(name, _)| given.get(*name).cloned()).collect();
                let missing = || Diagnostic::new("ranges", format!("an input of `{}` has no value", function.name));
                interpreter.call(&function.name, &args.ok_or_else(missing)?, &mut BTreeMap::new())?;
            }
        }
    }
    Ok(ranges.into_inner())
}

/// Infinite for what is not finite.
fn magnitude(tensor: &Tensor) -> f64 {
    let most = |largest: f64, x: f64| if x.is_finite() { largest.max(x.abs()) } else { f64::INFINITY };
    match &tensor.data {
        Data::F32(v) => v.iter().map(|x| f64::from(*x)).fold(0.0, most),
        Data::F64(v) => v.iter().copied().fold(0.0, most),
        Data::I32(_) | Data::U32(_) | Data::Bool(_) => 0.0,
    }
}

/// A short run of a sampling program.
fn sampling(info: &PipelineInfo) -> Result<Run, Diagnostic> {
    let mut request = Request { steps: Some(STEPS.min(info.default_steps.max(1))), ..Request::default() };
    match &info.conditioning {
        Conditioning::Class { num_classes, .. } => {
            request.labels = (0..info.batch).map(|i| i * 7 % (*num_classes).max(1)).collect();
        }
        Conditioning::Text { prompts, inputs, .. } => {
            let rows = prompts * (1 + usize::from(info.guided.is_some()));
            let tokens = inputs.iter().map(|input| {
                let count = rows * input.length;
                let ids = (0..count).map(|i| (i * 2_654_435_761 % input.vocab_size.max(1)) as i32).collect();
                TokenRows { ids, mask: vec![1; count] }
            });
            request.tokens = tokens.collect();
        }
    }
    program::request(info, &request)
}
