//! Self-tests: small programs with inputs and outputs that are known, one for each kernel family of a bundle.
//!
//! A self-test is a bundle of its own, whose `pipeline` is a [`SelfTest`]. What runs it knows the families of a bundle to
//! work on a driver, or can say which one does not.

use crate::bundle::Bundle;
use crate::error::{BundleError, Flaw};
use serde::{Deserialize, Serialize};

/// What to call and what must come out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// The kernel family that is tested.
    pub family: String,
    /// The function to call.
    pub function: String,
    /// Its inputs.
    pub inputs: Vec<Vector>,
    /// Its outputs, as the reference interpreter computes them.
    pub outputs: Vec<Vector>,
}

/// A tensor of a self-test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vector {
    /// Name of the input or output.
    pub name: String,
    /// Element type as the IR prints it.
    pub dtype: String,
    /// Extents.
    pub shape: Vec<u64>,
    /// Elements as 32-bit words: floats of any type as f32, truth values 0 or 1.
    pub words: Vec<u32>,
    /// Largest error of an element; 0 for integers.
    pub bound: f64,
}

impl Bundle<'_> {
    /// What this bundle tests.
    ///
    /// # Errors
    /// It is no self-test.
    pub fn self_test(&self) -> Result<SelfTest, BundleError> {
        serde_json::from_value(self.manifest().pipeline.clone())
            .map_err(|e| Flaw::new("pipeline", format!("no self-test: {e}")).corrupt())
    }
}
