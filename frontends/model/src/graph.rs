//! A function under construction: inputs, constants, outputs, and the errors made on the way.

use crate::tensor::Tensor;
use crate::weights::Scope;
use selvedge_ir::attr::Literal;
use selvedge_ir::diag::Place;
use selvedge_ir::ops::{Broadcast, Const, Iota, Op, State, Weight};
use selvedge_ir::{Builder, DType, Diagnostic, Diagnostics, Function, Precision, Shape, TensorType, ValueId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Tells the dtype a checkpoint stores a tensor in; `None` for a name it does not know (taken as f32).
pub type StoredDType = Rc<dyn Fn(&str) -> Option<DType>>;

/// A function under construction. Clones are handles to the same function.
///
/// Nothing here panics on a mistake: it is recorded with the caller's line, the result is a *poisoned* tensor, operations on
/// poisoned tensors are poisoned silently, and [`Graph::finish`] reports all mistakes together.
#[derive(Clone)]
pub struct Graph {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    builder: Builder,
    diagnostics: Vec<Diagnostic>,
    inputs: BTreeSet<String>,
    outputs: BTreeSet<String>,
    weights: BTreeMap<String, ValueId>,
    stored: StoredDType,
}

/// What a caller must know of a function to call it; made by [`crate::ModuleBuilder::function`].
#[derive(Clone, Debug)]
pub struct Callee {
    pub(crate) name: String,
    pub(crate) params: Vec<TensorType>,
    pub(crate) results: Vec<TensorType>,
    /// The function itself has errors: its results are poisoned.
    pub(crate) poisoned: bool,
}

impl Graph {
    /// An empty function whose weights are stored in f32.
    pub fn new(name: impl Into<String>) -> Graph {
        Graph::with_stored(name, Rc::new(|_| None))
    }
    /// An empty function for a checkpoint that stores tensors in these dtypes.
    pub fn with_stored(name: impl Into<String>, stored: StoredDType) -> Graph {
        let inner = Inner {
            builder: Builder::new(name),
            diagnostics: Vec::new(),
            inputs: BTreeSet::new(),
            outputs: BTreeSet::new(),
            weights: BTreeMap::new(),
            stored,
        };
        Graph { inner: Rc::new(RefCell::new(inner)) }
    }
    /// Weights by checkpoint path, from the root.
    pub fn weights(&self) -> Scope {
        Scope::root(self)
    }

    /// A parameter of the function.
    #[track_caller]
    pub fn input(&self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Tensor {
        let mut inner = self.inner.borrow_mut();
        if !inner.inputs.insert(name.to_string()) {
            drop(inner);
            return self.fail(Diagnostic::new("M6", format!("two inputs are named `{name}`")));
        }
        inner.builder.set_place(Some(Place::caller()));
        let id = inner.builder.input(name, TensorType::new(dtype, shape));
        drop(inner);
        self.wrap(id)
    }
    /// The value of a state variable of the module when the call starts.
    #[track_caller]
    pub fn state(&self, name: &str, ty: TensorType) -> Tensor {
        self.push(State { name: name.to_string(), ty }, &[]).named(name)
    }
    /// A constant of this dtype from row-major values, rounded to the dtype (integers are truncated, bool is ≠ 0).
    #[track_caller]
    pub fn constant(&self, dtype: DType, shape: impl Into<Shape>, values: &[f64]) -> Tensor {
        let ty = TensorType::new(dtype, shape);
        if ty.elements() != Some(values.len()) || matches!(dtype, DType::Packed(_)) {
            let what = Diagnostic::new("M5", "a constant needs one value an element, of a plain dtype");
            return self.fail(what.expected_found(&ty, format!("{} values", values.len())));
        }
        let data = Literal::from(&selvedge_ir::Tensor::from_f64(ty.clone(), values, Precision::F32));
        self.push(Const { data, ty }, &[])
    }
    /// An f32 constant of shape `[]`.
    #[track_caller]
    pub fn scalar(&self, value: f64) -> Tensor {
        self.constant(DType::F32, [], &[value])
    }
    /// A tensor filled with one value.
    #[track_caller]
    pub fn full(&self, dtype: DType, shape: impl Into<Shape>, value: f64) -> Tensor {
        let shape = shape.into();
        let scalar = self.constant(dtype, [], &[value]);
        if shape.rank() == 0 { scalar } else { self.push(Broadcast { shape, axes: Vec::new() }, &[&scalar]) }
    }
    /// The index along `axis` at each element; f32, i32 or u32.
    #[track_caller]
    pub fn iota(&self, dtype: DType, shape: impl Into<Shape>, axis: usize) -> Tensor {
        self.push(Iota { axis, ty: TensorType::new(dtype, shape) }, &[])
    }
    /// 0, 1, … n−1 as a vector; f32, i32 or u32.
    #[track_caller]
    pub fn arange(&self, dtype: DType, n: usize) -> Tensor {
        self.iota(dtype, [n], 0)
    }

    /// Calls another function of the module; returns its results in order.
    #[track_caller]
    pub fn call(&self, callee: &Callee, args: &[&Tensor]) -> Vec<Tensor> {
        let poisoned = || callee.results.iter().map(|_| self.poison()).collect();
        if callee.poisoned || args.iter().any(|a| a.id().is_none()) {
            return poisoned();
        }
        let list = |types: &[TensorType]| types.iter().map(TensorType::to_string).collect::<Vec<_>>().join(", ");
        let found: Vec<TensorType> = args.iter().filter_map(|a| a.ty()).collect();
        if found != callee.params {
            let what = Diagnostic::new("M7", format!("the arguments do not fit function `{}`", callee.name));
            self.fail(what.expected_found(list(&callee.params), list(&found)));
            return poisoned();
        }
        let ids: Vec<ValueId> = args.iter().filter_map(|a| a.id()).collect();
        let mut inner = self.inner.borrow_mut();
        inner.builder.set_place(Some(Place::caller()));
        let results = inner.builder.call(&callee.name, &ids, &callee.results);
        drop(inner);
        results.into_iter().map(|id| self.wrap(id)).collect()
    }

    /// Returns a value under a name.
    #[track_caller]
    pub fn output(&self, name: &str, value: &Tensor) {
        let Some(id) = self.own(value) else { return };
        let new = self.inner.borrow_mut().outputs.insert(name.to_string());
        if new {
            self.inner.borrow_mut().builder.output(name, id);
        } else {
            self.fail(Diagnostic::new("M6", format!("two outputs are named `{name}`")));
        }
    }
    /// Returns a value into a state variable of the module.
    #[track_caller]
    pub fn write_state(&self, name: &str, value: &Tensor) {
        if let Some(id) = self.own(value) {
            self.inner.borrow_mut().builder.write_state(name, id);
        }
    }

    /// Records an error of the model code (at the caller's line, unless it has a place); returns a poisoned tensor.
    #[track_caller]
    pub fn fail(&self, diagnostic: Diagnostic) -> Tensor {
        self.inner.borrow_mut().diagnostics.push(diagnostic.at(Some(Place::caller())));
        self.poison()
    }
    /// A tensor that stands for a failed computation and spreads silently; the failure must be recorded already.
    pub(crate) fn poison(&self) -> Tensor {
        Tensor::new(self.clone(), None)
    }
    /// Adds any operator. A violated constraint is recorded with the operands' types.
    #[track_caller]
    pub fn push(&self, op: impl Into<Op>, args: &[&Tensor]) -> Tensor {
        let mut ids = Vec::with_capacity(args.len());
        for arg in args {
            match self.own(arg) {
                Some(id) => ids.push(id),
                None => return self.poison(),
            }
        }
        let op = op.into();
        let mut inner = self.inner.borrow_mut();
        let place = Some(Place::caller());
        inner.builder.set_place(place);
        match inner.builder.try_push(op, &ids) {
            Ok(id) => {
                drop(inner);
                self.wrap(id)
            }
            Err(mut diagnostic) => {
                let types: Vec<String> = ids.iter().map(|id| inner.builder.ty(*id).to_string()).collect();
                if !types.is_empty() {
                    diagnostic.message = format!("{} (operands {})", diagnostic.message, types.join(", "));
                }
                inner.diagnostics.push(diagnostic.at(place));
                drop(inner);
                self.poison()
            }
        }
    }
    /// The weight of this checkpoint name, as stored. The same name gives the same value.
    #[track_caller]
    pub(crate) fn weight(&self, name: &str, shape: Shape) -> Tensor {
        let stored = self.inner.borrow().stored.clone();
        let ty = TensorType::new(stored(name).unwrap_or(DType::F32), shape);
        let known = self.inner.borrow().weights.get(name).copied();
        if let Some(id) = known {
            let weight = self.wrap(id);
            let before = self.with_builder(|b| b.ty(id).clone());
            if before != ty {
                let what = Diagnostic::new("M8", format!("weight `{name}` is used with two types"));
                return self.fail(what.expected_found(before, ty));
            }
            return weight;
        }
        let weight = self.push(Weight { name: name.to_string(), ty }, &[]);
        if let Some(id) = weight.id() {
            self.inner.borrow_mut().weights.insert(name.to_string(), id);
        }
        weight
    }

    /// The finished function, or everything that went wrong. The graph can be extended and finished again.
    ///
    /// # Errors
    /// All recorded mistakes, in order; a function that returns nothing.
    #[track_caller]
    pub fn finish(&self) -> Result<Function, Diagnostics> {
        let inner = self.inner.borrow();
        let function = inner.builder.function();
        if !inner.diagnostics.is_empty() {
            return Err(Diagnostics(inner.diagnostics.clone()));
        }
        if function.returns.is_empty() {
            let what = Diagnostic::new("M9", format!("function `{}` returns nothing", function.name));
            return Err(what.help("give it an output with `Graph::output`").at(Some(Place::caller())).into());
        }
        Ok(function.clone())
    }

    /// The value id of a tensor of this graph; `None` if it is poisoned, or of another graph (recorded).
    #[track_caller]
    fn own(&self, tensor: &Tensor) -> Option<ValueId> {
        if !Rc::ptr_eq(&self.inner, &tensor.graph().inner) {
            let what = Diagnostic::new("M4", "a tensor of one function is used in another");
            self.fail(what.help("pass it as an input"));
            return None;
        }
        tensor.id()
    }
    fn wrap(&self, id: ValueId) -> Tensor {
        Tensor::new(self.clone(), Some(id))
    }
    pub(crate) fn with_builder<R>(&self, f: impl FnOnce(&mut Builder) -> R) -> R {
        f(&mut self.inner.borrow_mut().builder)
    }
}
