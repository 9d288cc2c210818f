//! Scalar bodies: what a `map` computes for one element.
//!
//! A body is a small expression graph over its arguments, kept in one normal form (equal expressions are
//! shared, nodes are numbered in post-order from the result), so that `==` compares meaning up to spelling.
//!
//! **Types.** Every node has an element type. Float arithmetic is done in f32 (f64 on request) whatever the
//! arguments' storage; the map rounds once, at its own dtype; only `f16(x)` and `bf16(x)` round inside a body.
//! Float literals take the type of their context (f32 if there is none). Integers wrap; division and remainder
//! by zero give 0; shifts use the low five bits of the count; float to integer truncates and saturates (NaN gives 0).

mod primitives;
mod text;

use crate::dtype::{Class, DType};
use std::collections::HashMap;

pub use primitives::{Binary, Unary};
pub use text::{arg_name, float_text, precedence};

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
