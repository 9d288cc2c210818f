//! Cumulative scans: one invocation walks a row.

use super::*;
use crate::emit::{Emitter, number};
use selvedge_ir::ops::{Scan, ScanKind};
use selvedge_shaders::kernels::reduce::Combine;
use selvedge_shaders::kernels::scan::Scan as Kernel;

pub(super) fn lower<'a>(
    lowering: &mut Lowering<'a, '_>,
    epilogue: Epilogue<'a>,
    scan: &Scan,
    x: ValueId,
) -> Result<Vec<Job<'a>>, Diagnostic> {
    let (context, target) = (lowering.context, lowering.target);
    let (sizes, axis, dtype) = (context.sizes(x), scan.axis, context.dtype(x));
    let len = sizes[axis];
    let mut row_sizes = sizes.clone();
    row_sizes.remove(axis);
    let rows: u64 = row_sizes.iter().product();
    let kind = match scan.kind {
        ScanKind::Sum => Combine::Sum,
        ScanKind::Prod => Combine::Prod,
        ScanKind::Max => Combine::Max,
        ScanKind::Min => Combine::Min,
    };
    let (reverse, exclusive) = (scan.reverse, scan.exclusive);
    let element = Element::of(dtype);
    let finite = match dtype {
        DType::F32 | DType::Packed(_) => Some(f32::MAX as f64),
        DType::F16 => Some(65504.0),
        DType::BF16 => Some(f32::from_bits(0x7f7f_0000) as f64),
        DType::I32 | DType::U32 | DType::Bool => None,
    };
    let bounds = chunks(len, (target.max_iterations as u64).saturating_sub(16));
    // The last value of a chunk, unrounded, for the next one.
    let scratch = (bounds.len() > 1).then(|| (lowering.scratch)("running", running(element), rows));
    let mut jobs: Vec<Job<'a>> = Vec::new();
    for (from, to) in bounds {
        let (epilogue, row_sizes) = (epilogue.clone(), row_sizes.clone());
        let flops = rows * (to - from) * (1 + epilogue.ops());
        let emit = move |range: Range<u64>, access: &mut Access| {
            let (row, a, root) = (part(&range, "row"), element.wgsl(), epilogue.unit.root());
            let mut at = coordinates(&row, &row_sizes);
            at.insert(axis, Index::var("k", len));
            let mut hooks = String::new();
            let mut e = Emitter::new(context, access);
            let value = e.value(x, &at)?;
            e.line(format!("return {};", to_element(dtype, value)));
            hooks += &function(&format!("fn load(row: u32, k: u32) -> {a}"), &e.finish());
            let mut e = Emitter::new(context, access);
            let partial = match scratch {
                Some(scratch) if from > 0 => e.load(scratch, &row),
                Some(_) | None => format!("{a}(0)"),
            };
            e.line(format!("return {partial};"));
            hooks += &function(&format!("fn partial(row: u32) -> {a}"), &e.finish());
            let mut body = String::new();
            if let Some(scratch) = scratch.filter(|_| to < len) {
                let last = if reverse { len - to } else { to - 1 };
                let mut e = Emitter::new(context, access);
                e.store(scratch, &row, "value");
                body += &format!("    if k == {last}u {{\n{}    }}\n", e.finish());
            }
            // The running value starts at the dtype's extreme finite value, not at an infinity.
            let value = match (kind, finite) {
                (Combine::Max, Some(most)) => format!("max(value, {})", number(DType::F32, -most)),
                (Combine::Min, Some(most)) => format!("min(value, {})", number(DType::F32, most)),
                (Combine::Max | Combine::Min | Combine::Sum | Combine::Prod, _) => from_element(dtype, "value"),
            };
            body += &epilogue.store(access, &at, &value)?;
            hooks += &function(&format!("fn store(row: u32, k: u32, value: {a})"), &body);
            let kernel = Kernel {
                rows: extent(context, root, range.end - range.start)?,
                len: extent(context, root, len)?,
                from: extent(context, root, from)?,
                to: extent(context, root, to)?,
                kind,
                reverse,
                exclusive,
                element,
                wg: workgroup(target, 64),
            };
            shader(&epilogue, target, &kernel, hooks)
        };
        jobs.push(Job { outer: rows, summed: 0, flops, emit: Box::new(emit) });
    }
    Ok(jobs)
}
