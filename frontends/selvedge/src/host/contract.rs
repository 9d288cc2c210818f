//! `contract` as batched matrix products over the operands as they lie: no copies, strides do the work.

use super::gemm::{Outer, Product};
use selvedge_ir::ops::Contract;
use selvedge_ir::shape::strides;
use selvedge_ir::spec::Role;
use selvedge_ir::{Data, Tensor, TensorType};

/// A run of letters that steps through every operand with one stride.
#[derive(Clone, Copy, Debug)]
struct Group {
    size: usize,
    /// Strides in the result, the first and the second operand (0 where absent).
    strides: [usize; 3],
}

/// The contraction's value; `None` if an operand is not held as f32.
pub fn eval(op: &Contract, a: &Tensor, b: &Tensor, out: &TensorType) -> Option<Tensor> {
    let (Data::F32(x), Data::F32(y)) = (&a.data, &b.data) else { return None };
    let sizes = out.shape.sizes();
    let mut c = vec![0f32; sizes.iter().product()];
    let layout =
        [(&op.spec.out, strides(&sizes)), (&op.spec.a, strides(&a.sizes())), (&op.spec.b, strides(&b.sizes()))];
    let extents = extents(op, a, b);
    let group = |role: Role| groups(&op.spec.letters(role), &layout, &extents);
    let (rows, row_rest) = widest(group(Role::Rows));
    let (columns, column_rest) = widest(group(Role::Columns));
    let (summed, summed_rest) = widest(group(Role::Summed));
    let outer: Vec<Outer> = group(Role::Batch)
        .into_iter()
        .chain(row_rest)
        .chain(column_rest)
        .map(|g| Outer { size: g.size, strides: g.strides })
        .collect();
    let mut product = Product {
        m: rows.size,
        n: columns.size,
        k: summed.size,
        c: (rows.strides[0], columns.strides[0]),
        a: (rows.strides[1], summed.strides[1]),
        b: (summed.strides[2], columns.strides[2]),
        outer,
        accumulate: false,
    };
    // Summed letters that do not merge are looped over, adding up.
    let terms: usize = summed_rest.iter().map(|g| g.size).product();
    if !c.is_empty() && !x.is_empty() && !y.is_empty() {
        for term in 0..terms {
            let (mut at_a, mut at_b, mut rest) = (0, 0, term);
            for g in summed_rest.iter().rev() {
                at_a += (rest % g.size) * g.strides[1];
                at_b += (rest % g.size) * g.strides[2];
                rest /= g.size;
            }
            product.accumulate = term > 0;
            product.run(&mut c, &x[at_a..], &y[at_b..]);
        }
    }
    if op.dtype.bits() < 32 {
        super::chunked(&mut c, |_, chunk| chunk.iter_mut().for_each(|v| *v = op.dtype.round(*v)));
    }
    Some(Tensor::new(out.clone(), Data::F32(c)))
}

fn extents(op: &Contract, a: &Tensor, b: &Tensor) -> Vec<usize> {
    let letters = op.spec.a.iter().zip(a.sizes()).chain(op.spec.b.iter().zip(b.sizes()));
    let mut extents = Vec::new();
    for (&letter, size) in letters {
        if extents.len() <= letter as usize {
            extents.resize(letter as usize + 1, 1);
        }
        extents[letter as usize] = size;
    }
    extents
}

/// Letters as groups: outermost first, neighbours merged where one stride serves everywhere.
fn groups(letters: &[u8], layout: &[(&Vec<u8>, Vec<usize>); 3], extents: &[usize]) -> Vec<Group> {
    let stride = |term: usize, letter: u8| {
        let (letters, strides) = &layout[term];
        letters.iter().position(|&l| l == letter).map_or(0, |i| strides[i])
    };
    let mut all: Vec<Group> = letters
        .iter()
        .map(|&l| Group { size: extents[l as usize], strides: [stride(0, l), stride(1, l), stride(2, l)] })
        .filter(|g| g.size != 1)
        .collect();
    all.sort_by_key(|g| std::cmp::Reverse(g.strides));
    let mut merged: Vec<Group> = Vec::new();
    for g in all {
        match merged.last_mut() {
            Some(last) if (0..3).all(|i| last.strides[i] == g.strides[i] * g.size) => {
                *last = Group { size: last.size * g.size, strides: g.strides };
            }
            _ => merged.push(g),
        }
    }
    merged
}

/// The largest group (extent 1 if there is none) and the others.
fn widest(mut groups: Vec<Group>) -> (Group, Vec<Group>) {
    let at = (0..groups.len()).max_by_key(|&i| groups[i].size);
    match at {
        Some(at) => (groups.remove(at), groups),
        None => (Group { size: 1, strides: [0; 3] }, groups),
    }
}
