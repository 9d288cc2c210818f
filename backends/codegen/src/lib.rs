//! Module and target to plan and bundle. Needs no device: a target is data.

pub mod index;
pub mod target;
