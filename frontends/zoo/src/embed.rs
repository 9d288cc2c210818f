//! Position tables.
