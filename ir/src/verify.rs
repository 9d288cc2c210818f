//! The verifier. What holds for every module between passes:
//!
//! Names
//! - V1 function names are unique.
//! - V2 weight names are unique, and so are state names; a state has a plain dtype.
//! - V3 parameter names are unique in their function, parameters come before all other values, with plain dtypes (a function
//!   that others call may take packed weights).
//! - V4 output names are unique in their function, and a state is returned at most once.
//!
//! Values
//! - V5 operands, arguments and returned values exist, and are defined before they are used.
//! - V6 a value's type is the one its operator infers; no extent is a negative number.
//!   (An operator's own constraint is reported by its number, such as `reduce C1`.)
//! - V7 a weight that is read is declared, with the same type.
//! - V8 a state that is read or returned is declared, with the same type.
//!
//! Calls
//! - V9 the function that is called exists.
//! - V10 arguments have the parameters' number and types.
//! - V11 results are consecutive values, at least one: those the callee returns, in order, with their types; calls are
//!   numbered in the order of their results.
//! - V12 no function calls itself, directly or through others.
//! - V13 a function that is called writes no state: that is left to the functions of the schedule.
//!
//! Schedule
//! - V14 its functions exist; there is at least one step function if there are steps.
//! - V15 carried names are distinct, and inputs and outputs of every step function, of one type.
//! - V16 table names are distinct and not carried, and inputs of a step function or of `tabulate`; those inputs of steps have
//!   the row's type.
//! - V17 `prepare` has no inputs.
//! - V18 an input that is bound to an earlier value has its type, and inputs of the run with one name have one type.
//! - V19 traced names are carried, or outputs of every step function.
//! - V20 `tabulate` computes at least one row at once, reads a table and no carried value, and neither reads nor writes a state.
//! - V21 an input of `tabulate` that is a table has the type of so many rows of it; an output has a leading axis of so many
//!   rows, is neither carried nor a table, and is an input of a step function with the type of one row.
//!
//! Origins are not checked.

mod schedule;

use crate::diag::{Diagnostic, Diagnostics, Place};
use crate::dtype::DType;
use crate::func::{CallId, Def, Function, Target, ValueId};
use crate::module::Module;
use crate::ops::Op;
use crate::shape::TensorType;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// Checks every invariant.
///
/// # Errors
/// All violations, function by function.
pub fn verify(module: &Module) -> Result<(), Diagnostics> {
    let mut check = Check { module, errors: Vec::new() };
    check.declarations();
    for function in &module.functions {
        check.function(function);
    }
    check.recursion();
    check.schedule();
    if check.errors.is_empty() { Ok(()) } else { Err(Diagnostics(check.errors)) }
}

struct Check<'a> {
    module: &'a Module,
    errors: Vec<Diagnostic>,
}

impl<'a> Check<'a> {
    fn report(&mut self, code: &str, place: Option<Place>, message: impl Display) -> &mut Diagnostic {
        self.errors.push(Diagnostic::new(code, message.to_string()).at(place));
        self.errors.last_mut().expect("one was pushed")
    }
    fn mismatch(
        &mut self,
        code: &str,
        place: Option<Place>,
        message: impl Display,
        expected: impl Display,
        found: impl Display,
    ) {
        let d = self.report(code, place, message);
        d.expected = Some(expected.to_string());
        d.found = Some(found.to_string());
    }

    /// V1, V2.
    fn declarations(&mut self) {
        let module = self.module;
        for name in repeated(module.functions.iter().map(|f| f.name.as_str())) {
            self.report("V1", None, format!("two functions are named `{name}`"));
        }
        for name in repeated(module.weights.iter().map(|w| w.name.as_str())) {
            self.report("V2", None, format!("two weights are named `{name}`"));
        }
        for name in repeated(module.states.iter().map(|s| s.name.as_str())) {
            self.report("V2", None, format!("two states are named `{name}`"));
        }
        for state in module.states.iter().filter(|s| !is_plain(s.ty.dtype)) {
            self.report("V2", None, format!("state `{}` is packed; only weights are", state.name));
        }
        let declared = module.weights.iter().map(|w| (&w.name, &w.ty));
        for (name, ty) in declared.chain(module.states.iter().map(|s| (&s.name, &s.ty))) {
            self.extents(ty, None, name);
        }
    }

