//! The IR's reference, `docs/IR.md`, from the operator list and the test files.

use crate::root;
use selvedge_ir::attr::AttrKind;
use selvedge_ir::op::OpClass;
use selvedge_ir::ops::{LocalKind, OpKind, ReduceKind, ResizeKind, ScanKind, ScatterKind, WindowKind};
use selvedge_ir::scalar::{Binary, Unary, precedence};

/// The whole page.
///
/// # Errors
/// An operator's test file is not there or has no example.
pub fn page() -> Result<String, String> {
    let mut page = include_str!("grammar.md").to_string();
    page.push_str("\n## Scalar bodies\n\n");
    page.push_str(&scalar_section());
    page.push_str("\n## Operators\n\nOperands marked `?` may be left out, `*` stands for one or more. ");
    page.push_str("C… are the constraints that an error names, as in `reduce C1`; C0 is the number of operands.\n");
    for (class, title) in CLASSES {
        page.push_str(&format!("\n### {title}\n"));
        for kind in OpKind::ALL.iter().copied().filter(|k| k.class() == class) {
            page.push_str(&operator_section(kind)?);
        }
    }
    page.push_str("\n## Invariants\n\nWhat the verifier checks, and what holds between passes.\n\n");
    page.push_str(&invariants()?);
    Ok(page)
}

const CLASSES: [(OpClass, &str); 9] = [
    (OpClass::Leaf, "Leaves"),
    (OpClass::Map, "Pointwise"),
    (OpClass::Reduce, "Reductions"),
    (OpClass::Contract, "Contractions"),
    (OpClass::Window, "Windows"),
    (OpClass::Scan, "Scans"),
    (OpClass::View, "Views"),
    (OpClass::Index, "Data-dependent indices"),
    (OpClass::Composite, "Composites"),
];

fn operator_section(kind: OpKind) -> Result<String, String> {
    let mut out = format!("\n#### `{}`\n\n", kind.text());
    let (constraints, prose) = constraints(kind);
    out.push_str(&format!("{}\n", prose.join("\n")));
    let operands = kind.operands();
    if !operands.is_empty() {
        out.push_str(&format!("\nOperands: `{}`.\n", operands.join("`, `")));
    }
    let attributes: Vec<_> = kind.attributes().iter().filter(|(_, k, _)| *k != AttrKind::Type).collect();
    if !attributes.is_empty() {
        out.push_str("\n| attribute | value | |\n|---|---|---|\n");
        for (name, value, doc) in attributes {
            let value = words(kind, name).unwrap_or_else(|| value_text(*value).to_string());
            out.push_str(&format!("| `{name}` | {value} | {} |\n", doc.trim()));
        }
    }
    if !constraints.is_empty() {
        out.push('\n');
        for (number, text) in constraints {
            out.push_str(&format!("- C{number} {text}\n"));
        }
    }
    out.push_str(&format!("\n```text\n{}```\n", example(kind)?));
    Ok(out)
}

/// An operator's numbered constraints, and the lines of its documentation before them.
pub fn constraints(kind: OpKind) -> (Vec<(u32, String)>, Vec<String>) {
    let (mut constraints, mut prose) = (Vec::<(u32, String)>::new(), Vec::new());
    for line in kind.doc().lines().map(str::trim) {
        let number =
            line.strip_prefix('C').and_then(|l| l.split_once(' ')).and_then(|(n, t)| Some((n.parse().ok()?, t)));
        match (number, constraints.last_mut()) {
            (Some((n, text)), _) => constraints.push((n, text.to_string())),
            (None, Some((_, text))) => text.push_str(&format!(" {line}")),
            (None, None) => prose.push(line.to_string()),
        }
    }
    (constraints, prose)
}

