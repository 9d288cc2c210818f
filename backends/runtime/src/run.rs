//! The schedule: `condition` once, then the steps, then `decode`.

use crate::error::RuntimeError;
use crate::execute::{check_names, split_ports};
use crate::health::{Health, Replay, check_finite, finite_inputs};
use crate::host::{Tensors, views};
use crate::load::Session;
use crate::transfer::{Reading, Upload, new_buffer};
use selvedge_bundle::manifest::{PlanSchedule, Port, Stage};
use std::collections::VecDeque;
use std::sync::Arc;

/// Submits that may be under way at once: the host encodes a step while the device computes the one before.
const IN_FLIGHT: usize = 2;

/// What a run of the schedule is given.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The schedule's inputs, and the first values of what is carried (unless an earlier stage makes them).
    pub inputs: Tensors,
    /// For each step the index of its function in the schedule's steps.
    pub steps: Vec<u32>,
    /// Per-step inputs: each has its port's shape with the number of steps before it.
    pub tables: Tensors,
    /// Step outputs, and carried values, to report of each step.
    pub trace: Vec<String>,
    /// When to look for values that are not finite.
    pub health: Health,
    /// Run again, dispatch by dispatch, to name the origin of such values.
    pub locate: bool,
    /// Goes on from here instead of from the first step.
    pub resume: Option<Checkpoint>,
    /// Where the outputs of `condition` come from.
    pub condition: Condition,
}

/// Where a run has the outputs of `condition` from.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Condition {
    /// It is run.
    #[default]
    Run,
    /// It is run, and what it gives is read back: [`RunResult::conditioned`].
    Keep,
    /// It is not run: this is what it gave when its inputs were the same.
    Given(Arc<Tensors>),
}

/// A run after some of its steps, on the host: what [`Session::checkpoint`] gives when a device was lost.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Checkpoint {
    /// The step to run next, from 0.
    pub step: usize,
    /// The carried values.
    pub carry: Tensors,
    /// The state variables.
    pub states: Tensors,
    /// What was traced of the steps before.
    pub trace: Vec<Tensors>,
}

/// Bytes of state variables up to which they are held on the host after each step; a run with more starts anew.
const HELD: u64 = 64 << 20;

impl Default for RunRequest {
    /// Nothing given; every step is watched.
    fn default() -> RunRequest {
        RunRequest {
            inputs: Tensors::new(),
            steps: Vec::new(),
            tables: Tensors::new(),
            trace: Vec::new(),
            health: Health::EachStep,
            locate: true,
            resume: None,
            condition: Condition::Run,
        }
    }
}

/// A step that is done. Reports come in order, up to two steps after the submit.
#[derive(Debug)]
pub struct StepReport<'r> {
    /// From 0.
    pub step: usize,
    /// All steps of the run.
    pub total: usize,
    /// What was asked to be traced, after this step.
    pub trace: &'r Tensors,
}

/// What a run gives.
#[derive(Clone, Debug, PartialEq)]
pub struct RunResult {
    /// The carried values after the last step, and the outputs of `decode`; in a schedule with neither, those of `condition`.
    pub outputs: Tensors,
    /// The traced values of each step.
    pub trace: Vec<Tensors>,
    /// What `condition` gave, if that is to be kept.
    pub conditioned: Tensors,
}

/// A step that was submitted.
struct Flight {
    step: usize,
    submission: wgpu::SubmissionIndex,
    reading: Option<Reading>,
}

/// What a run reads back of each step, in the order of the staging buffer.
struct Watch {
    ports: Vec<Port>,
    /// How many of the first are traced; the others are only checked.
    traced: usize,
    /// State variables, if they are held; they come last.
    states: Vec<Port>,
    bytes: u64,
}

impl Session {
    /// Runs the schedule. `on_step` is told of each finished step.
    ///
    /// Device work is one submit with one compute pass for each step. States are zero at the start.
    ///
    /// # Errors
    /// A plan without a schedule, inputs or tables that do not fit, device trouble, or values that are not finite
    /// ([`RuntimeError::Sick`]). After [`RuntimeError::DeviceLost`], [`Session::checkpoint`] says where to go on with another
    /// session.
    pub fn run(
        &mut self,
        request: &RunRequest,
        on_step: &mut dyn FnMut(StepReport<'_>),
    ) -> Result<RunResult, RuntimeError> {
        let schedule = self.schedule_for(request)?;
        self.held = request.resume.clone();
        let mut trace = request.resume.as_ref().map_or(Vec::new(), |held| held.trace.clone());
        match self.stages(&schedule, request, &mut trace, on_step).map_err(|e| self.gpu.or_lost(e)) {
            Ok((outputs, conditioned)) => Ok(RunResult { outputs, trace, conditioned }),
            Err(lost @ RuntimeError::DeviceLost(_)) => {
                if let Some(held) = &mut self.held {
                    trace.truncate(held.step);
                    held.trace = trace;
                }
                Err(lost)
            }
            Err(RuntimeError::Sick { stage, step, value, count, total, first: None }) if request.locate => {
                self.explain(&schedule, request, RuntimeError::Sick { stage, step, value, count, total, first: None })
            }
            Err(error) => Err(error),
        }
    }

    /// After a run that lost its device: the last step that reached the host, if one did, as [`RunRequest::resume`] of
    /// another session.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.held.as_ref()
    }

