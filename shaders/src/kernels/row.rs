//! Row kernels: normalisations, softmax and reductions of rows read by fours.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::family;
use crate::kernels::reduce::Reduction;
use crate::source::{Const, Element};
use std::fmt;

family! {
    /// `wgsl/row_norm.wgsl`.
    NORM, "row_norm"
}
family! {
    /// `wgsl/row_softmax.wgsl`.
    SOFTMAX, "row_softmax"
}
family! {
    /// `wgsl/row_reduce.wgsl`.
    REDUCE, "row_reduce"
}

/// Who works on one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lanes {
    /// One invocation; `wg` rows a workgroup.
    One {
        /// Invocations of a workgroup.
        wg: u32,
    },
    /// One subgroup, a workgroup of its own, on adapters where all subgroups have this width.
    Subgroup {
        /// Lanes of a subgroup, a power of two.
        width: u32,
    },
    /// A workgroup, combining through its memory.
    Group {
        /// Invocations of a workgroup, a power of two.
        wg: u32,
    },
}

impl fmt::Display for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lanes::One { wg } => write!(f, "lane of {wg}"),
            Lanes::Subgroup { width } => write!(f, "subgroup {width}"),
            Lanes::Group { wg } => write!(f, "group {wg}"),
        }
    }
}

impl Lanes {
    /// Lanes a row.
    pub fn count(self) -> u32 {
        match self {
            Lanes::One { .. } => 1,
            Lanes::Subgroup { width } => width,
            Lanes::Group { wg } => wg,
        }
    }
    pub(super) fn workgroup(self) -> u32 {
        match self {
            Lanes::One { wg } | Lanes::Group { wg } => wg,
            Lanes::Subgroup { width } => width,
        }
    }
    /// Bytes of workgroup memory, `each` a lane.
    pub(super) fn bytes(self, each: u32) -> u32 {
        match self {
            Lanes::One { .. } | Lanes::Subgroup { .. } => 0,
            Lanes::Group { wg } => each * wg,
        }
    }
    pub(super) fn constraints(self, check: &mut Check) {
        match self {
            Lanes::One { .. } => {}
            Lanes::Subgroup { width } => {
                let legal = (2..=128).contains(&width) && width.is_power_of_two();
                check.that(legal, "subgroup-width", "a power of two from 2 to 128", width);
            }
            Lanes::Group { wg } => check.power_of_two("workgroup", wg),
        }
    }
    /// `fn NAME(x: TY, lane: u32) -> TY` for each name, combining as `combine` of `x` and `y` says.
    pub(super) fn functions(self, ty: &str, named: &[(&str, &str)]) -> String {
        let mut out = String::new();
        if let Lanes::Group { wg } = self {
            out += &format!("var<workgroup> shared_lanes: array<{ty}, {wg}>;\n");
        }
        for (name, combine) in named {
            out += &format!("fn {name}(start: {ty}, lane: u32) -> {ty} {{\n    var x = start;\n");
            match self {
                Lanes::One { .. } => {}
                Lanes::Subgroup { width } => {
                    for bit in 0..width.max(1).ilog2() {
                        out += &format!(
                            "    {{\n        let y = subgroupShuffleXor(x, {}u);\n        x = {combine};\n    }}\n",
                            1 << bit
                        );
                    }
                }
                Lanes::Group { wg } => {
                    out += &format!(
                        "    shared_lanes[lane] = x;
    workgroupBarrier();
    for (var half = {}u; half > 0u; half /= 2u) {{
        if lane < half {{
            let y = shared_lanes[lane + half];
            x = {combine};
            shared_lanes[lane] = x;
        }}
        workgroupBarrier();
    }}
    x = shared_lanes[0];
    workgroupBarrier();\n",
                        wg / 2
                    );
                }
            }
            out += "    return x;\n}\n";
        }
        out
    }
}

