//! Scalar bodies: what a `map` computes for one element.
//!
//! A body is a small expression graph over its arguments, kept in one normal form (equal expressions are
//! shared, nodes are numbered in post-order from the result), so that `==` compares meaning up to spelling.
//!
//! **Types.** Every node has an element type. Float arithmetic is done in f32 (f64 on request) whatever the
//! arguments' storage; the map rounds once, at its own dtype; only `f16(x)` and `bf16(x)` round inside a body.
//! Float literals take the type of their context (f32 if there is none). Integers wrap; division and remainder
//! by zero give 0; shifts use the low five bits of the count; float to integer truncates and saturates (NaN gives 0).

use crate::dtype::{Class, DType};
use std::collections::HashMap;
use std::fmt;

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

/// A float compared and hashed by its bits; all NaNs are one.
#[derive(Clone, Copy, Debug)]
pub struct F64(pub f64);
impl F64 {
    fn one_nan(self) -> f64 {
        if self.0.is_nan() { f64::NAN } else { self.0 }
    }
}
impl PartialEq for F64 {
    fn eq(&self, other: &F64) -> bool {
        self.one_nan().to_bits() == other.one_nan().to_bits()
    }
}
impl Eq for F64 {}
impl std::hash::Hash for F64 {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.one_nan().to_bits().hash(state);
    }
}
impl PartialOrd for F64 {
    fn partial_cmp(&self, other: &F64) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for F64 {
    fn cmp(&self, other: &F64) -> std::cmp::Ordering {
        self.one_nan().total_cmp(&other.one_nan())
    }
}

/// Index of a node in its body.
pub type ScalarId = u32;

/// One node of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scalar {
    /// The i-th argument.
    Arg(u32),
    /// A float literal; typed by context.
    Float(F64),
    /// An i32 literal, written `3i`.
    Int(i32),
    /// A u32 literal, written `3u`.
    Uint(u32),
    /// `true` or `false`.
    Bool(bool),
    /// One-argument primitive.
    Unary(Unary, ScalarId),
    /// Two-argument primitive.
    Binary(Binary, ScalarId, ScalarId),
    /// `select(c, a, b)`: a where c holds, else b.
    Select(ScalarId, ScalarId, ScalarId),
    /// Conversion to a plain dtype, written `f16(x)`.
    Cast(DType, ScalarId),
    /// Same bits as another 32-bit type, written `bits_f32(x)`, `bits_i32(x)`, `bits_u32(x)`.
    Bits(DType, ScalarId),
}

/// A scalar expression of `arity` arguments, in normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Body {
    arity: u32,
    nodes: Vec<Scalar>,
}

impl Body {
    /// Number of arguments.
    pub fn arity(&self) -> usize {
        self.arity as usize
    }
    /// Nodes in post-order; the last is the result.
    pub fn nodes(&self) -> &[Scalar] {
        &self.nodes
    }
    /// The result's id.
    pub fn result(&self) -> ScalarId {
        self.nodes.len() as u32 - 1
    }
    /// The identity of one argument.
    pub fn identity() -> Body {
        Body::build(1, |b| b.arg(0))
    }
    /// Builds a body; the closure returns the result.
    ///
    /// ```
    /// use selvedge_ir::scalar::{Body, Unary, Binary};
    /// let silu = Body::build(1, |b| { let x = b.arg(0); let s = b.unary(Unary::Sigmoid, x); b.binary(Binary::Mul, x, s) });
    /// assert_eq!(silu.to_string(), "{x| x * sigmoid(x)}");
    /// ```
    pub fn build(arity: usize, f: impl FnOnce(&mut BodyBuilder) -> ScalarId) -> Body {
        let mut builder = BodyBuilder { arity: arity as u32, nodes: Vec::new(), known: HashMap::new() };
        let result = f(&mut builder);
        builder.finish(result)
    }
    /// One primitive of one argument.
    pub fn unary(op: Unary) -> Body {
        Body::build(1, |b| {
            let x = b.arg(0);
            b.unary(op, x)
        })
    }
    /// One primitive of two arguments.
    pub fn binary(op: Binary) -> Body {
        Body::build(2, |b| {
            let (x, y) = (b.arg(0), b.arg(1));
            b.binary(op, x, y)
        })
    }
    /// Conversion of one argument.
    pub fn cast(dtype: DType) -> Body {
        Body::build(1, |b| {
            let x = b.arg(0);
            b.cast(dtype, x)
        })
    }
    /// True if the argument occurs.
    pub fn uses(&self, arg: usize) -> bool {
        self.nodes.contains(&Scalar::Arg(arg as u32))
    }

