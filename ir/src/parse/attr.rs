//! Types, attributes and the elements of constants.

use super::cursor::{Cursor, unknown};
use crate::attr::{Attr, AttrKind, Literal};
use crate::diag::{Diagnostic, Place};
use crate::dim::Dim;
use crate::dtype::{DType, Packed, f32_to_bf16, f32_to_f16};
use crate::lex::Kind;
use crate::ops::OpKind;
use crate::scalar::F64;
use crate::shape::{Shape, TensorType};
use crate::spec::ContractSpec;

/// Whole numbers are at most this, except in bodies and constants: sums and products of a few stay within 64 bits.
const LARGEST: i64 = (1 << 40) - 1;

/// Attributes as read; those that follow the statement's type come from [`Pending::finish`].
pub(super) struct Pending {
    kind: OpKind,
    place: Place,
    read: Vec<Option<Reading>>,
}

enum Reading {
    Done(Attr),
    /// A constant's elements wait for the dtype.
    Elements(Vec<Element>),
}

/// One element of a constant: sign, text, place.
struct Element {
    negative: bool,
    text: String,
    place: Place,
}

impl Pending {
    /// All attributes in declared order, now that the statement's type is known.
    pub fn finish(self, ty: &TensorType) -> Result<Vec<Attr>, Diagnostic> {
        let declared = self.kind.attributes();
        let mut attrs = Vec::new();
        for ((name, kind, _), reading) in declared.iter().zip(self.read) {
            attrs.push(match reading {
                Some(Reading::Done(attr)) => attr,
                Some(Reading::Elements(elements)) => Attr::Data(encode(&elements, ty.dtype)?),
                None if *kind == AttrKind::Type => Attr::Type(ty.clone()),
                None => {
                    let what = match kind {
                        AttrKind::Text => "its name in quotes".to_string(),
                        AttrKind::Data => "its elements".to_string(),
                        _ => format!("`{name}=…`"),
                    };
                    return Err(
                        Diagnostic::new("P6", format!("`{}` needs {what}", self.kind.text())).at(Some(self.place))
                    );
                }
            });
        }
        Ok(attrs)
    }
}

