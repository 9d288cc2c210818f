//! Runs of a schedule: which function runs when, and what its inputs are bound to.

use crate::diag::Diagnostic;
use crate::func::Target;
use crate::interp::{Interpreter, Names, Run, RunOutput, States};
use crate::module::StepLoop;
use crate::shape::{Shape, TensorType, strides};
use crate::tensor::{Data, Tensor};
use std::sync::Arc;

impl Interpreter<'_> {
    /// Runs the schedule; `progress(k)` is called after step k.
    ///
    /// State starts at zero. Without a loop and a `decode`, the outputs are those of `condition`.
    ///
    /// # Errors
    /// Codes I1 to I7: everything that can be said before the first function runs is said then.
    pub fn run(&self, run: &Run, progress: &mut dyn FnMut(usize)) -> Result<RunOutput, Diagnostic> {
        self.run_conditioned(run, None, progress).map(|(output, _)| output)
    }
    /// As [`Interpreter::run`]; gives also what `condition` gave. If that is `given`, from a run with the same inputs of it, it is not
    /// run again.
    ///
    /// # Errors
    /// As [`Interpreter::run`].
    pub fn run_conditioned(
        &self,
        run: &Run,
        given: Option<&Names>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(RunOutput, Names), Diagnostic> {
        let schedule = &self.module.schedule;
        if schedule.is_empty() {
            return Err(Diagnostic::new("I1", format!("module @{} has no schedule", self.module.name))
                .help("call one of its functions"));
        }
        for name in &run.trace {
            let carried = schedule.steps.as_ref().is_some_and(|s| s.carry.contains(name));
            if !carried && !schedule.trace.contains(name) {
                let known = schedule.trace.iter().chain(schedule.steps.iter().flat_map(|s| &s.carry));
                return Err(Diagnostic::new("I6", format!("`{name}` cannot be traced"))
                    .expected_found(format!("one of {}", known.cloned().collect::<Vec<_>>().join(", ")), name));
            }
        }
        match &schedule.steps {
            Some(steps) => self.check_steps(steps, run)?,
            None if !run.steps.is_empty() => {
                return Err(Diagnostic::new("I5", "the schedule has no loop").expected_found(0, run.steps.len()));
            }
            None => {}
        }
        let inputs: Names = run.inputs.iter().map(|(n, t)| (n.clone(), Arc::new(t.clone()))).collect();
        let mut states = States::new();
        let mut prepared = Names::new();
        let mut conditioned = Names::new();
        let mut output = RunOutput::default();
        if let Some(name) = &schedule.prepare {
            prepared = self.stage(name, &[], &mut states)?;
        }
        if let Some(name) = &schedule.condition {
            conditioned = match given {
                Some(given) => given.clone(),
                None => self.stage(name, &[&prepared, &inputs], &mut states)?,
            };
        }
        let mut carried = Names::new();
        if let Some(steps) = &schedule.steps {
            for name in &steps.carry {
                let first = [&conditioned, &prepared, &inputs].into_iter().find_map(|names| names.get(name));
                let first = first.ok_or_else(|| missing(name, "the loop carries it; its first value is an input"))?;
                carried.insert(name.clone(), first.clone());
            }
            let mut chunk = Names::new();
            for (k, &index) in run.steps.iter().enumerate() {
                let given = |name: &String, range| (name.clone(), rows(&run.tables[name], range));
                let mut row: Names = steps.tables.iter().map(|t| given(&t.name, k..k + 1)).collect();
                row.values_mut().for_each(|t| *t = one(t));
                if let Some(tabulate) = &steps.tabulate {
                    let at = k % tabulate.rows;
                    if at == 0 {
                        let params = self.function(&tabulate.function, None)?.params();
                        let read = steps.tables.iter().filter(|t| params.iter().any(|(name, _)| *name == t.name));
                        let read: Names = read.map(|t| given(&t.name, k..k + tabulate.rows)).collect();
                        chunk =
                            self.stage(&tabulate.function, &[&read, &conditioned, &prepared, &inputs], &mut states)?;
                    }
                    row.extend(chunk.iter().map(|(n, t)| (n.clone(), one(&rows(t, at..at + 1)))));
                }
                let bound = [&carried, &row, &conditioned, &prepared, &inputs];
                let results = self.stage(&steps.functions[index], &bound, &mut states)?;
                for name in &run.trace {
                    let value = results.get(name).ok_or_else(|| {
                        Diagnostic::new("I6", format!("@{} does not return `{name}`", steps.functions[index]))
                    })?;
                    output.trace.entry(name.clone()).or_default().push((**value).clone());
                }
                for (name, value) in &mut carried {
                    *value = results.get(name).cloned().ok_or_else(|| {
                        Diagnostic::new("I2", format!("@{} does not return `{name}`", steps.functions[index]))
                            .help("every step function returns what the loop carries")
                    })?;
                }
                progress(k);
            }
        }
        let mut outputs = carried.clone();
        match &schedule.decode {
            Some(name) => {
                outputs.extend(self.stage(name, &[&carried, &conditioned, &prepared, &inputs], &mut states)?);
            }
            None if schedule.steps.is_none() => outputs = conditioned.clone(),
            None => {}
        }
        output.outputs = outputs.into_iter().map(|(n, t)| (n, Arc::unwrap_or_clone(t))).collect();
        Ok((output, conditioned))
    }
    /// Steps name functions that exist, and tables have a row for each.
    fn check_steps(&self, steps: &StepLoop, run: &Run) -> Result<(), Diagnostic> {
        for (k, &index) in run.steps.iter().enumerate() {
            if index >= steps.functions.len() {
                return Err(Diagnostic::new("I5", format!("step {k} names a step function that is not there"))
                    .expected_found(format!("an index below {}", steps.functions.len()), index));
            }
        }
        for table in &steps.tables {
            let mut shape = vec![run.steps.len().into()];
            shape.extend(table.ty.shape.0.iter().cloned());
            let wanted = TensorType { dtype: table.ty.dtype, shape: Shape(shape) };
            let found = run.tables.get(&table.name).ok_or_else(|| {
                Diagnostic::new("I2", format!("table `{}` is missing", table.name)).expected_found(&wanted, "nothing")
            })?;
            self.check_input(&table.name, &wanted, found)?;
        }
        Ok(())
    }
    /// Calls a stage's function, each input bound to the first of `names` that has it; its outputs by name.
    fn stage(&self, function: &str, names: &[&Names], states: &mut States) -> Result<Names, Diagnostic> {
        let params = self.function(function, None)?.params();
        let bind = |(name, _): &(&str, _)| {
            let found = names.iter().find_map(|n| n.get(*name)).cloned();
            found.ok_or_else(|| missing(name, &format!("@{function} reads it")))
        };
        let args = params.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let results = self.call_shared(function, args, states)?;
        let output = |(target, value)| match target {
            Target::Output(name) => Some((name, value)),
            Target::State(_) => None,
        };
        Ok(results.into_iter().filter_map(output).collect())
    }
}

