//! What names mean: the tensors behind inputs, outputs, states and weights of the functions that a plan holds.

use crate::emit::internal;
use crate::tensor::{Tensor, TensorId};
use selvedge_ir::func::Target as Goes;
use selvedge_ir::module::Schedule;
use selvedge_ir::{DType, Diagnostic, Function, Module, Shape, TensorType};
use selvedge_shaders::memory::Layout;
use std::collections::BTreeMap;

/// When a function runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// At load.
    Prepare,
    /// Once a run.
    Condition,
    /// Before each chunk of steps.
    Tabulate,
    /// Once a step.
    Step,
    /// After the loop.
    Decode,
    /// When it is called: the module is a library.
    Library,
}

/// Tensors that outlive a function, by what names them.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Inputs of the run.
    pub inputs: BTreeMap<String, TensorId>,
    /// Homes of carried values.
    pub carry: BTreeMap<String, TensorId>,
    /// Rows of tables.
    pub tables: BTreeMap<String, TensorId>,
    /// So many rows of tables as `tabulate` reads.
    pub chunks: BTreeMap<String, TensorId>,
    /// Rows of what `tabulate` gives; [`Names::outputs`] has all of them.
    pub rows: BTreeMap<String, TensorId>,
    /// State variables.
    pub states: BTreeMap<String, TensorId>,
    /// Outputs of `prepare`, `condition`, the steps (but for carried ones), `decode` and `tabulate`.
    pub outputs: [BTreeMap<String, TensorId>; 5],
    types: BTreeMap<TensorId, TensorType>,
}

/// A tensor of the arena.
pub fn arena(label: impl Into<String>, ty: &TensorType) -> Result<Tensor, Diagnostic> {
    tensor(label, ty, Layout::Words)
}

/// A tensor as a checkpoint has it.
pub fn weight(name: &str, ty: &TensorType) -> Result<Tensor, Diagnostic> {
    tensor(name, ty, Layout::Packed)
}

/// A tensor with a layout.
pub fn tensor(label: impl Into<String>, ty: &TensorType, layout: Layout) -> Result<Tensor, Diagnostic> {
    let label = label.into();
    let Some(elements) = ty.elements() else {
        return Err(Diagnostic::new("codegen shape", format!("`{label}` is {ty}, which still has symbols"))
            .help("specialise the module's symbols before compiling"));
    };
    if let DType::Packed(_) = ty.dtype {
        return Err(Diagnostic::new(
            "codegen dtype",
            format!("weight `{label}` is {ty}; quantised weights have no kernels yet"),
        )
        .help("convert the checkpoint to f16 or bf16"));
    }
    Ok(Tensor { label, dtype: ty.dtype, layout, elements: elements as u64, panels: None, pieces: Vec::new() })
}

