//! Selvedge compiles diffusion transformers to portable GPU programs and runs them on any Vulkan, Metal or DX12 adapter,
//! or on the host.
//!
//! A model is ordinary Rust ([`model`]), or a checkpoint ([`open`]). It becomes a module ([`ir`]), is compiled for a target
//! into one file ([`compile`]), and runs in a [`Session`] on a [`Device`]; pictures are made by [`sample`].
//!
//! ```
//! use selvedge::compile::{self, Options};
//! use selvedge::model::prelude::*;
//! use selvedge::target::Target;
//! use selvedge::weights::Random;
//! use selvedge::{Device, Event, ir::Tensor};
//! use std::{collections::BTreeMap, sync::Arc};
//!
//! // A transformer of one block over 2×2 patches of an 8×8 image, conditioned on a timestep.
//! let mut builder = ModuleBuilder::new("tiny");
//! builder.function("forward", |g| {
//!     let (w, hidden, heads) = (g.weights(), 16, 2);
//!     let x = g.input("x", DType::F32, [1, 1, 8, 8]);
//!     let t = g.input("t", DType::F32, [1]);
//!     let c = TimestepEmbedding::new(&w.sub("t_embedder"), ["mlp.0", "mlp.2"], hidden, Sinusoid::dit()).forward(&t);
//!     let h = PatchEmbed::new(&w.sub("x_embedder.proj"), 2, 1, hidden).forward(&x);
//!     let block = w.sub("blocks.0");
//!     let [shift, scale, gate] = AdaLnModulation::new(&block.sub("adaLN"), hidden, 3).forward(&c);
//!     let attention = Attention::fused(&block.sub("attn"), hidden, heads);
//!     let h = &h + gate * attention.forward(&modulate(&h.layer_norm(None, None, 1e-6), &shift, &scale));
//!     let patches = Linear::new(&w.sub("out"), hidden, 4).forward(&h);
//!     g.output("velocity", &unpatchify(&patches, (4, 4), 2));
//! });
//! let module = builder.build()?;
//! let weights = Arc::new(Random { seed: 1 }); // a checkpoint has better ones
//!
//! // One file that runs on any adapter. No device is needed to make it, and the same input gives the same bytes.
//! let compiled = compile::compile(module.clone(), weights.clone(), Default::default(), &Options::new(Target::portable()))?;
//! let file = compiled.to_bytes()?;
//! assert!(compiled.report().dispatches > 0 && file.len() > 1000);
//!
//! // The same program on the host; `Device::choose` gives an adapter.
//! let mut session = compile::session(module, weights, Default::default(), &Device::Host, &mut |_: Event| {})?;
//! let x = Tensor::f32(&[1, 1, 8, 8], vec![0.5; 64]);
//! let inputs = BTreeMap::from([("x".to_string(), x), ("t".to_string(), Tensor::f32(&[1], vec![500.0]))]);
//! let outputs = session.call("forward", &inputs)?;
//! assert_eq!(outputs["velocity"].sizes(), [1, 1, 8, 8]);
//! # Ok::<(), selvedge::Error>(())
//! ```

pub mod compile;
pub mod dump;
pub mod explain;
pub mod target;

pub mod cache;
mod conditions;
pub mod device;
pub mod gpu;
pub mod host;
pub mod link;
pub mod memory;
pub mod session;
pub mod weights;

pub mod latents;
pub mod open;
pub mod prompt;
pub mod sample;
pub mod text;

pub mod bench;
pub mod bisect;
pub mod check;
pub mod compare;
mod components;
pub mod flops;
pub mod inspect;
pub mod presets;
pub mod quantize;
pub mod ranges;
pub mod selftest;
pub mod tune;

pub mod error;
pub mod event;

pub use device::{Device, DeviceChoice};
pub use error::Error;
pub use event::{Event, Observer};
pub use selvedge_bundle as bundle;
pub use selvedge_import::ProgramOptions;
pub use selvedge_ir as ir;
pub use selvedge_ir::Diagnostic;
pub use selvedge_model as model;
pub use selvedge_zoo as zoo;
pub use session::Session;
