//! `canonical-contract`: one spelling of a contraction.

use crate::Pass;
use crate::rebuild::{Rebuild, rebuild};
use selvedge_ir::ops::{Broadcast, Contract, Reshape, Transpose};
use selvedge_ir::spec::ContractSpec;
use selvedge_ir::{Diagnostic, Dim, Module, Op, Shape, ValueId};

/// Takes into a contraction's spec what only moves its operands' axes: transposes, unit axes that a reshape adds,
/// and broadcast axes that the other operand has, too; a transpose of the result, if it is the only reader. A reshape that adds unit axes below a broadcast becomes part of the broadcast.
///
/// Where several axes are summed, their order may change. Letters are named in order of appearance, so equal
/// contractions are equal operators.
pub struct CanonicalContract;

impl Pass for CanonicalContract {
    fn name(&self) -> &'static str {
        "canonical-contract"
    }
    fn summary(&self) -> &'static str {
        "takes transposes, unit axes and broadcasts of operands into the specs of contractions"
    }
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        for function in &mut module.functions {
            let readers = function.use_counts();
            *function = rebuild(function, |r, _, op, args| match op {
                Op::Contract(contract) => canonical(r, contract.clone(), args),
                Op::Transpose(over) => {
                    // Which value of the old function the operand stands for: only then its readers are known.
                    let old = r.map.iter().position(|new| *new == args[0]);
                    match (r.to.function().op(args[0]), old) {
                        (Some((Op::Contract(c), below)), Some(old)) if readers[old] == 1 => {
                            let (c, below) = (c.clone(), below.to_vec());
                            r.to.try_push(transposed(&c, over), &below)
                        }
                        _ => r.copy(op, args),
                    }
                }
                Op::Broadcast(over) => match r.to.function().op(args[0]) {
                    Some((Op::Reshape(_), below)) => {
                        let below = below[0];
                        match inserted(&r.to.ty(below).shape, &r.to.ty(args[0]).shape) {
                            Some(places) => {
                                let axes = places.iter().map(|&p| over.axes[p]).collect();
                                r.to.try_push(Broadcast { shape: over.shape.clone(), axes }, &[below])
                            }
                            None => r.copy(op, args),
                        }
                    }
                    _ => r.copy(op, args),
                },
                op => r.copy(op, args),
            })?;
        }
        Ok(module)
    }
}

/// The contraction whose result is the transpose of this one's.
pub(crate) fn transposed(contract: &Contract, over: &Transpose) -> Contract {
    let out: Vec<u8> = over.perm.iter().map(|&p| contract.spec.out[p]).collect();
    let spec = ContractSpec::new(&contract.spec.a, &contract.spec.b, &out).expect("letters moved within the result");
    Contract { spec, dtype: contract.dtype }
}

/// Where the axes of `from` are in `to`, if `to` is `from` with unit axes put in. Unit axes of `from` take the first
/// place that fits.
pub(crate) fn inserted(from: &Shape, to: &Shape) -> Option<Vec<usize>> {
    let mut places = Vec::new();
    for (i, dim) in to.0.iter().enumerate() {
        match from.0.get(places.len()) {
            Some(next) if next == dim => places.push(i),
            _ if dim.is_one() => {}
            _ => return None,
        }
    }
    (places.len() == from.rank()).then_some(places)
}

/// Letters of one operand, and what it reads.
struct Side {
    letters: Vec<u8>,
    id: ValueId,
}

fn canonical(r: &mut Rebuild, contract: Contract, args: &[ValueId]) -> Result<ValueId, Diagnostic> {
    let spec = &contract.spec;
    let mut sides = [Side { letters: spec.a.clone(), id: args[0] }, Side { letters: spec.b.clone(), id: args[1] }];
    let letters = spec.a.iter().chain(&spec.b).copied();
    let extents: Vec<(u8, Dim)> =
        letters.zip(args.iter().flat_map(|a| r.to.ty(*a).shape.0.clone()).collect::<Vec<_>>()).collect();
    for at in [0, 1] {
        while let Some((letters, id)) = absorbed(r, &sides[at], &sides[1 - at].letters, &spec.out) {
            sides[at] = Side { letters, id };
        }
    }
    // A unit axis that is in neither operand any more is put back into the result.
    let mut out = spec.out.clone();
    out.retain(|l| sides.iter().any(|s| s.letters.contains(l)));
    let new = ContractSpec::new(&sides[0].letters, &sides[1].letters, &out)
        .map_err(|e| Diagnostic::new("canonical-contract", e))?;
    let new = r.to.try_push(Contract { spec: new, dtype: contract.dtype }, &[sides[0].id, sides[1].id])?;
    if out.len() == spec.out.len() {
        return Ok(new);
    }
    let dim = |l: &u8| extents.iter().find(|(e, _)| e == l).map(|(_, d)| d.clone()).expect("a letter of an operand");
    r.to.try_push(Reshape { shape: Shape(spec.out.iter().map(dim).collect()) }, &[new])
}

/// One view below an operand taken into its letters; `other` are those of the other operand.
fn absorbed(r: &Rebuild, side: &Side, other: &[u8], out: &[u8]) -> Option<(Vec<u8>, ValueId)> {
    let (op, args) = r.to.function().op(side.id)?;
    let from = &r.to.ty(*args.first()?).shape;
    match op {
        Op::Transpose(t) => {
            let mut letters = vec![0; t.perm.len()];
            t.perm.iter().enumerate().for_each(|(i, &p)| letters[p] = side.letters[i]);
            Some((letters, args[0]))
        }
        // A repeated axis that the other operand has and the result keeps need not be repeated: its letter is dropped.
        Op::Broadcast(b) => {
            let repeated: Vec<usize> = (0..b.shape.rank()).filter(|i| !b.axes.contains(i)).collect();
            let stretched = b.axes.iter().zip(&from.0).any(|(&a, dim)| *dim != b.shape.0[a]);
            let needless = |i: &usize| other.contains(&side.letters[*i]) && out.contains(&side.letters[*i]);
            if stretched || repeated.is_empty() || !repeated.iter().all(needless) {
                return None;
            }
            Some((b.axes.iter().map(|&a| side.letters[a]).collect(), args[0]))
        }
        // A unit axis that the result has is dropped here: the other operand has it, or the result gets it back.
        Op::Reshape(reshape) => {
            let places = inserted(from, &reshape.shape)?;
            let added = |i: &usize| !places.contains(i);
            let kept = (0..side.letters.len()).filter(added).all(|i| out.contains(&side.letters[i]));
            (kept && places.len() < side.letters.len())
                .then(|| (places.iter().map(|&p| side.letters[p]).collect(), args[0]))
        }
        _ => None,
    }
}
