//! Tokens of the text form.
