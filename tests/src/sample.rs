//! Runs of a whole schedule: before and after the passes, and on a device.

use crate::compare::{Allowed, compare};
use crate::gpu::Gpu;
use selvedge::compile;
use selvedge::ir::generate;
use selvedge::ir::interp::{Run, RunOutput};
use selvedge::ir::{Interpreter, Module, Precision, Tensor};
use std::sync::Arc;

/// Inputs of every run are drawn with this seed.
const SEED: u64 = 7;

/// Runs the schedule of `before` and of `after` on the interpreter, and `after` on a device; all outputs and traces agree.
///
/// # Errors
/// The first element that differs too much.
pub fn check(before: &Module, after: &Module, steps: usize, device: Option<&str>) -> Result<(), String> {
    let run = generate::run(SEED, before, steps);
    let (single, double) = (interpreted(before, &run, Precision::F32)?, interpreted(before, &run, Precision::F64)?);
    if before != after {
        agree("after the passes", &interpreted(after, &run, Precision::F64)?, &double, &single, &double)?;
    }
    match device {
        None => Ok(()),
        Some("gpu") => {
            let gpu = Gpu::new().ok_or("no runner `gpu` (it needs a driver: scripts/setup installs one)")?;
            let weights = Arc::new(generate::weights(SEED, before));
            let mut session = compile::session(after.clone(), weights, Default::default(), gpu.device(), &mut |_| {})
                .map_err(|e| format!("compiling: {e}"))?;
            let got = session.run(&run, &mut |_| {}).map_err(|e| e.to_string())?;
            agree("on the device", &got, &single, &single, &double)
        }
        Some(other) => Err(format!("`{other}` cannot run a schedule")),
    }
}

fn interpreted(module: &Module, run: &Run, precision: Precision) -> Result<RunOutput, String> {
    // Drawn by name from one generator, in the order of declaration: a pass may drop weights, but adds none.
    let weights = generate::weights(SEED, module);
    Interpreter::new(module, &weights).precision(precision).run(run, &mut |_| {}).map_err(|e| e.to_string())
}

fn agree(what: &str, got: &RunOutput, want: &RunOutput, single: &RunOutput, double: &RunOutput) -> Result<(), String> {
    let one = |name: &str, [got, want, single, double]: [&Tensor; 4]| {
        compare(&format!("`{name}` {what}"), got, want, Allowed::for_devices(single, double))
    };
    for (name, want) in &want.outputs {
        let got = got.outputs.get(name).ok_or_else(|| format!("no output `{name}` {what}"))?;
        one(name, [got, want, &single.outputs[name], &double.outputs[name]])?;
    }
    for (name, wants) in &want.trace {
        let gots = got.trace.get(name).ok_or_else(|| format!("no trace of `{name}` {what}"))?;
        for (k, want) in wants.iter().enumerate() {
            let step = format!("{name} after step {k}");
            one(&step, [&gots[k], want, &single.trace[name][k], &double.trace[name][k]])?;
        }
    }
    Ok(())
}
