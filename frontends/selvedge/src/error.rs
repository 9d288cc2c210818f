//! Errors of the library, by what the caller can do about them.

use selvedge_ir::{Diagnostic, Diagnostics};
use std::fmt;

/// Why a request failed.
#[derive(Clone, Debug)]
pub enum Error {
    /// The request or a file it names is wrong.
    Input(Diagnostics),
    /// An `.ir` text is wrong; places are lines of `source`.
    Text {
        /// The file's name, for people.
        file: String,
        /// Its text.
        source: String,
        /// What is wrong with it.
        errors: Diagnostics,
    },
    /// A device is missing, refuses or failed.
    Device(Diagnostic),
    /// A stage broke its own contract: a bug of Selvedge.
    Internal(Diagnostic),
}

impl Error {
    /// A wrong request.
    pub fn input(code: &str, message: impl Into<String>) -> Error {
        Error::Input(Diagnostic::new(code, message).into())
    }
    /// Device trouble.
    pub fn device(code: &str, message: impl Into<String>) -> Error {
        Error::Device(Diagnostic::new(code, message))
    }
    /// Everything that is wrong.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Error::Input(all) | Error::Text { errors: all, .. } => &all.0,
            Error::Device(one) | Error::Internal(one) => std::slice::from_ref(one),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Input(all) => write!(f, "{all}"),
            Error::Text { file, errors, .. } => {
                for (i, e) in errors.0.iter().enumerate() {
                    write!(f, "{}{file}:{e}", if i > 0 { "\n" } else { "" })?;
                }
                Ok(())
            }
            Error::Device(one) => write!(f, "{one}"),
            Error::Internal(one) => write!(f, "internal error: {one}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Diagnostic> for Error {
    fn from(d: Diagnostic) -> Error {
        Error::Input(d.into())
    }
}

impl From<Diagnostics> for Error {
    fn from(d: Diagnostics) -> Error {
        Error::Input(d)
    }
}
