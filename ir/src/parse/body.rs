//! Scalar bodies: infix operators by the precedence table, primitives and casts as calls, literals, `let`.

use super::cursor::{Cursor, unknown};
use crate::diag::Diagnostic;
use crate::dtype::DType;
use crate::lex::{Kind, is_word};
use crate::scalar::{Binary, Body, BodyBuilder, Scalar, ScalarId, Unary, precedence};
use std::collections::HashMap;

/// Expressions nest at most this deep; the parser is recursive.
const DEEPEST: usize = 400;

struct Expressions<'c, 'a, 'b> {
    cursor: &'c mut Cursor<'a>,
    builder: &'b mut BodyBuilder,
    names: HashMap<String, ScalarId>,
    depth: usize,
}

impl Cursor<'_> {
    /// `{x, y| let t0 = exp(x); t0 * y}`
    pub fn body(&mut self) -> Result<Body, Diagnostic> {
        self.mark("{")?;
        let mut args = Vec::new();
        while !self.take("|") {
            let place = self.place();
            let name = self.word()?.to_string();
            if args.contains(&name) {
                return Err(Diagnostic::new("P4", format!("argument `{name}` is named twice")).at(Some(place)));
            }
            args.push(name);
            if !self.take(",") && !self.is("|") {
                return Err(self.expected("`,` or `|`"));
            }
        }
        let mut result = Ok(());
        let body = Body::build(args.len(), |builder| {
            let names = args.iter().enumerate().map(|(i, name)| (name.clone(), builder.arg(i))).collect();
            let read = Expressions { cursor: self, builder, names, depth: 0 }.statements();
            read.unwrap_or_else(|error| {
                result = Err(error);
                builder.float(0.0)
            })
        });
        result?;
        self.mark("}")?;
        Ok(body)
    }
}

impl Expressions<'_, '_, '_> {
    fn statements(mut self) -> Result<ScalarId, Diagnostic> {
        while self.cursor.take_word("let") {
            let place = self.cursor.place();
            let name = self.cursor.word()?.to_string();
            self.cursor.mark("=")?;
            let value = self.infix(0)?;
            self.cursor.mark(";")?;
            if self.names.insert(name.clone(), value).is_some() {
                return Err(Diagnostic::new("P4", format!("`{name}` is named twice")).at(Some(place)));
            }
        }
        self.infix(0)
    }
    /// An expression whose infix operators bind at least as strongly as `least`.
    fn infix(&mut self, least: u8) -> Result<ScalarId, Diagnostic> {
        if self.depth == DEEPEST {
            return Err(self.cursor.expected(&format!("an expression nested less than {DEEPEST} deep")));
        }
        self.depth += 1;
        let mut left = self.operand()?;
        while let Some((op, level)) = self.operator().filter(|(_, level)| *level >= least) {
            self.cursor.skip();
            let right = self.infix(level + 1)?; // left-associative
            left = self.builder.binary(op, left, right);
        }
        self.depth -= 1;
        Ok(left)
    }
    fn operator(&self) -> Option<(Binary, u8)> {
        let Kind::Mark(mark) = self.cursor.peek() else { return None };
        let op = Binary::parse(mark)?;
        Some((op, precedence(op)?))
    }
    fn operand(&mut self) -> Result<ScalarId, Diagnostic> {
        let place = self.cursor.place();
        if self.cursor.take("(") {
            let inner = self.infix(0)?;
            self.cursor.mark(")")?;
            return Ok(inner);
        }
        let negative = self.cursor.take("-");
        let literal = *self.cursor.peek() == Kind::Number || self.cursor.is_word("inf") || self.cursor.is_word("nan");
        if literal {
            let text = self.cursor.slice();
            self.cursor.skip();
            let node = number(text, negative);
            return node.map(|n| self.builder.add(n)).ok_or_else(|| {
                let sign = if negative { "-" } else { "" };
                Diagnostic::new(
                    "P7",
                    format!("`{sign}{text}` is not a literal: floats have a point, i32 an `i`, u32 a `u`"),
                )
                .at(Some(place))
            });
        }
        if negative {
            if self.depth == DEEPEST {
                return Err(self.cursor.expected(&format!("an expression nested less than {DEEPEST} deep")));
            }
            self.depth += 1;
            let x = self.operand()?;
            self.depth -= 1;
            return Ok(self.builder.unary(Unary::Neg, x));
        }
        let word = match self.cursor.peek() {
            Kind::Word => self.cursor.word()?,
            _ => return Err(self.cursor.expected("an expression")),
        };
        if self.cursor.take("(") {
            return self.call(word).map_err(|d| d.at(Some(place)));
        }
        match word {
            "true" => Ok(self.builder.add(Scalar::Bool(true))),
            "false" => Ok(self.builder.add(Scalar::Bool(false))),
            name => self
                .names
                .get(name)
                .copied()
                .ok_or_else(|| unknown("name", name, self.names.keys().map(String::as_str)).at(Some(place))),
        }
    }
    /// A primitive or cast, after its `(`.
    fn call(&mut self, word: &str) -> Result<ScalarId, Diagnostic> {
        let mut args = Vec::new();
        while !self.cursor.take(")") {
            args.push(self.infix(0)?);
            if !self.cursor.take(",") && !self.cursor.is(")") {
                return Err(self.cursor.expected("`,` or `)`"));
            }
        }
        let count = |n: usize| match args.len() {
            found if found == n => Ok(()),
            found => Err(Diagnostic::new("P2", format!("`{word}` takes {n} arguments")).expected_found(n, found)),
        };
        let bits = word.strip_prefix("bits_").and_then(DType::plain);
        let node = match (Unary::parse(word), Binary::parse(word).filter(|b| precedence(*b).is_none())) {
            (Some(op), _) => count(1).map(|()| Scalar::Unary(op, args[0])),
            (None, Some(op)) => count(2).map(|()| Scalar::Binary(op, args[0], args[1])),
            (None, None) if word == "select" => count(3).map(|()| Scalar::Select(args[0], args[1], args[2])),
            (None, None) => match (DType::plain(word), bits) {
                (Some(dtype), _) => count(1).map(|()| Scalar::Cast(dtype, args[0])),
                (None, Some(dtype)) => count(1).map(|()| Scalar::Bits(dtype, args[0])),
                (None, None) => {
                    let binary = Binary::ALL.iter().map(|b| b.text()).filter(|t| is_word(t));
                    let known = Unary::ALL.iter().map(|u| u.text()).chain(binary).chain(["select"]);
                    Err(unknown("primitive", word, known))
                }
            },
        }?;
        Ok(self.builder.add(node))
    }
}

/// A literal: `1.0`, `inf`, `3i`, `3u`.
fn number(text: &str, negative: bool) -> Option<Scalar> {
    let signed = format!("{}{text}", if negative { "-" } else { "" });
    if let Some(digits) = signed.strip_suffix('i') {
        return digits.parse().ok().map(Scalar::Int);
    }
    if let Some(digits) = signed.strip_suffix('u') {
        return digits.parse().ok().map(Scalar::Uint);
    }
    let whole = text.bytes().all(|c| c.is_ascii_digit());
    if whole { None } else { signed.parse().ok().map(|x| Scalar::Float(crate::scalar::F64(x))) }
}
