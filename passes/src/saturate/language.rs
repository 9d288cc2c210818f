//! The e-graph's language: one node for all operators.

use egg::{ENodeOrVar, Id, Language, PatternAst, RecExpr, Var};
use selvedge_ir::attr::Attr;
use selvedge_ir::ops::Op;
use selvedge_ir::scalar::{Binary, Body, F64, Unary};
use selvedge_ir::spec::ContractSpec;
use selvedge_ir::{DType, OpKind};

/// An e-node. Attributes are leaves of their own, shared by value, so that a pattern can bind them; nothing here
/// depends on which operators there are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// A value from outside the graph: the result of a call. The number is its place in the function.
    Param(u32),
    /// The value of an attribute.
    Attr(Attr),
    /// An operator: its attributes in declared order, then its operands.
    Op(OpKind, Box<[Id]>),
}

/// What two nodes must share to match one pattern node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discriminant {
    /// See [`Node::Param`].
    Param,
    /// See [`Node::Attr`].
    Attr,
    /// See [`Node::Op`]; of any number of operands.
    Op(OpKind),
}

impl Language for Node {
    type Discriminant = Discriminant;
    fn discriminant(&self) -> Discriminant {
        match self {
            Node::Param(_) => Discriminant::Param,
            Node::Attr(_) => Discriminant::Attr,
            Node::Op(kind, _) => Discriminant::Op(*kind),
        }
    }
    fn matches(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::Param(a), Node::Param(b)) => a == b,
            (Node::Attr(a), Node::Attr(b)) => a == b,
            (Node::Op(a, x), Node::Op(b, y)) => a == b && x.len() == y.len(),
            _ => false,
        }
    }
    fn children(&self) -> &[Id] {
        match self {
            Node::Param(_) | Node::Attr(_) => &[],
            Node::Op(_, children) => children,
        }
    }
    fn children_mut(&mut self) -> &mut [Id] {
        match self {
            Node::Param(_) | Node::Attr(_) => &mut [],
            Node::Op(_, children) => children,
        }
    }
}

impl Node {
    /// Attribute classes and operand classes of an operator.
    pub fn parts(&self) -> Option<(OpKind, &[Id], &[Id])> {
        match self {
            Node::Op(kind, children) => {
                let (attributes, operands) = children.split_at(kind.attributes().len());
                Some((*kind, attributes, operands))
            }
            Node::Param(_) | Node::Attr(_) => None,
        }
    }
}

/// Reads a pattern: `(transpose ?p (transpose ?q ?x))`.
///
/// An operator takes its attributes in declared order, then its operands. An attribute is a variable or a literal:
/// `{exp}`, `{+}`, `{select}` (a body of one primitive), `{x| x * 0.5}` (any body), `[bik,kj->bij]`, `[0,2,1]`, `3`,
/// `1.5`, `true`, `f32`, or a word such as `sum`.
///
/// # Errors
/// What is wrong, for the author of the pattern.
pub fn pattern(text: &str) -> Result<PatternAst<Node>, String> {
    let tokens = tokens(text)?;
    let mut ast = PatternAst::<Node>::default();
    let mut rest = &tokens[..];
    term(&mut rest, &mut ast)?;
    match rest.first() {
        None => Ok(ast),
        Some(token) => Err(format!("`{token}` after the end of `{text}`")),
    }
}

/// Parentheses, `{…}`, `[…]`, and whatever stands between blanks.
fn tokens(text: &str) -> Result<Vec<&str>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' => 1,
            '{' | '[' => {
                let close = if first == '{' { '}' } else { ']' };
                rest.find(close).ok_or_else(|| format!("`{first}` is not closed in `{text}`"))? + 1
            }
            _ => rest.find(|c: char| c.is_whitespace() || "(){}[]".contains(c)).unwrap_or(rest.len()),
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn term(rest: &mut &[&str], ast: &mut PatternAst<Node>) -> Result<Id, String> {
    let (token, after) = rest.split_first().ok_or("a pattern ends too early")?;
    *rest = after;
    if *token == "(" {
        let (name, after) = rest.split_first().ok_or("`(` at the end")?;
        *rest = after;
        let kind = OpKind::parse(name).ok_or_else(|| format!("there is no operator `{name}`"))?;
        let mut children = Vec::new();
        while rest.first() != Some(&")") {
            children.push(term(rest, ast)?);
        }
        *rest = &rest[1..];
        let attributes = kind.attributes().len();
        let (least, most) = selvedge_ir::op::arity(kind.operands());
        if children.len() < attributes + least || children.len() > most.saturating_add(attributes) {
            return Err(format!("`{name}` takes {attributes} attributes and {:?}", kind.operands()));
        }
        return Ok(ast.add(ENodeOrVar::ENode(Node::Op(kind, children.into()))));
    }
    if token.starts_with('?') {
        let var: Var = token.parse().map_err(|e| format!("`{token}` is no variable: {e}"))?;
        return Ok(ast.add(ENodeOrVar::Var(var)));
    }
    Ok(ast.add(ENodeOrVar::ENode(Node::Attr(literal(token)?))))
}