    fn function(&mut self, function: &'a Function) {
        self.parameters(function);
        for id in function.ids() {
            self.value(function, id);
        }
        self.calls(function);
        self.returns(function);
    }

    /// V3.
    fn parameters(&mut self, function: &'a Function) {
        let called = self.module.functions.iter().flat_map(|f| &f.calls).any(|c| c.function == function.name);
        for name in repeated(function.params().iter().map(|(name, _)| *name)) {
            self.report("V3", None, format!("two parameters of `{}` are named `{name}`", function.name));
        }
        let count = function.params().len() as u32;
        for (name, id) in function.params() {
            let place = place(function, id);
            if id.0 >= count {
                let message = format!("parameter `{name}` of `{}` comes after other values", function.name);
                self.report("V3", place, message).help = Some("declare inputs before everything else".to_string());
            }
            if !is_plain(function.ty(id).dtype) && !called {
                self.report("V3", place, format!("parameter `{name}` is packed; only weights are"));
            }
        }
    }

    /// V5 to V8 for one value.
    fn value(&mut self, function: &'a Function, id: ValueId) {
        let value = function.value(id);
        let at = place(function, id);
        self.extents(&value.ty, at, &function.name);
        let Def::Op { op, args } = &value.def else { return };
        if !self.earlier(function, args, id, at, op.kind().text()) {
            return;
        }
        let types: Vec<&TensorType> = args.iter().map(|a| function.ty(*a)).collect();
        match op.infer(&types) {
            Err(error) => self.errors.push(error.diagnostic(op.kind().text()).at(at)),
            Ok(ty) if ty != value.ty => {
                self.mismatch(
                    "V6",
                    at,
                    format!("`{}` has another type than inferred", op.kind().text()),
                    ty,
                    &value.ty,
                );
            }
            Ok(_) => {}
        }
        if let Op::Weight(weight) = op {
            match self.module.weights.iter().find(|w| w.name == weight.name) {
                None => {
                    self.report("V7", at, format!("weight `{}` is not declared", weight.name));
                }
                Some(w) if w.ty != weight.ty => {
                    self.mismatch("V7", at, format!("weight `{}` has another type", w.name), &w.ty, &weight.ty);
                }
                Some(_) => {}
            }
        }
        if let Op::State(state) = op {
            self.state(&state.name, &state.ty, at);
        }
    }

    /// V5: true if all are defined before `user`.
    fn earlier(&mut self, function: &Function, args: &[ValueId], user: ValueId, at: Option<Place>, what: &str) -> bool {
        let late: Vec<&ValueId> = args.iter().filter(|a| a.0 >= user.0).collect();
        if !late.is_empty() {
            let ids: Vec<String> = late.iter().map(|a| a.0.to_string()).collect();
            let message = format!(
                "`{what}`, value {} of `{}`, reads what is not defined before it: {}",
                user.0,
                function.name,
                ids.join(", ")
            );
            self.report("V5", at, message);
        }
        late.is_empty()
    }

    /// V8.
    fn state(&mut self, name: &str, ty: &TensorType, at: Option<Place>) {
        match self.module.states.iter().find(|s| s.name == name) {
            None => {
                self.report("V8", at, format!("state `{name}` is not declared"));
            }
            Some(s) if s.ty != *ty => self.mismatch("V8", at, format!("state `{name}` has another type"), &s.ty, ty),
            Some(_) => {}
        }
    }

    /// V6, second half.
    fn extents(&mut self, ty: &TensorType, at: Option<Place>, of: &str) {
        let negative = |d: &crate::dim::Dim| d.symbols().is_empty() && d.get().is_none();
        if ty.shape.0.iter().any(negative) {
            self.report("V6", at, format!("a negative extent in {ty}, of `{of}`"));
        }
    }

    /// V5 and V9 to V11, V13.
    fn calls(&mut self, function: &'a Function) {
        let mut next = 0; // the call whose results come next
        let mut seen = vec![0u32; function.calls.len()];
        for id in function.ids() {
            let Def::Result { call, index } = function.value(id).def else { continue };
            let at = place(function, id);
            let known = seen.get(call.0 as usize).copied();
            let continues =
                id.0 > 0 && matches!(function.values[id.0 as usize - 1].def, Def::Result { call: c, .. } if c == call);
            let first = known == Some(0) && call.0 == next;
            if !(known == Some(index) && (if index == 0 { first } else { continues })) {
                self.report(
                    "V11",
                    at,
                    format!("result {index} of call {} of `{}` is out of order", call.0, function.name),
                );
                return;
            }
            if index == 0 {
                next += 1;
                self.call(function, call, id);
            }
            seen[call.0 as usize] += 1;
        }
        if let Some(empty) = seen.iter().position(|n| *n == 0) {
            self.report("V11", None, format!("call {empty} of `{}` has no results", function.name));
        }
    }

