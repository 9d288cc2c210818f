//! Modules: functions, weights, state and the schedule of a sampling program.

use crate::func::Function;
use crate::shape::TensorType;
use std::fmt;

/// A weight: a tensor of the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightDecl {
    /// The tensor's name in the checkpoint.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
}

/// A state variable: a buffer that outlives a call. It is zero before it is first written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StateDecl {
    /// Name.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
}

/// A per-step input: one row of a table that the host fills before the run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableDecl {
    /// Name of the step functions' input that receives the row.
    pub name: String,
    /// Type of one row.
    pub ty: TensorType,
}

/// Tables that the device computes: a function of consecutive rows of the tables that are given.
///
/// Before step k, for k = 0, C, 2C …, the function gets rows k to k + C − 1 of every table that it has as an input, with type
/// [C, row…]; the last chunk is padded by repeating the last row. Each of its outputs [C, row…] is a table of its own: step
/// k reads row k mod C. It sees no carried value and no state, so rows never depend on what steps compute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tabulate {
    /// The function.
    pub function: String,
    /// Rows computed at once, C.
    pub rows: usize,
}

/// The loop of a sampling program: `for k in steps { carry = step_i(carry, tables[k], …) }`.
///
/// Which function runs at step k, the number of steps and the tables are run-time data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct StepLoop {
    /// Functions a step may be; the run gives an index for each step. All have the carried inputs and outputs.
    pub functions: Vec<String>,
    /// Names that are both input and output of every step function; the first value comes from the run (or an earlier stage).
    pub carry: Vec<String>,
    /// Per-step inputs.
    pub tables: Vec<TableDecl>,
    /// Per-step inputs that are computed from them.
    pub tabulate: Option<Tabulate>,
}

/// When each function runs. An input of a function is bound by name to, in this order: a carried value, a table's
/// row, a row that `tabulate` gave, an output of an earlier stage (`condition`, then `prepare`; for `decode` also the carried
/// values), an input of the run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Schedule {
    /// At load; reads weights only.
    pub prepare: Option<String>,
    /// Once a run.
    pub condition: Option<String>,
    /// The loop.
    pub steps: Option<StepLoop>,
    /// After the loop.
    pub decode: Option<String>,
    /// Outputs of the step functions (besides the carried ones) that a run may ask for at each step.
    pub trace: Vec<String>,
}

impl Schedule {
    /// True if nothing is scheduled: the module is a library of functions.
    pub fn is_empty(&self) -> bool {
        *self == Schedule::default()
    }
}

/// A program: functions, weights, state and schedule.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Module {
    /// Name.
    pub name: String,
    /// Weights, in declaration order.
    pub weights: Vec<WeightDecl>,
    /// State variables.
    pub states: Vec<StateDecl>,
    /// Functions; callees may come in any order.
    pub functions: Vec<Function>,
    /// When they run.
    pub schedule: Schedule,
}

impl Module {
    /// An empty module.
    pub fn new(name: impl Into<String>) -> Module {
        Module { name: name.into(), ..Module::default() }
    }
    /// Finds a function.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.name == name)
    }
    /// Declares a weight, once.
    ///
    /// # Errors
    /// It is declared already with another type.
    pub fn declare_weight(&mut self, name: &str, ty: &TensorType) -> Result<(), String> {
        match self.weights.iter().find(|w| w.name == name) {
            Some(w) if w.ty != *ty => Err(format!("weight `{name}` is declared as {} and used as {ty}", w.ty)),
            Some(_) => Ok(()),
            None => {
                self.weights.push(WeightDecl { name: name.to_string(), ty: ty.clone() });
                Ok(())
            }
        }
    }
    /// Adds a function and declares the weights it reads.
    ///
    /// # Errors
    /// A name that is taken, or a weight declared with another type.
    pub fn add_function(&mut self, function: Function) -> Result<(), String> {
        if self.function(&function.name).is_some() {
            return Err(format!("function `{}` exists already", function.name));
        }
        for id in function.ids() {
            if let Some((crate::ops::Op::Weight(w), _)) = function.op(id) {
                let (name, ty) = (w.name.clone(), w.ty.clone());
                self.declare_weight(&name, &ty)?;
            }
        }
        self.functions.push(function);
        Ok(())
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::print::print(self))
    }
}
