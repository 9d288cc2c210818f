//! The calls of a schedule's run, with their arguments as the interpreter computes them.

use crate::error::Error;
use crate::session::Session;
use crate::weights::Weights;
use selvedge_ir::interp::Run;
use selvedge_ir::module::Schedule;
use selvedge_ir::{Data, Module, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// One call of a function.
pub(super) struct Call {
    pub function: String,
    pub inputs: BTreeMap<String, Tensor>,
}

type Values = BTreeMap<String, Tensor>;

/// The first call of each function, in the order of the run.
pub(super) fn calls(module: &Module, weights: &Weights, run: &Run) -> Result<Vec<Call>, Error> {
    let schedule = &module.schedule;
    let library = Module { schedule: Schedule::default(), ..module.clone() };
    let mut host = Session::host(library, weights.clone());
    let mut calls: Vec<Call> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut call = |function: &str, layers: &[&Values]| -> Result<Values, Error> {
        let params = module.function(function).map(|f| f.params()).unwrap_or_default();
        let find = |name: &str| layers.iter().find_map(|l| l.get(name)).cloned();
        let inputs: Values = params.iter().filter_map(|(n, _)| Some((n.to_string(), find(n)?))).collect();
        let outputs = host.call(function, &inputs)?;
        if seen.insert(function.to_string()) {
            calls.push(Call { function: function.to_string(), inputs });
        }
        Ok(outputs)
    };
    let prepared = schedule.prepare.as_ref().map(|f| call(f, &[])).transpose()?.unwrap_or_default();
    let conditioned = schedule.condition.as_ref().map(|f| call(f, &[&prepared, &run.inputs])).transpose()?;
    let conditioned = conditioned.unwrap_or_default();
    let mut carried = Values::new();
    if let Some(steps) = &schedule.steps {
        for name in &steps.carry {
            let first = [&conditioned, &prepared, &run.inputs].into_iter().find_map(|l| l.get(name));
            carried.extend(first.map(|t| (name.clone(), t.clone())));
        }
        for (k, &index) in run.steps.iter().enumerate() {
            let rows = steps.tables.iter().filter_map(|t| {
                let table = run.tables.get(&t.name)?;
                Some((t.name.clone(), row(table, t.ty.clone(), k)))
            });
            let rows: Values = rows.collect();
            let layers = [&carried, &rows, &conditioned, &prepared, &run.inputs];
            let outputs = call(&steps.functions[index], &layers)?;
            carried.extend(outputs.into_iter().filter(|(name, _)| steps.carry.contains(name)));
        }
    }
    if let Some(decode) = &schedule.decode {
        call(decode, &[&carried, &conditioned, &prepared, &run.inputs])?;
    }
    Ok(calls)
}

/// Row `k` of a table.
fn row(table: &Tensor, ty: selvedge_ir::TensorType, k: usize) -> Tensor {
    let n = ty.elements().unwrap_or(0);
    let range = k * n..(k + 1) * n;
    let data = match &table.data {
        Data::F32(v) => Data::F32(v[range].to_vec()),
        Data::F64(v) => Data::F64(v[range].to_vec()),
        Data::I32(v) => Data::I32(v[range].to_vec()),
        Data::U32(v) => Data::U32(v[range].to_vec()),
        Data::Bool(v) => Data::Bool(v[range].to_vec()),
    };
    Tensor::new(ty, data)
}
