//! Pointwise operations: arithmetic, comparisons, activations, casts, and `map` with a body of one's own.

use crate::graph::Graph;
use crate::tensor::Tensor;
use selvedge_ir::dtype::Class;
use selvedge_ir::ops::{Broadcast, Map};
use selvedge_ir::scalar::{Binary, Body, BodyBuilder, F64, Scalar, ScalarId, Unary};
use selvedge_ir::{DType, Diagnostic, Shape};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// The right side of a pointwise operation: a tensor or a number.
#[derive(Clone, Debug)]
pub enum Operand {
    /// A tensor.
    Tensor(Tensor),
    /// A number, of the other operand's dtype.
    Number(f64),
}
impl From<Tensor> for Operand {
    fn from(t: Tensor) -> Operand {
        Operand::Tensor(t)
    }
}
impl From<&Tensor> for Operand {
    fn from(t: &Tensor) -> Operand {
        Operand::Tensor(t.clone())
    }
}
impl From<f64> for Operand {
    fn from(x: f64) -> Operand {
        Operand::Number(x)
    }
}

/// Applies a scalar body to each element of operands that broadcast together; float operands of different dtypes are
/// widened to f32 first.
///
/// ```
/// # use selvedge_model::{map, Graph, DType};
/// # use selvedge_ir::scalar::{Binary, Unary};
/// let g = Graph::new("swiglu");
/// let (gate, up) = (g.input("gate", DType::F32, [2, 8]), g.input("up", DType::F32, [2, 8]));
/// let y = map(&[&gate, &up], |b, a| {
///     let sigmoid = b.unary(Unary::Sigmoid, a[0]);
///     let silu = b.binary(Binary::Mul, a[0], sigmoid);
///     b.binary(Binary::Mul, silu, a[1])
/// });
/// ```
///
/// # Panics
/// If there is no operand.
#[track_caller]
pub fn map(operands: &[&Tensor], body: impl FnOnce(&mut BodyBuilder, &[ScalarId]) -> ScalarId) -> Tensor {
    let graph = operands.first().expect("a map has at least one operand").graph();
    let dtypes: Vec<DType> = operands.iter().map(|t| t.dtype()).collect();
    let floats: Vec<DType> = dtypes.iter().copied().filter(|d| d.class() == Class::Float).collect();
    let widen = floats.iter().any(|d| *d != floats[0] || matches!(d, DType::Packed(_)));
    let body = Body::build(operands.len(), |b| {
        let args: Vec<ScalarId> = (0..dtypes.len())
            .map(|i| {
                let arg = b.arg(i);
                let narrow = dtypes[i].class() == Class::Float && dtypes[i] != DType::F32;
                if widen && narrow { b.cast(DType::F32, arg) } else { arg }
            })
            .collect();
        body(b, &args)
    });
    match broadcast_together(graph, operands) {
        Some(operands) => graph.push(Map { body }, &operands.iter().collect::<Vec<_>>()),
        None => graph.poison(),
    }
}

/// The operands at their common shape; `None` if one is poisoned or they do not fit (recorded).
#[track_caller]
fn broadcast_together(graph: &Graph, operands: &[&Tensor]) -> Option<Vec<Tensor>> {
    let mut common = Shape::default();
    for operand in operands {
        let ty = operand.ty()?;
        match common.broadcast(&ty.shape) {
            Some(shape) => common = shape,
            None => {
                let types: Vec<String> = operands.iter().filter_map(|o| o.ty()).map(|t| t.shape.to_string()).collect();
                let what = format!("the shapes {} do not broadcast together", types.join(" and "));
                let help = "extents, aligned at the last axis, must be equal or 1";
                graph.fail(Diagnostic::new("M1", what).expected_found(common, ty.shape).help(help));
                return None;
            }
        }
    }
    Some(operands.iter().map(|o| o.broadcast_to(common.clone())).collect())
}

/// A number as a literal that fits a dtype.
fn literal(dtype: DType, value: f64) -> Result<Scalar, String> {
    let whole = value.fract() == 0.0;
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_) => Ok(Scalar::Float(F64(value))),
        DType::I32 if whole && (i32::MIN as f64..=i32::MAX as f64).contains(&value) => Ok(Scalar::Int(value as i32)),
        DType::U32 if whole && (0.0..=u32::MAX as f64).contains(&value) => Ok(Scalar::Uint(value as u32)),
        DType::Bool if value == 0.0 || value == 1.0 => Ok(Scalar::Bool(value == 1.0)),
        DType::I32 | DType::U32 | DType::Bool => Err(format!("{value} is not a value of {dtype}")),
    }
}

