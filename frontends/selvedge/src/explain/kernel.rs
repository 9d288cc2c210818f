//! Why a kernel is what it is: its operators, the passes and rules that led to them, what was not chosen, and its candidates.

use super::{Explained, bytes};
use selvedge_bundle::manifest::{Dispatch, Manifest};
use selvedge_ir::op::OpClass;
use selvedge_ir::{Function, Module, Op, ValueId};
use selvedge_passes::saturate::{FunctionReport, Reason};
use std::fmt::Write;

/// A dispatch of a plan.
#[derive(Clone, Copy, Debug)]
pub struct At<'m> {
    /// The function's name.
    pub function: &'m str,
    /// Its place among the plan's functions.
    index: usize,
    /// The dispatch's place in the function.
    pub number: usize,
    /// The dispatch.
    pub dispatch: &'m Dispatch,
}

/// All dispatches of a manifest, or those of one function.
pub fn all<'m>(manifest: &'m Manifest, function: Option<&str>) -> impl Iterator<Item = At<'m>> {
    let functions = manifest.plans.iter().take(1).flat_map(|p| p.functions.iter().enumerate());
    let wanted: Vec<_> = functions.filter(|(_, f)| function.is_none_or(|wanted| wanted == f.name)).collect();
    wanted.into_iter().flat_map(|(index, f)| {
        let at = move |(number, dispatch)| At { function: &f.name, index, number, dispatch };
        f.dispatches.iter().enumerate().map(at)
    })
}

/// A dispatch by the name of its value (`%map22`, with or without `%`), of its kernel, or by its number in `function`
/// (in the first one that has it, if absent).
pub fn find<'m>(manifest: &'m Manifest, function: Option<&str>, name: &str) -> Option<At<'m>> {
    all(manifest, function).find(|at| {
        value_name(at.dispatch) == name.trim_start_matches('%')
            || manifest.kernels[at.dispatch.kernel as usize].name == name
            || name.parse() == Ok(at.number)
    })
}

fn value_name(dispatch: &Dispatch) -> &str {
    dispatch.label.split(' ').next().unwrap_or("").trim_start_matches('%')
}

/// The text for one dispatch.
pub fn text(explained: &Explained, at: At) -> String {
    let (manifest, dispatch) = (&explained.manifest, at.dispatch);
    let mut out = String::new();
    // Writing to a string cannot fail.
    let kernel = &manifest.kernels[dispatch.kernel as usize].name;
    let _ = writeln!(out, "dispatch {} of {}: {} ({kernel})", at.number, at.function, dispatch.label);
    let work = dispatch.flops as f64 / 1e6;
    let weights = bytes(dispatch.weight_bytes);
    let _ = writeln!(out, "  {work:.3} MFLOP, {} moved, {weights} of them weights", bytes(dispatch.bytes));
    let alike = |o: &At| o.dispatch.label == dispatch.label && o.dispatch.origins == dispatch.origins;
    let same = all(manifest, Some(at.function)).filter(alike).count();
    if same > 1 {
        let _ = writeln!(out, "  one of {same} alike: the block that it belongs to is called {same} times");
    }
    for origin in &dispatch.origins {
        let _ = writeln!(out, "  from {origin}");
    }
    candidates(&mut out, explained, at);
    let Some((owner, path)) = path(&explained.module, at.function, dispatch) else {
        let _ = writeln!(out, "  its values were made by code generation");
        return out;
    };
    let why = Why { explained, owner, report: explained.notes.saturation.iter().find(|r| r.name == owner.name) };
    for (i, id) in path.iter().enumerate() {
        let (Some((op, args)), Some(name)) = (owner.op(*id), &owner.value(*id).name) else { continue };
        let args: Vec<String> = args.iter().map(|a| named(owner, *a)).collect();
        let _ = writeln!(out, "  %{name} = {} {} : {}", shown(op), args.join(", "), owner.ty(*id));
        if i > 0 {
            let _ = writeln!(
                out,
                "    in the same kernel: nothing else reads %{}",
                named(owner, path[i - 1]).trim_start_matches('%')
            );
        }
        why.value(&mut out, name);
        why.operands(&mut out, *id);
    }
    out
}

/// The function whose values a dispatch computes: its own, or the block's that it calls.
pub(super) fn owner<'e>(explained: &'e Explained, at: At) -> Option<&'e str> {
    path(&explained.module, at.function, at.dispatch).map(|(owner, _)| owner.name.as_str())
}

