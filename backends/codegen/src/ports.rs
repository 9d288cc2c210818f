//! Ports of a plan: names with the regions behind them.

use crate::names::Names;
use crate::tensor::Tensor;
use selvedge_bundle::manifest::{PlanSchedule, PlanTabulate, Port, Region};
use selvedge_ir::{Module, TensorType};
use std::collections::BTreeMap;

/// A name with type and regions.
pub fn port(name: &str, ty: &TensorType, tensor: &Tensor) -> Port {
    Port {
        name: name.to_string(),
        dtype: ty.dtype.to_string(),
        shape: ty.shape.sizes().into_iter().map(|s| s as u64).collect(),
        // A tensor that no kernel touches has no memory; it has no elements either.
        regions: if tensor.elements == 0 { Vec::new() } else { tensor.pieces.iter().map(region).collect() },
    }
}

fn region(r: &Region) -> Region {
    *r
}

/// The module's schedule with names resolved; `None` for a library.
pub fn schedule(module: &Module, names: &Names, tensors: &[Tensor]) -> Option<PlanSchedule> {
    let schedule = &module.schedule;
    if schedule.is_empty() {
        return None;
    }
    let ports = |map: &BTreeMap<String, usize>| -> Vec<Port> {
        map.iter().map(|(name, id)| port(name, &names.ty(*id), &tensors[*id])).collect()
    };
    let ordered = |map: &BTreeMap<String, usize>, order: &[String]| -> Vec<Port> {
        let find = |name: &String| map.get(name).map(|id| port(name, &names.ty(*id), &tensors[*id]));
        order.iter().filter_map(find).collect()
    };
    let steps = schedule.steps.clone().unwrap_or_default();
    let tables: Vec<String> = steps.tables.iter().map(|t| t.name.clone()).collect();
    let states: Vec<String> = module.states.iter().map(|s| s.name.clone()).collect();
    // Carried values are traced from their homes.
    let mut traceable = names.outputs[2].clone();
    traceable.extend(names.carry.clone());
    let trace: Vec<String> = schedule.trace.iter().filter(|n| !names.carry.contains_key(*n)).cloned().collect();
    let tabulate = steps.tabulate.as_ref().map(|t| {
        let (rows, homes) = (&names.outputs[4], &names.rows);
        PlanTabulate {
            function: t.function.clone(),
            chunk: t.rows as u64,
            inputs: ports(&names.chunks),
            rows: ports(rows),
            ports: rows.keys().filter_map(|n| homes.get(n).map(|id| port(n, &names.ty(*id), &tensors[*id]))).collect(),
        }
    });
    Some(PlanSchedule {
        inputs: ports(&names.inputs),
        prepare: schedule.prepare.clone(),
        condition: schedule.condition.clone(),
        steps: steps.functions,
        tables: ordered(&names.tables, &tables),
        tabulate,
        carry: ordered(&names.carry, &steps.carry),
        trace: ordered(&traceable, &trace),
        decode: schedule.decode.clone(),
        states: ordered(&names.states, &states),
    })
}
