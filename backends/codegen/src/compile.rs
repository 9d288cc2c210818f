//! Module and target to plan and kernels.

use crate::access::{Access, Tensor, TensorId, Touch, Windows, may_fit, padded};
use crate::emit::{Context, internal};
use crate::flat::flatten;
use crate::lower::{Job, Lowering, Shader, lower};
use crate::memory::{Lifetime, Space};
use crate::names::{self, Names, Stage};
use crate::select::{Selection, Unit, base, divide, is_data, select};
use crate::target::Target;
use crate::{ports, text, verify};
use selvedge_bundle::manifest::{
    Access as Usage, Copy, Dispatch, FORMAT, Kernel, Manifest, Plan, PlanFunction, Region, Requirements, Weight, WeightSlot,
};
use selvedge_ir::func::Target as Goes;
use selvedge_ir::{Diagnostic, Diagnostics, Function, Module, Op, ValueId};
use selvedge_shaders::memory::Layout;
use selvedge_shaders::source::Access as Binding;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// What a caller may choose.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// What the compiled size is, for people and for choosing among plans: `batch=2 height=28 width=28`.
    pub size: String,
}

/// A compiled module: everything of a bundle but the checkpoint's bytes.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The plan in a manifest. Weights of the checkpoint have an empty `hash` and no `link`: whoever has the bytes
    /// fills them in.
    pub manifest: Manifest,
    /// WGSL of each kernel, by kernel index.
    pub kernels: Vec<String>,
    /// Bytes of weights that come from the module instead of a checkpoint, by weight index.
    pub constants: BTreeMap<u32, Vec<u8>>,
}

impl Compiled {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.manifest.plans[0]
    }
    /// The plan as text.
    pub fn text(&self) -> String {
        text::plan(&self.manifest, self.plan())
    }
}

/// Compiles a module whose shapes are numbers: the functions of its schedule, or all functions if it has none.
///
/// The result depends on nothing but the arguments.
///
/// # Errors
/// Symbols that are left, quantised weights, limits of the target that no splitting meets (the operator and the
/// limit are named), or a fault of the compiler.
pub fn compile(module: &Module, target: &Target, options: &Options) -> Result<Compiled, Diagnostics> {
    let mut forced: Forced = BTreeMap::new();
    loop {
        match Compiler::new(module, target, &forced)?.run(options) {
            Ok(compiled) => {
                verify::verify(compiled.plan(), &compiled.manifest, target)?;
                return Ok(compiled);
            }
            // A kernel binds too much: one value inside it is stored, and all is done again.
            Err(Failure::Crowded { function, value }) => forced.entry(function).or_default().push(value),
            Err(Failure::Refused(errors)) => return Err(errors),
        }
    }
}

/// Values of flat functions that must be stored, by function.
type Forced = BTreeMap<String, Vec<ValueId>>;

/// Why a compilation stopped.
enum Failure {
    /// What the caller is told.
    Refused(Diagnostics),
    /// A kernel would fit the target if this value were stored.
    Crowded { function: String, value: ValueId },
}

impl From<Diagnostic> for Failure {
    fn from(d: Diagnostic) -> Failure {
        Failure::Refused(d.into())
    }
}

struct Compiler<'m> {
    module: &'m Module,
    target: &'m Target,
    forced: &'m Forced,
    tensors: Vec<Tensor>,
    names: Names,
    /// Weights in manifest order, and their tensors.
    weights: Vec<Weight>,
    weight_tensors: Vec<TensorId>,
    constants: BTreeMap<u32, Vec<u8>>,
    kernels: Vec<Kernel>,
    texts: Vec<String>,
    known: HashMap<String, u32>,
    needs: Requirements,
}

/// A function between selection and emission.
struct Prepared {
    flat: Function,
    selection: Selection,
    homes: HashMap<ValueId, TensorId>,
    /// Inputs by name.
    inputs: Vec<(String, TensorId)>,
    /// Returned values: where they go, their tensor, and the value.
    returns: Vec<(Goes, TensorId, ValueId)>,
    /// Tensors that live to the end of the pass, though they are not the plan's.
    kept: Vec<TensorId>,
    /// All copies after the pass.
    copies: Vec<(TensorId, TensorId)>,
}