/// What else code generation could have emitted.
fn candidates(out: &mut String, explained: &Explained, at: At) {
    let here = (at.index as u32, at.number as u32);
    let Some(unit) = explained.tunables.values().find(|t| t.dispatches.contains(&here)) else { return };
    let others: Vec<&str> = unit.candidates.iter().map(String::as_str).filter(|c| *c != unit.name()).collect();
    let chosen = if unit.chosen == 0 { "the default for its size and the target" } else { "by measurement" };
    let _ =
        writeln!(out, "  kernel {}, {chosen}; {} other candidates, which --tune measures", unit.name(), others.len());
    if !others.is_empty() {
        let shown: Vec<&str> = others.iter().take(8).copied().collect();
        let more = if others.len() > shown.len() { ", …" } else { "" };
        let _ = writeln!(out, "    {}{more}", shown.join(", "));
    }
}

fn named(function: &Function, id: ValueId) -> String {
    function.value(id).name.as_ref().map_or_else(|| format!("%{}", id.0), |n| format!("%{n}"))
}

/// An operator with what tells it from others of its kind.
fn shown(op: &Op) -> String {
    let text = super::html::attributes(op);
    if text.chars().count() > 140 { format!("{}…", text.chars().take(140).collect::<String>()) } else { text }
}

struct Why<'a> {
    explained: &'a Explained,
    owner: &'a Function,
    report: Option<&'a FunctionReport>,
}

impl Why<'_> {
    /// Why a value is what it is.
    fn value(&self, out: &mut String, name: &str) {
        let parts = self.merged(name);
        if parts.len() > 1 {
            let list: Vec<String> = parts.iter().map(|n| format!("%{n}")).collect();
            let _ = writeln!(out, "    merge-maps made it of {} maps: {}", parts.len(), list.join(", "));
        }
        let mut silent = true;
        for part in &parts {
            let Some((report, reason)) = self.reason(part) else { continue };
            let known = explain(out, report, reason, (parts.len() > 1).then_some(part.as_str()));
            silent &= !known;
        }
        if silent {
            let _ = match self.report {
                Some(_) => writeln!(out, "    as the model has it: no rule found another term of the same value"),
                None if self.explained.history.is_none() => {
                    writeln!(out, "    a compiled file does not say how it came to be")
                }
                None => writeln!(out, "    as the model has it: the rules were not asked"),
            };
        }
    }

    fn reason(&self, name: &str) -> Option<(&FunctionReport, &Reason)> {
        let report = self.report?;
        Some((report, report.reasons.iter().find(|reason| reason.value == name)?))
    }

    /// The values that a map was merged from, itself first: maps below it, in the program that the rules left, that are no
    /// values of the final one.
    fn merged(&self, name: &str) -> Vec<String> {
        let whole = vec![name.to_string()];
        let rewritten = self.explained.history.as_ref().and_then(|h| h.rewritten.as_ref());
        let Some(function) = rewritten.and_then(|m| m.function(&self.owner.name)) else { return whole };
        let is = |id: &ValueId, name: &str| function.value(*id).name.as_deref() == Some(name);
        let Some(end) = function.ids().find(|id| is(id, name)) else { return whole };
        let left = |id: ValueId| {
            let name = function.value(id).name.as_deref();
            self.owner.values.iter().any(|v| v.name.as_deref() == name)
        };
        let (mut found, mut open, mut seen) = (Vec::new(), vec![end], Vec::new());
        while let Some(id) = open.pop() {
            if seen.contains(&id) || (id != end && left(id)) {
                continue;
            }
            seen.push(id);
            let Some((op, args)) = function.op(id) else { continue };
            match op.class() {
                OpClass::Map => found.push(named(function, id).trim_start_matches('%').to_string()),
                OpClass::View => {}
                _ if id == end => return whole,
                _ => continue,
            }
            open.extend(args);
        }
        if found.is_empty() { whole } else { found }
    }

    /// Operands that another pass made: joined weights, rows of tables, values of earlier stages.
    fn operands(&self, out: &mut String, id: ValueId) {
        let mut said: Vec<String> = Vec::new();
        for arg in self.owner.reads(id) {
            let mut at = *arg;
            while let Some((Op::Transpose(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Slice(_), args)) =
                self.owner.op(at)
            {
                at = args[0];
            }
            if let Some(weights) = self.owner.joined_weights(at) {
                let names: Vec<&str> = weights.iter().map(|w| w.name.as_str()).collect();
                said.push(format!("merge-contractions made one product of {}: {}", names.len(), names.join(", ")));
            } else if let Some((Op::Input(input), _)) = self.owner.op(at) {
                said.extend(self.origin(&input.name, at));
            }
        }
        said.dedup();
        said.iter().for_each(|line| _ = writeln!(out, "    {line}"));
    }

    /// Where a parameter comes from, if a pass made it.
    fn origin(&self, name: &str, id: ValueId) -> Option<String> {
        let module = &self.explained.module;
        // A block's parameter is what its first call gives it.
        let position = self.owner.params().iter().position(|(_, p)| *p == id)?;
        let call =
            module.functions.iter().find_map(|f| Some((f, f.calls.iter().find(|c| c.function == self.owner.name)?)));
        let name = match call {
            None => name.to_string(),
            Some((caller, call)) => {
                let given = *call.args.get(position)?;
                if let Some(weights) = caller.joined_weights(given) {
                    let names: Vec<&str> = weights.iter().map(|w| w.name.as_str()).collect();
                    let count = names.len();
                    return Some(format!(
                        "merge-contractions made one product of {count}: {} (in the first call)",
                        names.join(", ")
                    ));
                }
                match caller.op(given) {
                    Some((Op::Input(input), _)) => input.name.clone(),
                    Some(_) | None => return None,
                }
            }
        };
        let schedule = &module.schedule;
        let gives = |f: Option<&String>| {
            f.and_then(|f| module.function(f)).is_some_and(|f| f.outputs().iter().any(|(n, _)| *n == name))
        };
        let tabulate = schedule.steps.as_ref().and_then(|s| s.tabulate.as_ref()).map(|t| &t.function);
        let when = match () {
            () if gives(tabulate) => "a table's row, computed for several steps at once",
            () if gives(schedule.condition.as_ref()) => "computed once a run",
            () if gives(schedule.prepare.as_ref()) => "computed at load",
            () => return None,
        };
        Some(format!("hoist took {} out of the step: {when}", named(self.owner, id)))
    }
}

