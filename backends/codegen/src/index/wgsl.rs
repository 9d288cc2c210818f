//! Indices as WGSL expressions of type `u32`.

use super::{Atom, Index};
use std::fmt;

impl Index {
    /// As a WGSL expression of type `u32`; `bind` gives a name to a part that is worth computing once.
    pub fn wgsl(&self, bind: &mut dyn FnMut(String) -> String) -> String {
        let mut parts: Vec<String> = Vec::with_capacity(self.terms.len() + 1);
        for (atom, c) in &self.terms {
            let atom = atom.wgsl(bind);
            parts.push(if *c == 1 { atom } else { format!("{c}u * {atom}") });
        }
        if parts.is_empty() || self.constant > 0 {
            parts.push(format!("{}u", self.constant));
        }
        parts.join(" + ")
    }
    /// True if the expression is a single name or number.
    pub fn is_simple(&self) -> bool {
        match self.terms.as_slice() {
            [] => true,
            [(Atom::Var { .. }, 1)] => self.constant == 0,
            _ => false,
        }
    }
}

impl Atom {
    fn wgsl(&self, bind: &mut dyn FnMut(String) -> String) -> String {
        let text = match self {
            Atom::Var { name, .. } => return name.to_string(),
            Atom::Div(x, d) if d.is_power_of_two() => format!("({}) >> {}u", x.wgsl(bind), d.trailing_zeros()),
            Atom::Div(x, d) => format!("({}) / {d}u", x.wgsl(bind)),
            Atom::Mod(x, d) if d.is_power_of_two() => format!("({}) & {}u", x.wgsl(bind), d - 1),
            Atom::Mod(x, d) => format!("({}) % {d}u", x.wgsl(bind)),
            Atom::Min(x, c) => format!("min({}, {c}u)", x.wgsl(bind)),
            Atom::Less(x, c) => format!("max({}, {c}u) - {c}u", x.wgsl(bind)),
            Atom::From(c, x) => format!("{c}u - ({})", x.wgsl(bind)),
        };
        bind(text)
    }
}

/// As a WGSL expression of type `u32`.
impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.wgsl(&mut |part| format!("({part})")))
    }
}
