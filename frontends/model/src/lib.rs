//! The model-definition API of Selvedge: lazy tensors, layers, and weights by checkpoint path.
//!
//! A model is ordinary Rust that adds operations to a [`Graph`]. Tensors are lazy values with operators and methods,
//! weights are named as the checkpoint names them, and the result is a [`selvedge_ir::Module`]: it prints as text, is
//! evaluated by the reference interpreter, and is what the compiler takes.
//!
//! ```
//! use selvedge_model::prelude::*;
//! use selvedge_ir::{Interpreter, Precision, Tensor};
//! use std::{collections::BTreeMap, sync::Arc};
//!
//! // A diffusion transformer of two blocks over 2×2 patches of a 4×4 image.
//! let mut builder = ModuleBuilder::new("tiny");
//! builder.function("forward", |g| {
//!     let (w, hidden, heads) = (g.weights(), 8, 2);
//!     let x = g.input("x", DType::F32, [1, 1, 4, 4]);
//!     let t = g.input("t", DType::F32, [1]);
//!     let c = TimestepEmbedding::new(&w.sub("t_embedder"), ["mlp.0", "mlp.2"], hidden, Sinusoid::dit()).forward(&t);
//!     let mut h = PatchEmbed::new(&w.sub("x_embedder.proj"), 2, 1, hidden).forward(&x);
//!     for i in 0..2 {
//!         let block = w.sub("blocks").sub(i);
//!         let [shift, scale, gate] = AdaLnModulation::new(&block.sub("adaLN"), hidden, 3).forward(&c);
//!         let attention = Attention::fused(&block.sub("attn"), hidden, heads);
//!         h = &h + gate * attention.forward(&modulate(&h.layer_norm(None, None, 1e-6), &shift, &scale));
//!     }
//!     let patches = Linear::new(&w.sub("out"), hidden, 4).forward(&h);
//!     g.output("velocity", &unpatchify(&patches, (2, 2), 2));
//! });
//! let module = builder.build()?;
//! assert!(module.to_string().contains("weight \"blocks.1.attn.qkv.weight\""));
//!
//! // Every weight is 0.1 here; a checkpoint has better ones.
//! let tenths = |ty: &TensorType| Tensor::from_f64(ty.clone(), &vec![0.1; ty.elements().unwrap()], Precision::F32);
//! let weights: BTreeMap<_, _> = module.weights.iter().map(|w| (w.name.clone(), Arc::new(tenths(&w.ty)))).collect();
//! let inputs = [Tensor::f32(&[1, 1, 4, 4], vec![1.0; 16]), Tensor::f32(&[1], vec![500.0])];
//! let outputs = Interpreter::new(&module, &weights).call("forward", &inputs, &mut BTreeMap::new())?;
//! assert_eq!(outputs[0].1.sizes(), [1, 1, 4, 4]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Mistakes** never panic. Each is recorded with the line of model code that made it and the shapes involved; what
//! follows from it is silent; [`ModuleBuilder::build`] reports them all.
//!
//! **Dtypes.** Weights have the dtype the checkpoint stores ([`ModuleBuilder::stored_as`]). Products take mixed floats;
//! pointwise operations widen the narrower ones to f32; layers compute in their input's dtype.

pub mod graph;
pub mod module;
pub mod tensor;
pub mod weights;

pub mod contract;
pub mod index;
pub mod pointwise;
pub mod reduce;
pub mod views;

pub mod nn;

pub use contract::WindowOptions;
pub use graph::{Callee, Graph, StoredDType};
pub use module::ModuleBuilder;
pub use pointwise::{Operand, map};
pub use selvedge_ir::{DType, Diagnostic, Diagnostics, Dim, Shape, TensorType};
pub use tensor::{Axes, Tensor};
pub use views::{concat, stack};
pub use weights::Scope;

/// Everything a model's file needs, but for [`Tensor`], whose name the interpreter's tensor shares.
pub mod prelude {
    pub use crate::nn::*;
    pub use crate::{DType, Graph, ModuleBuilder, Scope, Shape, TensorType, WindowOptions, concat, map, stack};
}
