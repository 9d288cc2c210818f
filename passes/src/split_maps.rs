//! `split-maps`: every map computes one primitive, so that one law matches however a body was written.

use crate::Pass;
use crate::rebuild::{Rebuild, rebuild};
use selvedge_ir::ops::Map;
use selvedge_ir::scalar::{Binary, Body, F64, Scalar, children};
use selvedge_ir::{DType, Diagnostic, Module, Op, Tensor, ValueId};

/// Splits the body of every map into maps of one primitive, in f32 between them: a map rounds once, at its own dtype,
/// so operands of f16 and bf16 are widened first and the last value is rounded.
///
/// Literals stay in the bodies (`{x| x * 0.5}` is one primitive: half the nodes of a broadcast constant, and one order
/// of operands instead of two), and constants that are one repeated value become literals. Of two spellings of one
/// value, `c * x`, `c > x`, `x > y` and `x - c` give way to `x * c`, `x < c`, `y < x` and `x + -c`.
pub struct SplitMaps;

impl Pass for SplitMaps {
    fn name(&self) -> &'static str {
        "split-maps"
    }
    fn summary(&self) -> &'static str {
        "splits maps into one primitive each, the normal form that rewrite rules match"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        for function in &mut module.functions {
            *function = rebuild(function, |r, _, op, args| match op {
                Op::Map(map) => split(r, map, args),
                op => r.copy(op, args),
            })?;
        }
        Ok(module)
    }
}

/// What stands for a node of the body that is split.
#[derive(Clone)]
enum Part {
    /// A tensor.
    Value(ValueId),
    /// An expression of literals, as a body without arguments.
    Literal(Body),
}

fn split(r: &mut Rebuild, map: &Map, args: &[ValueId]) -> Result<ValueId, Diagnostic> {
    let dtypes: Vec<DType> = args.iter().map(|a| r.to.ty(*a).dtype).collect();
    let fail = |what: String| Diagnostic::new("split-maps", what);
    let types = map.body.infer(&dtypes).map_err(fail)?;
    let operands = operands(r, &map.body, args);
    let mut parts: Vec<Part> = Vec::with_capacity(types.len());
    for node in map.body.nodes() {
        let part = match *node {
            Scalar::Arg(i) => operands[i as usize].clone(),
            Scalar::Float(_) | Scalar::Int(_) | Scalar::Uint(_) | Scalar::Bool(_) => {
                Part::Literal(Body::build(0, |b| b.add(*node)))
            }
            node => primitive(r, node, &parts)?,
        };
        parts.push(part);
    }
    match parts.pop() {
        Some(Part::Value(value)) => cast(r, value, *types.last().expect("a body has a result")),
        _ => r.copy(&map.clone().into(), args), // nothing but literals
    }
}

/// The operands, those that repeat one value as literals; at least one of those that the body reads stays a tensor.
fn operands(r: &Rebuild, body: &Body, args: &[ValueId]) -> Vec<Part> {
    let literal = |arg: &ValueId| Some(Part::Literal(repeated(r, *arg)?));
    let parts: Vec<Part> = args.iter().map(|a| literal(a).unwrap_or(Part::Value(*a))).collect();
    let tensors =
        |parts: &[Part]| parts.iter().enumerate().filter(|(i, p)| body.uses(*i) && matches!(p, Part::Value(_))).count();
    if tensors(&parts) > 0 { parts } else { args.iter().map(|a| Part::Value(*a)).collect() }
}

/// The literal that a tensor repeats, if it is a constant of one value behind views.
fn repeated(r: &Rebuild, mut id: ValueId) -> Option<Body> {
    let constant = loop {
        match r.to.function().op(id)? {
            (Op::Broadcast(_) | Op::Reshape(_) | Op::Transpose(_), args) => id = args[0],
            (Op::Const(constant), _) => break constant,
            _ => return None,
        }
    };
    // All bytes of an element repeat: cheaper than decoding a large table first.
    let (bytes, n) = (&constant.data.0, constant.ty.elements()?);
    let width = bytes.len().checked_div(n)?;
    if width == 0 || bytes.chunks(width).any(|c| c != &bytes[..width]) {
        return None;
    }
    let one = Tensor::from_bytes(selvedge_ir::TensorType::new(constant.ty.dtype, []), &bytes[..width]).ok()?;
    let x = *one.to_f64().first()?;
    let literal = match constant.ty.dtype {
        DType::F32 | DType::F16 | DType::BF16 if x.is_finite() => Scalar::Float(F64(x)),
        DType::I32 => Scalar::Int(x as i32),
        DType::U32 => Scalar::Uint(x as u32),
        DType::Bool => Scalar::Bool(x != 0.0),
        DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_) => return None,
    };
    Some(Body::build(0, |b| b.add(literal)))
}

