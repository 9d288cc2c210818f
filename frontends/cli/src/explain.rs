//! `selvedge explain`: the plan, kernel by kernel.

use crate::common::{OptimizerArg, out, wrong};
use crate::picture::Output;
use crate::{Error, Outcome};
use selvedge::bundle::manifest::PlanFunction;
use selvedge::compile::Options;
use selvedge::explain::Explained;
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// A model folder, a fixture folder of `check`, a compiled file, a shipped model's name (`digits`), or a preset of `bench`.
    model: String,
    /// Images made by one run of the program, or samples of a preset (models only).
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
    /// Only this kernel, by its value (as in `%map22`), name or number: the rules that led to it, and what was not chosen.
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Write a page with the graph before and after the rules, block by block (models only).
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the plan as one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome, Error> {
    if args.batch == 0 {
        return Err(wrong("batch", "a batch of 0 images", "give a batch of 1 or more"));
    }
    let page = args.html.as_deref().map(Output::new).transpose()?;
    let options =
        Options { settings: args.optimizer.settings(), ..Options::new(selvedge::target::parse(&args.target)?) };
    let explained = Explained::open(&args.model, args.batch, &options)?;
    let (manifest, notes) = (&explained.manifest, &explained.notes);
    let wanted = |f: &&PlanFunction| args.function.as_ref().is_none_or(|name| *name == f.name);
    let all = || manifest.plans.iter().flat_map(|p| &p.functions);
    if all().filter(wanted).count() == 0 {
        let known: Vec<&str> = all().map(|f| f.name.as_str()).collect();
        let name = args.function.as_deref().unwrap_or_default();
        let what = format!("there is no function `{name}` in `{}`", manifest.name);
        return Err(wrong("function", what, format!("functions: {}", known.join(", "))));
    }
    if let (Some(page), Some(path)) = (page, &args.html) {
        if explained.history.is_none() {
            return Err(wrong("html", "a compiled file has no graph from before", "give the model it was made of"));
        }
        let html = selvedge::explain::html::page(&explained);
        page.write(html.as_bytes())?;
        out!("{}: the graph before and after the rules", path.display());
        return Ok(Outcome::Done);
    }
    if let Some(name) = &args.kernel {
        let Some(at) = selvedge::explain::kernel::find(manifest, args.function.as_deref(), name) else {
            let help = "`selvedge explain MODEL` lists them; give a value as in `%map22`, a kernel's name, or a number";
            return Err(wrong("kernel", format!("there is no kernel `{name}` in `{}`", manifest.name), help));
        };
        out!("{}", selvedge::explain::kernel::text(&explained, at).trim_end());
        return Ok(Outcome::Done);
    }
    if args.json {
        out!(
            "{}",
            json!({"name": manifest.name, "target": manifest.target, "kernels": manifest.kernels, "plans": manifest.plans})
        );
        return Ok(Outcome::Done);
    }
    out!("{}", selvedge::explain::text(manifest, args.function.as_deref(), args.origins).trim_end());
    notes.lines.iter().for_each(|line| out!("{line}"));
    for report in &notes.saturation {
        out!("{}", report.to_string().trim_end());
    }
    Ok(Outcome::Done)
}
