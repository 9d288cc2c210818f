//! Random well-typed modules for property tests.
