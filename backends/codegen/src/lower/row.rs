//! Softmax and normalisations as row kernels.

use super::quad::load4;
use super::*;
use selvedge_shaders::kernels::row::{Lanes, Phase, RowNorm, RowSoftmax};
use std::rc::Rc;

/// Rows from which the device is busy with a workgroup or subgroup each; long rows are cut where there are fewer.
pub(super) const BUSY_ROWS: u64 = 64;
/// Elements of a chunk of a row that is cut.
pub(super) const CHUNK: u64 = 4096;
/// Chunks of a row.
const MAX_CHUNKS: u64 = 256;

/// The width that all subgroups have.
pub(super) fn width(target: &Target) -> Option<u32> {
    target.subgroup.filter(|s| s.min == s.max && s.max >= 2 && s.max <= target.invocations).map(|s| s.max)
}

/// The lanes for rows of `len`, the default first.
pub(super) fn lanes(target: &Target, len: u64, contiguous: bool) -> Vec<Lanes> {
    let one = Lanes::One { wg: workgroup(target, 64) };
    let group = |wg| Lanes::Group { wg: workgroup(target, wg) };
    if !contiguous || len <= 16 {
        return vec![one, group(32)];
    }
    let mut all: Vec<Lanes> = width(target).map(|width| Lanes::Subgroup { width }).into_iter().collect();
    for lanes in [group(if len <= 2048 { 32 } else { 128 }), group(64), one] {
        if !all.contains(&lanes) {
            all.push(lanes);
        }
    }
    all
}

/// A row kernel's operator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Row {
    Softmax { axis: usize },
    Norm { centred: bool, eps: f64 },
    Groups { groups: usize, eps: f64 },
}

impl Row {
    /// Rows and their length in a tensor of these extents.
    fn extents(self, sizes: &[u64]) -> (u64, u64) {
        let count: u64 = sizes.iter().product();
        let len = match self {
            Row::Softmax { axis } => sizes[axis],
            Row::Norm { .. } => sizes[sizes.len() - 1],
            Row::Groups { groups, .. } => sizes[1] / groups as u64 * sizes[2..].iter().product::<u64>(),
        };
        (count / len.max(1), len)
    }
    /// The index of element k of a row.
    fn place(self, sizes: &[u64], row: &Index, k: &Index) -> Vec<Index> {
        match self {
            Row::Softmax { axis } => {
                let others: Vec<u64> = (0..sizes.len()).filter(|a| *a != axis).map(|a| sizes[a]).collect();
                let mut at = coordinates(row, &others);
                at.insert(axis, k.clone());
                at
            }
            Row::Norm { .. } | Row::Groups { .. } => {
                let (_, len) = self.extents(sizes);
                coordinates(&row.times(len).add(k), sizes)
            }
        }
    }
    /// The axis of scale and bias.
    fn channel(self, rank: usize) -> usize {
        match self {
            Row::Groups { .. } => 1,
            Row::Softmax { .. } | Row::Norm { .. } => rank - 1,
        }
    }
    /// Chunks of a row.
    fn chunks(self, rows: u64, len: u64) -> u64 {
        let quads = len.div_ceil(4);
        let wanted = match self {
            Row::Softmax { .. } => 1,
            _ if len >= 2 * CHUNK && rows < BUSY_ROWS => (len / CHUNK).min(MAX_CHUNKS),
            Row::Norm { .. } | Row::Groups { .. } => 1,
        };
        quads.div_ceil(quads.div_ceil(wanted).max(1)).max(1)
    }
    /// Kernels for these extents that the target can run, the default first.
    fn candidates(self, sizes: &[u64], target: &Target) -> Vec<Lanes> {
        let (rows, len) = self.extents(sizes);
        let (Ok(rows), Ok(len)) = (u32::try_from(rows), u32::try_from(len)) else { return Vec::new() };
        if rows == 0 || len == 0 {
            return Vec::new();
        }
        let contiguous = !matches!(self, Row::Softmax { axis } if axis + 1 != sizes.len());
        let chunks = self.chunks(rows as u64, len as u64) as u32;
        let phase = if chunks == 1 { Phase::Both } else { Phase::Apply };
        let limits = limits(target);
        lanes(target, len as u64, contiguous)
            .into_iter()
            .filter(|lanes| self.kernel(target, [rows, len, chunks], phase, *lanes).check(&limits).is_ok())
            .collect()
    }
    /// The kernel that does a phase for `rows` rows of `len` elements in so many chunks.
    fn kernel(self, target: &Target, [rows, len, chunks]: [u32; 3], phase: Phase, lanes: Lanes) -> Box<dyn Kernel> {
        let rolled = !target.gpu;
        let norm = |centred, eps| RowNorm { rows, len, centred, eps: eps as f32, chunks, phase, lanes, rolled };
        match self {
            Row::Softmax { .. } => Box::new(RowSoftmax { rows, len, lanes, rolled }),
            Row::Norm { centred, eps } => Box::new(norm(centred, eps)),
            Row::Groups { eps, .. } => Box::new(norm(true, eps)),
        }
    }
    /// True if a kernel does it.
    pub fn applies(self, sizes: &[u64], target: &Target) -> bool {
        !self.candidates(sizes, target).is_empty()
    }
}

