//! Module and target to plan and kernels. Needs no device: a target is data.
//!
//! [`compile::compile`] goes through these stages, one file each: calls and composites are expanded ([`flat`], where
//! joined weights become one, [`joins`]), values
//! that need memory are chosen and grouped into units ([`select`]), units become jobs ([`lower`]) that emit WGSL
//! ([`emit`], with index arithmetic from [`index`]) through windows of memory ([`access`]); lifetimes give regions
//! ([`memory`]), names give ports ([`names`], [`ports`]), and the plan is checked
//! ([`verify`]) and printed ([`text`]). Where there are several kernels for a unit, one is chosen ([`tune`]).

pub mod compile;
pub mod target;

pub mod access;
mod blocks;
pub mod emit;
pub mod flat;
pub mod index;
pub mod joins;
pub mod lower;
pub mod memory;
pub mod moves;
pub mod names;
pub mod panels;
pub mod ports;
pub mod probe;
pub mod select;
pub mod tensor;
pub mod text;
pub mod tune;
pub mod verify;
pub mod views;

/// Names of all kernel families.
pub fn families() -> Vec<&'static str> {
    selvedge_shaders::catalogue().iter().map(|family| family.name).collect()
}

pub use compile::{Compiled, Options, compile};
pub use target::{Subgroups, Target};
pub use tune::{Choices, Tunable};
