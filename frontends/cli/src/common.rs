//! Arguments and helpers that commands share.

use clap::Args;
use selvedge::compile::{Optimizer, Settings};
use selvedge::ir::DType;
use selvedge::tune::Level;
use selvedge::{Diagnostic, Error};

pub use selvedge::explain::bytes;

/// Prints a line on stdout; a reader that closed the pipe is no error.
macro_rules! out {
    ($($arg:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($arg)*);
    }};
}
pub(crate) use out;

/// Where to run.
#[derive(Args, Clone, Debug)]
pub struct DeviceArg {
    /// auto, host, gpu, or a device's name (a part is enough); see `selvedge devices`.
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub device: String,
}

/// How to compile.
#[derive(Args, Clone, Debug)]
pub struct OptimizerArg {
    /// How hard the rewrite rules work: none (one kernel an operator), greedy (one rule after another), or saturate (all
    /// rules in one e-graph, from which the cheapest program is taken).
    #[arg(long, default_value = "saturate", value_name = "none|greedy|saturate")]
    pub optimizer: Optimizer,
    #[command(flatten)]
    pub storage: StorageArg,
}

/// How weights and activations are stored, and where.
#[derive(Args, Clone, Debug)]
pub struct StorageArg {
    /// Store the weights of products and convolutions as f32, f16 or bf16, or those of products as integers of 8 or 4 bits with a
    /// scale for each 64 (sums are f32 in any case); as in the checkpoint if absent.
    #[arg(long, value_name = "f32|f16|bf16|int8|int4", value_parser = weight_type)]
    pub dtype: Option<WeightType>,
    /// Store activations between kernels as f16 where their range allows (sums are f32 in any case): ranges are measured on the
    /// host when compiling, and a run that leaves them fails instead of overflowing. The residual stream stays f32.
    #[arg(long, default_value = "f32", value_name = "f32|f16", value_parser = ["f32", "f16"])]
    pub activations: String,
    #[command(flatten)]
    pub memory: MemoryArg,
}

/// How much a session may take.
#[derive(Args, Clone, Copy, Debug)]
pub struct MemoryArg {
    /// Most device memory to take, as in 4GiB. Text encoders and autoencoders are then on the device only while they run, and the
    /// decoder works in strips, where that is needed; what does not fit even so is refused before anything is loaded.
    #[arg(long, value_name = "SIZE", value_parser = selvedge::memory::parse)]
    pub max_memory: Option<u64>,
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightType {
    /// As floats.
    Float(DType),
    /// As integers of so many bits with group scales.
    Integer(u8),
}

fn weight_type(text: &str) -> Result<WeightType, String> {
    match text {
        "int8" => return Ok(WeightType::Integer(8)),
        "int4" => return Ok(WeightType::Integer(4)),
        _ => {}
    }
    let dtype = DType::plain(text).filter(|d| d.is_float()).map(WeightType::Float);
    dtype.ok_or_else(|| format!("weights are not stored as `{text}`: f32, f16, bf16, int8 or int4"))
}

impl OptimizerArg {
    /// As settings of a compilation.
    pub fn settings(&self) -> Settings {
        self.storage.settings(self.optimizer)
    }
}

impl StorageArg {
    /// As settings of a compilation.
    pub fn settings(&self, optimizer: Optimizer) -> Settings {
        let (dtype, integer_bits) = match self.dtype {
            Some(WeightType::Float(dtype)) => (Some(dtype), None),
            Some(WeightType::Integer(bits)) => (None, Some(bits)),
            None => (None, None),
        };
        Settings {
            optimizer,
            dtype,
            integer_bits,
            half_activations: self.activations == "f16",
            max_memory: self.memory.max_memory,
            ..Settings::default()
        }
    }
}

/// How kernels are chosen.
#[derive(Args, Clone, Debug)]
pub struct TuneArg {
    /// Measure candidates of the kernels on the device and keep the winners in the cache ($SELVEDGE_CACHE, or the platform's
    /// folder): quick or full; off uses the defaults and ignores the cache. Without it winners of the cache are used.
    #[arg(long, value_name = "off|quick|full", value_parser = level)]
    pub tune: Option<Level>,
}

fn level(text: &str) -> Result<Level, String> {
    text.parse().map_err(|_| format!("`{text}` is none of off, quick, full"))
}

/// Whom to believe.
#[derive(Args, Clone, Debug)]
pub struct TrustArg {
    /// Create the kernels of a compiled file without bounds checks and loop bounding: faster, but a file made to do harm
    /// could; use it for files whose maker you trust.
    #[arg(long)]
    pub trust: bool,
}

/// Pixels of a picture, or another unit of width and height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub width: usize,
    pub height: usize,
}

impl std::str::FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Size, String> {
        let parts = text.split_once(['x', 'X', '×']);
        let number = |t: &str| t.trim().parse::<usize>().ok().filter(|&n| n > 0);
        match parts.map(|(w, h)| (number(w), number(h))) {
            Some((Some(width), Some(height))) => Ok(Size { width, height }),
            _ => Err(format!("`{text}` is not a size: write WIDTHxHEIGHT, as in 256x256")),
        }
    }
}

/// The device that the arguments choose; says on stderr when `auto` falls back to the host.
pub fn device(arg: &DeviceArg) -> Result<selvedge::Device, Error> {
    selvedge::Device::choose(&arg.device.parse()?, &mut |message| eprintln!("{message}"))
}

/// A wrong request, with advice.
pub fn wrong(code: &str, message: impl Into<String>, help: impl Into<String>) -> Error {
    Diagnostic::new(code, message).help(help).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!("256x128".parse(), Ok(Size { width: 256, height: 128 }));
        assert!("256".parse::<Size>().is_err() && "0x4".parse::<Size>().is_err() && "ax4".parse::<Size>().is_err());
    }
}
