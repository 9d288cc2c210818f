//! Fixture folders on a device: recorded inputs in, outputs compared with the recorded ones.

use crate::compare::{Comparison, compare};
use crate::compile::{self, Settings};
use crate::device::Device;
use crate::error::Error;
use crate::weights::Cached;
use selvedge_import::cases;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

/// How a case went.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The case's name.
    pub case: String,
    /// The device's name.
    pub device: String,
    /// Each recorded output with its distance, in order.
    pub outputs: Vec<(String, Comparison)>,
    /// Recorded outputs that cannot be computed yet: name, what is missing.
    pub unsupported: Vec<(String, String)>,
}

impl Report {
    /// All compared outputs are within tolerance, and there is at least one.
    pub fn ok(&self) -> bool {
        !self.outputs.is_empty() && self.outputs.iter().all(|(_, c)| c.ok())
    }
    /// `{"case", "device", "outputs": {name: {"rel_l2", "max_abs", "tol"}}, "ok"}`; with outputs that cannot be computed,
    /// also `"unsupported": {name: why}`.
    pub fn to_json(&self) -> Value {
        let outputs: Map<String, Value> = self.outputs.iter().map(|(name, c)| (name.clone(), c.to_json())).collect();
        let mut all = json!({"case": self.case, "device": self.device, "outputs": outputs, "ok": self.ok()});
        if !self.unsupported.is_empty() {
            all["unsupported"] =
                self.unsupported.iter().map(|(n, why)| (n.clone(), json!(why))).collect::<Map<_, _>>().into();
        }
        all
    }
}

/// Checks one folder; `tol` replaces each output's own tolerance.
///
/// # Errors
/// A folder that is no case, or damaged; device trouble. A distance beyond tolerance is no error: see [`Report::ok`].
pub fn check(folder: &Path, device: &Device, settings: &Settings, tol: Option<f64>) -> Result<Report, Error> {
    let case = cases::open(folder)?;
    let mut outputs = Vec::new();
    for run in &case.runs {
        let weights = Arc::new(Cached::new(run.weights.clone()));
        let mut session =
            compile::session_with(run.module.clone(), weights, Value::Null, device, settings, &mut |_| {})?;
        let output = session.run(&run.run, &mut |_| {})?;
        for expected in &run.expected {
            let got = run.got(expected, &output)?;
            outputs.push((expected.name.clone(), compare(&got, &expected.want, tol.unwrap_or(expected.tolerance))));
        }
    }
    Ok(Report { case: case.name, device: device.name(), outputs, unsupported: case.unsupported })
}
