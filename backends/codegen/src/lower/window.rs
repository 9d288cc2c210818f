//! Convolution and pooling. A convolution is a matrix product whose B is read through the window; one that gives few
//! outputs for each group (depthwise) is a reduction, and so is pooling.

use super::contract::{Matrix, Operands, Weight, holds_halves};
use super::reduce::{Kind, Rows};
use super::*;
use crate::emit::{Emitter, Inside, clamped};
use selvedge_ir::ops::{Window, WindowKind};
use selvedge_shaders::kernels::reduce::Combine;

/// Outputs of a group up to which a convolution is a reduction.
const DEPTHWISE: u64 = 3;

pub(super) fn lower<'a>(
    lowering: &mut Lowering<'a, '_>,
    epilogue: Epilogue<'a>,
    window: &Window,
    args: &[ValueId],
) -> Result<Vec<Job<'a>>, Diagnostic> {
    let context = lowering.context;
    let root = epilogue.unit.root();
    if let Some((matrix, operands)) = matrix(context, window, root, args) {
        return matrix.jobs(lowering, epilogue, operands);
    }
    let x = args[0];
    let sizes = context.sizes(root);
    let read = reader(context, window, x);
    let rows: u64 = sizes.iter().product();
    let (taps, out_sizes, element) = (taps(window), sizes.clone(), Element::F32);
    match (window.kind, args.get(1).copied()) {
        (WindowKind::Conv, Some(kernel)) => {
            let Channels { inputs, outputs, .. } = channels(context, window, root, x);
            let k_sizes = [vec![inputs], taps].concat();
            let load = move |e: &mut Emitter, row: &Index, k: &Index| {
                let at = coordinates(row, &sizes);
                let tap = coordinates(k, &k_sizes);
                let channel = at[1].div(outputs).times(inputs).add(&tap[0]);
                let value = read(e, [at[0].clone(), channel], &at[2..], &tap[1..])?;
                let mut index = vec![at[1].clone()];
                index.extend(tap);
                let factor = e.value(kernel, &index)?;
                Ok(format!("({value} * {factor})"))
            };
            let len = inputs * taps_of(window);
            Rows { rows, len, out_sizes, kind: Kind::Fold(Combine::Sum), element, contiguous: false }
                .jobs(lowering, epilogue, load)
        }
        (WindowKind::Conv, None) => Err(internal("a convolution without a kernel")),
        (WindowKind::Sum | WindowKind::Max, _) => {
            let sum = window.kind == WindowKind::Sum;
            let kind = Kind::Fold(if sum { Combine::Sum } else { Combine::Max });
            let load = move |e: &mut Emitter, row: &Index, k: &Index| {
                let at = coordinates(row, &sizes);
                read(e, [at[0].clone(), at[1].clone()], &at[2..], &coordinates(k, &taps))
            };
            Rows { rows, len: taps_of(window), out_sizes, kind, element, contiguous: false }
                .jobs(lowering, epilogue, load)
        }
    }
}

