//! Reading typed fields of a `config.json`.

use selvedge_ir::Diagnostic;
use serde_json::Value;

/// The fields of a configuration, with its class for messages.
pub struct Fields<'a> {
    class: &'a str,
    object: &'a Value,
}

impl<'a> Fields<'a> {
    /// The fields of `object`, a configuration of `class`.
    pub fn new(class: &'a str, object: &'a Value) -> Fields<'a> {
        Fields { class, object }
    }
    /// A positive whole number below 2²⁴; K1 if it is absent, K2 if it is something else.
    pub fn count(&self, name: &str) -> Result<usize, Diagnostic> {
        let value = self.get(name)?;
        match whole(value) {
            Some(n) if n > 0 => Ok(n),
            _ => Err(self.mistyped(name, "a positive whole number below 2^24", value)),
        }
    }
    /// A whole number below 2²⁴, 0 allowed; K1 if it is absent, K2 if it is something else.
    pub fn index(&self, name: &str) -> Result<usize, Diagnostic> {
        let value = self.get(name)?;
        whole(value).ok_or_else(|| self.mistyped(name, "a whole number below 2^24", value))
    }
    /// A list of whole numbers below 2²⁴; K1 if it is absent, K2 if it is something else.
    pub fn indices(&self, name: &str) -> Result<Vec<usize>, Diagnostic> {
        let value = self.get(name)?;
        let all = value.as_array().and_then(|list| list.iter().map(whole).collect());
        all.ok_or_else(|| self.mistyped(name, "a list of whole numbers below 2^24", value))
    }
    /// A finite number; K1 if it is absent, K2 if it is something else.
    pub fn number(&self, name: &str) -> Result<f64, Diagnostic> {
        let value = self.get(name)?;
        value.as_f64().filter(|x| x.is_finite()).ok_or_else(|| self.mistyped(name, "a number", value))
    }
    /// A truth value; K1 if it is absent, K2 if it is something else.
    pub fn flag(&self, name: &str) -> Result<bool, Diagnostic> {
        let value = self.get(name)?;
        value.as_bool().ok_or_else(|| self.mistyped(name, "true or false", value))
    }
    /// A string; K1 if it is absent, K2 if it is something else.
    pub fn text(&self, name: &str) -> Result<&'a str, Diagnostic> {
        let value = self.get(name)?;
        value.as_str().ok_or_else(|| self.mistyped(name, "a string", value))
    }
    /// True if the field is there and not null.
    pub fn has(&self, name: &str) -> bool {
        self.object.get(name).is_some_and(|v| !v.is_null())
    }
    /// True if the field is there and null.
    pub fn is_null(&self, name: &str) -> bool {
        self.object.get(name).is_some_and(Value::is_null)
    }
    /// A value that the code does not support (K3).
    pub fn unsupported(&self, name: &str, expected: &str) -> Diagnostic {
        let found = self.object.get(name).map_or("nothing".to_string(), Value::to_string);
        Diagnostic::new("K3", format!("config of {}: this value of `{name}` is not supported", self.class))
            .expected_found(expected, found)
    }
    fn get(&self, name: &str) -> Result<&'a Value, Diagnostic> {
        self.object
            .get(name)
            .ok_or_else(|| Diagnostic::new("K1", format!("config of {}: the field `{name}` is missing", self.class)))
    }
    fn mistyped(&self, name: &str, expected: &str, found: &Value) -> Diagnostic {
        Diagnostic::new("K2", format!("config of {}: the field `{name}` is of another kind", self.class))
            .expected_found(expected, found)
    }
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n < 1 << 24)
}

/// K5 unless each named size is from 1 to its most: far above any model, and low enough that element counts stay whole numbers.
pub(crate) fn in_range(sizes: &[(&str, usize, usize)]) -> Result<(), Diagnostic> {
    match sizes.iter().find(|(_, value, most)| *value == 0 || value > most) {
        None => Ok(()),
        Some((name, value, most)) => {
            Err(Diagnostic::new("K5", format!("`{name}` is out of range"))
                .expected_found(format!("1 to {most}"), value))
        }
    }
}

/// K5 unless the second named size divides the first.
pub(crate) fn divides(what: (&str, usize), by: (&str, usize)) -> Result<(), Diagnostic> {
    if by.1 != 0 && what.1.is_multiple_of(by.1) {
        return Ok(());
    }
    Err(Diagnostic::new("K5", format!("`{}` is not divisible by `{}`", what.0, by.0))
        .expected_found(format!("a multiple of {}", by.1), what.1))
}