impl<'m> Compiler<'m> {
    fn new(module: &'m Module, target: &'m Target, forced: &'m Forced) -> Result<Self, Diagnostics> {
        let mut tensors = Vec::new();
        let names = Names::new(module, &mut tensors)?;
        let needs = Requirements {
            name: target.name.clone(),
            features: Vec::new(),
            subgroup_size: None,
            max_binding_bytes: 0,
            max_buffer_bytes: 0,
            storage_buffers: 0,
            invocations: 0,
            workgroup_bytes: 0,
        };
        Ok(Compiler {
            module,
            target,
            forced,
            tensors,
            names,
            weights: Vec::new(),
            weight_tensors: Vec::new(),
            constants: BTreeMap::new(),
            kernels: Vec::new(),
            texts: Vec::new(),
            known: HashMap::new(),
            needs,
        })
    }

    fn run(mut self, options: &Options) -> Result<Compiled, Failure> {
        let functions = names::functions(self.module)?;
        let mut prepared = Vec::new();
        let mut errors = Vec::new();
        for (stage, function) in &functions {
            match self.prepare(*stage, function) {
                Ok(p) => prepared.push(p),
                Err(e) => errors.push(e),
            }
        }
        if !errors.is_empty() {
            return Err(Failure::Refused(Diagnostics(errors)));
        }
        let mut weights = Space::new("weights", Usage::Read, 0, self.target.max_buffer_bytes);
        self.weight_tensors.iter().for_each(|t| weights.append(&mut self.tensors[*t]));
        let base = weights.buffers().len() as u32;
        let mut arena = Space::new("arena", Usage::ReadWrite, base, self.target.max_buffer_bytes);
        self.names.persistent().into_iter().for_each(|t| arena.append(&mut self.tensors[t]));
        let floor = arena.floor();
        let mut plan_functions = Vec::new();
        for p in &prepared {
            match self.function(p, &mut arena, &floor) {
                Ok(f) => plan_functions.push(f),
                Err(Failure::Refused(e)) => errors.extend(e.0),
                Err(crowded @ Failure::Crowded { .. }) => return Err(crowded),
            }
        }
        if !errors.is_empty() {
            return Err(Failure::Refused(Diagnostics(errors)));
        }
        let buffers: Vec<_> = weights.buffers().into_iter().chain(arena.buffers()).collect();
        self.needs.max_buffer_bytes = buffers.iter().map(|b| b.bytes).max().unwrap_or(0);
        let mut slots = Vec::new();
        for (weight, tensor) in self.weight_tensors.iter().enumerate() {
            let mut start = 0;
            let w = &self.weights[weight];
            let bytes = selvedge_bundle::weight_bytes(&w.dtype, &w.shape)
                .ok_or_else(|| internal(format!("weight `{}` has no size", w.name)))?;
            for region in &self.tensors[*tensor].pieces {
                // A region is whole words; the last half word of an odd number of halves is no part of the weight.
                let region = Region { bytes: region.bytes.min(bytes - start), ..*region };
                slots.push(WeightSlot { weight: weight as u32, start, region });
                start += region.bytes;
            }
        }
        let plan = Plan {
            size: options.size.clone(),
            buffers,
            weights: slots,
            functions: plan_functions,
            schedule: ports::schedule(self.module, &self.names, &self.tensors),
        };
        let manifest = Manifest {
            format: FORMAT,
            producer: concat!("selvedge ", env!("CARGO_PKG_VERSION")).to_string(),
            name: self.module.name.clone(),
            target: self.needs,
            weights: self.weights,
            kernels: self.kernels,
            plans: vec![plan],
            pipeline: serde_json::Value::Null,
        };
        Ok(Compiled { manifest, kernels: self.texts, constants: self.constants })
    }

    /// Flattens and selects, and gives every stored value a tensor.
    fn prepare(&mut self, stage: Stage, function: &Function) -> Result<Prepared, Diagnostic> {
        let flat = flatten(self.module, function)?;
        let forced = self.forced.get(&flat.name).map_or(&[][..], |f| f);
        let selection = select(&flat, forced);
        let mut p = Prepared {
            flat,
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
                Some((Op::Weight(w), _)) if p.selection.stored[id.0 as usize] => self.weight(&w.name, &ty)?,
                Some((Op::State(s), _)) => *self
                    .names
                    .states
                    .get(&s.name)
                    .ok_or_else(|| internal(format!("state `{}` is not declared", s.name)))?,
                Some((Op::Const(c), _)) if is_data(&p.flat, id) && p.selection.stored[id.0 as usize] => {
                    self.constant(c, &ty)?
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
                let home = *self
                    .names
                    .states
                    .get(name)
                    .ok_or_else(|| internal(format!("state `{name}` is not declared")))?;
                p.copies.push((tensor, home));
            }
            if let Goes::Output(name) = &returned.target
                && let Some(home) = self.names.carry.get(name)
            {
                match stage {
                    Stage::Step | Stage::Condition => p.copies.push((tensor, *home)),
                    Stage::Prepare | Stage::Decode | Stage::Library => {}
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
                format!("`prepare` makes the carried value `{name}`, and there is no `condition` to start a run with it"),
            )
            .help("make it in `condition`"));
        }
        for unit in &p.selection.units {
            let id = unit.result();
            if !p.homes.contains_key(&id) {
                self.tensors.push(names::arena(name_of(&p.flat, id), p.flat.ty(id))?);
                p.homes.insert(id, self.tensors.len() - 1);
            }
        }
        Ok(p)
    }