fn literal(token: &str) -> Result<Attr, String> {
    if let Some(inside) = token.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        return Ok(Attr::Body(match inside.trim() {
            "select" => Body::build(3, |b| {
                let (c, x, y) = (b.arg(0), b.arg(1), b.arg(2));
                b.select(c, x, y)
            }),
            name => match (Unary::parse(name), Binary::parse(name)) {
                (Some(op), _) => Body::unary(op),
                (None, Some(op)) => Body::binary(op),
                (None, None) => selvedge_ir::parse::body(token).map_err(|d| format!("`{token}`: {d}"))?,
            },
        }));
    }
    if let Some(inside) = token.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        if inside.contains("->") {
            return ContractSpec::parse(inside).map(Attr::Spec);
        }
        let numbers = inside.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::parse);
        return Ok(Attr::Ints(numbers.collect::<Result<_, _>>().map_err(|e| format!("`{token}`: {e}"))?));
    }
    Ok(match token {
        "true" => Attr::Flag(true),
        "false" => Attr::Flag(false),
        ")" => return Err("`)` that opens nothing".to_string()),
        _ => match (token.parse::<i64>(), token.parse::<f64>(), DType::plain(token)) {
            (Ok(n), _, _) => Attr::Int(n),
            (_, Ok(x), _) => Attr::Float(F64(x)),
            (_, _, Some(dtype)) => Attr::DType(dtype),
            _ => Attr::Word(token.to_string()),
        },
    })
}

/// The pattern with the operands of each commuting map (`{+}`, `{*}`, `{min}` …) in either order: rules need no
/// commutativity, and the graph none of its growth.
///
/// # Errors
/// More commuting maps than a pattern may have.
pub fn commuted(ast: &PatternAst<Node>) -> Result<Vec<PatternAst<Node>>, String> {
    let nodes: Vec<&ENodeOrVar<Node>> = ast.iter().collect();
    let commutes = |children: &[Id]| {
        let [body, x, y] = children else { return false };
        let literal = match nodes[usize::from(*body)] {
            ENodeOrVar::ENode(Node::Attr(Attr::Body(body))) => body,
            _ => return false,
        };
        x != y && Binary::ALL.iter().any(|op| op.commutes() && *literal == Body::binary(*op))
    };
    let places: Vec<usize> = (0..nodes.len())
        .filter(|&i| matches!(nodes[i], ENodeOrVar::ENode(Node::Op(OpKind::Map, c)) if commutes(c)))
        .collect();
    if places.len() > 7 {
        return Err(format!("{} commuting maps in one pattern; split the rule", places.len()));
    }
    let variant = |chosen: u32| -> PatternAst<Node> {
        let mut changed: Vec<ENodeOrVar<Node>> = ast.iter().cloned().collect();
        for (bit, &i) in places.iter().enumerate() {
            if let (1, ENodeOrVar::ENode(Node::Op(_, children))) = (chosen >> bit & 1, &mut changed[i]) {
                children.swap(1, 2);
            }
        }
        RecExpr::from(changed)
    };
    Ok((0..1u32 << places.len()).map(variant).collect())
}

/// An operator as nodes see it: attributes that a class holds, put back together.
///
/// # Errors
/// The name of the attribute that is of another kind.
pub fn operator(kind: OpKind, attributes: &[Attr]) -> Result<Op, &'static str> {
    Op::from_attrs(kind, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read() {
        let ast = pattern("(map {*} (broadcast ?shape ?axes ?s) (contract [ik,kj->ij] f32 ?a ?b))").unwrap();
        assert_eq!(commuted(&ast).unwrap().len(), 2);
        assert!(pattern("(transpose ?p)").is_err() && pattern("(nothing ?p ?x)").is_err());
        assert!(pattern("(reduce sum [1] ?x").is_err() && pattern("?x ?y").is_err());
    }
}
