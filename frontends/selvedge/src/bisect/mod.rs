//! Where a failing case goes wrong: operator by operator against the interpreter.
//!
//! Three comparisons, each with one suspect. The interpreter on the module as it was built, against what was recorded: a
//! difference is the import's (a weight in the wrong place, a configuration misread, model code). The interpreter on the
//! module after each pass, against the module before: a pass, and in saturation the rule (it is run again with fewer rules).
//! What the settings ask for is among the passes: integer weights come first, halves behind the rules. The device on what they
//! all made of the module, against the interpreter: a kernel. In each, the first value that differs is named, with its operator and the model code's line.

mod calls;
mod line;
mod parts;
mod probe;

use crate::compare::{Comparison, compare};
use crate::compile::{self, Options, Settings};
use crate::device::Device;
use crate::error::Error;
use crate::gpu::GpuSession;
use crate::session::Session;
use crate::weights::{Cached, Weights};
use calls::Call;
use line::Line;
use probe::Probe;
use selvedge_bundle::manifest::Step;
use selvedge_import::cases::{self, CaseRun};
use selvedge_ir::module::Schedule;
use selvedge_ir::{Module, Tensor, ValueId};
use selvedge_passes::Pass;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Who is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guilty {
    /// What made the module and its weights of the folder.
    Import,
    /// This pass; after a colon the rule in it without which nothing differs, or the rules that are all needed.
    Rule(String),
    /// The kernel of this family.
    Kernel(String),
}

/// The first divergence of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The case's run.
    pub run: String,
    /// The module's function; the schedule's stage.
    pub function: String,
    /// Who is to blame.
    pub guilty: Guilty,
    /// The value's name.
    pub value: String,
    /// The operators that compute it.
    pub operator: String,
    /// The model code's line.
    pub place: Option<String>,
    /// How far it is off.
    pub comparison: Comparison,
}

impl Finding {
    /// One object with all fields.
    pub fn to_json(&self) -> Value {
        let (guilty, name) = match &self.guilty {
            Guilty::Import => ("import", None),
            Guilty::Rule(name) => ("rule", Some(name)),
            Guilty::Kernel(name) => ("kernel", Some(name)),
        };
        json!({
            "run": self.run, "function": self.function, "guilty": guilty, "name": name, "value": self.value,
            "operator": self.operator, "place": self.place, "distance": self.comparison.to_json(),
        })
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let suspect = match &self.guilty {
            Guilty::Import => "the import, or the model code".to_string(),
            Guilty::Rule(name) => match name.split_once(": ") {
                None => format!("the pass `{name}`"),
                Some((pass, rules)) => format!("the rule `{rules}` of the pass `{pass}`"),
            },
            Guilty::Kernel(name) => format!("the kernel `{name}`"),
        };
        let Comparison { rel_l2, tol, .. } = self.comparison;
        write!(
            f,
            "{} @{}: {} ({}) differs first: rel_l2 {rel_l2:.2e}, at most {tol:.0e}",
            self.run, self.function, self.value, self.operator
        )?;
        if let Some(place) = &self.place {
            write!(f, ", at {place}")?;
        }
        write!(f, "; guilty: {suspect}")
    }
}

/// The parts that may be at fault; tests plant bugs in them.
pub struct Suspects<'s> {
    /// The passes that do not depend on weights, in order; the settings' integers come before them, their halves behind.
    pub passes: Vec<Box<dyn Pass>>,
    /// How it is compiled.
    pub settings: Settings,
    /// Changes the text of a kernel, by its family.
    pub kernels: &'s dyn Fn(&str, String) -> String,
}

impl Suspects<'_> {
    /// The compiler as it is.
    pub fn new(settings: &Settings, device: &Device) -> Self {
        Suspects {
            passes: compile::passes(
                settings,
                &device.target(),
                match device {
                    Device::Host => compile::Placing::OneByOne,
                    Device::Gpu(_) => compile::Placing::ByPlan,
                },
            ),
            settings: settings.clone(),
            kernels: &|_, text| text,
        }
    }
}

