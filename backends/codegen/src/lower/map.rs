//! Pointwise kernels: a stored map or view, four elements an invocation where that is possible.

use super::*;
use crate::emit::Emitter;
use selvedge_shaders::kernels::map::Map;

/// A map unit; `id` is any value that can be emitted.
pub(super) fn lower<'a>(lowering: &mut Lowering<'a, '_>, id: ValueId) -> Result<Vec<Job<'a>>, Diagnostic> {
    let (context, target) = (lowering.context, lowering.target);
    let sizes = context.sizes(id);
    let count: u64 = sizes.iter().product();
    let home = *context.homes.get(&id).ok_or_else(|| internal("a unit's result has no memory"))?;
    let width = if count.is_multiple_of(4) { 4 } else { 1 };
    let emit = move |range: Range<u64>, access: &mut Access| {
        let i = part(&range, "i");
        let mut e = Emitter::new(context, access).computing(id);
        if width == 4 {
            let mut values = [const { String::new() }; 4];
            for (lane, value) in values.iter_mut().enumerate() {
                *value = e.unrounded(id, &coordinates(&i.times(4).plus(lane as u64), &sizes))?;
            }
            e.store4(home, &i, &values);
        } else {
            let value = e.unrounded(id, &coordinates(&i, &sizes))?;
            e.store(home, &i, &value);
        }
        let hooks = function("fn element(i: u32)", &e.finish());
        let count = extent(context, id, range.end - range.start)?;
        let kernel = Map { count, wg: workgroup(target, 64) };
        finish(context, id, target, &kernel, hooks)
    };
    let flops = count * body_ops(context, id).max(1);
    Ok(vec![Job { outer: count / width, summed: 0, flops, emit: Box::new(emit) }])
}

/// A root whose every element is `value`: a sum over nothing.
pub(super) fn constant<'a>(
    lowering: &mut Lowering<'a, '_>,
    epilogue: Epilogue<'a>,
    value: &'static str,
) -> Result<Vec<Job<'a>>, Diagnostic> {
    let (context, target) = (lowering.context, lowering.target);
    let sizes = context.sizes(epilogue.unit.root());
    let count: u64 = sizes.iter().product();
    let emit = move |range: Range<u64>, access: &mut Access| {
        let at = coordinates(&part(&range, "i"), &sizes);
        let hooks = function("fn element(i: u32)", &epilogue.store(access, &at, value)?);
        let count = extent(context, epilogue.unit.root(), range.end - range.start)?;
        shader(&epilogue, target, &Map { count, wg: workgroup(target, 64) }, hooks)
    };
    Ok(vec![Job { outer: count, summed: 0, flops: 0, emit: Box::new(emit) }])
}