/// Emits one primitive of parts, or keeps it in an expression of literals.
fn primitive(r: &mut Rebuild, node: Scalar, parts: &[Part]) -> Result<Part, Diagnostic> {
    let (node, mut read) = ordered(node, children(node).iter().map(|&c| parts[c as usize].clone()).collect());
    if let (Scalar::Cast(dtype, _), [Part::Value(x)]) = (node, &read[..]) {
        return Ok(Part::Value(cast(r, *x, dtype)?));
    }
    for part in &mut read {
        if let Part::Value(x) = part
            && r.to.ty(*x).dtype.is_float()
        {
            *x = cast(r, *x, DType::F32)?;
        }
    }
    let mut args: Vec<ValueId> = Vec::new();
    for part in &read {
        if let Part::Value(x) = part
            && !args.contains(x)
        {
            args.push(*x);
        }
    }
    let body = Body::build(args.len(), |b| {
        let ids: Vec<u32> = read
            .iter()
            .map(|part| match part {
                Part::Value(x) => b.arg(args.iter().position(|a| a == x).expect("collected above")),
                Part::Literal(body) => {
                    let literal = b.inline(body, Some(&[]));
                    // A literal that was rounded by a cast is as narrow as the operands were.
                    let narrow = matches!(dtype(body), DType::F16 | DType::BF16) && !args.is_empty();
                    if narrow { b.cast(DType::F32, literal) } else { literal }
                }
            })
            .collect();
        b.add(with_children(node, &ids))
    });
    if args.is_empty() {
        return Ok(Part::Literal(body));
    }
    Ok(Part::Value(r.to.try_push(Map { body }, &args)?))
}

/// The type of an expression of literals.
fn dtype(literal: &Body) -> DType {
    literal.infer(&[]).ok().and_then(|t| t.last().copied()).unwrap_or(DType::F32)
}

/// The one spelling of a primitive and its operands.
fn ordered(node: Scalar, mut read: Vec<Part>) -> (Scalar, Vec<Part>) {
    let Scalar::Binary(op, x, y) = node else { return (node, read) };
    let literal = |p: &Part| matches!(p, Part::Literal(_));
    let (left, right) = (literal(&read[0]), literal(&read[1]));
    let flipped = match op {
        Binary::Lt => Binary::Gt,
        Binary::Le => Binary::Ge,
        Binary::Gt => Binary::Lt,
        Binary::Ge => Binary::Le,
        op => op,
    };
    let to_swap = match op {
        Binary::Lt | Binary::Le => left && !right,
        Binary::Gt | Binary::Ge => !right,
        op => op.commutes() && left && !right,
    };
    if to_swap {
        read.swap(0, 1);
        return (Scalar::Binary(flipped, x, y), read);
    }
    if let (Binary::Sub, Part::Literal(body)) = (op, &read[1])
        && let [Scalar::Float(c)] = body.nodes()
    {
        read[1] = Part::Literal(Body::build(0, |b| b.float(-c.0)));
        return (Scalar::Binary(Binary::Add, x, y), read);
    }
    (node, read)
}

fn with_children(node: Scalar, ids: &[u32]) -> Scalar {
    match node {
        Scalar::Unary(op, _) => Scalar::Unary(op, ids[0]),
        Scalar::Binary(op, ..) => Scalar::Binary(op, ids[0], ids[1]),
        Scalar::Select(..) => Scalar::Select(ids[0], ids[1], ids[2]),
        Scalar::Cast(dtype, _) => Scalar::Cast(dtype, ids[0]),
        Scalar::Bits(dtype, _) => Scalar::Bits(dtype, ids[0]),
        Scalar::Arg(_) | Scalar::Float(_) | Scalar::Int(_) | Scalar::Uint(_) | Scalar::Bool(_) => node,
    }
}

/// A conversion, left out if nothing changes.
fn cast(r: &mut Rebuild, x: ValueId, dtype: DType) -> Result<ValueId, Diagnostic> {
    if r.to.ty(x).dtype == dtype { Ok(x) } else { r.to.try_push(Map { body: Body::cast(dtype) }, &[x]) }
}
