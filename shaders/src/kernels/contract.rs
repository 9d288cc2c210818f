//! Contractions (batched matrix products) with a register tile an invocation.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::family;
use crate::kernels::tile::{self, Delivery};
use crate::source::Const;

pub use crate::kernels::contract_choice::{Capabilities, Choice, candidates, choose};

family! {
    /// `wgsl/contract.wgsl`.
    FAMILY, "contract"
}

/// The axis of B along which `load_b` reads 4 consecutive elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BOrder {
    /// B is [N][K]: `load_b` gives elements k..k+3 of column n.
    KContiguous,
    /// B is [K][N]: `load_b` gives columns n..n+3 of row k.
    NContiguous,
}

/// What is computed: C[batch, m, n] = Σ A[batch, m, k] · B[batch, k, n] over k in `from..to`, in f32.
///
/// Hooks of both contract families, all indices u32:
/// * `fn row_a(batch, m) -> u32`: whatever `load_a` wants to know of a row; computed once, before the sum.
/// * `fn load_a(row, batch, m, k) -> vec4<f32>`: elements k..k+3 of row m, 0 beyond K; k is a multiple of 4, m < M.
/// * `fn column_b(batch, n) -> u32`: the same of a column (of the first of four, N-contiguous).
/// * `fn load_b(column, batch, k, n) -> vec4<f32>`: see [`BOrder`]; 0 for rows beyond K. K-contiguous: k is a multiple of 4, n < N.
///   N-contiguous: n is a multiple of 4, n < N, k < K rounded up to 4; columns beyond N may hold anything.
/// * `fn store(batch, m, n, value: vec4<f32>)`: takes columns n..n+3 of row m, each once; m < M, n < N is a multiple of 4, and
///   columns beyond N are to be dropped.
/// * `fn partial(batch, m, n) -> vec4<f32>`: their sums over 0..from; called only if from > 0, it must exist anyway.
///
/// Constraints: `not-empty`; `chunk`; `chunk-multiple` (from is a multiple of 4, and so is to unless it is K).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// Independent products.
    pub batch: u32,
    /// Rows of A and C.
    pub m: u32,
    /// Columns of B and C.
    pub n: u32,
    /// Summed extent.
    pub k: u32,
    /// First k of this dispatch.
    pub from: u32,
    /// End of this dispatch, exclusive.
    pub to: u32,
    /// Which axis of B is read by fours.
    pub b_order: BOrder,
}

impl Product {
    /// All of K in one dispatch.
    pub fn new(batch: u32, m: u32, n: u32, k: u32, b_order: BOrder) -> Product {
        Product { batch, m, n, k, from: 0, to: k, b_order }
    }
    pub(crate) fn constraints(&self, check: &mut Check) {
        for (what, x) in [("batch", self.batch), ("m", self.m), ("n", self.n), ("k", self.k)] {
            check.extent(what, x);
            check.that(x <= 1 << 30, "extent", format!("{what} of at most 2^30"), x);
        }
        check.chunk(self.from, self.to, self.k);
        let aligned = self.from.is_multiple_of(4) && (self.to.is_multiple_of(4) || self.to == self.k);
        let found = format!("{}..{} of {}", self.from, self.to, self.k);
        check.that(aligned, "chunk-multiple", "chunk bounds that are multiples of 4 (or K)", found);
    }
    /// Constants common to both families, for workgroups of `rows` × `columns` elements.
    pub(crate) fn constants(&self, rows: u32, columns: u32) -> Vec<(&'static str, Const)> {
        vec![
            ("BATCH", Const::U32(self.batch)),
            ("M", Const::U32(self.m)),
            ("N", Const::U32(self.n)),
            ("K", Const::U32(self.k)),
            ("FROM", Const::U32(self.from)),
            ("TO", Const::U32(self.to)),
            ("TILES_M", Const::U32(self.m.div_ceil(rows))),
            ("TILES_N", Const::U32(self.n.div_ceil(columns))),
        ]
    }
    pub(crate) fn groups(&self, rows: u32, columns: u32) -> u64 {
        self.batch as u64 * self.m.div_ceil(rows) as u64 * self.n.div_ceil(columns) as u64
    }
    pub(crate) fn steps(&self) -> u64 {
        (self.to.saturating_sub(self.from) as u64).div_ceil(4)
    }
}

/// Direct delivery: each invocation owns `rm` rows × `rn` columns and loads what it multiplies.
///
/// A workgroup covers `wg_m·rm` rows × `wg_n·rn` columns; invocations next to each other own columns next to each
/// other (by fours), and workgroups run down M first, so that those in flight share columns of B.
/// Constraints: those of [`Product`]; `register-tile` (rm 1 to 16, rn 4, 8, 12 or 16, at most 128 elements).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Contract {
    /// What is computed.
    pub product: Product,
    /// Rows an invocation.
    pub rm: u32,
    /// Columns an invocation, a multiple of 4.
    pub rn: u32,
    /// Invocations of a workgroup along M.
    pub wg_m: u32,
    /// Invocations of a workgroup along N.
    pub wg_n: u32,
}

impl Contract {
    /// With the default tile.
    pub fn new(product: Product) -> Contract {
        Contract { product, rm: 16, rn: 8, wg_m: 8, wg_n: 8 }
    }
    fn rows(&self) -> u32 {
        (self.rm * self.wg_m).max(1)
    }
    fn columns(&self) -> u32 {
        (self.rn * self.wg_n).max(1)
    }
}

impl Kernel for Contract {
    fn family(&self) -> &'static Family {
        &FAMILY
    }
    fn constraints(&self, check: &mut Check) {
        self.product.constraints(check);
        tile::constraint(check, self.rm, self.rn);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        let mut constants = self.product.constants(self.rows(), self.columns());
        for (name, x) in [("RM", self.rm), ("RN", self.rn), ("WG_M", self.wg_m), ("WG_N", self.wg_n)] {
            constants.push((name, Const::U32(x)));
        }
        constants
    }
    fn generated(&self) -> Option<String> {
        Some(tile::step(self.rm, self.rn, &self.product, Delivery::Direct))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.wg_n, self.wg_m, 1]
    }
    fn groups(&self) -> u64 {
        self.product.groups(self.rows(), self.columns())
    }
    fn iterations(&self) -> u64 {
        self.product.steps() + tile::finishing(self.rm, self.rn)
    }
}
