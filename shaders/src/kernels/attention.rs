//! Attention without scores in memory.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::attention_text;
use crate::kernels::family;
use crate::source::Const;
use std::fmt;

family! {
    /// `wgsl/attention.wgsl`.
    FAMILY, "attention"
}

/// How keys and values reach the invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyDelivery {
    /// Every invocation loads all of them, at addresses that are the same in a workgroup.
    Uniform,
    /// A workgroup loads `keys` of them at a time into its memory.
    Shared {
        /// Keys in workgroup memory.
        keys: u32,
    },
    /// The lanes of a subgroup (a workgroup of its own) load different parts and hand them out.
    Broadcast,
}

/// Which keys a query sees by its place in a grid of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Tokens before the grid, seen by all.
    pub text: u32,
    /// Grid rows.
    pub height: u32,
    /// Grid columns.
    pub width: u32,
    /// Keys at less than this distance are seen.
    pub radius: u32,
    /// Distance by the larger of both coordinates; otherwise Euclidean.
    pub square: bool,
    /// Rows of a workgroup's tile of queries.
    pub tile_height: u32,
    /// Columns of a workgroup's tile of queries.
    pub tile_width: u32,
}

/// Result[batch, n] = Σₘ softmaxₘ(q[n]·k[m]·scale) · v[m] in f32, for queries of `d` and values of `e` elements.
///
/// Hooks, all indices u32, `quad` counting fours: `load_q(batch, n, quad) -> vec4<f32>`, `load_k(batch, m, quad)`,
/// `load_v(batch, m, quad)`, 0 beyond the head size; `store(batch, n, quad, value: vec4<f32>)`;
/// `seen(batch, n, m) -> bool`, called only if `masked`; `bias(batch, n, m) -> f32`, called only if `biased`. With a
/// window, queries are those of the grid, and n counts from the grid's first token; m counts from the first text token.
///
/// Constraints: `not-empty`; `extent`; `head-size` (1 to 256 elements); `register-tile` (1 to 8 queries, 1 to 8 keys);
/// `subgroup-width` (for broadcasts, a power of two from 2 to 128); `tile` (a window's tile is the workgroup's queries);
/// `shared-keys` (a multiple of the keys of a block).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Independent problems: batch × heads.
    pub batch: u32,
    /// Queries.
    pub n: u32,
    /// Keys.
    pub m: u32,
    /// Elements of a query and of a key.
    pub d: u32,
    /// Elements of a value.
    pub e: u32,
    /// Multiplies the scores.
    pub scale: f32,
    /// Query n sees keys up to n only.
    pub causal: bool,
    /// `seen` decides besides.
    pub masked: bool,
    /// `bias` is added to the scaled scores.
    pub biased: bool,
    /// Only near keys are seen.
    pub window: Option<Window>,
    /// How keys and values are delivered.
    pub delivery: KeyDelivery,
    /// Queries an invocation.
    pub ql: u32,
    /// Keys a block.
    pub kb: u32,
    /// Keys whose scores one iteration of a loop computes, a divisor of those of a block; all of them: no loop. Broadcasts only.
    pub kl: u32,
    /// Invocations of a workgroup (a subgroup's width for broadcasts).
    pub wg: u32,
    /// Queries and results are filled and emptied by loop counters, which keeps them in memory: for software drivers, whose
    /// registers hold a small part of them anyway, and which compile arrays in half the time.
    pub indexed: bool,
}

impl fmt::Display for Attention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.delivery {
            KeyDelivery::Uniform => write!(f, "uniform")?,
            KeyDelivery::Shared { keys } => write!(f, "shared {keys}")?,
            KeyDelivery::Broadcast => write!(f, "broadcast")?,
        }
        write!(f, " q{} kb{} wg{}", self.ql, self.kb, self.wg)?;
        if self.looped() {
            write!(f, " kl{}", self.kl)?;
        }
        if self.indexed {
            write!(f, " indexed")?;
        }
        self.window.map_or(Ok(()), |w| write!(f, " tile {}x{}", w.tile_height, w.tile_width))
    }
}

impl Attention {
    /// Fours of a query.
    pub fn d_quads(&self) -> u32 {
        self.d.div_ceil(4)
    }
    /// Fours of a result.
    pub fn e_quads(&self) -> u32 {
        self.e.div_ceil(4)
    }
    /// True if the scores of a block are computed in a loop.
    pub fn looped(&self) -> bool {
        self.delivery == KeyDelivery::Broadcast && self.kl < self.kb
    }
    /// Workgroups of one problem.
    pub fn tiles(&self) -> u32 {
        match self.window {
            Some(w) => w.height.div_ceil(w.tile_height.max(1)) * w.width.div_ceil(w.tile_width.max(1)),
            None => self.n.div_ceil((self.wg * self.ql).max(1)),
        }
    }
}

