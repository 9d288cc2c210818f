//! `half-activations`: what lies between kernels is stored as f16.

use crate::bounds::bounds;
use crate::rebuild::rebuild;
use crate::{Notes, Pass, work};
use selvedge_ir::op::OpClass;
use selvedge_ir::ops::Map;
use selvedge_ir::scalar::{Binary, Body, Scalar, Unary};
use selvedge_ir::{DType, Diagnostic, Function, Module, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Largest f16.
const MOST: f64 = 65504.0;
/// A measured magnitude may grow by this factor on other inputs.
const HEADROOM: f64 = 16.0;
/// Primitives of a map that code generation computes again for each reader instead of storing it.
const CHEAP: u64 = 12;

/// Greatest magnitudes that were seen when a module was run, by function and value.
pub type Ranges = BTreeMap<String, Vec<f64>>;

/// Rounds to f16 what kernels leave for other kernels, and widens it again for every reader: code generation stores the narrow
/// value; all arithmetic and all sums stay in f32.
///
/// **Range.** A value is rounded where operators alone prove that it stays below 65504 ([`crate::bounds`]), or where it was measured
/// at no more than a sixteenth of that. In the second case the rounding is guarded: an element beyond the range becomes NaN, not ∞,
/// which no tanh or softmax behind it hides, so that a run on other inputs fails by name instead of being wrong. Whatever is
/// neither proven nor measured stays in f32.
///
/// **What stays in f32** besides: results of functions (outputs, and what calls hand on), and values that are added as they are to
/// another value that is stored: the residual stream, whose roundings would add up through the depth.
#[derive(Default)]
pub struct HalfActivations {
    /// Measured on the very module that the pass is given.
    pub ranges: Ranges,
}

impl Pass for HalfActivations {
    fn name(&self) -> &'static str {
        "half-activations"
    }
    fn summary(&self) -> &'static str {
        "stores activations between kernels as f16 where their range allows"
    }
    fn run(&self, module: Module) -> Result<Module, Diagnostic> {
        self.run_noting(module, &mut Notes::default())
    }
    fn run_noting(&self, mut module: Module, notes: &mut Notes) -> Result<Module, Diagnostic> {
        let (mut halves, mut sums, mut beyond) = (0, 0, Vec::new());
        for function in &mut module.functions {
            let bounds = bounds(function);
            let measured = self.ranges.get(&function.name);
            let mut chosen: BTreeMap<ValueId, bool> = BTreeMap::new();
            let summands = summands(function);
            for id in stored(function) {
                let seen = measured.and_then(|m| m.get(id.0 as usize)).copied();
                match (bounds[id.0 as usize], seen) {
                    _ if summands.contains(&id) => sums += 1,
                    (Some(bound), _) if bound <= MOST => drop(chosen.insert(id, false)),
                    (_, Some(seen)) if seen <= MOST / HEADROOM => drop(chosen.insert(id, true)),
                    (_, seen) => beyond.push(seen.unwrap_or(f64::INFINITY)),
                }
            }
            halves += chosen.len();
            *function = rebuild(function, |r, id, op, args| {
                let new = r.copy(op, args)?;
                let Some(guarded) = chosen.get(&id) else { return Ok(new) };
                let narrow = r.copy(&Map { body: narrowing(*guarded) }.into(), &[new])?;
                r.copy(&Map { body: Body::cast(DType::F32) }.into(), &[narrow])
            })?;
        }
        let mut line = format!("activations: {halves} tensors in f16, {sums} sums through the depth in f32");
        if !beyond.is_empty() {
            let largest = beyond.iter().copied().filter(|x| x.is_finite()).fold(0.0, f64::max);
            line += &format!(", {} in f32 for their range (up to {largest:.0})", beyond.len());
        }
        notes.lines.push(line);
        Ok(module)
    }
}

/// x rounded to f16; guarded: NaN beyond the range.
fn narrowing(guarded: bool) -> Body {
    if !guarded {
        return Body::cast(DType::F16);
    }
    Body::build(1, |b| {
        let x = b.arg(0);
        let (size, most, none) = (b.unary(Unary::Abs, x), b.float(MOST), b.float(f64::NAN));
        let inside = b.binary(Binary::Le, size, most);
        let kept = b.select(inside, x, none);
        b.cast(DType::F16, kept)
    })
}

