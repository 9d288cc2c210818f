//! Bodies as text.

use super::{Binary, Body, F64, Scalar, ScalarId, children};
use std::fmt;

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
