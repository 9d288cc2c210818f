//! The rewrite rules, by theme. Each is a named, directed law with an example file in `tests/filetests/rules/`.

mod layout;

use crate::saturate::Rule;

/// Every rule, in the order in which they are tried.
pub fn all() -> Vec<Rule> {
    layout::rules()
}
