//! Functions: append-only lists of values, each used only after it is defined.

use crate::attr::Attr;
use crate::diag::{Diagnostic, Place};
use crate::op::TypeError;
use crate::ops::{Concat, Input, Op, Weight};
use crate::shape::TensorType;

/// A value of a function: an index into [`Function::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// A call of a function: an index into [`Function::calls`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u32);

/// How a value comes to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Def {
    /// An operator applied to earlier values.
    Op {
        /// The operator with its attributes.
        op: Op,
        /// Operands.
        args: Vec<ValueId>,
    },
    /// One result of a call.
    Result {
        /// Which call.
        call: CallId,
        /// Which of its results.
        index: u32,
    },
}

/// A value: definition, type, and what is remembered for people.
#[derive(Clone, Debug)]
pub struct Value {
    /// Definition.
    pub def: Def,
    /// Type; equals what `infer` gives.
    pub ty: TensorType,
    /// Preferred name in the text form; not part of equality.
    pub name: Option<String>,
    /// Where it came from (a set: fused values have several origins); not part of equality.
    pub places: Vec<Place>,
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.def == other.def && self.ty == other.ty
    }
}

/// A call statement; its results are values with [`Def::Result`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// Callee's name.
    pub function: String,
    /// Arguments, one for each parameter of the callee.
    pub args: Vec<ValueId>,
}

/// Where a returned value goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A named output.
    Output(String),
    /// A state variable of the module.
    State(String),
}

/// One returned value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Return {
    /// Where it goes.
    pub target: Target,
    /// The value.
    pub value: ValueId,
}

/// A pure function.
///
/// Values are in dependency order; parameters are the values defined by `input`, in order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Function {
    /// Name, unique in the module.
    pub name: String,
    /// All values.
    pub values: Vec<Value>,
    /// All calls, in order; the results of a call are consecutive values.
    pub calls: Vec<Call>,
    /// What is returned, in order.
    pub returns: Vec<Return>,
}

impl Function {
    /// The value behind an id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }
    /// A value's type.
    pub fn ty(&self, id: ValueId) -> &TensorType {
        &self.value(id).ty
    }
    /// The operator and operands, unless the value is a call's result.
    pub fn op(&self, id: ValueId) -> Option<(&Op, &[ValueId])> {
        match &self.value(id).def {
            Def::Op { op, args } => Some((op, args)),
            Def::Result { .. } => None,
        }
    }
    /// All ids in order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = ValueId> + use<> {
        (0..self.values.len() as u32).map(ValueId)
    }
    /// Parameters in order: name, id.
    pub fn params(&self) -> Vec<(&str, ValueId)> {
        self.ids()
            .filter_map(|id| match self.op(id) {
                Some((Op::Input(input), _)) => Some((input.name.as_str(), id)),
                _ => None,
            })
            .collect()
    }
    /// Named outputs in order: name, id.
    pub fn outputs(&self) -> Vec<(&str, ValueId)> {
        self.returns
            .iter()
            .filter_map(|r| match &r.target {
                Target::Output(name) => Some((name.as_str(), r.value)),
                Target::State(_) => None,
            })
            .collect()
    }
    /// Values a value reads: operands, or the arguments of its call.
    pub fn reads(&self, id: ValueId) -> &[ValueId] {
        match &self.value(id).def {
            Def::Op { args, .. } => args,
            Def::Result { call, .. } => &self.calls[call.0 as usize].args,
        }
    }
    /// The weights that a value lays one behind the other: a `concat` along the first axis of different weights, and of nothing
    /// else. It is a leaf like its parts: code generation gives them neighbouring memory.
    pub fn joined_weights(&self, id: ValueId) -> Option<Vec<&Weight>> {
        let Some((Op::Concat(Concat { axis: 0 }), parts)) = self.op(id) else { return None };
        let weight = |id: &ValueId| match self.op(*id) {
            Some((Op::Weight(w), _)) => Some(w),
            Some(_) | None => None,
        };
        let weights: Vec<&Weight> = parts.iter().map(weight).collect::<Option<_>>()?;
        let twice = |(i, w): (usize, &&Weight)| weights[..i].iter().any(|o| o.name == w.name);
        (weights.len() > 1 && !weights.iter().enumerate().any(twice)).then_some(weights)
    }
    /// For each value, the number of reads (returns included).
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        let mut seen_call = vec![false; self.calls.len()];
        for value in &self.values {
            match &value.def {
                Def::Op { args, .. } => args.iter().for_each(|a| counts[a.0 as usize] += 1),
                Def::Result { call, .. } => {
                    if !std::mem::replace(&mut seen_call[call.0 as usize], true) {
                        self.calls[call.0 as usize].args.iter().for_each(|a| counts[a.0 as usize] += 1);
                    }
                }
            }
        }
        self.returns.iter().for_each(|r| counts[r.value.0 as usize] += 1);
        counts
    }
}

/// Builds a function; the only way to create values. Types are inferred as it goes.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    function: Function,
    place: Option<Place>,
}

