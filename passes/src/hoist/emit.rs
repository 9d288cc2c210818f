//! The functions of the early stages, with the terms that others gave them.

use super::select::Cuts;
use crate::binding::Time;
use crate::vmap;
use selvedge_ir::func::{Builder, Target};
use selvedge_ir::known::FastMap;
use selvedge_ir::{Diagnostic, Function, Module, Op, Shape, TensorType, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Names of kept values, by function and value.
pub(super) struct Names {
    known: BTreeMap<String, BTreeMap<ValueId, String>>,
    /// Numbers used up, by stem.
    next: BTreeMap<String, usize>,
    taken: BTreeSet<String>,
}

impl Names {
    pub(super) fn new(module: &Module) -> Names {
        let mut taken: BTreeSet<String> = BTreeSet::new();
        for f in &module.functions {
            taken.extend(f.params().into_iter().map(|(n, _)| n.to_string()));
            taken.extend(f.outputs().into_iter().map(|(n, _)| n.to_string()));
        }
        Names { known: BTreeMap::new(), next: BTreeMap::new(), taken }
    }
    /// The name under which a kept value is handed on.
    pub(super) fn of(&self, function: &str, id: ValueId) -> Option<&str> {
        self.known.get(function)?.get(&id).map(String::as_str)
    }
    fn fresh(&mut self, stem: &str) -> String {
        let next = self.next.entry(stem.to_string()).or_default();
        loop {
            let name = format!("{stem}_{next}");
            *next += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// The function of a stage before the loop: what it had, and the terms of later functions that belong to it.
pub(super) struct Early<'m> {
    module: &'m Module,
    time: Time,
    rows: usize,
    to: Builder,
    params: BTreeMap<String, ValueId>,
    /// What the function itself returned before, by name: a later stage's input of that name is this value.
    own: BTreeMap<String, ValueId>,
    /// Equal terms of several functions are one.
    known: FastMap<(Op, Vec<ValueId>), ValueId>,
    batched: BTreeSet<ValueId>,
}

impl<'m> Early<'m> {
    pub(super) fn new(module: &'m Module, time: Time, rows: usize) -> Early<'m> {
        Early {
            module,
            time,
            rows,
            to: Builder::default(),
            params: BTreeMap::new(),
            own: BTreeMap::new(),
            known: FastMap::default(),
            batched: BTreeSet::new(),
        }
    }

    /// Builds the function; every term kept at its time gets a name.
    pub(super) fn build(&mut self, all: &BTreeMap<String, Cuts>, names: &mut Names) -> Result<Function, Diagnostic> {
        let schedule = &self.module.schedule;
        let (stem, old) = match self.time {
            Time::Const | Time::Load => ("prepare", schedule.prepare.as_ref()),
            Time::Run => ("condition", schedule.condition.as_ref()),
            Time::Step | Time::Latent => ("tabulate", None),
        };
        let name = old.cloned().unwrap_or_else(|| {
            let free = |n: &String| self.module.function(n).is_none();
            let names = std::iter::once(stem.to_string()).chain((1..).map(|i| format!("{stem}_{i}")));
            names.into_iter().find(free).expect("one of many is free")
        });
        self.to = Builder::new(name);
        let old = old.and_then(|n| self.module.function(n));
        let returned = |name: &str| old.is_some_and(|f| f.outputs().iter().any(|(n, _)| *n == name));

        // Parameters come first: those it had, then what the terms read.
        for (name, id) in old.iter().flat_map(|f| f.params()) {
            let ty = old.map(|f| f.ty(id).clone()).expect("its own parameter");
            self.params.insert(name.to_string(), self.to.input(name, ty));
        }
        let mut wanted: BTreeMap<String, TensorType> = BTreeMap::new();
        for (function, cuts) in self.functions(all) {
            for id in self.cone(function, cuts) {
                let ty = function.ty(id);
                if self.is_earlier(cuts, id) {
                    let name = names.of(&function.name, id).expect("earlier stages come first");
                    wanted.insert(name.to_string(), ty.clone());
                } else if let Some((Op::Input(input), _)) = function.op(id)
                    && !returned(&input.name)
                {
                    let of_row = self.time == Time::Step && cuts.times[id.0 as usize] == Time::Step;
                    wanted.insert(input.name.clone(), if of_row { self.led(ty) } else { ty.clone() });
                }
            }
        }
        for (name, ty) in wanted {
            if !self.params.contains_key(&name) {
                self.params.insert(name.clone(), self.to.input(name, ty));
            }
        }

        if let Some(old) = old {
            let args: Vec<ValueId> = old.params().iter().map(|(n, _)| self.params[*n]).collect();
            let results = self.to.inline(old, &args);
            for (r, value) in old.returns.iter().zip(results) {
                match &r.target {
                    Target::Output(name) => {
                        self.own.insert(name.clone(), value);
                        self.to.output(name.clone(), value);
                    }
                    Target::State(name) => self.to.write_state(name.clone(), value),
                }
            }
        }
        let mut outputs: BTreeMap<ValueId, String> = BTreeMap::new();
        for (function, cuts) in self.functions(all) {
            let mut map: BTreeMap<ValueId, ValueId> = BTreeMap::new();
            for id in self.cone(function, cuts) {
                let new = self.emit(function, cuts, id, &map, names)?;
                map.insert(id, new);
            }
            for (id, _) in cuts.stored.iter().filter(|(_, t)| **t == self.time) {
                let value = map[id];
                let name = outputs.entry(value).or_insert_with(|| {
                    let name = names.fresh(match self.time {
                        Time::Const | Time::Load => "prepared",
                        Time::Run => "conditioned",
                        Time::Step | Time::Latent => "tabulated",
                    });
                    self.to.output(name.clone(), value);
                    name
                });
                names.known.entry(function.name.clone()).or_default().insert(*id, name.clone());
            }
        }
        Ok(std::mem::take(&mut self.to).finish())
    }

    /// The functions that terms come from. A function gives none to itself.
    fn functions<'a>(&self, all: &'a BTreeMap<String, Cuts>) -> Vec<(&'m Function, &'a Cuts)> {
        let module = self.module;
        all.iter().filter_map(|(name, cuts)| Some((module.function(name)?, cuts))).collect()
    }

    fn is_earlier(&self, cuts: &Cuts, id: ValueId) -> bool {
        cuts.stored.get(&id).is_some_and(|t| *t < self.time)
    }

    /// Everything behind the terms of this stage, in order, down to what earlier stages give.
    fn cone(&self, function: &Function, cuts: &Cuts) -> BTreeSet<ValueId> {
        let mut cone = BTreeSet::new();
        let mut open: Vec<ValueId> = cuts.stored.iter().filter(|(_, t)| **t == self.time).map(|(id, _)| *id).collect();
        while let Some(id) = open.pop() {
            if cone.insert(id) && !self.is_earlier(cuts, id) {
                open.extend(function.reads(id));
            }
        }
        cone
    }

    fn emit(
        &mut self,
        function: &Function,
        cuts: &Cuts,
        id: ValueId,
        map: &BTreeMap<ValueId, ValueId>,
        names: &Names,
    ) -> Result<ValueId, Diagnostic> {
        if self.is_earlier(cuts, id) {
            let name = names.of(&function.name, id).expect("earlier stages come first");
            return Ok(self.params[name]);
        }
        let Some((op, args)) = function.op(id) else {
            return Err(Diagnostic::new("hoist", "a call's result has no early time").at(None));
        };
        if let Op::Input(input) = op {
            let value = self.own.get(&input.name).copied().unwrap_or_else(|| self.params[&input.name]);
            if self.time == Time::Step && cuts.times[id.0 as usize] == Time::Step {
                self.batched.insert(value);
            }
            return Ok(value);
        }
        let operands: Vec<(ValueId, bool)> =
            args.iter().map(|a| map[a]).map(|a| (a, self.batched.contains(&a))).collect();
        let key = (op.clone(), operands.iter().map(|(a, _)| *a).collect::<Vec<_>>());
        if let Some(value) = self.known.get(&key) {
            return Ok(*value);
        }
        let value = function.value(id);
        self.to.set_place(value.places.first().copied());
        let batched = operands.iter().any(|(_, b)| *b);
        let new = match batched {
            true => vmap::emit(&mut self.to, op, &operands, self.rows)?,
            false => self.to.copy(function, id, &key.1)?,
        };
        if batched {
            self.batched.insert(new);
        }
        if let Some(name) = &value.name {
            self.to.set_name(new, name.clone());
        }
        self.known.insert(key, new);
        Ok(new)
    }

    fn led(&self, row: &TensorType) -> TensorType {
        let shape = [self.rows.into()].into_iter().chain(row.shape.0.iter().cloned()).collect();
        TensorType { dtype: row.dtype, shape: Shape(shape) }
    }
}
