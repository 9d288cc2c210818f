//! Elements by fours: how row kernels and attention read operands and write results.

use super::*;

/// Elements 4·quad to 4·quad + 3 of a row of `len`, as a `vec4<f32>`; what lies beyond the row is its last element.
pub(super) fn load4(
    e: &mut Emitter,
    id: ValueId,
    quad: &Index,
    len: u64,
    at: &dyn Fn(&Index) -> Vec<Index>,
) -> Result<String, Diagnostic> {
    fours_of(e, "f32", quad, len, &|e, k| e.value(id, &at(k)))
}

/// As [`load4`], of what `load` gives, in vectors of the type `a`.
pub(super) fn fours_of(
    e: &mut Emitter,
    a: &str,
    quad: &Index,
    len: u64,
    load: &dyn Fn(&mut Emitter, &Index) -> Result<String, Diagnostic>,
) -> Result<String, Diagnostic> {
    let mut lanes = Vec::new();
    for lane in 0..4 {
        let k = quad.times(4).plus(lane).at_most(len - 1);
        lanes.push(load(e, &k)?);
    }
    Ok(format!("vec4<{a}>({})", lanes.join(", ")))
}

/// The statement that returns [`load4`]'s vector, 0 beyond the row.
pub(super) fn return4(
    e: &mut Emitter,
    id: ValueId,
    quad: &Index,
    len: u64,
    at: &dyn Fn(&Index) -> Vec<Index>,
) -> Result<(), Diagnostic> {
    let value = load4(e, id, quad, len, at)?;
    if len.is_multiple_of(4) {
        e.line(format!("return {value};"));
    } else {
        let first = e.index(&quad.times(4));
        let beyond = format!("vec4<u32>({first}) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>({len}u)");
        e.line(format!("return select(vec4<f32>(), {value}, {beyond});"));
    }
    Ok(())
}

impl<'a> Epilogue<'a> {
    /// True if [`Epilogue::finish4`] stores whole fours, wherever a part of the rows starts.
    pub(super) fn by_rows_of_fours(&self, rows: u64, len: u64, at: &dyn Fn(&Index, &Index) -> Vec<Index>) -> bool {
        let (sizes, quad) = (self.context.sizes(self.unit.result()), Index::var("quad", len.div_ceil(4)));
        let together = |start: u64| {
            let row = Index::var("row", rows.saturating_sub(start)).plus(start);
            let place = |lane| linear(&self.forward(&at(&row, &quad.times(4).plus(lane))), &sizes);
            is_quad(&[0, 1, 2, 3].map(place))
        };
        len.is_multiple_of(4) && rows > 0 && (0..rows.min(3)).all(together)
    }
    /// Statements that finish elements 4·quad to 4·quad + 3 of a row of `len` of the root, held by the vector `value`, unrounded.
    /// `at` gives the root's index of an element of the row, `finish` what an element becomes before the maps behind it.
    pub(super) fn finish4(
        &self,
        access: &mut Access,
        quad: &Index,
        len: u64,
        at: &dyn Fn(&Index) -> Vec<Index>,
        finish: &dyn Fn(&mut Emitter, &Index, String) -> Result<String, Diagnostic>,
    ) -> Result<String, Diagnostic> {
        let (root, result) = (self.unit.root(), self.unit.result());
        let (sizes, home) = (self.context.sizes(result), self.home()?);
        let mut e = Emitter::new(self.context, access).computing(result);
        let mut places = Vec::new();
        let mut values = [const { String::new() }; 4];
        for (lane, name) in LANES.iter().enumerate() {
            let k = quad.times(4).plus(lane as u64).at_most(len - 1);
            let value = finish(&mut e, &k, format!("value.{name}"))?;
            let value = e.bind(value);
            e.give(root, &value);
            let to = self.forward(&at(&k));
            values[lane] = e.unrounded(result, &to)?;
            places.push(linear(&to, &sizes));
        }
        if len.is_multiple_of(4) && is_quad(&places) {
            e.store4(home, &places[0].div(4), &values);
            return Ok(e.finish());
        }
        for (lane, (place, value)) in places.iter().zip(&values).enumerate() {
            let k = quad.times(4).plus(lane as u64);
            if k.high() < len {
                e.store_here(home, place, value);
            } else {
                let k = e.index(&k);
                e.line(format!("if {k} < {len}u {{"));
                e.store_here(home, place, value);
                e.line("}");
            }
        }
        Ok(e.finish())
    }
}
