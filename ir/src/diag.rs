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
