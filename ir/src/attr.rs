//! Attribute values: the closed set of things an operator can be told besides its operands.

use crate::dtype::DType;
use crate::scalar::{Body, F64};
use crate::shape::{Shape, TensorType};
use crate::spec::ContractSpec;
use std::fmt;
use std::sync::Arc;

/// An attribute's value. Ordered and hashed by value (floats by bits).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attr {
    /// A whole number.
    Int(i64),
    /// A list of whole numbers, `[0,2,1]`.
    Ints(Vec<i64>),
    /// A list of pairs, `[0:1,0:1]`.
    Pairs(Vec<(i64, i64)>),
    /// A float, always with a point or exponent.
    Float(F64),
    /// `true` or `false`.
    Flag(bool),
    /// A quoted string.
    Text(String),
    /// One word of a closed list, such as `sum`.
    Word(String),
    /// An element type.
    DType(DType),
    /// A shape, `[B,4*N]`.
    Shape(Shape),
    /// The statement's own type; not written among the attributes.
    Type(TensorType),
    /// A scalar body, `{x| exp(x)}`.
    Body(Body),
    /// Axis letters of a contraction, `[bik,kj->bij]`.
    Spec(ContractSpec),
    /// Elements of a constant.
    Data(Literal),
}

/// Elements of a constant, row-major, little-endian in the constant's dtype (bool: one byte each).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Literal(pub Arc<[u8]>);

/// A field type that can be an attribute.
pub trait AttrValue: Sized {
    /// What the parser expects, for messages and for choosing a reading.
    const KIND: AttrKind;
    /// As a generic value.
    fn to_attr(&self) -> Attr;
    /// From a generic value; `None` if it is of another kind or out of range.
    fn from_attr(attr: &Attr) -> Option<Self>;
}

/// The kinds of attribute values; the parser reads by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // one for each variant of `Attr`
pub enum AttrKind {
    Int,
    Ints,
    Pairs,
    Float,
    Flag,
    Text,
    Word,
    DType,
    Shape,
    Type,
    Body,
    Spec,
    Data,
}

macro_rules! attr_value {
    ($($ty:ty => $kind:ident: |$this:ident| $to:expr, |$from:ident| $back:expr;)*) => { $(
        impl AttrValue for $ty {
            const KIND: AttrKind = AttrKind::$kind;
            fn to_attr(&self) -> Attr { let $this = self; Attr::$kind($to) }
            fn from_attr(attr: &Attr) -> Option<Self> {
                match attr { Attr::$kind($from) => $back, _ => None }
            }
        }
    )* };
}

attr_value! {
    usize => Int: |v| *v as i64, |v| usize::try_from(*v).ok();
    i64 => Int: |v| *v, |v| Some(*v);
    Vec<usize> => Ints: |v| v.iter().map(|&i| i as i64).collect(), |v| v.iter().map(|&i| usize::try_from(i).ok()).collect();
    Vec<(usize, usize)> => Pairs: |v| v.iter().map(|&(a, b)| (a as i64, b as i64)).collect(),
        |v| v.iter().map(|&(a, b)| Some((usize::try_from(a).ok()?, usize::try_from(b).ok()?))).collect();
    F64 => Float: |v| *v, |v| Some(*v);
    bool => Flag: |v| *v, |v| Some(*v);
    String => Text: |v| v.clone(), |v| Some(v.clone());
    DType => DType: |v| *v, |v| Some(*v);
    Shape => Shape: |v| v.clone(), |v| Some(v.clone());
    TensorType => Type: |v| v.clone(), |v| Some(v.clone());
    Body => Body: |v| v.clone(), |v| Some(v.clone());
    ContractSpec => Spec: |v| v.clone(), |v| Some(v.clone());
    Literal => Data: |v| v.clone(), |v| Some(v.clone());
}

/// Declares an enum whose variants are words in the text form.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])+ $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])+ $variant,)* }
        impl $name {
            /// All variants.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// The word in the text form.
            pub fn text(self) -> &'static str { match self { $($name::$variant => $text,)* } }
        }
        impl $crate::attr::AttrValue for $name {
            const KIND: $crate::attr::AttrKind = $crate::attr::AttrKind::Word;
            fn to_attr(&self) -> $crate::attr::Attr { $crate::attr::Attr::Word(self.text().to_string()) }
            fn from_attr(attr: &$crate::attr::Attr) -> Option<Self> {
                match attr {
                    $crate::attr::Attr::Word(w) => Self::ALL.iter().copied().find(|v| v.text() == w),
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use words;

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |items: Vec<String>| format!("[{}]", items.join(","));
        match self {
            Attr::Int(v) => write!(f, "{v}"),
            Attr::Ints(v) => f.write_str(&list(v.iter().map(i64::to_string).collect())),
            Attr::Pairs(v) => f.write_str(&list(v.iter().map(|(a, b)| format!("{a}:{b}")).collect())),
            Attr::Float(v) => f.write_str(&crate::scalar::float_text(v.0)),
            Attr::Flag(v) => write!(f, "{v}"),
            Attr::Text(v) => write!(f, "{v:?}"),
            Attr::Word(v) => f.write_str(v),
            Attr::DType(v) => write!(f, "{v}"),
            Attr::Shape(v) => write!(f, "{v}"),
            Attr::Type(v) => write!(f, "{v}"),
            Attr::Body(v) => write!(f, "{v}"),
            Attr::Spec(v) => write!(f, "[{v}]"),
            Attr::Data(v) => {
                // The printer writes elements where it knows the dtype; this is the form without it.
                f.write_str("0x")?;
                v.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
    }
}