impl Names {
    /// Names of a module's states and schedule.
    ///
    /// # Errors
    /// A shape with symbols.
    pub fn new(module: &Module, tensors: &mut Vec<Tensor>) -> Result<Names, Diagnostic> {
        let mut names = Names::default();
        for state in &module.states {
            let id = names.add(tensors, &format!("state {}", state.name), &state.ty)?;
            names.states.insert(state.name.clone(), id);
        }
        if let Some(steps) = &module.schedule.steps {
            for table in &steps.tables {
                let id = names.add(tensors, &format!("table {}", table.name), &table.ty)?;
                names.tables.insert(table.name.clone(), id);
            }
            let first = steps.functions.first().and_then(|f| module.function(f));
            for name in &steps.carry {
                let input = first.and_then(|f| f.params().into_iter().find(|(n, _)| n == name).map(|(_, id)| f.ty(id)));
                let ty = input.ok_or_else(|| internal(format!("`{name}` is carried and no input of the step")))?;
                let id = names.add(tensors, &format!("carry {name}"), ty)?;
                names.carry.insert(name.clone(), id);
            }
            if let Some(tabulate) = &steps.tabulate {
                let function = module.function(&tabulate.function);
                for (name, id) in function.iter().flat_map(|f| f.params()) {
                    if steps.tables.iter().any(|t| t.name == name) {
                        let ty = function.map(|f| f.ty(id).clone()).expect("its own parameter");
                        let id = names.add(tensors, &format!("rows of {name}"), &ty)?;
                        names.chunks.insert(name.to_string(), id);
                    }
                }
                for (name, id) in function.iter().flat_map(|f| f.outputs()) {
                    let ty = function.map(|f| f.ty(id).clone()).expect("its own result");
                    let row = TensorType { dtype: ty.dtype, shape: Shape(ty.shape.0[1..].to_vec()) };
                    let id = names.add(tensors, &format!("row {name}"), &row)?;
                    names.rows.insert(name.to_string(), id);
                }
            }
        }
        Ok(names)
    }
    fn add(&mut self, tensors: &mut Vec<Tensor>, label: &str, ty: &TensorType) -> Result<TensorId, Diagnostic> {
        tensors.push(arena(label, ty)?);
        self.types.insert(tensors.len() - 1, ty.clone());
        Ok(tensors.len() - 1)
    }
    /// The tensor that an input of a function is bound to.
    ///
    /// # Errors
    /// One name with two types.
    pub fn input(
        &mut self,
        stage: Stage,
        made_early: &dyn Fn(&str) -> bool,
        name: &str,
        ty: &TensorType,
        tensors: &mut Vec<Tensor>,
    ) -> Result<TensorId, Diagnostic> {
        let [prepared, conditioned, ..] = &self.outputs;
        let carried = self.carry.get(name);
        let found = match stage {
            Stage::Prepare | Stage::Library => None,
            // Before the loop a carried value is the run's first value, unless an earlier stage makes that.
            Stage::Condition => prepared.get(name).or(carried.filter(|_| !made_early(name))),
            Stage::Tabulate => self.chunks.get(name).or(conditioned.get(name)).or(prepared.get(name)),
            Stage::Step => {
                let row = self.tables.get(name).or(self.rows.get(name));
                carried.or(row).or(conditioned.get(name)).or(prepared.get(name))
            }
            Stage::Decode => carried.or(conditioned.get(name)).or(prepared.get(name)),
        };
        let id = match found.or(self.inputs.get(name)).copied() {
            Some(id) => id,
            None => {
                let id = self.add(tensors, &format!("input {name}"), ty)?;
                self.inputs.insert(name.to_string(), id);
                id
            }
        };
        match self.types.get(&id) {
            Some(known) if known != ty => {
                Err(Diagnostic::new("codegen names", format!("`{name}` has two types")).expected_found(known, ty))
            }
            Some(_) | None => Ok(id),
        }
    }
    /// The tensor that an output of a function must be in; `None` if any will do (it is copied from there).
    ///
    /// # Errors
    /// One name with two types.
    pub fn output(
        &mut self,
        stage: Stage,
        target: &Goes,
        ty: &TensorType,
        tensors: &mut Vec<Tensor>,
    ) -> Result<Option<TensorId>, Diagnostic> {
        let Goes::Output(name) = target else { return Ok(None) };
        let table = match stage {
            Stage::Prepare => 0,
            Stage::Condition => 1,
            Stage::Step if self.carry.contains_key(name) => return Ok(None),
            Stage::Step => 2,
            Stage::Decode => 3,
            Stage::Tabulate => 4,
            Stage::Library => return Ok(None),
        };
        let id = match self.outputs[table].get(name) {
            Some(id) => *id,
            None => {
                let id = self.add(tensors, &format!("output {name}"), ty)?;
                self.outputs[table].insert(name.clone(), id);
                id
            }
        };
        match self.types.get(&id) {
            Some(known) if known != ty => {
                Err(Diagnostic::new("codegen names", format!("`{name}` has two types")).expected_found(known, ty))
            }
            Some(_) | None => Ok(Some(id)),
        }
    }
    /// The type of a named tensor.
    pub fn ty(&self, id: TensorId) -> TensorType {
        self.types.get(&id).cloned().expect("every named tensor has a type")
    }
    /// Tensors that live for good, in a fixed order.
    pub fn persistent(&self) -> Vec<TensorId> {
        let maps = [&self.inputs, &self.carry, &self.tables, &self.chunks, &self.rows, &self.states];
        let maps = maps.into_iter().chain(&self.outputs[..4]);
        let mut all: Vec<TensorId> = maps.flat_map(|m| m.values().copied()).collect();
        all.sort_unstable();
        all
    }
    /// Tensors that `tabulate` fills and steps are given rows of, in a fixed order. They have buffers of their own, so that a
    /// row is copied from one buffer to another.
    pub fn tabulated(&self) -> Vec<TensorId> {
        self.outputs[4].values().copied().collect()
    }
}

/// The functions of a plan in order, each once, with the stage that it serves.
///
/// # Errors
/// The schedule names a function that does not exist, or one for two stages.
pub fn functions(module: &Module) -> Result<Vec<(Stage, &Function)>, Diagnostic> {
    let Schedule { prepare, condition, steps, decode, .. } = &module.schedule;
    if module.schedule.is_empty() {
        return Ok(module.functions.iter().map(|f| (Stage::Library, f)).collect());
    }
    let mut wanted: Vec<(Stage, &String)> = Vec::new();
    wanted.extend(prepare.iter().map(|n| (Stage::Prepare, n)));
    wanted.extend(condition.iter().map(|n| (Stage::Condition, n)));
    wanted.extend(steps.iter().filter_map(|s| s.tabulate.as_ref()).map(|t| (Stage::Tabulate, &t.function)));
    wanted.extend(steps.iter().flat_map(|s| &s.functions).map(|n| (Stage::Step, n)));
    wanted.extend(decode.iter().map(|n| (Stage::Decode, n)));
    let mut all: Vec<(Stage, &Function)> = Vec::new();
    for (stage, name) in wanted {
        let function = module
            .function(name)
            .ok_or_else(|| Diagnostic::new("codegen schedule", format!("there is no function `{name}`")))?;
        match all.iter().find(|(_, f)| f.name == *name) {
            None => all.push((stage, function)),
            Some((other, _)) if *other == stage => {}
            Some(_) => {
                return Err(Diagnostic::new("codegen schedule", format!("function `{name}` serves two stages"))
                    .help("give each stage a function of its own"));
            }
        }
    }
    Ok(all)
}
