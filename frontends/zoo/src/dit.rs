//! The class-conditional diffusion transformer (DiT).
