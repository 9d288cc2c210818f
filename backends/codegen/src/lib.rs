//! Module and target to plan and bundle. Needs no device: a target is data.

pub mod access;
pub mod emit;
pub mod flat;
pub mod index;
pub mod lower;
pub mod select;
pub mod target;
