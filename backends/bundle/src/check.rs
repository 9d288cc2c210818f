//! What must hold of a manifest: every index, size and alignment.

use crate::dtype::{elements, weight_bytes};
use crate::error::Flaw;
use crate::manifest::{
    ALIGN, Access, Buffer, Copy, Dispatch, FORMAT, Manifest, Move, Plan, PlanFunction, PlanSchedule, PlanTabulate,
    Port, Region,
};
use std::collections::{HashMap, HashSet};

/// Workgroups in a dimension of a dispatch: WebGPU's limit.
const MAX_GROUPS: u32 = 65_535;
/// What uploads are aligned to.
const WORD: u64 = 4;

/// Checks everything that can be said without the tensors' bytes. The first flaw is returned.
pub(crate) fn check_manifest(manifest: &Manifest) -> Result<(), Flaw> {
    if manifest.format != FORMAT {
        return Err(Flaw::new("manifest", format!("its format is {}, the file's {FORMAT}", manifest.format)));
    }
    let mut names = Names::new("weights");
    for (i, weight) in manifest.weights.iter().enumerate() {
        let place = || format!("weights[{i}] `{}`", weight.name);
        names.add(&weight.name)?;
        let bytes = weight_bytes(&weight.dtype, &weight.shape).ok_or_else(|| {
            Flaw::new(place(), format!("cannot hold dtype {} with shape {:?}", weight.dtype, weight.shape))
        })?;
        check_hash(&weight.hash, place)?;
        if let Some(link) = &weight.link {
            if link.bytes != bytes {
                let problem = format!("its link has {} bytes, its type needs {bytes}", link.bytes);
                return Err(Flaw::new(place(), problem));
            }
            if link.offset.checked_add(link.bytes).is_none() {
                return Err(Flaw::new(place(), "the end of its link exceeds 64 bits"));
            }
        }
    }
    for (i, kernel) in manifest.kernels.iter().enumerate() {
        let place = || format!("kernels[{i}] `{}`", kernel.name);
        check_hash(&kernel.hash, place)?;
        let invocations = kernel.workgroup.iter().map(|n| *n as u64).try_fold(1u64, u64::checked_mul);
        if !invocations.is_some_and(|n| n >= 1 && n <= manifest.target.invocations as u64) {
            let most = manifest.target.invocations;
            return Err(Flaw::new(place(), format!("workgroup {:?} is not 1 to {most} invocations", kernel.workgroup)));
        }
        if kernel.bindings.len() > manifest.target.storage_buffers as usize {
            let (found, most) = (kernel.bindings.len(), manifest.target.storage_buffers);
            return Err(Flaw::new(place(), format!("{found} bindings where the target has at most {most}")));
        }
    }
    let mut sizes = Names::new("plans");
    for (i, plan) in manifest.plans.iter().enumerate() {
        sizes.add(&plan.size)?;
        PlanCheck { manifest, plan }.check().map_err(|flaw| {
            let inner = if flaw.place.is_empty() { String::new() } else { format!(".{}", flaw.place) };
            Flaw::new(format!("plans[{i}]{inner}"), flaw.problem)
        })?;
    }
    Ok(())
}

fn check_hash(hash: &str, place: impl Fn() -> String) -> Result<(), Flaw> {
    if hash.len() == 64 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(())
    } else {
        Err(Flaw::new(place(), "its hash is not 64 hexadecimal digits"))
    }
}

/// Refuses a second use of a name.
struct Names<'a> {
    place: &'a str,
    seen: HashSet<&'a str>,
}

impl<'a> Names<'a> {
    fn new(place: &'a str) -> Names<'a> {
        Names { place, seen: HashSet::new() }
    }
    fn add(&mut self, name: &'a str) -> Result<(), Flaw> {
        if self.seen.insert(name) { Ok(()) } else { Err(Flaw::new(self.place, format!("`{name}` is there twice"))) }
    }
}

struct PlanCheck<'a> {
    manifest: &'a Manifest,
    plan: &'a Plan,
}

