//! `inline-calls`: functions without calls.

use crate::Pass;
use crate::rebuild::rebuild_with;
use selvedge_ir::{Diagnostic, Function, Module};
use std::collections::BTreeMap;

/// Replaces every call by the callee's body. The callees stay until `dead-code` removes them.
pub struct InlineCalls;

impl Pass for InlineCalls {
    fn name(&self) -> &'static str {
        "inline-calls"
    }
    fn summary(&self) -> &'static str {
        "replaces calls by the bodies of the functions they name"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        if module.functions.iter().all(|f| f.calls.is_empty()) {
            return Ok(module);
        }
        let mut done = BTreeMap::new();
        for function in &module.functions {
            inlined(&module, function, &mut done, &mut Vec::new())?;
        }
        for function in &mut module.functions {
            *function = done.remove(&function.name).expect("every function was done");
        }
        Ok(module)
    }
}

/// Puts a function without calls into `done`, callees first. `open` are the functions that wait for it.
fn inlined(
    module: &Module,
    function: &Function,
    done: &mut BTreeMap<String, Function>,
    open: &mut Vec<String>,
) -> Result<(), Diagnostic> {
    if done.contains_key(&function.name) {
        return Ok(());
    }
    if open.contains(&function.name) {
        return Err(Diagnostic::new("inline-calls", format!("@{} calls itself", function.name)));
    }
    open.push(function.name.clone());
    for call in &function.calls {
        let callee = module.function(&call.function).ok_or_else(|| {
            Diagnostic::new("inline-calls", format!("@{} calls @{}, which is not there", function.name, call.function))
        })?;
        inlined(module, callee, done, open)?;
    }
    open.pop();
    let bodies = &*done;
    let new = rebuild_with(
        function,
        |r, _, op, args| r.copy(op, args),
        &|ty| ty.clone(),
        |r, callee, args, _| Ok(r.to.inline(&bodies[callee], args)),
    )?;
    done.insert(function.name.clone(), new);
    Ok(())
}