impl Kernel for Attention {
    fn family(&self) -> &'static Family {
        &FAMILY
    }
    fn constraints(&self, check: &mut Check) {
        for (what, x) in [("batch", self.batch), ("n", self.n), ("m", self.m), ("d", self.d), ("e", self.e)] {
            check.extent(what, x);
            check.that(x <= 1 << 30, "extent", format!("{what} of at most 2^30"), x);
        }
        let heads = self.d <= 256 && self.e <= 256;
        check.that(heads, "head-size", "1 to 256 elements", format!("{} and {}", self.d, self.e));
        let tile = (1..=8).contains(&self.ql) && (1..=8).contains(&self.kb);
        check.that(tile, "register-tile", "1 to 8 queries x 1 to 8 keys", format!("{} x {}", self.ql, self.kb));
        let part = self.kl >= 1 && self.kb.is_multiple_of(self.kl);
        check.that(part, "register-tile", format!("a divisor of {} keys", self.kb), self.kl);
        match self.delivery {
            KeyDelivery::Uniform => {}
            KeyDelivery::Broadcast => {
                let legal = (2..=128).contains(&self.wg) && self.wg.is_power_of_two();
                check.that(legal, "subgroup-width", "a power of two from 2 to 128", self.wg);
            }
            KeyDelivery::Shared { keys } => {
                let legal = keys >= 1 && keys.is_multiple_of(self.kb.max(1)) && self.window.is_none();
                check.that(legal, "shared-keys", "a multiple of the keys of a block, without a window", keys);
            }
        }
        if let Some(w) = self.window {
            let queries = w.tile_height as u64 * w.tile_width as u64;
            let wanted = self.wg as u64 * self.ql as u64;
            check.that(queries == wanted, "tile", format!("{wanted} queries"), queries);
            let tokens = w.text as u64 + w.height as u64 * w.width as u64;
            check.that(tokens == self.m as u64, "tile", format!("{} keys", self.m), tokens);
            check.that(w.height as u64 * w.width as u64 == self.n as u64, "tile", "the grid's queries", self.n);
        }
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        vec![
            ("BATCH", Const::U32(self.batch)),
            ("N", Const::U32(self.n)),
            ("TILES", Const::U32(self.tiles())),
            ("QL", Const::U32(self.ql)),
            ("D_QUADS", Const::U32(self.d_quads())),
            ("E_QUADS", Const::U32(self.e_quads())),
            ("WG", Const::U32(self.wg)),
            ("INDEXED", Const::Bool(self.indexed)),
        ]
    }
    fn generated(&self) -> Option<String> {
        Some(attention_text::functions(self))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.wg, 1, 1]
    }
    fn workgroup_bytes(&self) -> u32 {
        match self.delivery {
            KeyDelivery::Shared { keys } => keys.saturating_mul(self.d_quads() + self.e_quads()).saturating_mul(16),
            KeyDelivery::Uniform | KeyDelivery::Broadcast => 0,
        }
    }
    fn groups(&self) -> u64 {
        self.batch as u64 * self.tiles() as u64
    }
    fn iterations(&self) -> u64 {
        let kb = self.kb.max(1);
        let within = if self.looped() { (kb / self.kl.max(1)) as u64 } else { 0 };
        let keys = match (self.delivery, self.window) {
            (_, Some(w)) => {
                let reach = |tile: u32, size: u32| (tile + 2 * w.radius.saturating_sub(1).min(size)).min(size) as u64;
                let row = reach(w.tile_width, w.width).div_ceil(kb as u64);
                w.text.div_ceil(kb) as u64 * (1 + within) + reach(w.tile_height, w.height) * (row * (1 + within) + 1)
            }
            (KeyDelivery::Shared { keys }, None) => {
                let blocks = self.m.div_ceil(keys.max(1)) as u64;
                let copies = (keys * (self.d_quads() + self.e_quads())).div_ceil(self.wg.max(1)) as u64 + 2;
                blocks * (1 + copies + (keys / kb) as u64)
            }
            (KeyDelivery::Uniform | KeyDelivery::Broadcast, None) => self.m.div_ceil(kb) as u64 * (1 + within),
        };
        keys + (self.ql * (self.d_quads() + 2 * self.e_quads() + 10)) as u64
    }
}
