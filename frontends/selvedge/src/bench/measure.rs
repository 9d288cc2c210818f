//! Compiling, loading and timing: several optimisers in turns, so that a change of the machine's mood hits all alike.

use super::subject::{self, Program, Subject, inputs};
use super::{PlanFacts, Report, Request, Span, StageFacts, Table, Timeline, What, table};
use crate::compile::{self, Optimizer, Options, Settings};
use crate::device::Device;
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::explain;
use crate::flops;
use crate::gpu::{Gpu, GpuSession};
use crate::memory;
use crate::session::Session;
use crate::tune;
use crate::weights::Weights;
use selvedge_bundle::manifest::Manifest;
use selvedge_ir::{Diagnostic, Function, Module, Tensor};
use selvedge_passes::hoist::Savings;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Measures a model on a device.
///
/// # Errors
/// As [`super::check`]; device trouble.
pub fn bench(request: &Request, device: &Device, events: &mut Observer) -> Result<Report, Error> {
    let subject = subject::subject(request)?;
    let side = Side::load(request, &subject, request.settings.optimizer, device, events)?;
    Ok(measure(request, &subject, device, vec![side])?.remove(0))
}

/// Measures a model with several optimisers, run by run in turns; all are on the device at once.
///
/// # Errors
/// As [`bench`]; a compiled file, whose optimiser has been chosen.
pub fn compare(
    request: &Request,
    optimizers: &[Optimizer],
    device: &Device,
    events: &mut Observer,
) -> Result<Vec<Report>, Error> {
    let subject = subject::subject(request)?;
    if let Program::File(file) = &subject.program {
        let what = Diagnostic::new("bench", format!("`{}` is compiled already", file.path));
        return Err(what.help("measure the model's folder to compare optimisers").into());
    }
    let load = |&optimizer: &Optimizer| Side::load(request, &subject, optimizer, device, &mut *events);
    let sides = optimizers.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    measure(request, &subject, device, sides)
}

/// A program on a device.
struct Side {
    optimizer: Option<Optimizer>,
    session: Session,
    /// After the passes.
    module: Module,
    manifest: Option<Manifest>,
    hoisted: Option<Savings>,
    tuned: Option<tune::Report>,
    compile_ms: Vec<(String, f64)>,
    timeline: Timeline,
    inputs: BTreeMap<String, Tensor>,
    clock: Clock,
}

impl Side {
    fn load(
        request: &Request,
        subject: &Subject,
        optimizer: Optimizer,
        device: &Device,
        events: &mut Observer,
    ) -> Result<Side, Error> {
        let clock = Clock(request.started.unwrap_or_else(Instant::now));
        let mut timeline = Timeline::default();
        timeline.host("start", 0.0, clock.now());
        let mut stages = Stages::default();
        let mut watch = |event: Event| {
            stages.seen(&event, clock.now());
            events(event);
        };
        let settings = Settings { optimizer, ..request.settings.clone() };
        let mut side = match &subject.program {
            Program::File(file) => {
                let began = clock.now();
                let session = file.session(device, &mut watch)?;
                let manifest = matches!(device, Device::Gpu(_)).then(|| file.manifest()).transpose()?;
                let compile_ms = vec![("load".to_string(), clock.now() - began)];
                let (module, hoisted, tuned, inputs) = (subject.module.clone(), None, None, BTreeMap::new());
                Side { optimizer: None, session, module, manifest, hoisted, tuned, compile_ms, timeline, inputs, clock }
            }
            Program::Weights(weights) => Side {
                optimizer: Some(optimizer),
                ..compiled(subject, weights, settings, device, (timeline, clock), &mut watch)?
            },
        };
        stages.spans(&mut side.timeline);
        side.inputs = inputs(&side.module, &subject.function)?;
        Ok(side)
    }
    /// Milliseconds of one run, after a first one.
    fn time(&mut self, subject: &Subject) -> Result<f64, Error> {
        let started = self.clock.now();
        let ms = match (subject.what, self.session.as_gpu()) {
            (What::Step, Some(gpu)) => gpu.again(&subject.function)?,
            (What::Forward, _) | (What::Step, None) => return self.call(subject, subject.what.text()),
        };
        self.timeline.host("step", started, ms);
        Ok(ms)
    }
    /// The same with inputs from the host.
    fn call(&mut self, subject: &Subject, name: &str) -> Result<f64, Error> {
        let started = self.clock.now();
        self.session.call(&subject.function, &self.inputs)?;
        let ms = self.clock.now() - started;
        self.timeline.host(name, started, ms);
        Ok(ms)
    }
    /// What runs outside the steps.
    fn stages(&mut self) -> Result<Vec<StageFacts>, Error> {
        let schedule = self.module.schedule.clone();
        let tabulate = schedule.steps.iter().filter_map(|s| s.tabulate.as_ref());
        let all = schedule.prepare.iter().map(|name| ("prepare", name));
        let all = all.chain(schedule.condition.iter().map(|name| ("condition", name)));
        let all = all.chain(tabulate.map(|t| ("tabulate", &t.function)));
        let mut facts = Vec::new();
        for (stage, name) in all {
            let rows = |f: &Function| f.outputs().first().and_then(|(_, id)| f.ty(*id).shape.sizes().first().copied());
            let steps = self.module.function(name).filter(|_| stage == "tabulate").and_then(rows);
            let inputs = inputs(&self.module, name)?;
            let started = self.clock.now();
            self.session.call(name, &inputs)?;
            let ms = match self.session.as_gpu() {
                Some(gpu) => gpu.again(name)?,
                None => self.clock.now() - started,
            };
            let plan = self.manifest.as_ref().and_then(|m| plan_facts(m, name));
            facts.push(StageFacts { stage, ms, plan, steps });
        }
        Ok(facts)
    }
}

