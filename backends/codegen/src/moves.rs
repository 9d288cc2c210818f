//! Units that only move data: runs of elements that lie as their source does.

use crate::emit::Context;
use crate::index::{Index, coordinates, linear};
use crate::select::Unit;
use crate::tensor::Tensor;
use crate::views::behind;
use selvedge_bundle::manifest::{Copy, Region};
use selvedge_ir::{DType, Op, ValueId};
use selvedge_shaders::memory::Layout;

/// Elements of a stored value that lie one behind the other in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// The stored value.
    source: ValueId,
    /// The first of its elements.
    from: u64,
    /// Where it goes.
    to: u64,
    /// How many follow each other.
    count: u64,
}

/// Copies of one value at most.
const MOST: usize = 256;
/// So many are no dearer than a kernel, however short they are.
const FEW: usize = 8;
/// Bytes that each of more copies moves on average at least.
const LEAST: u64 = 2 << 10;

/// The copies that make up a unit's result, if all it does is to move elements which lie there as they do in stored values, in whole
/// words. `tensors` have their memory.
pub fn copies(context: Context, unit: &Unit, tensors: &[Tensor]) -> Option<Vec<Copy>> {
    let [id] = unit.path[..] else { return None };
    let count = context.sizes(id).iter().product();
    let mut runs = Vec::new();
    Walk { context, result: id, runs: &mut runs }.walk(id, 0, count, 0)?;
    let result = &tensors[*context.homes.get(&id)?];
    let mut copies = Vec::new();
    for run in runs {
        let source = &tensors[*context.homes.get(&run.source)?];
        let width = width(source);
        let bytes = [run.from, run.to, run.count].map(|n| n * width);
        if width != self::width(result) || bytes.iter().any(|n| !n.is_multiple_of(4)) {
            return None;
        }
        let [from, to, count] = bytes;
        let (sources, destinations) = (within(source, from, count), within(result, to, count));
        let mut done = 0;
        while done < count {
            // Up to where a piece of either ends.
            let ((a, a_end), (b, b_end)) = (at(&sources, done)?, at(&destinations, done)?);
            let bytes = a_end.min(b_end) - done;
            copies.push(Copy { source: Region { bytes, ..a }, destination: Region { bytes, ..b } });
            done += bytes;
        }
    }
    let bytes: u64 = copies.iter().map(|c| c.source.bytes).sum();
    let few = copies.len() <= FEW || bytes >= LEAST * copies.len() as u64;
    (!copies.is_empty() && copies.len() <= MOST && few).then_some(copies)
}

/// Bytes of an element.
fn width(tensor: &Tensor) -> u64 {
    match (tensor.dtype, tensor.layout) {
        (DType::F16 | DType::BF16, Layout::Packed) => 2,
        (DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::U32 | DType::Bool, _) => 4,
        (DType::Packed(_), _) => unreachable!("quantised weights are refused when tensors are made"),
    }
}

/// The regions of some bytes of a tensor.
fn within(tensor: &Tensor, from: u64, count: u64) -> Vec<Region> {
    let mut start = 0;
    let mut regions = Vec::new();
    for piece in &tensor.pieces {
        let (low, high) = (from.max(start), (from + count).min(start + piece.bytes));
        if low < high {
            regions.push(Region { buffer: piece.buffer, offset: piece.offset + low - start, bytes: high - low });
        }
        start += piece.bytes;
    }
    regions
}

/// What is left of the region that holds byte `done` of regions in a row, and where it ends.
fn at(regions: &[Region], done: u64) -> Option<(Region, u64)> {
    let mut start = 0;
    for region in regions {
        if done < start + region.bytes {
            let offset = region.offset + done - start;
            return Some((Region { offset, ..*region }, start + region.bytes));
        }
        start += region.bytes;
    }
    None
}

struct Walk<'a, 'r> {
    context: Context<'a>,
    result: ValueId,
    runs: &'r mut Vec<Run>,
}

impl Walk<'_, '_> {
    /// Elements `from..from + count` of a value go to `to`.
    fn walk(&mut self, id: ValueId, from: u64, count: u64, to: u64) -> Option<()> {
        if id != self.result && self.context.homes.contains_key(&id) {
            self.runs.push(Run { source: id, from, to, count });
            return Some(());
        }
        let (op, args) = self.context.function.op(id)?;
        match op {
            Op::Reshape(_) => self.walk(args[0], from, count, to),
            Op::Transpose(_) | Op::Slice(_) | Op::Broadcast(_) => {
                // They must follow each other in the operand.
                let (result, operand) = (self.context.sizes(id), self.context.sizes(args[0]));
                let i = Index::var("i", count);
                let inner = behind(op, &coordinates(&i.plus(from), &result), &result, &operand)?;
                let place = linear(&inner, &operand);
                let first = place.eval(&|_| 0);
                (place == i.plus(first)).then_some(())?;
                self.walk(args[0], first, count, to)
            }
            // One operand's block after the other, again for each index of the axes outside.
            Op::Concat(c) => {
                let block = |id: ValueId| self.context.sizes(id)[c.axis..].iter().product::<u64>();
                let (whole, blocks) = (block(id), args.iter().map(|arg| (*arg, block(*arg))).collect::<Vec<_>>());
                for outer in 0..self.context.sizes(id)[..c.axis].iter().product::<u64>() {
                    let mut start = outer * whole;
                    for (arg, len) in &blocks {
                        let (low, high) = (from.max(start), (from + count).min(start + len));
                        if low < high {
                            self.walk(*arg, outer * len + low - start, high - low, to + low - from)?;
                        }
                        start += len;
                    }
                    if self.runs.len() > MOST {
                        return None;
                    }
                }
                Some(())
            }
            // Padding has elements of its own, and gathering looks at indices.
            Op::Pad(_)
            | Op::Gather(_)
            | Op::Map(_)
            | Op::Iota(_)
            | Op::Const(_)
            | Op::Input(_)
            | Op::Weight(_)
            | Op::State(_)
            | Op::Reduce(_)
            | Op::Contract(_)
            | Op::Window(_)
            | Op::Scan(_)
            | Op::Scatter(_)
            | Op::Topk(_)
            | Op::Softmax(_)
            | Op::LayerNorm(_)
            | Op::RmsNorm(_)
            | Op::GroupNorm(_)
            | Op::Attention(_)
            | Op::LocalAttention(_)
            | Op::Rope(_)
            | Op::PoolTokens(_)
            | Op::Resize(_) => None,
        }
    }
}
