//! Top-k by counting, one invocation an element that counts the elements that come before it; and by selection.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::argreduce::precedes;
use crate::kernels::family;
use crate::kernels::row::Lanes;
use crate::source::{Const, Element};

family! {
    /// `wgsl/topk.wgsl`.
    FAMILY, "topk"
}
family! {
    /// `wgsl/topk_select.wgsl`.
    SELECT, "topk_select"
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

/// As [`Topk`] in one dispatch, by a search for the worst element that is picked: some 16 passes over a row by fours, and the order
/// among what is picked. For rows long enough.
///
/// Hooks: `fn load(row: u32, quad: u32) -> vec4<A>` for elements 4·quad to 4·quad + 3, of which those from len on do not count;
/// `store` as for [`Topk`].
/// Constraints: `not-empty` (rows, len, k), `k` (at most len), `lanes` (a workgroup or subgroup a row), those of [`Lanes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopkSelect {
    /// Number of rows.
    pub rows: u32,
    /// Elements of a row.
    pub len: u32,
    /// Elements picked from a row.
    pub k: u32,
    /// The largest rather than the smallest.
    pub largest: bool,
    /// Their type.
    pub element: Element,
    /// Who works on a row.
    pub lanes: Lanes,
    /// As in [`RowNorm`](crate::kernels::row::RowNorm).
    pub rolled: bool,
}

impl TopkSelect {
    /// Bits of a place in a row, even.
    fn place_bits(&self) -> u32 {
        (u32::BITS - self.len.saturating_sub(1).leading_zeros()).next_multiple_of(2)
    }
    /// The function `key_of(x: A) -> u32`. Zeros of both signs are one number, and a NaN is the worst infinity.
    fn key(&self) -> String {
        let not = if self.largest { "" } else { "~" };
        let body = match self.element {
            Element::F32 => format!(
                "let bits = bitcast<u32>(x);
    let size = bits & 0x7fffffffu;
    let ordered = select(bits | 0x80000000u, ~bits, bits > 0x7fffffffu);
    return select({not}select(ordered, 0x80000000u, size == 0u), 0x007fffffu, size > 0x7f800000u);"
            ),
            Element::I32 => format!("return {not}(bitcast<u32>(x) ^ 0x80000000u);"),
            Element::U32 => format!("return {not}x;"),
        };
        format!("fn key_of(x: A) -> u32 {{\n    {body}\n}}\n")
    }
}

impl Kernel for TopkSelect {
    fn family(&self) -> &'static Family {
        &SELECT
    }
    fn constraints(&self, check: &mut Check) {
        check.extent("rows", self.rows);
        check.extent("len", self.len);
        check.extent("k", self.k);
        check.that(self.k <= self.len, "k", format!("at most {}", self.len), self.k);
        check.that(self.len <= 1 << 30, "extent", "a row of at most 2^30", self.len);
        let shared = !matches!(self.lanes, Lanes::One { .. });
        check.that(shared, "lanes", "a workgroup or subgroup a row", self.lanes);
        self.lanes.constraints(check);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        vec![
            ("ROWS", Const::U32(self.rows)),
            ("LEN", Const::U32(self.len)),
            ("QUADS", Const::U32(self.len.div_ceil(4))),
            ("PICKED", Const::U32(self.k)),
            ("PLACE_BITS", Const::U32(self.place_bits())),
            ("LANES", Const::U32(self.lanes.count())),
            ("ROLLED", Const::Bool(self.rolled)),
            ("WG", Const::U32(self.lanes.workgroup())),
        ]
    }
    fn element(&self) -> Option<Element> {
        Some(self.element)
    }
    fn generated(&self) -> Option<String> {
        Some(self.key() + &self.lanes.functions("vec3<u32>", &[("all_sum", "x + y")]))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.lanes.workgroup(), 1, 1]
    }
    fn workgroup_bytes(&self) -> u32 {
        self.lanes.bytes(16).saturating_add(self.k.saturating_mul(8)).saturating_add(16)
    }
    fn groups(&self) -> u64 {
        self.rows as u64
    }
    fn iterations(&self) -> u64 {
        let lanes = self.lanes.count().max(1) as u64;
        let passes = 16 + self.place_bits() as u64 / 2;
        let pass = self.len.div_ceil(4) as u64 / lanes + 1;
        let order = (self.k as u64).div_ceil(lanes) * (self.k as u64 + 1);
        passes * (pass + 1 + lanes.ilog2() as u64) + 5 * pass + order
    }
}
