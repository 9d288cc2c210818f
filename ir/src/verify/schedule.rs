//! Invariants of the schedule, V14 to V21.

use super::{Check, place, repeated};
use crate::func::Function;
use crate::module::{StepLoop, Tabulate};
use crate::ops::Op;
use crate::shape::{Shape, TensorType};
use std::collections::BTreeMap;

/// Values by name that inputs may be bound to, with the stage that gives them.
type Bound<'a> = BTreeMap<&'a str, (&'a TensorType, &'static str)>;

impl<'a> Check<'a> {
    /// V14 to V21.
    pub(super) fn schedule(&mut self) {
        let schedule = &self.module.schedule;
        let prepare = self.scheduled(schedule.prepare.as_ref());
        let condition = self.scheduled(schedule.condition.as_ref());
        let decode = self.scheduled(schedule.decode.as_ref());
        let mut steps: Vec<&'a Function> = Vec::new();
        for name in schedule.steps.iter().flat_map(|s| &s.functions) {
            steps.extend(self.scheduled(Some(name)));
        }
        if schedule.steps.as_ref().is_some_and(|s| s.functions.is_empty()) {
            self.report("V14", None, "there are steps, but no step function");
        }
        if let Some(f) = prepare.filter(|f| !f.params().is_empty()) {
            self.report("V17", None, format!("`{}` prepares, and has inputs", f.name));
        }

        // In the order of binding: a later insertion wins over an earlier one.
        let mut run: BTreeMap<&'a str, &'a TensorType> = BTreeMap::new();
        let mut earlier = Bound::new();
        outputs(&mut earlier, prepare, "prepare");
        self.bind(condition, &earlier, &mut run);
        outputs(&mut earlier, condition, "condition");
        let mut in_step = earlier.clone();
        let mut carried = Bound::new();
        if let Some(decl) = &schedule.steps {
            carried = self.carry(decl, &steps);
            let tabulate = decl.tabulate.as_ref().and_then(|t| Some((t, self.scheduled(Some(&t.function))?)));
            self.tables(decl, &steps, tabulate.map(|(_, f)| f));
            if let Some((rows, function)) = tabulate {
                let mut bound = earlier.clone();
                bound.extend(decl.tables.iter().map(|t| (t.name.as_str(), (&t.ty, "the table"))));
                self.bind(Some(function), &bound, &mut run);
                self.tabulate(decl, rows, function, &steps);
                let names = function.outputs().into_iter().filter_map(|(n, _)| Some((n, output(function, n)?)));
                in_step.extend(names.map(|(n, ty)| (n, (ty, "the table"))));
            }
            in_step.extend(decl.tables.iter().map(|t| (t.name.as_str(), (&t.ty, "the table"))));
        }
        in_step.extend(carried.clone());
        for step in &steps {
            self.bind(Some(step), &in_step, &mut run);
        }
        let mut in_decode = earlier;
        in_decode.extend(carried);
        self.bind(decode, &in_decode, &mut run);
        self.trace(&steps);
    }

