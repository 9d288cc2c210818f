//! A plan as text: kernel by kernel, with work, bytes and origins.

pub mod html;
pub mod kernel;
mod subject;

use selvedge_bundle::manifest::{Manifest, PlanFunction, Step};
use std::fmt::Write;

pub use subject::{Explained, History};

/// The plans of a manifest, or one function of them; with `origins`, the model code's lines behind each dispatch.
pub fn text(manifest: &Manifest, function: Option<&str>, origins: bool) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{} for {}", manifest.name, manifest.target.name);
    for plan in &manifest.plans {
        let _ = writeln!(out, "plan {}: {} of device memory", plan.size, bytes(plan.peak_bytes()));
        if !plan.chosen.is_empty() {
            let _ = writeln!(out, "  chosen {}", plan.chosen);
        }
        for buffer in &plan.buffers {
            let _ = writeln!(out, "  buffer {:<16} {:>11}", buffer.label, bytes(buffer.bytes));
        }
        for f in plan.functions.iter().filter(|f| function.is_none_or(|name| name == f.name)) {
            explain(&mut out, manifest, f, origins);
        }
    }
    out
}

fn explain(out: &mut String, manifest: &Manifest, function: &PlanFunction, origins: bool) {
    let flops: u64 = function.dispatches.iter().map(|d| d.flops).sum();
    let moved: u64 = function.dispatches.iter().map(|d| d.bytes).sum();
    let count = function.dispatches.len();
    let work = flops as f64 / 1e9;
    let activations = bytes(activation_bytes(function));
    let moved = bytes(moved);
    let name = &function.name;
    let _ = writeln!(
        out,
        "function {name}: {count} dispatches, {work:.3} GFLOP, {moved} moved, {activations} of activations"
    );
    for step in function.steps() {
        let (i, d) = match step {
            Step::Dispatch(i, dispatch) => (i, dispatch),
            Step::Move(m) => {
                let from = if origins { String::new() } else { sites(&m.origins) };
                let _ = writeln!(
                    out,
                    "       {:<20} {} times {:>34}  {:<36} {from}",
                    "copy",
                    m.copies.len(),
                    bytes(m.bytes),
                    m.label
                );
                continue;
            }
        };
        let kernel = &manifest.kernels[d.kernel as usize].name;
        let [x, y, z] = d.groups;
        let groups = format!("{x}x{y}x{z}");
        let work = d.flops as f64 / 1e6;
        let moved = bytes(d.bytes);
        let from = if origins { String::new() } else { sites(&d.origins) };
        let _ = writeln!(
            out,
            "  {i:>4} {kernel:<20} groups {groups:<12} {work:>9.3} MFLOP {moved:>11}  {:<36} {from}",
            d.label
        );
        if origins {
            for origin in &d.origins {
                let _ = writeln!(out, "       from {origin}");
            }
        }
    }
    if !function.copies.is_empty() {
        let moved: u64 = function.copies.iter().map(|c| c.source.bytes).sum();
        let _ = writeln!(out, "       {} copies of {} after the pass", function.copies.len(), bytes(moved));
    }
}

/// Call sites in a few words: file and line of the first ones.
fn sites(origins: &[String]) -> String {
    const MOST: usize = 3;
    let short = |o: &String| {
        let file = o.rsplit('/').next().unwrap_or(o);
        let parts: Vec<&str> = file.split(':').take(2).collect();
        parts.join(":")
    };
    let mut all: Vec<String> = Vec::new();
    for site in origins.iter().map(short) {
        if !all.contains(&site) {
            all.push(site);
        }
    }
    let more = if all.len() > MOST { format!(" and {} more", all.len() - MOST) } else { String::new() };
    all.truncate(MOST);
    format!("{}{more}", all.join(" "))
}

/// Bytes of tensors read and written by all dispatches and moves of a function, but for weights and what `prepare` makes of them.
pub fn activation_bytes(function: &PlanFunction) -> u64 {
    let moved = function.moves.iter().map(|m| m.bytes.saturating_sub(m.weight_bytes));
    function.dispatches.iter().map(|d| d.bytes.saturating_sub(d.weight_bytes)).chain(moved).sum()
}

/// Bytes for people.
pub fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..0x10_0000 => format!("{:.1} KiB", n as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", n as f64 / 1048576.0),
        _ => format!("{:.2} GiB", n as f64 / 1073741824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_units() {
        assert_eq!([bytes(5), bytes(2048), bytes(3 << 20), bytes(5 << 30)], ["5 B", "2.0 KiB", "3.0 MiB", "5.00 GiB"]);
    }
}
