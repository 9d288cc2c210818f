//! Contractions whose rows of A are handed out inside a subgroup.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::contract::Product;
use crate::kernels::family;
use crate::kernels::tile::{self, Delivery};
use crate::source::Const;

family! {
    /// `wgsl/contract_subgroup.wgsl`.
    FAMILY, "contract_subgroup"
}

/// Subgroup delivery: a workgroup is one subgroup of `width` lanes and owns `rm` rows × `width·rn` columns. A lane
/// loads a row of A (4 consecutive k) and its own columns of B; rows reach all lanes by `subgroupBroadcast`.
///
/// Legal only on adapters whose least and largest subgroup width are both `width`. Hooks as for
/// [`Product`]. Constraints: those of [`Product`]; `subgroup-width` (power of two, 4 to 128); `register-tile` (rm 1
/// to 64, rn 4, 8, 12 or 16, at most 256 elements); `fours` (1 or 2 an iteration, whole iterations).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContractSubgroup {
    /// What is computed.
    pub product: Product,
    /// Lanes of a subgroup.
    pub width: u32,
    /// Rows a subgroup.
    pub rm: u32,
    /// Columns a lane, a multiple of 4.
    pub rn: u32,
    /// Fours of K an iteration: with two, drivers that keep the tile in memory under a mask do so half as often.
    pub fours: u32,
}

impl ContractSubgroup {
    /// With the default tile.
    pub fn new(product: Product, width: u32) -> ContractSubgroup {
        ContractSubgroup { product, width, rm: 16, rn: 8, fours: 1 }
    }
    fn rows(&self) -> u32 {
        self.rm.max(1)
    }
    fn columns(&self) -> u32 {
        (self.rn * self.width).max(1)
    }
}

impl Kernel for ContractSubgroup {
    fn family(&self) -> &'static Family {
        &FAMILY
    }
    fn constraints(&self, check: &mut Check) {
        self.product.constraints(check);
        let width = (4..=128).contains(&self.width) && self.width.is_power_of_two();
        check.that(width, "subgroup-width", "a power of two from 4 to 128", self.width);
        let legal = (1..=64).contains(&self.rm)
            && (4..=16).contains(&self.rn)
            && self.rn.is_multiple_of(4)
            && self.rm * self.rn <= 256;
        let found = format!("{} x {}", self.rm, self.rn);
        check.that(legal, "register-tile", "1..=64 rows x 4, 8, 12 or 16 columns, at most 256 elements", found);
        let Product { from, to, .. } = self.product;
        let whole = self.fours == 1 || (self.fours == 2 && to.saturating_sub(from).is_multiple_of(8));
        let found = format!("{} of {from}..{to}", self.fours);
        check.that(whole, "fours", "1 an iteration, or 2 where K (or its chunk) is a multiple of 8", found);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        let mut constants = self.product.constants(self.rows(), self.columns());
        for (name, x) in [("RM", self.rm), ("RN", self.rn), ("WIDTH", self.width), ("FOURS", self.fours)] {
            constants.push((name, Const::U32(x)));
        }
        constants
    }
    fn generated(&self) -> Option<String> {
        let step = tile::step(self.rm, self.rn, &self.product, Delivery::Broadcast { width: self.width });
        let mut advance =
            "fn advance(c: ptr<function, Tile>, places: Places, batch: u32, m: u32, n: u32, k: u32, lane: u32) {\n"
                .to_string();
        for four in 0..self.fours {
            advance += &format!("    step(c, places, batch, m, n, k + {}u, lane);\n", 4 * four);
        }
        Some(step + &advance + "}\n")
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.width, 1, 1]
    }
    fn groups(&self) -> u64 {
        self.product.groups(self.rows(), self.columns())
    }
    fn iterations(&self) -> u64 {
        self.product.steps().div_ceil(self.fours.max(1) as u64) + tile::finishing(self.rm, self.rn)
    }
}