/// The first function of an operator's test file that is not refused.
fn example(kind: OpKind) -> Result<String, String> {
    let path = root().join("tests/filetests/ops").join(format!("{}.ir", kind.text()));
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", crate::relative(&path)))?;
    let lines: Vec<&str> = text.lines().collect();
    let declared = lines.iter().filter(|l| l.starts_with("weight ") || l.starts_with("state "));
    let declared: String = match kind {
        OpKind::Weight | OpKind::State => declared.map(|l| format!("{l}\n")).collect(),
        _ => String::new(),
    };
    let functions = lines.split_inclusive(|l| *l == "}").filter_map(|f| {
        let start = f.iter().position(|l| l.starts_with("fn @"))?;
        Some(&f[start..])
    });
    let good = functions.into_iter().find(|f| !f.iter().any(|l| l.contains("//~")));
    let good = good.ok_or_else(|| format!("{} has no example", crate::relative(&path)))?;
    Ok(format!("{declared}{}\n", good.join("\n")))
}

fn value_text(kind: AttrKind) -> &'static str {
    match kind {
        AttrKind::Int => "whole number",
        AttrKind::Ints => "`[0,2,1]`",
        AttrKind::Pairs => "`[0:1,2:0]`",
        AttrKind::Float => "float",
        AttrKind::Flag => "`true` or `false`",
        AttrKind::Text => "string, without its name",
        AttrKind::Word => "word",
        AttrKind::DType => "dtype",
        AttrKind::Shape => "`[B,4*N]`",
        AttrKind::Type => "type",
        AttrKind::Body => "`{x, y\\| x + y}`",
        AttrKind::Spec => "`[ab,bc->ac]`",
        AttrKind::Data => "elements, without their name",
    }
}

/// The words an attribute takes.
fn words(kind: OpKind, attribute: &str) -> Option<String> {
    fn list<T: Copy>(all: &[T], text: impl Fn(T) -> &'static str) -> Option<String> {
        Some(all.iter().map(|w| format!("`{}`", text(*w))).collect::<Vec<_>>().join(" "))
    }
    match (kind, attribute) {
        (OpKind::Reduce, "kind") => list(ReduceKind::ALL, ReduceKind::text),
        (OpKind::Scan, "kind") => list(ScanKind::ALL, ScanKind::text),
        (OpKind::Window, "kind") => list(WindowKind::ALL, WindowKind::text),
        (OpKind::Scatter, "kind") => list(ScatterKind::ALL, ScatterKind::text),
        (OpKind::Resize, "kind") => list(ResizeKind::ALL, ResizeKind::text),
        (OpKind::LocalAttention, "shape") => list(LocalKind::ALL, LocalKind::text),
        _ => None,
    }
}

fn scalar_section() -> String {
    let mut out = String::from(
        "A body computes one element from one element of each operand. Float arithmetic is done in f32 whatever the\n\
         arguments' storage; the map rounds once, at its own dtype. Besides the primitives: `select(c, x, y)`, casts\n\
         such as `f16(x)`, and `bits_f32(x)`, `bits_i32(x)`, `bits_u32(x)` for the same bits as another type.\n\n\
         | primitive | level | |\n|---|---|---|\n",
    );
    for op in Binary::ALL {
        let (spelling, level) = match precedence(*op) {
            Some(level) => (format!("x {} y", op.text()).replace('|', "\\|"), level.to_string()),
            None => (format!("{}(x, y)", op.text()), String::new()),
        };
        out.push_str(&format!("| `{spelling}` | {level} | {} |\n", op.doc().trim()));
    }
    for op in Unary::ALL {
        out.push_str(&format!("| `{}(x)` | | {} |\n", op.text(), op.doc().trim().replace('|', "\\|")));
    }
    out.push_str("\nHigher levels bind more strongly; equal ones from the left.\n");
    out
}

/// The list at the top of the verifier.
fn invariants() -> Result<String, String> {
    let path = root().join("ir/src/verify.rs");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", crate::relative(&path)))?;
    let header = text.lines().skip(1).map_while(|l| l.strip_prefix("//!"));
    let lines: Vec<&str> = header.map(|l| l.strip_prefix(' ').unwrap_or(l)).collect();
    Ok(format!("{}\n", lines.join("\n").trim()))
}
