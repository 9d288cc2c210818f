//! From units to kernels: one file for each class of operators.
//!
//! Lowering gives [`Job`]s. A job is emitted on demand for any part of its outer extent, once to see what it touches
//! and once to write it, so that work too large for the target's bindings can be split without another lowering.

mod attention;
mod column;
mod contract;
mod index;
mod map;
mod quad;
mod reduce;
mod row;
mod scan;
mod topk;
mod window;

use crate::access::{Access, LANES};
use crate::emit::{Context, Emitter, internal};
use crate::index::{Index, coordinates, linear};
use crate::panels::Reading;
use crate::select::Unit;
use crate::target::Target;
use crate::tensor::TensorId;
use crate::tune::Tuning;
use selvedge_ir::{DType, Diagnostic, Op, TensorType, ValueId};
use selvedge_shaders::kernel::{Kernel, Limits};
use selvedge_shaders::source::{Element, Source};
use std::ops::Range;

/// A kernel with its grid, but without bindings.
pub struct Shader {
    /// Constants, skeleton and hooks.
    pub source: Source,
    /// Workgroups.
    pub grid: [u32; 3],
    /// Extents of a workgroup.
    pub workgroup: [u32; 3],
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// The kernel family.
    pub family: &'static str,
    /// It uses subgroup operations.
    pub subgroups: bool,
    /// Where there was a choice: the unit's key and the name of the candidate; see [`crate::tune`].
    pub choice: Option<(String, String)>,
    /// It uses cooperative matrices, and f16 arithmetic.
    pub cooperative: bool,
}

/// Emits the part of a job with these outer indices.
pub type Emit<'a> = Box<dyn Fn(Range<u64>, &mut Access) -> Result<Shader, Diagnostic> + 'a>;

/// One dispatch, or several if it must be split.
pub struct Job<'a> {
    /// Extent along which it may be split.
    pub outer: u64,
    /// Length of the sum (or search) that this job is a chunk of, if shorter chunks touch less memory; else 0.
    pub summed: u64,
    /// Floating-point operations.
    pub flops: u64,
    /// Writes the kernel.
    pub emit: Emit<'a>,
}

/// What lowering reads.
pub struct Lowering<'a, 't> {
    /// The function and its tensors.
    pub context: Context<'a>,
    /// What the device allows.
    pub target: &'a Target,
    /// Takes candidates where there is a choice of kernels.
    pub tuning: &'a Tuning,
    /// All tensors made so far; scratch tensors come behind them.
    pub tensors: &'t [crate::tensor::Tensor],
    /// Longest chunk of a sum; what the target's loop iterations allow may be less.
    pub chunk: u64,
    /// Makes a tensor that lives as long as the unit: label, dtype, elements.
    pub scratch: &'t mut dyn FnMut(&str, DType, u64) -> TensorId,
}

