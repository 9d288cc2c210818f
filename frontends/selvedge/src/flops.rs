//! Floating-point operations of a module, counted from its contractions: 2 for each multiply-add.

use selvedge_ir::func::Def;
use selvedge_ir::{Module, Op};
use selvedge_passes::work;
use std::collections::BTreeMap;

/// Operations of one call of a function; calls inside are counted, symbols count as 0.
pub fn of_function(module: &Module, name: &str) -> u64 {
    count(module, name, &mut BTreeMap::new())
}

/// Operations of one call of a function by the part of the model that they belong to: of all weights behind a value, that of the
/// last part in order counts (what a text encoder gives becomes the transformer's where it meets its weights). `part` tells it of a weight's
/// name. What no weight is behind has no part. Calls count as the function's own.
pub fn by_part(module: &Module, name: &str, part: &dyn Fn(&str) -> usize) -> BTreeMap<Option<usize>, u64> {
    let mut all = BTreeMap::new();
    let Some(function) = module.function(name) else { return all };
    let mut parts: Vec<Option<usize>> = Vec::with_capacity(function.values.len());
    for id in function.ids() {
        let behind = function.reads(id).iter().filter_map(|a| parts.get(a.0 as usize).copied().flatten()).max();
        let own = match &function.value(id).def {
            Def::Op { op: Op::Weight(w), .. } => Some(part(&w.name)),
            Def::Op { .. } | Def::Result { .. } => None,
        };
        parts.push(own.max(behind));
        *all.entry(own.max(behind)).or_default() += work::products(function, id);
    }
    for call in &function.calls {
        let behind = call.args.iter().filter_map(|a| parts.get(a.0 as usize).copied().flatten()).max();
        *all.entry(behind).or_default() += of_function(module, &call.function);
    }
    all.retain(|_, flops| *flops > 0);
    all
}

fn count(module: &Module, name: &str, known: &mut BTreeMap<String, u64>) -> u64 {
    if let Some(&flops) = known.get(name) {
        return flops;
    }
    let Some(function) = module.function(name) else { return 0 };
    known.insert(name.to_string(), 0); // a recursive module is refused by the verifier
    let own: u64 = function.ids().map(|id| work::products(function, id)).sum();
    let inner: u64 = function.calls.iter().map(|c| count(module, &c.function, known)).sum();
    known.insert(name.to_string(), own + inner);
    own + inner
}
