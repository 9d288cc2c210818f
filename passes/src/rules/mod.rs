//! The rewrite rules, by theme. Each is a named, directed law with an example file in `tests/filetests/rules/`.
//!
//! Directions: scales and views come out towards the results, where contractions, attention and other views take them
//! in; repetition comes out, so that what is repeated is computed once; composites are built up from small laws. No
//! rule states commutativity or associativity for its own sake: that is what makes graphs explode.

mod algebra;
mod attention;
mod composite;
mod contract;
mod fuse;
mod layout;
mod words;

use crate::saturate::Rule;

/// Every rule, in the order in which they are tried.
pub fn all() -> Vec<Rule> {
    let themes =
        [algebra::rules(), layout::rules(), contract::rules(), composite::rules(), attention::rules(), fuse::rules()];
    themes.into_iter().flatten().collect()
}
