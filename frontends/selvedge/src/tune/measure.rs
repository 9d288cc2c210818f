//! One compiled variant on the device: its outputs, and the time of each unit.

use crate::bench::inputs;
use crate::compare;
use crate::compile::Compiled;
use crate::error::Error;
use crate::gpu::{Gpu, GpuSession};
use selvedge_codegen::Tunable;
use selvedge_ir::Tensor;
use std::collections::BTreeMap;

/// Largest rel_l2 of a candidate's outputs against the default's: what `check` allows a device against the reference.
const TOLERANCE: f64 = 1e-4;
/// The same where values are stored in 16 bits.
const TOLERANCE_HALF: f64 = 5e-3;

/// Tensors by name.
type Named = BTreeMap<String, Tensor>;

/// Random inputs of the functions that are timed: all that run more often than at load.
pub(super) struct Inputs {
    functions: Vec<(String, Named)>,
    tolerance: f64,
}

impl Inputs {
    pub fn of(compiled: &Compiled) -> Result<Inputs, Error> {
        let plan = compiled.manifest().plans.first();
        let prepare = plan.and_then(|p| p.schedule.as_ref()).and_then(|s| s.prepare.clone());
        let timed = plan.into_iter().flat_map(|p| &p.functions).filter(|f| Some(&f.name) != prepare.as_ref());
        let mut functions = Vec::new();
        for function in timed {
            functions.push((function.name.clone(), inputs(compiled.module(), &function.name)?));
        }
        let half = |dtype: &str| matches!(dtype, "f16" | "bf16");
        let narrow = compiled.manifest().weights.iter().any(|w| half(&w.dtype));
        Ok(Inputs { functions, tolerance: if narrow { TOLERANCE_HALF } else { TOLERANCE } })
    }
}

/// What a variant gave.
pub(super) struct Trial {
    outputs: Vec<Named>,
    /// Median milliseconds of each dispatch, by function.
    times: Vec<Vec<f64>>,
    tunables: BTreeMap<String, Tunable>,
    tolerance: f64,
}

/// Loads a variant and runs every function once on its inputs.
pub(super) fn load(gpu: &Gpu, compiled: &Compiled, inputs: &Inputs) -> Result<GpuSession, Error> {
    let mut session = GpuSession::load(gpu, &compiled.bundle()?, &Default::default(), true, &mut |_| {})?;
    for (function, inputs) in &inputs.functions {
        session.call(function, inputs)?;
    }
    Ok(session)
}

/// Median milliseconds of all functions of two variants, `pairs` runs of each in turns.
pub(super) fn in_turns(
    a: &mut GpuSession,
    b: &mut GpuSession,
    inputs: &Inputs,
    pairs: usize,
) -> Result<(f64, f64), Error> {
    let whole = |session: &mut GpuSession| -> Result<f64, Error> {
        let each = inputs.functions.iter().map(|(function, _)| Ok(session.time(function, 1)?.iter().sum::<f64>()));
        each.sum()
    };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        first.push(whole(a)?);
        second.push(whole(b)?);
    }
    Ok((median(first), median(second)))
}

impl Trial {
    /// Runs a variant and times its dispatches.
    pub fn run(gpu: &Gpu, compiled: &Compiled, inputs: &Inputs, samples: usize) -> Result<Trial, Error> {
        let mut session = GpuSession::load(gpu, &compiled.bundle()?, &Default::default(), true, &mut |_| {})?;
        let (mut outputs, mut times) = (Vec::new(), Vec::new());
        for (function, inputs) in &inputs.functions {
            outputs.push(session.call(function, inputs)?);
            let profiles = (0..samples).map(|_| session.profile(function)).collect::<Result<Vec<_>, _>>()?;
            let of = |i: usize| median(profiles.iter().map(|p| p.dispatches[i].ms).collect());
            times.push((0..profiles[0].dispatches.len()).map(of).collect());
        }
        // Positions of functions in the plan, of which those that are timed are a part.
        let plan = compiled.manifest().plans.first();
        let names: Vec<&str> = plan.into_iter().flat_map(|p| &p.functions).map(|f| f.name.as_str()).collect();
        let mut tunables = compiled.tunables().clone();
        for tunable in tunables.values_mut() {
            let place = |(f, d): &(u32, u32)| {
                let timed =
                    inputs.functions.iter().position(|(name, _)| Some(&name.as_str()) == names.get(*f as usize))?;
                Some((timed as u32, *d))
            };
            tunable.dispatches = tunable.dispatches.iter().filter_map(place).collect();
        }
        Ok(Trial { outputs, times, tunables, tolerance: inputs.tolerance })
    }
    /// Milliseconds of all dispatches of a unit.
    pub fn ms(&self, key: &str) -> f64 {
        let dispatches = self.tunables.get(key).map_or(&[][..], |t| &t.dispatches);
        dispatches.iter().filter_map(|(f, d)| self.times.get(*f as usize)?.get(*d as usize)).sum()
    }
    /// Another variant computed the same.
    pub fn same_as(&self, other: &Trial) -> Result<(), Error> {
        self.outputs.iter().zip(&other.outputs).try_for_each(|(want, got)| self.same(want, got))
    }
    /// A loaded variant computes the same.
    pub fn same_outputs(&self, session: &mut GpuSession, inputs: &Inputs) -> Result<(), Error> {
        for ((function, inputs), want) in inputs.functions.iter().zip(&self.outputs) {
            self.same(want, &session.call(function, inputs)?)?;
        }
        Ok(())
    }
    fn same(&self, want: &Named, got: &Named) -> Result<(), Error> {
        for (name, want) in want {
            let far = got.get(name).map(|got| compare::compare(got, want, self.tolerance).rel_l2);
            if far.is_none_or(|far| far.is_nan() || far > self.tolerance) {
                let far = far.map_or("missing".to_string(), |far| format!("rel_l2 {far:.2e}"));
                return Err(Error::device("tune", format!("output `{name}` differs from the default's: {far}")));
            }
        }
        Ok(())
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
