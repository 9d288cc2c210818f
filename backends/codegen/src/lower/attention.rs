//! Attention in one kernel, the scores never in memory.

use super::quad::return4;
use super::row::width;
use super::*;
use selvedge_ir::ops::{Attention, LocalAttention, LocalKind};
use selvedge_shaders::kernels::attention::{Attention as Fused, KeyDelivery, Window};
use std::rc::Rc;

/// Subgroups up to this width are a processor's vectors, where a broadcast costs nothing and workgroup memory as much as any.
const NARROW: u32 = 16;
/// Fours of results that an invocation has on software drivers: with more a kernel takes over a second to compile.
const HELD: u32 = 128;
/// Fours of a query up to which kernels with several queries a lane compile within a second: heads of 256 took 1.5 s on Zen 3 and Mesa 26.1.6.
const QUICK: u32 = 48;
/// Queries an invocation has there at most where scores are not computed in a loop, for the same reason.
const UNLOOPED: u32 = 6;
/// The same where compilers are old, with two keys a block. (With 64 some take 1.4 s on Mesa 22.3.6.)
const HELD_BY_OLD: u32 = 54;
/// Head sizes up to which two queries fit an invocation's registers.
const TWO_QUERIES: u64 = 128;

/// Queries so few that a GPU's workgroups would idle, with keys so many that their sums are worth splitting.
const FEW_QUERIES: u64 = 16;
const MANY_KEYS: u64 = 1024;

/// What is computed, whatever the operator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Problem {
    /// Multiplies the scores.
    scale: f64,
    causal: bool,
    /// With its dtype a mask keeps or is added.
    mask: Option<DType>,
    local: Option<Local>,
}

/// The grid of a local attention.
#[derive(Clone, Copy, Debug)]
struct Local {
    text: u64,
    height: u64,
    width: u64,
    radius: u64,
    square: bool,
}

