//! The reference interpreter: the meaning of a module.
//!
//! Errors: `I1` no such function, schedule or stage; `I2` a missing input or a wrong number of them; `I3` a tensor of
//! another type; `I4` symbols are left, or a value is too large for a host; `I5` a step's function index; `I6` a name that cannot be traced; `I7` calls
//! that never end.

use crate::diag::{Diagnostic, Place};
use crate::dtype::Class;
use crate::func::{Def, Function, Target, ValueId};
use crate::module::Module;
use crate::ops::Op;
use crate::shape::TensorType;
use crate::tensor::{Data, Tensor};
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

/// Values by name.
pub type Names = BTreeMap<String, Arc<Tensor>>;

/// Evaluates a module. Symbols must have been specialised, and the module verified.
pub struct Interpreter<'a> {
    pub(crate) module: &'a Module,
    weights: &'a dyn WeightSource,
    precision: Precision,
    kernels: &'a dyn HostKernels,
    observer: Option<Observer<'a>>,
}

/// Sees every value of a function when it is computed.
pub type Observer<'a> = &'a dyn Fn(&str, ValueId, &Tensor);

/// State variables by name.
pub(crate) type States = BTreeMap<String, Arc<Tensor>>;

impl<'a> Interpreter<'a> {
    /// An interpreter in f32 without acceleration.
    pub fn new(module: &'a Module, weights: &'a dyn WeightSource) -> Self {
        Interpreter { module, weights, precision: Precision::F32, kernels: &Reference, observer: None }
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
    /// Shows every value, with the name of its function, to `observer`: how ranges are measured.
    pub fn observed(mut self, observer: Observer<'a>) -> Self {
        self.observer = Some(observer);
        self
    }
    /// Calls a function with arguments in parameter order; returns what it returns, in order. `states` is read and
    /// written (absent states are zero).
    ///
    /// Every `state` read, also in functions that this one calls, gives the value from before the call; only what
    /// this function itself returns into a state is written.
    ///
    /// # Errors
    /// Codes I1 to I4 and I7, or what the weight source says.
    pub fn call(
        &self,
        function: &str,
        args: &[Tensor],
        states: &mut BTreeMap<String, Tensor>,
    ) -> Result<Vec<(Target, Tensor)>, Diagnostic> {
        let mut shared: States = states.iter().map(|(n, t)| (n.clone(), Arc::new(t.clone()))).collect();
        let args = args.iter().map(|a| Arc::new(a.clone())).collect();
        let results = self.call_shared(function, args, &mut shared)?;
        for (target, value) in &results {
            if let Target::State(name) = target {
                states.insert(name.clone(), (**value).clone());
            }
        }
        Ok(results.into_iter().map(|(target, t)| (target, Arc::unwrap_or_clone(t))).collect())
    }
    /// [`Interpreter::call`] without copies of tensors.
    pub(crate) fn call_shared(
        &self,
        name: &str,
        args: Vec<Arc<Tensor>>,
        states: &mut States,
    ) -> Result<Vec<(Target, Arc<Tensor>)>, Diagnostic> {
        let function = self.function(name, None)?;
        let params = function.params();
        if params.len() != args.len() {
            return Err(Diagnostic::new("I2", format!("@{name} takes another number of arguments"))
                .expected_found(params.len(), args.len()));
        }
        let mut checked = Vec::with_capacity(args.len());
        for ((param, id), arg) in params.into_iter().zip(args) {
            let value = function.value(id);
            self.check_input(param, &value.ty, &arg).map_err(|d| d.at(value.places.first().copied()))?;
            checked.push(self.in_precision(arg));
        }
        let results = self.evaluate(function, checked, states, 0)?;
        let targets = function.returns.iter().map(|r| r.target.clone());
        let results: Vec<(Target, Arc<Tensor>)> = targets.zip(results).collect();
        for (target, value) in &results {
            if let Target::State(name) = target {
                states.insert(name.clone(), value.clone());
            }
        }
        Ok(results)
    }
    pub(crate) fn function(&self, name: &str, place: Option<Place>) -> Result<&'a Function, Diagnostic> {
        self.module.function(name).ok_or_else(|| {
            let known: Vec<String> = self.module.functions.iter().map(|f| format!("@{}", f.name)).collect();
            Diagnostic::new("I1", format!("there is no function @{name}"))
                .expected_found(format!("one of {}", known.join(", ")), format!("@{name}"))
                .at(place)
        })
    }
    /// The tensor has the declared type, and its elements are held as its dtype says.
    pub(crate) fn check_input(&self, name: &str, ty: &TensorType, tensor: &Tensor) -> Result<(), Diagnostic> {
        if ty.shape.get().is_none() {
            return Err(Diagnostic::new("I4", format!("`{name}` is {ty}"))
                .help("specialise the module's symbols before running it"));
        }
        if *ty != tensor.ty || !holds(tensor) {
            return Err(Diagnostic::new("I3", format!("`{name}` has another type")).expected_found(ty, &tensor.ty));
        }
        Ok(())
    }
    fn in_precision(&self, tensor: Arc<Tensor>) -> Arc<Tensor> {
        match (&tensor.data, self.precision) {
            (Data::F32(_), Precision::F64) | (Data::F64(_), Precision::F32) => {
                Arc::new(Arc::unwrap_or_clone(tensor).in_precision(self.precision))
            }
            _ => tensor,
        }
    }
    /// The returned values; arguments have been checked.
    fn evaluate(
        &self,
        function: &Function,
        args: Vec<Arc<Tensor>>,
        states: &States,
        depth: usize,
    ) -> Result<Vec<Arc<Tensor>>, Diagnostic> {
        let mut args = args.into_iter();
        let observe = |id: ValueId, tensor: &Tensor| {
            if let Some(observer) = self.observer {
                observer(&function.name, id, tensor);
            }
        };
        run_values(function, observe, |place, step| match step {
            Step::Op(Op::Input(_), _, _) => Ok(vec![args.next().expect("one argument for each parameter")]),
            Step::Op(Op::Weight(weight), _, ty) => {
                let tensor = self.weights.weight(&weight.name, ty).map_err(|d| d.at(place))?;
                self.check_input(&weight.name, ty, &tensor).map_err(|d| d.at(place))?;
                Ok(vec![self.in_precision(tensor)])
            }
            Step::Op(Op::State(state), _, ty) => match states.get(&state.name) {
                Some(tensor) => {
                    self.check_input(&state.name, ty, tensor).map_err(|d| d.at(place))?;
                    Ok(vec![self.in_precision(tensor.clone())])
                }
                None => Ok(vec![Arc::new(Tensor::zeros(ty, self.precision))]),
            },
            Step::Op(op, operands, ty) => {
                Ok(vec![Arc::new(evaluate_op(op, operands, ty, self.precision, self.kernels))])
            }
            Step::Call(name, operands) => {
                if depth > self.module.functions.len() {
                    return Err(Diagnostic::new("I7", format!("@{name} calls itself")).at(place));
                }
                let callee = self.function(name, place)?;
                let params = callee.params();
                if params.len() != operands.len() {
                    return Err(Diagnostic::new("I2", format!("@{name} takes another number of arguments"))
                        .expected_found(params.len(), operands.len())
                        .at(place));
                }
                for ((param, id), operand) in params.iter().zip(operands) {
                    self.check_input(param, callee.ty(*id), operand).map_err(|d| d.at(place))?;
                }
                self.evaluate(callee, operands.to_vec(), states, depth + 1)
            }
        })
    }
}

