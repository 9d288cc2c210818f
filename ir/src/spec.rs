//! Axis letters of a contraction.

use std::fmt;

/// Which axes of two operands are matched, summed and kept: `bik,kj->bij`.
///
/// Letters are small numbers, renamed in order of appearance, so equal contractions compare equal.
/// The well-formedness rules are `contract`'s constraints C1 to C3; [`ContractSpec::new`] checks C1 and C2.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContractSpec {
    /// Letters of the first operand's axes.
    pub a: Vec<u8>,
    /// Letters of the second operand's axes.
    pub b: Vec<u8>,
    /// Letters of the result's axes.
    pub out: Vec<u8>,
}

/// The part a letter plays in a contraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// In both operands and the result.
    Batch,
    /// In the first operand and the result.
    Rows,
    /// In the second operand and the result.
    Columns,
    /// In both operands, summed.
    Summed,
}

impl ContractSpec {
    /// Checks and renames letters.
    ///
    /// # Errors
    /// A letter twice in one term (C1), or a letter that is neither batch, row, column nor summed (C2).
    pub fn new(a: &[u8], b: &[u8], out: &[u8]) -> Result<ContractSpec, String> {
        for term in [a, b, out] {
            for (i, letter) in term.iter().enumerate() {
                if term[..i].contains(letter) {
                    return Err("C1: a letter occurs twice in one term".to_string());
                }
            }
        }
        let mut names: Vec<u8> = Vec::new();
        for letter in a.iter().chain(b) {
            if !names.contains(letter) {
                names.push(*letter);
            }
        }
        let find = |l: &u8| names.iter().position(|n| n == l).map(|i| i as u8);
        let rename = |term: &[u8]| term.iter().map(find).collect::<Option<Vec<u8>>>();
        let unknown = || "C2: a result letter occurs in no operand".to_string();
        let spec = ContractSpec {
            a: rename(a).ok_or_else(unknown)?,
            b: rename(b).ok_or_else(unknown)?,
            out: rename(out).ok_or_else(unknown)?,
        };
        for letter in 0..names.len() as u8 {
            if spec.role(letter).is_none() {
                return Err("C2: a letter of one operand only must be in the result".to_string());
            }
        }
        Ok(spec)
    }
    /// Parses `bik,kj->bij`.
    ///
    /// # Errors
    /// Other characters than letters, or a violation of C1 or C2.
    pub fn parse(text: &str) -> Result<ContractSpec, String> {
        let (inputs, out) = text.split_once("->").ok_or("expected `a,b->c`")?;
        let (a, b) = inputs.split_once(',').ok_or("expected two terms before `->`")?;
        let letters = |t: &str| {
            let t = t.trim();
            if t.bytes().all(|c| c.is_ascii_alphabetic()) {
                Ok(t.as_bytes().to_vec())
            } else {
                Err(format!("`{t}` is not a list of letters"))
            }
        };
        ContractSpec::new(&letters(a)?, &letters(b)?, &letters(out)?)
    }
    /// The part a letter plays; `None` for a letter that is not well-formed.
    pub fn role(&self, letter: u8) -> Option<Role> {
        match (self.a.contains(&letter), self.b.contains(&letter), self.out.contains(&letter)) {
            (true, true, true) => Some(Role::Batch),
            (true, false, true) => Some(Role::Rows),
            (false, true, true) => Some(Role::Columns),
            (true, true, false) => Some(Role::Summed),
            _ => None,
        }
    }
    /// Letters of one role, in order of appearance (first operand, then second).
    pub fn letters(&self, role: Role) -> Vec<u8> {
        let mut all: Vec<u8> = self.a.iter().chain(&self.b).copied().filter(|&l| self.role(l) == Some(role)).collect();
        let mut seen = Vec::new();
        all.retain(|l| {
            if seen.contains(l) {
                false
            } else {
                seen.push(*l);
                true
            }
        });
        all
    }
}

impl fmt::Display for ContractSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |t: &[u8]| {
            t.iter().map(|&l| if l < 26 { (b'a' + l) as char } else { (b'A' + l - 26) as char }).collect::<String>()
        };
        write!(f, "{},{}->{}", name(&self.a), name(&self.b), name(&self.out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_renamed_by_appearance() {
        assert_eq!(ContractSpec::parse("bik,kj->bij").unwrap(), ContractSpec::parse("xyz,zw->xyw").unwrap());
        assert_eq!(ContractSpec::parse("bik,kj->bij").unwrap().to_string(), "abc,cd->abd");
        assert!(ContractSpec::parse("ii,ij->ij").is_err());
        assert!(ContractSpec::parse("ik,kj->ijx").is_err());
        assert!(ContractSpec::parse("ikz,kj->ij").is_err());
    }
}
