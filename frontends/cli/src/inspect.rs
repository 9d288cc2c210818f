//! `selvedge inspect`: what a model folder or a compiled file holds.

use crate::common::{bytes, out};
use crate::{Error, Outcome};
use selvedge::open::Opened;
use serde_json::Value;

#[derive(clap::Args)]
pub struct Args {
    /// A model folder, a compiled file, or a shipped model's name (`digits`).
    model: String,
    /// Images made by one run, for the planned memory (models only).
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome, Error> {
    let facts = selvedge::inspect::inspect(Opened::open(&args.model)?, args.batch)?;
    if args.json {
        out!("{facts}");
        return Ok(Outcome::Done);
    }
    print(&facts, 0);
    Ok(Outcome::Done)
}

/// Nested facts as indented lines.
fn print(value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    let Value::Object(fields) = value else { return };
    for (name, value) in fields {
        let label = name.strip_suffix("_bytes").unwrap_or(name).replace('_', " ");
        match value {
            Value::Object(inner) if inner.is_empty() => {}
            Value::Object(_) => {
                out!("{indent}{label}");
                print(value, depth + 1);
            }
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(text).collect();
                out!("{indent}{label}: {}", items.join(", "));
            }
            Value::Number(n) if name.ends_with("_bytes") => {
                out!("{indent}{label}: {}", n.as_u64().map_or_else(|| n.to_string(), bytes));
            }
            Value::Null => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) => out!("{indent}{label}: {}", text(value)),
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}