impl Problem {
    /// Of an attention with a mask of this dtype, if there is one.
    pub fn full(attention: &Attention, mask: Option<DType>) -> Problem {
        Problem { scale: attention.scale.0, causal: attention.causal, mask, local: None }
    }
    /// Of a local attention.
    pub fn local(attention: &LocalAttention) -> Problem {
        let [text, height, width, radius] =
            [attention.text, attention.height, attention.width, attention.radius].map(|x| x as u64);
        let square = match attention.shape {
            LocalKind::Circle => false,
            LocalKind::Square => true,
        };
        let local = Local { text, height, width, radius, square };
        Problem { scale: attention.scale.0, causal: false, mask: None, local: Some(local) }
    }
    /// Kernels for queries [B,H,N,D] and values [B,H,M,E] that the target can run, the default first; `grid` with the window.
    fn candidates(self, q: &[u64], v: &[u64], grid: bool, target: &Target) -> Vec<Fused> {
        let small = |x: u64| u32::try_from(x).ok();
        let queries = match (self.local, grid) {
            (Some(local), true) => local.height * local.width,
            (Some(local), false) => local.text,
            (None, _) => q[2],
        };
        let extents = [small(q[0] * q[1]), small(queries), small(v[2]), small(q[3]), small(v[3])];
        let [Some(batch), Some(n), Some(m), Some(d), Some(e)] = extents else { return Vec::new() };
        let window = self.local.filter(|_| grid).and_then(|l| {
            let [text, height, width, radius] = [l.text, l.height, l.width, l.radius].map(small);
            let (tile_height, tile_width) = (1, 1);
            let (text, height, width, radius) = (text?, height?, width?, radius?);
            Some(Window { text, height, width, radius, square: l.square, tile_height, tile_width })
        });
        if grid && window.is_none() {
            return Vec::new();
        }
        let base = Fused {
            batch,
            n,
            m,
            d,
            e,
            scale: self.scale as f32,
            causal: self.causal,
            masked: self.mask == Some(DType::Bool),
            biased: self.mask.is_some_and(|dtype| dtype != DType::Bool),
            window,
            delivery: KeyDelivery::Uniform,
            ql: 1,
            kb: 2,
            kl: 2,
            wg: workgroup(target, 64),
            indexed: false,
        };
        let quads = (base.d_quads() + base.e_quads()) as u64;
        let mut all = Vec::new();
        // Arrays in memory are what old compilers are slow with, and their code too.
        let old = target.old_compiler;
        let indexed = !target.gpu && !old;
        let broadcast = |wg, ql, kb| Fused { delivery: KeyDelivery::Broadcast, ql, kb, kl: kb, wg, indexed, ..base };
        let size = (d as u64).max(e as u64);
        let most = if size <= TWO_QUERIES { 2 } else { 1 };
        if let Some(wg) = width(target).filter(|w| *w <= NARROW) {
            let quads = base.d_quads().max(base.e_quads());
            // As many keys an iteration of the loop over scores as fill the lanes that load them; all four are no loop.
            let fill = |kl: &u32| (kl * base.d_quads()).div_ceil(wg) * (4 / kl);
            let kl = [1, 2, 4].into_iter().min_by_key(fill).unwrap_or(1);
            let held = match (indexed, kl) {
                // Of a window with text the block of keys is there twice.
                (false, _) if old => ((HELD_BY_OLD >> u32::from(window.is_some_and(|w| w.text > 0))) / quads).min(4),
                (false, _) => most,
                (true, 4) => (HELD / quads).min(UNLOOPED),
                (true, _) => HELD / quads,
            };
            // The tile of a window sees what any of its queries sees.
            let ql = queries_each(n, wg, if window.is_some() { held.min(4) } else { held });
            let registers = |ql, kb| Fused { indexed: false, ..broadcast(wg, ql, kb) };
            if indexed && target.avx512 && wg >= 8 {
                // There are twice as many registers, and few results in them beat many in memory.
                let ql = |most: u32| queries_each(n, wg, (HELD / quads).min(most));
                all.extend([(ql(4), 2), (ql(2), 4), (ql(5), 2)].map(|(ql, kb)| registers(ql, kb)));
            } else if indexed && quads > QUICK {
                // Two queries are faster, but take over a second to compile.
                all.push(registers(1, 2));
            }
            if indexed {
                // With lanes of four all times grow with the text, and a key a time is as fast as more.
                let (kb, kl) = match ql * quads <= HELD / 2 && quads <= 16 {
                    _ if wg < 8 => (4, 1),
                    true => (8, kl),
                    false => (4, kl),
                };
                let looped = |ql, kb, kl| Fused { kl, ..broadcast(wg, ql, kb) };
                all.extend([looped(ql, kb, kl), looped(ql, 4, 1), looped(4, 8, 1), looped(ql.min(6), 8, kl)]);
            }
            let tiles = [(ql.min(4), 4), (1, 4), (2, 4), (4, 2), (4, 4)].map(|(ql, kb)| broadcast(wg, ql, kb));
            if old {
                all.extend([broadcast(wg, ql, 2), Fused { kl: 1, ..broadcast(wg, ql, 4) }, broadcast(wg, 1, 2)]);
                all.extend(tiles.into_iter().filter(|kernel| kernel.ql * quads * kernel.kb <= 4 * HELD_BY_OLD));
            } else {
                all.extend(tiles);
            }
        }
        for keys in [32, 16, 8] {
            if keys * quads * 16 <= target.workgroup_bytes as u64 {
                let delivery = KeyDelivery::Shared { keys: keys as u32 };
                all.extend([Fused { delivery, ..base }, Fused { delivery, kb: 4, kl: 4, ..base }]);
                break;
            }
        }
        all.extend([base, Fused { ql: most, ..base }]);
        if let Some(wg) = width(target).filter(|w| *w > NARROW) {
            all.extend([broadcast(wg, 1, 4), broadcast(wg, most, 4)]);
        }
        let limits = limits(target);
        let mut legal: Vec<Fused> = Vec::new();
        for kernel in all.into_iter().map(|kernel| Fused { window: tiled(&kernel), ..kernel }) {
            if kernel.check(&limits).is_ok() && !legal.contains(&kernel) {
                legal.push(kernel);
            }
        }
        legal
    }
    /// A few queries of many keys, on a GPU: one kernel would have as many workgroups as heads, most of their invocations idle. Products
    /// have the keys' columns and split their sums over keys among invocations; the scores are a few rows.
    fn few_queries(self, q: &[u64], v: &[u64], target: &Target) -> bool {
        target.gpu && self.local.is_none() && q[2] <= FEW_QUERIES && v[2] >= MANY_KEYS
    }
    /// True if kernels do it.
    pub fn applies(self, q: &[u64], v: &[u64], target: &Target) -> bool {
        let text = self.local.is_some_and(|l| l.text > 0);
        let grid = self.local.is_none_or(|l| l.height * l.width > 0);
        let whole = self.local.is_none() || text;
        !q.contains(&0)
            && !v.contains(&0)
            && !self.few_queries(q, v, target)
            && (!whole || !self.candidates(q, v, false, target).is_empty())
            && (self.local.is_none() || !grid || !self.candidates(q, v, true, target).is_empty())
    }
}

