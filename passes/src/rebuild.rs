//! Copying a function value by value, with names and places; or moving it, where most of it stays as it is.

use selvedge_ir::func::{Builder, Call, CallId, Target, Value};
use selvedge_ir::{Def, Diagnostic, Function, Op, Place, TensorType, ValueId};

/// A function under construction from another.
pub(crate) struct Rebuild<'f> {
    /// The function that is read.
    pub(crate) from: &'f Function,
    /// The function that is written.
    pub(crate) to: Builder,
    /// The value that is read now.
    at: ValueId,
    /// For each value read so far, the value that stands for it.
    pub(crate) map: Vec<ValueId>,
}

/// Copies a function; `op` emits what stands for an operator's value, from its operands' stand-ins.
pub(crate) fn rebuild(
    function: &Function,
    op: impl FnMut(&mut Rebuild, ValueId, &Op, &[ValueId]) -> Result<ValueId, Diagnostic>,
) -> Result<Function, Diagnostic> {
    rebuild_with(function, op, &|ty| ty.clone(), |r, callee, args, types| Ok(r.to.call(callee, args, types)))
}

/// [`rebuild`] where types change by `ty`, and `call` gives what stands for a call's results.
pub(crate) fn rebuild_with(
    function: &Function,
    mut op: impl FnMut(&mut Rebuild, ValueId, &Op, &[ValueId]) -> Result<ValueId, Diagnostic>,
    ty: &dyn Fn(&TensorType) -> TensorType,
    mut call: impl FnMut(&mut Rebuild, &str, &[ValueId], &[TensorType]) -> Result<Vec<ValueId>, Diagnostic>,
) -> Result<Function, Diagnostic> {
    let mut r = Rebuild {
        from: function,
        to: Builder::with_capacity(function.name.clone(), function.values.len()),
        at: ValueId(0),
        map: Vec::new(),
    };
    let mut called: Vec<Option<Vec<ValueId>>> = vec![None; function.calls.len()];
    for id in function.ids() {
        let value = function.value(id);
        r.at = id;
        let first_new = r.to.function().values.len();
        r.to.set_place(value.places.first().copied());
        let new = match &value.def {
            Def::Op { op: old, args } => {
                let args: Vec<ValueId> = args.iter().map(|a| r.map[a.0 as usize]).collect();
                op(&mut r, id, old, &args)?
            }
            Def::Result { call: at, index } => {
                let slot = at.0 as usize;
                if called[slot].is_none() {
                    let statement = &function.calls[slot];
                    let args: Vec<ValueId> = statement.args.iter().map(|a| r.map[a.0 as usize]).collect();
                    let types: Vec<TensorType> = results(function, id).map(|v| ty(function.ty(v))).collect();
                    called[slot] = Some(call(&mut r, &statement.function, &args, &types)?);
                }
                let results = called[slot].as_ref().expect("filled above");
                *results.get(*index as usize).ok_or_else(|| {
                    Diagnostic::new("V0", format!("a call in @{} has no result {index}", function.name))
                        .at(value.places.first().copied())
                })?
            }
        };
        r.annotate(id, new, first_new);
        r.map.push(new);
    }
    let Rebuild { mut to, map, .. } = r;
    for r in &function.returns {
        let value = map[r.value.0 as usize];
        match &r.target {
            Target::Output(name) => to.output(name.clone(), value),
            Target::State(name) => to.write_state(name.clone(), value),
        }
    }
    Ok(to.finish())
}

impl Rebuild<'_> {
    /// Emits an operator unchanged.
    pub(crate) fn copy(&mut self, op: &Op, args: &[ValueId]) -> Result<ValueId, Diagnostic> {
        match self.from.op(self.at) {
            Some((own, _)) if std::ptr::eq(own, op) => self.to.copy(self.from, self.at, args),
            Some(_) | None => self.to.try_push(op.clone(), args),
        }
    }
    /// New values inherit the places of the value they stand for; the result also its name. A value that was there
    /// already gets the places added: it has several origins now.
    fn annotate(&mut self, old: ValueId, new: ValueId, first_new: usize) {
        let old = self.from.value(old);
        for i in first_new..self.to.function().values.len() {
            let id = ValueId(i as u32);
            let known = &self.to.function().value(id).places;
            if known.len() <= 1 && old.places.len() > known.len() {
                self.to.set_places(id, old.places.clone());
            }
        }
        let value = self.to.function().value(new);
        let mut places = value.places.clone();
        let unnamed = value.name.is_none();
        if (new.0 as usize) < first_new {
            for place in &old.places {
                if !places.contains(place) {
                    places.push(*place);
                }
            }
            self.to.set_places(new, places);
        }
        if let (true, Some(name)) = (unnamed, &old.name) {
            self.to.set_name(new, name.clone());
        }
    }
}

