//! `expand-composites`: only core operators are left.

use crate::Pass;
use crate::rebuild::rebuild;
use selvedge_ir::op::OpClass;
use selvedge_ir::{Diagnostic, Module, Op, OpKind};

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
            *function = rebuild(function, |r, id, op, args| {
                if whole(op) {
                    return r.copy(op, args);
                }
                match op.expand(&mut r.to, args) {
                    Some(result) => {
                        let place = r.from.value(id).places.first().copied();
                        result.map_err(|e| e.diagnostic(op.kind().text()).at(place))
                    }
                    None => r.copy(op, args),
                }
            })?;
        }
        Ok(module)
    }
}
