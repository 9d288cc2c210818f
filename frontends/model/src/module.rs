//! Several functions as a module.

use crate::graph::{Callee, Graph, StoredDType};
use selvedge_ir::module::{Schedule, StateDecl};
use selvedge_ir::{DType, Diagnostic, Diagnostics, Module, Place, TensorType};
use std::rc::Rc;

/// Builds a module from functions; all mistakes are reported together by [`ModuleBuilder::build`].
pub struct ModuleBuilder {
    module: Module,
    diagnostics: Vec<Diagnostic>,
    stored: StoredDType,
}

impl ModuleBuilder {
    /// An empty module whose weights are stored in f32.
    pub fn new(name: impl Into<String>) -> ModuleBuilder {
        ModuleBuilder { module: Module::new(name), diagnostics: Vec::new(), stored: Rc::new(|_| None) }
    }
    /// Says in which dtype the checkpoint stores each weight (`None`: f32). Call it before the functions.
    pub fn stored_as(mut self, stored: impl Fn(&str) -> Option<DType> + 'static) -> ModuleBuilder {
        self.stored = Rc::new(stored);
        self
    }
    /// Declares a state variable.
    pub fn state(&mut self, name: &str, ty: TensorType) -> &mut ModuleBuilder {
        self.module.states.push(StateDecl { name: name.to_string(), ty });
        self
    }
    /// Says which function runs when.
    pub fn schedule(&mut self, schedule: Schedule) -> &mut ModuleBuilder {
        self.module.schedule = schedule;
        self
    }
    /// Adds a function; the closure adds inputs, values and outputs to the graph it is given.
    #[track_caller]
    pub fn function(&mut self, name: &str, define: impl FnOnce(&Graph)) -> Callee {
        let graph = Graph::with_stored(name, self.stored.clone());
        define(&graph);
        let mut callee = Callee { name: name.to_string(), params: Vec::new(), results: Vec::new(), poisoned: false };
        callee.params = graph.with_builder(|b| {
            let f = b.function();
            f.params().into_iter().map(|(_, id)| f.ty(id).clone()).collect()
        });
        callee.results = graph.with_builder(|b| {
            let f = b.function();
            f.returns.iter().map(|r| f.ty(r.value).clone()).collect()
        });
        match graph.finish() {
            Ok(function) => {
                if let Err(message) = self.module.add_function(function) {
                    callee.poisoned = true;
                    self.diagnostics.push(Diagnostic::new("M8", message).at(Some(Place::caller())));
                }
            }
            Err(Diagnostics(all)) => {
                callee.poisoned = true;
                self.diagnostics.extend(all);
            }
        }
        callee
    }
    /// The module, or everything that went wrong in any function.
    ///
    /// # Errors
    /// All recorded mistakes, in order.
    pub fn build(self) -> Result<Module, Diagnostics> {
        if self.diagnostics.is_empty() { Ok(self.module) } else { Err(Diagnostics(self.diagnostics)) }
    }
}