impl PlanCheck<'_> {
    fn check(&self) -> Result<(), Flaw> {
        let mut total = 0u64;
        for (i, buffer) in self.plan.buffers.iter().enumerate() {
            let place = format!("buffers[{i}]");
            if buffer.bytes == 0 || !buffer.bytes.is_multiple_of(ALIGN) {
                let problem = format!("{} bytes is not a positive multiple of {ALIGN}", buffer.bytes);
                return Err(Flaw::new(place, problem));
            }
            if buffer.bytes > self.manifest.target.max_buffer_bytes {
                let most = self.manifest.target.max_buffer_bytes;
                return Err(Flaw::new(place, format!("{} bytes where the target has at most {most}", buffer.bytes)));
            }
            total = total
                .checked_add(buffer.bytes)
                .ok_or_else(|| Flaw::new(place, "the buffers together exceed 64 bits"))?;
        }
        self.weights()?;
        let mut names = Names::new("functions");
        for (i, function) in self.plan.functions.iter().enumerate() {
            names.add(&function.name)?;
            self.function(function, &format!("functions[{i}]"))?;
        }
        match &self.plan.schedule {
            Some(schedule) => self.schedule(schedule),
            None => Ok(()),
        }
    }

    fn weights(&self) -> Result<(), Flaw> {
        let mut extents = Vec::new();
        let mut arrangements = HashMap::new();
        for (i, slot) in self.plan.weights.iter().enumerate() {
            let place = format!("weights[{i}]");
            // Joined weights follow each other word by word: only what is bound is aligned.
            self.inside(&slot.region, &place, WORD)?;
            let Some(weight) = self.manifest.weights.get(slot.weight as usize) else {
                let (found, known) = (slot.weight, self.manifest.weights.len());
                return Err(Flaw::new(place, format!("weight {found} where there are {known}")));
            };
            let bytes = weight_bytes(&weight.dtype, &weight.shape).expect("weights were checked before plans");
            if slot.start.checked_add(slot.region.bytes).is_none_or(|end| end > bytes) {
                let problem =
                    format!("bytes {} to +{} of `{}`, which has {bytes}", slot.start, slot.region.bytes, weight.name);
                return Err(Flaw::new(place, problem));
            }
            if let Some(panels) = slot.panels {
                let elements = elements(&weight.shape).expect("weights were checked before plans");
                if !panels.fits(elements) {
                    let problem = format!("`{}` has {elements} elements, which are no {panels}", weight.name);
                    return Err(Flaw::new(place, problem));
                }
            }
            if *arrangements.entry(slot.weight).or_insert(slot.panels) != slot.panels {
                return Err(Flaw::new(place, format!("`{}` has another order in another slot", weight.name)));
            }
            extents.push(slot.region);
        }
        extents.sort_by_key(|r| (r.buffer, r.offset));
        for pair in extents.windows(2) {
            if overlap(&pair[0], &pair[1]) {
                return Err(Flaw::new("weights", format!("two weights share {}", show(&pair[1]))));
            }
        }
        Ok(())
    }

    fn function(&self, function: &PlanFunction, place: &str) -> Result<(), Flaw> {
        self.ports(&function.inputs, &format!("{place}.inputs"))?;
        self.ports(&function.outputs, &format!("{place}.outputs"))?;
        for (i, dispatch) in function.dispatches.iter().enumerate() {
            self.dispatch(dispatch, &format!("{place}.dispatches[{i}]"))?;
        }
        for (i, copy) in function.copies.iter().enumerate() {
            self.copy(copy, &format!("{place}.copies[{i}]"), ALIGN)?;
        }
        let mut before = 0;
        for (i, step) in function.moves.iter().enumerate() {
            let place = format!("{place}.moves[{i}]");
            let count = function.dispatches.len();
            if step.after < before || step.after as usize > count {
                let problem =
                    format!("it is after {} of {count} dispatches, the one before after {before}", step.after);
                return Err(Flaw::new(place, problem));
            }
            before = step.after;
            self.step(step, &place)?;
        }
        Ok(())
    }

    fn step(&self, step: &Move, place: &str) -> Result<(), Flaw> {
        for (i, copy) in step.copies.iter().enumerate() {
            let place = format!("{place}.copies[{i}]");
            self.copy(copy, &place, WORD)?;
            if self.plan.buffers[copy.destination.buffer as usize].access == Access::Read {
                return Err(Flaw::new(place, format!("buffer {} is read-only and written", copy.destination.buffer)));
            }
            if step.copies.iter().any(|other| overlap(&other.source, &copy.destination)) {
                return Err(Flaw::new(place, format!("{} is copied over a source", show(&copy.destination))));
            }
        }
        Ok(())
    }

    fn dispatch(&self, dispatch: &Dispatch, place: &str) -> Result<(), Flaw> {
        let Some(kernel) = self.manifest.kernels.get(dispatch.kernel as usize) else {
            let (found, known) = (dispatch.kernel, self.manifest.kernels.len());
            return Err(Flaw::new(place, format!("kernel {found} where there are {known}")));
        };
        if dispatch.groups.iter().any(|n| *n == 0 || *n > MAX_GROUPS) {
            return Err(Flaw::new(place, format!("groups {:?} are not all 1 to {MAX_GROUPS}", dispatch.groups)));
        }
        if dispatch.bindings.len() != kernel.bindings.len() {
            let (found, expected) = (dispatch.bindings.len(), kernel.bindings.len());
            return Err(Flaw::new(place, format!("{found} bindings where kernel `{}` has {expected}", kernel.name)));
        }
        let mut access_of = HashMap::new();
        for (i, (region, access)) in dispatch.bindings.iter().zip(&kernel.bindings).enumerate() {
            let place = format!("{place}.bindings[{i}]");
            let buffer = self.region(region, &place)?;
            if !region.bytes.is_multiple_of(ALIGN) {
                return Err(Flaw::new(place, format!("{} is not a multiple of {ALIGN} long", show(region))));
            }
            if region.bytes > self.manifest.target.max_binding_bytes {
                let most = self.manifest.target.max_binding_bytes;
                return Err(Flaw::new(place, format!("{} exceeds the target's binding of {most} bytes", show(region))));
            }
            if (*access, buffer.access) == (Access::ReadWrite, Access::Read) {
                return Err(Flaw::new(place, format!("buffer {} is read-only and written", region.buffer)));
            }
            if *access_of.entry(region.buffer).or_insert(*access) != *access {
                let problem = format!("buffer {} is bound read-only and read-write in one dispatch", region.buffer);
                return Err(Flaw::new(place, problem));
            }
        }
        Ok(())
    }

    fn copy(&self, copy: &Copy, place: &str, align: u64) -> Result<(), Flaw> {
        self.inside(&copy.source, place, align)?;
        self.inside(&copy.destination, place, align)?;
        let (from, to) = (show(&copy.source), show(&copy.destination));
        if copy.source.bytes != copy.destination.bytes || !copy.source.bytes.is_multiple_of(4) {
            return Err(Flaw::new(place, format!("{from} and {to} are not the same number of words")));
        }
        if overlap(&copy.source, &copy.destination) {
            return Err(Flaw::new(place, format!("{from} overlaps {to}")));
        }
        Ok(())
    }

    fn ports(&self, ports: &[Port], place: &str) -> Result<(), Flaw> {
        let mut names = HashSet::new();
        for (i, port) in ports.iter().enumerate() {
            let place = format!("{place}[{i}] `{}`", port.name);
            if !names.insert(&port.name) {
                return Err(Flaw::new(place, "the name is there twice"));
            }
            if crate::dtype::element_bytes(&port.dtype).is_none() {
                return Err(Flaw::new(place, format!("unknown dtype {}", port.dtype)));
            }
            // On the device an element of a port is a word, whatever its dtype.
            let bytes = elements(&port.shape)
                .and_then(|n| n.checked_mul(4))
                .ok_or_else(|| Flaw::new(&place, format!("shape {:?} exceeds 64 bits", port.shape)))?;
            let mut held = 0u64;
            for region in &port.regions {
                self.region(region, &place)?;
                if !region.bytes.is_multiple_of(4) {
                    return Err(Flaw::new(place, format!("{} is not whole words", show(region))));
                }
                held = held.saturating_add(region.bytes);
            }
            if held != bytes {
                let problem = format!("its regions hold {held} bytes, its shape {:?} needs {bytes}", port.shape);
                return Err(Flaw::new(place, problem));
            }
        }
        Ok(())
    }

    fn schedule(&self, schedule: &PlanSchedule) -> Result<(), Flaw> {
        let stages = [("prepare", &schedule.prepare), ("condition", &schedule.condition), ("decode", &schedule.decode)];
        let stages = stages.iter().flat_map(|(stage, name)| name.iter().map(move |name| (*stage, name)));
        for (stage, name) in stages.chain(schedule.steps.iter().map(|name| ("steps", name))) {
            if !self.plan.functions.iter().any(|f| f.name == *name) {
                return Err(Flaw::new(format!("schedule.{stage}"), format!("there is no function `{name}`")));
            }
        }
        if let Some(tabulate) = &schedule.tabulate {
            self.tabulate(schedule, tabulate)?;
        }
        for (place, ports) in [
            ("schedule.inputs", &schedule.inputs),
            ("schedule.tables", &schedule.tables),
            ("schedule.carry", &schedule.carry),
            ("schedule.trace", &schedule.trace),
            ("schedule.states", &schedule.states),
        ] {
            self.ports(ports, place)?;
        }
        Ok(())
    }

    fn tabulate(&self, schedule: &PlanSchedule, tabulate: &PlanTabulate) -> Result<(), Flaw> {
        let place = "schedule.tabulate";
        if !self.plan.functions.iter().any(|f| f.name == tabulate.function) {
            return Err(Flaw::new(place, format!("there is no function `{}`", tabulate.function)));
        }
        if tabulate.chunk == 0 || tabulate.rows.len() != tabulate.ports.len() {
            let (rows, ports) = (tabulate.rows.len(), tabulate.ports.len());
            return Err(Flaw::new(place, format!("a chunk of {}, {rows} tables for {ports} ports", tabulate.chunk)));
        }
        for ports in [&tabulate.inputs, &tabulate.rows, &tabulate.ports] {
            self.ports(ports, place)?;
        }
        let is_chunk = |table: &Port, row: &Port| {
            table.name == row.name
                && table.dtype == row.dtype
                && table.shape[..] == [&[tabulate.chunk], &row.shape[..]].concat()
        };
        for input in &tabulate.inputs {
            if !schedule.tables.iter().any(|t| is_chunk(input, t)) {
                return Err(Flaw::new(place, format!("`{}` is not {} rows of a table", input.name, tabulate.chunk)));
            }
        }
        for (rows, port) in tabulate.rows.iter().zip(&tabulate.ports) {
            if !is_chunk(rows, port) {
                return Err(Flaw::new(place, format!("`{}` is not {} rows of its port", rows.name, tabulate.chunk)));
            }
            let shares = |r: &Region| port.regions.iter().any(|p| p.buffer == r.buffer);
            if rows.regions.iter().any(shares) {
                return Err(Flaw::new(place, format!("`{}` and its port are in one buffer", rows.name)));
            }
        }
        Ok(())
    }

    /// A region that can be bound, inside its buffer, which is returned.
    fn region(&self, region: &Region, place: &str) -> Result<&Buffer, Flaw> {
        self.inside(region, place, ALIGN)
    }

    fn inside(&self, region: &Region, place: &str, align: u64) -> Result<&Buffer, Flaw> {
        let Some(buffer) = self.plan.buffers.get(region.buffer as usize) else {
            let (found, known) = (region.buffer, self.plan.buffers.len());
            return Err(Flaw::new(place, format!("buffer {found} where there are {known}")));
        };
        if !region.offset.is_multiple_of(align) {
            return Err(Flaw::new(place, format!("{} does not start at a multiple of {align}", show(region))));
        }
        if region.bytes == 0 {
            return Err(Flaw::new(place, format!("{} is empty", show(region))));
        }
        if region.offset.checked_add(region.bytes).is_none_or(|end| end > buffer.bytes) {
            let problem =
                format!("{} reaches over the end of the buffer, which has {} bytes", show(region), buffer.bytes);
            return Err(Flaw::new(place, problem));
        }
        Ok(buffer)
    }
}

/// Regions inside their buffers, so the ends fit 64 bits.
fn overlap(a: &Region, b: &Region) -> bool {
    a.buffer == b.buffer && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes
}

fn show(region: &Region) -> String {
    format!("region {}+{} of buffer {}", region.offset, region.bytes, region.buffer)
}