/// Layer norm (`centred`) or RMS norm of `rows` rows of `len` elements: (x − mean) / √(variance + eps), or
/// x / √(mean of squares + eps); scale, bias and all that follows are the store hook's.
///
/// Hooks: `fn load(row: u32, quad: u32) -> vec4<f32>` and `fn store(row: u32, quad: u32, value: vec4<f32>)` for elements
/// 4·quad to 4·quad + 3, of which those from `len` on do not count; `fn keep(row, chunk, mean: f32, squares: f32)` and
/// `fn kept(row, chunk) -> vec2<f32>` for rows in chunks (they must exist anyway).
///
/// Constraints: `not-empty`; `chunk-count` (a row in one dispatch has one chunk); those of [`Lanes`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowNorm {
    /// Number of rows.
    pub rows: u32,
    /// Elements of a row.
    pub len: u32,
    /// The mean is taken off first.
    pub centred: bool,
    /// Added under the root.
    pub eps: f32,
    /// Chunks of a row.
    pub chunks: u32,
    /// What this dispatch does.
    pub phase: Phase,
    /// Who works on a chunk.
    pub lanes: Lanes,
    /// Loops stay loops, whatever the compiler knows of their bounds: on software drivers, which take long over what is unrolled.
    pub rolled: bool,
}

/// A part of a normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All of it.
    Both,
    /// Mean and squares of each chunk, kept.
    Figures,
    /// The results, from what was kept.
    Apply,
}

impl RowNorm {
    fn chunk_quads(&self) -> u32 {
        self.len.div_ceil(4).div_ceil(self.chunks.max(1))
    }
}

impl Kernel for RowNorm {
    fn family(&self) -> &'static Family {
        &NORM
    }
    fn constraints(&self, check: &mut Check) {
        check.extent("rows", self.rows);
        check.extent("len", self.len);
        let chunks = self.chunks >= 1 && (self.chunks == 1) == (self.phase == Phase::Both);
        check.that(chunks, "chunk-count", "one chunk in one dispatch, more in two", self.chunks);
        let used = self.chunks as u64 * self.chunk_quads() as u64;
        let full = used - self.chunk_quads() as u64;
        check.that(full < self.len.div_ceil(4) as u64, "chunk-count", "no empty chunk", self.chunks);
        check.that(self.len <= 1 << 30, "extent", "a row of at most 2^30", self.len);
        self.lanes.constraints(check);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        let phase = match self.phase {
            Phase::Both => 0,
            Phase::Figures => 1,
            Phase::Apply => 2,
        };
        vec![
            ("ROWS", Const::U32(self.rows)),
            ("LEN", Const::U32(self.len)),
            ("QUADS", Const::U32(self.len.div_ceil(4))),
            ("CHUNKS", Const::U32(self.chunks)),
            ("CHUNK_QUADS", Const::U32(self.chunk_quads())),
            ("LANES", Const::U32(self.lanes.count())),
            ("ROLLED", Const::Bool(self.rolled)),
            ("CENTRED", Const::Bool(self.centred)),
            ("EPS", Const::F32(self.eps)),
            ("PHASE", Const::U32(phase)),
            ("WG", Const::U32(self.lanes.workgroup())),
        ]
    }
    fn generated(&self) -> Option<String> {
        Some(self.lanes.functions("f32", &[("all_sum", "x + y")]))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.lanes.workgroup(), 1, 1]
    }
    fn workgroup_bytes(&self) -> u32 {
        self.lanes.bytes(4)
    }
    fn groups(&self) -> u64 {
        let lanes = self.rows as u64 * self.chunks as u64 * self.lanes.count() as u64;
        lanes.div_ceil(self.lanes.workgroup().max(1) as u64)
    }
    fn iterations(&self) -> u64 {
        let pass = self.chunk_quads().div_ceil(self.lanes.count().max(1)) as u64;
        2 * pass + 2 * self.chunks as u64 + 24
    }
}

/// Softmax of `rows` rows of `len` elements. Hooks `load` and `store` as for [`RowNorm`].
///
/// Constraints: `not-empty`; those of [`Lanes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowSoftmax {
    /// Number of rows.
    pub rows: u32,
    /// Elements of a row.
    pub len: u32,
    /// Who works on a row.
    pub lanes: Lanes,
    /// As in [`RowNorm`].
    pub rolled: bool,
}