/// `a op b` where at least one side is a tensor.
#[track_caller]
fn binary(op: Binary, a: &Operand, b: &Operand) -> Tensor {
    let (tensor, number, swapped) = match (a, b) {
        (Operand::Tensor(a), Operand::Tensor(b)) => return map(&[a, b], |s, x| s.binary(op, x[0], x[1])),
        (Operand::Tensor(t), Operand::Number(n)) => (t, *n, false),
        (Operand::Number(n), Operand::Tensor(t)) => (t, *n, true),
        (Operand::Number(_), Operand::Number(_)) => unreachable!("every caller has a tensor on one side"),
    };
    match literal(tensor.dtype(), number) {
        Err(message) => tensor.fail(Diagnostic::new("M2", message)),
        Ok(literal) => map(&[tensor], |s, x| {
            let number = s.add(literal);
            if swapped { s.binary(op, number, x[0]) } else { s.binary(op, x[0], number) }
        }),
    }
}

macro_rules! arithmetic {
    ($($operator:ident $method:ident;)*) => { $(
        arithmetic!(@ $operator $method: Tensor, Tensor);
        arithmetic!(@ $operator $method: Tensor, &Tensor);
        arithmetic!(@ $operator $method: &Tensor, Tensor);
        arithmetic!(@ $operator $method: &Tensor, &Tensor);
        arithmetic!(@ $operator $method: Tensor, f64);
        arithmetic!(@ $operator $method: &Tensor, f64);
        arithmetic!(@ $operator $method: f64, Tensor);
        arithmetic!(@ $operator $method: f64, &Tensor);
    )* };
    (@ $operator:ident $method:ident: $left:ty, $right:ty) => {
        impl $operator<$right> for $left {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: $right) -> Tensor {
                binary(Binary::$operator, &self.into(), &other.into())
            }
        }
    };
}
arithmetic! { Add add; Sub sub; Mul mul; Div div; }

impl Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        self.unary(Unary::Neg)
    }
}
impl Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        self.unary(Unary::Neg)
    }
}

