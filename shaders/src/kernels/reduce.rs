//! Reductions of rows to one value each.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::family;
use crate::source::{Const, Element};

family! {
    /// `wgsl/reduce_lane.wgsl`: one invocation a row.
    LANE, "reduce_lane"
}
family! {
    /// `wgsl/reduce_group.wgsl`: one workgroup a row, combined through workgroup memory.
    GROUP, "reduce_group"
}

/// How values combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Combine {
    /// a + b.
    Sum,
    /// a · b.
    Prod,
    /// The larger.
    Max,
    /// The smaller.
    Min,
}

impl Combine {
    /// All of them.
    pub const ALL: [Combine; 4] = [Combine::Sum, Combine::Prod, Combine::Max, Combine::Min];

    /// Of values or vectors `a` and `b`.
    fn expression(self) -> &'static str {
        match self {
            Combine::Sum => "a + b",
            Combine::Prod => "a * b",
            Combine::Max => "select(a, b, b > a)",
            Combine::Min => "select(a, b, b < a)",
        }
    }

    /// The function `combine4(a: vec4<A>, b: vec4<A>) -> vec4<A>`.
    pub(super) fn by_fours(self) -> String {
        format!("fn combine4(a: vec4<A>, b: vec4<A>) -> vec4<A> {{ return {}; }}", self.expression())
    }

    /// The functions `combine(a: A, b: A) -> A` and `neutral() -> A` (of floats' max and min an infinity; these leave NaNs out).
    pub fn functions(self, element: Element) -> String {
        let combine = self.expression();
        let neutral = match (self, element) {
            (Combine::Sum, _) => "A(0)",
            (Combine::Prod, _) => "A(1)",
            (Combine::Max, Element::F32) => "float_bits(0xff800000u)",
            (Combine::Min, Element::F32) => "float_bits(0x7f800000u)",
            (Combine::Max, Element::I32) => "i32(-2147483648)",
            (Combine::Min, Element::I32) => "i32(2147483647)",
            (Combine::Max, Element::U32) => "0u",
            (Combine::Min, Element::U32) => "0xffffffffu",
        };
        format!("fn combine(a: A, b: A) -> A {{ return {combine}; }}\nfn neutral() -> A {{ return {neutral}; }}")
    }
}

/// What is reduced: `rows` rows of `len` elements, of which this dispatch takes `from..to`.
///
/// Hooks: `fn load(row: u32, k: u32) -> A` (k in from..to), `fn store(row: u32, value: A)` and
/// `fn partial(row: u32) -> A`, the value over 0..from (called only if from > 0; it must exist anyway).
/// Bool tensors reduce by max and min as u32.
/// Constraints: `not-empty` (rows), `chunk`. An empty row gives the neutral element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reduction {
    /// Number of rows.
    pub rows: u32,
    /// Elements of a row.
    pub len: u32,
    /// First element of this dispatch.
    pub from: u32,
    /// End of this dispatch, exclusive.
    pub to: u32,
    /// How values combine.
    pub kind: Combine,
    /// Their type.
    pub element: Element,
}

impl Reduction {
    /// All elements in one dispatch.
    pub fn new(rows: u32, len: u32, kind: Combine, element: Element) -> Reduction {
        Reduction { rows, len, from: 0, to: len, kind, element }
    }
    pub(super) fn constraints(&self, check: &mut Check) {
        check.extent("rows", self.rows);
        check.chunk(self.from, self.to, self.len);
    }
    pub(super) fn constants(&self, wg: u32) -> Vec<(&'static str, Const)> {
        vec![
            ("ROWS", Const::U32(self.rows)),
            ("LEN", Const::U32(self.len)),
            ("FROM", Const::U32(self.from)),
            ("TO", Const::U32(self.to)),
            ("WG", Const::U32(wg)),
        ]
    }
    pub(super) fn count(&self) -> u64 {
        self.to.saturating_sub(self.from) as u64
    }
}

/// Elements that [`ReduceLane`] combines before it adds to the row's value: bounds the growth of rounding errors.
const BLOCK: u32 = 32;

/// One invocation a row: for many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReduceLane {
    /// What is reduced.
    pub reduction: Reduction,
    /// Invocations of a workgroup.
    pub wg: u32,
}

impl ReduceLane {
    /// With the default workgroup.
    pub fn new(reduction: Reduction) -> ReduceLane {
        ReduceLane { reduction, wg: 64 }
    }
}

impl Kernel for ReduceLane {
    fn family(&self) -> &'static Family {
        &LANE
    }
    fn constraints(&self, check: &mut Check) {
        self.reduction.constraints(check);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        let mut constants = self.reduction.constants(self.wg);
        constants.push(("BLOCK", Const::U32(BLOCK)));
        constants
    }
    fn element(&self) -> Option<Element> {
        Some(self.reduction.element)
    }
    fn generated(&self) -> Option<String> {
        Some(self.reduction.kind.functions(self.reduction.element))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.wg, 1, 1]
    }
    fn groups(&self) -> u64 {
        (self.reduction.rows as u64).div_ceil(self.wg.max(1) as u64)
    }
    fn iterations(&self) -> u64 {
        self.reduction.count() + self.reduction.count().div_ceil(BLOCK as u64)
    }
}

/// One workgroup a row: for few or long rows.
///
/// Constraint: `power-of-two` workgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReduceGroup {
    /// What is reduced.
    pub reduction: Reduction,
    /// Invocations of a workgroup.
    pub wg: u32,
}

impl ReduceGroup {
    /// With the default workgroup.
    pub fn new(reduction: Reduction) -> ReduceGroup {
        ReduceGroup { reduction, wg: 64 }
    }
}

impl Kernel for ReduceGroup {
    fn family(&self) -> &'static Family {
        &GROUP
    }
    fn constraints(&self, check: &mut Check) {
        self.reduction.constraints(check);
        check.power_of_two("workgroup", self.wg);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        self.reduction.constants(self.wg)
    }
    fn element(&self) -> Option<Element> {
        Some(self.reduction.element)
    }
    fn generated(&self) -> Option<String> {
        Some(self.reduction.kind.functions(self.reduction.element))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.wg, 1, 1]
    }
    fn workgroup_bytes(&self) -> u32 {
        4 * self.wg
    }
    fn groups(&self) -> u64 {
        self.reduction.rows as u64
    }
    fn iterations(&self) -> u64 {
        self.reduction.count().div_ceil(self.wg.max(1) as u64) + self.wg.max(1).ilog2() as u64
    }
}
