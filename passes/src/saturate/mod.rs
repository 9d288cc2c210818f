//! Equality saturation: rules as named laws, one generic e-node, types as the analysis.
//!
//! A function becomes an e-graph ([`Node`], [`Facts`]); [`run`] applies rules in phases; [`extract`] takes the program
//! whose plan is cheapest by [`cost`]. The same rules, used greedily, are the baseline.

mod analysis;
pub mod cost;
mod encode;
mod extract;
mod greedy;
mod group;
mod language;
mod optimise;
mod origin;
mod report;
mod rule;
mod run;
mod step;

pub use analysis::{Binding, Classes, Fact, Facts, Graph, TensorFact};
pub use cost::Rates;
pub use egg::Id;
pub use language::{Node, pattern};
pub use optimise::{BEST, NextBest, Saturate, Strategy};
pub use report::{Alternative, FunctionReport, Reason, RuleReport};
pub use rule::{Bindings, Match, Phase, Refusal, Rule, Term};
pub use run::{ABORT_AFTER, Limits, MOST_MATCHES, MOST_NODES, MOST_ROUNDS};
pub use step::{Step, exhaust, steps};
