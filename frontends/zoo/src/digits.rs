//! The shipped model: a class-conditional DiT on MNIST digits, in the original key layout.

/// Its `config.json`, sampling defaults included.
pub const CONFIG: &str = include_str!("../assets/digits/config.json");
/// Its weights, a safetensors file in f16.
pub const MODEL: &[u8] = include_bytes!("../assets/digits/model.safetensors");
/// The recorded case, a safetensors file: noises, labels, the first velocity and a whole trajectory.
pub const RECORDED: &[u8] = include_bytes!("../assets/digits/io.safetensors");
