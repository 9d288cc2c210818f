//! Running a program on a device: one interface for the host and GPUs.

use crate::conditions::Conditions;
use crate::error::Error;
use crate::gpu::GpuSession;
use crate::host::Host;
use crate::weights::Weights;
use selvedge_ir::func::Target;
use selvedge_ir::interp::{Interpreter, Names, Run, RunOutput};
use selvedge_ir::{Diagnostic, Function, Module, Tensor};
use std::collections::BTreeMap;

/// A program on a device, ready to run.
pub struct Session {
    inner: Inner,
}

enum Inner {
    Host(Box<HostSession>),
    Gpu(Box<GpuSession>),
}

struct HostSession {
    module: Module,
    weights: Weights,
    conditions: Conditions<Names>,
}

impl Session {
    /// A session on the host; the module has no symbols and has been verified.
    pub fn host(module: Module, weights: Weights) -> Session {
        Session { inner: Inner::Host(Box::new(HostSession { module, weights, conditions: Conditions::default() })) }
    }
    /// A session on a GPU.
    pub(crate) fn gpu(session: GpuSession) -> Session {
        Session { inner: Inner::Gpu(Box::new(session)) }
    }
    /// The plan on an adapter, if it is one.
    pub fn as_gpu(&mut self) -> Option<&mut GpuSession> {
        match &mut self.inner {
            Inner::Host(_) => None,
            Inner::Gpu(session) => Some(session),
        }
    }
    /// What went another way than expected since the last time, in sentences for people.
    pub fn take_notes(&mut self) -> Vec<String> {
        match &mut self.inner {
            Inner::Host(_) => Vec::new(),
            Inner::Gpu(session) => session.take_notes(),
        }
    }
    /// Device memory that is allocated, in bytes, weights included; `None` on the host.
    pub fn peak_bytes(&self) -> Option<u64> {
        match &self.inner {
            Inner::Host(_) => None,
            Inner::Gpu(session) => Some(session.peak_bytes()),
        }
    }
    /// From now on, what `condition` gives is kept on the host: a run whose prompt is that of an earlier one does not read it again.
    /// For several runs of one request; the results are the same.
    pub fn keep_conditions(&mut self) {
        match &mut self.inner {
            Inner::Host(session) => session.conditions.keep(),
            Inner::Gpu(session) => session.conditions().keep(),
        }
    }
    /// How often `condition` was run.
    pub fn conditions_run(&mut self) -> usize {
        match &mut self.inner {
            Inner::Host(session) => session.conditions.runs,
            Inner::Gpu(session) => session.conditions().runs,
        }
    }
    /// Runs the schedule; `progress(k)` is called after step k.
    ///
    /// # Errors
    /// Inputs that do not fit the program; device trouble.
    pub fn run(&mut self, run: &Run, progress: &mut dyn FnMut(usize)) -> Result<RunOutput, Error> {
        match &mut self.inner {
            Inner::Host(session) => session.run(run, progress),
            Inner::Gpu(session) => session.run(run, progress),
        }
    }
    /// Calls one function with arguments by name; gives its named outputs. States start at zero.
    ///
    /// # Errors
    /// No such function, arguments that do not fit it, device trouble.
    pub fn call(
        &mut self,
        function: &str,
        inputs: &BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>, Error> {
        match &mut self.inner {
            Inner::Host(session) => session.call(function, inputs),
            Inner::Gpu(session) => session.call(function, inputs),
        }
    }
}

impl HostSession {
    fn interpreter(&self) -> Interpreter<'_> {
        Interpreter::new(&self.module, self.weights.as_ref()).kernels(&Host)
    }
    fn run(&mut self, run: &Run, progress: &mut dyn FnMut(usize)) -> Result<RunOutput, Error> {
        // What a condition leaves in states cannot be given again.
        let kept = self.conditions.kept() && self.module.states.is_empty();
        let condition = self.module.schedule.condition.as_ref().and_then(|name| self.module.function(name));
        let names: Vec<&str> = condition.iter().flat_map(|f| f.params()).map(|(name, _)| name).collect();
        let given = if kept { self.conditions.find(names.iter().copied(), &run.inputs) } else { None };
        let (output, conditioned) = self.interpreter().run_conditioned(run, given.as_deref(), progress)?;
        if condition.is_some() && given.is_none() {
            self.conditions.runs += 1;
            if kept {
                let bytes = conditioned.values().map(|t| t.ty.elements().unwrap_or(0) as u64 * 4).sum();
                self.conditions.insert(names.into_iter(), &run.inputs, conditioned, bytes);
            }
        }
        Ok(output)
    }
    fn call(&self, name: &str, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>, Error> {
        let function = self.module.function(name).ok_or_else(|| {
            let known: Vec<&str> = self.module.functions.iter().map(|f| f.name.as_str()).collect();
            Diagnostic::new("call", format!("there is no function `{name}`"))
                .help(format!("functions: {}", known.join(", ")))
        })?;
        let args = arguments(function, inputs)?;
        let returned = self.interpreter().call(name, &args, &mut BTreeMap::new())?;
        let named = returned.into_iter().filter_map(|(target, value)| match target {
            Target::Output(name) => Some((name, value)),
            Target::State(_) => None,
        });
        Ok(named.collect())
    }
}

/// Arguments in parameter order, checked against the parameters' types.
fn arguments(function: &Function, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<Tensor>, Error> {
    let mut args = Vec::new();
    for (name, id) in function.params() {
        let ty = function.ty(id);
        let input = inputs.get(name).ok_or_else(|| {
            Diagnostic::new("call", format!("input `{name}` of `{}` is not given", function.name))
                .expected_found(ty, "nothing")
        })?;
        if input.ty != *ty {
            let what = Diagnostic::new("call", format!("input `{name}` of `{}` has another type", function.name));
            return Err(what.expected_found(ty, &input.ty).into());
        }
        args.push(input.clone());
    }
    Ok(args)
}
