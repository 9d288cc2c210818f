//! Reductions along columns: the results are neighbours where their elements are, so four are computed at a time.

use super::quad::fours_of;
use super::reduce::steps;
use super::row::{BUSY_ROWS, width};
use super::*;
use crate::emit::Emitter;
use selvedge_shaders::kernels::column::ColumnReduce;
use selvedge_shaders::kernels::reduce::{Combine, Reduction};
use selvedge_shaders::kernels::row::Lanes;

/// Length up to which there is too little to share.
const SHORT: u64 = 64;

/// Columns of `len` elements, one for each element of a result of the extents `out_sizes`.
pub(super) struct Columns {
    pub len: u64,
    pub out_sizes: Vec<u64>,
    pub kind: Combine,
    pub dtype: DType,
}

impl Columns {
    /// Fours of columns.
    fn fours(&self) -> u64 {
        self.out_sizes.iter().product::<u64>() / 4
    }
    /// The kernel for some fours, over elements `from..to`.
    fn kernel(&self, target: &Target, lanes: Lanes, fours: u64, (from, to): (u64, u64)) -> Option<ColumnReduce> {
        let [rows, len, from, to] = [fours * 4, self.len, from, to].map(|x| u32::try_from(x).ok());
        let (kind, element) = (self.kind, Element::of(self.dtype));
        let reduction = Reduction { rows: rows?, len: len?, from: from?, to: to?, kind, element };
        Some(ColumnReduce { reduction, lanes, rolled: !target.gpu })
    }
    /// Who works on four columns, the default first; nobody if there is no such kernel: a bool has no vectors here, and GPUs, which
    /// read neighbours together anyway, would have fewer invocations.
    pub fn candidates(&self, target: &Target) -> Vec<Lanes> {
        let fours = self.out_sizes.last().is_some_and(|n| n.is_multiple_of(4));
        if target.gpu || self.dtype == DType::Bool || !fours || self.fours() == 0 || self.len == 0 {
            return Vec::new();
        }
        let mut all = vec![Lanes::One { wg: workgroup(target, 64) }];
        let shared = width(target).map(|width| Lanes::Subgroup { width });
        all.extend(shared.into_iter().chain([Lanes::Group { wg: workgroup(target, 32) }]));
        if self.fours() < BUSY_ROWS && self.len > SHORT {
            all.rotate_left(1);
        }
        let fits = |lanes: &Lanes| {
            let kernel = self.kernel(target, *lanes, self.fours(), (0, 1));
            kernel.is_some_and(|kernel| kernel.check(&limits(target)).is_ok())
        };
        all.into_iter().filter(fits).collect()
    }
    /// Kernels that reduce what `load` gives for (column, k), long columns in several dispatches.
    pub fn jobs<'a>(
        self,
        lowering: &mut Lowering<'a, '_>,
        epilogue: Epilogue<'a>,
        candidates: &[Lanes],
        load: impl Fn(&mut Emitter, &Index, &Index) -> Result<String, Diagnostic> + Clone + 'a,
    ) -> Result<Vec<Job<'a>>, Diagnostic> {
        let (context, target) = (lowering.context, lowering.target);
        let (len, fours, element) = (self.len, self.fours(), Element::of(self.dtype));
        let key = format!("columns r{} l{len} {} e{}", fours * 4, self.dtype, epilogue.ops());
        let lanes = lowering.tuning.pick(&key, candidates);
        let bounds = chunks(len, (steps(target) * lanes.count() as u64).min(lowering.chunk));
        let scratch = (bounds.len() > 1).then(|| (lowering.scratch)("partial", running(element), fours * 4));
        let columns = std::rc::Rc::new(self);
        let mut jobs: Vec<Job<'a>> = Vec::new();
        for (from, to) in bounds {
            let (load, epilogue, columns, key) = (load.clone(), epilogue.clone(), columns.clone(), key.clone());
            let flops = fours * 4 * (to - from + epilogue.ops());
            let emit = move |range: Range<u64>, access: &mut Access| {
                let quad = part(&range, "quad");
                let at = [0, 1, 2, 3].map(|lane| quad.times(4).plus(lane));
                let a = element.wgsl();
                let mut e = Emitter::new(context, access);
                let (k, line) = chunked("k", (from, to));
                line.into_iter().for_each(|l| e.line(l));
                let value = fours_of(&mut e, a, &quad, fours * 4, &|e, column| load(e, column, &k))?;
                e.line(format!("return {value};"));
                let mut hooks = function(&format!("fn load(quad: u32, k: u32) -> vec4<{a}>"), &e.finish());
                let mut e = Emitter::new(context, access);
                let partial = match scratch {
                    Some(scratch) if from > 0 => at.each_ref().map(|at| e.load(scratch, at)).join(", "),
                    Some(_) | None => String::new(),
                };
                e.line(format!("return vec4<{a}>({partial});"));
                hooks += &function(&format!("fn partial(quad: u32) -> vec4<{a}>"), &e.finish());
                let body = match scratch {
                    Some(scratch) if to < len => {
                        let mut e = Emitter::new(context, access);
                        e.store4(scratch, &quad, &LANES.map(|lane| format!("value.{lane}")));
                        e.finish()
                    }
                    Some(_) | None => {
                        let at = at.each_ref().map(|at| coordinates(at, &columns.out_sizes));
                        epilogue.store4(access, &at, "value", ("0u", fours * 4))?
                    }
                };
                hooks += &function(&format!("fn store(quad: u32, value: vec4<{a}>)"), &body);
                let root = epilogue.unit.root();
                let kernel = columns.kernel(target, lanes, range.end - range.start, (from, to));
                let kernel =
                    kernel.ok_or_else(|| refuse(context, root, "an extent does not fit 32 bits, in a value"))?;
                let mut shader = shader(&epilogue, target, &kernel, hooks)?;
                shader.subgroups = matches!(lanes, Lanes::Subgroup { .. });
                shader.choice = Some((key.clone(), lanes.to_string()));
                Ok(shader)
            };
            jobs.push(Job { outer: fours, summed: to - from, flops, emit: Box::new(emit) });
        }
        Ok(jobs)
    }
}