/// The first divergence of each run of a fixture folder; none where nothing differs. `tol` replaces each output's tolerance.
///
/// # Errors
/// A folder that is no case; device trouble.
pub fn bisect(
    folder: &Path,
    device: &Device,
    tol: Option<f64>,
    suspects: &Suspects<'_>,
) -> Result<Vec<Finding>, Error> {
    let case = cases::open(folder)?;
    let mut findings = Vec::new();
    for run in &case.runs {
        findings.extend(of_run(run, device, tol, suspects)?);
    }
    Ok(findings)
}

fn of_run(run: &CaseRun, device: &Device, tol: Option<f64>, suspects: &Suspects) -> Result<Option<Finding>, Error> {
    let weights: Weights = Arc::new(Cached::new(run.weights.clone()));
    let tolerance = tol.or(run.expected.iter().map(|e| e.tolerance).min_by(f64::total_cmp));
    let tolerance = tolerance.unwrap_or(crate::compare::TOLERANCE);
    if let Some(finding) = import(run, &weights, tol)? {
        return Ok(Some(finding));
    }
    // Functions are called one by one, with what the interpreter gives them.
    let library = Module { schedule: Schedule::default(), ..run.module.clone() };
    let before = Bench { module: &library, weights: &weights, run: &run.name, tolerance };
    let line = Line::new(&library, &weights, suspects, device)?;
    let calls = calls::calls(&run.module, &weights, &run.run)?;
    for call in &calls {
        if let Some(finding) = before.rules(call, &line)? {
            return Ok(Some(finding));
        }
    }
    let Device::Gpu(_) = device else { return Ok(None) };
    let mut compiled = library.clone();
    for pass in line.passes() {
        compiled = pass.run(compiled)?;
    }
    let after = Bench { module: &compiled, weights: &line.weights, ..before };
    for call in &calls {
        if let Some(finding) = after.kernels(call, device, suspects)? {
            return Ok(Some(finding));
        }
    }
    Ok(None)
}

/// The interpreter on the module as it was built, against what was recorded: the first recorded output that differs, in the
/// order in which the module computes them.
fn import(run: &CaseRun, weights: &Weights, tol: Option<f64>) -> Result<Option<Finding>, Error> {
    let output = Session::host(run.module.clone(), weights.clone()).run(&run.run, &mut |_| {})?;
    let mut wrong = Vec::new();
    for expected in &run.expected {
        let comparison = compare(&run.got(expected, &output)?, &expected.want, tol.unwrap_or(expected.tolerance));
        if !comparison.ok() {
            let found = run.module.functions.iter().enumerate().find_map(|(i, f)| {
                let (_, id) = f.outputs().into_iter().find(|(name, _)| *name == expected.name)?;
                Some((i, id))
            });
            wrong.push((found.unwrap_or((usize::MAX, ValueId(u32::MAX))), expected.name.clone(), comparison));
        }
    }
    wrong.sort_by_key(|w| w.0);
    Ok(wrong.into_iter().next().map(|((function, id), name, comparison)| {
        let function = run.module.functions.get(function);
        let place = function.and_then(|f| f.value(id).places.first()).map(ToString::to_string);
        let operator = function.and_then(|f| f.op(id)).map_or("output", |(op, _)| op.kind().text());
        Finding {
            run: run.name.clone(),
            function: function.map_or(String::new(), |f| f.name.clone()),
            guilty: Guilty::Import,
            value: name,
            operator: operator.to_string(),
            place,
            comparison,
        }
    }))
}

/// A module with its weights, to look into.
struct Bench<'b> {
    module: &'b Module,
    weights: &'b Weights,
    run: &'b str,
    tolerance: f64,
}

