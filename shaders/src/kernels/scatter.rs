//! Scatter without atomics: one invocation a result looks through all updates in order.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::family;
use crate::source::{Const, Element};

family! {
    /// `wgsl/scatter.wgsl`.
    FAMILY, "scatter"
}

/// How an update combines with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Adds.
    Add,
    /// Overwrites: the last update that hits wins.
    Set,
}

/// `count` results, each looking through the updates `from..to` of `updates`.
///
/// Hooks: `fn initial(i: u32) -> A` (if from > 0: what the dispatch before stored), `fn hits(i: u32, j: u32) -> bool`,
/// `fn update(i: u32, j: u32) -> A` (called where it hits), `fn store(i: u32, value: A)`.
/// Constraints: `not-empty` (count), `chunk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scatter {
    /// Number of results.
    pub count: u32,
    /// Number of updates.
    pub updates: u32,
    /// First update of this dispatch.
    pub from: u32,
    /// End of this dispatch, exclusive.
    pub to: u32,
    /// How an update combines with what is there.
    pub kind: Write,
    /// The values' type.
    pub element: Element,
    /// Invocations of a workgroup.
    pub wg: u32,
}

impl Scatter {
    /// All updates in one dispatch.
    pub fn new(count: u32, updates: u32, kind: Write, element: Element) -> Scatter {
        Scatter { count, updates, from: 0, to: updates, kind, element, wg: 64 }
    }
}

impl Kernel for Scatter {
    fn family(&self) -> &'static Family {
        &FAMILY
    }
    fn constraints(&self, check: &mut Check) {
        check.extent("count", self.count);
        check.chunk(self.from, self.to, self.updates);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        vec![
            ("COUNT", Const::U32(self.count)),
            ("UPDATES", Const::U32(self.updates)),
            ("FROM", Const::U32(self.from)),
            ("TO", Const::U32(self.to)),
            ("WG", Const::U32(self.wg)),
        ]
    }
    fn element(&self) -> Option<Element> {
        Some(self.element)
    }
    fn generated(&self) -> Option<String> {
        let value = match self.kind {
            Write::Add => "old + other",
            Write::Set => "other",
        };
        Some(format!("fn written(old: A, other: A) -> A {{ return {value}; }}"))
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.wg, 1, 1]
    }
    fn groups(&self) -> u64 {
        (self.count as u64).div_ceil(self.wg.max(1) as u64)
    }
    fn iterations(&self) -> u64 {
        self.to.saturating_sub(self.from) as u64
    }
}
