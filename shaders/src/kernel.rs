//! What all kernel families have in common: constants, limits, grid and named constraints.

use crate::source::{Const, Element, Source};
use thiserror::Error;

/// Workgroups that one dimension of a dispatch may have on every WebGPU device; larger grids fold into y.
pub const MAX_GROUPS: u32 = 65_535;

/// A kernel family: its skeleton, and the stubs with which it is a complete shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The name of its files in `wgsl/`.
    pub name: &'static str,
    /// Entry point `main`, reading constants and calling hooks.
    pub skeleton: &'static str,
    /// Constants and hooks that make the skeleton valid and document the hooks' signatures.
    pub stubs: &'static str,
}

/// What a device allows one workgroup and one invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Loop iterations of an invocation, all loops together.
    pub iterations: u64,
}

impl Limits {
    /// WebGPU's defaults, and the loop iterations that llvmpipe (Mesa 22) runs without stopping silently.
    pub const PORTABLE: Limits = Limits { invocations: 256, workgroup_bytes: 16 << 10, iterations: 60_000 };
}

/// A parameter that breaks a constraint of its family.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("kernel `{family}`, constraint `{constraint}`: expected {expected}, found {found}")]
pub struct ParamError {
    /// The family.
    pub family: &'static str,
    /// The constraint's name, as documented at the family's parameters.
    pub constraint: &'static str,
    /// What holds for legal parameters.
    pub expected: String,
    /// What was given.
    pub found: String,
}

/// Collects the first constraint that does not hold.
pub struct Check {
    family: &'static str,
    error: Option<ParamError>,
}

impl Check {
    /// Demands that a constraint holds.
    pub fn that(&mut self, holds: bool, constraint: &'static str, expected: impl ToString, found: impl ToString) {
        if !holds && self.error.is_none() {
            let (expected, found) = (expected.to_string(), found.to_string());
            self.error = Some(ParamError { family: self.family, constraint, expected, found });
        }
    }
    /// `not-empty`: an extent of at least 1.
    pub fn extent(&mut self, what: &str, x: u32) {
        self.that(x >= 1, "not-empty", format!("{what} of at least 1"), x);
    }
    /// `chunk`: FROM < TO ≤ LEN, or all three 0.
    pub fn chunk(&mut self, from: u32, to: u32, len: u32) {
        let found = format!("{from}..{to} of {len}");
        self.that((from < to && to <= len) || (len == 0 && to == 0 && from == 0), "chunk", "FROM < TO ≤ length", found);
    }
    /// `power-of-two`: for trees over a workgroup.
    pub fn power_of_two(&mut self, what: &str, x: u32) {
        self.that(x.is_power_of_two(), "power-of-two", format!("{what} a power of two"), x);
    }
}

/// A kernel: a family with parameters.
pub trait Kernel {
    /// The family.
    fn family(&self) -> &'static Family;
    /// The family's own constraints.
    fn constraints(&self, check: &mut Check);
    /// WGSL extensions that the skeleton needs, in naga's dialect.
    fn enables(&self) -> &'static [&'static str] {
        &[]
    }
    /// The constants that the skeleton reads, without `GROUPS_X`.
    fn constants(&self) -> Vec<(&'static str, Const)>;
    /// The number type `A`, if the family has one.
    fn element(&self) -> Option<Element> {
        None
    }
    /// Functions that follow from the parameters (combining, register tiles), if any.
    fn generated(&self) -> Option<String> {
        None
    }
    /// Extents of a workgroup.
    fn workgroup(&self) -> [u32; 3];
    /// Bytes of workgroup memory.
    fn workgroup_bytes(&self) -> u32 {
        0
    }
    /// Workgroups in all.
    fn groups(&self) -> u64;
    /// An upper bound of the loop iterations that one invocation runs (hooks are expected to have no loops).
    fn iterations(&self) -> u64;

    /// Checks all constraints.
    fn check(&self, limits: &Limits) -> Result<(), ParamError> {
        let mut check = Check { family: self.family().name, error: None };
        self.constraints(&mut check);
        let invocations: u64 = self.workgroup().iter().map(|&x| x as u64).product();
        let allowed = format!("1 to {}", limits.invocations);
        check.that(
            (1..=limits.invocations as u64).contains(&invocations),
            "workgroup-invocations",
            allowed,
            invocations,
        );
        let bytes = self.workgroup_bytes();
        let allowed = format!("at most {} bytes", limits.workgroup_bytes);
        check.that(bytes <= limits.workgroup_bytes, "workgroup-memory", allowed, bytes);
        let iterations = self.iterations();
        let allowed = format!("at most {} loop iterations; split the work into chunks", limits.iterations);
        check.that(iterations <= limits.iterations, "loop-iterations", allowed, iterations);
        let groups = self.groups();
        let most = MAX_GROUPS as u64 * MAX_GROUPS as u64;
        check.that(groups <= most, "grid", format!("at most {most} workgroups"), groups);
        check.error.map_or(Ok(()), Err)
    }
    /// Workgroups to dispatch: more than 65,535 fold into y, and the skeleton skips those beyond the last.
    fn grid(&self) -> [u32; 3] {
        let groups = self.groups();
        let x = groups.min(MAX_GROUPS as u64).max(1);
        [x as u32, groups.div_ceil(x) as u32, 1]
    }
    /// The shader without bindings and hooks: constants, generated functions and skeleton are in place.
    fn source(&self) -> Source {
        let mut source = Source::new(self.family().skeleton);
        if let Some(element) = self.element() {
            source = source.element(element);
        }
        for name in self.enables() {
            source = source.enable(name);
        }
        for (name, value) in self.constants() {
            source = source.constant(name, value);
        }
        source = source.constant("GROUPS_X", Const::U32(self.grid()[0]));
        match self.generated() {
            Some(text) => source.functions(text),
            None => source,
        }
    }
}