impl Cursor<'_> {
    /// The attributes of an operator, up to the `:`. Strings and elements have no name; the order is free.
    pub fn attributes(&mut self, kind: OpKind) -> Result<Pending, Diagnostic> {
        let declared = kind.attributes();
        let mut read: Vec<Option<Reading>> = declared.iter().map(|_| None).collect();
        let place = self.place();
        while !self.is(":") && !self.at_line_end() {
            let place = self.place();
            let unnamed = match self.peek() {
                Kind::Text(_) => Some(AttrKind::Text),
                Kind::Hex | Kind::Mark("[") => Some(AttrKind::Data),
                _ => None,
            };
            let slot = match unnamed {
                Some(wanted) => declared.iter().position(|(_, k, _)| *k == wanted),
                None => {
                    let name = self.word()?;
                    let names = declared.iter().filter(|(_, k, _)| *k != AttrKind::Type).map(|(n, _, _)| *n);
                    let slot = names.clone().position(|n| n == name).ok_or_else(|| {
                        unknown(&format!("attribute of `{}`", kind.text()), name, names).at(Some(place))
                    })?;
                    self.mark("=")?;
                    Some(slot)
                }
            };
            let Some(slot) = slot else {
                return Err(self.expected(&format!("an attribute of `{}` or `:`", kind.text())));
            };
            let reading = self.reading(kind, declared[slot].1)?;
            if read[slot].replace(reading).is_some() {
                return Err(Diagnostic::new("P6", format!("`{}` is given twice", declared[slot].0)).at(Some(place)));
            }
        }
        Ok(Pending { kind, place, read })
    }
    fn reading(&mut self, op: OpKind, kind: AttrKind) -> Result<Reading, Diagnostic> {
        Ok(Reading::Done(match kind {
            AttrKind::Int => Attr::Int(self.integer(-LARGEST, LARGEST)?),
            AttrKind::Ints => Attr::Ints(self.list(|c| c.integer(-LARGEST, LARGEST))?),
            AttrKind::Pairs => Attr::Pairs(self.list(|c| {
                let first = c.integer(-LARGEST, LARGEST)?;
                c.mark(":")?;
                Ok((first, c.integer(-LARGEST, LARGEST)?))
            })?),
            AttrKind::Float => Attr::Float(F64(self.float()?)),
            AttrKind::Flag => {
                let place = self.place();
                match self.word()? {
                    "true" => Attr::Flag(true),
                    "false" => Attr::Flag(false),
                    other => return Err(unknown("truth value", other, ["true", "false"]).at(Some(place))),
                }
            }
            AttrKind::Text => Attr::Text(self.text()?),
            AttrKind::Word => Attr::Word(self.word()?.to_string()),
            AttrKind::DType => Attr::DType(self.dtype()?),
            AttrKind::Shape => Attr::Shape(self.shape()?),
            AttrKind::Type => Attr::Type(self.tensor_type()?),
            AttrKind::Body => Attr::Body(self.body()?),
            AttrKind::Spec => Attr::Spec(self.spec(op)?),
            AttrKind::Data => return self.elements(),
        }))
    }
    /// `[a,b,…]`
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T, Diagnostic>) -> Result<Vec<T>, Diagnostic> {
        let mut items = Vec::new();
        self.mark("[")?;
        while !self.take("]") {
            items.push(item(self)?);
            if !self.take(",") && !self.is("]") {
                return Err(self.expected("`,` or `]`"));
            }
        }
        Ok(items)
    }
    /// A float with an optional sign: `1.0`, `-2e-3`, `inf`, `nan`; whole numbers, too.
    fn float(&mut self) -> Result<f64, Diagnostic> {
        let negative = self.take("-");
        let place = self.place();
        let text = if self.is_word("inf") || self.is_word("nan") { self.word()? } else { self.number()? };
        let value: f64 =
            text.parse().map_err(|_| Diagnostic::new("P7", format!("`{text}` is not a float")).at(Some(place)))?;
        Ok(if negative { -value } else { value })
    }
    /// A type: `f32[B,4*N]`.
    pub fn tensor_type(&mut self) -> Result<TensorType, Diagnostic> {
        let dtype = self.dtype()?;
        Ok(TensorType { dtype, shape: self.shape()? })
    }
    fn dtype(&mut self) -> Result<DType, Diagnostic> {
        let place = self.place();
        let word = self.word()?;
        if let Some(dtype) = DType::plain(word) {
            return Ok(dtype);
        }
        let bits = match word {
            "q4" => 4,
            "q8" => 8,
            _ => {
                let plain: Vec<String> = DType::PLAIN.iter().map(DType::to_string).collect();
                let known = plain.iter().map(String::as_str).chain(["q4", "q8"]);
                return Err(unknown("dtype", word, known).at(Some(place)));
            }
        };
        // As printed: q4<axis=0,group=32,scale=f16,zero>
        self.mark("<")?;
        let axis = self.field("axis", |c| c.integer(0, u8::MAX.into()))? as u8;
        self.mark(",")?;
        let group = self.field("group", |c| c.integer(0, u32::MAX.into()))? as u32;
        self.mark(",")?;
        let scale_place = self.place();
        let scale_f16 = match self.field("scale", Cursor::word)? {
            "f16" => true,
            "f32" => false,
            other => return Err(unknown("scale dtype", other, ["f16", "f32"]).at(Some(scale_place))),
        };
        let zero_point = self.take(",");
        if zero_point && !self.take_word("zero") {
            return Err(self.expected("`zero`"));
        }
        self.mark(">")?;
        Ok(DType::Packed(Packed { bits, axis, group, scale_f16, zero_point }))
    }
    fn field<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> Result<T, Diagnostic>) -> Result<T, Diagnostic> {
        if !self.take_word(name) {
            return Err(self.expected(&format!("`{name}`")));
        }
        self.mark("=")?;
        read(self)
    }
    /// `[B,4*N,B*N+1]`; the number of elements (symbols as 1) stays below 2^60.
    fn shape(&mut self) -> Result<Shape, Diagnostic> {
        let place = self.place();
        let mut elements = 1f64;
        let dims = self.list(|c| {
            let (dim, size) = c.dim()?;
            elements *= size.max(1.0);
            Ok(dim)
        })?;
        if elements >= 2f64.powi(60) {
            return Err(Diagnostic::new("P7", "the shape has too many elements").at(Some(place)));
        }
        Ok(Shape(dims))
    }
    /// A sum of products, and the sum of its coefficients' magnitudes.
    fn dim(&mut self) -> Result<(Dim, f64), Diagnostic> {
        let place = self.place();
        let mut sum = Dim::new(0);
        let mut size = 0f64;
        let mut negative = self.take("-");
        loop {
            let mut product = Dim::new(1);
            let mut magnitude = 1f64;
            loop {
                let factor = match self.peek() {
                    Kind::Word => Dim::symbol(self.word()?),
                    _ => {
                        let n = self.integer(0, LARGEST)?;
                        magnitude *= n as f64;
                        Dim::new(n as usize)
                    }
                };
                if magnitude > LARGEST as f64 {
                    return Err(Diagnostic::new("P7", "the extent is too large").at(Some(place)));
                }
                product = &product * &factor;
                if !self.take("*") {
                    break;
                }
            }
            size += magnitude;
            if size > LARGEST as f64 {
                return Err(Diagnostic::new("P7", "the extent is too large").at(Some(place)));
            }
            sum = if negative { &sum - &product } else { &sum + &product };
            negative = match () {
                () if self.take("+") => false,
                () if self.take("-") => true,
                () => return Ok((sum, size)),
            };
        }
    }
    /// `[bik,kj->bij]`
    fn spec(&mut self, op: OpKind) -> Result<ContractSpec, Diagnostic> {
        let place = self.place();
        self.mark("[")?;
        let start = self.start();
        while !self.is("]") {
            if self.at_line_end() {
                return Err(self.expected("`]`"));
            }
            self.skip();
        }
        let text = self.source_from(start);
        self.mark("]")?;
        ContractSpec::parse(text.trim()).map_err(|message| {
            match message.split_once(": ") {
                Some((code, rest)) if code.starts_with('C') => Diagnostic::new(format!("{} {code}", op.text()), rest),
                _ => Diagnostic::new("P6", message).help("write it as `[ik,kj->ij]`"),
            }
            .at(Some(place))
        })
    }
    /// `[1.0, 2.0]` or `0x…`
    fn elements(&mut self) -> Result<Reading, Diagnostic> {
        let place = self.place();
        if let Some(hex) = self.hex() {
            let pairs = hex.as_bytes().chunks(2);
            let byte = |p: &[u8]| {
                std::str::from_utf8(p).ok().filter(|p| p.len() == 2).and_then(|p| u8::from_str_radix(p, 16).ok())
            };
            let bytes: Option<Vec<u8>> = pairs.map(byte).collect();
            let bytes =
                bytes.ok_or_else(|| Diagnostic::new("P7", "bytes have two hexadecimal digits each").at(Some(place)))?;
            return Ok(Reading::Done(Attr::Data(Literal(bytes.into()))));
        }
        let elements = self.list(|c| {
            let place = c.place();
            let negative = c.take("-");
            let text = if *c.peek() == Kind::Word { c.word()? } else { c.number()? };
            Ok(Element { negative, text: text.to_string(), place })
        })?;
        Ok(Reading::Elements(elements))
    }
}

