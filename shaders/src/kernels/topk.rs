//! Top-k by counting: one invocation an element counts the elements that come before it.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::argreduce::precedes;
use crate::kernels::family;
use crate::source::{Const, Element};

family! {
    /// `wgsl/topk.wgsl`.
    FAMILY, "topk"
}

/// The best `k` of each of `rows` rows of `len` elements, best first; ties go to the lowest index, and a NaN counts as the worst infinity. This dispatch
/// compares with the elements `from..to`; results are stored by the dispatch with to = len.
///
/// Hooks: `fn load(row: u32, k: u32) -> A`, `fn store(row: u32, rank: u32, index: i32)` (rank < k; the ranks of a row
/// once each), and for rows in several dispatches (they must exist anyway) `fn partial(row: u32, i: u32) -> u32`,
/// the count over 0..from, called if from > 0, and `fn carry(row: u32, i: u32, count: u32)`, which takes the count if to < len.
/// Constraints: `not-empty` (rows, len, k), `chunk`, `k` (at most len), `count` (rows · len at most 2³¹).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Topk {
    /// Number of rows.
    pub rows: u32,
    /// Elements of a row.
    pub len: u32,
    /// Elements picked from a row.
    pub k: u32,
    /// First element compared with.
    pub from: u32,
    /// End of the elements compared with.
    pub to: u32,
    /// The largest rather than the smallest.
    pub largest: bool,
    /// Their type.
    pub element: Element,
    /// Invocations of a workgroup.
    pub wg: u32,
}

impl Topk {
    /// All comparisons in one dispatch.
    pub fn new(rows: u32, len: u32, k: u32, largest: bool, element: Element) -> Topk {
        Topk { rows, len, k, from: 0, to: len, largest, element, wg: 64 }
    }
}

impl Kernel for Topk {
    fn family(&self) -> &'static Family {
        &FAMILY
    }
    fn constraints(&self, check: &mut Check) {
        check.extent("rows", self.rows);
        check.extent("len", self.len);
        check.extent("k", self.k);
        check.chunk(self.from, self.to, self.len);
        check.that(self.k <= self.len, "k", format!("at most {}", self.len), self.k);
        let count = self.rows as u64 * self.len as u64;
        check.that(count <= 1 << 31, "count", "rows · len of at most 2147483648", count);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        vec![
            ("ROWS", Const::U32(self.rows)),
            ("LEN", Const::U32(self.len)),
            ("PICKED", Const::U32(self.k)),
            ("FROM", Const::U32(self.from)),
            ("TO", Const::U32(self.to)),
            ("WG", Const::U32(self.wg)),
        ]
    }
    fn element(&self) -> Option<Element> {
        Some(self.element)
    }
    fn generated(&self) -> Option<String> {
        Some(precedes(self.largest, self.element))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.wg, 1, 1]
    }
    fn groups(&self) -> u64 {
        (self.rows as u64 * self.len as u64).div_ceil(self.wg.max(1) as u64)
    }
    fn iterations(&self) -> u64 {
        self.to.saturating_sub(self.from) as u64
    }
}
