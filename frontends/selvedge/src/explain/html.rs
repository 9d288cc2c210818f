//! A page with the graph before and after the rules, block by block; it needs nothing but itself.

use selvedge_ir::op::OpClass;
use selvedge_ir::{Function, Module, Op, ValueId};
use selvedge_passes::Notes;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:1.5em;color:#222;background:#fff}h1{font-size:1.4em}
details{margin:.3em 0 .3em 1em}summary{cursor:pointer;font-weight:600}.pair{display:flex;gap:2em;align-items:flex-start;overflow-x:auto}
table{border-collapse:collapse;font-size:12px}td,th{padding:.15em .6em;text-align:left;border-bottom:1px solid #ddd}svg text{font:11px ui-monospace,monospace}
.none{color:#777}";
const ROW: usize = 34;
const COLUMN: usize = 176;
const WIDTH: usize = 160;
const HEIGHT: usize = 22;

/// The page. `before` is the module that the rules were given, `after` what they made of it.
pub fn page(before: &Module, after: &Module, notes: &Notes) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style></head>\
         <body><h1>{0}: before and after the rules</h1><p>Boxes are operators, lines are tensors, from top to bottom. \
         Grey: views, which cost nothing; white: pointwise; blue: contractions and convolutions; orange: reductions and \
         indices; green: composites, one kernel each. Weights and constants are left out.</p>",
        escape(&after.name)
    );
    for report in &notes.saturation {
        let _ = write!(out, "<details><summary>{}</summary><table>", escape(&report.summary()));
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
    let mut names: Vec<&str> = after.functions.iter().map(|f| f.name.as_str()).collect();
    names.extend(before.functions.iter().map(|f| f.name.as_str()).filter(|n| after.function(n).is_none()));
    for name in names {
        let (old, new) = (before.function(name), after.function(name));
        let count = |f: Option<&Function>| f.map_or(0, |f| shown(f).len());
        let _ = write!(
            out,
            "<details open><summary>@{}: {} operators before, {} after</summary>",
            escape(name),
            count(old),
            count(new)
        );
        let (old_blocks, new_blocks) = (old.map(blocks).unwrap_or_default(), new.map(blocks).unwrap_or_default());
        let mut all: Vec<&String> = old_blocks.keys().chain(new_blocks.keys()).collect();
        all.sort_by_key(|b| order(b));
        all.dedup();
        for block in all {
            let empty = Vec::new();
            let (o, n) = (old_blocks.get(block).unwrap_or(&empty), new_blocks.get(block).unwrap_or(&empty));
            let label = if block.is_empty() { "outside of blocks" } else { block };
            let _ = write!(
                out,
                "<details><summary>{}: {} → {}</summary><div class=\"pair\">",
                escape(label),
                o.len(),
                n.len()
            );
            for (function, values) in [(old, o), (new, n)] {
                match function {
                    Some(f) if !values.is_empty() => graph(&mut out, f, values),
                    _ => out.push_str("<p class=\"none\">nothing</p>"),
                }
            }
            out.push_str("</div></details>");
        }
        out.push_str("</details>");
    }
    out.push_str("</body></html>\n");
    out
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

/// Values by block: that of the last weight below a value, by its path up to a number (`blocks.3`).
fn blocks(function: &Function) -> BTreeMap<String, Vec<ValueId>> {
    let mut of: Vec<Option<String>> = Vec::with_capacity(function.values.len());
    let mut found: BTreeMap<String, Vec<ValueId>> = BTreeMap::new();
    for id in function.ids() {
        let own = match function.op(id) {
            Some((Op::Weight(w), _)) => {
                let parts: Vec<&str> = w.name.split('.').collect();
                parts.iter().position(|p| p.parse::<usize>().is_ok()).map(|i| parts[..=i].join("."))
            }
            _ => function.reads(id).iter().filter_map(|a| of[a.0 as usize].clone()).max_by_key(|b| order(b)),
        };
        of.push(own);
    }
    for id in shown(function) {
        found.entry(of[id.0 as usize].clone().unwrap_or_default()).or_default().push(id);
    }
    found
}

/// One block as a picture: a row for each length of the longest path to a value.
fn graph(out: &mut String, function: &Function, values: &[ValueId]) {
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
        let (kind, class) = function.op(id).map_or(("call", OpClass::Leaf), |(op, _)| (op.kind().text(), op.class()));
        let colour = match class {
            OpClass::Leaf => "#f7e9b0",
            OpClass::Map => "#ffffff",
            OpClass::Contract | OpClass::Window => "#bcd7f5",
            OpClass::Reduce | OpClass::Scan | OpClass::Index => "#f9cfa4",
            OpClass::View => "#e6e6e6",
            OpClass::Composite => "#bfe8c1",
        };
        let detail = function.op(id).map_or(String::new(), |(op, _)| attributes(op));
        let origins: Vec<String> = value.places.iter().map(ToString::to_string).collect();
        let title = format!("{} {detail} : {}\n{}", value.name.as_deref().unwrap_or(""), value.ty, origins.join("\n"));
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

fn attributes(op: &Op) -> String {
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

    #[test]
    fn a_page_shows_both_sides_and_loads_nothing() {
        let text = "weight \"blocks.0.w\" : f32[2,2]\n\nfn @f(%x: f32[2,2]) {\n  \
                    %w = weight \"blocks.0.w\" : f32[2,2]\n  \
                    %y = contract %x, %w spec=[ik,kj->ij] dtype=f32 : f32[2,2]\n  return y=%y\n}";
        let module = selvedge_ir::parse::parse(text).unwrap();
        let page = page(&module, &module, &Notes::default());
        assert_eq!(page.matches("contract [2,2]").count(), 2);
        assert!(page.contains("blocks.0: 1 → 1") && page.contains("@f: 2 operators before, 2 after"));
        assert!(!page.contains("http") && !page.contains("src=") && !page.contains("url("));
    }
}
