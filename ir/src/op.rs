//! The operator contract, and the macro that derives everything else from one declaration.

use crate::diag::Diagnostic;
use crate::func::{Builder, ValueId};
use crate::interp::Precision;
use crate::shape::TensorType;
use crate::tensor::Tensor;
use std::fmt;

/// Groups of operators that are treated alike by lowering and cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OpClass {
    /// No operands: inputs, weights, state, constants.
    Leaf,
    /// Pointwise.
    Map,
    /// Reductions along axes.
    Reduce,
    /// Einsum-like products.
    Contract,
    /// Convolution and pooling.
    Window,
    /// Cumulative.
    Scan,
    /// Index arithmetic only.
    View,
    /// Data-dependent indices.
    Index,
    /// Defined by an expansion into the other classes.
    Composite,
}

/// A violated constraint of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeError {
    /// The constraint's number in the operator's documentation; 0 is the number of operands.
    pub constraint: u32,
    /// What is wrong.
    pub message: String,
    /// What would be right, if it can be said.
    pub expected: Option<String>,
    /// What was there.
    pub found: Option<String>,
}

impl TypeError {
    /// An error of constraint `C{constraint}`.
    pub fn new(constraint: u32, message: impl Into<String>) -> TypeError {
        TypeError { constraint, message: message.into(), expected: None, found: None }
    }
    /// Adds what was expected and found.
    pub fn expected_found(mut self, expected: impl fmt::Display, found: impl fmt::Display) -> TypeError {
        self.expected = Some(expected.to_string());
        self.found = Some(found.to_string());
        self
    }
    /// As a diagnostic of the operator named `op`.
    pub fn diagnostic(self, op: &str) -> Diagnostic {
        let mut d = Diagnostic::new(format!("{op} C{}", self.constraint), self.message);
        d.expected = self.expected;
        d.found = self.found;
        d
    }
}

/// What an operator's author writes: the result's type, and the reference value.
pub trait Operator {
    /// The result's type; the only place where this operator's shapes are computed.
    ///
    /// The number of operands has been checked.
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError>;
    /// The reference value: small, slow, obvious. `out` is the inferred type.
    ///
    /// `input`, `weight` and `state` are looked up by the interpreter and never evaluated here.
    fn eval(&self, args: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor;
}

/// A composite is defined by its expansion; its type and value follow from it.
pub trait Composite {
    /// The same value spelt in other operators.
    ///
    /// Emits into `b` and returns the result; a violated constraint is a [`TypeError`] of this operator.
    fn expand(&self, b: &mut Builder, args: &[ValueId]) -> Result<ValueId, TypeError>;
}

/// Number of operands an operator takes, from its operand names: `x`, `bias?` (optional), `xs*` (any number, at least one).
pub fn arity(operands: &[&str]) -> (usize, usize) {
    let required = operands.iter().filter(|o| !o.ends_with('?')).count();
    let most = if operands.iter().any(|o| o.ends_with('*')) { usize::MAX } else { operands.len() };
    (required, most)
}

/// Declares all operators: structs, the closed enum, kinds, attributes, documentation, dispatch.
macro_rules! operators {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident = $text:literal $class:ident ($($operand:literal),*) {
            $($(#[doc = $field_doc:literal])+ $field:ident: $ty:ty,)*
        }
    )*) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
            pub struct $name { $($(#[doc = $field_doc])+ pub $field: $ty,)* }

            impl From<$name> for Op {
                fn from(op: $name) -> Op { Op::$name(op) }
            }
        )*

        /// An operator with its attributes. Closed: a match names every case.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)] // documented at the structs of the same names
        pub enum Op { $($name($name),)* }

        /// An operator without its attributes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum OpKind { $($name,)* }

        impl OpKind {
            /// Every operator, in the order of the reference.
            pub const ALL: &'static [OpKind] = &[$(OpKind::$name,)*];
            /// The name in the text form.
            pub fn text(self) -> &'static str { match self { $(OpKind::$name => $text,)* } }
            /// The group it belongs to.
            pub fn class(self) -> OpClass { match self { $(OpKind::$name => OpClass::$class,)* } }
            /// Documentation, with the numbered constraints.
            pub fn doc(self) -> &'static str { match self { $(OpKind::$name => concat!($($doc, "\n"),+),)* } }
            /// Operand names; `?` marks optional ones, `*` any number.
            pub fn operands(self) -> &'static [&'static str] { match self { $(OpKind::$name => &[$($operand),*],)* } }
            /// Attributes: name, kind, documentation; in declared order.
            pub fn attributes(self) -> &'static [(&'static str, AttrKind, &'static str)] {
                match self { $(OpKind::$name => &[$((stringify!($field), <$ty as AttrValue>::KIND, concat!($($field_doc),+)),)*],)* }
            }
            /// Finds an operator by its name in the text form.
            pub fn parse(text: &str) -> Option<OpKind> { Self::ALL.iter().copied().find(|k| k.text() == text) }
        }

        impl Op {
            /// The operator without attributes.
            pub fn kind(&self) -> OpKind { match self { $(Op::$name(_) => OpKind::$name,)* } }
            /// Attribute values in declared order.
            pub fn attrs(&self) -> Vec<Attr> {
                match self { $(Op::$name(_op) => vec![$(AttrValue::to_attr(&_op.$field),)*],)* }
            }
            /// The operator from attribute values in declared order; `Err` is the name of the first bad one.
            pub fn from_attrs(kind: OpKind, attrs: &[Attr]) -> Result<Op, &'static str> {
                let mut _attrs = attrs.iter();
                match kind { $(OpKind::$name => Ok(Op::$name($name {
                    $($field: _attrs.next().and_then(<$ty as AttrValue>::from_attr).ok_or(stringify!($field))?,)*
                })),)* }
            }
            pub(crate) fn as_operator(&self) -> &dyn Operator { match self { $(Op::$name(op) => op,)* } }
        }
    };
}
pub(crate) use operators;
