//! Where the elements of a view lie in its operand.

use crate::index::{Index, coordinates, linear};
use selvedge_ir::Op;

/// The index in its operand, of extents `operand`, of the element `at` of a view of extents `result`; `None` if it is no view.
pub fn behind(op: &Op, at: &[Index], result: &[u64], operand: &[u64]) -> Option<Vec<Index>> {
    Some(match op {
        Op::Transpose(t) => {
            let mut inner = vec![Index::constant(0); at.len()];
            t.perm.iter().zip(at).for_each(|(source, i)| inner[*source] = i.clone());
            inner
        }
        Op::Reshape(_) => coordinates(&linear(at, result), operand),
        Op::Broadcast(b) => {
            let pick = |(axis, size): (&usize, &u64)| if *size == 1 { Index::constant(0) } else { at[*axis].clone() };
            b.axes.iter().zip(operand).map(pick).collect()
        }
        Op::Slice(s) => (0..at.len()).map(|i| at[i].times(s.step[i] as u64).plus(s.start[i] as u64)).collect(),
        _ => return None,
    })
}