/// Whether results are stored by fours.
pub(super) fn by_fours(epilogue: &Epilogue, row: Row, x: ValueId) -> bool {
    let sizes = epilogue.context.sizes(x);
    let (rows, len) = row.extents(&sizes);
    epilogue.by_rows_of_fours(rows, len, &|at, k| row.place(&sizes, at, k))
}

pub(super) fn lower<'a>(
    lowering: &mut Lowering<'a, '_>,
    epilogue: Epilogue<'a>,
    row: Row,
    args: &[ValueId],
) -> Result<Vec<Job<'a>>, Diagnostic> {
    let (context, target) = (lowering.context, lowering.target);
    let (x, root) = (args[0], epilogue.unit.root());
    let sizes = Rc::new(context.sizes(x));
    let (rows, len) = row.extents(&sizes);
    let candidates = row.candidates(&sizes, target);
    if candidates.is_empty() {
        return Err(internal("no row kernel applies"));
    }
    let name = match row {
        Row::Softmax { .. } => "softmax",
        Row::Norm { .. } | Row::Groups { .. } => "norm",
    };
    let key = format!("{name} r{rows} l{len} {} e{}", context.dtype(x), epilogue.ops());
    let lanes = lowering.tuning.pick(&key, &candidates);
    let chunks = row.chunks(rows, len);
    let figures = (chunks > 1).then(|| (lowering.scratch)("figures", DType::F32, rows * chunks * 2));
    let phases: &[Phase] = if chunks > 1 { &[Phase::Figures, Phase::Apply] } else { &[Phase::Both] };
    let mut jobs: Vec<Job<'a>> = Vec::new();
    for phase in phases.iter().copied() {
        let (epilogue, sizes, vectors) = (epilogue.clone(), sizes.clone(), args[1..].to_vec());
        let flops = rows * len * (8 + epilogue.ops());
        let emit = move |range: Range<u64>, access: &mut Access| {
            let at_row = part(&range, "row");
            let quad = Index::var("quad", len.div_ceil(4));
            let at = |k: &Index| row.place(&sizes, &at_row, k);
            let mut hooks = String::new();
            let mut e = Emitter::new(context, access);
            let value = load4(&mut e, x, &quad, len, &at)?;
            e.line(format!("return {value};"));
            hooks += &function("fn load(row: u32, quad: u32) -> vec4<f32>", &e.finish());
            let body = match phase {
                Phase::Figures => String::new(),
                Phase::Both | Phase::Apply => epilogue.finish4(access, &quad, len, &at, &|e, k, value| {
                    let channel = at(k)[row.channel(sizes.len())].clone();
                    let mut value = value;
                    if let Some(scale) = vectors.first() {
                        value = format!("{value} * {}", e.value(*scale, std::slice::from_ref(&channel))?);
                    }
                    if let Some(bias) = vectors.get(1) {
                        value = format!("{value} + {}", e.value(*bias, std::slice::from_ref(&channel))?);
                    }
                    Ok(value)
                })?,
            };
            hooks += &function("fn store(row: u32, quad: u32, value: vec4<f32>)", &body);
            let rows = extent(context, root, range.end - range.start)?;
            let extents = [rows, extent(context, root, len)?, extent(context, root, chunks)?];
            let kernel = row.kernel(target, extents, phase, lanes);
            if let Row::Softmax { .. } = row {
                return shader(&epilogue, target, &*kernel, hooks);
            }
            let kept = at_row.times(chunks).add(&Index::var("chunk", chunks)).times(2);
            let mut e = Emitter::new(context, access);
            if let (Some(figures), Phase::Figures) = (figures, phase) {
                e.store(figures, &kept, "mean");
                e.store(figures, &kept.plus(1), "squares");
            }
            hooks += &function("fn keep(row: u32, chunk: u32, mean: f32, squares: f32)", &e.finish());
            let mut e = Emitter::new(context, access);
            let pair = match (figures, phase) {
                (Some(figures), Phase::Apply) => {
                    let mean = e.load(figures, &kept);
                    format!("vec2<f32>({mean}, {})", e.load(figures, &kept.plus(1)))
                }
                _ => "vec2<f32>()".to_string(),
            };
            e.line(format!("return {pair};"));
            hooks += &function("fn kept(row: u32, chunk: u32) -> vec2<f32>", &e.finish());
            shader(&epilogue, target, &*kernel, hooks)
        };
        let subgroups = matches!(lanes, Lanes::Subgroup { .. });
        let key = key.clone();
        let emit = move |range: Range<u64>, access: &mut Access| {
            let mut shader = emit(range, access)?;
            shader.subgroups = subgroups;
            shader.choice = Some((key.clone(), lanes.to_string()));
            Ok(shader)
        };
        jobs.push(Job { outer: rows, summed: 0, flops, emit: Box::new(emit) });
    }
    Ok(jobs)
}
