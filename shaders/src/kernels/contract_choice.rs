//! Which family and tile computes a product.

use crate::kernel::{Kernel, Limits};
use crate::kernels::contract::{BOrder, Contract, Product};
use crate::kernels::contract_cooperative::ContractCooperative;
use crate::kernels::contract_shared::ContractShared;
use crate::kernels::contract_subgroup::ContractSubgroup;

/// One of the contraction families, with its tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Needs nothing.
    Direct(Contract),
    /// Needs workgroup memory.
    Shared(ContractShared),
    /// Needs subgroup operations and one subgroup width.
    Subgroup(ContractSubgroup),
    /// Needs cooperative matrices, and operands of f16.
    Cooperative(ContractCooperative),
}

impl Choice {
    /// The kernel.
    pub fn kernel(&self) -> &dyn Kernel {
        match self {
            Choice::Direct(kernel) => kernel,
            Choice::Shared(kernel) => kernel,
            Choice::Subgroup(kernel) => kernel,
            Choice::Cooperative(kernel) => kernel,
        }
    }
    /// Rows of a lane's tile (of a subgroup's, in matrices).
    fn rows(&self) -> u32 {
        match self {
            Choice::Direct(c) => c.rm,
            Choice::Shared(c) => c.rm,
            Choice::Subgroup(c) => c.rm,
            Choice::Cooperative(c) => c.rm,
        }
    }
}

impl std::fmt::Display for Choice {
    /// `direct 16x8 wg 4x8`, `subgroup 24x8`: rows × columns of a lane.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Choice::Direct(c) => write!(f, "direct {}x{} wg {}x{}", c.rm, c.rn, c.wg_m, c.wg_n),
            Choice::Shared(c) => {
                write!(f, "shared {}x{} wg {}x{} bk {}", c.rm, c.rn, c.wg_m, c.wg_n, c.bk)?;
                if c.slices > 1 { write!(f, " slices {}", c.slices) } else { Ok(()) }
            }
            Choice::Subgroup(c) => {
                write!(f, "subgroup {}x{}", c.rm, c.rn)?;
                if c.fours > 1 { write!(f, " k{}", 4 * c.fours) } else { Ok(()) }
            }
            Choice::Cooperative(c) => {
                write!(f, "cooperative {} {}x{} sg {}x{} bk {}", c.size, c.rm, c.rn, c.sg_m, c.sg_n, c.bk)
            }
        }
    }
}

/// What of a device decides which kernels are legal and fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The subgroup width, if there is only one.
    pub subgroup: Option<u32>,
    /// What a workgroup and an invocation may have.
    pub limits: Limits,
    /// A GPU: operands are staged in workgroup memory.
    pub gpu: bool,
    /// Loads move 64 bits at a time on a driver that runs on a CPU.
    pub wide: bool,
    /// On a processor with AVX-512.
    pub avx512: bool,
    /// Sizes of cooperative matrices of f16 with sums in f32.
    pub cooperative: Vec<u32>,
}

impl Capabilities {
    /// WebGPU's defaults: no subgroups.
    pub const PORTABLE: Capabilities = Capabilities {
        subgroup: None,
        limits: Limits::PORTABLE,
        gpu: false,
        wide: false,
        avx512: false,
        cooperative: Vec::new(),
    };
}

/// How many candidates [`candidates`] gives at most.
const CANDIDATES: usize = 12;

/// The family and tile that should be fastest for a product: the first of [`candidates`].
pub fn choose(product: Product, halves: bool, of: &Capabilities) -> Choice {
    candidates(product, halves, of)[0]
}