/// The values that are a call's results, in order, from its first one.
pub(crate) fn results(function: &Function, first: ValueId) -> impl Iterator<Item = ValueId> {
    let call = |id: ValueId| match function.value(id).def {
        Def::Result { call, .. } => Some(call),
        Def::Op { .. } => None,
    };
    let of = call(first);
    function.ids().skip(first.0 as usize).take_while(move |id| call(*id) == of)
}

/// A function whose values are taken one by one and put back, most as they were: nothing is copied.
pub(crate) struct Moving<'f> {
    /// What was put back so far.
    pub(crate) function: &'f mut Function,
    values: std::vec::IntoIter<Value>,
    /// The calls, and which they are now.
    calls: Vec<(Call, Option<CallId>)>,
    /// For each value taken so far, the value that stands for it.
    map: Vec<ValueId>,
}

/// What stands for a value that nothing may read any more.
const GONE: ValueId = ValueId(u32::MAX);

impl<'f> Moving<'f> {
    /// Takes the values out of a function.
    pub(crate) fn of(function: &'f mut Function) -> Moving<'f> {
        let values = std::mem::take(&mut function.values);
        function.values.reserve(values.len());
        let calls = std::mem::take(&mut function.calls).into_iter().map(|call| (call, None)).collect();
        Moving { function, map: Vec::with_capacity(values.len()), values: values.into_iter(), calls }
    }
    /// The next value, with what it was; its operands are what stands for them.
    pub(crate) fn take(&mut self) -> Option<(ValueId, Value)> {
        let mut value = self.values.next()?;
        if let Def::Op { args, .. } = &mut value.def {
            renumber(&self.map, args);
        }
        Some((ValueId(self.map.len() as u32), value))
    }
    /// What stands for the value that was taken last.
    pub(crate) fn stand_in(&mut self, new: ValueId) {
        self.map.push(new);
    }
    /// Nothing may read the value that was taken last.
    pub(crate) fn drop_last(&mut self) {
        self.map.push(GONE);
    }
    /// The function that a call names that was not put back.
    pub(crate) fn callee(&self, call: CallId) -> &str {
        &self.calls[call.0 as usize].0.function
    }
    /// What stands for the arguments of a call that was not put back.
    pub(crate) fn arguments(&self, call: CallId) -> Vec<ValueId> {
        let mut args = self.calls[call.0 as usize].0.args.clone();
        renumber(&self.map, &mut args);
        args
    }
    /// What stands for a value that was taken.
    pub(crate) fn now(&self, old: ValueId) -> ValueId {
        self.map[old.0 as usize]
    }
    /// A value that was dropped after all has this one in its place.
    pub(crate) fn revive(&mut self, old: ValueId, new: ValueId) {
        self.map[old.0 as usize] = new;
    }
    /// Adds a value that was not there.
    pub(crate) fn add(&mut self, value: Value) -> ValueId {
        self.function.values.push(value);
        ValueId(self.function.values.len() as u32 - 1)
    }
    /// Puts the value that was taken last back.
    pub(crate) fn keep(&mut self, mut value: Value) {
        if let Def::Result { call, .. } = &mut value.def {
            let (statement, now) = &mut self.calls[call.0 as usize];
            *call = *now.get_or_insert_with(|| {
                renumber(&self.map, &mut statement.args);
                self.function.calls.push(statement.clone());
                CallId(self.function.calls.len() as u32 - 1)
            });
        }
        let new = self.add(value);
        self.map.push(new);
    }
    /// Gives the returned values their new numbers.
    ///
    /// # Errors
    /// A value that is gone is read.
    pub(crate) fn finish(self) -> Result<(), Diagnostic> {
        let Moving { function, map, .. } = self;
        function.returns.iter_mut().for_each(|r| r.value = map[r.value.0 as usize]);
        let mut read = function.values.iter().filter_map(|v| match &v.def {
            Def::Op { args, .. } => Some(args),
            Def::Result { .. } => None,
        });
        let gone = read.any(|args| args.contains(&GONE))
            || function.calls.iter().any(|call| call.args.contains(&GONE))
            || function.returns.iter().any(|r| r.value == GONE);
        match gone {
            true => Err(Diagnostic::new("pass internal", format!("a value of @{} is read and gone", function.name))),
            false => Ok(()),
        }
    }
}

/// Operands become what stands for them.
pub(crate) fn renumber(map: &[ValueId], ids: &mut [ValueId]) {
    ids.iter_mut().for_each(|id| *id = map[id.0 as usize]);
}

/// A value stands for another, too: it has several origins now.
pub(crate) fn joined(kept: &mut Value, places: Vec<Place>, name: Option<String>) {
    for place in places {
        if !kept.places.contains(&place) {
            kept.places.push(place);
        }
    }
    kept.name = kept.name.take().or(name);
}
