//! `selvedge check`: recorded inputs through a model, compared with the recorded outputs.

use crate::common::{DeviceArg, device, out};
use crate::{Error, Outcome};
use selvedge::check::{self, Report};
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Fixture folders: config.json, weights, io.safetensors and case.json.
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    /// Largest rel_l2 of an output that passes, instead of each case's own.
    #[arg(long, value_name = "REL_L2")]
    tol: Option<f64>,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome, Error> {
    let device = device(&args.device)?;
    let mut reports: Vec<Report> = Vec::new();
    for folder in &args.folders {
        let report = check::check(folder, &device, args.tol)?;
        if !args.json {
            print(&report);
        }
        reports.push(report);
    }
    let ok = reports.iter().all(Report::ok);
    if args.json {
        match reports.as_slice() {
            [one] => out!("{}", one.to_json()),
            all => out!("{}", json!({"cases": all.iter().map(Report::to_json).collect::<Vec<_>>(), "ok": ok})),
        }
    } else if reports.len() > 1 {
        let passed = reports.iter().filter(|r| r.ok()).count();
        out!("{passed} of {} cases pass on {}", reports.len(), device.name());
    }
    Ok(if ok { Outcome::Done } else { Outcome::CheckFailed })
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