    /// One call, whose results begin at `first`.
    fn call(&mut self, function: &'a Function, id: CallId, first: ValueId) {
        let call = &function.calls[id.0 as usize];
        let at = place(function, first);
        let name = &call.function;
        let arguments_exist = self.earlier(function, &call.args, first, at, "call");
        let Some(callee) = self.module.function(name) else {
            self.report("V9", at, format!("function `{name}` does not exist"));
            return;
        };
        let types = |types: Vec<&TensorType>| {
            format!("({})", types.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(", "))
        };
        let params: Vec<&TensorType> = callee.params().iter().map(|(_, p)| callee.ty(*p)).collect();
        if arguments_exist {
            let args: Vec<&TensorType> = call.args.iter().map(|a| function.ty(*a)).collect();
            if args != params {
                self.mismatch("V10", at, format!("wrong arguments of `{name}`"), types(params), types(args));
            }
        }
        let returned: Vec<Option<&TensorType>> =
            callee.returns.iter().map(|r| callee.values.get(r.value.0 as usize).map(|v| &v.ty)).collect();
        if let Some(returned) = returned.into_iter().collect::<Option<Vec<_>>>() {
            let is_result = |v: &&crate::func::Value| matches!(v.def, Def::Result { call, .. } if call == id);
            let results: Vec<&TensorType> =
                function.values[first.0 as usize..].iter().take_while(is_result).map(|v| &v.ty).collect();
            if results != returned {
                self.mismatch("V11", at, format!("wrong results of `{name}`"), types(returned), types(results));
            }
        }
        for returned in &callee.returns {
            if let Target::State(state) = &returned.target {
                self.report("V13", at, format!("`{name}` is called and writes state `{state}`"));
            }
        }
    }

    /// V4, V5, V8.
    fn returns(&mut self, function: &'a Function) {
        let name = &function.name;
        for output in repeated(function.outputs().iter().map(|(name, _)| *name)) {
            self.report("V4", None, format!("`{name}` returns `{output}` twice"));
        }
        let states = function.returns.iter().filter_map(|r| match &r.target {
            Target::State(state) => Some(state.as_str()),
            Target::Output(_) => None,
        });
        for state in repeated(states) {
            self.report("V4", None, format!("`{name}` returns state `{state}` twice"));
        }
        for returned in &function.returns {
            let Some(value) = function.values.get(returned.value.0 as usize) else {
                self.report("V5", None, format!("`{name}` returns value {}, which does not exist", returned.value.0));
                continue;
            };
            if let Target::State(state) = &returned.target {
                self.state(state, &value.ty, place(function, returned.value));
            }
        }
    }

    /// V12: reports each function that reaches itself.
    fn recursion(&mut self) {
        let calls: BTreeMap<&str, Vec<&str>> = self
            .module
            .functions
            .iter()
            .map(|f| (f.name.as_str(), f.calls.iter().map(|c| c.function.as_str()).collect()))
            .collect();
        for function in &self.module.functions {
            let mut reached: BTreeSet<&str> = BTreeSet::new();
            let mut open: Vec<&str> = calls[function.name.as_str()].clone();
            while let Some(name) = open.pop() {
                if reached.insert(name) {
                    open.extend(calls.get(name).into_iter().flatten());
                }
            }
            if reached.contains(function.name.as_str()) {
                self.report("V12", None, format!("`{}` calls itself", function.name));
            }
        }
    }
}

/// Names that occur more than once, each once.
fn repeated<'n>(names: impl Iterator<Item = &'n str>) -> BTreeSet<&'n str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

fn is_plain(dtype: DType) -> bool {
    !matches!(dtype, DType::Packed(_))
}

fn place(function: &Function, id: ValueId) -> Option<Place> {
    function.value(id).places.first().copied()
}
