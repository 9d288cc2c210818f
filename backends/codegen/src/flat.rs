//! A function without calls and composites, equal values shared: what lowering works on.

use crate::blocks::of_attention;
use crate::joins::Joins;
use selvedge_ir::func::Target;
use selvedge_ir::known::Known;
use selvedge_ir::op::OpClass;
use selvedge_ir::ops::{Concat, Map, Weight};
use selvedge_ir::scalar::Body;
use selvedge_ir::{Builder, Def, Diagnostic, Function, Module, Op, Place, TensorType, ValueId};
use std::collections::HashMap;

/// A flat function.
pub struct Flattened {
    /// The function.
    pub function: Function,
    /// Composites that are left whole, with their number among all of the function.
    pub composites: HashMap<ValueId, usize>,
}

/// Inlines calls and expands composites, but for those that `whole` keeps: it is asked with each composite's number in the
/// function, the operator, and its operands' types. Large attention is expanded in blocks (see [`of_attention`]). Weights that lie one behind the other are one weight. The result's returns are those of `function`, in order.
///
/// # Errors
/// A callee that does not exist, recursion, or a violated constraint.
pub fn flatten(
    module: &Module,
    function: &Function,
    whole: &dyn Fn(usize, &Op, &[&TensorType]) -> bool,
    joins: &Joins,
    max_binding_bytes: u64,
) -> Result<Flattened, Diagnostic> {
    let called = |name: &String| module.function(name).map_or(0, |f| f.values.len());
    let room = function.values.len() + function.calls.iter().map(|c| called(&c.function)).sum::<usize>();
    let mut flat = Flat {
        module,
        whole,
        joins,
        max_binding_bytes,
        builder: Builder::with_capacity(&function.name, room),
        known: Known::default(),
        depth: 0,
        inherited: None,
        seen: 0,
        composites: HashMap::new(),
    };
    let mut args = Vec::new();
    for (name, id) in function.params() {
        args.push(flat.builder.input(name, function.ty(id).clone()));
    }
    let results = flat.copy(function, &args)?;
    for (returned, mut value) in function.returns.iter().zip(results) {
        // What is returned has memory of its own: data that is returned as it came is copied.
        if is_leaf(&flat.builder, value) {
            value = flat.push(&Map { body: Body::identity() }.into(), vec![value], &[], None, None)?;
        }
        match &returned.target {
            Target::Output(name) => flat.builder.output(name, value),
            Target::State(name) => flat.builder.write_state(name, value),
        }
    }
    Ok(Flattened { function: flat.builder.finish(), composites: flat.composites })
}

/// Calls may nest this deep; a deeper nest is recursion, which no function may have.
const DEPTH: usize = 64;

/// True if the value is a leaf, or a reshape of one.
fn is_leaf(builder: &Builder, mut id: ValueId) -> bool {
    let function = builder.function();
    while let Some((Op::Reshape(_), args)) = function.op(id) {
        id = args[0];
    }
    function.op(id).is_some_and(|(op, _)| op.class() == OpClass::Leaf)
}

/// Operands of a concat in a flat function.
const JOIN: usize = 4;

struct Flat<'a> {
    module: &'a Module,
    whole: &'a dyn Fn(usize, &Op, &[&TensorType]) -> bool,
    joins: &'a Joins,
    max_binding_bytes: u64,
    builder: Builder,
    known: Known,
    depth: usize,
    /// The place of the composite that is being expanded.
    inherited: Option<Place>,
    /// Composites so far.
    seen: usize,
    composites: HashMap<ValueId, usize>,
}

