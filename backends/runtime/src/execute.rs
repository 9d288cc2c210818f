//! Functions: encoding them, and calling one with inputs of the host.

use crate::error::RuntimeError;
use crate::host::{HostTensor, Tensors, Views, views};
use crate::load::Session;
use crate::sending::Parcel;
use selvedge_bundle::manifest::{Port, Region, Stage};
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Instant;

impl Session {
    /// Calls a function: uploads its inputs, runs it in one submit, and reads its outputs.
    ///
    /// Inputs and outputs are named as in the plan. Outputs may hold infinities and NaN; `run` is what refuses them.
    ///
    /// # Errors
    /// An unknown function, inputs that are missing, unknown or of another type, or trouble with the device.
    pub fn call(&mut self, function: &str, inputs: &Tensors) -> Result<Tensors, RuntimeError> {
        self.call_views(function, &views(inputs))
    }

    /// As [`Session::call`], with inputs that stay where they are.
    ///
    /// # Errors
    /// Those of [`Session::call`].
    pub fn call_views(&mut self, function: &str, inputs: &Views<'_>) -> Result<Tensors, RuntimeError> {
        let index = self.function_index(function)?;
        let ports = self.plan.functions[index].inputs.clone();
        self.write_views(&ports.iter().collect::<Vec<_>>(), inputs)?;
        self.enter_for(function)?;
        self.run_function(index)?;
        let outputs = self.plan.functions[index].outputs.clone();
        self.read_ports(&outputs)
    }

    /// Brings the weights of the stage that runs a function.
    pub(crate) fn enter_for(&mut self, function: &str) -> Result<(), RuntimeError> {
        let Some(schedule) = &self.plan.schedule else { return Ok(()) };
        let is = |name: &Option<String>| name.as_deref() == Some(function);
        let stage = match () {
            () if is(&schedule.prepare) => Stage::Prepare,
            () if is(&schedule.condition) => Stage::Condition,
            () if is(&schedule.decode) => Stage::Decode,
            () => Stage::Steps,
        };
        self.enter(stage)
    }

    /// Index of a function by name.
    pub(crate) fn function_index(&self, name: &str) -> Result<usize, RuntimeError> {
        self.plan.functions.iter().position(|f| f.name == name).ok_or_else(|| {
            let known: Vec<_> = self.plan.functions.iter().map(|f| f.name.as_str()).collect();
            RuntimeError::BadInput(format!("there is no function `{name}`; the plan has {}", known.join(", ")))
        })
    }

    /// Runs `prepare`, if the schedule has one.
    pub(crate) fn prepare(&mut self) -> Result<(), RuntimeError> {
        match self.plan.schedule.as_ref().and_then(|s| s.prepare.clone()) {
            Some(name) => {
                self.enter(Stage::Prepare)?;
                self.run_function(self.function_index(&name)?)?;
                self.leave(Stage::Prepare)
            }
            None => Ok(()),
        }
    }

