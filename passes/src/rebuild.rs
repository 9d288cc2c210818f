//! Copying a function value by value, with names and places.

use selvedge_ir::func::{Builder, Target};
use selvedge_ir::{Def, Diagnostic, Function, Op, TensorType, ValueId};

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
