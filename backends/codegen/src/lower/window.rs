//! Convolution and pooling. A convolution is a matrix product whose B is read through the window; one that gives few
//! outputs for each group (depthwise) is a reduction, and so is pooling.

use super::contract::{Matrix, Operands};
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
    let x = args[0];
    let x_sizes = context.sizes(x);
    let out_sizes = context.sizes(epilogue.unit.root());
    let taps: Vec<u64> = window.size.iter().map(|s| *s as u64).collect();
    let slide = Slide {
        stride: window.stride.iter().map(|s| *s as u64).collect(),
        dilation: window.dilation.iter().map(|s| *s as u64).collect(),
        bounds: window.padding.iter().zip(&x_sizes[2..]).map(|((before, _), size)| (*before as u64, *size)).collect(),
    };
    let outside = match window.kind {
        WindowKind::Conv | WindowKind::Sum => "0.0f",
        WindowKind::Max => "float_bits(0xff800000u)",
    };
    // Element of x under output position `at` (without batch and channel) at a tap.
    let read = move |e: &mut Emitter, lead: [Index; 2], at: &[Index], tap: &[Index]| {
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
    };
    let rows: u64 = out_sizes.iter().product();
    match (window.kind, args.get(1).copied()) {
        (WindowKind::Conv, Some(kernel)) => {
            let groups = window.groups as u64;
            let (per_group, outputs) = (x_sizes[1] / groups, out_sizes[1] / groups);
            let mut k_sizes = vec![per_group];
            k_sizes.extend(&taps);
            let k: u64 = k_sizes.iter().product();
            if outputs <= DEPTHWISE && k > 0 {
                let (sizes, out) = (out_sizes.clone(), out_sizes.clone());
                let load = move |e: &mut Emitter, row: &Index, k: &Index| {
                    let at = coordinates(row, &sizes);
                    let tap = coordinates(k, &k_sizes);
                    let channel = at[1].div(outputs).times(per_group).add(&tap[0]);
                    let value = read(e, [at[0].clone(), channel], &at[2..], &tap[1..])?;
                    let mut index = vec![at[1].clone()];
                    index.extend(tap);
                    let factor = e.value(kernel, &index)?;
                    Ok(format!("({value} * {factor})"))
                };
                let kind = Kind::Fold(Combine::Sum);
                return Rows { rows, len: k, out_sizes: out, kind, element: Element::F32 }
                    .jobs(lowering, epilogue, load);
            }
            let spatial = out_sizes[2..].to_vec();
            let matrix = Matrix { batch: out_sizes[0] * groups, m: outputs, n: spatial.iter().product(), k };
            let (a_sizes, b_sizes, b_spatial, out_spatial) = (k_sizes.clone(), k_sizes, spatial.clone(), spatial);
            let operands = Operands {
                a: Box::new(move |e, batch, m, k| {
                    let mut index = vec![batch.rem(groups).times(outputs).add(m)];
                    index.extend(coordinates(k, &a_sizes));
                    e.value(kernel, &index)
                }),
                b: Box::new(move |e, batch, k, n| {
                    let tap = coordinates(k, &b_sizes);
                    let channel = batch.rem(groups).times(per_group).add(&tap[0]);
                    read(e, [batch.div(groups), channel], &coordinates(n, &b_spatial), &tap[1..])
                }),
                out: Box::new(move |batch, m, n| {
                    let mut index = vec![batch.div(groups), batch.rem(groups).times(outputs).add(m)];
                    index.extend(coordinates(n, &out_spatial));
                    index
                }),
            };
            matrix.jobs(lowering, epilogue, operands)
        }
        (WindowKind::Conv, None) => Err(internal("a convolution without a kernel")),
        (WindowKind::Sum | WindowKind::Max, _) => {
            let sum = window.kind == WindowKind::Sum;
            let kind = Kind::Fold(if sum { Combine::Sum } else { Combine::Max });
            let (len, sizes) = (taps.iter().product(), out_sizes.clone());
            let load = move |e: &mut Emitter, row: &Index, k: &Index| {
                let at = coordinates(row, &sizes);
                read(e, [at[0].clone(), at[1].clone()], &at[2..], &coordinates(k, &taps))
            };
            Rows { rows, len, out_sizes, kind, element: Element::F32 }.jobs(lowering, epilogue, load)
        }
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
