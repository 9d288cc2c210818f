//! Passes from the library's side: which there are for a target and settings, and running them with dumps, times and verifier.

use super::{Notes, Optimizer, Options, Settings};
use crate::dump::Dump;
use crate::error::Error;
use crate::target::Target;
use selvedge_ir::{Diagnostic, Module};
use selvedge_passes::saturate::Rates;
use selvedge_passes::{Pass, Specialize, StoreWeights};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Runs the pipeline of passes, or only those named, in that order.
///
/// # Errors
/// An unknown pass; a module that a pass cannot handle.
pub fn optimise(module: Module, names: &[String], settings: &Settings) -> Result<Module, Error> {
    let all = passes(settings, &Target::portable(), Placing::ByPlan);
    let mut chosen: Vec<&dyn Pass> = Vec::new();
    for name in names {
        let pass = all.iter().find(|p| p.name() == name).ok_or_else(|| {
            let mut known: Vec<&str> = Vec::new();
            all.iter().map(|p| p.name()).for_each(|n| {
                if !known.contains(&n) {
                    known.push(n)
                }
            });
            Diagnostic::new("pass", format!("there is no pass `{name}`")).help(format!("passes: {}", known.join(", ")))
        })?;
        chosen.push(pass.as_ref());
    }
    if names.is_empty() {
        chosen = all.iter().map(Box::as_ref).collect();
    }
    run_passes(module, chosen.into_iter(), &mut Dump::new(None)?, &mut Vec::new(), &mut Notes::default())
}

/// Who gives weights their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placing {
    /// A plan: weights can lie one behind the other.
    ByPlan,
    /// The host, which has each where its checkpoint has it.
    OneByOne,
}

/// The pipeline for a target.
pub(crate) fn passes(settings: &Settings, target: &Target, placing: Placing) -> Vec<Box<dyn Pass>> {
    let rates = Rates {
        bytes_per_second: target.rates.bytes_per_second,
        flops_per_second: target.rates.flops_per_second,
        dispatch_seconds: target.rates.dispatch_seconds,
    };
    // First: what the other passes see is what will be stored.
    let store = settings.dtype.map(|dtype| Box::new(StoreWeights { dtype }) as Box<dyn Pass>);
    // For a plan the rules find composites again, and may find something cheaper; the host has a kernel for each as it is.
    let whole = settings.optimizer != Optimizer::None && placing == Placing::OneByOne;
    let joined_bytes = match placing {
        Placing::ByPlan => Some(usize::try_from(target.max_binding_bytes).unwrap_or(usize::MAX)),
        Placing::OneByOne => None,
    };
    let options = selvedge_passes::Options {
        optimizer: settings.optimizer,
        rates,
        whole,
        joined_bytes,
        ranks: settings.ranks.clone(),
        ..Default::default()
    };
    store.into_iter().chain(selvedge_passes::passes(&options)).collect()
}

/// Gives symbols values.
///
/// # Errors
/// A symbol that is left, or that the module does not have.
pub fn specialise(module: Module, values: &BTreeMap<String, usize>) -> Result<Module, Error> {
    Ok(Specialize { symbols: values.clone() }.run(module)?)
}

/// Runs passes in order, dumps and times each, and verifies what they give.
pub(super) fn run_passes<'p>(
    mut module: Module,
    passes: impl Iterator<Item = &'p dyn Pass>,
    dump: &mut Dump,
    stages: &mut Vec<(String, Duration)>,
    notes: &mut Notes,
) -> Result<Module, Error> {
    dump.stage("input.ir", || module.to_string())?;
    for pass in passes {
        let started = Instant::now();
        module = pass.run_noting(module, notes)?;
        stages.push((pass.name().to_string(), started.elapsed()));
        dump.stage(&format!("{}.ir", pass.name()), || module.to_string())?;
    }
    let started = Instant::now();
    selvedge_ir::verify::verify(&module).map_err(|mut errors| {
        Error::Internal(errors.0.remove(0).help("the passes broke the module; `--dump DIR` shows each stage"))
    })?;
    stages.push(("verify".to_string(), started.elapsed()));
    Ok(module)
}

/// What the passes make of a module for the host, and what they tell.
///
/// # Errors
/// A module that a pass cannot handle.
pub(crate) fn optimised(module: Module, options: &Options) -> Result<(Module, Notes), Error> {
    let all = passes(&options.settings, &options.target, Placing::OneByOne);
    let (mut dump, mut notes) = (Dump::new(options.dump.as_deref())?, Notes::default());
    let module = run_passes(module, all.iter().map(Box::as_ref), &mut dump, &mut Vec::new(), &mut notes)?;
    Ok((module, notes))
}

/// The module as the rewrite rules get it, and as they leave it (none if they are not used): each distinct block a function.
///
/// # Errors
/// A module that a pass cannot handle.
pub(crate) fn around_rules(mut module: Module, options: &Options) -> Result<(Module, Option<Module>), Error> {
    for pass in passes(&options.settings, &options.target, Placing::ByPlan) {
        let given = (pass.name() == "saturate").then(|| module.clone());
        module = pass.run(module)?;
        if let Some(given) = given {
            return Ok((given, Some(module)));
        }
    }
    Ok((module, None))
}
