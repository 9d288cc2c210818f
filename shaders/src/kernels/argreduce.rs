//! Index of the largest or smallest element of rows.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::family;
use crate::source::{Const, Element};

family! {
    /// `wgsl/argreduce_lane.wgsl`: one invocation a row.
    LANE, "argreduce_lane"
}
family! {
    /// `wgsl/argreduce_group.wgsl`: one workgroup a row, compared through workgroup memory.
    GROUP, "argreduce_group"
}

/// What is searched: `rows` rows of `len` elements, of which this dispatch takes `from..to`. Ties go to the lowest
/// index; a NaN counts as the worst infinity.
///
/// Hooks: `fn load(row: u32, k: u32) -> A` (k in 0..to), `fn store(row: u32, index: i32)` and
/// `fn partial(row: u32) -> i32`, the index found in 0..from (called only if from > 0; it must exist anyway).
/// Constraints: `not-empty` (rows, len), `chunk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Search {
    /// Number of rows.
    pub rows: u32,
    /// Elements of a row.
    pub len: u32,
    /// First element of this dispatch.
    pub from: u32,
    /// End of this dispatch, exclusive.
    pub to: u32,
    /// The largest rather than the smallest.
    pub largest: bool,
    /// Their type.
    pub element: Element,
}

impl Search {
    /// All elements in one dispatch.
    pub fn new(rows: u32, len: u32, largest: bool, element: Element) -> Search {
        Search { rows, len, from: 0, to: len, largest, element }
    }
    fn constraints(&self, check: &mut Check) {
        check.extent("rows", self.rows);
        check.extent("len", self.len);
        check.chunk(self.from, self.to, self.len);
    }
    fn constants(&self, wg: u32) -> Vec<(&'static str, Const)> {
        vec![
            ("ROWS", Const::U32(self.rows)),
            ("LEN", Const::U32(self.len)),
            ("FROM", Const::U32(self.from)),
            ("TO", Const::U32(self.to)),
            ("WG", Const::U32(wg)),
        ]
    }
    fn count(&self) -> u64 {
        self.to.saturating_sub(self.from) as u64
    }
}

/// The function `precedes(a: A, b: A) -> bool`: a is strictly better than b. A NaN counts as the worst infinity.
pub(crate) fn precedes(largest: bool, element: Element) -> String {
    let (sign, worst) = if largest { (">", "0xff800000u") } else { ("<", "0x7f800000u") };
    match element {
        Element::F32 => format!(
            "fn number(a: A) -> A {{ return select(a, float_bits({worst}), is_nan(a)); }}\n\
             fn precedes(a: A, b: A) -> bool {{ return number(a) {sign} number(b); }}"
        ),
        Element::I32 | Element::U32 => format!("fn precedes(a: A, b: A) -> bool {{ return a {sign} b; }}"),
    }
}

/// One invocation a row: for many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArgreduceLane {
    /// What is searched.
    pub search: Search,
    /// Invocations of a workgroup.
    pub wg: u32,
}

impl ArgreduceLane {
    /// With the default workgroup.
    pub fn new(search: Search) -> ArgreduceLane {
        ArgreduceLane { search, wg: 64 }
    }
}

impl Kernel for ArgreduceLane {
    fn family(&self) -> &'static Family {
        &LANE
    }
    fn constraints(&self, check: &mut Check) {
        self.search.constraints(check);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        self.search.constants(self.wg)
    }
    fn element(&self) -> Option<Element> {
        Some(self.search.element)
    }
    fn generated(&self) -> Option<String> {
        Some(precedes(self.search.largest, self.search.element))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.wg, 1, 1]
    }
    fn groups(&self) -> u64 {
        (self.search.rows as u64).div_ceil(self.wg.max(1) as u64)
    }
    fn iterations(&self) -> u64 {
        self.search.count()
    }
}

/// One workgroup a row: for few or long rows.
///
/// Constraint: `power-of-two` workgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArgreduceGroup {
    /// What is searched.
    pub search: Search,
    /// Invocations of a workgroup.
    pub wg: u32,
}

impl ArgreduceGroup {
    /// With the default workgroup.
    pub fn new(search: Search) -> ArgreduceGroup {
        ArgreduceGroup { search, wg: 64 }
    }
}

impl Kernel for ArgreduceGroup {
    fn family(&self) -> &'static Family {
        &GROUP
    }
    fn constraints(&self, check: &mut Check) {
        self.search.constraints(check);
        check.power_of_two("workgroup", self.wg);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        self.search.constants(self.wg)
    }
    fn element(&self) -> Option<Element> {
        Some(self.search.element)
    }
    fn generated(&self) -> Option<String> {
        Some(precedes(self.search.largest, self.search.element))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.wg, 1, 1]
    }
    fn workgroup_bytes(&self) -> u32 {
        8 * self.wg
    }
    fn groups(&self) -> u64 {
        self.search.rows as u64
    }
    fn iterations(&self) -> u64 {
        self.search.count().div_ceil(self.wg.max(1) as u64) + self.wg.max(1).ilog2() as u64
    }
}
