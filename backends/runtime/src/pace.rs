//! How long dispatches take, roughly, so that one submit does not keep a device busy for too long.

use crate::device::DeviceFacts;
use selvedge_bundle::manifest::Dispatch;
use std::cell::Cell;
use std::ops::Range;

/// Longest submit of a GPU by default, in milliseconds.
const LONGEST: f64 = 500.0;

/// An estimate of dispatches' times, corrected by what was measured.
pub(crate) struct Pace {
    /// Longest submit in milliseconds.
    longest: f64,
    /// Milliseconds an operation, and a byte.
    costs: [f64; 2],
    /// Measured over estimated time, of the last function that was measured.
    slower: Cell<f64>,
}

impl Pace {
    /// Guesses by the kind of device, on the slow side. `longest` in milliseconds, 0 for the default.
    pub fn new(facts: &DeviceFacts, longest: f64) -> Pace {
        let (gflops, gb_per_s) = match facts.kind.as_str() {
            "discrete" => (2000.0, 100.0),
            "cpu" => (10.0, 2.0),
            _ => (200.0, 20.0),
        };
        // A driver on the CPU has no watchdog.
        let default = if facts.kind == "cpu" { f64::INFINITY } else { LONGEST };
        let longest = if longest > 0.0 { longest } else { default };
        Pace { longest, costs: [1e-6 / gflops, 1e-6 / gb_per_s], slower: Cell::new(1.0) }
    }

    /// Milliseconds of dispatches.
    fn estimate<'d>(&self, dispatches: impl IntoIterator<Item = &'d Dispatch>) -> f64 {
        let [flop, byte] = self.costs;
        let one = |d: &Dispatch| d.flops as f64 * flop + d.bytes as f64 * byte;
        dispatches.into_iter().map(one).sum::<f64>() * self.slower.get()
    }

    /// Notes that dispatches took so many milliseconds together. Shorter than one millisecond says nothing.
    pub fn measured<'d>(&self, dispatches: impl IntoIterator<Item = &'d Dispatch>, ms: f64) {
        let estimate = self.estimate(dispatches);
        if ms > 1.0 && estimate > 0.0 {
            self.slower.set((self.slower.get() * ms / estimate).clamp(1e-3, 1e3));
        }
    }

    /// Parts of a function that are submits of their own: all dispatches in order, at least one part.
    pub fn parts(&self, dispatches: &[Dispatch]) -> Vec<Range<usize>> {
        let (mut parts, mut start, mut busy) = (Vec::new(), 0, 0.0);
        for (i, dispatch) in dispatches.iter().enumerate() {
            let ms = self.estimate([dispatch]);
            if i > start && busy + ms > self.longest {
                parts.push(start..i);
                (start, busy) = (i, 0.0);
            }
            busy += ms;
        }
        parts.push(start..dispatches.len());
        parts
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of parts, some of one")]
mod tests {
    use super::*;
    use crate::device::{DeviceChoice, Gpu};

    fn dispatch(flops: u64) -> Dispatch {
        let (label, origins, bindings) = (String::new(), Vec::new(), Vec::new());
        Dispatch { kernel: 0, groups: [1; 3], bindings, label, origins, flops, bytes: 0, weight_bytes: 0 }
    }

    #[test]
    fn functions_are_split_where_the_estimate_says_so() {
        let gpu = Gpu::open(&DeviceChoice::Auto).expect("these tests need a GPU driver");
        let facts = DeviceFacts { kind: "discrete".to_string(), ..gpu.facts().clone() };
        let pace = Pace::new(&facts, 0.0);
        let giga = |n: &[u64]| n.iter().map(|n| dispatch(n * 1_000_000_000)).collect::<Vec<_>>();
        let work = giga(&[400, 400, 400, 3000, 1, 1]); // 200, 200, 200, 1500, ½, ½ ms by the guess
        assert_eq!(pace.parts(&work), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(pace.parts(&[]), [0..0]);
        pace.measured(&work, 210.1); // a tenth of the guess
        assert_eq!(pace.parts(&work), [0..6]);
        pace.measured(&work, 21010.0);
        assert_eq!(pace.parts(&work).len(), 5);
        let cpu = DeviceFacts { kind: "cpu".to_string(), ..facts };
        assert_eq!(Pace::new(&cpu, 0.0).parts(&giga(&[90_000, 90_000])), [0..2]);
        assert_eq!(Pace::new(&cpu, 0.1).parts(&giga(&[1, 1, 1])).len(), 3);
    }
}