/// Queries an invocation, of 1 to 8 and `most`, with which all tiles together cost least: a block of keys for a tile costs its loads, as
/// much as 1.7 queries, whatever the number of queries.
fn queries_each(n: u32, wg: u32, most: u32) -> u32 {
    let cost = |ql: u32| n.div_ceil(wg * ql) as u64 * (10 * ql as u64 + 17);
    (1..=most.clamp(1, 8)).min_by_key(|ql| (cost(*ql), *ql)).unwrap_or(1)
}

/// The window with a tile, as square as can be, of a workgroup's queries.
fn tiled(kernel: &Fused) -> Option<Window> {
    let queries = kernel.wg * kernel.ql;
    let tile_height = 1 << (queries.max(1).ilog2() / 2);
    kernel.window.map(|w| Window { tile_height, tile_width: queries / tile_height, ..w })
}

pub(super) fn lower<'a>(
    lowering: &mut Lowering<'a, '_>,
    epilogue: Epilogue<'a>,
    problem: Problem,
    args: &[ValueId],
) -> Result<Vec<Job<'a>>, Diagnostic> {
    let (context, target) = (lowering.context, lowering.target);
    let (q, v) = (context.sizes(args[0]), context.sizes(args[2]));
    let mut parts = Vec::new();
    match problem.local {
        None => parts.push((0, false)),
        Some(local) => {
            // Queries of text see everything.
            if local.text > 0 {
                parts.push((0, false));
            }
            if local.height * local.width > 0 {
                parts.push((local.text, true));
            }
        }
    }
    let epilogue = Rc::new(epilogue);
    let mut jobs: Vec<Job<'a>> = Vec::new();
    for (first, grid) in parts {
        let candidates = problem.candidates(&q, &v, grid, target);
        let Some(default) = candidates.first() else { return Err(internal("no attention kernel applies")) };
        let key = key(default, context.dtype(args[0]), epilogue.ops());
        let kernel = lowering.tuning.pick(&key, &candidates);
        jobs.push(job(lowering, epilogue.clone(), (key, kernel), first, args));
    }
    Ok(jobs)
}

/// Whether results are stored by fours.
pub(super) fn by_fours(epilogue: &Epilogue) -> bool {
    let sizes = epilogue.context.sizes(epilogue.unit.root());
    let query = Index::var("n", sizes[2]);
    epilogue.by_rows_of_fours(sizes[0] * sizes[1], sizes[3], &|batch, k| {
        let mut at = coordinates(batch, &sizes[..2]);
        at.extend([query.clone(), k.clone()]);
        at
    })
}

/// A problem's key for [`crate::tune`].
fn key(kernel: &Fused, dtype: DType, epilogue: u64) -> String {
    let Fused { batch, n, m, d, e, .. } = kernel;
    let mut key = format!("attention b{batch} n{n} m{m} d{d} e{e} {dtype} e{epilogue}");
    for (word, holds) in [("causal", kernel.causal), ("masked", kernel.masked), ("biased", kernel.biased)] {
        if holds {
            key += &format!(" {word}");
        }
    }
    if let Some(w) = kernel.window {
        key += &format!(" window {}+{}x{} r{}{}", w.text, w.height, w.width, w.radius, if w.square { "s" } else { "" });
    }
    key
}

