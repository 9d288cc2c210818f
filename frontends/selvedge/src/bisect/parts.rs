//! Which parts of a pass a failure needs.

use crate::error::Error;

/// Which parts are left.
pub(super) type Keep<'k> = dyn Fn(&str) -> bool + 'k;

/// Parts without any of which a failure would be gone, found by leaving out halves, quarters … of those that are left (the
/// minimising half of Zeller & Hildebrandt's delta debugging, 2002). Sound parts alone cause no failure, so the one at fault is among
/// them; others are needed to lead to it. Nothing if all parts together do not fail.
///
/// # Errors
/// What a trial says.
pub(super) fn needed(
    all: &[&'static str],
    fails: &dyn Fn(&Keep) -> Result<bool, Error>,
) -> Result<Vec<&'static str>, Error> {
    let fails = |left: &[&'static str]| fails(&|name| left.contains(&name));
    let mut left = all.to_vec();
    if left.is_empty() || !fails(&left)? {
        return Ok(Vec::new());
    }
    let mut size = left.len().div_ceil(2);
    loop {
        let (before, mut start) = (left.len(), 0);
        while start < left.len() {
            let end = (start + size).min(left.len());
            let rest = [&left[..start], &left[end..]].concat();
            if fails(&rest)? {
                left = rest;
            } else {
                start = end;
            }
        }
        match size {
            // Every single one was tried, and none could go.
            0 | 1 if left.len() == before => return Ok(left),
            _ => size = size.div_ceil(2).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn what_is_needed_is_left() {
        let all = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        for guilty in [&["e"][..], &["a"], &["i"], &["b", "h"], &["a", "b", "c"]] {
            let trials = Cell::new(0);
            let fails = |keep: &Keep| {
                trials.set(trials.get() + 1);
                Ok(guilty.iter().all(|g| keep(g)))
            };
            assert_eq!(needed(&all, &fails).expect("no trial fails"), guilty);
            assert!(trials.get() <= 20, "{} trials for {guilty:?}", trials.get());
        }
        assert!(needed(&all, &|_| Ok(false)).expect("no trial fails").is_empty());
        assert!(needed(&[], &|_| Ok(true)).expect("no trial fails").is_empty());
    }
}
