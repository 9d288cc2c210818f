//! A position in the tokens, and the readings that everything else is made of.

use crate::diag::{Diagnostic, Place};
use crate::lex::{Kind, Token};

/// A position in a text's tokens.
pub(super) struct Cursor<'a> {
    source: &'a str,
    tokens: &'a [Token],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The first token of a text. The tokens end in [`Kind::End`].
    pub fn new(source: &'a str, tokens: &'a [Token]) -> Cursor<'a> {
        Cursor { source, tokens, at: 0 }
    }
    fn token(&self) -> &'a Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }
    /// Goes past the next token.
    pub fn skip(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }
    /// What comes next.
    pub fn peek(&self) -> &'a Kind {
        &self.token().kind
    }
    /// Where the next token is.
    pub fn place(&self) -> Place {
        self.token().place
    }
    /// Where the last token read is.
    pub fn last_place(&self) -> Place {
        self.tokens[self.at.saturating_sub(1)].place
    }
    /// First byte of the next token.
    pub fn start(&self) -> usize {
        self.token().start
    }
    /// The source from a byte up to the next token.
    pub fn source_from(&self, start: usize) -> &'a str {
        &self.source[start..self.token().start]
    }
    /// The next token's text.
    pub fn slice(&self) -> &'a str {
        &self.source[self.token().start..self.token().end]
    }
    /// An error at the next token.
    pub fn expected(&self, what: &str) -> Diagnostic {
        let found = match self.peek() {
            Kind::Line => "the end of the line".to_string(),
            Kind::End => "the end of the text".to_string(),
            Kind::Word
            | Kind::Value(_)
            | Kind::Function(_)
            | Kind::Text(_)
            | Kind::Number
            | Kind::Hex
            | Kind::Mark(_) => format!("`{}`", self.slice()),
        };
        Diagnostic::new("P2", format!("expected {what}, found {found}")).at(Some(self.place()))
    }

    /// True at the end of the text.
    pub fn at_end(&self) -> bool {
        *self.peek() == Kind::End
    }
    /// True at the end of a line.
    pub fn at_line_end(&self) -> bool {
        matches!(self.peek(), Kind::Line | Kind::End)
    }
    /// True at a word that only begins functions: a missing `}` is noticed there.
    pub fn at_item(&self) -> bool {
        self.is_word("fn") || self.is_word("schedule") || self.is_word("module")
    }
    /// Skips empty lines.
    pub fn skip_lines(&mut self) {
        while *self.peek() == Kind::Line {
            self.skip();
        }
    }
    /// Where the cursor is, for [`Cursor::recover`].
    pub fn position(&self) -> usize {
        self.at
    }
    /// After an error in a line that began at `from`: goes to the end of the line, unless it was read already.
    pub fn recover(&mut self, from: usize) {
        if self.at > from && self.tokens[self.at - 1].kind == Kind::Line {
            return;
        }
        while !self.at_line_end() {
            self.skip();
        }
    }
    /// The end of a line.
    pub fn line_end(&mut self) -> Result<(), Diagnostic> {
        match self.peek() {
            Kind::Line => {
                self.skip();
                Ok(())
            }
            Kind::End => Ok(()),
            _ => Err(self.expected("the end of the line")),
        }
    }

    /// True if this punctuation comes next.
    pub fn is(&self, mark: &str) -> bool {
        matches!(self.peek(), Kind::Mark(m) if *m == mark)
    }
    /// Reads this punctuation if it comes next.
    pub fn take(&mut self, mark: &str) -> bool {
        let found = self.is(mark);
        if found {
            self.skip();
        }
        found
    }
    /// Reads this punctuation.
    pub fn mark(&mut self, mark: &str) -> Result<(), Diagnostic> {
        if self.take(mark) { Ok(()) } else { Err(self.expected(&format!("`{mark}`"))) }
    }
    /// True if this word comes next.
    pub fn is_word(&self, word: &str) -> bool {
        *self.peek() == Kind::Word && self.slice() == word
    }
    /// Reads this word if it comes next.
    pub fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.skip();
        }
        found
    }
    /// True if a string follows the next token.
    pub fn next_is_text(&self) -> bool {
        matches!(self.tokens.get(self.at + 1), Some(Token { kind: Kind::Text(_), .. }))
    }
    /// Reads a word.
    pub fn word(&mut self) -> Result<&'a str, Diagnostic> {
        if *self.peek() != Kind::Word {
            return Err(self.expected("a word"));
        }
        let word = self.slice();
        self.skip();
        Ok(word)
    }
    /// Reads a number's text, without sign.
    pub fn number(&mut self) -> Result<&'a str, Diagnostic> {
        if *self.peek() != Kind::Number {
            return Err(self.expected("a number"));
        }
        let number = self.slice();
        self.skip();
        Ok(number)
    }
    /// Reads a string.
    pub fn text(&mut self) -> Result<String, Diagnostic> {
        match self.peek() {
            Kind::Text(text) => {
                self.skip();
                Ok(text.clone())
            }
            _ => Err(self.expected("a quoted string")),
        }
    }
    /// Reads a name: a word, or a string if it has other characters.
    pub fn word_or_text(&mut self) -> Result<String, Diagnostic> {
        match self.peek() {
            Kind::Text(_) => self.text(),
            Kind::Word => self.word().map(str::to_string),
            _ => Err(self.expected("a name")),
        }
    }
    /// Reads `%name`.
    pub fn value(&mut self) -> Result<String, Diagnostic> {
        match self.peek() {
            Kind::Value(name) => {
                self.skip();
                Ok(name.clone())
            }
            _ => Err(self.expected("a value such as `%x`")),
        }
    }
    /// Reads `@name`.
    pub fn function(&mut self) -> Result<String, Diagnostic> {
        match self.peek() {
            Kind::Function(name) => {
                self.skip();
                Ok(name.clone())
            }
            _ => Err(self.expected("a name such as `@f`")),
        }
    }
    /// Reads hexadecimal digits after `0x`.
    pub fn hex(&mut self) -> Option<&'a str> {
        let found = (*self.peek() == Kind::Hex).then(|| &self.slice()[2..]);
        if found.is_some() {
            self.skip();
        }
        found
    }
    /// Reads a whole number with an optional sign that fits the range.
    pub fn integer(&mut self, least: i64, most: i64) -> Result<i64, Diagnostic> {
        let place = self.place();
        let negative = self.take("-");
        let digits = self.number()?;
        let value = digits.parse::<i64>().map(|v| if negative { -v } else { v });
        value.ok().filter(|v| (least..=most).contains(v)).ok_or_else(|| {
            let sign = if negative { "-" } else { "" };
            Diagnostic::new("P7", format!("`{sign}{digits}` is not a whole number from {least} to {most}"))
                .at(Some(place))
        })
    }
}

