//! Contractions whose operands are staged in workgroup memory.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::contract::{BOrder, Product};
use crate::kernels::family;
use crate::kernels::tile::{self, Delivery};
use crate::source::Const;

family! {
    /// `wgsl/contract_shared.wgsl`.
    FAMILY, "contract_shared"
}

/// Workgroup delivery: a workgroup covers `wg_m·rm` rows × `wg_n·rn` columns, stages `bk` of K at a time of both operands, and
/// each invocation owns `rm` rows × `rn` columns. For GPUs, whose workgroup memory is faster than their caches. With several
/// `slices` as many invocations own the same tile: each sums its share of what is staged, and in the end they add up, in order.
/// So a product with few tiles keeps more invocations busy.
///
/// Hooks as for [`Product`], and loops run in them once for each staged four. Constraints: those of [`Product`]; `register-tile`
/// (rm 1 to 16, rn 4, 8, 12 or 16, at most 128 elements); `staging` (bk a multiple of 4, 4 to 64); `slices` (at least 1, bk a
/// multiple of 4·slices).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContractShared {
    /// What is computed.
    pub product: Product,
    /// Rows an invocation.
    pub rm: u32,
    /// Columns an invocation, a multiple of 4.
    pub rn: u32,
    /// Extent of K that is staged at a time.
    pub bk: u32,
    /// Invocations of a workgroup along M.
    pub wg_m: u32,
    /// Invocations of a workgroup along N.
    pub wg_n: u32,
    /// Invocations that share a tile's sums.
    pub slices: u32,
}

impl ContractShared {
    /// With the default tile: 64 × 64 elements for 64 invocations.
    pub fn new(product: Product) -> ContractShared {
        ContractShared { product, rm: 8, rn: 8, bk: 16, wg_m: 8, wg_n: 8, slices: 1 }
    }
    fn rows(&self) -> u32 {
        (self.rm * self.wg_m).max(1)
    }
    fn columns(&self) -> u32 {
        (self.rn * self.wg_n).max(1)
    }
    fn lanes(&self) -> u32 {
        self.wg_m * self.wg_n * self.slices
    }
    /// Fours that leave a tile at a time.
    fn taken(&self) -> u32 {
        tile::TAKEN * self.rn / 4
    }
    /// `combine`, which adds up what the slices of a tile have of its next rows; only the first slice's result counts.
    fn combine(&self) -> String {
        let head = "fn combine(values: Rows, lane: u32, slice: u32) -> Rows {\n";
        if self.slices <= 1 {
            return format!("{head}    return values;\n}}\n");
        }
        let (taken, stride) = (self.taken(), self.lanes());
        let each = |line: &dyn Fn(u32) -> String| (0..taken).map(line).collect::<String>();
        let write = each(&|i| format!("    slice_sums[{}u + own] = values[{i}];\n", i * stride));
        let first = each(&|i| format!("    var sum{i} = values[{i}];\n"));
        let add = each(&|i| format!("            sum{i} += slice_sums[{}u + other];\n", i * stride));
        let sums: Vec<String> = (0..taken).map(|i| format!("sum{i}")).collect();
        format!(
            "var<workgroup> slice_sums: array<vec4<f32>, {}>;
{head}    let own = slice * WG_M * WG_N + lane;
    workgroupBarrier();
{write}    workgroupBarrier();
{first}    if slice == 0u {{
        for (var other = WG_M * WG_N + lane; other < {stride}u; other += WG_M * WG_N) {{
{add}        }}
    }}
    return Rows({});
}}
",
            taken * stride,
            sums.join(", ")
        )
    }
}

impl Kernel for ContractShared {
    fn family(&self) -> &'static Family {
        &FAMILY
    }
    fn constraints(&self, check: &mut Check) {
        self.product.constraints(check);
        tile::constraint(check, self.rm, self.rn);
        let staging = (4..=64).contains(&self.bk) && self.bk.is_multiple_of(4);
        check.that(staging, "staging", "a multiple of 4 from 4 to 64", self.bk);
        let slices = self.slices >= 1 && self.slices <= 16 && self.bk.is_multiple_of(4 * self.slices.max(1));
        check.that(slices, "slices", "1 to 16, of which each has whole fours of what is staged", self.slices);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        let mut constants = self.product.constants(self.rows(), self.columns());
        let own = [
            ("RM", self.rm),
            ("RN", self.rn),
            ("BK", self.bk),
            ("WG_M", self.wg_m),
            ("WG_N", self.wg_n),
            ("SLICES", self.slices),
        ];
        constants.extend(own.map(|(name, x)| (name, Const::U32(x))));
        constants
    }
    fn generated(&self) -> Option<String> {
        let step = tile::step(self.rm, self.rn, &self.product, Delivery::Shared);
        let (stage, at) = match self.product.b_order {
            BOrder::KContiguous => (
                "    let at = k + i % (BK / 4u) * 4u;
    let column = i / (BK / 4u);
    var value = vec4<f32>();
    if at < TO {
        let n = min(first + column, LAST_N);
        value = load_b(column_b(batch, n), batch, at, n);
    }
    b_staged[i % (BK / 4u) * BN + column] = value;",
                "k / 4u * BN + n",
            ),
            BOrder::NContiguous => (
                "    let at = k + i / (BN / 4u);
    var value = vec4<f32>();
    if at < TO {
        let n = min(first + i % (BN / 4u) * 4u, LAST_N);
        value = load_b(column_b(batch, n), batch, at, n);
    }
    b_staged[i] = value;",
                "(k * BN + n) / 4u",
            ),
        };
        let combine = self.combine();
        Some(format!(
            "{step}{combine}fn stage_b(i: u32, batch: u32, first: u32, k: u32) {{\n{stage}\n}}
fn tile_a(batch: u32, m: u32, k: u32) -> vec4<f32> {{ return a_staged[k / 4u * BM + m]; }}
fn tile_b(batch: u32, k: u32, n: u32) -> vec4<f32> {{ return b_staged[{at}]; }}
"
        ))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.wg_n, self.wg_m, self.slices]
    }
    fn workgroup_bytes(&self) -> u32 {
        let sums = if self.slices > 1 { self.taken() * self.lanes() * 16 } else { 0 };
        (self.rows() + self.columns()) * self.bk * 4 + sums
    }
    fn groups(&self) -> u64 {
        self.product.groups(self.rows(), self.columns())
    }
    fn iterations(&self) -> u64 {
        let lanes = self.lanes().max(1);
        let staged = |extent: u32| (extent * self.bk / 4).div_ceil(lanes) as u64;
        let bk = self.bk.max(4) as u64;
        let stages = (self.product.steps() * 4).div_ceil(bk);
        // The slices of rows that leave are added up one after the other.
        let finishing = self.slices as u64 * tile::finishing(self.rm, self.rn);
        stages * (1 + staged(self.rows()) + staged(self.columns()) + bk / 4) + finishing
    }
}
