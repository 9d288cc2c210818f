//! Scalar bodies as straight-line WGSL.

use crate::memory::register;
use selvedge_ir::DType;
use selvedge_ir::dtype::Class;
use selvedge_ir::scalar::{Binary, Body, F64, Scalar, Unary};

/// Appends `let` statements that compute a body, and returns the result as an expression without side effects.
///
/// `args` are expressions of the arguments in their register types ([`register`]), repeated as often as the body
/// uses them: pass names. `fresh` gives names not used before in the function. Floats are computed in f32; the result
/// is not rounded to a narrower dtype, even if it is a cast to it (see [`crate::memory::round`]). The meaning is that of
/// `selvedge_ir::scalar`.
///
/// # Panics
/// If the body is not well-typed for the dtypes; the verifier has refused such a map.
pub fn emit(
    body: &Body,
    args: &[String],
    dtypes: &[DType],
    fresh: &mut dyn FnMut() -> String,
    out: &mut Vec<String>,
) -> String {
    let types = body.infer(dtypes).expect("the verifier accepts only well-typed bodies");
    let mut texts: Vec<String> = Vec::with_capacity(types.len());
    for (id, (node, &dtype)) in body.nodes().iter().zip(&types).enumerate() {
        let last = id as u32 == body.result();
        let value = match *node {
            Scalar::Arg(i) => {
                texts.push(args[i as usize].clone());
                continue;
            }
            Scalar::Cast(DType::F16 | DType::BF16, x) if last => {
                cast(types[x as usize].class(), DType::F32, &texts[x as usize])
            }
            node => expression(node, dtype, &types, &texts),
        };
        // Literals get a name too: operands of a named value are not evaluated at compile time, where WGSL refuses
        // overflow, division by zero and non-finite results.
        let name = fresh();
        out.push(format!("let {name}: {} = {value};", register(dtype)));
        texts.push(name);
    }
    texts.pop().expect("a body has a result")
}

fn expression(node: Scalar, dtype: DType, types: &[DType], texts: &[String]) -> String {
    let text = |id: u32| texts[id as usize].as_str();
    let class = |id: u32| types[id as usize].class();
    match node {
        Scalar::Arg(_) => unreachable!("arguments are named by the caller"),
        Scalar::Float(F64(x)) => float(x),
        Scalar::Int(x) => format!("i32({x})"),
        Scalar::Uint(x) => format!("{x}u"),
        Scalar::Bool(x) => x.to_string(),
        Scalar::Unary(op, x) => unary(op, class(x), text(x)),
        Scalar::Binary(op, x, y) => binary(op, class(x), text(x), text(y)),
        Scalar::Select(c, x, y) => format!("select({}, {}, {})", text(y), text(x), text(c)),
        Scalar::Cast(to, x) => cast(class(x), to, text(x)),
        Scalar::Bits(_, x) => format!("bitcast<{}>({})", register(dtype), text(x)),
    }
}

/// A float literal rounded to f32; the parser of WGSL reads the same f32. Infinities and NaN come from their bits.
pub fn float(x: f64) -> String {
    let x = x as f32;
    if x.is_finite() { format!("{x:?}f") } else { format!("float_bits({:#010x}u)", x.to_bits()) }
}

