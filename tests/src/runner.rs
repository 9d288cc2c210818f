//! What can run a function: the interpreter, and the devices that are compared with it.

use crate::gpu::Gpu;
use selvedge_ir::interp::Precision;
use selvedge_ir::{Interpreter, Module, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a function is given besides the module.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// One tensor for each parameter, in order.
    pub inputs: Vec<Tensor>,
    /// Weights by name.
    pub weights: BTreeMap<String, Arc<Tensor>>,
    /// State variables by name, before the call.
    pub states: BTreeMap<String, Tensor>,
}

/// Something that runs functions.
pub trait Runner {
    /// The name in `//! run`.
    fn name(&self) -> &'static str;
    /// Why this runner cannot run a function, or `None`. Every reason is a known limit that is written down here.
    fn exception(&self, module: &Module, function: &str) -> Option<String>;
    /// Runs one function; the results are its returned values, in order.
    ///
    /// # Errors
    /// What went wrong, for people.
    fn run(&self, module: &Module, function: &str, arguments: &Arguments) -> Result<Vec<Tensor>, String>;
}

/// The reference interpreter in one precision.
pub struct Interp(pub Precision);

impl Runner for Interp {
    fn name(&self) -> &'static str {
        "interp"
    }
    fn exception(&self, _: &Module, _: &str) -> Option<String> {
        None
    }
    fn run(&self, module: &Module, function: &str, arguments: &Arguments) -> Result<Vec<Tensor>, String> {
        let inputs: Vec<Tensor> = arguments.inputs.iter().map(|t| t.clone().in_precision(self.0)).collect();
        let mut states = arguments.states.clone();
        states.values_mut().for_each(|t| *t = t.clone().in_precision(self.0));
        let interpreter = Interpreter::new(module, &arguments.weights).precision(self.0);
        let results = interpreter.call(function, &inputs, &mut states).map_err(|d| d.to_string())?;
        Ok(results.into_iter().map(|(_, tensor)| tensor).collect())
    }
}

/// A runner by its name in `//! run`; `None` if there is none of that name, or no adapter for `gpu`.
pub fn find(name: &str) -> Option<Box<dyn Runner>> {
    match name {
        "interp" => Some(Box::new(Interp(Precision::F32))),
        "gpu" => Gpu::new().map(|gpu| Box::new(gpu) as Box<dyn Runner>),
        _ => None,
    }
}
