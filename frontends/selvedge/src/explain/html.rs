//! A page with the graph before and after the rules, block by block; it needs nothing but itself.

use super::{Explained, kernel};
use selvedge_ir::op::OpClass;
use selvedge_ir::{Def, Function, Module, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:1.5em;color:#222;background:#fff}h1{font-size:1.4em}
h2{font-size:1.15em}pre{font:12px ui-monospace,monospace;white-space:pre-wrap}p{max-width:60em}
details{margin:.3em 0 .3em 1em}summary{cursor:pointer;font-weight:600}.pair{display:flex;gap:2em;align-items:flex-start;overflow-x:auto}
table{border-collapse:collapse;font-size:12px}td,th{padding:.15em .6em;text-align:left;border-bottom:1px solid #ddd}svg text{font:11px ui-monospace,monospace}
.none{color:#777}";
const ROW: usize = 34;
const COLUMN: usize = 176;
const WIDTH: usize = 160;
const HEIGHT: usize = 22;

/// The page: the program as the model code says it, then each function before and after the rules with its kernels.
pub fn page(explained: &Explained) -> String {
    let after = &explained.module;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style></head>\
         <body><h1>{0}: before and after the rules</h1><p>Boxes are operators, lines are tensors, from top to bottom; \
         point at a box for its attributes, type and call sites. Grey: views, which cost nothing; white: pointwise; blue: \
         contractions and convolutions; orange: reductions and indices; green: composites, one kernel each; violet: calls. \
         Weights and constants are left out.</p>",
        escape(&after.name)
    );
    explained.notes.lines.iter().for_each(|line| _ = write!(out, "<p>{}</p>", escape(line)));
    if let Some(history) = &explained.history {
        out.push_str("<h2>As the model code says it</h2>");
        for function in &history.written.functions {
            let count = shown(function).len();
            let _ = write!(out, "<details><summary>@{}: {count} operators</summary>", escape(&function.name));
            for (block, values) in in_order(blocks(function)) {
                let _ = write!(out, "<details><summary>{}: {}</summary>", label(&block), values.len());
                graph(&mut out, function, &values, &|_| None);
                out.push_str("</details>");
            }
            out.push_str("</details>");
        }
    }
    out.push_str("<h2>As the rules got it, and what they made of it</h2>");
    let given = explained.history.as_ref().map(|h| &h.given);
    for function in &after.functions {
        section(&mut out, explained, given.and_then(|m| m.function(&function.name)), function);
    }
    out.push_str("</body></html>\n");
    out
}

/// One function: what it is called for, its graphs side by side, its kernels, and the rules that were used.
fn section(out: &mut String, explained: &Explained, old: Option<&Function>, new: &Function) {
    let count = |f: Option<&Function>| f.map_or(0, |f| shown(f).len());
    let _ = write!(
        out,
        "<details open><summary>@{}: {} operators before, {} after</summary>",
        escape(&new.name),
        count(old),
        count(Some(new))
    );
    for (caller, blocks) in calls(&explained.module, &new.name) {
        let times = blocks.len();
        let of: Vec<&str> = blocks.iter().filter(|b| !b.is_empty()).map(String::as_str).collect();
        let what = if of.is_empty() { String::new() } else { format!(": {}", of.join(", ")) };
        let _ = write!(out, "<p>called {times} times by @{}{}</p>", escape(caller), escape(&what));
    }
    let reason = explained.notes.saturation.iter().find(|r| r.name == new.name);
    let rules = |name: &str| {
        let reason = reason?.reasons.iter().find(|r| r.value == name)?;
        (!reason.chain.is_empty()).then(|| format!("by {}", reason.chain.join(", ")))
    };
    let (mut old_blocks, mut new_blocks) = (old.map(blocks).unwrap_or_default(), blocks(new));
    let names: BTreeMap<String, ()> = old_blocks.keys().chain(new_blocks.keys()).map(|k| (k.clone(), ())).collect();
    for (block, ()) in in_order(names) {
        let (o, n) = (old_blocks.remove(&block).unwrap_or_default(), new_blocks.remove(&block).unwrap_or_default());
        let _ =
            write!(out, "<details><summary>{}: {} → {}</summary><div class=\"pair\">", label(&block), o.len(), n.len());
        for (function, values) in [(old, o), (Some(new), n)] {
            match function {
                Some(f) if !values.is_empty() => graph(out, f, &values, &rules),
                _ => out.push_str("<p class=\"none\">nothing</p>"),
            }
        }
        out.push_str("</div></details>");
    }
    kernels(out, explained, new);
    if let Some(report) = reason {
        let _ = write!(out, "<details><summary>rules: {}</summary><table>", escape(&report.summary()));
        out.push_str("<tr><th>rule</th><th>matches</th><th>applied</th><th>law</th></tr>");
        for rule in report.rules.iter().filter(|r| r.applied > 0) {
            let _ = write!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                rule.name,
                rule.matches,
                rule.applied,
                escape(rule.law)
            );
        }
        out.push_str("</table></details>");
    }
    out.push_str("</details>");
}

/// The kernels of a function's own values, each once, with why they are what they are.
fn kernels(out: &mut String, explained: &Explained, function: &Function) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut texts: Vec<(String, String)> = Vec::new();
    for at in kernel::all(&explained.manifest, None) {
        if kernel::owner(explained, at) == Some(function.name.as_str()) && seen.insert(&at.dispatch.label) {
            texts.push((at.dispatch.label.clone(), kernel::text(explained, at)));
        }
    }
    if texts.is_empty() {
        return;
    }
    let _ = write!(out, "<details><summary>kernels: {}</summary>", texts.len());
    for (label, text) in texts {
        let _ = write!(out, "<details><summary>{}</summary><pre>{}</pre></details>", escape(&label), escape(&text));
    }
    out.push_str("</details>");
}

