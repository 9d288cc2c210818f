//! Tokens of the text form.
//!
//! The text is line-oriented: a line end is a token, and errors stay within their line.

use crate::diag::{Diagnostic, Place};

/// What a token is; its text is a slice of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A word: letter or `_`, then letters, digits, `_`.
    Word,
    /// `%name`, without the sign.
    Value(String),
    /// `@name`, without the sign.
    Function(String),
    /// A quoted string, its escapes resolved.
    Text(String),
    /// Digits with an optional fraction, exponent and suffix `i` or `u`; never a sign.
    Number,
    /// `0x…`: bytes in order, two digits each.
    Hex,
    /// Punctuation: one of [`PUNCTUATION`].
    Mark(&'static str),
    /// End of a line.
    Line,
    /// End of the text.
    End,
}

/// A token with its place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Line and column, from 1; columns count characters.
    pub place: Place,
}

/// All punctuation, longest first.
pub const PUNCTUATION: [&str; 29] = [
    "->", "<<", ">>", "<=", ">=", "==", "!=", "(", ")", "[", "]", "{", "}", ",", ":", ";", "=", "|", "+", "-", "*",
    "/", "%", "<", ">", "&", "^", "!", "?",
];

/// True for a word of the text form, which needs no quotes.
pub fn is_word(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_')
        && bytes.all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// True for a name that needs no quotes after `%` or `@`: letters, digits, `_` and `.`, at least one.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_name_byte)
}

fn is_name_byte(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c == b'.'
}