/// Compiled for a device and loaded.
fn compiled(
    subject: &Subject,
    weights: &Weights,
    settings: Settings,
    device: &Device,
    (mut timeline, clock): (Timeline, Clock),
    watch: &mut Observer,
) -> Result<Side, Error> {
    let (module, inputs, began) = (subject.module.clone(), BTreeMap::new(), clock.now());
    let options = Options { settings, ..Options::new(device.target()) };
    match device {
        Device::Host => {
            let (module, notes) = compile::optimised(module, &options)?;
            let compile_ms = vec![("passes".to_string(), clock.now() - began)];
            let session = Session::host(module.clone(), weights.clone());
            let (hoisted, manifest) = (notes.hoisted, None);
            Ok(Side {
                optimizer: None,
                session,
                module,
                manifest,
                hoisted,
                tuned: None,
                compile_ms,
                timeline,
                inputs,
                clock,
            })
        }
        Device::Gpu(gpu) => {
            let budget = options.settings.max_memory;
            let (compiled, residency) = memory::compile_to_fit(module, weights.clone(), Value::Null, &options, budget)?;
            let mut compile_ms = Vec::new();
            let mut at = began;
            for (name, time) in compiled.report().stages {
                let ms = time.as_secs_f64() * 1e3;
                timeline.host(&name, at, ms);
                at += ms;
                compile_ms.push((name, ms));
            }
            let loading = clock.now();
            let ready = tune::ready(gpu, compiled, residency, watch)?;
            compile_ms.push(("load".to_string(), clock.now() - loading));
            let compiled = &ready.compiled;
            Ok(Side {
                optimizer: None,
                module: compiled.module().clone(),
                manifest: Some(compiled.manifest().clone()),
                hoisted: compiled.notes().hoisted.clone(),
                tuned: gpu.tune().map(|_| ready.report),
                session: Session::gpu(ready.session),
                compile_ms,
                timeline,
                inputs,
                clock,
            })
        }
    }
}