    fn weight(&mut self, name: &str, ty: &selvedge_ir::TensorType) -> Result<TensorId, Diagnostic> {
        if let Some(i) = self.weights.iter().position(|w| w.name == name) {
            return Ok(self.weight_tensors[i]);
        }
        self.tensors.push(names::weight(name, ty)?);
        self.weights.push(Weight {
            name: name.to_string(),
            dtype: ty.dtype.to_string(),
            shape: ty.shape.sizes().into_iter().map(|s| s as u64).collect(),
            hash: String::new(),
            link: None,
        });
        self.weight_tensors.push(self.tensors.len() - 1);
        Ok(self.tensors.len() - 1)
    }

    /// A constant as a weight of its own, named by its contents.
    fn constant(&mut self, c: &selvedge_ir::ops::Const, ty: &selvedge_ir::TensorType) -> Result<TensorId, Diagnostic> {
        // A bool takes a word on the device.
        let bytes: Vec<u8> = match ty.dtype {
            selvedge_ir::DType::Bool => c.data.0.iter().flat_map(|b| u32::from(*b != 0).to_le_bytes()).collect(),
            _ => c.data.0.to_vec(),
        };
        let hash = selvedge_bundle::hash(&bytes);
        let tensor = self.weight(&format!("const:{ty}:{hash}"), ty)?;
        let index = self.weight_tensors.iter().position(|t| *t == tensor).expect("the weight was just found");
        self.weights[index].hash = hash;
        self.constants.insert(index as u32, bytes);
        Ok(tensor)
    }

    /// Lowers, plans memory and emits.
    fn function(&mut self, p: &Prepared, arena: &mut Space, floor: &[u64]) -> Result<PlanFunction, Failure> {
        let mut extra: Vec<Tensor> = Vec::new();
        let mut jobs: Vec<(&Unit, Job)> = Vec::new();
        for unit in &p.selection.units {
            let mut chunk = u64::MAX;
            loop {
                let (made, scratch) = self.lower(p, unit, chunk, extra.len())?;
                let longest = made.iter().map(|j| j.summed).max().unwrap_or(0);
                if longest > 4 && !self.may_fit(&made, &extra, &scratch)? {
                    chunk = longest / 2;
                    continue;
                }
                jobs.extend(made.into_iter().map(|job| (unit, job)));
                extra.extend(scratch);
                break;
            }
        }
        self.tensors.extend(extra);
        let mut lifetimes: BTreeMap<TensorId, Lifetime> = BTreeMap::new();
        for (at, (_, job)) in jobs.iter().enumerate() {
            let mut access = Access::collecting(&self.tensors);
            (job.emit)(0..job.outer, &mut access)?;
            for touch in access.touches() {
                let life = lifetimes.entry(touch.tensor).or_insert(Lifetime { tensor: touch.tensor, first: at, last: at });
                life.last = at;
            }
        }
        for tensor in &p.kept {
            let first = if p.inputs.iter().any(|(_, t)| t == tensor) { 0 } else { usize::MAX };
            let life = lifetimes.entry(*tensor).or_insert(Lifetime { tensor: *tensor, first, last: 0 });
            (life.first, life.last) = (life.first.min(first), usize::MAX);
        }
        // Everything else without memory is scratch; what is never touched (an empty result) needs none.
        let lifetimes: Vec<Lifetime> =
            lifetimes.into_values().filter(|l| self.tensors[l.tensor].pieces.is_empty()).collect();
        arena.place(&lifetimes, floor, &mut self.tensors);

        let mut dispatches = Vec::new();
        for (unit, job) in &jobs {
            let usages = self.usages(arena);
            self.dispatch(p, unit, job, 0..job.outer, &usages, &mut dispatches)?;
        }
        let region_pairs = |(from, to): &(TensorId, TensorId)| {
            let (from, to) = (&self.tensors[*from].pieces, &self.tensors[*to].pieces);
            from.iter().zip(to).map(|(s, d)| Copy { source: *s, destination: *d }).collect::<Vec<_>>()
        };
        let copies = p.copies.iter().filter(|(a, b)| a != b).flat_map(region_pairs).filter(|c| c.source.bytes > 0);
        Ok(PlanFunction {
            name: p.flat.name.clone(),
            inputs: p
                .inputs
                .iter()
                .zip(p.flat.params())
                .map(|((name, tensor), (_, id))| ports::port(name, p.flat.ty(id), &self.tensors[*tensor]))
                .collect(),
            outputs: p
                .returns
                .iter()
                .filter_map(|(target, tensor, value)| match target {
                    Goes::Output(name) => Some(ports::port(name, p.flat.ty(*value), &self.tensors[*tensor])),
                    Goes::State(_) => None,
                })
                .collect(),
            copies: copies.collect(),
            dispatches,
        })
    }