    /// The types of all nodes, given the arguments' dtypes; the last is the body's type.
    ///
    /// Errors name the offending primitive.
    pub fn infer(&self, args: &[DType]) -> Result<Vec<DType>, String> {
        if args.len() != self.arity() {
            return Err(format!("body takes {} arguments, {} given", self.arity, args.len()));
        }
        // None = a float literal (or arithmetic of literals) whose type the context decides.
        let mut types: Vec<Option<DType>> = Vec::with_capacity(self.nodes.len());
        let join = |what: &str, a: Option<DType>, b: Option<DType>| match (a, b) {
            (Some(a), Some(b)) if a == b => Ok(Some(a)),
            (Some(t), None) | (None, Some(t)) if t.is_float() => Ok(Some(t)),
            (None, None) => Ok(None),
            (a, b) => {
                let name = |t: Option<DType>| t.map_or("a float literal".to_string(), |t| t.to_string());
                Err(format!("`{what}` takes operands of one type, found {} and {}", name(a), name(b)))
            }
        };
        let class = |t: Option<DType>| t.map_or(Class::Float, DType::class);
        for node in &self.nodes {
            let ty = match *node {
                Scalar::Arg(i) => Some(args[i as usize]),
                Scalar::Float(_) => None,
                Scalar::Int(_) => Some(DType::I32),
                Scalar::Uint(_) => Some(DType::U32),
                Scalar::Bool(_) => Some(DType::Bool),
                Scalar::Unary(op, x) => {
                    let t = types[x as usize];
                    if !op.accepts(class(t)) || matches!(t, Some(DType::Packed(_))) {
                        return Err(format!("`{}` is not defined on {}", op.text(), t.unwrap_or(DType::F32)));
                    }
                    t
                }
                Scalar::Binary(op, x, y) => {
                    let t = join(op.text(), types[x as usize], types[y as usize])?;
                    if !op.accepts(class(t)) || matches!(t, Some(DType::Packed(_))) {
                        return Err(format!("`{}` is not defined on {}", op.text(), t.unwrap_or(DType::F32)));
                    }
                    if op.compares() { Some(DType::Bool) } else { t }
                }
                Scalar::Select(c, x, y) => {
                    if types[c as usize] != Some(DType::Bool) {
                        return Err("`select` takes a bool first".to_string());
                    }
                    join("select", types[x as usize], types[y as usize])?
                }
                Scalar::Cast(to, _) => {
                    if matches!(to, DType::Packed(_)) {
                        return Err("casts go to plain dtypes".to_string());
                    }
                    Some(to)
                }
                Scalar::Bits(to, x) => {
                    let from = types[x as usize];
                    let word = |t: DType| matches!(t, DType::F32 | DType::I32 | DType::U32);
                    if !from.is_some_and(word) || !word(to) {
                        return Err("`bits_…` converts between f32, i32 and u32".to_string());
                    }
                    Some(to)
                }
            };
            types.push(ty);
        }
        if let Some(Some(DType::Packed(p))) = types.last() {
            return Err(format!("a packed weight must be cast to a float dtype, found {}", DType::Packed(*p)));
        }
        Ok(types.into_iter().map(|t| t.unwrap_or(DType::F32)).collect())
    }

    /// The body with each argument replaced by another body over a common list of `arity` arguments.
    pub fn compose(&self, arity: usize, args: &[Body]) -> Body {
        Body::build(arity, |b| {
            let results: Vec<ScalarId> = args.iter().map(|a| b.inline(a, None)).collect();
            b.inline(self, Some(&results))
        })
    }
    /// The body over a longer or permuted argument list: argument `i` becomes `map[i]`.
    pub fn with_args(&self, arity: usize, map: &[usize]) -> Body {
        Body::build(arity, |b| {
            let args: Vec<ScalarId> = map.iter().map(|&i| b.arg(i)).collect();
            b.inline(self, Some(&args))
        })
    }
}

/// Builds a body node by node; equal nodes are shared.
pub struct BodyBuilder {
    arity: u32,
    nodes: Vec<Scalar>,
    known: HashMap<Scalar, ScalarId>,
}

