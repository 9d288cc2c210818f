//! The model-definition API of Selvedge: lazy tensors, layers, and weights by checkpoint path.

pub mod contract;
pub mod graph;
pub mod index;
pub mod module;
pub mod nn;
pub mod pointwise;
pub mod reduce;
pub mod tensor;
pub mod views;
pub mod weights;

pub use contract::WindowOptions;
pub use graph::{Callee, Graph, StoredDType};
pub use module::ModuleBuilder;
pub use pointwise::{Operand, map};
pub use selvedge_ir::{DType, Diagnostic, Diagnostics, Dim, Shape, TensorType};
pub use tensor::{Axes, Tensor};
pub use views::{concat, stack};
pub use weights::Scope;
