//! The primitives of bodies, in two closed lists, and what they are defined on.

use crate::dtype::Class;

macro_rules! prims {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)* }
        impl $name {
            /// All of them, in the order of the reference.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// The spelling in `.ir` text.
            pub fn text(self) -> &'static str { match self { $($name::$variant => $text,)* } }
            /// One line of documentation.
            pub fn doc(self) -> &'static str { match self { $($name::$variant => concat!($($doc),+),)* } }
            /// Parses a spelling.
            pub fn parse(text: &str) -> Option<$name> { Self::ALL.iter().copied().find(|p| p.text() == text) }
        }
    };
}

prims! {
    /// Primitives of one argument.
    Unary {
        /// −x (floats and i32; wrapping for u32).
        Neg = "neg",
        /// Bitwise complement of integers, negation of bool.
        Not = "not",
        /// |x|.
        Abs = "abs",
        /// −1, 0 or 1 by sign.
        Sign = "sign",
        /// Greatest integer not above x.
        Floor = "floor",
        /// Least integer not below x.
        Ceil = "ceil",
        /// Nearest integer, ties to even.
        Round = "round",
        /// Integer part.
        Trunc = "trunc",
        /// eˣ.
        Exp = "exp",
        /// 2ˣ.
        Exp2 = "exp2",
        /// Natural logarithm.
        Log = "log",
        /// Base-2 logarithm.
        Log2 = "log2",
        /// √x.
        Sqrt = "sqrt",
        /// 1/√x.
        Rsqrt = "rsqrt",
        /// Sine, radians.
        Sin = "sin",
        /// Cosine, radians.
        Cos = "cos",
        /// Hyperbolic tangent.
        Tanh = "tanh",
        /// Gauss error function.
        Erf = "erf",
        /// 1/(1+e⁻ˣ).
        Sigmoid = "sigmoid",
    }
}

prims! {
    /// Primitives of two arguments of one type.
    Binary {
        /// x + y.
        Add = "+",
        /// x − y.
        Sub = "-",
        /// x · y.
        Mul = "*",
        /// x / y; integers truncate, by zero give 0.
        Div = "/",
        /// Remainder with the sign of x; integers by zero give 0.
        Rem = "%",
        /// xʸ for floats.
        Pow = "pow",
        /// The smaller.
        Min = "min",
        /// The larger.
        Max = "max",
        /// x < y, a bool.
        Lt = "<",
        /// x ≤ y, a bool.
        Le = "<=",
        /// x > y, a bool.
        Gt = ">",
        /// x ≥ y, a bool.
        Ge = ">=",
        /// x = y, a bool.
        Eq = "==",
        /// x ≠ y, a bool.
        Ne = "!=",
        /// Bitwise and logical and.
        And = "&",
        /// Bitwise and logical or.
        Or = "|",
        /// Bitwise exclusive or.
        Xor = "^",
        /// Shift left.
        Shl = "<<",
        /// Shift right (arithmetic for i32).
        Shr = ">>",
    }
}

impl Unary {
    /// Classes the primitive is defined on; the result has the argument's type.
    pub fn accepts(self, class: Class) -> bool {
        match self {
            Unary::Neg | Unary::Abs | Unary::Sign => class != Class::Bool,
            Unary::Not => class != Class::Float,
            Unary::Floor
            | Unary::Ceil
            | Unary::Round
            | Unary::Trunc
            | Unary::Exp
            | Unary::Exp2
            | Unary::Log
            | Unary::Log2
            | Unary::Sqrt
            | Unary::Rsqrt
            | Unary::Sin
            | Unary::Cos
            | Unary::Tanh
            | Unary::Erf
            | Unary::Sigmoid => class == Class::Float,
        }
    }
}

impl Binary {
    /// Classes the primitive is defined on.
    pub fn accepts(self, class: Class) -> bool {
        match self {
            Binary::Add
            | Binary::Sub
            | Binary::Mul
            | Binary::Div
            | Binary::Rem
            | Binary::Min
            | Binary::Max
            | Binary::Lt
            | Binary::Le
            | Binary::Gt
            | Binary::Ge => class != Class::Bool,
            Binary::Pow => class == Class::Float,
            Binary::Eq | Binary::Ne => true,
            Binary::And | Binary::Or | Binary::Xor => class != Class::Float,
            Binary::Shl | Binary::Shr => matches!(class, Class::Signed | Class::Unsigned),
        }
    }
    /// The result is a bool.
    pub fn compares(self) -> bool {
        matches!(self, Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge | Binary::Eq | Binary::Ne)
    }
    /// x ∘ y = y ∘ x: operands are kept in a canonical order.
    pub fn commutes(self) -> bool {
        matches!(
            self,
            Binary::Add
                | Binary::Mul
                | Binary::Min
                | Binary::Max
                | Binary::Eq
                | Binary::Ne
                | Binary::And
                | Binary::Or
                | Binary::Xor
        )
    }
}
