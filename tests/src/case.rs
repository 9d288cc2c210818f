//! A test file: commands, inputs, expectations.

use selvedge_ir::parse::parse;
use selvedge_ir::{Diagnostic, Op, Tensor, shape::TensorType};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is done with a file's module, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// It parses (or gives exactly the expected errors), and its printed form reads back as the same module.
    Parse,
    /// Also, it verifies (or gives exactly the expected errors).
    Verify,
    /// A pass; what follows concerns the changed module.
    Pass(String),
    /// A rewrite rule, applied wherever it applies until it does not, and nothing else.
    Rule(String),
    /// Its printed form is the expected output.
    Print,
    /// Operators of these names are left so many times, over all functions.
    Left(Vec<(String, usize)>),
    /// Operators of these names are left so many times in each function.
    Each(Vec<(String, usize)>),
    /// Every function is run on the interpreter and on these runners besides.
    Run(Vec<String>),
    /// The schedule is run with so many steps, before and after the passes, and on these runners besides.
    Sample(usize, Vec<String>),
}

/// An expected error: `//~ CODE text` on the line it is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpectedError {
    /// Line, from 1.
    pub line: usize,
    /// The diagnostic's code, such as `P5` or `reduce C1`.
    pub code: String,
    /// A piece of the diagnostic's text.
    pub text: String,
}

/// Literals given for one function: text of a list by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// `//! input x = […]`: elements of a parameter, weight or state.
    pub inputs: BTreeMap<String, String>,
    /// `//! expect y = […]`: elements of an output.
    pub expects: BTreeMap<String, String>,
}

/// A test file as read.
#[derive(Clone, Debug)]
pub struct Case {
    /// Where it is.
    pub path: PathBuf,
    /// Its whole text.
    pub text: String,
    /// Commands of the header, in order.
    pub commands: Vec<Command>,
    /// Literals by function.
    pub given: BTreeMap<String, Given>,
    /// Expected errors, by line.
    pub errors: Vec<ExpectedError>,
    /// Expected output: the `//> ` lines.
    pub output: String,
}

impl Case {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or a line after `//!` is not understood.
    pub fn read(path: &Path) -> Result<Case, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Case::new(path, text)
    }
    /// Takes a file's text apart.
    ///
    /// # Errors
    /// A line after `//!` that is not understood.
    pub fn new(path: &Path, text: String) -> Result<Case, String> {
        let mut case = Case {
            path: path.to_path_buf(),
            text: String::new(),
            commands: Vec::new(),
            given: BTreeMap::new(),
            errors: Vec::new(),
            output: String::new(),
        };
        let mut given = Given::default();
        for (number, line) in text.lines().enumerate() {
            let bad = |what: &str| format!("line {}: {what}: {line}", number + 1);
            if let Some(rest) = line.strip_prefix("//! ") {
                let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let literal = || {
                    let (name, list) = rest.split_once('=').ok_or_else(|| bad("expected `name = […]`"))?;
                    Ok::<_, String>((name.trim().to_string(), list.trim().to_string()))
                };
                match word {
                    "input" => given.inputs.extend([literal()?]),
                    "expect" => given.expects.extend([literal()?]),
                    _ => case.commands.push(command(word, rest).ok_or_else(|| bad("unknown command"))?),
                }
            } else if let Some(rest) = line.strip_prefix("//>") {
                case.output.push_str(rest.strip_prefix(' ').unwrap_or(rest));
                case.output.push('\n');
            } else if let Some(name) = function_name(line) {
                case.given.insert(name.to_string(), std::mem::take(&mut given));
            }
            for expected in line.split("//~ ").skip(1) {
                case.errors.push(expected_error(number + 1, expected.trim()));
            }
        }
        case.errors.sort();
        if given != Given::default() {
            return Err("`input` or `expect` is followed by no function".to_string());
        }
        if case.commands.is_empty() {
            return Err("a test file has at least one command, such as `//! verify`".to_string());
        }
        case.text = text;
        Ok(case)
    }
    /// The file with its expected output replaced.
    pub fn with_output(&self, output: &str) -> String {
        let kept: Vec<&str> = self.text.lines().filter(|l| !l.starts_with("//>")).collect();
        let mut text = kept.join("\n").trim_end().to_string();
        text.push_str("\n\n");
        for line in output.lines() {
            text.push_str(format!("//> {line}").trim_end());
            text.push('\n');
        }
        text
    }
    /// The text with the functions that contain one of these lines (from 1) emptied; line numbers stay.
    pub fn without_functions(&self, lines: &[usize]) -> String {
        let all: Vec<&str> = self.text.lines().collect();
        let mut kept: Vec<&str> = all.clone();
        let mut start = 0;
        for (i, line) in all.iter().enumerate() {
            if function_name(line).is_some() {
                start = i;
            }
            if line.starts_with('}') && lines.iter().any(|&l| (start..=i).contains(&(l - 1))) {
                kept[start..=i].fill("");
            }
        }
        kept.join("\n")
    }
}

/// The name in a line that begins a function.
fn function_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("fn @")?;
    rest.split(['(', ' ']).next()
}

fn command(word: &str, rest: &str) -> Option<Command> {
    let words = || rest.split_whitespace();
    Some(match word {
        "parse" => Command::Parse,
        "verify" => Command::Verify,
        "print" => Command::Print,
        "rule" => Command::Rule(rest.trim().to_string()),
        "pass" => Command::Pass(rest.trim().to_string()),
        "run" if words().next() == Some("interp") => Command::Run(words().skip(1).map(str::to_string).collect()),
        "sample" => {
            let steps = words().next()?.parse().ok()?;
            (words().nth(1) == Some("interp")).then_some(())?;
            Command::Sample(steps, words().skip(2).map(str::to_string).collect())
        }
        "left" | "each" => {
            let count = |w: &str| {
                let (op, n) = w.split_once('=')?;
                Some((op.to_string(), n.parse().ok()?))
            };
            let counts = words().map(count).collect::<Option<_>>()?;
            if word == "left" { Command::Left(counts) } else { Command::Each(counts) }
        }
        _ => return None,
    })
}

fn expected_error(line: usize, text: &str) -> ExpectedError {
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (second, after) = rest.split_once(' ').unwrap_or((rest, ""));
    let constraint = second.strip_prefix('C').is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()));
    match constraint {
        true => ExpectedError { line, code: format!("{first} {second}"), text: after.trim().to_string() },
        false => ExpectedError { line, code: first.to_string(), text: rest.trim().to_string() },
    }
}

/// True if a diagnostic is what was expected.
pub fn matches(expected: &ExpectedError, found: &Diagnostic) -> bool {
    line_of(found) == expected.line && found.code == expected.code && found.to_string().contains(&expected.text)
}

/// The line a diagnostic is about; 1 if it has none.
pub fn line_of(d: &Diagnostic) -> usize {
    match d.place {
        Some(selvedge_ir::Place::Text { line, .. }) => line as usize,
        Some(selvedge_ir::Place::Code(_)) | None => 1,
    }
}

/// The tensor of a type with these elements, written as in a constant.
///
/// # Errors
/// The elements are not of the type, or do not fill it.
pub fn literal(elements: &str, ty: &TensorType) -> Result<Tensor, String> {
    let text = format!("fn @f() {{\n  %c = const {elements} : {ty}\n  return c=%c\n}}");
    let module = parse(&text).map_err(|e| format!("{elements}: {e}"))?;
    match module.functions[0].op(module.functions[0].returns[0].value) {
        Some((Op::Const(c), _)) => Tensor::from_bytes(ty.clone(), &c.data.0),
        _ => Err(format!("{elements} is no literal")),
    }
}
