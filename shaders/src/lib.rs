//! GPU kernels as data: WGSL skeletons, their typed parameters and hooks, and the WGSL of scalar bodies and memory access.
//!
//! A **family** ([`kernel::Family`]) is a skeleton, `wgsl/NAME.wgsl`: an entry point that reads constants and calls hook
//! functions. `wgsl/NAME.stubs.wgsl` holds constants and hooks with which it is a valid shader, and documents their signatures.
//! A **kernel** ([`kernel::Kernel`]) is a family with parameters: it checks them, and gives the dispatch grid, a bound of loop
//! iterations, and a [`source::Source`] to which bindings and hooks are added:
//!
//! ```
//! use selvedge_ir::{DType, scalar::{Body, Unary}};
//! use selvedge_shaders::{kernel::{Kernel, Limits}, kernels::map::Map, memory, scalar, source::Access};
//!
//! let kernel = Map::new(1000);
//! kernel.check(&Limits::PORTABLE)?;
//! let mut lets = vec![format!("let x = {};", memory::load(0, DType::F32, memory::Layout::Words, "i"))];
//! let mut names = 0;
//! let mut fresh = || { names += 1; format!("t{names}") };
//! let value = scalar::emit(&Body::unary(Unary::Sigmoid), &["x".into()], &[DType::F32], &mut fresh, &mut lets);
//! lets.push(memory::store(0, DType::F32, "i", &value));
//! let hook = format!("fn element(i: u32) {{\n    {}\n}}", lets.join("\n    "));
//! let wgsl = kernel.source().binding(Access::ReadWrite).functions(hook).text();
//! assert!(wgsl.contains("const COUNT: u32 = 1000u;"));
//! assert_eq!(kernel.grid(), [16, 1, 1]);
//! # Ok::<(), selvedge_shaders::kernel::ParamError>(())
//! ```
//!
//! All storage bindings are `array<vec4<u32>>`, `b0`, `b1`, … This crate knows nothing of graphs, devices or wgpu.

pub mod kernel;
pub mod kernels;
mod library;
pub mod memory;
pub mod probe;
pub mod scalar;
pub mod source;

pub use kernels::catalogue;
pub use library::functions as library_functions;
