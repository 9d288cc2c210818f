//! The text form's printer. For every module that verifies, `parse(print(m)) = m`, and printing what was parsed
//! gives the same text.

use crate::attr::{Attr, Literal};
use crate::func::{CallId, Def, Function, Target, ValueId, named_attrs};
use crate::lex::{is_name, is_word};
use crate::module::{Module, Schedule};
use crate::ops::Op;
use crate::shape::TensorType;
use crate::tensor::{Data, Tensor};
use std::collections::HashSet;
use std::fmt::Write;

/// Constants with at most this many elements are written as a list, others as hexadecimal bytes.
pub const INLINE_ELEMENTS: usize = 64;

/// Prints a module: name, weights, states, functions, schedule.
pub fn print(module: &Module) -> String {
    let mut sections = Vec::new();
    if !module.name.is_empty() {
        sections.push(format!("module @{}\n", name_text(&module.name)));
    }
    let mut declarations = String::new();
    for w in &module.weights {
        line(&mut declarations, format_args!("weight {} : {}", text_literal(&w.name), w.ty));
    }
    for s in &module.states {
        line(&mut declarations, format_args!("state {} : {}", text_literal(&s.name), s.ty));
    }
    if !declarations.is_empty() {
        sections.push(declarations);
    }
    sections.extend(module.functions.iter().map(print_function));
    if !module.schedule.is_empty() {
        sections.push(schedule_text(&module.schedule));
    }
    sections.join("\n")
}

/// Prints one function.
pub fn print_function(function: &Function) -> String {
    let names = value_names(function);
    let name = |id: ValueId| names.get(id.0 as usize).map_or_else(|| format!("%!{}", id.0), |n| format!("%{n}"));
    let list = |ids: &[ValueId]| ids.iter().map(|&id| name(id)).collect::<Vec<_>>().join(", ");
    let params: Vec<String> =
        function.params().iter().map(|(_, id)| format!("{}: {}", name(*id), function.ty(*id))).collect();
    let mut out = format!("fn @{}({})", name_text(&function.name), params.join(", "));
    let results: Vec<String> = function
        .returns
        .iter()
        .filter_map(|r| function.values.get(r.value.0 as usize).map(|v| v.ty.to_string()))
        .collect();
    if !results.is_empty() {
        let _ = write!(out, " -> {}", results.join(", "));
    }
    out.push_str(" {\n");
    for id in function.ids() {
        let value = function.value(id);
        match &value.def {
            Def::Op { op: Op::Input(_), .. } => {}
            Def::Op { op, args } => {
                let mut parts = vec![op.kind().text().to_string()];
                if !args.is_empty() {
                    parts.push(list(args));
                }
                parts.extend(named_attrs(op).iter().filter_map(|(name, attr)| attr_text(name, attr, &value.ty)));
                line(&mut out, format_args!("  {} = {} : {}", name(id), parts.join(" "), value.ty));
            }
            Def::Result { call, index: 0 } => {
                let results: Vec<ValueId> = call_results(function, *call, id);
                let types: Vec<String> = results.iter().map(|r| function.ty(*r).to_string()).collect();
                let (callee, args) = match function.calls.get(call.0 as usize) {
                    Some(c) => (c.function.as_str(), c.args.as_slice()),
                    None => ("", [].as_slice()),
                };
                let (names, callee, args) = (list(&results), name_text(callee), list(args));
                line(&mut out, format_args!("  {names} = call @{callee}({args}) : {}", types.join(", ")));
            }
            Def::Result { .. } => {}
        }
    }
    let returns: Vec<String> = function
        .returns
        .iter()
        .map(|r| match &r.target {
            Target::Output(output) => format!("{}={}", word_text(output), name(r.value)),
            Target::State(state) => format!("state {}={}", text_literal(state), name(r.value)),
        })
        .collect();
    line(&mut out, format_args!("{}", format!("  return {}", returns.join(", ")).trim_end()));
    out.push_str("}\n");
    out
}

/// The unique name of each value in the text form, without `%`: its hint if it has one and it is free.
pub fn value_names(function: &Function) -> Vec<String> {
    let mut taken: HashSet<String> = function.params().iter().map(|(name, _)| name.to_string()).collect();
    let mut unnamed = 0;
    let mut fresh = |taken: &mut HashSet<String>| {
        // Numbers are never hints, so the only other holder of a number is a parameter.
        loop {
            let name = unnamed.to_string();
            unnamed += 1;
            if taken.insert(name.clone()) {
                return name;
            }
        }
    };
    let hints: HashSet<&str> = function.values.iter().filter_map(|v| v.name.as_deref()).collect();
    let mut names = Vec::with_capacity(function.values.len());
    for value in &function.values {
        let hint = value.name.as_deref().filter(|n| !n.is_empty() && !n.bytes().all(|c| c.is_ascii_digit()));
        let name = match (&value.def, hint) {
            (Def::Op { op: Op::Input(input), .. }, _) => input.name.clone(),
            (_, None) => fresh(&mut taken),
            (_, Some(hint)) if taken.insert(hint.to_string()) => hint.to_string(),
            (_, Some(hint)) => {
                let free =
                    (1..).map(|i| format!("{hint}_{i}")).find(|n| !hints.contains(n.as_str()) && !taken.contains(n));
                let free = free.expect("one of infinitely many names is free");
                taken.insert(free.clone());
                free
            }
        };
        names.push(name);
    }
    names.iter().map(|n| name_text(n)).collect()
}