impl BodyBuilder {
    /// Adds a node (or finds it).
    pub fn add(&mut self, node: Scalar) -> ScalarId {
        if let Scalar::Arg(i) = node {
            assert!(i < self.arity, "argument {i} of a body of {} arguments", self.arity);
        }
        *self.known.entry(node).or_insert_with(|| {
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        })
    }
    /// The i-th argument.
    pub fn arg(&mut self, i: usize) -> ScalarId {
        self.add(Scalar::Arg(i as u32))
    }
    /// A float literal.
    pub fn float(&mut self, x: f64) -> ScalarId {
        self.add(Scalar::Float(F64(x)))
    }
    /// One-argument primitive.
    pub fn unary(&mut self, op: Unary, x: ScalarId) -> ScalarId {
        self.add(Scalar::Unary(op, x))
    }
    /// Two-argument primitive.
    pub fn binary(&mut self, op: Binary, x: ScalarId, y: ScalarId) -> ScalarId {
        self.add(Scalar::Binary(op, x, y))
    }
    /// `select(c, x, y)`.
    pub fn select(&mut self, c: ScalarId, x: ScalarId, y: ScalarId) -> ScalarId {
        self.add(Scalar::Select(c, x, y))
    }
    /// Conversion.
    pub fn cast(&mut self, dtype: DType, x: ScalarId) -> ScalarId {
        self.add(Scalar::Cast(dtype, x))
    }
    /// Copies another body in, its arguments replaced by `args` (or kept).
    pub fn inline(&mut self, body: &Body, args: Option<&[ScalarId]>) -> ScalarId {
        let mut ids: Vec<ScalarId> = Vec::with_capacity(body.nodes.len());
        for node in &body.nodes {
            let id = match *node {
                Scalar::Arg(i) => match args {
                    Some(args) => args[i as usize],
                    None => self.add(Scalar::Arg(i)),
                },
                other => {
                    let moved = map_children(other, |c| ids[c as usize]);
                    self.add(moved)
                }
            };
            ids.push(id);
        }
        *ids.last().expect("a body has a result")
    }
    fn finish(self, result: ScalarId) -> Body {
        // Post-order from the result: unused nodes vanish, numbering depends on meaning only.
        let mut order: Vec<Scalar> = Vec::new();
        let mut place: HashMap<ScalarId, ScalarId> = HashMap::new();
        let mut stack = vec![(result, false)];
        while let Some((id, ready)) = stack.pop() {
            if place.contains_key(&id) {
                continue;
            }
            let node = self.nodes[id as usize];
            if ready {
                place.insert(id, order.len() as u32);
                order.push(map_children(node, |c| place[&c]));
            } else {
                stack.push((id, true));
                let mut children = children(node);
                children.reverse();
                stack.extend(children.into_iter().map(|c| (c, false)));
            }
        }
        Body { arity: self.arity, nodes: order }
    }
}

/// The nodes a node reads, in order.
pub fn children(node: Scalar) -> Vec<ScalarId> {
    match node {
        Scalar::Arg(_) | Scalar::Float(_) | Scalar::Int(_) | Scalar::Uint(_) | Scalar::Bool(_) => Vec::new(),
        Scalar::Unary(_, x) | Scalar::Cast(_, x) | Scalar::Bits(_, x) => vec![x],
        Scalar::Binary(_, x, y) => vec![x, y],
        Scalar::Select(c, x, y) => vec![c, x, y],
    }
}

fn map_children(node: Scalar, mut f: impl FnMut(ScalarId) -> ScalarId) -> Scalar {
    match node {
        Scalar::Arg(_) | Scalar::Float(_) | Scalar::Int(_) | Scalar::Uint(_) | Scalar::Bool(_) => node,
        Scalar::Unary(op, x) => Scalar::Unary(op, f(x)),
        Scalar::Cast(t, x) => Scalar::Cast(t, f(x)),
        Scalar::Bits(t, x) => Scalar::Bits(t, f(x)),
        Scalar::Binary(op, x, y) => Scalar::Binary(op, f(x), f(y)),
        Scalar::Select(c, x, y) => Scalar::Select(f(c), f(x), f(y)),
    }
}

/// The printed name of argument `i`: x, y, z, w, then p4, p5 …
pub fn arg_name(i: usize) -> String {
    ["x", "y", "z", "w"].get(i).map_or_else(|| format!("p{i}"), |s| s.to_string())
}