/// An unknown word of a closed list, with the nearest known one.
pub(super) fn unknown<'w>(what: &str, word: &str, known: impl IntoIterator<Item = &'w str>) -> Diagnostic {
    let mut d = Diagnostic::new("P3", format!("unknown {what} `{word}`"));
    d.help = nearest(word, known).map(|n| format!("did you mean `{n}`?"));
    d
}

/// The known word with the smallest edit distance, if it is at most a third of the word's length (at least 1).
pub(super) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let length = word.chars().count();
    let limit = (length / 3).max(1);
    let known = known.into_iter().filter(|k| k.chars().count().abs_diff(length) <= limit);
    let near = known.map(|k| (distance(word, k), k)).filter(|(d, _)| *d <= limit);
    near.min().map(|(_, k)| k)
}

/// Edits (insert, delete, replace a character, swap neighbours) from one word to another.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let replaced = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    let swap = if swapped { table[i - 2][j - 2] + 1 } else { usize::MAX };
                    replaced.min(swap).min(table[i - 1][j] + 1).min(table[i][j - 1] + 1)
                }
            };
        }
    }
    table[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_named() {
        let known = ["reduce", "reshape", "map"];
        assert_eq!(nearest("redcue", known), Some("reduce"));
        assert_eq!(nearest("reshap", known), Some("reshape"));
        assert_eq!(nearest("softmax", known), None);
    }
}
