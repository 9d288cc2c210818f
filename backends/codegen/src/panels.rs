//! Which weights lie in panels, and where their elements are.
//!
//! On software drivers a subgroup's lanes read neighbouring rows of a product's weight, four elements of each. Rows of a
//! checkpoint's weights are far apart, often by a power of two, and drive each other out of the processor's first cache; in
//! [`Panels`] a step reads one run of memory. Weights that anything but products reads stay as they are.

use crate::emit::Context;
use crate::index::{Index, coordinates, linear};
use crate::lower;
use crate::target::Target;
use crate::tensor::TensorId;
use crate::views::behind;
use selvedge_bundle::Panels;
use selvedge_ir::scalar::Body;
use selvedge_ir::{Op, ValueId};
use std::collections::BTreeMap;

/// Most rows of a panel: what a subgroup's lanes read by fours of columns. `None` where nothing is known to gain by panels.
pub fn most_rows(target: &Target) -> Option<u64> {
    let width = target.subgroup.filter(|s| s.min == s.max).map(|s| s.max as u64);
    width.filter(|_| !target.gpu).map(|width| 4 * width)
}

/// Where the element of a row-major index lies.
pub fn place(panels: Panels, e: &Index) -> Index {
    let Panels { rows, channels, taps } = panels;
    let panel = rows * channels * taps;
    let count = (e.high() / panel + 1).max(1);
    let at = coordinates(e, &[count, rows, channels / 4, 4, taps]);
    let [panel, row, four, channel, tap] = [0, 1, 2, 3, 4].map(|axis| at[axis].clone());
    linear(&[panel, four, tap, row, channel], &[count, channels / 4, taps, rows, 4])
}

/// A weight as a product reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Elements of a row and tap that are summed, a multiple of 4.
    pub channels: u64,
    /// Elements of a row and channel.
    pub taps: u64,
}

/// The stored value behind views and casts of it, and the place of an element there.
pub fn stored(context: Context, mut id: ValueId, at: &[Index]) -> Option<(ValueId, Index)> {
    let mut at = at.to_vec();
    while !context.homes.contains_key(&id) {
        let (op, args) = context.function.op(id)?;
        let operand = *args.first()?;
        if !is_cast(context, id) {
            at = behind(op, &at, &context.sizes(id), &context.sizes(operand))?;
        }
        id = operand;
    }
    Some((id, linear(&at, &context.sizes(id))))
}

/// The tensor behind views that keep all elements, and casts.
pub fn holder(context: Context, mut id: ValueId) -> Option<TensorId> {
    while is_through(context, id) {
        id = context.function.reads(id)[0];
    }
    context.homes.get(&id).copied()
}

fn is_through(context: Context, id: ValueId) -> bool {
    let view = matches!(context.function.op(id), Some((Op::Reshape(_) | Op::Transpose(_), _)));
    (view || is_cast(context, id)) && !context.homes.contains_key(&id)
}

fn is_cast(context: Context, id: ValueId) -> bool {
    match context.function.op(id) {
        Some((Op::Map(map), [_])) => map.body == Body::cast(context.dtype(id)),
        Some(_) | None => false,
    }
}

/// Notes how a function reads each stored value: what all products that read it agree on, `None` where there is another reader.
pub fn note_readings(context: Context, found: &mut BTreeMap<TensorId, Option<Reading>>) {
    let function = context.function;
    let mut note = |tensor: TensorId, reading: Option<Reading>| {
        let known = found.entry(tensor).or_insert(reading);
        *known = known.filter(|_| *known == reading);
    };
    for id in function.ids().filter(|id| !is_through(context, *id)) {
        let reading = lower::weight(context, id);
        for arg in function.reads(id) {
            if let Some(tensor) = holder(context, *arg) {
                note(tensor, reading.filter(|(operand, _)| operand == arg).map(|(_, reading)| reading));
            }
        }
    }
    for returned in &function.returns {
        if let Some(tensor) = holder(context, returned.value) {
            note(tensor, None);
        }
    }
}

/// The largest panels of whole rows, of at most so many, that each part of a weight consists of; `None` if single rows remain.
pub fn fitting(reading: Reading, most_rows: u64, parts: &[u64]) -> Option<Panels> {
    let Reading { channels, taps, .. } = reading;
    let heights = std::iter::successors(Some(most_rows), |rows| Some(rows / 2)).take_while(|rows| *rows > 1);
    heights.map(|rows| Panels { rows, channels, taps }).find(|panels| parts.iter().all(|n| panels.fits(*n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_arranged_bytes() {
        for panels in [Panels { rows: 4, channels: 8, taps: 1 }, Panels { rows: 2, channels: 4, taps: 3 }] {
            let count = 3 * panels.rows * panels.channels * panels.taps;
            let weight: Vec<u8> = (0..count as u32).flat_map(u32::to_le_bytes).collect();
            let arranged = panels.arrange(&weight, 4);
            let place = place(panels, &Index::var("e", count));
            for e in 0..count {
                let at = place.eval(&|_| e) as usize * 4;
                assert_eq!(arranged[at..at + 4], (e as u32).to_le_bytes(), "{panels:?}, element {e}");
            }
        }
    }

    #[test]
    fn a_step_reads_fours_of_neighbouring_rows() {
        let panels = Panels { rows: 32, channels: 384, taps: 1 };
        let (n, k4) = (Index::var("n", 1152), Index::var("k4", 96));
        for lane in 0..4 {
            let place = place(panels, &n.times(384).add(&k4.times(4)).plus(lane));
            assert_eq!(place.known_rem(4), Some(lane));
            let (row, step) = place.apart(&["n"]);
            assert_eq!(step, k4.times(128).plus(lane));
            assert_eq!(row, n.div(32).times(32 * 384).add(&n.rem(32).times(4)));
        }
    }
}
