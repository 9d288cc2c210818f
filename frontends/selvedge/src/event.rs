//! What happens while something long runs.

/// Progress of a request; the caller shows it or does not.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The device memory that will be allocated, in bytes; said before the first dispatch.
    Peak(u64),
    /// Weights uploaded, in bytes.
    Upload {
        /// So far.
        done: u64,
        /// Of.
        total: u64,
    },
    /// Pipelines created.
    Pipelines {
        /// So far.
        done: u64,
        /// Of.
        total: u64,
    },
    /// Kernels dispatched once, for drivers that compile at the first dispatch.
    WarmUp {
        /// So far.
        done: u64,
        /// Of.
        total: u64,
    },
    /// Rounds of measuring candidates of kernels.
    Tune {
        /// So far.
        done: u64,
        /// Of.
        total: u64,
    },
    /// Something that went another way than expected, in a sentence for people.
    Note(String),
    /// Sampling steps done, all parts of a request counted.
    Steps {
        /// So far.
        done: u64,
        /// Of.
        total: u64,
    },
}

/// Receives events.
pub type Observer<'a> = dyn FnMut(Event) + 'a;
