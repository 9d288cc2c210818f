//! `expand-composites`: only core operators are left.

use crate::Pass;
use crate::rebuild::{Moving, joined, renumber};
use selvedge_ir::func::Value;
use selvedge_ir::op::OpClass;
use selvedge_ir::{Def, Diagnostic, Function, Module, Op, OpKind, TensorType, ValueId};

/// Replaces composites by their expansions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpandComposites {
    /// Composites that stay whole.
    pub keep: Vec<OpKind>,
}

impl Pass for ExpandComposites {
    fn name(&self) -> &'static str {
        "expand-composites"
    }
    fn summary(&self) -> &'static str {
        "replaces composites by their expansions"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        let whole = |op: &Op| op.class() != OpClass::Composite || self.keep.contains(&op.kind());
        for function in &mut module.functions {
            if function.ids().all(|id| function.op(id).is_none_or(|(op, _)| whole(op))) {
                continue;
            }
            expand(function, whole)?;
        }
        Ok(module)
    }
}

/// Expands all composites that are not left whole. Equal ones are expanded once: their expansions are equal.
fn expand(function: &mut Function, whole: impl Fn(&Op) -> bool) -> Result<(), Diagnostic> {
    let mut known: Vec<(Op, Vec<TensorType>, Function)> = Vec::new();
    let mut moving = Moving::of(function);
    while let Some((_, value)) = moving.take() {
        let (op, args) = match &value.def {
            Def::Op { op, args } if !whole(op) => (op, args),
            Def::Op { .. } | Def::Result { .. } => {
                moving.keep(value);
                continue;
            }
        };
        let types: Vec<&TensorType> = args.iter().map(|a| moving.function.ty(*a)).collect();
        let at = known.iter().position(|(of, on, _)| of == op && on.iter().eq(types.iter().copied()));
        let at = match at {
            Some(at) => at,
            None => {
                let Some(expansion) = op.expansion(&types) else {
                    moving.keep(value);
                    continue;
                };
                let place = value.places.first().copied();
                let expansion = expansion.map_err(|e| e.diagnostic(op.kind().text()).at(place))?;
                known.push((op.clone(), types.into_iter().cloned().collect(), expansion));
                known.len() - 1
            }
        };
        let result = inlined(&mut moving, &known[at].2, args, &value);
        joined(&mut moving.function.values[result.0 as usize], value.places, value.name);
        moving.stand_in(result);
    }
    moving.finish()
}

/// Adds an expansion's values with the places of what it expands; gives its result.
fn inlined(moving: &mut Moving, expansion: &Function, args: &[ValueId], of: &Value) -> ValueId {
    let mut map: Vec<ValueId> = args.to_vec();
    for value in &expansion.values[args.len()..] {
        let mut def = value.def.clone();
        if let Def::Op { args, .. } = &mut def {
            renumber(&map, args);
        }
        map.push(moving.add(Value { def, ty: value.ty.clone(), name: None, places: of.places.clone() }));
    }
    map[expansion.returns[0].value.0 as usize]
}