fn unary(op: Unary, class: Class, x: &str) -> String {
    match (op, class) {
        (Unary::Neg, Class::Unsigned) => format!("0u - {x}"),
        (Unary::Neg, _) => format!("-{x}"),
        (Unary::Not, Class::Bool) => format!("!{x}"),
        (Unary::Not, _) => format!("~{x}"),
        (Unary::Abs, Class::Unsigned) => x.to_string(),
        (Unary::Abs, _) => format!("abs({x})"),
        (Unary::Sign, Class::Unsigned) => format!("min({x}, 1u)"),
        (Unary::Sign, Class::Signed) => format!("clamp({x}, -1, 1)"),
        (Unary::Sign, _) => format!("sign_of({x})"),
        (Unary::Floor, _) => format!("floor({x})"),
        (Unary::Ceil, _) => format!("ceil({x})"),
        (Unary::Round, _) => format!("round({x})"),
        (Unary::Trunc, _) => format!("trunc({x})"),
        (Unary::Exp, _) => format!("exp_of({x})"),
        (Unary::Exp2, _) => format!("exp2_of({x})"),
        (Unary::Log, _) => format!("log_of({x})"),
        (Unary::Log2, _) => format!("log2_of({x})"),
        (Unary::Sqrt, _) => format!("sqrt({x})"),
        (Unary::Rsqrt, _) => format!("inverseSqrt({x})"),
        (Unary::Sin, _) => format!("sin_of({x})"),
        (Unary::Cos, _) => format!("cos_of({x})"),
        (Unary::Tanh, _) => format!("tanh_of({x})"),
        (Unary::Erf, _) => format!("erf_of({x})"),
        (Unary::Sigmoid, _) => format!("sigmoid_of({x})"),
    }
}

fn binary(op: Binary, class: Class, x: &str, y: &str) -> String {
    let float = class == Class::Float;
    match op {
        Binary::Div | Binary::Rem => {
            let name = if op == Binary::Div { "div" } else { "rem" };
            match class {
                Class::Signed => format!("i32_{name}({x}, {y})"),
                Class::Unsigned | Class::Bool => format!("u32_{name}({x}, {y})"),
                Class::Float if op == Binary::Div => format!("{x} / {y}"),
                Class::Float => format!("f32_rem({x}, {y})"),
            }
        }
        Binary::Pow => format!("pow_of({x}, {y})"),
        Binary::Min | Binary::Max if float => format!("{}_of({x}, {y})", op.text()),
        Binary::Min | Binary::Max => format!("{}({x}, {y})", op.text()),
        // Drivers may compile `!=` of floats to a comparison that is false for NaN.
        Binary::Ne if float => format!("!({x} == {y})"),
        Binary::Shl | Binary::Shr => {
            let count = if class == Class::Signed { format!("bitcast<u32>({y})") } else { y.to_string() };
            format!("{x} {} ({count} & 31u)", op.text())
        }
        // `^` and the comparison operators exist for integers and, below, for bool as inequality.
        Binary::Xor if class == Class::Bool => format!("{x} != {y}"),
        Binary::Add
        | Binary::Sub
        | Binary::Mul
        | Binary::Lt
        | Binary::Le
        | Binary::Gt
        | Binary::Ge
        | Binary::Eq
        | Binary::Ne
        | Binary::And
        | Binary::Or
        | Binary::Xor => format!("{x} {} {y}", op.text()),
    }
}

fn cast(from: Class, to: DType, x: &str) -> String {
    let wide = match from {
        Class::Float => x.to_string(),
        Class::Signed | Class::Unsigned => format!("f32({x})"),
        Class::Bool => format!("select(0.0, 1.0, {x})"),
    };
    match (to, from) {
        (DType::F32 | DType::Packed(_), _) => wide,
        (DType::F16, _) => format!("round_f16({wide})"),
        (DType::BF16, _) => format!("round_bf16({wide})"),
        (DType::I32, Class::Float) => format!("f32_to_i32({x})"),
        (DType::U32, Class::Float) => format!("f32_to_u32({x})"),
        (DType::I32, Class::Signed | Class::Unsigned | Class::Bool) => format!("i32({x})"),
        (DType::U32, Class::Signed | Class::Unsigned | Class::Bool) => format!("u32({x})"),
        (DType::Bool, Class::Float) => format!("!({x} == 0.0)"),
        (DType::Bool, Class::Signed | Class::Unsigned) => {
            format!("{x} != {}(0)", if from == Class::Signed { "i32" } else { "u32" })
        }
        (DType::Bool, Class::Bool) => x.to_string(),
    }
}
