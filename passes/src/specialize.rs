//! `specialize`: symbols become numbers.

use crate::Pass;
use crate::rebuild::rebuild_with;
use selvedge_ir::attr::Attr;
use selvedge_ir::dim::Symbol;
use selvedge_ir::ops::Slice;
use selvedge_ir::{Diagnostic, Dim, Function, Module, Op, Place, Shape, TensorType};
use std::collections::BTreeMap;

/// Replaces symbols by numbers everywhere, and refuses a module in which one is left.
pub struct Specialize {
    /// The extent of each symbol; symbols that do not occur are ignored.
    pub symbols: BTreeMap<String, usize>,
}

impl Pass for Specialize {
    fn name(&self) -> &'static str {
        "specialize"
    }
    fn summary(&self) -> &'static str {
        "replaces the symbols of all shapes by numbers"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        let values: BTreeMap<Symbol, Dim> =
            self.symbols.iter().map(|(s, n)| (Symbol::from(s.as_str()), Dim::new(*n))).collect();
        let shape = |s: &Shape| Shape(s.0.iter().map(|d| d.substitute(&values)).collect());
        let ty = |t: &TensorType| TensorType { dtype: t.dtype, shape: shape(&t.shape) };
        let declared = module.weights.iter_mut().map(|w| (&w.name, &mut w.ty));
        let declared = declared.chain(module.states.iter_mut().map(|s| (&s.name, &mut s.ty)));
        let tables = module.schedule.steps.iter_mut().flat_map(|s| &mut s.tables);
        for (name, t) in declared.chain(tables.map(|t| (&t.name, &mut t.ty))) {
            *t = numeric(ty(t), name, None)?;
        }
        // Attributes hold no symbol that the value's type does not have.
        let numbers = |f: &Function| f.values.iter().all(|v| v.ty.shape.0.iter().all(|d| d.get().is_some()));
        for function in module.functions.iter_mut().filter(|f| !numbers(f)) {
            *function = specialized(function, &shape, &ty)?;
        }
        Ok(module)
    }
}

fn specialized(
    function: &Function,
    shape: &dyn Fn(&Shape) -> Shape,
    ty: &dyn Fn(&TensorType) -> TensorType,
) -> Result<Function, Diagnostic> {
    rebuild_with(
        function,
        |r, id, op, args| {
            let new = match op {
                Op::Slice(slice) => whole_axes(slice, r.to.ty(args[0])).into(),
                op => with_attributes(op, shape, ty),
            };
            let new = r.to.try_push(new, args)?;
            let place = r.from.value(id).places.first().copied();
            let name = r.from.value(id).name.as_deref().unwrap_or("a value");
            numeric(r.to.ty(new).clone(), &format!("{name} of @{}", r.from.name), place)?;
            Ok(new)
        },
        ty,
        |r, callee, args, types| Ok(r.to.call(callee, args, types)),
    )
}

/// The type, if no symbol is left in it.
fn numeric(ty: TensorType, name: &str, place: Option<Place>) -> Result<TensorType, Diagnostic> {
    if ty.shape.get().is_some() {
        return Ok(ty);
    }
    let left: Vec<String> = ty.shape.0.iter().flat_map(Dim::symbols).map(|s| s.to_string()).collect();
    let error = if left.is_empty() {
        Diagnostic::new("specialize", format!("{name} has a negative extent: {ty}"))
    } else {
        Diagnostic::new("specialize", format!("{name} still has symbols: {ty}"))
            .help(format!("give a number for {}", left.join(", ")))
    };
    Err(error.at(place))
}

/// Every attribute that holds a shape, replaced.
fn with_attributes(op: &Op, shape: &dyn Fn(&Shape) -> Shape, ty: &dyn Fn(&TensorType) -> TensorType) -> Op {
    let attrs: Vec<Attr> = op
        .attrs()
        .into_iter()
        .map(|attr| match attr {
            Attr::Shape(s) => Attr::Shape(shape(&s)),
            Attr::Type(t) => Attr::Type(ty(&t)),
            other => other,
        })
        .collect();
    Op::from_attrs(op.kind(), &attrs).expect("attributes keep their kinds")
}

/// A slice of axes that were symbolic keeps them whole, now by number.
fn whole_axes(slice: &Slice, x: &TensorType) -> Slice {
    let extent = |(&end, dim): (&usize, &Dim)| if end == Slice::WHOLE { dim.get().unwrap_or(end) } else { end };
    Slice { end: slice.end.iter().zip(&x.shape.0).map(extent).collect(), ..slice.clone() }
}
