//! `fold-constants`: small values that depend on constants alone.

use crate::Pass;
use crate::rebuild::rebuild;
use selvedge_ir::attr::Literal;
use selvedge_ir::op::OpClass;
use selvedge_ir::ops::Const;
use selvedge_ir::{Diagnostic, Function, Module, Op, Precision, Tensor, TensorType, ValueId};

/// Evaluates what reads no input, weight or state, in f32, where nothing on the way is larger than the limit.
///
/// Views that repeat or reorder, and `iota`, are left: they cost nothing where they are read.
pub struct FoldConstants {
    /// Elements that a folded value, and every value it is computed from, may have at most.
    pub limit: usize,
}

impl Pass for FoldConstants {
    fn name(&self) -> &'static str {
        "fold-constants"
    }
    fn summary(&self) -> &'static str {
        "evaluates small values that depend on constants alone"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        for function in &mut module.functions {
            let mut values = self.values(function);
            let folds =
                |id: &ValueId| values[id.0 as usize].is_some() && function.op(*id).is_some_and(|(op, _)| worth(op));
            if !function.ids().any(|id| folds(&id)) {
                continue;
            }
            *function = rebuild(function, |r, id, op, args| match values[id.0 as usize].take() {
                Some(tensor) if worth(op) => {
                    let data = Literal::from(&tensor);
                    r.to.try_push(Const { data, ty: tensor.ty }, &[])
                }
                _ => r.copy(op, args),
            })?;
        }
        Ok(module)
    }
}

/// Leaves and views cost nothing where they are read.
fn worth(op: &Op) -> bool {
    !matches!(op.class(), OpClass::Leaf | OpClass::View)
}

impl FoldConstants {
    /// The value of each id, where it is constant and small.
    fn values(&self, function: &Function) -> Vec<Option<Tensor>> {
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(function.values.len());
        for id in function.ids() {
            let value = self.value(function, id, &values);
            values.push(value);
        }
        values
    }
    fn value(&self, function: &Function, id: ValueId, known: &[Option<Tensor>]) -> Option<Tensor> {
        let (op, args) = function.op(id)?;
        if matches!(op, Op::Input(_) | Op::Weight(_) | Op::State(_)) {
            return None;
        }
        let args: Vec<&Tensor> = args.iter().map(|a| known[a.0 as usize].as_ref()).collect::<Option<_>>()?;
        let ty: &TensorType = function.ty(id);
        if ty.elements()? > self.limit {
            return None;
        }
        Some(op.eval(&args, ty, Precision::F32))
    }
}
