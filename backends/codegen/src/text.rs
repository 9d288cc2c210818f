//! The text form of a plan, for `--dump`, `explain` and golden tests. Equal plans have equal texts.

use selvedge_bundle::manifest::{
    Access, Dispatch, Kernel, Manifest, Plan, PlanFunction, PlanSchedule, Port, Region, Step,
};
use std::fmt::Write;

/// A plan as text: buffers, weights, functions dispatch by dispatch, schedule.
pub fn plan(manifest: &Manifest, plan: &Plan) -> String {
    let mut out = String::new();
    let name = if manifest.name.is_empty() { "(unnamed)" } else { &manifest.name };
    line(&mut out, 0, format!("plan {name} for {} {{", manifest.target.name));
    if !plan.size.is_empty() {
        line(&mut out, 1, format!("size {}", plan.size));
    }
    if !plan.chosen.is_empty() {
        line(&mut out, 1, format!("chosen {}", plan.chosen));
    }
    for (i, buffer) in plan.buffers.iter().enumerate() {
        let access = match buffer.access {
            Access::Read => "read",
            Access::ReadWrite => "read-write",
        };
        line(&mut out, 1, format!("buffer b{i} {} {access} {}", buffer.label, size(buffer.bytes)));
    }
    line(&mut out, 1, format!("peak {}", size(plan.peak_bytes())));
    for slot in &plan.weights {
        let Some(weight) = manifest.weights.get(slot.weight as usize) else { continue };
        let from = if slot.start == 0 { String::new() } else { format!(" from byte {}", slot.start) };
        let ty = format!("{}{}", weight.dtype, extents(&weight.shape));
        let panels = slot.panels.map_or(String::new(), |p| format!(" in {p}"));
        line(&mut out, 1, format!("weight {:?} {ty} {}{from}{panels}", weight.name, place(&slot.region)));
    }
    line(&mut out, 0, "}".to_string());
    for f in &plan.functions {
        out.push('\n');
        out += &function(&manifest.kernels, f);
    }
    if let Some(s) = &plan.schedule {
        out.push('\n');
        out += &schedule(s);
    }
    out
}

/// One function of a plan as text.
pub fn function(kernels: &[Kernel], f: &PlanFunction) -> String {
    let mut out = String::new();
    let total = |of: fn(&Dispatch) -> u64| f.dispatches.iter().map(of).sum::<u64>();
    let (flops, bytes) = (total(|d| d.flops), total(|d| d.bytes));
    let count = f.dispatches.len();
    line(&mut out, 0, format!("fn @{} {{ // {count} dispatches, {}, {}", f.name, count_of(flops, "flop"), size(bytes)));
    f.inputs.iter().for_each(|p| line(&mut out, 1, port("input", p)));
    for step in f.steps() {
        let d = match step {
            Step::Dispatch(_, dispatch) => dispatch,
            Step::Move(m) => {
                line(&mut out, 1, format!("{} // copied, {}", m.label, size(m.bytes)));
                for copy in &m.copies {
                    line(&mut out, 2, format!("copy {} -> {}", place(&copy.source), place(&copy.destination)));
                }
                continue;
            }
        };
        let family = kernels.get(d.kernel as usize).map_or("?", |k| k.name.as_str());
        let [x, y, z] = d.groups;
        let bindings: Vec<String> = d.bindings.iter().map(place).collect();
        line(&mut out, 1, format!("{} // {}, {}", d.label, count_of(d.flops, "flop"), size(d.bytes)));
        line(&mut out, 2, format!("{family} k{} grid=({x},{y},{z}) {}", d.kernel, bindings.join(" ")));
    }
    f.outputs.iter().for_each(|p| line(&mut out, 1, port("output", p)));
    for copy in &f.copies {
        line(&mut out, 1, format!("copy {} -> {}", place(&copy.source), place(&copy.destination)));
    }
    line(&mut out, 0, "}".to_string());
    out
}

fn schedule(s: &PlanSchedule) -> String {
    let mut out = String::new();
    line(&mut out, 0, "schedule {".to_string());
    let stages = [("prepare", &s.prepare), ("condition", &s.condition)];
    let write = |out: &mut String, (stage, name): (&str, &Option<String>)| {
        if let Some(name) = name {
            line(out, 1, format!("{stage} @{name}"));
        }
    };
    stages.into_iter().for_each(|stage| write(&mut out, stage));
    if !s.steps.is_empty() {
        let names: Vec<String> = s.steps.iter().map(|n| format!("@{n}")).collect();
        line(&mut out, 1, format!("steps {}", names.join(" ")));
    }
    if let Some(t) = &s.tabulate {
        line(&mut out, 1, format!("tabulate {} @{}", t.chunk, t.function));
        t.inputs.iter().for_each(|p| line(&mut out, 2, port("rows of table", p)));
        for (rows, row) in t.rows.iter().zip(&t.ports) {
            line(&mut out, 2, port("table", rows));
            line(&mut out, 2, port("row", row));
        }
    }
    write(&mut out, ("decode", &s.decode));
    for (what, ports) in
        [("input", &s.inputs), ("carry", &s.carry), ("table", &s.tables), ("trace", &s.trace), ("state", &s.states)]
    {
        ports.iter().for_each(|p| line(&mut out, 1, port(what, p)));
    }
    line(&mut out, 0, "}".to_string());
    out
}

fn line(out: &mut String, depth: usize, text: String) {
    let _ = writeln!(out, "{:width$}{text}", "", width = 2 * depth);
}

fn port(what: &str, p: &Port) -> String {
    let regions: Vec<String> = p.regions.iter().map(place).collect();
    format!("{what} {:?} {}{} {}", p.name, p.dtype, extents(&p.shape), regions.join(" ")).trim_end().to_string()
}

fn extents(shape: &[u64]) -> String {
    format!("[{}]", shape.iter().map(u64::to_string).collect::<Vec<_>>().join(","))
}

/// `b1@256..512`: buffer, first byte, end.
fn place(r: &Region) -> String {
    format!("b{}@{}..{}", r.buffer, r.offset, r.offset + r.bytes)
}

/// Bytes with a binary unit and three figures or so.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = bytes as f64;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{scaled:.1} {}", units[unit]) }
}

/// A number with a decimal prefix.
fn count_of(x: u64, what: &str) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P"];
    let mut scaled = x as f64;
    let mut prefix = 0;
    while scaled >= 1000.0 && prefix + 1 < prefixes.len() {
        scaled /= 1000.0;
        prefix += 1;
    }
    if prefix == 0 { format!("{x} {what}") } else { format!("{scaled:.2} {}{what}", prefixes[prefix]) }
}
