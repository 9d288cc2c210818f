//! Contractions of halves by cooperative matrices.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::contract::{BOrder, Product};
use crate::kernels::family;
use crate::source::Const;

family! {
    /// `wgsl/contract_cooperative.wgsl`.
    FAMILY, "contract_cooperative"
}

/// Cooperative-matrix delivery: operands are staged in workgroup memory as f16 and multiplied by `size` × `size` matrices with
/// sums in f32. A workgroup is `sg_m` × `sg_n` subgroups of `width` invocations, each with `rm` × `rn` matrices of C.
///
/// Operands must be values of f16, or they are rounded. Legal only on adapters that list `size` × `size` × `size` with f16
/// operands and f32 sums, whose least and largest subgroup width are both `width`, through wgpu's experimental feature and
/// `shader-f16`. Hooks as for [`Product`]. Constraints: those of [`Product`]; `matrix-size` (8 or 16); `subgroup-width` (power of
/// two, 4 to 128); `staging` (bk a multiple of the size, at most 64); `matrices` (1 to 64 for a subgroup).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContractCooperative {
    /// What is computed.
    pub product: Product,
    /// Rows, columns and depth of a matrix.
    pub size: u32,
    /// Lanes of a subgroup.
    pub width: u32,
    /// Matrices of a subgroup along M.
    pub rm: u32,
    /// Matrices of a subgroup along N.
    pub rn: u32,
    /// Extent of K that is staged at a time.
    pub bk: u32,
    /// Subgroups of a workgroup along M.
    pub sg_m: u32,
    /// Subgroups of a workgroup along N.
    pub sg_n: u32,
}

impl ContractCooperative {
    /// With the default tile: one subgroup with 4 × 4 matrices.
    pub fn new(product: Product, size: u32, width: u32) -> ContractCooperative {
        ContractCooperative { product, size, width, rm: 4, rn: 4, bk: 32, sg_m: 1, sg_n: 1 }
    }
    fn rows(&self) -> u32 {
        (self.sg_m * self.rm * self.size).max(1)
    }
    fn columns(&self) -> u32 {
        (self.sg_n * self.rn * self.size).max(1)
    }
}

impl Kernel for ContractCooperative {
    fn family(&self) -> &'static Family {
        &FAMILY
    }
    fn constraints(&self, check: &mut Check) {
        self.product.constraints(check);
        check.that([8, 16].contains(&self.size), "matrix-size", "8 or 16", self.size);
        let width = (4..=128).contains(&self.width) && self.width.is_power_of_two();
        check.that(width, "subgroup-width", "a power of two from 4 to 128", self.width);
        let staging = (1..=64).contains(&self.bk) && self.bk.is_multiple_of(self.size.max(1));
        check.that(staging, "staging", "a multiple of the matrix size, at most 64", self.bk);
        let matrices = (1..=64).contains(&(self.rm * self.rn)) && self.sg_m > 0 && self.sg_n > 0;
        check.that(matrices, "matrices", "1 to 64 for a subgroup", self.rm * self.rn);
    }
    fn enables(&self) -> &'static [&'static str] {
        &["f16", "wgpu_cooperative_matrix"]
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        let mut constants = self.product.constants(self.rows(), self.columns());
        let tile = [("T", self.size), ("WIDTH", self.width), ("RM", self.rm), ("RN", self.rn), ("BK", self.bk)];
        let groups = [("SG_M", self.sg_m), ("SG_N", self.sg_n)];
        constants.extend(tile.into_iter().chain(groups).map(|(name, x)| (name, Const::U32(x))));
        constants
    }
    fn generated(&self) -> Option<String> {
        let t = format!("coop_mat{0}x{0}", self.size);
        let (last, stage) = match self.product.b_order {
            BOrder::KContiguous => (
                "N - 1u",
                "    let kk = i % (BK / 4u) * 4u;
    let column = i / (BK / 4u);
    var value = vec4<f32>();
    if k + kk < TO {
        let n = min(first + column, LAST_N);
        value = load_b(column_b(batch, n), batch, k + kk, n);
    }
    for (var j = 0u; j < 4u; j++) {
        b_staged[column * BK + kk + j] = f16(value[j]);
    }",
            ),
            BOrder::NContiguous => (
                "(N - 1u) / 4u * 4u",
                "    let kk = i / (BN / 4u);
    let column = i % (BN / 4u) * 4u;
    var value = vec4<f32>();
    if k + kk < TO {
        let n = min(first + column, LAST_N);
        value = load_b(column_b(batch, n), batch, k + kk, n);
    }
    for (var j = 0u; j < 4u; j++) {
        b_staged[(column + j) * BK + kk] = f16(value[j]);
    }",
            ),
        };
        Some(format!(
            "const LAST_N: u32 = {last};
alias MatrixA = {t}<f16, A>;
alias MatrixB = {t}<f16, B>;
alias MatrixC = {t}<f32, C>;
fn load_matrix_a(at: u32) -> MatrixA {{ return coopLoadT<{t}<f16, A>>(&a_staged[at], BK); }}
fn load_matrix_b(at: u32) -> MatrixB {{ return coopLoad<{t}<f16, B>>(&b_staged[at], BK); }}
fn stage_b(i: u32, batch: u32, first: u32, k: u32) {{
{stage}
}}
"
        ))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.width * self.sg_m * self.sg_n, 1, 1]
    }
    fn workgroup_bytes(&self) -> u32 {
        (self.rows() + self.columns()) * self.bk * 2 + self.sg_m * self.sg_n * self.size * self.size * 4
    }
    fn groups(&self) -> u64 {
        self.product.groups(self.rows(), self.columns())
    }
    fn iterations(&self) -> u64 {
        let lanes = (self.width * self.sg_m * self.sg_n).max(1);
        let staged = |extent: u32| (extent * self.bk / 4).div_ceil(lanes) as u64;
        let (bk, size) = (self.bk.max(1) as u64, self.size.max(1) as u64);
        let matrices = (self.rm * self.rn) as u64;
        let inner = (bk / size) * (1 + self.rn as u64 + self.rm as u64 + matrices);
        let stages = (self.product.steps() * 4).div_ceil(bk);
        // A four of B takes a loop of its own.
        let finish = matrices * (2 + size * size / 4 / self.width.max(1) as u64);
        stages * (1 + staged(self.rows()) + 5 * staged(self.columns()) + inner) + finish
    }
}
