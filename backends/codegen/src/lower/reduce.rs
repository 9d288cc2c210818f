//! Reductions: rows are the kept axes, and a row runs over the reduced axes. Rows whose elements are neighbours are read by
//! fours, and so are neighbours of rows ([`Columns`]).

use super::column::Columns;
use super::quad::fours_of;
use super::row::{BUSY_ROWS, CHUNK, lanes};
use super::*;
use crate::emit::Emitter;
use selvedge_ir::ops::{Reduce, ReduceKind};
use selvedge_shaders::kernels::argreduce::{ArgreduceGroup, ArgreduceLane, Search};
use selvedge_shaders::kernels::reduce::{Combine, ReduceGroup, ReduceLane, Reduction};
use selvedge_shaders::kernels::row::{Lanes, RowReduce};

/// Rows from which one invocation a row keeps the device busy.
const LANE_ROWS: u64 = 256;
/// Length up to which a workgroup has too little to share.
const LANE_LEN: u64 = 64;
/// Length up to which rows are not read by fours.
const SHORT: u64 = 16;

pub(super) fn lower<'a>(
    lowering: &mut Lowering<'a, '_>,
    epilogue: Epilogue<'a>,
    reduce: &Reduce,
    x: ValueId,
) -> Result<Vec<Job<'a>>, Diagnostic> {
    let context = lowering.context;
    let sizes = context.sizes(x);
    let axes = reduce.axes.clone();
    let kept: Vec<usize> = (0..sizes.len()).filter(|a| !axes.contains(a)).collect();
    let extents = |axes: &[usize]| axes.iter().map(|a| sizes[*a]).collect::<Vec<u64>>();
    let (row_sizes, k_sizes) = (extents(&kept), extents(&axes));
    let neighbours = kept.last().is_some_and(|axis| axis + 1 == sizes.len());
    let contiguous = axes.iter().enumerate().all(|(i, axis)| *axis == kept.len() + i);
    let rank = sizes.len();
    let dtype = context.dtype(x);
    let load = move |e: &mut Emitter, row: &Index, k: &Index| {
        let mut at = vec![Index::constant(0); rank];
        kept.iter().zip(coordinates(row, &row_sizes)).for_each(|(axis, i)| at[*axis] = i);
        axes.iter().zip(coordinates(k, &k_sizes)).for_each(|(axis, i)| at[*axis] = i);
        let value = e.value(x, &at)?;
        Ok(to_element(dtype, value))
    };
    let rows: u64 = context.sizes(epilogue.unit.root()).iter().product();
    let len = sizes.iter().product::<u64>() / rows.max(1);
    let out_sizes = context.sizes(epilogue.unit.root());
    let kind = match reduce.kind {
        ReduceKind::Sum => Kind::Fold(Combine::Sum),
        ReduceKind::Prod => Kind::Fold(Combine::Prod),
        ReduceKind::Max => Kind::Fold(Combine::Max),
        ReduceKind::Min => Kind::Fold(Combine::Min),
        ReduceKind::Argmax => Kind::Search { largest: true },
        ReduceKind::Argmin => Kind::Search { largest: false },
    };
    if let (Kind::Fold(kind), true) = (kind, neighbours) {
        let columns = Columns { len, out_sizes: out_sizes.clone(), kind, dtype };
        let candidates = columns.candidates(lowering.target);
        if !candidates.is_empty() {
            return columns.jobs(lowering, epilogue, &candidates, load);
        }
    }
    let rows = Rows { rows, len, out_sizes, kind, element: Element::of(dtype), contiguous };
    rows.jobs(lowering, epilogue, load)
}

/// Steps of a loop that combines blocks of 32, so that those, the blocks and a tree are no more iterations than there may be.
pub(super) fn steps(target: &Target) -> u64 {
    (target.max_iterations as u64).saturating_sub(16) / 33 * 32
}

/// What a row becomes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// One combined value.
    Fold(Combine),
    /// The index of the best element.
    Search {
        /// Largest rather than smallest.
        largest: bool,
    },
}

/// Rows to be reduced; also what pooling and depthwise convolution are.
pub(super) struct Rows {
    pub rows: u64,
    pub len: u64,
    /// The result's extents; their product is the number of rows.
    pub out_sizes: Vec<u64>,
    pub kind: Kind,
    pub element: Element,
    /// A row's elements lie next to each other, as far as its operator says.
    pub contiguous: bool,
}

/// How rows are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// An invocation a row, word by word.
    Lane,
    /// A workgroup a row, word by word.
    Group,
    /// By fours.
    Fours(Lanes),
}

impl Rows {
    /// The lanes for rows read by fours, the default first; empty if there is no such kernel.
    fn fours(&self, target: &Target) -> Vec<Lanes> {
        let Kind::Fold(_) = self.kind else { return Vec::new() };
        if !self.contiguous || self.len <= SHORT || self.len > 1 << 30 {
            return Vec::new();
        }
        let mut all = lanes(target, self.len, true);
        // A few long rows do not fill a GPU with a subgroup each.
        let many = Lanes::Group { wg: workgroup(target, 256) };
        if target.gpu && self.rows < BUSY_ROWS && self.len >= 2 * CHUNK {
            all.retain(|lanes| *lanes != many);
            all.insert(0, many);
        }
        all
    }