    /// V14.
    fn scheduled(&mut self, name: Option<&'a String>) -> Option<&'a Function> {
        let name = name?;
        let function = self.module.function(name);
        if function.is_none() {
            self.report("V14", None, format!("the schedule names `{name}`, which does not exist"));
        }
        function
    }

    /// V15; returns the carried values.
    fn carry(&mut self, decl: &'a StepLoop, steps: &[&'a Function]) -> Bound<'a> {
        for name in repeated(decl.carry.iter().map(String::as_str)) {
            self.report("V15", None, format!("`{name}` is carried twice"));
        }
        let mut carried = Bound::new();
        for name in &decl.carry {
            for step in steps {
                let (Some(input), Some(output)) = (input(step, name), output(step, name)) else {
                    let message =
                        format!("`{name}` is carried, and not both an input and an output of `{}`", step.name);
                    self.report("V15", None, message);
                    continue;
                };
                let (ty, _) = *carried.entry(name).or_insert((input, "a carried value"));
                if input != ty || output != ty {
                    let found = if input != ty { input } else { output };
                    self.mismatch(
                        "V15",
                        None,
                        format!("`{name}` is carried with another type in `{}`", step.name),
                        ty,
                        found,
                    );
                }
            }
        }
        carried
    }

    /// V16.
    fn tables(&mut self, decl: &'a StepLoop, steps: &[&'a Function], tabulate: Option<&'a Function>) {
        let names = decl.tables.iter().map(|t| t.name.as_str());
        for name in repeated(names) {
            self.report("V16", None, format!("two tables are named `{name}`"));
        }
        for table in &decl.tables {
            let name = &table.name;
            if decl.carry.contains(name) {
                self.report("V16", None, format!("`{name}` is a table and carried"));
                continue;
            }
            if !steps.is_empty() && steps.iter().copied().chain(tabulate).all(|s| input(s, name).is_none()) {
                self.report("V16", None, format!("no step function has the table's input `{name}`"));
            }
            for step in steps {
                if let Some(found) = input(step, name).filter(|ty| **ty != table.ty) {
                    let message = format!("the table's input `{name}` of `{}` has another type", step.name);
                    self.mismatch("V16", None, message, &table.ty, found);
                }
            }
        }
    }

    /// V20, V21.
    fn tabulate(&mut self, decl: &'a StepLoop, tabulate: &Tabulate, function: &'a Function, steps: &[&'a Function]) {
        let (name, rows) = (&function.name, tabulate.rows);
        if rows == 0 {
            self.report("V20", None, format!("`{name}` tabulates no rows"));
        }
        for carried in decl.carry.iter().filter(|n| input(function, n).is_some()) {
            self.report("V20", None, format!("`{name}` tabulates, and reads `{carried}`, which is carried"));
        }
        if decl.tables.iter().all(|t| input(function, &t.name).is_none()) {
            self.report("V20", None, format!("`{name}` tabulates, and reads no table"));
        }
        let reads_state = function.ids().any(|id| matches!(function.op(id), Some((Op::State(_), _))));
        if reads_state || function.outputs().len() != function.returns.len() {
            self.report("V20", None, format!("`{name}` tabulates, and reads or writes a state"));
        }
        for table in &decl.tables {
            let mut shape = vec![rows.into()];
            shape.extend(table.ty.shape.0.iter().cloned());
            let wanted = TensorType { dtype: table.ty.dtype, shape: Shape(shape) };
            if let Some(found) = input(function, &table.name).filter(|ty| **ty != wanted) {
                let message = format!("the table's input `{}` of `{name}` has another type", table.name);
                self.mismatch("V21", None, message, &wanted, found);
            }
        }
        for (out, _) in function.outputs() {
            let Some(ty) = output(function, out) else { continue };
            if decl.carry.iter().any(|n| n == out) || decl.tables.iter().any(|t| t.name == out) {
                self.report("V21", None, format!("`{out}` is tabulated, and carried or a table"));
            }
            let Some((_, row)) = ty.shape.0.split_first().filter(|(n, _)| n.get() == Some(rows)) else {
                let message = format!("the output `{out}` of `{name}` does not have {rows} rows");
                self.mismatch("V21", None, message, format!("a leading axis of {rows}"), ty);
                continue;
            };
            let row = TensorType { dtype: ty.dtype, shape: Shape(row.to_vec()) };
            if !steps.is_empty() && steps.iter().all(|s| input(s, out).is_none()) {
                self.report("V21", None, format!("no step function has the tabulated input `{out}`"));
            }
            for step in steps {
                if let Some(found) = input(step, out).filter(|ty| **ty != row) {
                    let message = format!("the tabulated input `{out}` of `{}` has another type", step.name);
                    self.mismatch("V21", None, message, &row, found);
                }
            }
        }
    }

    /// V18: inputs that nothing earlier gives are inputs of the run.
    fn bind(&mut self, function: Option<&'a Function>, bound: &Bound<'a>, run: &mut BTreeMap<&'a str, &'a TensorType>) {
        let Some(function) = function else { return };
        for (name, id) in function.params() {
            let found = function.ty(id);
            let (expected, giver) = match bound.get(name) {
                // Their types are checked by V15 and V16.
                Some((_, "a carried value")) if self.is_step(function) => continue,
                Some((_, "the table")) => continue,
                Some((ty, giver)) => (*ty, *giver),
                None => (*run.entry(name).or_insert(found), "the run"),
            };
            if expected != found {
                let message = format!("input `{name}` of `{}` comes from {giver} with another type", function.name);
                self.mismatch("V18", place(function, id), message, expected, found);
            }
        }
    }
    fn is_step(&self, function: &Function) -> bool {
        self.module.schedule.steps.iter().any(|s| s.functions.contains(&function.name))
    }

    /// V19.
    fn trace(&mut self, steps: &[&'a Function]) {
        let schedule = &self.module.schedule;
        let carried = |name: &String| schedule.steps.as_ref().is_some_and(|s| s.carry.contains(name));
        for name in schedule.trace.iter().filter(|n| !carried(n)) {
            if steps.is_empty() {
                self.report("V19", None, format!("`{name}` is traced, and there are no steps"));
            }
            for step in steps.iter().filter(|s| output(s, name).is_none()) {
                self.report("V19", None, format!("`{name}` is traced, and not an output of `{}`", step.name));
            }
        }
    }
}

fn input<'a>(function: &'a Function, name: &str) -> Option<&'a TensorType> {
    function.params().into_iter().find(|(n, _)| *n == name).map(|(_, id)| function.ty(id))
}

fn output<'a>(function: &'a Function, name: &str) -> Option<&'a TensorType> {
    let found = function.outputs().into_iter().find(|(n, _)| *n == name);
    found.and_then(|(_, id)| function.values.get(id.0 as usize)).map(|v| &v.ty)
}

fn outputs<'a>(bound: &mut Bound<'a>, function: Option<&'a Function>, stage: &'static str) {
    for (name, _) in function.iter().flat_map(|f| f.outputs()) {
        if let Some(ty) = function.and_then(|f| output(f, name)) {
            bound.insert(name, (ty, stage));
        }
    }
}