/// Says what is known of a value; false if that is nothing.
fn explain(out: &mut String, report: &FunctionReport, reason: &Reason, of: Option<&str>) -> bool {
    let of = of.map_or(String::new(), |name| format!("%{name} "));
    if !reason.chain.is_empty() {
        let count = reason.chain.len();
        let _ = writeln!(out, "    {of}by {count} {}:", if count == 1 { "rule" } else { "rules, in this order" });
        for name in &reason.chain {
            let law = report.rules.iter().find(|r| r.name == *name).map_or("", |r| r.law);
            let _ = writeln!(out, "      {name}: {law}");
        }
    }
    let us = |s: f64| s * 1e6;
    for alternative in &reason.alternatives {
        let (term, function) = (&alternative.term, &report.name);
        let (best, count) = (report.seconds_after, us(report.seconds_after));
        let _ = match alternative.seconds {
            Some(seconds) if seconds > best => writeln!(
                out,
                "    {of}not {term}: @{function} would take {:+.2} µs ({:.2} instead of {count:.2})",
                us(seconds - best),
                us(seconds)
            ),
            Some(_) => writeln!(out, "    {of}not {term}: @{function} would take the same {count:.2} µs"),
            None => writeln!(out, "    {of}not {term}: it would depend on itself"),
        };
    }
    let bare = reason.chain.is_empty() && reason.alternatives.is_empty();
    // Of the parts of a merged map this would be a long list of little news.
    if bare && !reason.refused.is_empty() && of.is_empty() {
        let said: Vec<String> = reason.refused.iter().map(|(rule, why)| format!("{rule} ({why})")).collect();
        let _ = writeln!(
            out,
            "    {of}as the model has it; rules that matched, and why they gave no other term: {}",
            said.join(", ")
        );
    }
    !bare || (!reason.refused.is_empty() && of.is_empty())
}

/// The values of a unit, root first, from its label (`%map22 layer_norm+map`): in the function itself, or in one that
/// it calls.
fn path<'m>(module: &'m Module, function: &str, dispatch: &Dispatch) -> Option<(&'m Function, Vec<ValueId>)> {
    let (value, kinds) = dispatch.label.split_once(' ')?;
    let name = value.trim_start_matches('%');
    let kinds: Vec<&str> = kinds.split('+').collect();
    let places = |owner: &Function, id: ValueId| {
        owner.value(id).places.iter().filter(|p| dispatch.origins.contains(&p.to_string())).count()
    };
    let mut best: Option<(usize, &Function, Vec<ValueId>)> = None;
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
        // Blocks name their values alike: the one whose operators and call sites agree is meant.
        let agree = 1000 * path.len() + path.iter().map(|id| places(owner, *id)).sum::<usize>();
        if best.as_ref().is_none_or(|(known, ..)| agree > *known) {
            best = Some((agree, owner, path));
        }
    }
    best.map(|(_, owner, path)| (owner, path))
}