impl Kernel for RowSoftmax {
    fn family(&self) -> &'static Family {
        &SOFTMAX
    }
    fn constraints(&self, check: &mut Check) {
        check.extent("rows", self.rows);
        check.extent("len", self.len);
        check.that(self.len <= 1 << 30, "extent", "a row of at most 2^30", self.len);
        self.lanes.constraints(check);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        vec![
            ("ROWS", Const::U32(self.rows)),
            ("LEN", Const::U32(self.len)),
            ("QUADS", Const::U32(self.len.div_ceil(4))),
            ("LANES", Const::U32(self.lanes.count())),
            ("ROLLED", Const::Bool(self.rolled)),
            ("WG", Const::U32(self.lanes.workgroup())),
        ]
    }
    fn generated(&self) -> Option<String> {
        Some(self.lanes.functions("f32", &[("all_sum", "x + y"), ("all_max", "max(x, y)")]))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.lanes.workgroup(), 1, 1]
    }
    fn workgroup_bytes(&self) -> u32 {
        self.lanes.bytes(4)
    }
    fn groups(&self) -> u64 {
        let lanes = self.rows as u64 * self.lanes.count() as u64;
        lanes.div_ceil(self.lanes.workgroup().max(1) as u64)
    }
    fn iterations(&self) -> u64 {
        2 * self.len.div_ceil(4).div_ceil(self.lanes.count().max(1)) as u64 + 48
    }
}

/// Steps of a lane of [`RowReduce`] and of a reduction of columns before it adds to its value: bounds the growth of rounding errors.
pub(super) const BLOCK: u32 = 32;

/// Constants of reductions by fours.
pub(super) fn constants_by_fours(reduction: &Reduction, lanes: Lanes, rolled: bool) -> Vec<(&'static str, Const)> {
    let mut constants = reduction.constants(lanes.workgroup());
    constants.push(("LANES", Const::U32(lanes.count())));
    constants.push(("BLOCK", Const::U32(BLOCK)));
    constants.push(("ROLLED", Const::Bool(rolled)));
    constants
}

/// A reduction of rows that are read by fours.
///
/// Hooks: `fn load(row: u32, quad: u32) -> vec4<A>` for elements 4·quad to 4·quad + 3, of which those outside from..to do not
/// count; `store` and `partial` as for [`Reduction`].
/// Constraints: those of [`Reduction`] and [`Lanes`]; `not-empty` (a row); `chunk-multiple` (from a multiple of 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowReduce {
    /// What is reduced.
    pub reduction: Reduction,
    /// Who works on a row.
    pub lanes: Lanes,
    /// As in [`RowNorm`].
    pub rolled: bool,
}

impl RowReduce {
    /// Loop iterations of an invocation, for `count` elements of a row.
    pub fn iterations_of(count: u64, lanes: Lanes) -> u64 {
        let fours = count.div_ceil(4).div_ceil(lanes.count().max(1) as u64);
        fours + fours.div_ceil(BLOCK as u64) + 16
    }
}

impl Kernel for RowReduce {
    fn family(&self) -> &'static Family {
        &REDUCE
    }
    fn constraints(&self, check: &mut Check) {
        self.reduction.constraints(check);
        check.extent("len", self.reduction.len);
        check.that(self.reduction.from.is_multiple_of(4), "chunk-multiple", "a multiple of 4", self.reduction.from);
        check.that(self.reduction.len <= 1 << 30, "extent", "a row of at most 2^30", self.reduction.len);
        self.lanes.constraints(check);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        constants_by_fours(&self.reduction, self.lanes, self.rolled)
    }
    fn element(&self) -> Option<Element> {
        Some(self.reduction.element)
    }
    fn generated(&self) -> Option<String> {
        let Reduction { kind, element, .. } = self.reduction;
        let across = self.lanes.functions("A", &[("all_combined", "combine(x, y)")]);
        Some(format!("{}\n{}\n{across}", kind.functions(element), kind.by_fours()))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.lanes.workgroup(), 1, 1]
    }
    fn workgroup_bytes(&self) -> u32 {
        self.lanes.bytes(4)
    }
    fn groups(&self) -> u64 {
        let lanes = self.reduction.rows as u64 * self.lanes.count() as u64;
        lanes.div_ceil(self.lanes.workgroup().max(1) as u64)
    }
    fn iterations(&self) -> u64 {
        RowReduce::iterations_of(self.reduction.count(), self.lanes)
    }
}
