//! The `selvedge` command: compile and run diffusion transformers on any GPU.
//!
//! Exit status: 0 done, 1 a check failed, 2 bad usage or input, 3 device trouble; 101 is a bug.

mod bench;
mod check;
mod common;
mod compile;
mod devices;
mod explain;
mod generate;
mod inspect;
mod ir;
mod picture;
mod progress;
mod report;
mod run;

use clap::{Parser, Subcommand};
use selvedge::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Compile and run diffusion transformers on any GPU.
#[derive(Parser)]
#[command(name = "selvedge", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make pictures with a model.
    Generate(generate::Args),
    /// Compile a model into one file that runs on any adapter.
    Compile(compile::Args),
    /// Make pictures with a compiled file; nothing else is needed.
    Run(run::Args),
    /// Run a model on recorded inputs and compare with the recorded outputs.
    Check(check::Args),
    /// Measure a model or a preset with random weights.
    Bench(bench::Args),
    /// Say what a model folder or a compiled file holds.
    Inspect(inspect::Args),
    /// List the devices of this machine with their limits.
    Devices(devices::Args),
    /// Show the plan of a model's functions, kernel by kernel.
    Explain(explain::Args),
    /// Work with modules in text form.
    Ir(ir::Args),
}

/// What a command that ran to its end says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    CheckFailed,
    /// Some of several requests were refused, which has been said; the worst of their statuses.
    Refused(u8),
}

fn main() -> ExitCode {
    let started = started();
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default_hook(info);
        eprintln!("{}", report::bug_message());
    }));
    let result = match Cli::parse().command {
        Command::Generate(args) => generate::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Bench(args) => bench::run(&args, started),
        Command::Inspect(args) => inspect::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Ir(args) => ir::run(&args),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::CheckFailed) => ExitCode::from(1),
        Ok(Outcome::Refused(status)) => ExitCode::from(status),
        Err(error) => {
            report::error(&error);
            ExitCode::from(status(&error))
        }
    }
}

/// When the process started: on Linux as the system counts it, to 10 ms; elsewhere now.
fn started() -> Instant {
    let now = Instant::now();
    let age = || -> Option<Duration> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Field 22 in ticks of 10 ms since the machine started; the name in field 2 may hold anything.
        let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        let uptime: f64 = std::fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
        Duration::try_from_secs_f64(uptime - ticks / 100.0).ok()
    };
    age().and_then(|age| now.checked_sub(age)).unwrap_or(now)
}

/// The exit status of an error.
fn status(error: &Error) -> u8 {
    match error {
        Error::Input(_) | Error::Text { .. } => 2,
        Error::Device(_) => 3,
        Error::Internal(_) => 101,
    }
}