/// Splits a text into tokens; the last is [`Kind::End`]. Characters that begin no token are reported and left out.
pub fn lex(source: &str) -> (Vec<Token>, Vec<Diagnostic>) {
    let mut lexer = Lexer { source, at: 0, line: 1, column: 1, counted: 0, tokens: Vec::new(), errors: Vec::new() };
    lexer.run();
    (lexer.tokens, lexer.errors)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
    /// Column of byte `counted`.
    column: u32,
    counted: usize,
    tokens: Vec<Token>,
    errors: Vec<Diagnostic>,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(c) = self.rest().chars().next() {
            let start = self.at;
            let place = self.place();
            let kind = match c {
                '\n' => {
                    self.at += 1;
                    self.push(Kind::Line, start, place);
                    self.line += 1;
                    (self.column, self.counted) = (1, self.at);
                    continue;
                }
                ' ' | '\t' | '\r' => {
                    self.at += 1;
                    continue;
                }
                '/' if self.rest().starts_with("//") => {
                    self.at += self.rest().find('\n').unwrap_or(self.rest().len());
                    continue;
                }
                '"' => self.text().map(Kind::Text),
                '%' if self.starts_name() => self.name().map(Kind::Value),
                '@' => self.name().map(Kind::Function),
                '0' if self.rest().starts_with("0x") => {
                    self.at += 2;
                    self.take_while(|c| c.is_ascii_hexdigit());
                    Some(Kind::Hex)
                }
                '0'..='9' => {
                    self.number();
                    Some(Kind::Number)
                }
                'a'..='z' | 'A'..='Z' | '_' => {
                    self.take_while(|c| c.is_ascii_alphanumeric() || c == b'_');
                    Some(Kind::Word)
                }
                _ => {
                    let mark = PUNCTUATION.into_iter().find(|p| self.rest().starts_with(p));
                    self.at += mark.map_or(c.len_utf8(), str::len);
                    if mark.is_none() {
                        self.error(place, format!("the character {c:?} begins nothing"));
                    }
                    mark.map(Kind::Mark)
                }
            };
            if let Some(kind) = kind {
                self.push(kind, start, place);
            }
        }
        let (at, place) = (self.at, self.place());
        self.push(Kind::Line, at, place);
        self.push(Kind::End, at, place);
    }
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }
    fn place(&mut self) -> Place {
        self.column += self.source[self.counted..self.at].chars().count() as u32;
        self.counted = self.at;
        Place::Text { line: self.line, column: self.column }
    }
    fn push(&mut self, kind: Kind, start: usize, place: Place) {
        self.tokens.push(Token { kind, start, end: self.at, place });
    }
    fn error(&mut self, place: Place, message: String) {
        self.errors.push(Diagnostic::new("P1", message).at(Some(place)));
    }
    fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> String {
        let taken = self.rest().bytes().take_while(|&c| accept(c)).count();
        let text = self.rest()[..taken].to_string();
        self.at += taken;
        text
    }
    /// A `%` begins a name only if a name or a quote follows at once, and is not the remainder of a body:
    /// there, blanks surround it.
    fn starts_name(&self) -> bool {
        self.rest().as_bytes().get(1).is_some_and(|&c| is_name_byte(c) || c == b'"')
    }
    fn name(&mut self) -> Option<String> {
        let place = self.place();
        self.at += 1;
        if self.rest().starts_with('"') {
            return self.text();
        }
        let name = self.take_while(is_name_byte);
        if name.is_empty() {
            self.error(place, "a name follows `@` at once".to_string());
            return None;
        }
        Some(name)
    }
    fn number(&mut self) {
        self.take_while(|c| c.is_ascii_digit());
        let digit = |c: Option<&u8>| c.is_some_and(u8::is_ascii_digit);
        if self.rest().starts_with('.') && digit(self.rest().as_bytes().get(1)) {
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
        }
        let bytes = self.rest().as_bytes();
        let signed = matches!(bytes.get(1), Some(b'+' | b'-'));
        if matches!(bytes.first(), Some(b'e' | b'E')) && digit(bytes.get(1 + signed as usize)) {
            self.at += 1 + signed as usize;
            self.take_while(|c| c.is_ascii_digit());
        }
        if matches!(self.rest().as_bytes().first(), Some(b'i' | b'u')) {
            self.at += 1;
        }
    }
    /// Reads a quoted string with Rust's escapes; a string ends in its line.
    fn text(&mut self) -> Option<String> {
        let place = self.place();
        let source = self.source;
        let line = source[self.at..].lines().next().unwrap_or("");
        let mut text = String::new();
        let mut chars = line.char_indices().skip(1);
        let mut good = true;
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += i + 1;
                    return good.then_some(text);
                }
                '\\' => {
                    let resolved = match chars.next().map(|(_, c)| c) {
                        Some('n') => Some('\n'),
                        Some('r') => Some('\r'),
                        Some('t') => Some('\t'),
                        Some('0') => Some('\0'),
                        Some(c @ ('"' | '\\' | '\'')) => Some(c),
                        Some('u') => {
                            let digits: String = chars.by_ref().map(|(_, c)| c).take_while(|&c| c != '}').collect();
                            let code = digits.strip_prefix('{').and_then(|d| u32::from_str_radix(d, 16).ok());
                            code.and_then(char::from_u32)
                        }
                        _ => None,
                    };
                    match resolved {
                        Some(c) => text.push(c),
                        None => {
                            good = false;
                            self.error(place, "an unknown escape in a string".to_string());
                        }
                    }
                }
                c => text.push(c),
            }
        }
        self.at += line.len();
        self.error(place, "a string that does not end in its line".to_string());
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_kinds_and_places() {
        let (tokens, errors) = lex("%a = \"x\\n\" 1.5e-3 3i 0xff // note\n  §@\"f g\"");
        let kinds: Vec<Kind> = tokens.into_iter().map(|t| t.kind).collect();
        let want = [
            Kind::Value("a".into()),
            Kind::Mark("="),
            Kind::Text("x\n".into()),
            Kind::Number,
            Kind::Number,
            Kind::Hex,
            Kind::Line,
            Kind::Function("f g".into()),
            Kind::Line,
            Kind::End,
        ];
        assert_eq!(kinds, want);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].place, Some(Place::Text { line: 2, column: 3 }));
    }
}
