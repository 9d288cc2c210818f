//! What can be wrong with a bundle.

use crate::manifest::FORMAT;
use std::path::PathBuf;

/// Why a bundle cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `create`, `write`, `rename` …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The folder to write to is not there.
    #[error("cannot write {}: there is no folder {}", path.display(), folder.display())]
    NoFolder {
        /// The file to be written.
        path: PathBuf,
        /// The folder that does not exist.
        folder: PathBuf,
    },
    /// The bytes are not a safetensors file, or one without a manifest.
    #[error("not a bundle: {0}")]
    NotABundle(String),
    /// The bundle was written by a later program.
    #[error("this bundle has format {found}, this program reads up to {FORMAT}; update the program or compile again")]
    Future {
        /// The bundle's format.
        found: u64,
    },
    /// The file was damaged, or written wrongly.
    #[error("corrupt bundle: {place}: {problem}")]
    Corrupt {
        /// Where: a tensor, or a path in the manifest such as `plans[0].functions[1].dispatches[3]`.
        place: String,
        /// What was expected and found.
        problem: String,
    },
    /// The contents given to a writer are inconsistent: an error of the caller.
    #[error("cannot make a bundle: {place}: {problem}")]
    Invalid {
        /// Where, as in `Corrupt`.
        place: String,
        /// What was expected and found.
        problem: String,
    },
}

/// A violated rule of the format, before it is known whether a reader or a writer met it.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub place: String,
    pub problem: String,
}

impl Flaw {
    pub fn new(place: impl Into<String>, problem: impl Into<String>) -> Flaw {
        Flaw { place: place.into(), problem: problem.into() }
    }
    pub fn corrupt(self) -> BundleError {
        BundleError::Corrupt { place: self.place, problem: self.problem }
    }
    pub fn invalid(self) -> BundleError {
        BundleError::Invalid { place: self.place, problem: self.problem }
    }
}
