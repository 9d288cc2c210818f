//! Why a kernel is what it is: its operators, the rules that led to them, and what was not chosen.

use super::bytes;
use selvedge_bundle::manifest::{Dispatch, Manifest};
use selvedge_ir::{Function, Module, ValueId};
use selvedge_passes::Notes;
use selvedge_passes::saturate::{FunctionReport, Reason};
use std::fmt::Write;

/// A dispatch by the name of its value (`%map22`, with or without `%`), of its kernel, or by its number in `function`
/// (in the first one that has it, if absent).
pub fn find<'m>(manifest: &'m Manifest, function: Option<&str>, name: &str) -> Option<(&'m str, usize, &'m Dispatch)> {
    let functions = manifest.plans.iter().flat_map(|p| &p.functions);
    for f in functions.filter(|f| function.is_none_or(|wanted| wanted == f.name)) {
        let found = f.dispatches.iter().enumerate().find(|(i, d)| {
            let value = d.label.split(' ').next().unwrap_or("").trim_start_matches('%');
            value == name.trim_start_matches('%')
                || manifest.kernels[d.kernel as usize].name == name
                || name.parse() == Ok(*i)
        });
        if let Some((i, dispatch)) = found {
            return Some((&f.name, i, dispatch));
        }
    }
    None
}

/// The text for one dispatch.
pub fn text(manifest: &Manifest, module: &Module, notes: &Notes, at: (&str, usize, &Dispatch)) -> String {
    let (function, number, dispatch) = at;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let kernel = &manifest.kernels[dispatch.kernel as usize].name;
    let _ = writeln!(out, "dispatch {number} of {function}: {} ({kernel})", dispatch.label);
    let work = dispatch.flops as f64 / 1e6;
    let weights = bytes(dispatch.weight_bytes);
    let _ = writeln!(out, "  {work:.3} MFLOP, {} moved, {weights} of them weights", bytes(dispatch.bytes));
    for origin in &dispatch.origins {
        let _ = writeln!(out, "  from {origin}");
    }
    let Some((owner, path)) = path(module, function, &dispatch.label) else {
        let _ = writeln!(out, "  its values were made by code generation");
        return out;
    };
    let report = notes.saturation.iter().find(|r| r.name == owner.name);
    for id in path {
        let value = owner.value(id);
        let (Some((op, _)), Some(name)) = (owner.op(id), &value.name) else { continue };
        let _ = writeln!(out, "  %{name} = {} : {}", op.kind().text(), value.ty);
        let reason = report.and_then(|r| r.reasons.iter().find(|reason| reason.value == *name));
        match (report, reason) {
            (Some(report), Some(reason)) => explain(&mut out, report, reason),
            _ => _ = writeln!(out, "    as the model has it; nothing else was known for it"),
        }
    }
    out
}

fn explain(out: &mut String, report: &FunctionReport, reason: &Reason) {
    match reason.chain.as_slice() {
        [] => _ = writeln!(out, "    as the model has it"),
        chain => {
            let _ = writeln!(out, "    by {} rules:", chain.len());
            for name in chain {
                let law = report.rules.iter().find(|r| r.name == *name).map_or("", |r| r.law);
                let _ = writeln!(out, "      {name}: {law}");
            }
        }
    }
    let us = |s: f64| s * 1e6;
    for alternative in &reason.alternatives {
        let _ = match alternative.seconds {
            Some(seconds) if seconds > report.seconds_after => writeln!(
                out,
                "    not {}: @{} would take {:+.2} µs ({:.2} instead of {:.2})",
                alternative.term,
                report.name,
                us(seconds - report.seconds_after),
                us(seconds),
                us(report.seconds_after)
            ),
            Some(_) => writeln!(out, "    not {}: no cheaper", alternative.term),
            None => writeln!(out, "    not {}: it would depend on itself", alternative.term),
        };
    }
}

/// The values of a unit, root first, from its label (`%map22 layer_norm+map`): in the function itself, or in one that
/// it calls.
fn path<'m>(module: &'m Module, function: &str, label: &str) -> Option<(&'m Function, Vec<ValueId>)> {
    let (value, kinds) = label.split_once(' ')?;
    let name = value.trim_start_matches('%');
    let kinds: Vec<&str> = kinds.split('+').collect();
    let first = module.functions.iter().filter(|f| f.name == function);
    for owner in first.chain(module.functions.iter().filter(|f| f.name != function)) {
        let named = |id: &ValueId| owner.value(*id).name.as_deref() == Some(name);
        let kind = |id: ValueId| owner.op(id).map_or("", |(op, _)| op.kind().text());
        let Some(end) = owner.ids().find(|id| named(id) && Some(&kind(*id)) == kinds.last()) else { continue };
        let mut path = vec![end];
        for wanted in kinds.iter().rev().skip(1) {
            let at = *path.last()?;
            match owner.reads(at).iter().find(|arg| kind(**arg) == *wanted) {
                Some(arg) => path.push(*arg),
                None => break,
            }
        }
        path.reverse();
        return Some((owner, path));
    }
    None
}