/// The dispatch of a kernel whose first query is query `first` of the operand.
fn job<'a>(
    lowering: &Lowering<'a, '_>,
    epilogue: Rc<Epilogue<'a>>,
    (key, kernel): (String, Fused),
    first: u64,
    args: &[ValueId],
) -> Job<'a> {
    let (context, target) = (lowering.context, lowering.target);
    let args = args.to_vec();
    let (batch, n, m) = (kernel.batch as u64, kernel.n as u64, kernel.m as u64);
    let (d, e_len) = (kernel.d as u64, kernel.e as u64);
    let keys = match kernel.window {
        Some(w) => (w.text as u64 + (2 * w.radius as u64).pow(2)).min(m),
        None => m,
    };
    let flops = batch * n * keys * 2 * (d + e_len) + batch * n * e_len * epilogue.ops();
    let emit = move |range: Range<u64>, access: &mut Access| {
        let root = epilogue.unit.root();
        let heads = context.sizes(root)[1];
        // Divided once and by name: as parts of one index they would be divided again in every coordinate behind a reshape.
        let divided = format!(
            "    let outer = (batch + {0}u) / {heads}u;\n    let head = (batch + {0}u) % {heads}u;\n",
            range.start
        );
        let outer = [Index::var("outer", batch / heads), Index::var("head", heads)];
        let at = |token: &Index, k: &Index| vec![outer[0].clone(), outer[1].clone(), token.clone(), k.clone()];
        let query = Index::var("n", n).plus(first);
        let seen_key = Index::var("m", m);
        let mut hooks = String::new();
        for (name, index, id, token, len) in
            [("q", "n", args[0], &query, d), ("k", "m", args[1], &seen_key, d), ("v", "m", args[2], &seen_key, e_len)]
        {
            let mut e = Emitter::new(context, access);
            let quad = Index::var("quad", len.div_ceil(4));
            return4(&mut e, id, &quad, len, &|k| at(token, k))?;
            let header = format!("fn load_{name}(batch: u32, {index}: u32, quad: u32) -> vec4<f32>");
            hooks += &function(&header, &(divided.clone() + &e.finish()));
        }
        let (mut seen, mut bias) = ("    return true;\n".to_string(), "    return 0.0f;\n".to_string());
        if let Some(mask) = args.get(3) {
            let mut e = Emitter::new(context, access);
            let sizes = context.sizes(*mask);
            let pick = |(i, size): (Index, &u64)| if *size == 1 { Index::constant(0) } else { i };
            let place: Vec<Index> = at(&query, &seen_key).into_iter().zip(&sizes).map(pick).collect();
            let value = e.value(*mask, &place)?;
            e.line(format!("return {value};"));
            *(if kernel.masked { &mut seen } else { &mut bias }) = divided.clone() + &e.finish();
        }
        hooks += &function("fn seen(batch: u32, n: u32, m: u32) -> bool", &seen);
        hooks += &function("fn bias(batch: u32, n: u32, m: u32) -> f32", &bias);
        let quad = Index::var("quad", e_len.div_ceil(4));
        let body = epilogue.finish4(access, &quad, e_len, &|k| at(&query, k), &|_, _, value| Ok(value))?;
        hooks += &function("fn store(batch: u32, n: u32, quad: u32, value: vec4<f32>)", &(divided + &body));
        let kernel = Fused { batch: extent(context, root, range.end - range.start)?, ..kernel };
        let mut shader = shader(&epilogue, target, &kernel, hooks)?;
        shader.subgroups = kernel.delivery == KeyDelivery::Broadcast;
        shader.choice = Some((key.clone(), kernel.to_string()));
        Ok(shader)
    };
    Job { outer: batch, summed: 0, flops, emit: Box::new(emit) }
}
