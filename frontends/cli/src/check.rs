//! `selvedge check`: recorded inputs through a model, compared with the recorded outputs.

use crate::common::{DeviceArg, OptimizerArg, device, out};
use crate::{Error, Outcome, report, status};
use selvedge::bisect::{self, Suspects};
use selvedge::check::{self, Report};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Fixture folders: config.json, weights, io.safetensors and case.json.
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    optimizer: OptimizerArg,
    /// Largest rel_l2 of an output that passes, instead of each case's own.
    #[arg(long, value_name = "REL_L2")]
    tol: Option<f64>,
    /// In a case that fails, find the first operator that goes wrong, and whether the import, a pass or a kernel is to blame.
    #[arg(long)]
    bisect: bool,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome, Error> {
    let device = device(&args.device)?;
    let mut cases: Vec<Value> = Vec::new();
    let (mut passed, mut refused) = (0, None);
    for folder in &args.folders {
        // A folder that cannot be checked fails, and the others are still checked.
        match check::check(folder, &device, &args.optimizer.settings(), args.tol) {
            Ok(report) => {
                if !args.json {
                    print(&report);
                }
                passed += usize::from(report.ok());
                let mut object = report.to_json();
                if args.bisect && !report.ok() {
                    let suspects = Suspects::new(&args.optimizer.settings(), &device);
                    let found = bisect::bisect(folder, &device, args.tol, &suspects)?;
                    if !args.json {
                        found.iter().for_each(|finding| out!("  {finding}"));
                        if found.is_empty() {
                            out!("  no value that was looked at differs by more than the tolerance");
                        }
                    }
                    object["bisect"] = found.iter().map(bisect::Finding::to_json).collect();
                }
                cases.push(object);
            }
            Err(error) => {
                report::error(&error);
                refused = refused.max(Some(status(&error)));
                let case = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
                if !args.json {
                    out!("{case} on {}: FAILED, it cannot be checked", device.name());
                }
                cases.push(json!({"case": case, "device": device.name(), "ok": false, "error": error.to_string()}));
            }
        }
    }
    let ok = passed == cases.len();
    if args.json {
        match cases.as_slice() {
            [one] => out!("{one}"),
            all => out!("{}", json!({"cases": all, "ok": ok})),
        }
    } else if cases.len() > 1 {
        out!("{passed} of {} cases pass on {}", cases.len(), device.name());
    }
    Ok(match refused {
        Some(status) => Outcome::Refused(status),
        None if ok => Outcome::Done,
        None => Outcome::CheckFailed,
    })
}

fn print(report: &Report) {
    let verdict = if report.ok() { "ok" } else { "FAILED" };
    out!("{} on {}: {verdict}", report.case, report.device);
    for (name, c) in &report.outputs {
        let mark = if c.ok() { "  " } else { "! " };
        let mut line =
            format!("{mark}{name}: rel_l2 {:.2e} (at most {:.0e}), max_abs {:.2e}", c.rel_l2, c.tol, c.max_abs);
        if let Some((got, want)) = &c.mismatch {
            line += &format!("; got {got}, want {want}");
        }
        out!("{line}");
    }
    report.unsupported.iter().for_each(|(name, why)| out!("- {name}: not computed, {why}"));
}
