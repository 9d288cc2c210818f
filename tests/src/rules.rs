//! The page of rewrite rules, `docs/RULES.md`, made of the rules and their example files.

use crate::root;
use selvedge_passes::rules;
use selvedge_passes::saturate::{Phase, Rule};
use std::path::PathBuf;

/// What stands above the rules.
const HEADER: &str = "\
# Rewrite rules

This page is generated from the rules (`passes/src/rules/`) and their example files (`tests/filetests/rules/`); do not edit it.
`BLESS=1 cargo test --release --workspace --test tidy` rewrites it.

A rule is a directed law: what its left side matches is given its right side as another spelling; nothing is taken away. Both sides
are equal over the reals on the law's domain. `passes/tests/rules` proves each on instances drawn from its own patterns, in f64,
and shows that mistakes in a rule are caught so. What the rules are for is in `tests/filetests/spellings/`: many spellings of
attention, softmax and norms, each of which ends as one composite, and near misses that must not.
";

/// The example file of a rule.
pub fn example(rule: &str) -> PathBuf {
    root().join("tests/filetests/rules").join(format!("{rule}.ir"))
}

/// The page.
///
/// # Errors
/// A rule without an example, or whose example it leaves as it is.
pub fn page() -> Result<String, String> {
    let mut page = HEADER.to_string();
    let all = rules::all();
    for phase in Phase::ALL {
        let of_phase: Vec<&Rule> = all.iter().filter(|r| r.phase == phase).collect();
        page.push_str(&format!("\n## {} ({})\n", title(phase), of_phase.len()));
        for rule in of_phase {
            page.push_str(&section(rule)?);
        }
    }
    Ok(page)
}

fn title(phase: Phase) -> String {
    let text = phase.text();
    text[..1].to_uppercase() + &text[1..]
}

fn section(rule: &Rule) -> Result<String, String> {
    let path = example(rule.name);
    let text = std::fs::read_to_string(&path).map_err(|_| {
        format!("rule {} has no example; `BLESS=1 cargo test --workspace --test rules` writes one", rule.name)
    })?;
    if !text.lines().any(|l| l == format!("//! rule {}", rule.name)) {
        return Err(format!("{}.ir does not apply its rule", rule.name));
    }
    let after: Vec<&str> =
        text.lines().filter_map(|l| l.strip_prefix("//>")).map(|l| l.strip_prefix(' ').unwrap_or(l)).collect();
    let before: Vec<&str> = text.lines().filter(|l| !l.starts_with("//")).collect();
    let (before, after) = (first(&before), first(&after));
    if before.is_empty() || after.is_empty() || before[1..] == after[1..] {
        return Err(format!("the first function of {}.ir is not changed by its rule", rule.name));
    }
    let rounding = if rule.skips_rounding { "\nLeaves out a rounding.\n" } else { "" };
    Ok(format!(
        "\n### {}\n\n{}\n{rounding}\n```text\n{}\n```\n\nbecomes\n\n```text\n{}\n```\n",
        rule.name,
        rule.law,
        before.join("\n"),
        after.join("\n")
    ))
}

/// The lines of the first function.
fn first<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let from = lines.iter().position(|l| l.starts_with("fn @")).unwrap_or(lines.len());
    let to = lines[from..].iter().position(|l| l.starts_with('}')).map_or(lines.len(), |i| from + i + 1);
    lines[from..to].to_vec()
}
