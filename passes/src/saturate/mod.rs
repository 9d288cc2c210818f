//! Equality saturation: rules as named laws, one generic e-node, types as the analysis.

mod analysis;
mod encode;
mod language;
mod rule;
mod step;

pub use analysis::{Binding, Classes, Fact, Facts, Graph, TensorFact};
pub use egg::Id;
pub use language::Node;
pub use rule::{Bindings, Match, Phase, Refusal, Rule, Term};
pub use step::{Step, exhaust, steps};
