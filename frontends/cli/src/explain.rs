//! `selvedge explain`: the plan, kernel by kernel.

use crate::common::{OptimizerArg, out, wrong};
use crate::{Error, Outcome};
use selvedge::bundle::manifest::PlanFunction;
use selvedge::compile::Options;
use selvedge::open::Opened;
use serde_json::json;

#[derive(clap::Args)]
pub struct Args {
    /// A model folder, a compiled file, or a shipped model's name (`digits`).
    model: String,
    /// Images made by one run of the program (models only).
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// portable, this (the adapter of this machine), or a JSON file with a target's limits (models only).
    #[arg(long, default_value = "portable", value_name = "portable|this|FILE")]
    target: String,
    #[command(flatten)]
    optimizer: OptimizerArg,
    /// Only this function.
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Show the model code's lines that each dispatch comes from.
    #[arg(long)]
    origins: bool,
    /// Print the plan as one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome, Error> {
    let opened = Opened::open(&args.model)?;
    let manifest = match &opened {
        Opened::Bundle(file) => file.manifest()?,
        Opened::Model(_) => {
            let target = selvedge::target::parse(&args.target)?;
            opened
                .source(args.batch, None)?
                .compile(&Options { target, dump: None, settings: args.optimizer.settings() })?
                .manifest()
                .clone()
        }
    };
    let wanted = |f: &&PlanFunction| args.function.as_ref().is_none_or(|name| *name == f.name);
    let all = || manifest.plans.iter().flat_map(|p| &p.functions);
    if all().filter(wanted).count() == 0 {
        let known: Vec<&str> = all().map(|f| f.name.as_str()).collect();
        let name = args.function.as_deref().unwrap_or_default();
        let what = format!("there is no function `{name}` in `{}`", manifest.name);
        return Err(wrong("function", what, format!("functions: {}", known.join(", "))));
    }
    if args.json {
        out!(
            "{}",
            json!({"name": manifest.name, "target": manifest.target, "kernels": manifest.kernels, "plans": manifest.plans})
        );
        return Ok(Outcome::Done);
    }
    out!("{}", selvedge::explain::text(&manifest, args.function.as_deref(), args.origins).trim_end());
    Ok(Outcome::Done)
}
