//! `store-weights`: the element type in which weights are kept.

use crate::Pass;
use crate::rebuild::{Rebuild, rebuild_with};
use selvedge_ir::op::OpClass;
use selvedge_ir::ops::Map;
use selvedge_ir::scalar::Body;
use selvedge_ir::{DType, Diagnostic, Function, Module, Op, TensorType, ValueId};
use std::collections::{BTreeSet, HashMap};

/// Stores the float weights of products, convolutions and lookups as `dtype`; whoever has the bytes rounds them.
///
/// Products read them as they are stored and accumulate in f32; every other reader gets them widened to the type it
/// had. Vectors and tables that only maps and norms read keep their type: they weigh nothing, and norms stay in f32.
pub struct StoreWeights {
    /// f32, f16 or bf16.
    pub dtype: DType,
}

impl Pass for StoreWeights {
    fn name(&self) -> &'static str {
        "store-weights"
    }
    fn summary(&self) -> &'static str {
        "stores the weights of products, convolutions and lookups in another float type"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        if !self.dtype.is_float() {
            return Err(Diagnostic::new("store-weights", format!("weights are not stored as {}", self.dtype))
                .expected_found("f32, f16 or bf16", self.dtype));
        }
        let (mut wanted, mut refused) = (BTreeSet::new(), BTreeSet::new());
        module.functions.iter().for_each(|f| uses(f, &mut wanted, &mut refused));
        let chosen: BTreeSet<&String> = wanted.difference(&refused).collect();
        let restored = |ty: &TensorType| TensorType { dtype: self.dtype, shape: ty.shape.clone() };
        for weight in module.weights.iter_mut().filter(|w| chosen.contains(&w.name)) {
            weight.ty = restored(&weight.ty);
        }
        for function in &mut module.functions {
            let mut widened: HashMap<ValueId, ValueId> = HashMap::new();
            let original = function.clone();
            *function = rebuild_with(
                &original,
                |r, id, op, args| match op {
                    Op::Weight(w) if chosen.contains(&w.name) => {
                        let mut weight = w.clone();
                        weight.ty = restored(&w.ty);
                        r.copy(&weight.into(), args)
                    }
                    _ if passes_on(op) => r.copy(op, args),
                    Op::Contract(_) => r.copy(op, args),
                    Op::Window(_) if args.len() == 2 => {
                        let x = widen(r, &mut widened, original.op(id).map_or(args[0], |(_, a)| a[0]), args[0])?;
                        r.copy(op, &[x, args[1]])
                    }
                    _ => {
                        let before = original.op(id).map(|(_, a)| a.to_vec()).unwrap_or_default();
                        let args: Result<Vec<ValueId>, Diagnostic> =
                            before.iter().zip(args).map(|(old, new)| widen(r, &mut widened, *old, *new)).collect();
                        r.copy(op, &args?)
                    }
                },
                &|ty| ty.clone(),
                |r, callee, args, types| Ok(r.to.call(callee, args, types)),
            )?;
        }
        Ok(module)
    }
}

/// The stand-in in the type that the value had.
fn widen(
    r: &mut Rebuild,
    widened: &mut HashMap<ValueId, ValueId>,
    old: ValueId,
    new: ValueId,
) -> Result<ValueId, Diagnostic> {
    let dtype = r.from.ty(old).dtype;
    if r.to.ty(new).dtype == dtype {
        return Ok(new);
    }
    if let Some(known) = widened.get(&new) {
        return Ok(*known);
    }
    let cast = r.copy(&Map { body: Body::cast(dtype) }.into(), &[new])?;
    widened.insert(new, cast);
    Ok(cast)
}

/// Operators that only move elements, so that a weight's type passes through.
fn passes_on(op: &Op) -> bool {
    match op {
        Op::Transpose(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Slice(_) | Op::Gather(_) => true,
        Op::Input(_)
        | Op::Weight(_)
        | Op::State(_)
        | Op::Const(_)
        | Op::Iota(_)
        | Op::Map(_)
        | Op::Reduce(_)
        | Op::Contract(_)
        | Op::Window(_)
        | Op::Scan(_)
        | Op::Pad(_)
        | Op::Concat(_)
        | Op::Scatter(_)
        | Op::Topk(_)
        | Op::Softmax(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::GroupNorm(_)
        | Op::Attention(_)
        | Op::LocalAttention(_)
        | Op::Rope(_)
        | Op::PoolTokens(_)
        | Op::Resize(_) => false,
    }
}

/// Adds the weights that products, kernels and lookups read, and those that leave the function as they are.
fn uses(function: &Function, wanted: &mut BTreeSet<String>, refused: &mut BTreeSet<String>) {
    let weight = |mut id: ValueId| loop {
        match function.op(id) {
            Some((Op::Weight(w), _)) => return w.ty.dtype.is_float().then(|| w.name.clone()),
            Some((op, args)) if passes_on(op) => id = args[0],
            Some(_) | None => return None,
        }
    };
    for id in function.ids() {
        let Some((op, args)) = function.op(id) else { continue };
        match op.class() {
            OpClass::Contract => wanted.extend(args.iter().filter_map(|a| weight(*a))),
            OpClass::Window => wanted.extend(args.iter().skip(1).filter_map(|a| weight(*a))),
            OpClass::Index if matches!(op, Op::Gather(_)) => wanted.extend(weight(args[0])),
            OpClass::Leaf
            | OpClass::Map
            | OpClass::Reduce
            | OpClass::Scan
            | OpClass::View
            | OpClass::Index
            | OpClass::Composite => {}
        }
    }
    refused.extend(function.returns.iter().filter_map(|r| weight(r.value)));
    refused.extend(function.calls.iter().flat_map(|c| &c.args).filter_map(|a| weight(*a)));
}
