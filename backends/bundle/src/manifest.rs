//! The manifest: plain data that says what to allocate, what to upload and what to dispatch.
//!
//! A plan leaves the runtime no decision: every tensor has a region of a buffer, every dispatch its kernel,
//! bindings and group counts. Regions start at multiples of [`ALIGN`] bytes; elements are dense and row-major, but for weights
//! in [`Panels`].
//! In weights f32, i32, u32 and bool (0 or 1) take one 32-bit word, f16 and bf16 half a word (low half first). In
//! ports every element takes one word: f16 and bf16 are f32 words that hold rounded values. How other computed values lie is
//! between a plan's kernels.

use crate::panels::Panels;
use serde::{Deserialize, Serialize};

/// Version of the format written by this crate; a reader refuses a later one.
pub const FORMAT: u32 = 4;

/// Alignment of regions and bindings in bytes: WebGPU's largest offset alignment.
pub const ALIGN: u64 = 256;

/// Everything but the bytes of weights and kernels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version.
    pub format: u32,
    /// Program and version that wrote it.
    pub producer: String,
    /// The module's name.
    pub name: String,
    /// What the device must offer.
    pub target: Requirements,
    /// Weights, in the order of the module.
    pub weights: Vec<Weight>,
    /// Kernels, by index from dispatches.
    pub kernels: Vec<Kernel>,
    /// One plan for each compiled size.
    pub plans: Vec<Plan>,
    /// What the front end needs to sample and to make a picture (sampler, labels, pixel range …); opaque here.
    pub pipeline: serde_json::Value,
}

/// Needs of a bundle's kernels; checked against the adapter before anything is created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requirements {
    /// Name of the target compiled for (`portable`, or a device's name).
    pub name: String,
    /// Needed features by their WebGPU names: `shader-f16`, `shader-int64` (native only), `subgroups`,
    /// `cooperative-matrix` (experimental).
    pub features: Vec<String>,
    /// Subgroup width that kernels rely on, if they do.
    pub subgroup_size: Option<u32>,
    /// Largest binding in bytes that a dispatch makes.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
    /// Most storage buffers in one dispatch.
    pub storage_buffers: u32,
    /// Most invocations in a workgroup.
    pub invocations: u32,
    /// Most workgroup memory of a kernel, in bytes.
    pub workgroup_bytes: u32,
}

/// A weight and where its bytes are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weight {
    /// Name in the checkpoint.
    pub name: String,
    /// Element type as the IR prints it (`f32`, `bf16` …).
    pub dtype: String,
    /// Extents.
    pub shape: Vec<u64>,
    /// blake3 of the bytes, in hex.
    pub hash: String,
    /// `None`: a tensor of this bundle, named `weight:NAME`. Otherwise a linked checkpoint file.
    pub link: Option<Link>,
}

/// A weight left in its checkpoint (`--link-weights`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// File, relative to the bundle's folder or absolute.
    pub file: String,
    /// First byte of the tensor in the file.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// A compute kernel; its WGSL is the U8 tensor `kernel:HASH`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// A label for people: the family.
    pub name: String,
    /// Where the compiler had a choice: the unit's key and the candidate taken, as in `contract m512 …: subgroup 24x8`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub choice: String,
    /// blake3 of the WGSL text, in hex.
    pub hash: String,
    /// Extents of the workgroup.
    pub workgroup: [u32; 3],
    /// Access of each binding of group 0, by binding number.
    pub bindings: Vec<Access>,
}

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// `var<storage, read>`: weights only.
    Read,
    /// `var<storage, read_write>`: arena (always, so that one buffer has one usage in a dispatch).
    ReadWrite,
}

/// A compiled size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What the size is, for people and for choosing: `batch=2 height=28 width=28`.
    pub size: String,
    /// How it was chosen among the plans that were considered, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chosen: String,
    /// Buffers to allocate, by index from regions. Their sum is the planned peak.
    pub buffers: Vec<Buffer>,
    /// Where weights go.
    pub weights: Vec<WeightSlot>,
    /// All functions that can be run.
    pub functions: Vec<PlanFunction>,
    /// When they run; `None` if the module is a library of functions.
    pub schedule: Option<PlanSchedule>,
}

impl Plan {
    /// Bytes allocated on the device: the planned peak.
    pub fn peak_bytes(&self) -> u64 {
        self.buffers.iter().map(|b| b.bytes).sum()
    }
    /// The planned peak where each stage's own weights are on the device only while it runs.
    pub fn staged_peak_bytes(&self) -> u64 {
        let sum = |stage: Option<Stage>| self.buffers.iter().filter(|b| b.stage == stage).map(|b| b.bytes).sum::<u64>();
        sum(None) + Stage::ALL.into_iter().map(|stage| sum(Some(stage))).max().unwrap_or(0)
    }
    /// The dispatches of all functions.
    pub fn dispatches(&self) -> impl Iterator<Item = &Dispatch> {
        self.functions.iter().flat_map(|f| &f.dispatches)
    }
}

/// A device buffer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Buffer {
    /// What it holds, for people.
    pub label: String,
    /// Size, a multiple of [`ALIGN`].
    pub bytes: u64,
    /// Weights are bound read-only, the arena read-write.
    pub access: Access,
    /// The stage of the schedule that alone reads it: it may be absent while others run. `None`: it is always there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
}

/// When functions of a schedule run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// At load.
    Prepare,
    /// Once a run.
    Condition,
    /// The loop.
    Steps,
    /// After the loop.
    Decode,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Stage; 4] = [Stage::Prepare, Stage::Condition, Stage::Steps, Stage::Decode];
}