/// Who calls a function, with the block of the model that each call stands for.
fn calls<'m>(module: &'m Module, name: &str) -> Vec<(&'m str, Vec<String>)> {
    let mut all = Vec::new();
    for caller in &module.functions {
        let of_weight = |id: &ValueId| match caller.op(*id) {
            Some((Op::Weight(w), _)) => block_of(&w.name),
            Some(_) | None => caller.joined_weights(*id).and_then(|w| block_of(&w[0].name)),
        };
        let calls = caller.calls.iter().filter(|c| c.function == name);
        let blocks: Vec<String> =
            calls.map(|c| c.args.iter().filter_map(of_weight).max_by_key(|b| order(b)).unwrap_or_default()).collect();
        if !blocks.is_empty() {
            all.push((caller.name.as_str(), blocks));
        }
    }
    all
}

fn label(block: &str) -> String {
    escape(if block.is_empty() { "outside of blocks" } else { block })
}

/// Blocks in the order of their numbers.
fn in_order<T>(blocks: BTreeMap<String, T>) -> Vec<(String, T)> {
    let mut all: Vec<(String, T)> = blocks.into_iter().collect();
    all.sort_by_key(|(block, _)| order(block));
    all
}

/// The block that a weight belongs to: its path up to a number (`blocks.3`).
fn block_of(weight: &str) -> Option<String> {
    let parts: Vec<&str> = weight.split('.').collect();
    parts.iter().position(|p| p.parse::<usize>().is_ok()).map(|i| parts[..=i].join("."))
}

/// Values that are drawn: everything but leaves that are no parameters.
fn shown(function: &Function) -> Vec<ValueId> {
    let leaf = |id: &ValueId| {
        function
            .op(*id)
            .is_some_and(|(op, _)| op.class() == OpClass::Leaf && !matches!(op, Op::Input(_) | Op::State(_)))
    };
    function.ids().filter(|id| !leaf(id)).collect()
}

/// Numbers in names in order: `blocks.2` before `blocks.10`.
fn order(block: &str) -> (String, usize) {
    match block.rsplit_once('.') {
        Some((stem, number)) => (stem.to_string(), number.parse().unwrap_or(0)),
        None => (block.to_string(), 0),
    }
}

/// Values by block: that of the last weight below a value, blocks in the order in which the program comes to them.
fn blocks(function: &Function) -> BTreeMap<String, Vec<ValueId>> {
    let mut names: Vec<String> = Vec::new();
    let mut of: Vec<Option<usize>> = Vec::with_capacity(function.values.len());
    let mut found: BTreeMap<String, Vec<ValueId>> = BTreeMap::new();
    for id in function.ids() {
        let own = match function.op(id) {
            Some((Op::Weight(w), _)) => block_of(&w.name).map(|block| {
                names.iter().position(|known| *known == block).unwrap_or_else(|| {
                    names.push(block);
                    names.len() - 1
                })
            }),
            Some(_) | None => function.reads(id).iter().filter_map(|a| of[a.0 as usize]).max(),
        };
        of.push(own);
    }
    for id in shown(function) {
        let block = of[id.0 as usize].map_or_else(String::new, |at| names[at].clone());
        found.entry(block).or_default().push(id);
    }
    found
}

