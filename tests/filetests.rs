//! One trial for each file of `tests/filetests` and each runner that its header names. A device that
//! is not there fails.

use libtest_mimic::{Arguments, Trial};
use selvedge_tests::case::{Case, Command};
use selvedge_tests::{check, files, relative, root};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for path in files(&root().join("tests/filetests"), ".ir") {
        let name = relative(&path).trim_start_matches("tests/filetests/").to_string();
        let case = Case::read(&path);
        let devices: Vec<String> = case.iter().flat_map(|c| &c.commands).flat_map(devices).collect();
        for device in devices {
            let case = case.clone();
            trials.push(Trial::test(format!("{name} on {device}"), move || Ok(check::check(&case?, Some(&device))?)));
        }
        trials.push(Trial::test(name, move || Ok(check::check(&case?, None)?)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn devices(command: &Command) -> Vec<String> {
    match command {
        Command::Run(devices) | Command::Sample(_, devices) => devices.clone(),
        Command::Parse
        | Command::Verify
        | Command::Pass(_)
        | Command::Rule(_)
        | Command::Print
        | Command::Left(_)
        | Command::Each(_) => Vec::new(),
    }
}
