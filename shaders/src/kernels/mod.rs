//! The kernel families: one parameter type each. A family's hooks are documented at its parameters, and their
//! signatures stand in its stubs file.

pub mod argreduce;
pub mod attention;
mod attention_text;
pub mod column;
pub mod contract;
mod contract_choice;
pub mod contract_cooperative;
pub mod contract_shared;
pub mod contract_subgroup;
pub mod map;
pub mod reduce;
pub mod row;
pub mod scan;
pub mod scatter;
mod tile;
pub mod topk;

use crate::kernel::Family;

/// Declares the static description of a family from its files.
macro_rules! family {
    ($(#[$meta:meta])* $name:ident, $file:literal) => {
        $(#[$meta])*
        pub static $name: crate::kernel::Family = crate::kernel::Family {
            name: $file,
            skeleton: include_str!(concat!("../../wgsl/", $file, ".wgsl")),
            stubs: include_str!(concat!("../../wgsl/", $file, ".stubs.wgsl")),
        };
    };
}
pub(crate) use family;

/// Every family, in reading order.
pub fn catalogue() -> [&'static Family; 18] {
    [
        &map::FAMILY,
        &reduce::LANE,
        &reduce::GROUP,
        &argreduce::LANE,
        &argreduce::GROUP,
        &contract::FAMILY,
        &contract_subgroup::FAMILY,
        &contract_shared::FAMILY,
        &contract_cooperative::FAMILY,
        &row::NORM,
        &row::SOFTMAX,
        &row::REDUCE,
        &column::REDUCE,
        &attention::FAMILY,
        &scan::FAMILY,
        &scatter::FAMILY,
        &topk::FAMILY,
        &topk::SELECT,
    ]
}