/// Elements of one value at most: what is above is a mistake, said before memory runs out.
const LARGEST: usize = 1 << 34;

/// One statement of a function, with its operands' values.
enum Step<'s> {
    Op(&'s Op, &'s [Arc<Tensor>], &'s TensorType),
    Call(&'s str, &'s [Arc<Tensor>]),
}

/// Goes through a function's statements in order and gives its returned values; a value is dropped after its last use.
fn run_values(
    function: &Function,
    observe: impl Fn(ValueId, &Tensor),
    mut step: impl FnMut(Option<Place>, Step) -> Result<Vec<Arc<Tensor>>, Diagnostic>,
) -> Result<Vec<Arc<Tensor>>, Diagnostic> {
    let mut reads_left = function.use_counts();
    let mut values: Vec<Option<Arc<Tensor>>> = vec![None; function.values.len()];
    let mut called: Vec<Vec<Option<Arc<Tensor>>>> = vec![Vec::new(); function.calls.len()];
    for id in function.ids() {
        let value = function.value(id);
        let place = value.places.first().copied();
        if value.ty.shape.get().is_none() {
            return Err(Diagnostic::new("I4", format!("a value of @{} is {}", function.name, value.ty))
                .at(place)
                .help("specialise the module's symbols before running it"));
        }
        if value.ty.elements().is_none_or(|n| n > LARGEST) {
            return Err(Diagnostic::new("I4", format!("a value of @{} is {}", function.name, value.ty))
                .expected_found(format!("at most {LARGEST} elements"), value.ty.shape.elements())
                .at(place));
        }
        let operands = |values: &[Option<Arc<Tensor>>], ids: &[ValueId]| -> Vec<Arc<Tensor>> {
            ids.iter()
                .map(|a| values[a.0 as usize].clone().expect("verified: defined before, and not yet dropped"))
                .collect()
        };
        let mut release = |values: &mut [Option<Arc<Tensor>>], ids: &[ValueId]| {
            for a in ids {
                reads_left[a.0 as usize] -= 1;
                if reads_left[a.0 as usize] == 0 {
                    values[a.0 as usize] = None;
                }
            }
        };
        let result = match &value.def {
            Def::Op { op, args } => {
                let operands = operands(&values, args);
                let mut results = step(place, Step::Op(op, &operands, &value.ty))?;
                release(&mut values, args);
                results.pop()
            }
            Def::Result { call, index } => {
                let slot = call.0 as usize;
                if called[slot].is_empty() {
                    let call = &function.calls[slot];
                    let operands = operands(&values, &call.args);
                    called[slot] = step(place, Step::Call(&call.function, &operands))?.into_iter().map(Some).collect();
                    release(&mut values, &call.args);
                }
                called[slot].get_mut(*index as usize).and_then(Option::take)
            }
        };
        if result.as_ref().is_none_or(|t| t.ty != value.ty) {
            return Err(Diagnostic::new("I3", format!("a value of @{} is not what is declared", function.name))
                .expected_found(&value.ty, result.map_or("nothing".to_string(), |t| t.ty.to_string()))
                .at(place));
        }
        if let Some(tensor) = &result {
            observe(id, tensor);
        }
        if reads_left[id.0 as usize] > 0 {
            values[id.0 as usize] = result;
        }
    }
    let returned = function.returns.iter().map(|r| values[r.value.0 as usize].clone());
    Ok(returned.map(|v| v.expect("returned values are kept")).collect())
}

