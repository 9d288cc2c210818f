//! `selvedge inspect`: what a model folder, a preset or a compiled file holds, and what it takes to run.

use crate::common::{OptimizerArg, Size, bytes, out};
use crate::{Error, Outcome};
use selvedge::inspect::Request;
use serde_json::Value;

#[derive(clap::Args)]
pub struct Args {
    /// A model folder, a compiled file, a shipped model's name (`digits`), or a preset of `bench`.
    model: String,
    /// Images made by one run, for the planned memory; 1 if absent.
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Size of the picture in pixels; the model's own if absent.
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Tokens of a prompt in T5, padding counted; the pipeline's default if absent.
    #[arg(long, value_name = "N")]
    max_sequence_length: Option<usize>,
    #[command(flatten)]
    optimizer: OptimizerArg,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome, Error> {
    let size = args.size.map(|s| [s.height, s.width]);
    let (batch, text_tokens) = (args.batch, args.max_sequence_length);
    let request = Request { batch, size, text_tokens, settings: args.optimizer.settings() };
    let facts = selvedge::inspect::inspect_named(&args.model, &request)?;
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
