//! The passes of a compilation with all that its settings ask for, in order.

use super::Suspects;
use crate::compile;
use crate::device::Device;
use crate::dump::Dump;
use crate::error::Error;
use crate::quantize;
use crate::weights::Weights;
use selvedge_ir::{Diagnostic, Module};
use selvedge_passes::{HalfActivations, Notes, Pass, QuantizeWeights, UnpackWeights};
use serde_json::Value;
use std::collections::BTreeSet;

/// What a module goes through on its way to a device.
pub(super) struct Line<'s> {
    first: Option<Box<dyn Pass>>,
    suspects: &'s [Box<dyn Pass>],
    last: Vec<Box<dyn Pass>>,
    /// What the modules after the first pass read: integers where the settings ask for them.
    pub weights: Weights,
}

impl<'s> Line<'s> {
    /// For a module without a schedule.
    ///
    /// # Errors
    /// A weight that cannot be read.
    pub fn new(
        module: &Module,
        weights: &Weights,
        suspects: &'s Suspects<'_>,
        device: &Device,
    ) -> Result<Line<'s>, Error> {
        let settings = &suspects.settings;
        let (_, weights, _) = quantize::apply(module.clone(), weights.clone(), settings)?;
        let first = settings.integer_bits.map(|bits| Box::new(QuantizeWeights { bits }) as Box<dyn Pass>);
        let mut last: Vec<Box<dyn Pass>> = Vec::new();
        if settings.half_activations {
            last.push(Box::new(Halved { weights: weights.clone() }));
        }
        if let Device::Gpu(_) = device {
            last.push(Box::new(WrittenOut { own: module.functions.iter().map(|f| f.name.clone()).collect() }));
        }
        Ok(Line { first, suspects: &suspects.passes, last, weights })
    }
    /// In order.
    pub fn passes(&self) -> impl Iterator<Item = &dyn Pass> {
        self.first.iter().chain(self.suspects).chain(&self.last).map(Box::as_ref)
    }
}

/// Measures ranges on the module that it is given, and stores what they allow as halves.
struct Halved {
    weights: Weights,
}

impl Pass for Halved {
    fn name(&self) -> &'static str {
        HalfActivations::default().name()
    }
    fn summary(&self) -> &'static str {
        "measures ranges, and stores activations as f16 where they allow it"
    }
    fn run(&self, module: Module) -> Result<Module, Diagnostic> {
        let mut dump = Dump::new(None).map_err(failed)?;
        let (mut stages, mut notes) = (Vec::new(), Notes::default());
        compile::halved(module, &self.weights, &Value::Null, &mut dump, &mut stages, &mut notes).map_err(failed)
    }
}

/// The module as code generation reads it.
struct WrittenOut {
    own: BTreeSet<String>,
}

impl Pass for WrittenOut {
    fn name(&self) -> &'static str {
        UnpackWeights.name()
    }
    fn summary(&self) -> &'static str {
        "writes blocks where they are called, and integer weights as words and scales"
    }
    fn run(&self, module: Module) -> Result<Module, Diagnostic> {
        let mut dump = Dump::new(None).map_err(failed)?;
        compile::written_out(module, &self.own, &mut dump, &mut Vec::new(), &mut Notes::default()).map_err(failed)
    }
}

fn failed(error: Error) -> Diagnostic {
    Diagnostic::new("bisect", error.to_string())
}