/// The elements of a constant as written: a list if it is short and reads back to the same bytes.
pub fn literal_text(literal: &Literal, ty: &TensorType) -> String {
    let hex = || Attr::Data(literal.clone()).to_string();
    let short = ty.shape.get().is_some() && ty.elements().is_some_and(|n| n <= INLINE_ELEMENTS);
    if !short {
        return hex();
    }
    let Ok(tensor) = Tensor::from_bytes(ty.clone(), &literal.0) else { return hex() };
    if !same_bytes(&tensor, literal) {
        return hex();
    }
    let items: Vec<String> = match &tensor.data {
        Data::F32(v) => v.iter().map(|x| if x.is_nan() { "nan".to_string() } else { format!("{x:?}") }).collect(),
        Data::F64(v) => v.iter().map(|x| format!("{x:?}")).collect(),
        Data::I32(v) => v.iter().map(i32::to_string).collect(),
        Data::U32(v) => v.iter().map(u32::to_string).collect(),
        Data::Bool(v) => v.iter().map(bool::to_string).collect(),
    };
    format!("[{}]", items.join(", "))
}

/// True if the elements have only values that a list can tell apart: one NaN, bools 0 and 1.
fn same_bytes(tensor: &Tensor, literal: &Literal) -> bool {
    let plain = match tensor.data.clone() {
        Data::F32(v) => Data::F32(v.into_iter().map(|x| if x.is_nan() { f32::NAN } else { x }).collect()),
        other => other,
    };
    Tensor { ty: tensor.ty.clone(), data: plain }.to_bytes() == literal.0[..]
}

/// An attribute as it is written, `None` for the statement's own type. Strings and elements have no name.
fn attr_text(name: &str, attr: &Attr, ty: &TensorType) -> Option<String> {
    match attr {
        Attr::Type(_) => None,
        Attr::Text(text) => Some(text_literal(text)),
        Attr::Data(literal) => Some(literal_text(literal, ty)),
        Attr::Int(_)
        | Attr::Ints(_)
        | Attr::Pairs(_)
        | Attr::Float(_)
        | Attr::Flag(_)
        | Attr::Word(_)
        | Attr::DType(_)
        | Attr::Shape(_)
        | Attr::Body(_)
        | Attr::Spec(_) => Some(format!("{name}={attr}")),
    }
}

/// A call's results: the run of consecutive values that starts at `first`.
fn call_results(function: &Function, call: CallId, first: ValueId) -> Vec<ValueId> {
    (0..)
        .map(|i| ValueId(first.0 + i))
        .zip(0u32..)
        .take_while(|(id, i)| {
            function.values.get(id.0 as usize).is_some_and(|v| v.def == Def::Result { call, index: *i })
        })
        .map(|(id, _)| id)
        .collect()
}

fn schedule_text(schedule: &Schedule) -> String {
    let mut out = String::from("schedule {\n");
    let stage = |out: &mut String, word: &str, function: &Option<String>| {
        if let Some(function) = function {
            line(out, format_args!("  {word} @{}", name_text(function)));
        }
    };
    stage(&mut out, "prepare", &schedule.prepare);
    stage(&mut out, "condition", &schedule.condition);
    if let Some(steps) = &schedule.steps {
        let functions: Vec<String> = steps.functions.iter().map(|f| format!("@{}", name_text(f))).collect();
        let mut parts = vec!["  steps".to_string()];
        if !functions.is_empty() {
            parts.push(functions.join(", "));
        }
        if !steps.carry.is_empty() {
            parts.push(format!("carry({})", words_text(&steps.carry)));
        }
        if !steps.tables.is_empty() {
            let tables: Vec<String> =
                steps.tables.iter().map(|t| format!("{}: {}", word_text(&t.name), t.ty)).collect();
            parts.push(format!("table({})", tables.join(", ")));
        }
        if let Some(t) = &steps.tabulate {
            parts.push(format!("tabulate {} @{}", t.rows, name_text(&t.function)));
        }
        line(&mut out, format_args!("{}", parts.join(" ")));
    }
    stage(&mut out, "decode", &schedule.decode);
    if !schedule.trace.is_empty() {
        line(&mut out, format_args!("  trace({})", words_text(&schedule.trace)));
    }
    out.push_str("}\n");
    out
}

fn words_text(words: &[String]) -> String {
    words.iter().map(|w| word_text(w)).collect::<Vec<_>>().join(", ")
}

/// A name after `%` or `@`: quoted if it has other characters than names have.
fn name_text(name: &str) -> String {
    if is_name(name) { name.to_string() } else { text_literal(name) }
}

/// A name without a sign before it: quoted unless it is a word.
fn word_text(name: &str) -> String {
    if is_word(name) { name.to_string() } else { text_literal(name) }
}

fn text_literal(text: &str) -> String {
    format!("{text:?}")
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{text}"); // writing to a string does not fail
}