impl Flat<'_> {
    /// Copies a function's values, its parameters replaced by `args`; returns its returned values.
    fn copy(&mut self, function: &Function, args: &[ValueId]) -> Result<Vec<ValueId>, Diagnostic> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Diagnostic::new("codegen call", format!("function `{}` calls itself", function.name)));
        }
        let mut map: Vec<ValueId> = Vec::with_capacity(function.values.len());
        let mut results: Vec<Option<Vec<ValueId>>> = vec![None; function.calls.len()];
        let mut params = args.iter();
        for id in function.ids() {
            let value = function.value(id);
            let new = match &value.def {
                Def::Op { op: Op::Input(input), .. } => *params.next().ok_or_else(|| {
                    Diagnostic::new("codegen call", format!("no argument for `{}` of `{}`", input.name, function.name))
                })?,
                Def::Op { op, args } => {
                    let args: Vec<ValueId> = args.iter().map(|a| map[a.0 as usize]).collect();
                    self.push(op, args, &value.places, value.name.as_deref(), Some((function, id)))?
                }
                Def::Result { call, index } => {
                    let slot = call.0 as usize;
                    if results[slot].is_none() {
                        let call = &function.calls[slot];
                        let callee = self.module.function(&call.function).ok_or_else(|| {
                            Diagnostic::new("codegen call", format!("there is no function `{}`", call.function))
                        })?;
                        let args: Vec<ValueId> = call.args.iter().map(|a| map[a.0 as usize]).collect();
                        results[slot] = Some(self.copy(callee, &args)?);
                    }
                    results[slot].as_ref().expect("filled above")[*index as usize]
                }
            };
            map.push(new);
        }
        self.depth -= 1;
        Ok(function.returns.iter().map(|r| map[r.value.0 as usize]).collect())
    }

    /// What stands for an operator applied to `args`; `origin` is where it comes from, if it is there as it is.
    fn push(
        &mut self,
        op: &Op,
        args: Vec<ValueId>,
        places: &[Place],
        name: Option<&str>,
        origin: Option<(&Function, ValueId)>,
    ) -> Result<ValueId, Diagnostic> {
        let at = places.first().copied().or(self.inherited);
        let composite = op.class() == OpClass::Composite;
        let types = if composite { args.iter().map(|a| self.builder.ty(*a)).collect() } else { Vec::new() };
        let number = self.seen;
        self.seen += usize::from(composite);
        let kept = composite && (self.whole)(number, op, &types);
        let parts = || of_attention(op, &types, self.max_binding_bytes).or_else(|| op.expansion(&types));
        if let Some(expansion) = (composite && !kept).then(parts).flatten() {
            let expansion = expansion.map_err(|e| e.diagnostic(op.kind().text()).at(at))?;
            let before = self.inherited;
            self.inherited = at;
            let results = self.copy(&expansion, &args)?;
            self.inherited = before;
            return Ok(results[0]);
        }
        if let (Op::Concat(Concat { axis: 0 }), Some(weight)) = (op, self.joined(&args)) {
            return self.push(&weight, Vec::new(), places, name, None);
        }
        // A long join is a join of shorter ones, so that a kernel that binds too much can be divided.
        if matches!(op, Op::Concat(_)) && args.len() > JOIN {
            let parts: Result<Vec<ValueId>, Diagnostic> = args
                .chunks(args.len().div_ceil(JOIN))
                .map(|part| self.push(op, part.to_vec(), places, None, None))
                .collect();
            return self.push(op, parts?, places, name, None);
        }
        let slot = match self.known.find(self.builder.function(), op, &args) {
            Ok(known) => return Ok(known),
            Err(slot) => slot,
        };
        self.builder.set_place(at);
        let id = match origin {
            Some((function, id)) => self.builder.copy(function, id, &args)?,
            None => self.builder.try_push(op.clone(), &args)?,
        };
        if !places.is_empty() {
            self.builder.set_places(id, places.to_vec());
        }
        if let Some(name) = name {
            self.builder.set_name(id, name);
        }
        if kept {
            self.composites.insert(id, number);
        }
        self.known.insert(slot, id);
        Ok(id)
    }

    /// The weight that a join of weights is.
    fn joined(&self, parts: &[ValueId]) -> Option<Op> {
        let function = self.builder.function();
        let weight = |id: &ValueId| match function.op(*id) {
            Some((Op::Weight(w), _)) => Some(w.name.as_str()),
            Some(_) | None => None,
        };
        let names: Vec<&str> = parts.iter().map(weight).collect::<Option<_>>()?;
        let name = self.joins.named(names.into_iter())?;
        let types: Vec<&TensorType> = parts.iter().map(|p| function.ty(*p)).collect();
        let ty = Op::from(Concat { axis: 0 }).infer(&types).ok()?;
        Some(Weight { name, ty }.into())
    }
}