impl Builder {
    /// An empty function.
    pub fn new(name: impl Into<String>) -> Builder {
        Builder { function: Function { name: name.into(), ..Function::default() }, place: None }
    }
    /// An empty function with room for so many values.
    pub fn with_capacity(name: impl Into<String>, values: usize) -> Builder {
        let mut builder = Builder::new(name);
        builder.function.values.reserve(values);
        builder
    }
    /// The place recorded with values added from now on.
    pub fn set_place(&mut self, place: Option<Place>) {
        self.place = place;
    }
    /// The current place.
    pub fn place(&self) -> Option<Place> {
        self.place
    }
    /// The function so far.
    pub fn function(&self) -> &Function {
        &self.function
    }
    /// A value's type.
    pub fn ty(&self, id: ValueId) -> &TensorType {
        self.function.ty(id)
    }
    /// Adds a parameter.
    pub fn input(&mut self, name: impl Into<String>, ty: TensorType) -> ValueId {
        let name = name.into();
        let id = self.push(Input { name: name.clone(), ty }, &[]).expect("an input has no constraint");
        self.set_name(id, name);
        id
    }
    /// Adds an operator.
    ///
    /// # Errors
    /// The violated constraint.
    pub fn push(&mut self, op: impl Into<Op>, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let op = op.into();
        let types: Vec<&TensorType> = args.iter().map(|a| self.ty(*a)).collect();
        let ty = op.infer(&types)?;
        Ok(self.push_unchecked(Def::Op { op, args: args.to_vec() }, ty))
    }
    /// Adds a copy of another function's operator with these operands. Operands of the types they have there give the type that
    /// is known from there; others are inferred from.
    ///
    /// # Errors
    /// The violated constraint, with the operator's name and the current place; a call's result is no operator.
    pub fn copy(&mut self, from: &Function, id: ValueId, args: &[ValueId]) -> Result<ValueId, Diagnostic> {
        let Some((op, old)) = from.op(id) else {
            return Err(Diagnostic::new("copy", "a call's result is no operator").at(self.place));
        };
        let same = old.len() == args.len() && old.iter().zip(args).all(|(o, a)| from.ty(*o) == self.ty(*a));
        if same {
            return Ok(self.push_unchecked(Def::Op { op: op.clone(), args: args.to_vec() }, from.ty(id).clone()));
        }
        self.try_push(op.clone(), args)
    }
    /// Adds an operator; the error is a diagnostic with the operator's name and the current place.
    ///
    /// # Errors
    /// The violated constraint.
    pub fn try_push(&mut self, op: impl Into<Op>, args: &[ValueId]) -> Result<ValueId, Diagnostic> {
        let op = op.into();
        let name = op.kind().text();
        self.push(op, args).map_err(|e| e.diagnostic(name).at(self.place))
    }
    /// Adds a call of a function with these parameter and result types; returns the results.
    pub fn call(&mut self, function: impl Into<String>, args: &[ValueId], results: &[TensorType]) -> Vec<ValueId> {
        let call = CallId(self.function.calls.len() as u32);
        self.function.calls.push(Call { function: function.into(), args: args.to_vec() });
        (0..results.len())
            .map(|i| self.push_unchecked(Def::Result { call, index: i as u32 }, results[i].clone()))
            .collect()
    }
    /// Names a value for the text form.
    pub fn set_name(&mut self, id: ValueId, name: impl Into<String>) {
        self.function.values[id.0 as usize].name = Some(name.into());
    }
    /// Replaces a value's places.
    pub fn set_places(&mut self, id: ValueId, places: Vec<Place>) {
        self.function.values[id.0 as usize].places = places;
    }
    /// Returns a value as a named output.
    pub fn output(&mut self, name: impl Into<String>, value: ValueId) {
        self.function.returns.push(Return { target: Target::Output(name.into()), value });
    }
    /// Returns a value into a state variable.
    pub fn write_state(&mut self, name: impl Into<String>, value: ValueId) {
        self.function.returns.push(Return { target: Target::State(name.into()), value });
    }
    /// Copies another function's values in, its parameters replaced by `args`; returns its returned values in order.
    /// Calls are copied as calls.
    pub fn inline(&mut self, function: &Function, args: &[ValueId]) -> Vec<ValueId> {
        let mut map: Vec<ValueId> = Vec::with_capacity(function.values.len());
        let mut calls: Vec<Option<CallId>> = vec![None; function.calls.len()];
        let mut next_param = 0;
        for value in &function.values {
            let id = match &value.def {
                Def::Op { op: Op::Input(_), .. } => {
                    next_param += 1;
                    args[next_param - 1]
                }
                Def::Op { op, args } => {
                    let args = args.iter().map(|a| map[a.0 as usize]).collect();
                    self.copy_value(value, Def::Op { op: op.clone(), args })
                }
                Def::Result { call, index } => {
                    let new = *calls[call.0 as usize].get_or_insert_with(|| {
                        let old = &function.calls[call.0 as usize];
                        let args = old.args.iter().map(|a| map[a.0 as usize]).collect();
                        self.function.calls.push(Call { function: old.function.clone(), args });
                        CallId(self.function.calls.len() as u32 - 1)
                    });
                    self.copy_value(value, Def::Result { call: new, index: *index })
                }
            };
            map.push(id);
        }
        function.returns.iter().map(|r| map[r.value.0 as usize]).collect()
    }
    fn copy_value(&mut self, value: &Value, def: Def) -> ValueId {
        let id = self.push_unchecked(def, value.ty.clone());
        let new = &mut self.function.values[id.0 as usize];
        new.name = value.name.clone();
        new.places = value.places.clone();
        id
    }
    /// Adds a value whose type is known; the verifier checks it later.
    pub(crate) fn push_unchecked(&mut self, def: Def, ty: TensorType) -> ValueId {
        let places = self.place.into_iter().collect();
        self.function.values.push(Value { def, ty, name: None, places });
        ValueId(self.function.values.len() as u32 - 1)
    }
    /// The finished function.
    pub fn finish(self) -> Function {
        self.function
    }
}

/// Attributes of an operator with their names, as printed.
pub fn named_attrs(op: &Op) -> Vec<(&'static str, Attr)> {
    op.kind().attributes().iter().map(|(name, _, _)| *name).zip(op.attrs()).collect()
}