    /// The jobs of a unit and their scratch tensors, which come behind `before` others of the function.
    fn lower<'p>(
        &self,
        p: &'p Prepared,
        unit: &Unit,
        chunk: u64,
        before: usize,
    ) -> Result<(Vec<Job<'p>>, Vec<Tensor>), Diagnostic>
    where
        'm: 'p,
    {
        let mut made: Vec<Tensor> = Vec::new();
        let first = self.tensors.len() + before;
        let mut scratch = |label: &str, dtype, elements| {
            let label = format!("{label} of {}", name_of(&p.flat, unit.root()));
            made.push(Tensor { label, dtype, layout: Layout::Words, elements, pieces: Vec::new() });
            first + made.len() - 1
        };
        let context = Context { function: &p.flat, homes: &p.homes };
        let mut lowering =
            Lowering { context, target: self.target, tensors: &self.tensors, chunk, scratch: &mut scratch };
        let jobs = lower(&mut lowering, unit)?;
        Ok((jobs, made))
    }

    /// Whether the target's bindings can hold the smallest parts of jobs.
    fn may_fit(&self, jobs: &[Job], extra: &[Tensor], scratch: &[Tensor]) -> Result<bool, Diagnostic> {
        let large = |t: &Tensor| padded(t.bytes()) > self.target.max_binding_bytes;
        if ![&self.tensors, extra, scratch].into_iter().flatten().any(large) {
            return Ok(true);
        }
        let tensors: Vec<Tensor> = [&self.tensors, extra, scratch].concat();
        for job in jobs {
            for start in [0, job.outer - 1] {
                let mut access = Access::collecting(&tensors);
                (job.emit)(start..start + 1, &mut access)?;
                if !may_fit(access.touches(), &tensors, self.target) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Usage of each buffer by index.
    fn usages(&self, arena: &Space) -> Vec<Usage> {
        let mut usages = vec![Usage::Read; arena.base() as usize];
        usages.extend(arena.buffers().iter().map(|b| b.access));
        usages
    }

    /// Emits a range of a job; halves it while the target has too few bindings for it.
    fn dispatch(
        &mut self,
        p: &Prepared,
        unit: &Unit,
        job: &Job,
        range: Range<u64>,
        usages: &[Usage],
        out: &mut Vec<Dispatch>,
    ) -> Result<(), Failure> {
        let context = Context { function: &p.flat, homes: &p.homes };
        let mut access = Access::collecting(&self.tensors);
        (job.emit)(range.clone(), &mut access)?;
        let touches = access.touches().to_vec();
        let Some(windows) = Windows::new(&touches, &self.tensors, usages, self.target) else {
            let length = range.end - range.start;
            if length < 2 {
                if let Some(value) = divide(&p.flat, &p.selection, unit) {
                    return Err(Failure::Crowded { function: p.flat.name.clone(), value });
                }
                return Err(crate::lower::refuse(
                    context,
                    unit.root(),
                    format!(
                        "target `{}` binds at most {} buffers of {} bytes, too few for {} tensors in a kernel",
                        self.target.name,
                        self.target.storage_buffers,
                        self.target.max_binding_bytes,
                        touches.len()
                    ),
                )
                .help("compile for a device with larger bindings, or for a smaller size")
                .into());
            }
            let middle = range.start + length / 2;
            self.dispatch(p, unit, job, range.start..middle, usages, out)?;
            return self.dispatch(p, unit, job, middle..range.end, usages, out);
        };
        let bindings = windows.bindings.clone();
        let mut access = Access::through(&self.tensors, windows);
        let shader = (job.emit)(range.clone(), &mut access)?;
        let helpers = access.helpers();
        let share = |x: u64| (x as u128 * (range.end - range.start) as u128 / job.outer.max(1) as u128) as u64;
        let (groups, flops) = (shader.grid, share(job.flops));
        let kernel = self.kernel(context, unit, shader, helpers, &bindings)?;
        let mut origins: Vec<String> = Vec::new();
        for place in unit.path.iter().flat_map(|id| &context.function.value(*id).places) {
            let place = place.to_string();
            if !origins.contains(&place) {
                origins.push(place);
            }
        }
        out.push(Dispatch {
            kernel,
            groups,
            bindings: bindings.iter().map(|(r, _)| *r).collect(),
            label: label(context.function, unit),
            origins,
            flops,
            bytes: touches.iter().map(|t| traffic(t, &self.tensors[t.tensor])).sum(),
        });
        Ok(())
    }

    /// The index of a kernel, which is validated when it is new.
    fn kernel(
        &mut self,
        context: Context,
        unit: &Unit,
        shader: Shader,
        helpers: String,
        bindings: &[(Region, Usage)],
    ) -> Result<u32, Diagnostic> {
        let mut source = shader.source.functions(helpers);
        for (_, usage) in bindings {
            source = source.binding(match usage {
                Usage::Read => Binding::Read,
                Usage::ReadWrite => Binding::ReadWrite,
            });
        }
        let text = source.text();
        let needs = &mut self.needs;
        needs.storage_buffers = needs.storage_buffers.max(bindings.len() as u32);
        needs.max_binding_bytes =
            bindings.iter().map(|(r, _)| r.bytes).max().unwrap_or(0).max(needs.max_binding_bytes);
        if let Some(index) = self.known.get(&text) {
            return Ok(*index);
        }
        needs.invocations = needs.invocations.max(shader.workgroup.iter().product());
        needs.workgroup_bytes = needs.workgroup_bytes.max(shader.workgroup_bytes);
        if shader.subgroups {
            needs.subgroup_size = self.target.subgroup.map(|s| s.max);
            if needs.features.is_empty() {
                needs.features.push("subgroups".to_string());
            }
        }
        validate(&text, shader.subgroups).map_err(|e| {
            crate::lower::refuse(context, unit.root(), format!("the {} kernel is not valid WGSL ({e}), for a value", shader.family))
                .help("this is a fault of the compiler; please report it with the module")
        })?;
        let index = self.kernels.len() as u32;
        self.kernels.push(Kernel {
            name: shader.family.to_string(),
            hash: selvedge_bundle::hash(text.as_bytes()),
            workgroup: shader.workgroup,
            bindings: bindings.iter().map(|(_, usage)| *usage).collect(),
        });
        self.known.insert(text.clone(), index);
        self.texts.push(text);
        Ok(index)
    }
}

/// Parses and validates a shader as wgpu will.
fn validate(text: &str, subgroups: bool) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    // `unpack2x16float` is in every WebGPU device; naga keeps a switch for older GL.
    let mut capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    if subgroups {
        capabilities |= naga::valid::Capabilities::SUBGROUP;
    }
    let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities);
    validator.validate(&module).map(|_| ()).map_err(|e| e.emit_to_string(text))
}

/// Bytes that a kernel must move for a tensor, each element once.
fn traffic(touch: &Touch, tensor: &Tensor) -> u64 {
    let touched = ((touch.high - touch.low + 1) * 16).min(tensor.bytes());
    touched * (u64::from(touch.read) + u64::from(touch.written))
}

/// The name of a value: its own, or its number.
fn name_of(function: &Function, id: ValueId) -> String {
    let value = function.value(id);
    value.name.as_ref().map_or_else(|| format!("%{}", id.0), |n| format!("%{n}"))
}

/// `%12 contract+map`.
fn label(function: &Function, unit: &Unit) -> String {
    let names: Vec<&str> =
        unit.path.iter().filter_map(|id| function.op(*id)).map(|(op, _)| op.kind().text()).collect();
    format!("{} {}", name_of(function, unit.result()), names.join("+"))
}