    /// Runs a function on what its regions hold, and waits.
    pub(crate) fn run_function(&self, index: usize) -> Result<(), RuntimeError> {
        let place = self.place(index);
        let began = Instant::now();
        let encoder = self.encoder(&self.plan.functions[index].name);
        let encoder = self.encode_function(encoder, index, &place)?;
        let submission = self.gpu.submit(Some(encoder.finish()), &place)?;
        self.gpu.wait(Some(submission), &place)?;
        self.pace.measured(&self.plan.functions[index].dispatches, began.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }

    /// Records a function: compute passes with its dispatches, what is moved between them, then its copies. A function that should take longer than a
    /// submit may is submitted in parts; the last stays in the encoder that is returned.
    pub(crate) fn encode_function(
        &self,
        mut encoder: wgpu::CommandEncoder,
        index: usize,
        place: &str,
    ) -> Result<wgpu::CommandEncoder, RuntimeError> {
        let function = &self.plan.functions[index];
        for (k, part) in self.pace.parts(&function.dispatches).into_iter().enumerate() {
            if k > 0 {
                let next = self.encoder(&function.name);
                self.gpu.submit(Some(std::mem::replace(&mut encoder, next).finish()), place)?;
            }
            self.encode_part(&mut encoder, index, part);
        }
        self.encode_copies(&mut encoder, index);
        Ok(encoder)
    }

    /// Records some dispatches of a function, with what is moved before each of them, and after the last.
    fn encode_part(&self, encoder: &mut wgpu::CommandEncoder, index: usize, part: Range<usize>) {
        let function = &self.plan.functions[index];
        let mut start = part.start;
        for (k, step) in function.moves.iter().enumerate() {
            let after = step.after as usize;
            if part.contains(&after) || after == function.dispatches.len() && after == part.end {
                self.encode_pass(encoder, index, start..after);
                self.encode_move(encoder, index, k);
                start = after;
            }
        }
        self.encode_pass(encoder, index, start..part.end);
    }

    /// Records the copies of a move.
    pub(crate) fn encode_move(&self, encoder: &mut wgpu::CommandEncoder, function: usize, number: usize) {
        self.encode_all(encoder, &self.plan.functions[function].moves[number].copies);
    }

    /// Records dispatches that follow each other as one compute pass.
    fn encode_pass(&self, encoder: &mut wgpu::CommandEncoder, index: usize, part: Range<usize>) {
        if part.is_empty() {
            return;
        }
        let function = &self.plan.functions[index];
        let descriptor = wgpu::ComputePassDescriptor { label: Some(&function.name), timestamp_writes: None };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        let mut current = None;
        for i in part {
            let kernel = function.dispatches[i].kernel;
            if current != Some(kernel) {
                pass.set_pipeline(self.pipeline(kernel));
                current = Some(kernel);
            }
            self.encode_dispatch(&mut pass, index, i);
        }
    }

    /// Records a dispatch; its pipeline is set.
    pub(crate) fn encode_dispatch(&self, pass: &mut wgpu::ComputePass<'_>, function: usize, dispatch: usize) {
        let [x, y, z] = self.plan.functions[function].dispatches[dispatch].groups;
        pass.set_bind_group(0, &self.groups[function][dispatch], &[]);
        pass.dispatch_workgroups(x, y, z);
    }

    /// Records the copies after a function's pass.
    pub(crate) fn encode_copies(&self, encoder: &mut wgpu::CommandEncoder, index: usize) {
        for copy in &self.plan.functions[index].copies {
            self.encode_copy(encoder, &copy.source, &copy.destination);
        }
    }

    /// What error messages call a function.
    pub(crate) fn place(&self, index: usize) -> String {
        format!("function `{}`", self.plan.functions[index].name)
    }

    /// Writes inputs to their ports. Two ports may have one name (an input that is also carried): both get it.
    pub(crate) fn write_inputs(&mut self, ports: &[&Port], inputs: &Tensors) -> Result<(), RuntimeError> {
        self.write_views(ports, &views(inputs))
    }

    fn write_views(&mut self, ports: &[&Port], inputs: &Views<'_>) -> Result<(), RuntimeError> {
        check_names("input", ports.iter().map(|p| p.name.as_str()), inputs.keys())?;
        // All are checked before the first is written.
        let words = ports.iter().map(|port| Ok((*port, inputs[&port.name].to_words(port, None)?)));
        let words = words.collect::<Result<Vec<_>, RuntimeError>>()?;
        let mut parcels = Vec::new();
        for (port, words) in &words {
            let mut bytes: &[u8] = bytemuck::cast_slice(words);
            for region in &port.regions {
                let (here, after) = bytes.split_at(region.bytes as usize);
                bytes = after;
                let buffer = &self.buffers[region.buffer as usize];
                parcels.push(Parcel { buffer, offset: region.offset, bytes: here });
            }
        }
        self.sending.send(&self.gpu, &parcels)
    }

    /// Reads ports; waits for everything submitted.
    pub(crate) fn read_ports(&mut self, ports: &[Port]) -> Result<Tensors, RuntimeError> {
        let regions: Vec<Region> = ports.iter().flat_map(|port| port.regions.iter().copied()).collect();
        let words = self.read(&regions)?;
        Ok(match ports {
            [port] => Tensors::from([(port.name.clone(), HostTensor::from_words(port, words))]),
            _ => split_ports(ports, &words),
        })
    }
}

/// Words of ports, one after the other, as tensors.
pub(crate) fn split_ports<'p>(ports: impl IntoIterator<Item = &'p Port>, words: &[u32]) -> Tensors {
    let mut rest = words;
    let mut tensors = Tensors::new();
    for port in ports {
        let length = port.regions.iter().map(|r| r.bytes as usize / 4).sum();
        let (here, after) = rest.split_at(length);
        rest = after;
        tensors.insert(port.name.clone(), HostTensor::from_words(port, here.to_vec()));
    }
    tensors
}

/// Names given must be the names expected; all that differ are listed.
pub(crate) fn check_names<'p>(
    what: &str,
    expected: impl Iterator<Item = &'p str>,
    given: impl Iterator<Item = &'p String>,
) -> Result<(), RuntimeError> {
    let expected: BTreeSet<&str> = expected.collect();
    let given: BTreeSet<&str> = given.map(String::as_str).collect();
    let missing: Vec<_> = expected.difference(&given).copied().collect();
    let unknown: Vec<_> = given.difference(&expected).copied().collect();
    if missing.is_empty() && unknown.is_empty() {
        return Ok(());
    }
    let list = |names: &[&str]| if names.is_empty() { "none".to_string() } else { format!("`{}`", names.join("`, `")) };
    let all: Vec<_> = expected.into_iter().collect();
    let (missing, unknown) = (list(&missing), list(&unknown));
    Err(RuntimeError::BadInput(format!("{what}s: missing {missing}, unknown {unknown}; expected {}", list(&all))))
}
