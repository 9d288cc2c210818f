//! `selvedge run`: pictures from a compiled file alone.

use crate::common::{MemoryArg, wrong};
use crate::generate::{OrderArgs, generate};
use crate::{Error, Outcome};
use selvedge::compile::Settings;
use std::path::Path;

#[derive(clap::Args)]
pub struct Args {
    /// The compiled file.
    pub bundle: String,
    #[command(flatten)]
    pub order: OrderArgs,
    #[command(flatten)]
    pub memory: MemoryArg,
}

pub fn run(args: &Args) -> Result<Outcome, Error> {
    if Path::new(&args.bundle).is_dir() {
        let help = "`selvedge generate` takes folders; `selvedge compile` makes a file of one";
        return Err(wrong("bundle", format!("`{}` is a folder, not a compiled file", args.bundle), help));
    }
    if !Path::new(&args.bundle).is_file() {
        return Err(wrong("bundle", format!("`{}` does not exist", args.bundle), "make one with `selvedge compile`"));
    }
    // What is compiled already is not optimised again.
    let settings = Settings { max_memory: args.memory.max_memory, ..Settings::default() };
    generate(&args.bundle, &args.order, None, &settings)
}