/// Part of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Region {
    /// Index of the buffer.
    pub buffer: u32,
    /// First byte.
    pub offset: u64,
    /// Number of bytes in use (the region itself is padded to [`ALIGN`]).
    pub bytes: u64,
}

/// Rows of a weight and their place. A weight too large for one buffer has several slots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightSlot {
    /// Index into [`Manifest::weights`].
    pub weight: u32,
    /// First byte of the weight's bytes, as they lie on the device, that goes here.
    pub start: u64,
    /// Where; its `bytes` is how many.
    pub region: Region,
    /// The order of its elements, the same in all its slots, if it is not the checkpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panels: Option<Panels>,
}

/// A tensor that goes in or out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Element type as the IR prints it.
    pub dtype: String,
    /// Extents.
    pub shape: Vec<u64>,
    /// Where it lies when the function starts (inputs) or ends (outputs); several when it is too large for one buffer.
    pub regions: Vec<Region>,
}

/// A function as dispatches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanFunction {
    /// Name.
    pub name: String,
    /// Parameters.
    pub inputs: Vec<Port>,
    /// Named outputs.
    pub outputs: Vec<Port>,
    /// Its kernels' work, in order. Storage writes of a dispatch are visible to the next.
    pub dispatches: Vec<Dispatch>,
    /// Values that are copied instead of computed, in order: each between two dispatches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Move>,
    /// Copies after all of them: carried values and states to their homes. Sources and destinations do not overlap.
    pub copies: Vec<Copy>,
}

impl PlanFunction {
    /// Dispatches and moves in the order in which they run.
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let moves = |i: usize| self.moves.iter().filter(move |m| m.after as usize == i).map(Step::Move);
        let each = self.dispatches.iter().enumerate();
        each.flat_map(move |(i, d)| moves(i).chain([Step::Dispatch(i, d)])).chain(moves(self.dispatches.len()))
    }
}

/// One thing that a function does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step<'a> {
    /// A dispatch, and its number.
    Dispatch(usize, &'a Dispatch),
    /// A value that is copied.
    Move(&'a Move),
}

impl<'a> Step<'a> {
    /// Value and operators.
    pub fn label(self) -> &'a str {
        match self {
            Step::Dispatch(_, dispatch) => &dispatch.label,
            Step::Move(moved) => &moved.label,
        }
    }
}

/// A value whose elements lie as they do elsewhere: a stored view, or a join of stored values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// How many of the function's dispatches run before it; later ones see what it wrote.
    pub after: u32,
    /// What is copied, in any order: whole words at multiples of 4 bytes. No destination overlaps a source.
    pub copies: Vec<Copy>,
    /// Value and operators, as of a dispatch: `%12 slice`.
    pub label: String,
    /// Call sites of the model code that the work comes from.
    pub origins: Vec<String>,
    /// Bytes read and written.
    pub bytes: u64,
    /// Those read that are weights, constants, and what `prepare` makes of them.
    #[serde(default)]
    pub weight_bytes: u64,
}

/// One dispatch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dispatch {
    /// Index into [`Manifest::kernels`].
    pub kernel: u32,
    /// Workgroup counts, each at most 65,535.
    pub groups: [u32; 3],
    /// Region bound at each binding number; offset and bytes are multiples of [`ALIGN`].
    pub bindings: Vec<Region>,
    /// Value it computes and operators it stands for: `%12 contract+map`.
    pub label: String,
    /// Call sites of the model code that the work comes from.
    pub origins: Vec<String>,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes of operands read and results written, each once.
    pub bytes: u64,
    /// Those of them that are weights, constants, and what `prepare` makes of them.
    #[serde(default)]
    pub weight_bytes: u64,
}

/// A copy between regions of equal size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// From.
    pub source: Region,
    /// To.
    pub destination: Region,
}

/// Tables that the device computes: before step k, for k = 0, C, 2C …, rows k to k + C − 1 of tables go to `inputs` (behind the
/// last row of a table it is repeated), the function runs, and step k + i gets row i of each of `rows` at the port of the
/// same place in `ports`.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct PlanTabulate {
    /// The function.
    pub function: String,
    /// Rows computed at once, C.
    pub chunk: u64,
    /// Inputs of the function that are tables: [C, row…], named as the schedule's tables.
    pub inputs: Vec<Port>,
    /// What it gives: [C, row…].
    pub rows: Vec<Port>,
    /// Where a step reads one row, in the order of `rows`.
    pub ports: Vec<Port>,
}

/// When functions run; the grammar of the IR's schedule with bindings resolved to regions.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct PlanSchedule {
    /// Inputs of the run: written by the host before `condition`.
    pub inputs: Vec<Port>,
    /// Function run at load.
    pub prepare: Option<String>,
    /// Function run once a run.
    pub condition: Option<String>,
    /// Step functions, by index from the run's steps; empty if there is no loop.
    pub steps: Vec<String>,
    /// Per-step inputs: row k of the host's table is copied to the port before step k.
    pub tables: Vec<Port>,
    /// Tables that the device computes from them.
    pub tabulate: Option<PlanTabulate>,
    /// Values carried from step to step; also inputs of the run (unless an earlier stage makes them) and outputs of it.
    pub carry: Vec<Port>,
    /// Step outputs that may be traced.
    pub trace: Vec<Port>,
    /// Function run after the loop.
    pub decode: Option<String>,
    /// State variables: zeroed before a run.
    pub states: Vec<Port>,
}