fn missing(name: &str, why: &str) -> Diagnostic {
    Diagnostic::new("I2", format!("input `{name}` is missing: {why}")).help(format!("give `{name}` with the run"))
}

/// Consecutive rows of a table whose type was checked; behind its end the last row again.
fn rows(table: &Tensor, range: std::ops::Range<usize>) -> Arc<Tensor> {
    let n = strides(&table.sizes())[0];
    let last = table.sizes()[0] - 1;
    fn pick<T: Copy>(v: &[T], n: usize, last: usize, range: std::ops::Range<usize>) -> Vec<T> {
        range.flat_map(|k| &v[k.min(last) * n..][..n]).copied().collect()
    }
    let mut shape = table.ty.shape.clone();
    shape.0[0] = range.len().into();
    let data = match &table.data {
        Data::F32(v) => Data::F32(pick(v, n, last, range)),
        Data::F64(v) => Data::F64(pick(v, n, last, range)),
        Data::I32(v) => Data::I32(pick(v, n, last, range)),
        Data::U32(v) => Data::U32(pick(v, n, last, range)),
        Data::Bool(v) => Data::Bool(pick(v, n, last, range)),
    };
    Arc::new(Tensor::new(TensorType { dtype: table.ty.dtype, shape }, data))
}

/// A table of one row as that row.
fn one(table: &Tensor) -> Arc<Tensor> {
    let row = TensorType { dtype: table.ty.dtype, shape: Shape(table.ty.shape.0[1..].to_vec()) };
    Arc::new(Tensor::new(row, table.data.clone()))
}
