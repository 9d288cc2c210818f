//! Errors for people: what, where, expected, found, what to do; `.ir` errors under their line.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use selvedge::{Diagnostic, Error, ir::Place};
use std::io::IsTerminal;

/// Prints an error on stderr.
pub fn error(error: &Error) {
    let renderer = if std::io::stderr().is_terminal() { Renderer::styled() } else { Renderer::plain() };
    let source = match error {
        Error::Text { file, source, .. } => Some((file.as_str(), source.as_str())),
        Error::Input(_) | Error::Device(_) | Error::Internal(_) => None,
    };
    for one in error.diagnostics() {
        eprintln!("{}", renderer.render(&[group(one, source)]));
    }
    if matches!(error, Error::Internal(_)) {
        eprintln!("{}", bug_message());
    }
}

/// What to say when the program itself is at fault.
pub fn bug_message() -> String {
    format!(
        "This is a bug in selvedge {}. Please report it with the command line and the message above.",
        env!("CARGO_PKG_VERSION")
    )
}

fn group<'a>(one: &'a Diagnostic, source: Option<(&'a str, &'a str)>) -> Group<'a> {
    let mut group = Group::with_title(Level::ERROR.primary_title(one.message.as_str()).id(one.code.as_str()));
    match (one.place, source) {
        (Some(Place::Text { line, column }), Some((file, text))) => {
            let label = match (&one.expected, &one.found) {
                (Some(e), Some(f)) => format!("expected {e}, found {f}"),
                (Some(e), None) => format!("expected {e}"),
                (None, Some(f)) => format!("found {f}"),
                (None, None) => String::new(),
            };
            let annotation = AnnotationKind::Primary.span(span(text, line, column)).label(label);
            group = group.element(Snippet::source(text).path(file).annotation(annotation));
        }
        (place, _) => {
            if let Some(place) = place {
                group = group.element(Level::NOTE.message(format!("at {place}")));
            }
            if let Some(expected) = &one.expected {
                group = group.element(Level::NOTE.message(format!("expected: {expected}")));
            }
            if let Some(found) = &one.found {
                group = group.element(Level::NOTE.message(format!("found: {found}")));
            }
        }
    }
    if let Some(help) = &one.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// Bytes of the word at a line and column (both from 1; columns count characters).
fn span(text: &str, line: u32, column: u32) -> std::ops::Range<usize> {
    let mut start = 0;
    for (i, l) in text.split_inclusive('\n').enumerate() {
        if i + 1 == line as usize {
            let offset = l.char_indices().nth(column.max(1) as usize - 1).map_or(l.trim_end().len(), |(at, _)| at);
            let rest = &l[offset..];
            let first = rest.chars().next().map_or(0, char::len_utf8);
            let word = rest[first..]
                .find(|c: char| !(c.is_alphanumeric() || "_.\"[],".contains(c)))
                .map_or(rest.trim_end().len(), |n| n + first);
            return start + offset..start + offset + word;
        }
        start += l.len();
    }
    text.len()..text.len()
}

#[cfg(test)]
mod tests {
    #[test]
    fn spans_cover_the_word() {
        let text = "fn @f() {\n  %x = map %y : f32[2,3]\n}\n";
        assert_eq!(&text[super::span(text, 2, 12)], "%y");
        assert_eq!(&text[super::span(text, 2, 17)], "f32[2,3]");
        assert_eq!(super::span(text, 9, 1), text.len()..text.len());
        assert_eq!(&text[super::span(text, 1, 99)], "");
    }
}
