//! Cumulative combination along rows: one invocation a row, in order.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::family;
use crate::kernels::reduce::Combine;
use crate::source::{Const, Element};

family! {
    /// `wgsl/scan.wgsl`.
    FAMILY, "scan"
}

/// `rows` rows of `len` elements; this dispatch takes the places `from..to` in scan order (from the end if `reverse`).
///
/// Hooks: `fn load(row: u32, k: u32) -> A`, `fn store(row: u32, k: u32, value: A)` and `fn partial(row: u32) -> A`,
/// which gives what was stored at place from − 1 (called only if from > 0; it must exist anyway).
/// Maxima and minima of f32 start at an infinity: where the scan starts at the largest finite number, `store` sees to it.
/// Constraints: `not-empty` (rows, len), `chunk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    /// Number of rows.
    pub rows: u32,
    /// Elements of a row.
    pub len: u32,
    /// First place of this dispatch.
    pub from: u32,
    /// End of this dispatch, exclusive.
    pub to: u32,
    /// How values combine.
    pub kind: Combine,
    /// Runs from the end.
    pub reverse: bool,
    /// A result leaves its own element out.
    pub exclusive: bool,
    /// The values' type.
    pub element: Element,
    /// Invocations of a workgroup.
    pub wg: u32,
}

impl Scan {
    /// A forward, inclusive scan of whole rows.
    pub fn new(rows: u32, len: u32, kind: Combine, element: Element) -> Scan {
        Scan { rows, len, from: 0, to: len, kind, reverse: false, exclusive: false, element, wg: 64 }
    }
}

impl Kernel for Scan {
    fn family(&self) -> &'static Family {
        &FAMILY
    }
    fn constraints(&self, check: &mut Check) {
        check.extent("rows", self.rows);
        check.extent("len", self.len);
        check.chunk(self.from, self.to, self.len);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        vec![
            ("ROWS", Const::U32(self.rows)),
            ("LEN", Const::U32(self.len)),
            ("FROM", Const::U32(self.from)),
            ("TO", Const::U32(self.to)),
            ("REVERSE", Const::Bool(self.reverse)),
            ("EXCLUSIVE", Const::Bool(self.exclusive)),
            ("WG", Const::U32(self.wg)),
        ]
    }
    fn element(&self) -> Option<Element> {
        Some(self.element)
    }
    fn generated(&self) -> Option<String> {
        Some(self.kind.functions(self.element))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.wg, 1, 1]
    }
    fn groups(&self) -> u64 {
        (self.rows as u64).div_ceil(self.wg.max(1) as u64)
    }
    fn iterations(&self) -> u64 {
        self.to.saturating_sub(self.from) as u64
    }
}