/// A convolution as a batched matrix product; `None` for pooling, and where a group has few outputs.
pub(super) fn matrix<'a>(
    context: Context<'a>,
    window: &Window,
    root: ValueId,
    args: &[ValueId],
) -> Option<(Matrix, Operands<'a>)> {
    let (x, kernel) = (args[0], *args.get(1)?);
    let Channels { groups, inputs, outputs } = channels(context, window, root, x);
    // Four channels are summed tap by tap, where channels are whole fours: a step of the kernels has one place in x and one test of
    // its bounds, and stays where the step before was, in x and in the weights.
    let four = if inputs.is_multiple_of(4) { 4 } else { 1 };
    let k_sizes = [vec![inputs / four], taps(window), vec![four]].concat();
    let k = k_sizes.iter().product();
    // Channel and tap of an index of the sum.
    let split = move |k: &Index| {
        let mut at = coordinates(k, &k_sizes);
        let rest = at.pop().unwrap_or(Index::constant(0));
        at[0] = at[0].times(four).add(&rest);
        at
    };
    if outputs <= DEPTHWISE && k > 0 {
        return None;
    }
    let sizes = context.sizes(root);
    let spatial = sizes[2..].to_vec();
    let matrix = Matrix { batch: sizes[0] * groups, m: outputs, n: spatial.iter().product(), k };
    let read = reader(context, window, x);
    let (split_a, split_b, b_spatial, out_spatial) = (split.clone(), split, spatial.clone(), spatial);
    let kernel_at = move |batch: &Index, m: &Index, k: &Index| {
        let mut index = vec![batch.rem(groups).times(outputs).add(m)];
        index.extend(split_a(k));
        index
    };
    let weight = Weight {
        operand: kernel,
        at: Box::new(kernel_at.clone()),
        batches: groups,
        rows: outputs,
        taps: taps_of(window),
    };
    let operands = Operands {
        a: Box::new(move |e, batch, m, k| e.value(kernel, &kernel_at(batch, m, k))),
        weight,
        b: Box::new(move |e, batch, k, n| {
            let tap = split_b(k);
            let channel = batch.rem(groups).times(inputs).add(&tap[0]);
            read(e, [batch.div(groups), channel], &coordinates(n, &b_spatial), &tap[1..])
        }),
        out: Box::new(move |batch, m, n| {
            let mut index = vec![batch.div(groups), batch.rem(groups).times(outputs).add(m)];
            index.extend(coordinates(n, &out_spatial));
            index
        }),
        halves: holds_halves(context, x) && holds_halves(context, kernel),
    };
    Some((matrix, operands))
}

/// Groups of a convolution, and channels of each.
struct Channels {
    groups: u64,
    inputs: u64,
    outputs: u64,
}

fn channels(context: Context, window: &Window, root: ValueId, x: ValueId) -> Channels {
    let groups = window.groups as u64;
    Channels { groups, inputs: context.sizes(x)[1] / groups, outputs: context.sizes(root)[1] / groups }
}

fn taps(window: &Window) -> Vec<u64> {
    window.size.iter().map(|s| *s as u64).collect()
}

fn taps_of(window: &Window) -> u64 {
    taps(window).iter().product()
}

/// Emits the element of `x` under an output position (without batch and channel, which come first) at a tap.
fn reader<'a>(
    context: Context<'a>,
    window: &Window,
    x: ValueId,
) -> impl Fn(&mut Emitter, [Index; 2], &[Index], &[Index]) -> Result<String, Diagnostic> + Clone + 'a {
    let sizes = context.sizes(x);
    let slide = Slide {
        stride: window.stride.iter().map(|s| *s as u64).collect(),
        dilation: window.dilation.iter().map(|s| *s as u64).collect(),
        bounds: window.padding.iter().zip(&sizes[2..]).map(|((before, _), size)| (*before as u64, *size)).collect(),
    };
    let outside = match window.kind {
        WindowKind::Conv | WindowKind::Sum => "0.0f",
        WindowKind::Max => "float_bits(0xff800000u)",
    };
    move |e, lead, at, tap| {
        let place = slide.place(at, tap);
        let inside = e.inside(&place, &slide.bounds);
        if inside == Inside::Never {
            return Ok(outside.to_string());
        }
        let mut index = lead.to_vec();
        index.extend(place.iter().zip(&slide.bounds).map(|(i, b)| clamped(i, *b)));
        let value = e.value(x, &index)?;
        Ok(match inside {
            Inside::When(condition) => e.bind(format!("select({outside}, {value}, {condition})")),
            Inside::Always | Inside::Never => value,
        })
    }
}

/// Where a window reads.
#[derive(Clone)]
struct Slide {
    stride: Vec<u64>,
    dilation: Vec<u64>,
    /// Padding before, and extent, of each spatial axis.
    bounds: Vec<(u64, u64)>,
}

impl Slide {
    /// Position in the padded input.
    fn place(&self, at: &[Index], tap: &[Index]) -> Vec<Index> {
        (0..at.len()).map(|d| at[d].times(self.stride[d]).add(&tap[d].times(self.dilation[d]))).collect()
    }
}