macro_rules! unary_methods {
    ($($(#[doc = $doc:literal])+ $method:ident = $op:ident;)*) => {
        impl Tensor { $(
            $(#[doc = $doc])+
            #[track_caller]
            pub fn $method(&self) -> Tensor { self.unary(Unary::$op) }
        )* }
    };
}
unary_methods! {
    /// |x|.
    abs = Abs;
    /// −1, 0 or 1 by sign.
    sign = Sign;
    /// Greatest integer not above x.
    floor = Floor;
    /// Least integer not below x.
    ceil = Ceil;
    /// Nearest integer, ties to even.
    round = Round;
    /// eˣ.
    exp = Exp;
    /// Natural logarithm.
    log = Log;
    /// √x.
    sqrt = Sqrt;
    /// 1/√x.
    rsqrt = Rsqrt;
    /// Sine, radians.
    sin = Sin;
    /// Cosine, radians.
    cos = Cos;
    /// Hyperbolic tangent.
    tanh = Tanh;
    /// Gauss error function.
    erf = Erf;
    /// 1/(1+e⁻ˣ).
    sigmoid = Sigmoid;
    /// Negation of bool, complement of integers.
    not = Not;
}

macro_rules! binary_methods {
    ($($(#[doc = $doc:literal])+ $method:ident = $op:ident;)*) => {
        impl Tensor { $(
            $(#[doc = $doc])+
            #[track_caller]
            pub fn $method(&self, other: impl Into<Operand>) -> Tensor {
                binary(Binary::$op, &self.into(), &other.into())
            }
        )* }
    };
}
binary_methods! {
    /// x < y, a bool.
    lt = Lt;
    /// x ≤ y, a bool.
    le = Le;
    /// x > y, a bool.
    gt = Gt;
    /// x ≥ y, a bool.
    ge = Ge;
    /// x = y, a bool.
    equal = Eq;
    /// x ≠ y, a bool.
    not_equal = Ne;
    /// The smaller.
    minimum = Min;
    /// The larger.
    maximum = Max;
    /// xʸ.
    pow = Pow;
    /// Remainder with the sign of x.
    rem = Rem;
    /// Logical and bitwise and.
    and = And;
    /// Logical and bitwise or.
    or = Or;
}

impl Tensor {
    #[track_caller]
    fn unary(&self, op: Unary) -> Tensor {
        map(&[self], |b, x| b.unary(op, x[0]))
    }
    /// Applies a scalar body to each element; see [`map()`] for several operands.
    #[track_caller]
    pub fn map(&self, body: impl FnOnce(&mut BodyBuilder, ScalarId) -> ScalarId) -> Tensor {
        map(&[self], |b, x| body(b, x[0]))
    }
    /// The same values in another dtype; nothing is added if it has it already.
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Tensor {
        if self.dtype() == dtype {
            return self.clone();
        }
        self.graph().push(Map { body: Body::cast(dtype) }, &[self])
    }
    /// Where this bool holds `a`, elsewhere `b`; all three broadcast together.
    #[track_caller]
    pub fn select(&self, a: &Tensor, b: &Tensor) -> Tensor {
        map(&[self, a, b], |s, x| s.select(x[0], x[1], x[2]))
    }
    /// Limits floats to low..=high.
    #[track_caller]
    pub fn clamp(&self, low: f64, high: f64) -> Tensor {
        self.map(|b, x| {
            let (low, high) = (b.float(low), b.float(high));
            let above = b.binary(Binary::Max, x, low);
            b.binary(Binary::Min, above, high)
        })
    }
    /// x², with one read of x.
    #[track_caller]
    pub fn square(&self) -> Tensor {
        self.map(|b, x| b.binary(Binary::Mul, x, x))
    }
    /// max(x, 0).
    #[track_caller]
    pub fn relu(&self) -> Tensor {
        self.maximum(0.0)
    }
    /// x · sigmoid(x).
    #[track_caller]
    pub fn silu(&self) -> Tensor {
        self.map(|b, x| {
            let s = b.unary(Unary::Sigmoid, x);
            b.binary(Binary::Mul, x, s)
        })
    }
    /// x · Φ(x), by the error function.
    #[track_caller]
    pub fn gelu(&self) -> Tensor {
        self.map(|b, x| {
            let root = b.float(std::f64::consts::FRAC_1_SQRT_2);
            let scaled = b.binary(Binary::Mul, x, root);
            let erf = b.unary(Unary::Erf, scaled);
            gated_half(b, x, erf)
        })
    }
    /// x · sigmoid(1.702·x), the approximation of GELU in CLIP.
    #[track_caller]
    pub fn quick_gelu(&self) -> Tensor {
        self.map(|b, x| {
            let slope = b.float(1.702);
            let scaled = b.binary(Binary::Mul, slope, x);
            let s = b.unary(Unary::Sigmoid, scaled);
            b.binary(Binary::Mul, x, s)
        })
    }
    /// x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³))): PyTorch's `approximate="tanh"`.
    #[track_caller]
    pub fn gelu_tanh(&self) -> Tensor {
        self.map(|b, x| {
            let (root, cubic) = (b.float((2.0 / std::f64::consts::PI).sqrt()), b.float(0.044715));
            let square = b.binary(Binary::Mul, x, x);
            let cube = b.binary(Binary::Mul, square, x);
            let bend = b.binary(Binary::Mul, cubic, cube);
            let sum = b.binary(Binary::Add, x, bend);
            let inner = b.binary(Binary::Mul, root, sum);
            let tanh = b.unary(Unary::Tanh, inner);
            gated_half(b, x, tanh)
        })
    }
    /// This tensor repeated to a shape as NumPy broadcasts; nothing is added if it has it already.
    #[track_caller]
    pub fn broadcast_to(&self, shape: impl Into<Shape>) -> Tensor {
        let (Some(ty), shape) = (self.ty(), shape.into()) else { return self.clone() };
        if ty.shape == shape {
            return self.clone();
        }
        if ty.rank() > shape.rank() {
            let what = Diagnostic::new("M1", format!("{} does not broadcast to {shape}", ty.shape));
            return self.fail(what.expected_found(format!("at most {} axes", shape.rank()), ty.shape));
        }
        let axes = (shape.rank() - ty.rank()..shape.rank()).collect();
        self.graph().push(Broadcast { shape, axes }, &[self])
    }
}

/// x/2 · (1 + y).
fn gated_half(b: &mut BodyBuilder, x: ScalarId, y: ScalarId) -> ScalarId {
    let (half, one) = (b.float(0.5), b.float(1.0));
    let half = b.binary(Binary::Mul, half, x);
    let gate = b.binary(Binary::Add, one, y);
    b.binary(Binary::Mul, half, gate)
}