/// Little-endian bytes of a constant's elements.
fn encode(elements: &[Element], dtype: DType) -> Result<Literal, Diagnostic> {
    let mut bytes = Vec::new();
    for Element { negative, text, place } in elements {
        let sign = if *negative { "-" } else { "" };
        let signed = format!("{sign}{text}");
        let bad = || Diagnostic::new("P7", format!("`{signed}` is not a value of {dtype}")).at(Some(*place));
        let float = || {
            let plain = text.bytes().all(|c| c.is_ascii_digit() || b".+-eE".contains(&c));
            if !plain && !["inf", "nan"].contains(&text.as_str()) {
                return Err(bad());
            }
            let value: f32 = text.parse().map_err(|_| bad())?;
            Ok(if *negative { -value } else { value })
        };
        match dtype {
            DType::F32 => bytes.extend(float()?.to_le_bytes()),
            DType::F16 => bytes.extend(f32_to_f16(float()?).to_le_bytes()),
            DType::BF16 => bytes.extend(f32_to_bf16(float()?).to_le_bytes()),
            DType::I32 => bytes.extend(signed.parse::<i32>().map_err(|_| bad())?.to_le_bytes()),
            DType::U32 => bytes.extend(signed.parse::<u32>().map_err(|_| bad())?.to_le_bytes()),
            DType::Bool => bytes.push(signed.parse::<bool>().map_err(|_| bad())?.into()),
            DType::Packed(_) => {
                return Err(Diagnostic::new("const C2", "constants have plain dtypes").at(Some(*place)));
            }
        }
    }
    Ok(Literal(bytes.into()))
}