/// Prints a float so that it parses back to the same bits (`inf`, `-inf` and `nan` included).
pub fn float_text(x: f64) -> String {
    if x.is_nan() { "nan".to_string() } else { format!("{x:?}") }
}

impl fmt::Display for Body {
    /// `{x, y| x * sigmoid(y)}`; a node used twice is named first: `{x| let a = exp(x); a * a}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args: Vec<String> = (0..self.arity()).map(arg_name).collect();
        write!(f, "{{{}| ", args.join(", "))?;
        let mut uses = vec![0usize; self.nodes.len()];
        for node in &self.nodes {
            for c in children(*node) {
                uses[c as usize] += 1;
            }
        }
        let mut text: Vec<(String, u8)> = Vec::new();
        let mut lets = 0;
        for (i, node) in self.nodes.iter().enumerate() {
            let (expression, level) = expression(*node, &text);
            let leaf = children(*node).is_empty();
            if uses[i] > 1 && !leaf {
                write!(f, "let t{lets} = {expression}; ")?;
                text.push((format!("t{lets}"), 9));
                lets += 1;
            } else {
                text.push((expression, level));
            }
        }
        write!(f, "{}}}", text.last().expect("a body has a result").0)
    }
}

/// Binding strength of infix operators; the parser uses the same table.
pub fn precedence(op: Binary) -> Option<u8> {
    match op {
        Binary::Or => Some(1),
        Binary::Xor => Some(2),
        Binary::And => Some(3),
        Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge | Binary::Eq | Binary::Ne => Some(4),
        Binary::Shl | Binary::Shr => Some(5),
        Binary::Add | Binary::Sub => Some(6),
        Binary::Mul | Binary::Div | Binary::Rem => Some(7),
        Binary::Pow | Binary::Min | Binary::Max => None,
    }
}

fn expression(node: Scalar, text: &[(String, u8)]) -> (String, u8) {
    let get = |id: ScalarId| text[id as usize].0.as_str();
    let wrap = |id: ScalarId, level: u8| {
        let (t, l) = &text[id as usize];
        if *l < level { format!("({t})") } else { t.clone() }
    };
    match node {
        Scalar::Arg(i) => (arg_name(i as usize), 9),
        Scalar::Float(F64(x)) => (float_text(x), if x.is_sign_negative() { 8 } else { 9 }),
        Scalar::Int(x) => (format!("{x}i"), if x < 0 { 8 } else { 9 }),
        Scalar::Uint(x) => (format!("{x}u"), 9),
        Scalar::Bool(x) => (x.to_string(), 9),
        Scalar::Unary(op, x) => (format!("{}({})", op.text(), get(x)), 9),
        Scalar::Binary(op, x, y) => match precedence(op) {
            Some(level) => (format!("{} {} {}", wrap(x, level), op.text(), wrap(y, level + 1)), level),
            None => (format!("{}({}, {})", op.text(), get(x), get(y)), 9),
        },
        Scalar::Select(c, x, y) => (format!("select({}, {}, {})", get(c), get(x), get(y)), 9),
        Scalar::Cast(t, x) => (format!("{t}({})", get(x)), 9),
        Scalar::Bits(t, x) => (format!("bits_{t}({})", get(x)), 9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_does_not_matter() {
        let a = Body::build(1, |b| {
            let x = b.arg(0);
            let one = b.float(1.0);
            let _unused = b.unary(Unary::Exp, x);
            b.binary(Binary::Add, x, one)
        });
        let b = Body::build(1, |b| {
            let one = b.float(1.0);
            let x = b.arg(0);
            b.binary(Binary::Add, x, one)
        });
        assert_eq!(a, b);
        assert_eq!(a.to_string(), "{x| x + 1.0}");
    }

    #[test]
    fn literals_take_the_type_of_their_context() {
        let body = Body::build(1, |b| {
            let x = b.arg(0);
            let one = b.float(1.0);
            b.binary(Binary::Add, x, one)
        });
        assert_eq!(body.infer(&[DType::F16]).unwrap().last(), Some(&DType::F16));
        assert!(body.infer(&[DType::I32]).is_err());
    }

    #[test]
    fn composition_shares_and_renames() {
        let double = Body::build(1, |b| {
            let x = b.arg(0);
            b.binary(Binary::Add, x, x)
        });
        let exp = Body::unary(Unary::Exp);
        let both = double.compose(1, &[exp]);
        assert_eq!(both.to_string(), "{x| let t0 = exp(x); t0 + t0}");
    }
}