/// Legal families and tiles for a product that are worth measuring, the one that should be fastest first. `halves`: all operands
/// are values of f16.
///
/// Of each family and width of tile the cheapest heights are listed, because the model is a guess that holds better within a
/// family than between families.
pub fn candidates(product: Product, halves: bool, of: &Capabilities) -> Vec<Choice> {
    let mut classes = Vec::new();
    for rn in [8, 4] {
        classes.push(direct(product, rn, of));
        classes.push(subgroup(product, rn, 1, of));
        classes.push(subgroup(product, rn, 2, of));
    }
    classes.push(shared(product, of));
    if halves {
        classes.push(cooperative(product, of));
    }
    let mut all: Vec<(f64, Choice)> = Vec::new();
    for mut class in classes {
        class.retain(|(_, choice)| choice.kernel().check(&of.limits).is_ok());
        class.sort_by(|a, b| a.0.total_cmp(&b.0)); // stable: of equals the larger tile
        // Neighbours of the best tile are as good as it: every candidate is at least an eighth smaller or larger.
        let mut kept: Vec<(f64, Choice)> = Vec::new();
        for (cost, choice) in class {
            let staged = matches!(choice, Choice::Shared(_) | Choice::Cooperative(_));
            let rows = choice.rows();
            let near = |other: &Choice| !staged && other.rows().abs_diff(rows) * 8 < other.rows().max(rows);
            if kept.len() < 4 && !kept.iter().any(|(_, k)| near(k)) {
                kept.push((cost, choice));
            }
        }
        all.extend(kept);
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    // The best of each family stays, whatever the model thinks of it.
    let mut seen = Vec::new();
    let mut rest = CANDIDATES;
    all.retain(|(_, choice)| {
        let family = choice.kernel().family().name;
        let first = !seen.contains(&family);
        seen.push(family);
        rest = rest.saturating_sub(1);
        rest > 3 || first
    });
    all.into_iter().map(|(_, choice)| choice).collect()
}

/// Cycles of llvmpipe for 8 lanes (docs/PERFORMANCE.md): a load of a vec4, by words and by pairs; a multiply-add; a broadcast.
const LOAD: f64 = 100.0;
const WIDE_LOAD: f64 = 45.0;
const MULTIPLY_ADD: f64 = 1.2;
const BROADCAST: f64 = 0.2;
/// Elements of a tile up to which a step stays in the processor's cache of decoded instructions, and how much longer larger
/// ones take.
const SMALL: u32 = 112;
const LARGE: f64 = 1.15;
/// What two fours of K an iteration take of the time of one.
const DOUBLE: f64 = 0.9;
/// How much longer a GPU takes with operands out of its caches than out of workgroup memory.
const UNSTAGED: f64 = 3.0;

/// The cost of lanes that load `a` fours of A and `rn` of B, hand out `broadcasts` rows and multiply `rm` × `rn` elements, for
/// each four of K.
fn cost(of: &Capabilities, lanes: u64, a: u32, broadcasts: u32, (rm, rn): (u32, u32)) -> f64 {
    let load = if of.wide { WIDE_LOAD } else { LOAD };
    let loads = load * (a + rn) as f64;
    let arithmetic = 4.0 * (MULTIPLY_ADD * (rm * rn) as f64 + BROADCAST * broadcasts as f64);
    let large = if of.wide && !of.avx512 && rm * rn > SMALL { LARGE } else { 1.0 };
    lanes as f64 * (loads + arithmetic) * large * if of.gpu { UNSTAGED } else { 1.0 }
}

fn direct(product: Product, rn: u32, of: &Capabilities) -> Vec<(f64, Choice)> {
    let tiles = (1..=128 / rn).rev().filter(|rm| *rm <= 16);
    tiles
        .filter_map(|rm| {
            // The workgroup's height matters by its waste at the edges only: the least wasteful, then the largest.
            let heights = [8, 4, 2, 1].into_iter().filter(|wg_m| wg_m * 8 <= of.limits.invocations.max(8));
            let offers = heights.map(|wg_m| {
                let kernel = Contract { product, rm, rn, wg_m, wg_n: 8 };
                let lanes = kernel.groups() * wg_m as u64 * 8;
                (cost(of, lanes, rm, 0, (rm, rn)), Choice::Direct(kernel))
            });
            offers.min_by(|a, b| a.0.total_cmp(&b.0))
        })
        .collect()
}

fn subgroup(product: Product, rn: u32, fours: u32, of: &Capabilities) -> Vec<(f64, Choice)> {
    // Two fours an iteration: only on processors whose caches hold such a step, and in small tiles.
    let least = if fours == 1 { 4 } else { 8 };
    if fours > 1 && !of.avx512 {
        return Vec::new();
    }
    let (elements, gain) = if fours == 1 { (192, 1.0) } else { (128, DOUBLE) };
    // By pairs one loads lane by lane, and more rows for each column loaded pay longer.
    let (elements, most) = if fours > 1 && of.wide && rn == 4 { (160, 40) } else { (elements, 32) };
    let widths = of.subgroup.filter(|width| (least..=of.limits.invocations.min(128)).contains(width));
    // Fours of columns of one row each are too little of a row at a time: measured at a third of the speed.
    let narrow = |width: u32| rn == 4 && product.b_order == BOrder::NContiguous && product.n > 4 * width;
    let Some(width) = widths.filter(|width| !narrow(*width)) else { return Vec::new() };
    let tiles = (1..=elements / rn).rev().filter(|rm| *rm <= most);
    tiles
        .map(|rm| {
            let kernel = ContractSubgroup { product, width, rm, rn, fours };
            let lanes = kernel.groups() * width as u64;
            (cost(of, lanes, rm.div_ceil(width), rm, (rm, rn)) * gain, Choice::Subgroup(kernel))
        })
        .collect()
}

/// Workgroups in flight below which a GPU is not full.
const FULL: f64 = 128.0;

fn shared(product: Product, of: &Capabilities) -> Vec<(f64, Choice)> {
    let whole =
        [(8, 8, 16, 16, 16), (8, 8, 16, 8, 8), (8, 4, 16, 8, 8), (4, 4, 16, 8, 8), (4, 8, 32, 4, 8), (2, 4, 32, 4, 16)];
    // Tiles whose sums several invocations share, for products with fewer tiles than a GPU has places for workgroups.
    let sliced = [(4, 4, 32, 8, 8, 4), (4, 4, 16, 2, 16, 4), (2, 4, 32, 1, 16, 8), (2, 4, 32, 1, 8, 8)];
    let tiles = whole.into_iter().map(|(rm, rn, bk, wg_m, wg_n)| (rm, rn, bk, wg_m, wg_n, 1));
    let sliced = sliced.into_iter().filter(|_| of.gpu);
    tiles
        .chain(sliced)
        .map(|(rm, rn, bk, wg_m, wg_n, slices)| {
            let kernel = ContractShared { product, rm, rn, bk, wg_m, wg_n, slices };
            let lanes = (kernel.groups() * (wg_m * wg_n) as u64) as f64;
            // A four of K takes rm + rn reads of workgroup memory, and its share of staging.
            let staging = (rm * wg_m + rn * wg_n) as f64 / (wg_m * wg_n) as f64;
            let four = 4.0 * MULTIPLY_ADD * (rm * rn) as f64 + 8.0 * (rm + rn) as f64;
            // Slices write and read their fours once, at the price of as many reads and two barriers every four rows.
            let combining = match slices {
                1 => 0.0,
                _ => {
                    slices as f64 * (16.0 * (rm * rn / 4) as f64 + 50.0 * rm.div_ceil(4) as f64)
                        / product.steps().max(1) as f64
                }
            };
            let full = if of.gpu { ((kernel.groups() * slices as u64) as f64 / FULL).min(1.0) } else { 1.0 };
            // On a CPU workgroup memory is memory, and every barrier switches between invocations.
            let slow = if of.gpu { 1.0 } else { 4.0 };
            (lanes * (four + 25.0 * staging + combining) * slow / full, Choice::Shared(kernel))
        })
        .collect()
}

fn cooperative(product: Product, of: &Capabilities) -> Vec<(f64, Choice)> {
    let Some(width) = of.subgroup.filter(|width| (4..=128).contains(width)) else { return Vec::new() };
    let mut all = Vec::new();
    for size in of.cooperative.iter().copied() {
        let tiles = match size {
            8 => &[(4, 4, 32, 2, 2), (4, 4, 32, 1, 1), (2, 2, 16, 1, 1)][..],
            _ => &[(4, 4, 32, 2, 2), (2, 2, 32, 2, 2), (2, 2, 32, 1, 1)][..],
        };
        for &(rm, rn, bk, sg_m, sg_n) in tiles {
            let kernel = ContractCooperative { product, size, width, rm, rn, bk, sg_m, sg_n };
            let work = kernel.groups() as f64 * (sg_m * sg_n * rm * rn * size * size) as f64;
            let full = (kernel.groups() as f64 / FULL).min(1.0);
            // Against 4 multiply-adds an element of a four of K: a matrix unit on a GPU, and its emulation on a CPU.
            let speed = if of.gpu { 0.2 } else { 20.0 };
            all.push((work * speed * (1.0 + 1.0 / (rm * rn) as f64) / full, Choice::Cooperative(kernel)));
        }
    }
    all
}
