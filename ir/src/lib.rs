//! The tensor IR of Selvedge: types, operators, modules, text form, verifier and reference interpreter.
//!
//! A [`module::Module`] holds pure functions over dense tensors, the weights they read by checkpoint name, state
//! variables, and a schedule that says which function runs when in a sampling program. Each operator is declared
//! once, in [`ops`]; its type rule (`infer`) is the only shape logic there is, and its `eval` is the
//! specification that every kernel is compared with.
//!
//! This crate knows nothing of e-graphs, GPUs or files.

pub mod attr;
pub mod diag;
pub mod dim;
pub mod dtype;
pub mod func;
pub mod generate;
pub mod interp;
pub mod known;
pub mod lex;
pub mod module;
pub mod op;
pub mod ops;
pub mod parse;
pub mod print;
pub mod scalar;
mod schedule;
pub mod shape;
pub mod spec;
pub mod tensor;
pub mod verify;

pub use diag::{Diagnostic, Diagnostics, Place};
pub use dim::Dim;
pub use dtype::DType;
pub use func::{Builder, Def, Function, ValueId};
pub use interp::{Interpreter, Precision};
pub use module::Module;
pub use ops::{Op, OpKind};
pub use shape::{Shape, TensorType};
pub use spec::ContractSpec;
pub use tensor::{Data, Tensor};