/// One block as a picture: a row for each length of the longest path to a value. `more` is told of a value by its name.
fn graph(out: &mut String, function: &Function, values: &[ValueId], more: &dyn Fn(&str) -> Option<String>) {
    let mut places: HashMap<ValueId, (usize, usize)> = HashMap::new();
    let mut rows: Vec<usize> = Vec::new();
    for &id in values {
        let above = function.reads(id).iter().filter_map(|a| places.get(a)).map(|(row, _)| row + 1).max();
        let row = above.unwrap_or(0);
        if rows.len() <= row {
            rows.resize(row + 1, 0);
        }
        places.insert(id, (row, rows[row]));
        rows[row] += 1;
    }
    let (width, height) = (rows.iter().max().unwrap_or(&1) * COLUMN, rows.len() * ROW);
    let _ = write!(out, "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">");
    let at = |(row, column): (usize, usize)| (column * COLUMN + 4, row * ROW + 4);
    for &id in values {
        let (x, y) = at(places[&id]);
        for from in function.reads(id).iter().filter_map(|a| places.get(a)) {
            let (fx, fy) = at(*from);
            let (fx, fy, x) = (fx + WIDTH / 2, fy + HEIGHT, x + WIDTH / 2);
            let _ = write!(out, "<path d=\"M{fx} {fy}L{x} {y}\" stroke=\"#888\" fill=\"none\"/>");
        }
    }
    for &id in values {
        let (x, y) = at(places[&id]);
        let value = function.value(id);
        let (kind, class) = match (function.op(id), &value.def) {
            (Some((op, _)), _) => (op.kind().text(), Some(op.class())),
            (None, Def::Result { call, .. }) => (function.calls[call.0 as usize].function.as_str(), None),
            (None, Def::Op { .. }) => ("", None),
        };
        let colour = match class {
            None => "#dcc9f2",
            Some(class) => colour(class),
        };
        let detail = function.op(id).map_or(String::new(), |(op, _)| attributes(op));

        let origins: Vec<String> = value.places.iter().map(ToString::to_string).collect();
        let name = value.name.as_deref().unwrap_or("");
        let more = more(name).map_or(String::new(), |m| format!("\n{m}"));
        let title = format!("{name} {detail} : {}{more}\n{}", value.ty, origins.join("\n"));
        let text: String = format!("{kind} {}", value.ty.shape).chars().take(23).collect();
        let (tx, ty) = (x + 5, y + 15);
        let _ = write!(
            out,
            "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"4\" fill=\"{colour}\" \
             stroke=\"#666\"/><text x=\"{tx}\" y=\"{ty}\">{}</text></g>",
            escape(&title),
            escape(&text)
        );
    }
    out.push_str("</svg>");
}

fn colour(class: OpClass) -> &'static str {
    match class {
        OpClass::Leaf => "#f7e9b0",
        OpClass::Map => "#ffffff",
        OpClass::Contract | OpClass::Window => "#bcd7f5",
        OpClass::Reduce | OpClass::Scan | OpClass::Index => "#f9cfa4",
        OpClass::View => "#e6e6e6",
        OpClass::Composite => "#bfe8c1",
    }
}

/// An operator with its attributes.
pub(super) fn attributes(op: &Op) -> String {
    let named = op.kind().attributes().iter().zip(op.attrs());
    let text: Vec<String> = named.map(|((name, _, _), value)| format!("{name}={value}")).collect();
    format!("{} {}", op.kind().text(), text.join(" ")).chars().take(300).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::Options;
    use std::sync::Arc;

    #[test]
    fn a_page_shows_both_sides_and_loads_nothing() {
        let text = "module @m\n\nweight \"blocks.0.w\" : f32[2,2]\n\nfn @f(%x: f32[2,2]) {\n  \
                    %w = weight \"blocks.0.w\" : f32[2,2]\n  \
                    %y = contract %x, %w spec=[ik,kj->ij] dtype=f32 : f32[2,2]\n  return y=%y\n}";
        let module = selvedge_ir::parse::parse(text).unwrap();
        let options = Options::new(crate::target::Target::portable());
        let weights = Arc::new(crate::weights::Random::default());
        let explained = Explained::of(module, weights, serde_json::Value::Null, &options).unwrap();
        let page = page(&explained);
        assert_eq!(page.matches("contract [2,2]").count(), 3, "written, given and chosen: {page}");
        assert!(page.contains("blocks.0: 1 → 1") && page.contains("@f: 2 operators before, 2 after"), "{page}");
        assert!(page.contains("kernels: 1") && page.contains("dispatch 0 of f"), "{page}");
        assert_eq!(page.matches("<details").count(), page.matches("</details>").count());
        assert!(!page.contains("http") && !page.contains("src=") && !page.contains("url("));
    }

    #[test]
    fn a_value_belongs_to_the_block_that_the_program_came_to_last() {
        let text = "weight \"t_embedder.mlp.0.w\" : f32[2,2]\nweight \"blocks.0.w\" : f32[2,2]\n\nfn @f(%x: f32[2,2]) {\n  \
                    %e = weight \"t_embedder.mlp.0.w\" : f32[2,2]\n  \
                    %c = contract %x, %e spec=[ik,kj->ij] dtype=f32 : f32[2,2]\n  \
                    %w = weight \"blocks.0.w\" : f32[2,2]\n  \
                    %y = contract %c, %w spec=[ik,kj->ij] dtype=f32 : f32[2,2]\n  return y=%y\n}";
        let module = selvedge_ir::parse::parse(text).unwrap();
        let found = blocks(&module.functions[0]);
        let counts: Vec<(&str, usize)> = found.iter().map(|(block, values)| (block.as_str(), values.len())).collect();
        assert_eq!(counts, [("", 1), ("blocks.0", 1), ("t_embedder.mlp.0", 1)]);
    }
}
