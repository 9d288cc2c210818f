//! Weights that lie on the device in another order than in the checkpoint: panels of rows, for products.

use crate::dtype::element_bytes;
use crate::manifest::Weight;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A weight [n, channels, taps] as its product reads it: `rows` rows together, four channels of each one behind the other, tap by
/// tap. A linear layer [n, k] has one tap.
///
/// Element (r, c, t) lies at `(((r / rows · channels / 4 + c / 4) · taps + t) · rows + r mod rows) · 4 + c mod 4`: a step of
/// four channels reads one run of memory for all rows of a panel, instead of a piece of each row, rows which are often a power of
/// two apart and then drive each other out of a processor's first cache.
///
/// # Example
/// ```
/// use selvedge_bundle::Panels;
/// let panels = Panels { rows: 2, channels: 8, taps: 1 };
/// let weight: Vec<u8> = (0..2u16 * 8).flat_map(u16::to_le_bytes).collect();
/// let arranged = panels.arrange(&weight, 2);
/// let elements: Vec<u16> = arranged.chunks(2).map(|e| u16::from_le_bytes([e[0], e[1]])).collect();
/// assert_eq!(elements, [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Panels {
    /// Rows that lie together; divides n.
    pub rows: u64,
    /// Channels of a row, a multiple of 4.
    pub channels: u64,
    /// Elements of a row and channel.
    pub taps: u64,
}

impl std::fmt::Display for Panels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "panels of {} rows, {} channels and {} taps", self.rows, self.channels, self.taps)
    }
}

impl Panels {
    /// Whether a weight of so many elements consists of such panels.
    pub fn fits(self, elements: u64) -> bool {
        let panel = self.rows.checked_mul(self.channels).and_then(|x| x.checked_mul(self.taps));
        self.channels.is_multiple_of(4) && panel.is_some_and(|panel| panel > 0 && elements.is_multiple_of(panel))
    }

    /// The bytes of a weight that [`Panels::fits`], of elements of `width` bytes, in this order.
    pub fn arrange(self, weight: &[u8], width: usize) -> Vec<u8> {
        let [rows, fours, taps] = [self.rows, self.channels / 4, self.taps].map(|x| x as usize);
        let row = fours * 4 * taps * width;
        let mut arranged = Vec::with_capacity(weight.len());
        for panel in weight.chunks(rows * row) {
            for (four, tap) in (0..fours).flat_map(|four| (0..taps).map(move |tap| (four, tap))) {
                let first = (four * 4 * taps + tap) * width;
                for at in (0..rows).map(|r| r * row + first) {
                    if taps == 1 {
                        arranged.extend_from_slice(&panel[at..at + 4 * width]);
                    } else {
                        (0..4).map(|c| at + c * taps * width).for_each(|at| {
                            arranged.extend_from_slice(&panel[at..at + width]);
                        });
                    }
                }
            }
        }
        arranged
    }
}

impl Weight {
    /// Its bytes, all of them, in the order of a slot.
    pub fn arranged<'b>(&self, panels: Option<Panels>, bytes: Cow<'b, [u8]>) -> Cow<'b, [u8]> {
        match (panels, element_bytes(&self.dtype)) {
            (Some(panels), Some(width)) => Cow::Owned(panels.arrange(&bytes, width as usize)),
            (Some(_), None) | (None, _) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_lies_where_it_should() {
        for (n, panels) in [
            (12, Panels { rows: 4, channels: 8, taps: 1 }),
            (6, Panels { rows: 2, channels: 4, taps: 9 }),
            (3, Panels { rows: 1, channels: 12, taps: 2 }),
        ] {
            let Panels { rows, channels, taps } = panels;
            assert!(panels.fits(n * channels * taps));
            let elements: Vec<u32> = (0..(n * channels * taps) as u32).collect();
            let weight: Vec<u8> = elements.iter().flat_map(|e| e.to_le_bytes()).collect();
            let arranged = panels.arrange(&weight, 4);
            assert_eq!(arranged.len(), weight.len());
            for (r, c, t) in (0..n).flat_map(|r| (0..channels).flat_map(move |c| (0..taps).map(move |t| (r, c, t)))) {
                let at = (((r / rows * (channels / 4) + c / 4) * taps + t) * rows + r % rows) * 4 + c % 4;
                let found = &arranged[at as usize * 4..][..4];
                assert_eq!(found, (((r * channels + c) * taps + t) as u32).to_le_bytes(), "{panels:?} {r} {c} {t}");
            }
        }
    }

    #[test]
    fn what_does_not_divide_does_not_fit() {
        assert!(!Panels { rows: 4, channels: 6, taps: 1 }.fits(24));
        assert!(!Panels { rows: 4, channels: 8, taps: 1 }.fits(33));
        assert!(!Panels { rows: 0, channels: 8, taps: 1 }.fits(32));
        assert!(!Panels { rows: u64::MAX, channels: 8, taps: 1 }.fits(32));
    }
}
