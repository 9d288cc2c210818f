//! Weights by checkpoint path.

use crate::graph::Graph;
use crate::tensor::Tensor;
use selvedge_ir::Shape;
use std::fmt::Display;

/// A place in a checkpoint's tree of names: `weights.sub("blocks").sub(3).weight("attn.qkv.weight", [192, 64])`.
#[derive(Clone)]
pub struct Scope {
    graph: Graph,
    path: String,
}

impl Scope {
    pub(crate) fn root(graph: &Graph) -> Scope {
        Scope { graph: graph.clone(), path: String::new() }
    }
    /// The function that reads the weights.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
    /// The path from the root; empty for the root.
    pub fn path(&self) -> &str {
        &self.path
    }
    /// The full name of something below this place.
    pub fn name(&self, name: impl Display) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
    /// A place below this one, by name or number.
    pub fn sub(&self, name: impl Display) -> Scope {
        Scope { graph: self.graph.clone(), path: self.name(name) }
    }
    /// The weight of this name, in the dtype the checkpoint stores it in.
    #[track_caller]
    pub fn weight(&self, name: impl Display, shape: impl Into<Shape>) -> Tensor {
        self.graph.weight(&self.name(name), shape.into())
    }
}
