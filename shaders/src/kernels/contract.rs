//! Contractions (batched matrix products) with a register tile an invocation.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::contract_subgroup::ContractSubgroup;
use crate::kernels::family;
use crate::kernels::tile::{self, Delivery};
use crate::source::Const;

family! {
    /// `wgsl/contract.wgsl`.
    FAMILY, "contract"
}

/// The axis of B along which `load_b` reads 4 consecutive elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BOrder {
    /// B is [N][K]: `load_b(batch, k, n)` gives elements k..k+3 of column n.
    KContiguous,
    /// B is [K][N]: `load_b(batch, k, n)` gives columns n..n+3 of row k.
    NContiguous,
}

/// What is computed: C[batch, m, n] = Σ A[batch, m, k] · B[batch, k, n] over k in `from..to`, in f32.
///
/// Hooks of both contract families, all indices u32:
/// * `fn load_a(batch, m, k) -> vec4<f32>`: elements k..k+3 of row m, 0 beyond K; k is a multiple of 4, m < M.
/// * `fn load_b(batch, k, n) -> vec4<f32>`: see [`BOrder`]; 0 for rows beyond K. K-contiguous: k is a multiple of 4, n < N.
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
        let legal = (1..=16).contains(&self.rm)
            && (4..=16).contains(&self.rn)
            && self.rn.is_multiple_of(4)
            && self.rm * self.rn <= 128;
        let found = format!("{} x {}", self.rm, self.rn);
        check.that(legal, "register-tile", "1..=16 rows x 4, 8, 12 or 16 columns, at most 128 elements", found);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        let mut constants = self.product.constants(self.rows(), self.columns());
        for (name, x) in [("RM", self.rm), ("RN", self.rn), ("WG_M", self.wg_m), ("WG_N", self.wg_n)] {
            constants.push((name, Const::U32(x)));
        }
        constants
    }
    fn generated(&self) -> Option<String> {
        Some(tile::step(self.rm, self.rn, self.product.b_order, Delivery::Direct))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.wg_n, self.wg_m, 1]
    }
    fn groups(&self) -> u64 {
        self.product.groups(self.rows(), self.columns())
    }
    fn iterations(&self) -> u64 {
        self.product.steps() + (self.rm * (1 + self.rn / 4)) as u64
    }
}

/// One of the contraction families, with its tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Needs nothing.
    Direct(Contract),
    /// Needs subgroup operations and one subgroup width.
    Subgroup(ContractSubgroup),
}

impl Choice {
    /// The kernel.
    pub fn kernel(&self) -> &dyn Kernel {
        match self {
            Choice::Direct(kernel) => kernel,
            Choice::Subgroup(kernel) => kernel,
        }
    }
}

/// Cycles of llvmpipe for 8 lanes: a vec4 load, and a multiply-add (docs/PERFORMANCE.md).
const LOAD: u64 = 100;
const MULTIPLY_ADD: f64 = 0.9;

impl std::fmt::Display for Choice {
    /// `direct 16x8 wg 4x8`, `subgroup 24x8`: rows × columns of a lane.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Choice::Direct(c) => write!(f, "direct {}x{} wg {}x{}", c.rm, c.rn, c.wg_m, c.wg_n),
            Choice::Subgroup(c) => write!(f, "subgroup {}x{}", c.rm, c.rn),
        }
    }
}

/// How many candidates [`candidates`] gives at most.
const CANDIDATES: usize = 10;

/// The cheapest legal family and tile for a product: the first of [`candidates`].
pub fn choose(product: Product, subgroup: Option<u32>, invocations: u32) -> Choice {
    candidates(product, subgroup, invocations)[0]
}

/// Legal families and tiles for a product that are worth measuring, the one that should be fastest first.
///
/// `subgroup` is the adapter's subgroup width if it has only one, `invocations` what a workgroup may have (at least 8). The
/// cost counts loads and multiply-adds of all lanes, those beyond the edges of C too. Of each family and width of tile the
/// cheapest heights are listed, because the model is a guess that holds better within a family than between families.
pub fn candidates(product: Product, subgroup: Option<u32>, invocations: u32) -> Vec<Choice> {
    let cost = |lanes: u64, loads: u32, elements: u32| {
        lanes as f64 * ((LOAD * loads as u64) as f64 + MULTIPLY_ADD * 4.0 * elements as f64)
    };
    let mut classes: Vec<Vec<(f64, Choice)>> = Vec::new();
    for rn in [8, 4] {
        let mut direct: Vec<(f64, Choice)> = Vec::new();
        for rm in (1..=128 / rn).rev().filter(|rm| *rm <= 16) {
            // The workgroup's height matters by its waste at the edges only: the least wasteful, then the largest.
            let heights = [8, 4, 2, 1].into_iter().filter(|wg_m| wg_m * 8 <= invocations.max(8));
            let offers = heights.map(|wg_m| {
                let kernel = Contract { product, rm, rn, wg_m, wg_n: 8 };
                (cost(kernel.groups() * wg_m as u64 * 8, rm + rn, rm * rn), Choice::Direct(kernel))
            });
            direct.extend(offers.min_by(|a, b| a.0.total_cmp(&b.0)));
        }
        classes.push(direct);
        let widths = subgroup.filter(|width| (4..=invocations.min(128)).contains(width));
        // Fours of columns of one row each are too little of a row at a time: measured at a third of the speed.
        let narrow = |width: u32| rn == 4 && product.b_order == BOrder::NContiguous && product.n > 4 * width;
        for width in widths.into_iter().filter(|width| !narrow(*width)) {
            let tiles = (1..=192 / rn).rev().filter(|rm| *rm <= 32).map(|rm| {
                let kernel = ContractSubgroup { product, width, rm, rn };
                let lanes = kernel.groups() * width as u64;
                (cost(lanes, rm.div_ceil(width) + rn, rm * rn), Choice::Subgroup(kernel))
            });
            classes.push(tiles.collect());
        }
    }
    let mut all: Vec<(f64, Choice)> = Vec::new();
    for mut class in classes {
        class.sort_by(|a, b| a.0.total_cmp(&b.0)); // stable: of equals the larger tile
        // Neighbours of the best tile are as good as it: every candidate is at least an eighth smaller or larger.
        let mut kept: Vec<(f64, Choice)> = Vec::new();
        for (cost, choice) in class {
            let near = |other: &Choice| rows(other).abs_diff(rows(&choice)) * 8 < rows(other).max(rows(&choice));
            if kept.len() < 4 && !kept.iter().any(|(_, k)| near(k)) {
                kept.push((cost, choice));
            }
        }
        all.extend(kept);
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.truncate(CANDIDATES);
    all.into_iter().map(|(_, choice)| choice).collect()
}

/// Rows of a tile.
fn rows(choice: &Choice) -> u32 {
    match choice {
        Choice::Direct(c) => c.rm,
        Choice::Subgroup(c) => c.rm,
    }
}