impl Bench<'_> {
    fn finding(&self, call: &Call, guilty: Guilty, probe: &Probe, at: usize, comparison: Comparison) -> Finding {
        let facts = &probe.values[at];
        Finding {
            run: self.run.to_string(),
            function: call.function.clone(),
            guilty,
            value: facts.name.clone(),
            operator: facts.operator.clone(),
            place: facts.place.clone(),
            comparison,
        }
    }

    /// The pass after which a value differs from the one of the same name, or else of the same place and type, before it.
    fn rules(&self, call: &Call, line: &Line) -> Result<Option<Finding>, Error> {
        let mut before = self.module.clone();
        let mut known: Option<(Probe, BTreeMap<String, Tensor>)> = None;
        for pass in line.passes() {
            let after = pass.run(before.clone())?;
            if after == before {
                continue;
            }
            let probe = Probe::of_all(&after, &call.function)?;
            let got = probe.on_host(&line.weights, call)?;
            let (old, want) = match known.take() {
                Some(known) => known,
                None => {
                    let probe = Probe::of_all(&before, &call.function)?;
                    let values = probe.on_host(self.weights, call)?;
                    (probe, values)
                }
            };
            let differs =
                |new: &str, old: &str| Some(compare(got.get(new)?, want.get(old)?, self.tolerance)).filter(|c| !c.ok());
            let returned = probe.returned.iter().find_map(|name| differs(name, name).map(|c| (name, c)));
            if let Some((name, output)) = returned {
                // The same again with some of its rules.
                let fails = |keep: &parts::Keep| {
                    let Some(pass) = pass.with_parts(keep) else { return Ok(false) };
                    let probe = Probe::of_none(&pass.run(before.clone())?, &call.function)?;
                    let got = probe.on_host(&line.weights, call)?;
                    let wrong = |name: &String| Some(!compare(got.get(name)?, want.get(name)?, self.tolerance).ok());
                    Ok(probe.returned.iter().filter_map(wrong).any(|wrong| wrong))
                };
                let guilty = Guilty::Rule(match parts::needed(&pass.parts(), &fails)? {
                    rules if rules.is_empty() => pass.name().to_string(),
                    rules => format!("{}: {}", pass.name(), rules.join(" with ")),
                });
                let first = probe.values.iter().enumerate().find_map(|(at, value)| {
                    let same = old.alike(value)?;
                    differs(&value.port, &same.port).map(|c| (at, c))
                });
                return Ok(Some(match first {
                    Some((at, comparison)) => self.finding(call, guilty, &probe, at, comparison),
                    None => Finding {
                        run: self.run.to_string(),
                        function: call.function.clone(),
                        guilty,
                        value: name.clone(),
                        operator: "output".to_string(),
                        place: None,
                        comparison: output,
                    },
                }));
            }
            known = Some((probe, got));
            before = after;
        }
        Ok(None)
    }

    /// The first dispatch whose result differs from the interpreter's value.
    fn kernels(&self, call: &Call, device: &Device, suspects: &Suspects) -> Result<Option<Finding>, Error> {
        let Device::Gpu(gpu) = device else { return Ok(None) };
        let options = Options { settings: suspects.settings.clone(), ..Options::new(gpu.target()) };
        let named = Probe::named(self.module, &call.function);
        // What the plan stores anyway is what may be asked for without changing the plan.
        let plan = compile::lowered(named.clone(), self.weights.clone(), &options)?;
        let functions = plan.manifest().plans.iter().flat_map(|p| &p.functions).filter(|f| f.name == call.function);
        let labels: Vec<&str> = functions.flat_map(|f| f.steps()).map(|step| step.label()).collect();
        let probe = Probe::of_labels(&named, &call.function, &labels)?;
        let want = probe.on_host(self.weights, call)?;
        let mut compiled = compile::lowered(probe.module.clone(), self.weights.clone(), &options)?;
        compiled.edit_kernels(suspects.kernels);
        let families: BTreeMap<String, String> = {
            let manifest = compiled.manifest();
            let functions = manifest.plans.iter().flat_map(|p| &p.functions).filter(|f| f.name == call.function);
            let steps = functions.flat_map(|f| f.steps());
            let family = |step: Step| match step {
                Step::Dispatch(_, d) => manifest.kernels[d.kernel as usize].name.clone(),
                Step::Move(_) => "copy".to_string(),
            };
            steps.map(|step| (probe::stem(step.label()).to_string(), family(step))).collect()
        };
        let loaded = GpuSession::load(gpu, &compiled.bundle()?, &Default::default(), true, &mut |_| {})?;
        let got = Session::gpu(loaded).call(&call.function, &call.inputs)?;
        for (at, value) in probe.values.iter().enumerate() {
            let (Some(got), Some(want)) = (got.get(&value.port), want.get(&value.port)) else { continue };
            let comparison = compare(got, want, self.tolerance);
            if !comparison.ok() {
                let family = families.get(&value.stem).cloned().unwrap_or_else(|| "unknown".to_string());
                return Ok(Some(self.finding(call, Guilty::Kernel(family), &probe, at, comparison)));
            }
        }
        Ok(None)
    }
}