    /// From the inputs to the outputs; and what `condition` gave, if that is to be kept.
    fn stages(
        &mut self,
        schedule: &PlanSchedule,
        request: &RunRequest,
        trace: &mut Vec<Tensors>,
        on_step: &mut dyn FnMut(StepReport<'_>),
    ) -> Result<(Tensors, Tensors), RuntimeError> {
        self.begin(schedule, request)?;
        let mut conditioned = Tensors::new();
        if let Some(name) = &schedule.condition {
            let index = self.function_index(name)?;
            match &request.condition {
                Condition::Given(values) => self.give(index, values)?,
                how @ (Condition::Run | Condition::Keep) => {
                    self.enter(Stage::Condition)?;
                    self.run_function(index)?;
                    self.leave(Stage::Condition)?;
                    if *how == Condition::Keep {
                        conditioned = self.read_ports(&self.plan.functions[index].outputs.clone())?;
                    }
                }
            }
        }
        if let Some(held) = &request.resume {
            self.write_inputs(&schedule.carry.iter().collect::<Vec<_>>(), &held.carry)?;
            self.write_inputs(&schedule.states.iter().collect::<Vec<_>>(), &held.states)?;
        }
        self.step_all(schedule, request, trace, on_step)?;
        Ok((self.finish(schedule, request)?, conditioned))
    }

    /// Leaves a function's outputs as if it had run and given these.
    fn give(&mut self, function: usize, values: &Tensors) -> Result<(), RuntimeError> {
        let ports = self.plan.functions[function].outputs.clone();
        self.write_inputs(&ports.iter().collect::<Vec<_>>(), values)?;
        let mut encoder = self.encoder("what is known");
        self.encode_copies(&mut encoder, function);
        self.gpu.submit(Some(encoder.finish()), "writing what is known").map(|_| ())
    }

    /// Names the step and the first dispatch of a sick run, as far as another run shows them.
    fn explain(
        &mut self,
        schedule: &PlanSchedule,
        request: &RunRequest,
        sick: RuntimeError,
    ) -> Result<RunResult, RuntimeError> {
        let RuntimeError::Sick { stage, step, value, count, total, .. } = sick else { return Err(sick) };
        if step.is_none() && request.health != Health::EachStep && !schedule.steps.is_empty() {
            // Seen at the end only: watch every step of a second run.
            let watched = RunRequest { health: Health::EachStep, trace: Vec::new(), ..request.clone() };
            if let Err(sick @ RuntimeError::Sick { step: Some(_), .. }) = self.run(&watched, &mut |_| {}) {
                return Err(sick);
            }
        }
        let replay = step.map_or(Replay::Decode, Replay::Step);
        let first = self.locate(schedule, request, replay)?;
        Err(RuntimeError::Sick { stage, step, value, count, total, first })
    }

    /// The plan's schedule, if the request fits it.
    fn schedule_for(&self, request: &RunRequest) -> Result<PlanSchedule, RuntimeError> {
        let bad = |problem: String| Err(RuntimeError::BadInput(problem));
        let Some(schedule) = self.plan.schedule.clone() else {
            return bad("the plan has no schedule: its functions can only be called".to_string());
        };
        if request.steps.is_empty() && !schedule.steps.is_empty() {
            return bad("a run needs at least one step".to_string());
        }
        if let Some(step) = request.steps.iter().find(|step| **step as usize >= schedule.steps.len()) {
            return bad(format!("step function {step} where the schedule has {}", schedule.steps.len()));
        }
        for name in &request.trace {
            if traceable(&schedule).all(|port| port.name != *name) {
                let known: Vec<_> = traceable(&schedule).map(|port| port.name.as_str()).collect();
                return bad(format!("`{name}` cannot be traced; what can is: {}", known.join(", ")));
            }
        }
        if request.health != Health::Off {
            finite_inputs(&request.inputs)?;
            finite_inputs(&request.tables)?;
        }
        Ok(schedule)
    }

    /// Uploads inputs and tables and zeroes the states.
    pub(crate) fn begin(&mut self, schedule: &PlanSchedule, request: &RunRequest) -> Result<(), RuntimeError> {
        let early = [&schedule.prepare, &schedule.condition];
        let early: Vec<_> = early.into_iter().flatten().map(|n| self.function_index(n)).collect::<Result<_, _>>()?;
        let made = |name: &str| early.iter().any(|f| self.plan.functions[*f].outputs.iter().any(|o| o.name == name));
        let carried = schedule.carry.iter().filter(|port| !made(&port.name));
        let ports: Vec<&Port> = schedule.inputs.iter().chain(carried).collect();
        self.write_inputs(&ports, &request.inputs)?;
        self.write_tables(schedule, request)?;
        let mut encoder = self.encoder("states");
        for region in schedule.states.iter().flat_map(|port| &port.regions) {
            let padded = region.bytes.next_multiple_of(4);
            encoder.clear_buffer(&self.buffers[region.buffer as usize], region.offset, Some(padded));
        }
        self.gpu.submit(Some(encoder.finish()), "starting a run").map(|_| ())
    }

    /// Puts all rows of all tables into one buffer, table after table.
    fn write_tables(&mut self, schedule: &PlanSchedule, request: &RunRequest) -> Result<(), RuntimeError> {
        check_names("table", schedule.tables.iter().map(|p| p.name.as_str()), request.tables.keys())?;
        let rows = request.steps.len() as u64;
        let tables = views(&request.tables);
        let words = schedule.tables.iter().map(|port| tables[&port.name].to_words(port, Some(rows)));
        let words = words.collect::<Result<Vec<_>, _>>()?;
        let bytes: u64 = words.iter().map(|w| w.len() as u64 * 4).sum();
        if bytes == 0 {
            return Ok(());
        }
        if self.tables.as_ref().is_none_or(|buffer| buffer.size() < bytes) {
            let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            self.tables = Some(new_buffer(&self.gpu, "tables", bytes, usage)?);
        }
        let buffer = self.tables.as_ref().expect("it was made when it was needed");
        let mut upload = Upload::new(&self.gpu);
        let mut offset = 0;
        for table in &words {
            upload.write(buffer, offset, bytemuck::cast_slice(table), &mut |_| {})?;
            offset += table.len() as u64 * 4;
        }
        Ok(())
    }

    /// All steps, with at most [`IN_FLIGHT`] submits under way.
    fn step_all(
        &mut self,
        schedule: &PlanSchedule,
        request: &RunRequest,
        trace: &mut Vec<Tensors>,
        on_step: &mut dyn FnMut(StepReport<'_>),
    ) -> Result<(), RuntimeError> {
        if !schedule.steps.is_empty() {
            self.enter(Stage::Steps)?;
        }
        let watch = watch(schedule, request);
        let functions: Vec<_> =
            schedule.steps.iter().map(|name| self.function_index(name)).collect::<Result<_, _>>()?;
        let mut flights: VecDeque<Flight> = VecDeque::new();
        let mut outcome = Ok(());
        let first = request.resume.as_ref().map_or(0, |held| held.step);
        for (step, choice) in request.steps.iter().enumerate().skip(first) {
            if flights.len() == IN_FLIGHT
                && let Some(flight) = flights.pop_front()
            {
                outcome = self.land(flight, schedule, request, &watch, trace, on_step);
            }
            if outcome.is_err() {
                break;
            }
            let place = format!("step {} of {}", step + 1, request.steps.len());
            let mut encoder = self.encoder(&place);
            encoder = self.encode_rows(encoder, schedule, (step, step == first, request.steps.len()), &place)?;
            encoder = self.encode_function(encoder, functions[*choice as usize], &place)?;
            let staging = if watch.bytes > 0 { Some(self.staging.take(&self.gpu, watch.bytes)?) } else { None };
            if let Some(staging) = &staging {
                let regions = watch.ports.iter().chain(&watch.states).flat_map(|port| &port.regions);
                self.encode_readback(&mut encoder, regions, staging);
            }
            let submission = self.gpu.submit(Some(encoder.finish()), &place)?;
            let reading = staging.map(|staging| self.staging.map(staging, watch.bytes));
            flights.push_back(Flight { step, submission, reading });
        }
        for flight in flights {
            if outcome.is_ok() {
                outcome = self.land(flight, schedule, request, &watch, trace, on_step);
            } else if let Some(reading) = flight.reading {
                // The run has failed already; its buffers are wanted back for the next.
                self.gpu.wait(Some(flight.submission), "stopping a run")?;
                self.staging.finish(&self.gpu, reading)?;
            }
        }
        outcome
    }

    /// Waits for a step, checks and reports it.
    fn land(
        &mut self,
        flight: Flight,
        schedule: &PlanSchedule,
        request: &RunRequest,
        watch: &Watch,
        trace: &mut Vec<Tensors>,
        on_step: &mut dyn FnMut(StepReport<'_>),
    ) -> Result<(), RuntimeError> {
        let total = request.steps.len();
        let stage = format!("step {} of {total}", flight.step + 1);
        self.gpu.wait(Some(flight.submission), &stage)?;
        let words = match flight.reading {
            Some(reading) => self.staging.finish(&self.gpu, reading)?,
            None => Vec::new(),
        };
        let length =
            |ports: &[Port]| ports.iter().flat_map(|p| &p.regions).map(|r| r.bytes as usize / 4).sum::<usize>();
        let (words, states) = words.split_at(length(&watch.ports));
        let values = split_ports(&watch.ports, words);
        if request.health == Health::EachStep {
            let name = &schedule.steps[request.steps[flight.step] as usize];
            let carried = schedule.carry.iter().filter_map(|port| Some((&port.name, values.get(&port.name)?)));
            check_finite(carried, &format!("{stage} (`{name}`)"), Some(flight.step))?;
        }
        if request.health == Health::EachStep && watch.states.len() == schedule.states.len() {
            let carry = schedule.carry.iter().map(|port| (port.name.clone(), values[&port.name].clone())).collect();
            let states = split_ports(&watch.states, states);
            self.held = Some(Checkpoint { step: flight.step + 1, carry, states, trace: Vec::new() });
        }
        let traced = &watch.ports[..watch.traced];
        let values = split_ports(traced, &words[..length(traced)]);
        on_step(StepReport { step: flight.step, total, trace: &values });
        if watch.traced > 0 {
            trace.push(values);
        }
        Ok(())
    }

    /// Reads the carried values, runs `decode` and reads its outputs.
    fn finish(&mut self, schedule: &PlanSchedule, request: &RunRequest) -> Result<Tensors, RuntimeError> {
        let mut outputs = self.read_ports(&schedule.carry)?;
        if request.health != Health::Off {
            check_finite(&outputs, "after the last step", None)?;
        }
        let last = match (&schedule.decode, &schedule.condition) {
            (Some(decode), _) => {
                let index = self.function_index(decode)?;
                self.leave(Stage::Steps)?;
                self.enter(Stage::Decode)?;
                self.run_function(index)?;
                self.leave(Stage::Decode)?;
                Some((index, "decode"))
            }
            (None, Some(condition)) if schedule.steps.is_empty() => {
                Some((self.function_index(condition)?, "condition"))
            }
            (None, _) => None,
        };
        if let Some((index, stage)) = last {
            let ports = self.plan.functions[index].outputs.clone();
            let values = self.read_ports(&ports)?;
            if request.health != Health::Off {
                check_finite(&values, stage, None)?;
            }
            outputs.extend(values);
        }
        Ok(outputs)
    }
}

/// Ports that may be traced.
fn traceable(schedule: &PlanSchedule) -> impl Iterator<Item = &Port> {
    schedule.trace.iter().chain(&schedule.carry)
}

fn watch(schedule: &PlanSchedule, request: &RunRequest) -> Watch {
    let find = |name: &String| traceable(schedule).find(|port| port.name == *name).cloned();
    let mut ports: Vec<Port> = Vec::new();
    for port in request.trace.iter().filter_map(find) {
        if ports.iter().all(|p| p.name != port.name) {
            ports.push(port);
        }
    }
    let traced = ports.len();
    if request.health == Health::EachStep {
        for port in &schedule.carry {
            if ports.iter().all(|p| p.name != port.name) {
                ports.push(port.clone());
            }
        }
    }
    let bytes = |ports: &[Port]| ports.iter().flat_map(|p| &p.regions).map(|r| r.bytes).sum::<u64>();
    let hold = request.health == Health::EachStep && bytes(&schedule.states) <= HELD;
    let states = if hold { schedule.states.clone() } else { Vec::new() };
    let bytes = bytes(&ports) + bytes(&states);
    Watch { ports, traced, states, bytes }
}
