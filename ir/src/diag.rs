//! Diagnostics: what is wrong, where, what was expected, what was found, what to do.

use std::fmt;
use std::panic::Location;

/// Where something was written: a line of an `.ir` text or a call site of model code.
///
/// Places never take part in equality of modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Line and column (both from 1) of an `.ir` text.
    Text {
        /// Line, from 1.
        line: u32,
        /// Column, from 1.
        column: u32,
    },
    /// A call site in Rust code.
    Code(&'static Location<'static>),
}

impl Place {
    /// The caller's source location.
    #[track_caller]
    pub fn caller() -> Place {
        Place::Code(Location::caller())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Text { line, column } => write!(f, "{line}:{column}"),
            Place::Code(location) => {
                // Crate-relative: a build's absolute prefix says nothing to the reader.
                let file = location.file();
                let short = file.rfind("/src/").map_or(file, |i| {
                    let start = file[..i].rfind('/').map_or(0, |j| j + 1);
                    &file[start..]
                });
                write!(f, "{short}:{}:{}", location.line(), location.column())
            }
        }
    }
}

/// One error, complete enough to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable code: a constraint (`contract C2`), an invariant (`V3`) or a parse rule (`P1`).
    pub code: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Where, if known.
    pub place: Option<Place>,
    /// What would have been right.
    pub expected: Option<String>,
    /// What was there.
    pub found: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic with a code and a message; the rest is added by the `with_` methods.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Diagnostic { code: code.into(), message: message.into(), place: None, expected: None, found: None, help: None }
    }
    /// Adds the place unless one is known already (the innermost place wins).
    pub fn at(mut self, place: Option<Place>) -> Self {
        self.place = self.place.or(place);
        self
    }
    /// Adds what was expected and what was found.
    pub fn expected_found(mut self, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        self.expected = Some(expected.to_string());
        self.found = Some(found.to_string());
        self
    }
    /// Adds advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "[{}] {}", self.code, self.message)?;
        if let Some(expected) = &self.expected {
            write!(f, "; expected {expected}")?;
        }
        if let Some(found) = &self.found {
            write!(f, ", found {found}")?;
        }
        if let Some(help) = &self.help {
            write!(f, " (help: {help})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// Several diagnostics, reported together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{d}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostic> for Diagnostics {
    fn from(d: Diagnostic) -> Self {
        Diagnostics(vec![d])
    }
}

/// Renders errors under the lines of the source they are about:
///
/// ```text
/// error[P5]: declared f32[2], inferred f32[3]
///   --> model.ir:4:38
///    |
///  4 |   %c = reduce %x kind=sum axes=[0] : f32[2]
///    |                                      ^
///    = help: write `: f32[3]`, or change the operator
/// ```
pub fn render(diagnostics: &Diagnostics, file: &str, source: &str) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let mut out = String::new();
    for d in &diagnostics.0 {
        out.push_str(&format!("error[{}]: {}\n", d.code, d.message));
        let mut margin = 2;
        match d.place {
            Some(Place::Text { line, column }) => {
                let number = line.to_string();
                margin = number.len() + 1;
                let bar = format!("{:margin$} |", "");
                out.push_str(&format!("{:margin$}--> {file}:{line}:{column}\n", ""));
                if let Some(text) = (line as usize).checked_sub(1).and_then(|i| lines.get(i)) {
                    // Tabs before the column stay tabs, so that the caret stands where the column is shown.
                    let before = text.chars().take((column as usize).saturating_sub(1));
                    let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                    out.push_str(&format!("{bar}\n {number} | {text}\n{bar} {indent}^\n"));
                }
            }
            Some(place @ Place::Code(_)) => out.push_str(&format!("{:margin$}--> {place}\n", "")),
            None => {}
        }
        let notes = [("expected", &d.expected), ("found", &d.found), ("help", &d.help)];
        for (what, note) in notes {
            if let Some(note) = note {
                out.push_str(&format!("{:margin$} = {what}: {note}\n", ""));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_rendered_under_their_line() {
        let d = Diagnostic::new("P4", "not defined").at(Some(Place::Text { line: 2, column: 3 })).help("define it");
        let text = render(&d.into(), "a.ir", "first\n  second\n");
        let want = "error[P4]: not defined\n  --> a.ir:2:3\n   |\n 2 |   second\n   |   ^\n   = help: define it\n";
        assert_eq!(text, want);
    }
}