/// The jobs of a unit, in order; none if there is nothing to compute.
///
/// # Errors
/// A limit of the target that no splitting meets.
pub fn lower<'a>(lowering: &mut Lowering<'a, '_>, unit: &Unit) -> Result<Vec<Job<'a>>, Diagnostic> {
    let context = lowering.context;
    let epilogue = Epilogue { context, unit: unit.clone() };
    if context.sizes(unit.result()).contains(&0) {
        return Ok(Vec::new());
    }
    let Some((op, args)) = context.function.op(unit.root()) else {
        return Err(internal("a call is left in a flat function"));
    };
    match op {
        Op::Reduce(reduce) => reduce::lower(lowering, epilogue, reduce, args[0]),
        Op::Contract(contract) => contract::lower(lowering, epilogue, contract, args[0], args[1]),
        Op::Window(window) => window::lower(lowering, epilogue, window, args),
        Op::Scan(scan) => scan::lower(lowering, epilogue, scan, args[0]),
        Op::Scatter(scatter) => index::lower(lowering, epilogue, scatter, args),
        Op::Topk(topk) => topk::lower(lowering, epilogue, topk, args[0]),
        Op::Map(_)
        | Op::Transpose(_)
        | Op::Reshape(_)
        | Op::Broadcast(_)
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Concat(_)
        | Op::Gather(_)
        | Op::Iota(_)
        | Op::Const(_) => map::lower(lowering, unit.result()),
        Op::Input(_) | Op::Weight(_) | Op::State(_) => Err(internal("a leaf is not computed")),
        Op::Softmax(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::GroupNorm(_)
        | Op::Attention(_)
        | Op::LocalAttention(_)
        | Op::Rope(_)
        | Op::PoolTokens(_)
        | Op::Resize(_) => match Fused::of(op, &args.iter().map(|a| context.function.ty(*a)).collect::<Vec<_>>()) {
            Some(Fused::Row(row)) => row::lower(lowering, epilogue, row, args),
            Some(Fused::Attention(problem)) => attention::lower(lowering, epilogue, problem, args),
            None => Err(internal("a composite is left in a flat function")),
        },
    }
}

/// True if one kernel (or a few that belong together) computes a composite on the target; otherwise it is expanded.
pub fn fuses(op: &Op, types: &[&TensorType], target: &Target) -> bool {
    let sizes = |i: usize| types[i].shape.sizes().into_iter().map(|s| s as u64).collect::<Vec<u64>>();
    match Fused::of(op, types) {
        Some(Fused::Row(row)) => row.applies(&sizes(0), target),
        Some(Fused::Attention(problem)) => problem.applies(&sizes(0), &sizes(2), target),
        None => false,
    }
}

/// Composites that have kernels.
enum Fused {
    Row(row::Row),
    Attention(attention::Problem),
}

impl Fused {
    fn of(op: &Op, types: &[&TensorType]) -> Option<Fused> {
        match op {
            Op::Softmax(softmax) => Some(Fused::Row(row::Row::Softmax { axis: softmax.axis })),
            Op::LayerNorm(norm) => Some(Fused::Row(row::Row::Norm { centred: true, eps: norm.eps.0 })),
            Op::RmsNorm(norm) => Some(Fused::Row(row::Row::Norm { centred: false, eps: norm.eps.0 })),
            Op::GroupNorm(norm) => Some(Fused::Row(row::Row::Groups { groups: norm.groups, eps: norm.eps.0 })),
            Op::Attention(a) => {
                Some(Fused::Attention(attention::Problem::full(a, types.get(3).map(|mask| mask.dtype))))
            }
            Op::LocalAttention(a) => Some(Fused::Attention(attention::Problem::local(a))),
            Op::Rope(_)
            | Op::PoolTokens(_)
            | Op::Resize(_)
            | Op::Input(_)
            | Op::Weight(_)
            | Op::State(_)
            | Op::Const(_)
            | Op::Iota(_)
            | Op::Map(_)
            | Op::Reduce(_)
            | Op::Contract(_)
            | Op::Window(_)
            | Op::Scan(_)
            | Op::Transpose(_)
            | Op::Reshape(_)
            | Op::Broadcast(_)
            | Op::Slice(_)
            | Op::Pad(_)
            | Op::Concat(_)
            | Op::Gather(_)
            | Op::Scatter(_)
            | Op::Topk(_) => None,
        }
    }
}

/// Whether a unit writes its result by fours next to each other, so that f16 and bf16 may lie two to a word: no two invocations
/// then write one word.
pub fn by_fours(context: Context, unit: &Unit) -> bool {
    let epilogue = Epilogue { context, unit: unit.clone() };
    let Some((op, args)) = context.function.op(unit.root()) else { return false };
    match op {
        Op::Contract(contract) => {
            let (matrix, operands) = contract::matrix(context, contract, args[0], args[1]);
            matrix.by_fours(&epilogue, &operands)
        }
        Op::Window(window) => window::matrix(context, window, unit.root(), args)
            .is_some_and(|(matrix, operands)| matrix.by_fours(&epilogue, &operands)),
        Op::Map(_)
        | Op::Transpose(_)
        | Op::Reshape(_)
        | Op::Broadcast(_)
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Concat(_)
        | Op::Gather(_)
        | Op::Iota(_)
        | Op::Const(_) => context.sizes(unit.result()).iter().product::<u64>().is_multiple_of(4),
        Op::Reduce(_) | Op::Scan(_) | Op::Scatter(_) | Op::Topk(_) | Op::Input(_) | Op::Weight(_) | Op::State(_) => {
            false
        }
        Op::Softmax(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::GroupNorm(_)
        | Op::Attention(_)
        | Op::LocalAttention(_)
        | Op::Rope(_)
        | Op::PoolTokens(_)
        | Op::Resize(_) => match Fused::of(op, &args.iter().map(|a| context.function.ty(*a)).collect::<Vec<_>>()) {
            Some(Fused::Row(row)) => row::by_fours(&epilogue, row, args[0]),
            Some(Fused::Attention(_)) => attention::by_fours(&epilogue),
            None => false,
        },
    }
}

/// The operand of a product that is read as weights are, by fours of its rows, and how.
pub fn weight(context: Context, id: ValueId) -> Option<(ValueId, Reading)> {
    let (matrix, operands) = match context.function.op(id)? {
        (Op::Contract(contract), args) => contract::matrix(context, contract, args[0], args[1]),
        (Op::Window(window), args) => window::matrix(context, window, id, args)?,
        _ => return None,
    };
    let reading = matrix.weight(context, &operands.weight)?;
    Some((operands.weight.operand, reading))
}

/// What happens to each element of a root: the maps behind it, and the store.
#[derive(Clone)]
pub(crate) struct Epilogue<'a> {
    context: Context<'a>,
    unit: Unit,
}

impl<'a> Epilogue<'a> {
    /// Statements that finish element `at` of the root, held by the name `value` in the root's register type, unrounded.
    fn store(&self, access: &mut Access, at: &[Index], value: &str) -> Result<String, Diagnostic> {
        let (root, result) = (self.unit.root(), self.unit.result());
        let mut e = Emitter::new(self.context, access).computing(result);
        e.give(root, value);
        let at = self.forward(at);
        let value = e.unrounded(result, &at)?;
        let sizes = self.context.sizes(result);
        e.store(self.home()?, &linear(&at, &sizes), &value);
        Ok(e.finish())
    }
    /// Statements that finish four elements of the root, held by the components of the name `value`; of those at an index
    /// from `len` on (four beyond `first`, a multiple of 4 below `len`) nothing is stored.
    fn store4(
        &self,
        access: &mut Access,
        at: &[Vec<Index>; 4],
        value: &str,
        (first, len): (&str, u64),
    ) -> Result<String, Diagnostic> {
        let (root, result) = (self.unit.root(), self.unit.result());
        let sizes = self.context.sizes(result);
        let mut e = Emitter::new(self.context, access).computing(result);
        let mut values = [const { String::new() }; 4];
        let mut places: Vec<Index> = Vec::with_capacity(4);
        for (lane, at) in at.iter().enumerate() {
            e.give(root, &format!("{value}.{}", LANES[lane]));
            let at = self.forward(at);
            values[lane] = e.unrounded(result, &at)?;
            places.push(linear(&at, &sizes));
        }
        let home = self.home()?;
        if len.is_multiple_of(4) && is_quad(&places) {
            e.store4(home, &places[0].div(4), &values);
            return Ok(e.finish());
        }
        for (lane, (place, value)) in places.iter().zip(&values).enumerate() {
            let guarded = lane > 0 && !len.is_multiple_of(4);
            if guarded {
                e.line(format!("if {first} + {lane}u < {len}u {{"));
            }
            e.store_here(home, place, value);
            if guarded {
                e.line("}");
            }
        }
        Ok(e.finish())
    }
    /// The tensor of the result.
    fn home(&self) -> Result<TensorId, Diagnostic> {
        self.context.homes.get(&self.unit.result()).copied().ok_or_else(|| internal("a unit's result has no memory"))
    }
    /// The result's index for an index of the root.
    fn forward(&self, at: &[Index]) -> Vec<Index> {
        let mut at = at.to_vec();
        for pair in self.unit.path.windows(2) {
            match self.context.function.op(pair[1]) {
                Some((Op::Transpose(t), _)) => at = t.perm.iter().map(|source| at[*source].clone()).collect(),
                Some((Op::Reshape(_), _)) => {
                    let (from, to) = (self.context.sizes(pair[0]), self.context.sizes(pair[1]));
                    at = coordinates(&linear(&at, &from), &to);
                }
                // Maps keep indices; nothing else is on a path.
                Some(_) | None => {}
            }
        }
        at
    }
    /// Operations of the maps for each element.
    fn ops(&self) -> u64 {
        self.unit.path.iter().map(|id| body_ops(self.context, *id)).sum()
    }
}

/// Four places next to each other, the first at a multiple of 4.
fn is_quad(places: &[Index]) -> bool {
    places[0].known_rem(4) == Some(0) && (1..4).all(|lane| places[lane as usize] == places[0].plus(lane))
}

/// Operations of a map's body.
fn body_ops(context: Context, id: ValueId) -> u64 {
    match context.function.op(id) {
        Some((Op::Map(map), _)) => (map.body.nodes().len() - map.body.arity().min(map.body.nodes().len())) as u64,
        Some(_) | None => 0,
    }
}

/// A diagnostic about a value: its operator and call site.
pub(crate) fn refuse(context: Context, id: ValueId, message: impl Into<String>) -> Diagnostic {
    let value = context.function.value(id);
    let name = context.function.op(id).map_or("call", |(op, _)| op.kind().text());
    Diagnostic::new(format!("codegen {name}"), format!("{} of type {}", message.into(), value.ty))
        .at(value.places.first().copied())
}

/// Checks a kernel against the target and puts its hooks in place.
fn shader(epilogue: &Epilogue, target: &Target, kernel: &dyn Kernel, hooks: String) -> Result<Shader, Diagnostic> {
    finish(epilogue.context, epilogue.unit.root(), target, kernel, hooks)
}

/// As [`shader`], for the value `id`.
fn finish(
    context: Context,
    id: ValueId,
    target: &Target,
    kernel: &dyn Kernel,
    hooks: String,
) -> Result<Shader, Diagnostic> {
    kernel
        .check(&limits(target))
        .map_err(|e| refuse(context, id, format!("target `{}` cannot run this: {e};", target.name)))?;
    Ok(Shader {
        source: kernel.source().functions(hooks),
        grid: kernel.grid(),
        workgroup: kernel.workgroup(),
        workgroup_bytes: kernel.workgroup_bytes(),
        family: kernel.family().name,
        subgroups: false,
        choice: None,
        cooperative: false,
    })
}

/// What the target allows a kernel.
fn limits(target: &Target) -> Limits {
    Limits {
        invocations: target.invocations,
        workgroup_bytes: target.workgroup_bytes,
        iterations: target.max_iterations as u64,
    }
}

/// A variable of a split extent: `start + name`, with `name` below the part's length.
fn part(range: &Range<u64>, name: &str) -> Index {
    Index::var(name, range.end - range.start).plus(range.start)
}

/// The variable `name` of a chunk `from..to`, as an index, and the statement that makes it of the hook's parameter.
fn chunked(parameter: &str, (from, to): (u64, u64)) -> (Index, Option<String>) {
    if from == 0 {
        return (Index::var(parameter, to), None);
    }
    let name = format!("{parameter}_part");
    let line = format!("let {name} = {parameter} - {from}u;");
    (Index::var(&name, to - from).plus(from), Some(line))
}

/// A `u32` constant of a kernel.
fn extent(context: Context, id: ValueId, x: u64) -> Result<u32, Diagnostic> {
    u32::try_from(x).map_err(|_| refuse(context, id, format!("an extent of {x} does not fit 32 bits, in a value")))
}

/// Bounds of the chunks of `len` with at most `most` each, multiples of 4 but for the last.
fn chunks(len: u64, most: u64) -> Vec<(u64, u64)> {
    let most = (most / 4 * 4).max(4);
    (0..len.div_ceil(most).max(1)).map(|i| (i * most, ((i + 1) * most).min(len))).collect()
}

/// The kernel element of a dtype, and conversion of a register to it (bool travels as u32).
fn to_element(dtype: DType, value: String) -> String {
    if dtype == DType::Bool { format!("select(0u, 1u, {value})") } else { value }
}

/// The register of a kernel element.
fn from_element(dtype: DType, value: &str) -> String {
    if dtype == DType::Bool { format!("({value} != 0u)") } else { value.to_string() }
}

/// The dtype that holds running values of a kernel exactly.
fn running(element: Element) -> DType {
    match element {
        Element::F32 => DType::F32,
        Element::I32 => DType::I32,
        Element::U32 => DType::U32,
    }
}

/// `fn NAME(PARAMETERS) -> RESULT { BODY }`.
fn function(signature: &str, body: &str) -> String {
    format!("{signature} {{\n{body}}}\n")
}

/// Invocations of a workgroup: the wanted number, or what the target allows (a power of two).
fn workgroup(target: &Target, wanted: u32) -> u32 {
    wanted.min(1 << target.invocations.max(1).ilog2())
}
