//! A function before emission: what is stored, and the tensor of every stored value.

use super::{Compiler, name_of};
use crate::emit::{Context, internal};
use crate::flat::flatten;
use crate::lower::{by_fours, fuses};
use crate::names::{self, Stage};
use crate::select::{Selection, base, is_data, select, separate};
use crate::tensor::TensorId;
use selvedge_ir::func::Target as Goes;
use selvedge_ir::{DType, Diagnostic, Function, Op, TensorType, ValueId};
use selvedge_shaders::memory::Layout;
use std::collections::HashMap;

/// A function between selection and emission.
pub(super) struct Prepared {
    pub flat: Function,
    /// Composites left whole, with their number in the function.
    pub composites: HashMap<ValueId, usize>,
    pub selection: Selection,
    pub homes: HashMap<ValueId, TensorId>,
    /// Inputs by name.
    pub inputs: Vec<(String, TensorId)>,
    /// Returned values: where they go, their tensor, and the value.
    pub returns: Vec<(Goes, TensorId, ValueId)>,
    /// Tensors that live to the end of the pass, though they are not the plan's.
    pub kept: Vec<TensorId>,
    /// All copies after the pass.
    pub copies: Vec<(TensorId, TensorId)>,
}

impl Compiler<'_> {
    /// Flattens and selects, and gives every stored value a tensor.
    pub(super) fn prepare(&mut self, stage: Stage, function: &Function) -> Result<Prepared, Diagnostic> {
        let expanded = self.forced.expanded.get(&function.name);
        let whole = |number: usize, op: &Op, types: &[&TensorType]| {
            expanded.is_none_or(|e| !e.contains(&number)) && fuses(op, types, self.target)
        };
        let flattened = flatten(self.module, function, &whole, &self.joins, self.target.max_binding_bytes)?;
        let (flat, composites) = (flattened.function, flattened.composites);
        let mut forced = self.forced.stored.get(&flat.name).cloned().unwrap_or_default();
        if self.unfused {
            forced.extend(separate(&flat));
        }
        let selection = select(&flat, &forced);
        let mut p = Prepared {
            flat,
            composites,
            selection,
            homes: HashMap::new(),
            inputs: Vec::new(),
            returns: Vec::new(),
            kept: Vec::new(),
            copies: Vec::new(),
        };
        let early: Vec<String> = [&self.module.schedule.prepare, &self.module.schedule.condition]
            .into_iter()
            .flatten()
            .filter_map(|n| self.module.function(n))
            .flat_map(|f| f.outputs().into_iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>())
            .collect();
        let made_early = |name: &str| early.iter().any(|n| n == name);
        // Each library function has inputs of its own.
        if stage == Stage::Library {
            self.names.inputs.clear();
        }
        for id in p.flat.ids() {
            let ty = p.flat.ty(id).clone();
            let tensor = match p.flat.op(id) {
                Some((Op::Input(input), _)) => {
                    let tensor = match stage {
                        Stage::Library => {
                            self.tensors.push(names::arena(format!("input {}", input.name), &ty)?);
                            p.kept.push(self.tensors.len() - 1);
                            self.tensors.len() - 1
                        }
                        _ => self.names.input(stage, &made_early, &input.name, &ty, &mut self.tensors)?,
                    };
                    p.inputs.push((input.name.clone(), tensor));
                    tensor
                }
                Some((Op::Weight(w), _)) if p.selection.stored[id.0 as usize] => self.weight(stage, &w.name, &ty)?,
                Some((Op::State(s), _)) => *self
                    .names
                    .states
                    .get(&s.name)
                    .ok_or_else(|| internal(format!("state `{}` is not declared", s.name)))?,
                Some((Op::Const(c), _)) if is_data(&p.flat, id) && p.selection.stored[id.0 as usize] => {
                    self.constant(stage, c, &ty)?
                }
                Some(_) | None => continue,
            };
            p.homes.insert(id, tensor);
        }
        for returned in p.flat.returns.clone() {
            let value = base(&p.flat, returned.value);
            let ty = p.flat.ty(returned.value).clone();
            let wanted = self.names.output(stage, &returned.target, &ty, &mut self.tensors)?;
            let tensor = match (p.homes.get(&value).copied(), wanted) {
                (Some(home), Some(wanted)) => {
                    p.copies.push((home, wanted));
                    wanted
                }
                (Some(home), None) => home,
                (None, Some(wanted)) => wanted,
                (None, None) => {
                    self.tensors.push(names::arena(format!("result of {}", p.flat.name), &ty)?);
                    p.kept.push(self.tensors.len() - 1);
                    self.tensors.len() - 1
                }
            };
            p.homes.entry(value).or_insert(tensor);
            if let Goes::State(name) = &returned.target {
                let home =
                    *self.names.states.get(name).ok_or_else(|| internal(format!("state `{name}` is not declared")))?;
                p.copies.push((tensor, home));
            }
            if let Goes::Output(name) = &returned.target
                && let Some(home) = self.names.carry.get(name)
            {
                match stage {
                    Stage::Step | Stage::Condition => p.copies.push((tensor, *home)),
                    Stage::Prepare | Stage::Tabulate | Stage::Decode | Stage::Library => {}
                }
            }
            p.returns.push((returned.target.clone(), tensor, returned.value));
        }
        // What `prepare` makes and the loop carries is its first value in every run.
        if stage == Stage::Condition {
            let made: Vec<(TensorId, TensorId)> = self.names.outputs[0]
                .iter()
                .filter(|(name, _)| !self.names.outputs[1].contains_key(*name))
                .filter_map(|(name, tensor)| Some((*tensor, *self.names.carry.get(name)?)))
                .collect();
            p.copies.extend(made);
        } else if stage == Stage::Prepare
            && self.module.schedule.condition.is_none()
            && let Some(name) = self.names.outputs[0].keys().find(|n| self.names.carry.contains_key(*n))
        {
            return Err(Diagnostic::new(
                "codegen schedule",
                format!(
                    "`prepare` makes the carried value `{name}`, and there is no `condition` to start a run with it"
                ),
            )
            .help("make it in `condition`"));
        }
        for unit in &p.selection.units {
            let id = unit.result();
            if !p.homes.contains_key(&id) {
                let context = Context { function: &p.flat, homes: &p.homes };
                let half = matches!(p.flat.ty(id).dtype, DType::F16 | DType::BF16);
                let layout = if half && by_fours(context, unit) { Layout::Packed } else { Layout::Words };
                self.tensors.push(names::tensor(name_of(&p.flat, id), p.flat.ty(id), layout)?);
                p.homes.insert(id, self.tensors.len() - 1);
            }
        }
        Ok(p)
    }
}