    /// Kernels that reduce what `load` gives for (row, k), long rows in several dispatches.
    pub fn jobs<'a>(
        self,
        lowering: &mut Lowering<'a, '_>,
        epilogue: Epilogue<'a>,
        load: impl Fn(&mut Emitter, &Index, &Index) -> Result<String, Diagnostic> + Clone + 'a,
    ) -> Result<Vec<Job<'a>>, Diagnostic> {
        let (context, target) = (lowering.context, lowering.target);
        let fours = self.fours(target);
        let Rows { rows, len, out_sizes, kind, element, .. } = self;
        let wg = workgroup(target, 64) as u64;
        let most = target.max_iterations as u64;
        let root = epilogue.unit.root();
        let key = format!("reduce r{rows} l{len} {} e{}", context.dtype(root), epilogue.ops());
        // The lane kernel's loops take len + len/32 iterations, and a little more.
        let way = match fours[..] {
            [] if (rows >= LANE_ROWS || len <= LANE_LEN) && len + len / 16 + 2 <= most => Way::Lane,
            [] => Way::Group,
            _ => Way::Fours(lowering.tuning.pick(&key, &fours)),
        };
        let most_chunk = match way {
            Way::Lane => u64::MAX / 8,
            Way::Group => (most.saturating_sub(16)).max(1) * wg,
            Way::Fours(lanes) => steps(target) * 4 * lanes.count() as u64,
        };
        // A search looks back at what it found, so its chunks do not touch less.
        let divisible = matches!(kind, Kind::Fold(_));
        let bounds = chunks(len, if divisible { most_chunk.min(lowering.chunk) } else { most_chunk });
        let root_dtype = context.dtype(epilogue.unit.root());
        let held = match kind {
            Kind::Fold(_) => running(element),
            Kind::Search { .. } => DType::I32,
        };
        let scratch = (bounds.len() > 1).then(|| (lowering.scratch)("partial", held, rows));
        let mut jobs: Vec<Job<'a>> = Vec::new();
        for (from, to) in bounds {
            let (load, epilogue, out_sizes) = (load.clone(), epilogue.clone(), out_sizes.clone());
            let flops = rows * (to - from) + rows * epilogue.ops();
            let key = key.clone();
            let emit = move |range: Range<u64>, access: &mut Access| {
                let row = part(&range, "row");
                let a = element.wgsl();
                let mut hooks = String::new();
                let mut e = Emitter::new(context, access);
                hooks += &match way {
                    Way::Lane | Way::Group => {
                        let (k, line) = if divisible { chunked("k", (from, to)) } else { (Index::var("k", len), None) };
                        line.into_iter().for_each(|l| e.line(l));
                        let value = load(&mut e, &row, &k)?;
                        e.line(format!("return {value};"));
                        function(&format!("fn load(row: u32, k: u32) -> {a}"), &e.finish())
                    }
                    Way::Fours(_) => {
                        let (quad, line) = chunked("quad", (from / 4, to.div_ceil(4)));
                        line.into_iter().for_each(|l| e.line(l));
                        let value = fours_of(&mut e, a, &quad, to, &|e, k| load(e, &row, k))?;
                        e.line(format!("return {value};"));
                        function(&format!("fn load(row: u32, quad: u32) -> vec4<{a}>"), &e.finish())
                    }
                };
                let partial_type = if let Kind::Fold(_) = kind { a } else { "i32" };
                let mut e = Emitter::new(context, access);
                let partial = match scratch {
                    Some(scratch) if from > 0 => e.load(scratch, &row),
                    Some(_) | None => format!("{partial_type}(0)"),
                };
                e.line(format!("return {partial};"));
                hooks += &function(&format!("fn partial(row: u32) -> {partial_type}"), &e.finish());
                let name = if let Kind::Fold(_) = kind { "value" } else { "index" };
                let body = match scratch {
                    Some(scratch) if to < len => {
                        let mut e = Emitter::new(context, access);
                        e.store(scratch, &row, name);
                        e.finish()
                    }
                    Some(_) | None => {
                        epilogue.store(access, &coordinates(&row, &out_sizes), &from_element(root_dtype, name))?
                    }
                };
                hooks += &function(&format!("fn store(row: u32, {name}: {partial_type})"), &body);
                let rows = extent(context, root, range.end - range.start)?;
                let (len, from, to) =
                    (extent(context, root, len)?, extent(context, root, from)?, extent(context, root, to)?);
                let wg = wg as u32;
                match kind {
                    Kind::Fold(kind) => {
                        let reduction = Reduction { rows, len, from, to, kind, element };
                        match way {
                            Way::Lane => shader(&epilogue, target, &ReduceLane { reduction, wg }, hooks),
                            Way::Group => shader(&epilogue, target, &ReduceGroup { reduction, wg }, hooks),
                            Way::Fours(lanes) => {
                                let kernel = RowReduce { reduction, lanes, rolled: !target.gpu };
                                let mut shader = shader(&epilogue, target, &kernel, hooks)?;
                                shader.subgroups = matches!(lanes, Lanes::Subgroup { .. });
                                shader.choice = Some((key.clone(), lanes.to_string()));
                                Ok(shader)
                            }
                        }
                    }
                    Kind::Search { largest } => {
                        let search = Search { rows, len, from, to, largest, element };
                        match way {
                            Way::Lane => shader(&epilogue, target, &ArgreduceLane { search, wg }, hooks),
                            Way::Group | Way::Fours(_) => {
                                shader(&epilogue, target, &ArgreduceGroup { search, wg }, hooks)
                            }
                        }
                    }
                }
            };
            let summed = if divisible { to - from } else { 0 };
            jobs.push(Job { outer: rows, summed, flops, emit: Box::new(emit) });
        }
        Ok(jobs)
    }
}