/// f32 values that code generation writes for other kernels of the function: the last map behind each heavy operator, and maps
/// that are dear to compute again. Results of the function and operands of calls are not among them.
fn stored(function: &Function) -> Vec<ValueId> {
    let mut users: Vec<Vec<ValueId>> = vec![Vec::new(); function.values.len()];
    for id in function.ids() {
        for arg in function.op(id).map_or(&[][..], |(_, args)| args) {
            let of = &mut users[arg.0 as usize];
            if of.last() != Some(&id) {
                of.push(id);
            }
        }
    }
    let mut kept = vec![false; function.values.len()];
    let handed = function.calls.iter().flat_map(|c| &c.args).chain(function.returns.iter().map(|r| &r.value));
    for id in handed {
        // A view of a value is the value.
        let mut at = *id;
        kept[at.0 as usize] = true;
        while let Some((Op::Transpose(_) | Op::Reshape(_) | Op::Slice(_), args)) = function.op(at) {
            at = args[0];
            kept[at.0 as usize] = true;
        }
    }
    let mut absorbed: BTreeSet<ValueId> = BTreeSet::new();
    let mut ends: BTreeSet<ValueId> = BTreeSet::new();
    for root in function.ids().filter(|id| is_kernel(function, *id)) {
        let (mut at, mut end) = (root, root);
        while !kept[at.0 as usize] {
            let [user] = users[at.0 as usize][..] else { break };
            if absorbed.contains(&user) {
                break;
            }
            match function.op(user) {
                Some((Op::Map(_), _)) => {
                    absorbed.insert(user);
                    (at, end) = (user, user);
                }
                Some((Op::Reshape(_) | Op::Transpose(_), _)) => at = user,
                Some(_) | None => break,
            }
        }
        // Statistics are small and keep their precision.
        if !matches!(function.op(root), Some((Op::Reduce(_), _))) {
            ends.insert(end);
        }
    }
    for id in function.ids() {
        let Some((Op::Map(map), args)) = function.op(id) else { continue };
        let dear = args.len() > 2 || work::of_body(&map.body) > CHEAP;
        if dear && !absorbed.contains(&id) && (users[id.0 as usize].len() > 1 || feeds_kernel(function, &users, id)) {
            ends.insert(id);
        }
    }
    ends.retain(|id| function.ty(*id).dtype == DType::F32 && !kept[id.0 as usize]);
    ends.into_iter().collect()
}

/// Operators that are kernels of their own and whose elements are read by others as a tensor.
fn is_kernel(function: &Function, id: ValueId) -> bool {
    function.op(id).is_some_and(|(op, _)| match op.class() {
        OpClass::Contract | OpClass::Window | OpClass::Reduce => true,
        OpClass::Composite => match op {
            Op::Softmax(_)
            | Op::LayerNorm(_)
            | Op::RmsNorm(_)
            | Op::GroupNorm(_)
            | Op::Attention(_)
            | Op::LocalAttention(_) => true,
            Op::Rope(_) | Op::PoolTokens(_) | Op::Resize(_) => false,
            // Other classes.
            Op::Input(_)
            | Op::Weight(_)
            | Op::State(_)
            | Op::Const(_)
            | Op::Iota(_)
            | Op::Map(_)
            | Op::Reduce(_)
            | Op::Contract(_)
            | Op::Window(_)
            | Op::Scan(_)
            | Op::Transpose(_)
            | Op::Reshape(_)
            | Op::Broadcast(_)
            | Op::Slice(_)
            | Op::Pad(_)
            | Op::Concat(_)
            | Op::Gather(_)
            | Op::Scatter(_)
            | Op::Topk(_) => false,
        },
        OpClass::Leaf | OpClass::Map | OpClass::Scan | OpClass::View | OpClass::Index => false,
    })
}

/// A kernel reads the value, perhaps through views.
fn feeds_kernel(function: &Function, users: &[Vec<ValueId>], id: ValueId) -> bool {
    users[id.0 as usize].iter().any(|user| match function.op(*user) {
        Some((Op::Transpose(_) | Op::Reshape(_) | Op::Slice(_) | Op::Broadcast(_), _)) => {
            feeds_kernel(function, users, *user)
        }
        Some(_) => is_kernel(function, *user),
        None => false,
    })
}

/// Values that some map adds as they are.
fn summands(function: &Function) -> BTreeSet<ValueId> {
    let mut all = BTreeSet::new();
    for id in function.ids() {
        let Some((Op::Map(map), args)) = function.op(id) else { continue };
        let nodes = map.body.nodes();
        let mut open = vec![map.body.result()];
        while let Some(at) = open.pop() {
            match nodes[at as usize] {
                Scalar::Binary(Binary::Add, x, y) => open.extend([x, y]),
                Scalar::Arg(i) if at != map.body.result() => {
                    let mut value = args[i as usize];
                    while let Some((Op::Transpose(_) | Op::Reshape(_), of)) = function.op(value) {
                        all.insert(value);
                        value = of[0];
                    }
                    all.insert(value);
                }
                _ => {}
            }
        }
    }
    all
}
