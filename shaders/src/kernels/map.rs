//! Pointwise kernels: one invocation an element.

use crate::kernel::{Check, Family, Kernel};
use crate::kernels::family;
use crate::source::Const;

family! {
    /// `wgsl/map.wgsl`.
    FAMILY, "map"
}

/// Calls a hook once for each of `count` elements (or groups of elements).
///
/// Hook: `fn element(i: u32)`, i < count, stores whatever it computes.
/// Constraints: `not-empty`; `count` at most 2³¹.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Map {
    /// Number of elements.
    pub count: u32,
    /// Invocations of a workgroup.
    pub wg: u32,
}

impl Map {
    /// With the default workgroup.
    pub fn new(count: u32) -> Map {
        Map { count, wg: 64 }
    }
}

impl Kernel for Map {
    fn family(&self) -> &'static Family {
        &FAMILY
    }
    fn constraints(&self, check: &mut Check) {
        check.extent("count", self.count);
        check.that(self.count <= 1 << 31, "count", "at most 2147483648", self.count);
    }
    fn constants(&self) -> Vec<(&'static str, Const)> {
        vec![("COUNT", Const::U32(self.count)), ("WG", Const::U32(self.wg))]
    }
    fn workgroup(&self) -> [u32; 3] {
        [self.wg, 1, 1]
    }
    fn groups(&self) -> u64 {
        (self.count as u64).div_ceil(self.wg.max(1) as u64)
    }
    fn iterations(&self) -> u64 {
        0
    }
}
