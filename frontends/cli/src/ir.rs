//! `selvedge ir`: modules in text form.

use crate::common::{DeviceArg, OptimizerArg, device, out, wrong};
use crate::{Error, Outcome};
use clap::Subcommand;
use selvedge::ir::{Module, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Parse a module and check every invariant.
    Verify {
        /// The `.ir` file.
        file: PathBuf,
    },
    /// Print a module in canonical form.
    Print {
        /// The `.ir` file.
        file: PathBuf,
    },
    /// Print a module after the passes.
    Opt {
        /// The `.ir` file.
        file: PathBuf,
        /// Only these passes, in this order.
        #[arg(long, value_name = "NAME[,NAME…]", value_delimiter = ',')]
        pass: Vec<String>,
        #[command(flatten)]
        optimizer: OptimizerArg,
    },
    /// Run a function on random inputs and weights, and print what it returns.
    Run {
        /// The `.ir` file.
        file: PathBuf,
        /// The function; needed if there are several.
        #[arg(long, value_name = "NAME")]
        function: Option<String>,
        /// Value of a symbolic dimension.
        #[arg(long = "dim", value_name = "NAME=N")]
        dims: Vec<String>,
        /// Seed of inputs and weights.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        #[command(flatten)]
        device: DeviceArg,
        #[command(flatten)]
        optimizer: OptimizerArg,
    },
}

pub fn run(args: &Args) -> Result<Outcome, Error> {
    match &args.command {
        Command::Verify { file } => {
            let module = selvedge::text::read(file)?;
            let values: usize = module.functions.iter().map(|f| f.values.len()).sum();
            out!("{}: {} functions, {values} values, valid", file.display(), module.functions.len());
        }
        Command::Print { file } => out!("{}", selvedge::text::read(file)?.to_string().trim_end()),
        Command::Opt { file, pass, optimizer } => {
            let module = selvedge::text::read(file)?;
            out!("{}", selvedge::compile::optimise(module, pass, &optimizer.settings())?.to_string().trim_end());
        }
        Command::Run { file, function, dims, seed, device: arg, optimizer } => {
            let module = specialise(selvedge::text::read(file)?, dims)?;
            let name = choose(&module, function.as_deref(), file)?;
            let device = device(arg)?;
            let outputs = selvedge::text::run(&module, &name, *seed, &device, &optimizer.settings())?;
            print(&outputs);
        }
    }
    Ok(Outcome::Done)
}

fn specialise(module: Module, dims: &[String]) -> Result<Module, Error> {
    let mut values = BTreeMap::new();
    for text in dims {
        let parsed =
            text.split_once('=').and_then(|(n, v)| Some((n.trim().to_string(), v.trim().parse::<usize>().ok()?)));
        let Some((name, value)) = parsed else {
            return Err(wrong("dim", format!("`{text}` is no dimension"), "write NAME=N, as in --dim B=2"));
        };
        values.insert(name, value);
    }
    selvedge::compile::specialise(module, &values)
}

fn choose(module: &Module, name: Option<&str>, file: &Path) -> Result<String, Error> {
    let known: Vec<&str> = module.functions.iter().map(|f| f.name.as_str()).collect();
    match (name, known.as_slice()) {
        (Some(name), known) if known.contains(&name) => Ok(name.to_string()),
        (None, [only]) => Ok(only.to_string()),
        (Some(name), _) => {
            let what = format!("there is no function `{name}` in {}", file.display());
            Err(wrong("function", what, format!("functions: {}", known.join(", "))))
        }
        (None, _) => {
            let what = format!("{} has {} functions", file.display(), known.len());
            Err(wrong("function", what, format!("choose one with --function: {}", known.join(", "))))
        }
    }
}

/// Each output: its type, and its first values.
fn print(outputs: &BTreeMap<String, Tensor>) {
    const SHOWN: usize = 16;
    for (name, tensor) in outputs {
        let values = tensor.to_f64();
        let shown: Vec<String> = values.iter().take(SHOWN).map(|x| format!("{x}")).collect();
        let more = if values.len() > SHOWN { format!(", … {} more", values.len() - SHOWN) } else { String::new() };
        out!("{name}: {} = [{}{more}]", tensor.ty, shown.join(", "));
    }
}