fn evaluate_op(
    op: &Op,
    operands: &[Arc<Tensor>],
    ty: &TensorType,
    precision: Precision,
    kernels: &dyn HostKernels,
) -> Tensor {
    let operands: Vec<&Tensor> = operands.iter().map(|t| &**t).collect();
    if precision == Precision::F32
        && let Some(tensor) = kernels.eval(op, &operands, ty)
    {
        return tensor;
    }
    let types: Vec<&TensorType> = operands.iter().map(|t| &t.ty).collect();
    match op.expansion(&types) {
        Some(function) => {
            let function = function.expect("the operands' types were inferred from");
            evaluate_pure(&function, &operands, precision, kernels)
        }
        None => op.eval(&operands, ty, precision),
    }
}

/// Evaluates a function of one result that reads nothing but its parameters and calls nothing.
pub(crate) fn evaluate_pure(
    function: &Function,
    args: &[&Tensor],
    precision: Precision,
    kernels: &dyn HostKernels,
) -> Tensor {
    let mut args = args.iter();
    let results = run_values(
        function,
        |_, _| {},
        |_, step| match step {
            Step::Op(Op::Input(_), _, _) => {
                let arg: &Tensor = args.next().expect("one argument for each parameter");
                Ok(vec![Arc::new(arg.clone())])
            }
            Step::Op(op, operands, ty) => Ok(vec![Arc::new(evaluate_op(op, operands, ty, precision, kernels))]),
            Step::Call(name, _) => Err(Diagnostic::new("I1", format!("@{name} is called where nothing may be"))),
        },
    );
    let mut results = results.expect("an expansion is well-typed, without calls and symbols");
    Arc::unwrap_or_clone(results.remove(0))
}

/// The elements are of the dtype's kind.
fn holds(tensor: &Tensor) -> bool {
    match (tensor.ty.dtype.class(), &tensor.data) {
        (Class::Float, Data::F32(_) | Data::F64(_)) => true,
        (Class::Signed, Data::I32(_)) | (Class::Unsigned, Data::U32(_)) | (Class::Bool, Data::Bool(_)) => true,
        (Class::Float | Class::Signed | Class::Unsigned | Class::Bool, _) => false,
    }
}