/// Times all sides in turns.
fn measure(request: &Request, subject: &Subject, device: &Device, sides: Vec<Side>) -> Result<Vec<Report>, Error> {
    /// With milliseconds of its runs and the least CPU time of one.
    type Timed = (Side, Vec<f64>, Option<f64>);
    let mut sides: Vec<Timed> = sides.into_iter().map(|side| (side, Vec::new(), None)).collect();
    let mut first = Vec::new();
    for (side, _, _) in &mut sides {
        let ms = side.call(subject, &format!("first {}", subject.what.text()))?;
        first.push((ms, side.clock.now()));
    }
    for _ in 0..request.runs {
        for (side, samples, least_cpu) in &mut sides {
            let before = cpu_ms();
            samples.push(side.time(subject)?);
            let cpu = before.zip(cpu_ms()).map(|(before, after)| after - before);
            *least_cpu = (*least_cpu).into_iter().chain(cpu).reduce(f64::min);
        }
    }
    let report = |((mut side, mut samples, cpu_ms), (first_run_ms, first_output_ms)): (Timed, (f64, f64))| {
        samples.sort_by(f64::total_cmp);
        let at = |q: f64| samples[((samples.len() - 1) as f64 * q).round() as usize];
        let median_ms = at(0.5);
        let flops = match subject.what {
            What::Forward => flops::of_function(&subject.module, &subject.function),
            What::Step => flops::of_function(&side.module, &subject.function),
        };
        let table = match (device, side.session.as_gpu()) {
            (Device::Gpu(gpu), Some(session)) if request.kernels => {
                Some(by_kernels(gpu, session, &subject.function, side.clock, &mut side.timeline)?)
            }
            (Device::Gpu(_) | Device::Host, _) => None,
        };
        let stages = match subject.what {
            What::Forward => Vec::new(),
            What::Step => side.stages()?,
        };
        Ok(Report {
            model: request.model.clone(),
            what: subject.what,
            function: subject.function.clone(),
            optimizer: side.optimizer,
            batch: subject.batch,
            images: subject.images,
            size: subject.size.clone(),
            device: device.name(),
            driver: device.driver(),
            first_output_ms,
            first_run_ms,
            median_ms,
            min_ms: at(0.0),
            spread_ms: at(0.75) - at(0.25),
            cpu_ms,
            runs: samples.len(),
            gflop: flops as f64 / 1e9,
            gflops: flops as f64 / 1e6 / median_ms,
            compile_ms: side.compile_ms,
            plan: side.manifest.as_ref().and_then(|m| plan_facts(m, &subject.function)),
            allocated_bytes: side.session.peak_bytes(),
            stages,
            hoisted: side.hoisted,
            tuned: side.tuned,
            table,
            timeline: side.timeline,
        })
    };
    sides.into_iter().zip(first).map(report).collect()
}

/// The table of a function; one of its profiles goes into the timeline.
fn by_kernels(
    gpu: &Gpu,
    session: &mut GpuSession,
    function: &str,
    clock: Clock,
    timeline: &mut Timeline,
) -> Result<Table, Error> {
    let started = clock.now();
    let profile = session.profile(function)?;
    timeline.host("profile", started, clock.now() - started);
    timeline.spans.extend(profile.dispatches.iter().chain(&profile.moves).map(|d| Span {
        name: d.label.clone(),
        device: true,
        start_ms: started + d.start_ms,
        ms: d.ms,
        facts: json!({ "kernel": d.kernel, "choice": d.choice, "flops": d.flops, "bytes": d.bytes, "origins": d.origins }),
    }));
    let (dispatches, timestamps) = table::dispatches(session, function)?;
    Ok(Table { rows: table::rows(&dispatches), ceilings: table::ceilings(gpu)?, timestamps })
}

/// CPU time of all threads of this process in milliseconds, where Linux counts it.
fn cpu_ms() -> Option<f64> {
    let nanoseconds = |task: std::fs::DirEntry| -> Option<u64> {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    Some(tasks.flatten().filter_map(nanoseconds).sum::<u64>() as f64 / 1e6)
}

/// Milliseconds since the process started.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn now(self) -> f64 {
        self.0.elapsed().as_secs_f64() * 1e3
    }
}

/// When the stages of loading began and ended, by their events.
#[derive(Default)]
struct Stages(BTreeMap<&'static str, (f64, f64)>);

impl Stages {
    fn seen(&mut self, event: &Event, now: f64) {
        let name = match event {
            Event::Upload { .. } => "upload weights",
            Event::Pipelines { .. } => "create pipelines",
            Event::WarmUp { .. } => "warm up",
            Event::Tune { .. } => "tune kernels",
            Event::Peak(_) | Event::Steps { .. } | Event::Note(_) => return,
        };
        self.0.entry(name).or_insert((now, now)).1 = now;
    }
    fn spans(&self, timeline: &mut Timeline) {
        self.0.iter().for_each(|(name, (from, to))| timeline.host(name, *from, to - from));
    }
}

/// Facts of a function of the first plan.
fn plan_facts(manifest: &Manifest, function: &str) -> Option<PlanFacts> {
    let plan = manifest.plans.first()?;
    let function = plan.functions.iter().find(|f| f.name == function)?;
    let dispatches = &function.dispatches;
    let kernels: BTreeSet<&str> =
        dispatches.iter().map(|d| manifest.kernels[d.kernel as usize].hash.as_str()).collect();
    Some(PlanFacts {
        dispatches: dispatches.len(),
        pipelines: kernels.len(),
        peak_bytes: plan.peak_bytes(),
        activation_bytes_moved: explain::activation_bytes(function),
    })
}
