//! A function that also returns values from inside it.

use super::calls::Call;
use crate::error::Error;
use crate::session::Session;
use crate::weights::Weights;
use selvedge_ir::dtype::Class;
use selvedge_ir::func::{Return, Target};
use selvedge_ir::op::OpClass;
use selvedge_ir::{Diagnostic, Function, Module, Tensor, ValueId};
use std::collections::BTreeMap;

/// A module whose function has more outputs than it had, and what those are.
pub(super) struct Probe {
    pub module: Module,
    /// What is asked for, in the order of computation.
    pub values: Vec<Probed>,
    /// Names of the outputs that the function has anyway.
    pub returned: Vec<String>,
}

/// A value that is asked for.
pub(super) struct Probed {
    /// The output's name.
    pub port: String,
    /// The value's name, as in the text form.
    pub name: String,
    /// First word of the labels of the dispatch that stores it.
    pub stem: String,
    pub operator: String,
    pub place: Option<String>,
    /// To find the value again after a pass: a name that the model gave.
    own_name: Option<String>,
    ty: String,
}

/// What begins the names that values get for their dispatches' labels.
const MARK: &str = "v";

/// The value that a dispatch stores: `%v12 contract+map` to `v12`.
pub(super) fn stem(label: &str) -> &str {
    let name = label.split_whitespace().next().unwrap_or("").trim_start_matches('%');
    name.split('.').next().unwrap_or("")
}

impl Probe {
    /// The module, every value of the function named by its number.
    pub fn named(module: &Module, function: &str) -> Module {
        let mut module = module.clone();
        for f in module.functions.iter_mut().filter(|f| f.name == function) {
            for (i, value) in f.values.iter_mut().enumerate() {
                let own = value.name.as_ref().map_or(String::new(), |n| format!(".{n}"));
                value.name = Some(format!("{MARK}{i}{own}"));
            }
        }
        module
    }
    /// Every value but leaves and views.
    pub fn of_all(module: &Module, function: &str) -> Result<Probe, Error> {
        Probe::new(module, function, |f, id| {
            f.op(id).is_none_or(|(op, _)| !matches!(op.class(), OpClass::Leaf | OpClass::View))
        })
    }
    /// Nothing but the outputs.
    pub fn of_none(module: &Module, function: &str) -> Result<Probe, Error> {
        Probe::new(module, function, |_, _| false)
    }
    /// The values that dispatches with these labels store; the module is [`Probe::named`].
    pub fn of_labels(module: &Module, function: &str, labels: &[&str]) -> Result<Probe, Error> {
        Probe::new(module, function, |_, id| labels.iter().any(|l| stem(l) == format!("{MARK}{}", id.0)))
    }
    fn new(module: &Module, function: &str, wanted: impl Fn(&Function, ValueId) -> bool) -> Result<Probe, Error> {
        let mut module = module.clone();
        let Some(f) = module.functions.iter_mut().find(|f| f.name == function) else {
            return Err(Error::Internal(Diagnostic::new("bisect", format!("a pass removed @{function}"))));
        };
        let returned = f.outputs().into_iter().map(|(name, _)| name.to_string()).collect();
        let ids: Vec<ValueId> = f.ids().filter(|id| wanted(f, *id)).collect();
        let mut values = Vec::new();
        for id in ids {
            let value = f.value(id);
            if value.ty.dtype.class() != Class::Float {
                continue;
            }
            let port = format!("probe {}", id.0);
            values.push(Probed {
                port: port.clone(),
                name: value.name.as_ref().map_or_else(|| format!("%{}", id.0), |n| format!("%{n}")),
                stem: format!("{MARK}{}", id.0),
                operator: f.op(id).map_or("call", |(op, _)| op.kind().text()).to_string(),
                place: value.places.first().map(ToString::to_string),
                own_name: value.name.clone(),
                ty: value.ty.to_string(),
            });
            f.returns.push(Return { target: Target::Output(port), value: id });
        }
        Ok(Probe { module, values, returned })
    }
    /// The interpreter's values.
    pub fn on_host(&self, weights: &Weights, call: &Call) -> Result<BTreeMap<String, Tensor>, Error> {
        Session::host(self.module.clone(), weights.clone()).call(&call.function, &call.inputs)
    }
    /// The value here that another module's is likely to be: of its name, or the only one of its place and type.
    pub fn alike(&self, other: &Probed) -> Option<&Probed> {
        if other.own_name.is_some() {
            return self.values.iter().find(|v| v.own_name == other.own_name && v.ty == other.ty);
        }
        let mut same = self.values.iter().filter(|v| v.place == other.place && v.place.is_some() && v.ty == other.ty);
        match (same.next(), same.next()) {
            (Some(one), None) => Some(one),
            _ => None,
        }
    }
}
