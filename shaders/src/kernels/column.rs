//! Reductions of columns, four neighbours at a time.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::family;
use crate::kernels::reduce::Reduction;
use crate::kernels::row::{BLOCK, Lanes, constants_by_fours};
use crate::source::{Const, Element};

family! {
    /// `wgsl/column_reduce.wgsl`.
    REDUCE, "column_reduce"
}

/// A reduction whose rows, of which it has a multiple of four, are the columns of a matrix.
///
/// Hooks: `fn load(quad: u32, k: u32) -> vec4<A>` for element k of the columns 4·quad to 4·quad + 3 (k in from..to),
/// `fn store(quad: u32, value: vec4<A>)` and `fn partial(quad: u32) -> vec4<A>`, the values over 0..from.
/// Constraints: those of [`Reduction`] and [`Lanes`]; `not-empty` (a column); `columns` (a multiple of 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ColumnReduce {
    /// What is reduced; its rows are the columns.
    pub reduction: Reduction,
    /// Who works on four columns.
    pub lanes: Lanes,
    /// As in [`crate::kernels::row::RowNorm`].
    pub rolled: bool,
}

impl Kernel for ColumnReduce {
    fn family(&self) -> &'static Family {
        &REDUCE
    }
    fn constraints(&self, check: &mut Check) {
        self.reduction.constraints(check);
        check.extent("len", self.reduction.len);
        check.that(self.reduction.rows.is_multiple_of(4), "columns", "a multiple of 4", self.reduction.rows);
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
        let across = self.lanes.functions("vec4<A>", &[("all_combined", "combine4(x, y)")]);
        Some(format!("{}\n{}\n{across}", kind.functions(element), kind.by_fours()))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.lanes.workgroup(), 1, 1]
    }
    fn workgroup_bytes(&self) -> u32 {
        self.lanes.bytes(16)
    }
    fn groups(&self) -> u64 {
        let lanes = self.reduction.rows as u64 / 4 * self.lanes.count() as u64;
        lanes.div_ceil(self.lanes.workgroup().max(1) as u64)
    }
    fn iterations(&self) -> u64 {
        let each = self.reduction.count().div_ceil(self.lanes.count().max(1) as u64);
        each + each.div_ceil(BLOCK as u64) + 16
    }
}
