//! The reference interpreter: the meaning of a module.

use crate::diag::Diagnostic;
use crate::func::Target;
use crate::module::Module;
use crate::ops::Op;
use crate::shape::TensorType;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Arithmetic of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// f32, each node rounded to its dtype: what a device computes, up to the order of sums.
    #[default]
    F32,
    /// f64 without rounding to narrower dtypes: the reference for tolerances.
    F64,
}

/// Where weights come from.
pub trait WeightSource {
    /// The tensor of a name, with the declared type; an error says what is wrong with the checkpoint.
    fn weight(&self, name: &str, ty: &TensorType) -> Result<Arc<Tensor>, Diagnostic>;
}

/// Weights held in memory.
impl WeightSource for BTreeMap<String, Arc<Tensor>> {
    fn weight(&self, name: &str, ty: &TensorType) -> Result<Arc<Tensor>, Diagnostic> {
        match self.get(name) {
            Some(t) if t.ty == *ty => Ok(t.clone()),
            Some(t) => {
                Err(Diagnostic::new("W1", format!("weight `{name}` has another type")).expected_found(ty, &t.ty))
            }
            None => Err(Diagnostic::new("W2", format!("weight `{name}` is not there"))),
        }
    }
}

/// Faster evaluation of some operators; the host device supplies one.
pub trait HostKernels {
    /// The operator's value, or `None` to use the reference.
    fn eval(&self, op: &Op, args: &[&Tensor], out: &TensorType) -> Option<Tensor>;
}

/// No acceleration.
pub struct Reference;
impl HostKernels for Reference {
    fn eval(&self, _: &Op, _: &[&Tensor], _: &TensorType) -> Option<Tensor> {
        None
    }
}

/// What a scheduled run is given.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Inputs of the run, by name (first values of carried inputs among them).
    pub inputs: BTreeMap<String, Tensor>,
    /// For each step, the index into the schedule's step functions.
    pub steps: Vec<usize>,
    /// Tables by name: the declared row type with a leading axis of the number of steps.
    pub tables: BTreeMap<String, Tensor>,
    /// Names of step outputs to record at each step (carried ones may be asked for, too).
    pub trace: Vec<String>,
}

/// What a scheduled run gives.
#[derive(Clone, Debug, Default)]
pub struct RunOutput {
    /// Final carried values, and the outputs of `decode` if there is one.
    pub outputs: BTreeMap<String, Tensor>,
    /// For each traced name, its value after each step.
    pub trace: BTreeMap<String, Vec<Tensor>>,
}

/// Evaluates a module. Symbols must have been specialised, and the module verified.
pub struct Interpreter<'a> {
    module: &'a Module,
    weights: &'a dyn WeightSource,
    precision: Precision,
    kernels: &'a dyn HostKernels,
}

impl<'a> Interpreter<'a> {
    /// An interpreter in f32 without acceleration.
    pub fn new(module: &'a Module, weights: &'a dyn WeightSource) -> Self {
        Interpreter { module, weights, precision: Precision::F32, kernels: &Reference }
    }
    /// Chooses the arithmetic.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }
    /// Uses faster kernels where they apply (f32 only).
    pub fn kernels(mut self, kernels: &'a dyn HostKernels) -> Self {
        self.kernels = kernels;
        self
    }
    /// Calls a function with arguments in parameter order; returns what it returns, in order. `states` is read and
    /// written (absent states are zero).
    pub fn call(
        &self,
        function: &str,
        args: &[Tensor],
        states: &mut BTreeMap<String, Tensor>,
    ) -> Result<Vec<(Target, Tensor)>, Diagnostic> {
        let _ = (self.module, self.weights, self.precision, self.kernels, function, args, states);
        todo!()
    }
    /// Runs the schedule; `progress(k)` is called after step k.
    pub fn run(&self, run: &Run, progress: &mut dyn FnMut(usize)) -> Result<RunOutput, Diagnostic> {
        let _ = (run, progress);
        todo!()
    }
}

/// Evaluates a function that reads nothing but its parameters and calls nothing.
pub(crate) fn evaluate_pure(
    function: &crate::func::Function,
    args: &[&Tensor],
    precision: Precision,
    kernels: &dyn HostKernels,
) -> Tensor {
    let _ = (function, args, precision, kernels);
    todo!()
}
