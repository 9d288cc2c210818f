//! Contractions as batched matrix products, and what convolutions share with them.

use super::*;
use crate::emit::Emitter;
use crate::panels::{self, Reading};
use selvedge_ir::ops::Contract;
use selvedge_ir::scalar::Body;
use selvedge_ir::spec::Role;
use selvedge_shaders::kernels::contract::{BOrder, Capabilities, Choice, Product, candidates};

pub(super) fn lower<'a>(
    lowering: &mut Lowering<'a, '_>,
    epilogue: Epilogue<'a>,
    contract: &Contract,
    a: ValueId,
    b: ValueId,
) -> Result<Vec<Job<'a>>, Diagnostic> {
    let (matrix, operands) = matrix(lowering.context, contract, a, b);
    matrix.jobs(lowering, epilogue, operands)
}

/// A contraction as a batched matrix product.
pub(super) fn matrix<'a>(context: Context<'a>, contract: &Contract, a: ValueId, b: ValueId) -> (Matrix, Operands<'a>) {
    let spec = &contract.spec;
    // Lanes run along columns: the result's last axis is one of them, so operands may change places.
    let swap = spec.out.last().is_some_and(|l| spec.role(*l) == Some(Role::Rows));
    let (a, b, a_letters, b_letters) =
        if swap { (b, a, spec.b.clone(), spec.a.clone()) } else { (a, b, spec.a.clone(), spec.b.clone()) };
    let mut size = [0u64; 256];
    for (letters, id) in [(&a_letters, a), (&b_letters, b)] {
        letters.iter().zip(context.sizes(id)).for_each(|(l, s)| size[*l as usize] = s);
    }
    let of = |role: Role| spec.out.iter().copied().filter(|l| spec.role(*l) == Some(role)).collect::<Vec<u8>>();
    let (rows, columns) = if swap { (Role::Columns, Role::Rows) } else { (Role::Rows, Role::Columns) };
    // Summed letters in the order of the operand whose last axis is summed, so that its reads are contiguous.
    let last_summed = |letters: &[u8]| letters.last().is_some_and(|l| spec.role(*l) == Some(Role::Summed));
    let order = if last_summed(&b_letters) { &b_letters } else { &a_letters };
    let summed: Vec<u8> = order.iter().copied().filter(|l| spec.role(*l) == Some(Role::Summed)).collect();
    let groups = [of(Role::Batch), of(rows), of(columns), summed];
    let extents = groups.clone().map(|g| g.iter().map(|l| size[*l as usize]).collect::<Vec<u64>>());
    let product = |g: usize| extents[g].iter().product::<u64>();
    let matrix = Matrix { batch: product(0), m: product(1), n: product(2), k: product(3) };

    // The index of a term's axes from the four linear indices.
    let place = move |letters: &[u8], linear: [&Index; 4]| -> Vec<Index> {
        let coordinates: Vec<Vec<Index>> = (0..4).map(|g| coordinates(linear[g], &extents[g])).collect();
        let find =
            |l: &u8| (0..4).find_map(|g| groups[g].iter().position(|x| x == l).map(|i| coordinates[g][i].clone()));
        letters.iter().map(|l| find(l).expect("each letter has a role")).collect()
    };
    let zero = Index::constant(0);
    let (place_a, place_b, place_out, out) = (place.clone(), place.clone(), place, spec.out.clone());
    let (zero_a, zero_b, zero_out) = (zero.clone(), zero.clone(), zero);
    let columns = Weight {
        operand: b,
        taps: 1,
        at: {
            let (place, letters, zero) = (place_b.clone(), b_letters.clone(), zero_b.clone());
            Box::new(move |batch, n, k| place(&letters, [batch, &zero, n, k]))
        },
        batches: matrix.batch,
        rows: matrix.n,
    };
    let operands = Operands {
        a: Box::new(move |e, batch, m, k| e.value(a, &place_a(&a_letters, [batch, m, &zero_a, k]))),
        b: Box::new(move |e, batch, k, n| e.value(b, &place_b(&b_letters, [batch, &zero_b, n, k]))),
        out: Box::new(move |batch, m, n| place_out(&out, [batch, m, n, &zero_out])),
        weight: columns,
        halves: holds_halves(context, a) && holds_halves(context, b),
    };
    (matrix, operands)
}

/// Emits an element of an operand for (batch, m, k) or (batch, k, n).
type Load<'a> = Box<dyn Fn(&mut Emitter, &Index, &Index, &Index) -> Result<String, Diagnostic> + 'a>;
/// The root's index for (batch, m, n).
type Place<'a> = Box<dyn Fn(&Index, &Index, &Index) -> Vec<Index> + 'a>;

/// How a batched matrix product reads and writes.
pub(super) struct Operands<'a> {
    pub a: Load<'a>,
    pub b: Load<'a>,
    pub out: Place<'a>,
    /// The operand that is a weight where one is.
    pub weight: Weight<'a>,
    /// All of their values are values of f16.
    pub halves: bool,
}

/// An operand whose rows (columns of B, in a contraction) are summed along.
pub(super) struct Weight<'a> {
    pub operand: ValueId,
    /// Its index for (batch, row, k).
    pub at: Place<'a>,
    /// Batches that have rows of their own, after which they are those of the first again; and rows of each.
    pub batches: u64,
    pub rows: u64,
    /// Of fours of k, the sum runs through so many taps of four channels before it comes to the next channels.
    pub taps: u64,
}

/// Extents of a batched matrix product.
#[derive(Clone, Copy)]
pub(super) struct Matrix {
    pub batch: u64,
    pub m: u64,
    pub n: u64,
    pub k: u64,
}

impl Matrix {
    /// Kernels of a product, with long sums in several dispatches.
    pub fn jobs<'a>(
        self,
        lowering: &mut Lowering<'a, '_>,
        epilogue: Epilogue<'a>,
        operands: Operands<'a>,
    ) -> Result<Vec<Job<'a>>, Diagnostic> {
        let (context, target, tuning) = (lowering.context, lowering.target, lowering.tuning);
        let Matrix { batch, m, n, k } = self;
        let halves = operands.halves;
        let in_panels = panels::holder(context, operands.weight.operand)
            .is_some_and(|home| lowering.tensors[home].panels.is_some());
        let operands = std::rc::Rc::new(operands);
        let root = epilogue.unit.root();
        if k == 0 {
            return map::constant(lowering, epilogue, "0.0f");
        }
        let order = self.cheaper_order(context, &operands, lowering)?;
        let tile = 256;
        let most = ((target.max_iterations as u64).saturating_sub(tile).max(1) * 4).min(lowering.chunk);
        let bounds = chunks(k, most);
        // Whole fours of columns.
        let columns = n.next_multiple_of(4);
        let scratch = (bounds.len() > 1).then(|| (lowering.scratch)("partial", DType::F32, batch * m * columns));
        let by_batch = batch > 1;
        let mut jobs: Vec<Job<'a>> = Vec::new();
        for (from, to) in bounds {
            let (operands, epilogue) = (operands.clone(), epilogue.clone());
            let flops = 2 * batch * m * n * (to - from) + batch * m * n * epilogue.ops();
            let emit = move |range: Range<u64>, access: &mut Access| {
                let part_len = range.end - range.start;
                let at = |split: bool, name: &str, size: u64| {
                    if split { part(&range, name) } else { Index::var(name, size) }
                };
                let (batch_at, m_at) = (at(by_batch, "batch", batch), at(!by_batch, "m", m));
                let (batch_len, m_len) = if by_batch { (part_len, m) } else { (batch, part_len) };
                let mut hooks = String::new();

                let n4 = Index::var("n4", columns / 4).times(4);
                let n4_line = "let n4 = n >> 2u;";

                access.fix(&["batch", "m"], "row");
                let mut e = Emitter::new(context, access);
                let k4 = quads(&mut e, (from, to));
                let lanes = fours(&mut e, &k4, k, |e, k| (operands.a)(e, &batch_at, &m_at, k))?;
                e.line(format!("return {lanes};"));
                hooks += &function("fn load_a(row: u32, batch: u32, m: u32, k: u32) -> vec4<f32>", &e.finish());
                let row = access.fixed();
                hooks += &function("fn row_a(batch: u32, m: u32) -> u32", &told(context, access, &row, ""));

                access.fix(&["batch", "n", "n4"], "column");
                let mut e = Emitter::new(context, access);
                let lanes = load_b(&mut e, &operands, order, &batch_at, (from, to, k), n)?;
                e.line(format!("return {lanes};"));
                hooks += &function("fn load_b(column: u32, batch: u32, k: u32, n: u32) -> vec4<f32>", &e.finish());
                let column = access.fixed();
                hooks += &function("fn column_b(batch: u32, n: u32) -> u32", &told(context, access, &column, n4_line));

                let partial_at = linear(&[batch_at.clone(), m_at.clone(), n4.clone()], &[batch, m, columns]);
                let mut e = Emitter::new(context, access);
                let partial = match scratch {
                    Some(scratch) if from > 0 => {
                        e.line(n4_line);
                        let lanes: Vec<String> = (0..4).map(|lane| e.load(scratch, &partial_at.plus(lane))).collect();
                        format!("vec4<f32>({})", lanes.join(", "))
                    }
                    Some(_) | None => "vec4<f32>()".to_string(),
                };
                e.line(format!("return {partial};"));
                hooks += &function("fn partial(batch: u32, m: u32, n: u32) -> vec4<f32>", &e.finish());

                let body = match scratch {
                    Some(scratch) if to < k => {
                        let mut e = Emitter::new(context, access);
                        e.store4(scratch, &partial_at.div(4), &LANES.map(|lane| format!("value.{lane}")));
                        e.finish()
                    }
                    Some(_) | None => {
                        let at = [0, 1, 2, 3]
                            .map(|lane| (operands.out)(&batch_at, &m_at, &n4.plus(lane).at_most(n.max(1) - 1)));
                        epilogue.store4(access, &at, "value", ("n", n))?
                    }
                };
                let body = format!("    {n4_line}\n{body}");
                hooks += &function("fn store(batch: u32, m: u32, n: u32, value: vec4<f32>)", &body);

                let product = Product {
                    batch: extent(context, root, batch_len)?,
                    m: extent(context, root, m_len)?,
                    n: extent(context, root, n)?,
                    k: extent(context, root, k)?,
                    from: extent(context, root, from)?,
                    to: extent(context, root, to)?,
                    b_order: order,
                };
                let key = key(&product, halves, in_panels, epilogue.ops());
                let choice = tuning.pick(&key, &candidates(product, halves, &capabilities(target)));
                let mut shader = shader(&epilogue, target, choice.kernel(), hooks)?;
                shader.choice = Some((key, choice.to_string()));
                shader.subgroups = matches!(choice, Choice::Subgroup(_));
                shader.cooperative = matches!(choice, Choice::Cooperative(_));
                Ok(shader)
            };
            let outer = if by_batch { batch } else { m };
            jobs.push(Job { outer, summed: to - from, flops, emit: Box::new(emit) });
        }
        Ok(jobs)
    }

    /// The weight, if its rows lie one behind the other, channel by channel.
    pub fn weight(self, context: Context, weight: &Weight) -> Option<Reading> {
        let Weight { operand, at, batches, rows, taps } = weight;
        let channels = self.k / taps;
        if self.k == 0 || !channels.is_multiple_of(4) {
            return None;
        }
        let (batch, r) = (Index::var("batch", self.batch), Index::var("row", *rows));
        let four = Index::var("k4", self.k / 4);
        let [channel, tap] = &coordinates(&four, &[channels / 4, *taps])[..] else { return None };
        let lies = |lane: u64| {
            let place = batch
                .rem(*batches)
                .times(*rows)
                .add(&r)
                .times(self.k)
                .add(&channel.times(4).plus(lane).times(*taps))
                .add(tap);
            panels::stored(context, *operand, &at(&batch, &r, &four.times(4).plus(lane)))
                .is_some_and(|(_, p)| p == place)
        };
        (0..4).all(lies).then_some(Reading { channels, taps: *taps })
    }

    /// Whether four columns, the first a multiple of 4, are always a quad of the unit's result.
    pub fn by_fours(self, epilogue: &Epilogue, operands: &Operands) -> bool {
        let Matrix { batch, m, n, k } = self;
        let sizes = epilogue.context.sizes(epilogue.unit.result());
        let n4 = Index::var("n4", n.div_ceil(4)).times(4);
        let place = |lane| {
            let at = (operands.out)(&Index::var("batch", batch), &Index::var("m", m), &n4.plus(lane));
            linear(&epilogue.forward(&at), &sizes)
        };
        k > 0 && n.is_multiple_of(4) && !sizes.contains(&0) && is_quad(&[0, 1, 2, 3].map(place))
    }

    /// Which axis of B to read by fours: the one that takes fewer loads.
    fn cheaper_order(self, context: Context, operands: &Operands, lowering: &Lowering) -> Result<BOrder, Diagnostic> {
        let tensors = lowering.tensors;
        let cost = |order| {
            let mut access = Access::collecting(tensors);
            let mut e = Emitter::new(context, &mut access);
            load_b(&mut e, operands, order, &Index::var("batch", self.batch), (0, self.k, self.k), self.n)?;
            Ok::<usize, Diagnostic>(e.cost())
        };
        let (by_n, by_k) = (cost(BOrder::NContiguous)?, cost(BOrder::KContiguous)?);
        Ok(if by_k < by_n { BOrder::KContiguous } else { BOrder::NContiguous })
    }
}

/// A product's key for [`crate::tune`]: whatever decides which kernel is fastest.
fn key(product: &Product, halves: bool, in_panels: bool, epilogue: u64) -> String {
    let Product { batch, m, n, k, from, to, b_order } = *product;
    let order = match b_order {
        BOrder::KContiguous => "nk",
        BOrder::NContiguous => "kn",
    };
    let part = if (from, to) == (0, k) { String::new() } else { format!("[{from}..{to}]") };
    let halves = if halves { " halves" } else { "" };
    let panels = if in_panels { " panels" } else { "" };
    format!("contract b{batch} m{m} n{n} k{k}{part} {order}{panels}{halves} e{epilogue}")
}

/// What of a target decides about contractions. A subgroup's width may be relied on only where all kernels have it.
fn capabilities(target: &Target) -> Capabilities {
    Capabilities {
        subgroup: target.subgroup.filter(|s| s.min == s.max).map(|s| s.max),
        limits: Limits {
            invocations: target.invocations,
            workgroup_bytes: target.workgroup_bytes,
            iterations: target.max_iterations as u64,
        },
        gpu: target.gpu,
        wide: target.wide,
        avx512: target.avx512,
        cooperative: if target.f16 { target.cooperative.clone() } else { Vec::new() },
    }
}

/// Whether all elements of a value are values of f16: it is of that type, or comes from such a value by views and casts that are
/// not stored (a unit depends on nothing behind what is stored).
pub(super) fn holds_halves(context: Context, mut id: ValueId) -> bool {
    loop {
        if context.dtype(id) == DType::F16 {
            return true;
        }
        if context.homes.contains_key(&id) {
            return false;
        }
        match context.function.op(id) {
            Some((Op::Map(map), [arg])) if map.body == Body::cast(context.dtype(id)) => id = *arg,
            Some((Op::Transpose(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Slice(_), args)) => id = args[0],
            Some(_) | None => return false,
        }
    }
}

/// The body of a function that computes what a hook is told of a row or column.
fn told(context: Context, access: &mut Access, part: &Index, first: &str) -> String {
    let mut e = Emitter::new(context, access);
    if !first.is_empty() {
        e.line(first);
    }
    let text = e.index(part);
    e.line(format!("return {text};"));
    e.finish()
}

/// The hook's `k`, a multiple of 4 in a chunk, as an index that shows it.
fn quads(e: &mut Emitter, (from, to): (u64, u64)) -> Index {
    let start = if from == 0 { "k".to_string() } else { format!("(k - {from}u)") };
    e.line(format!("let k4 = {start} >> 2u;"));
    Index::var("k4", (to - from).div_ceil(4)).times(4).plus(from)
}

/// The four elements that `load_b` gives, for k in from..to of `k`.
fn load_b(
    e: &mut Emitter,
    operands: &Operands,
    order: BOrder,
    batch: &Index,
    (from, to, k): (u64, u64, u64),
    n: u64,
) -> Result<String, Diagnostic> {
    match order {
        BOrder::KContiguous => {
            let k4 = quads(e, (from, to));
            let n = Index::var("n", n);
            fours(e, &k4, k, |e, k| (operands.b)(e, batch, k, &n))
        }
        BOrder::NContiguous => {
            e.line("let n4 = n >> 2u;");
            let n4 = Index::var("n4", n.div_ceil(4)).times(4);
            // Rows beyond K (there are some if K is not a multiple of 4) are read at the last row and dropped.
            let rows = to.next_multiple_of(4);
            let (row, line) = chunked("k", (from, rows));
            line.into_iter().for_each(|l| e.line(l));
            let clamped = row.at_most(k - 1);
            let mut lanes = Vec::new();
            for lane in 0..4 {
                let column = n4.plus(lane).at_most(n - 1);
                lanes.push((operands.b)(e, batch, &clamped, &column)?);
            }
            let value = format!("vec4<f32>({})", lanes.join(", "));
            Ok(if rows <= k { value } else { format!("select(vec4<f32>(), {value}, k < {k}u)") })
        }
    }
}

/// Elements at..at+3 as a vector, 0 from `len` on.
fn fours(
    e: &mut Emitter,
    at: &Index,
    len: u64,
    mut load: impl FnMut(&mut Emitter, &Index) -> Result<String, Diagnostic>,
) -> Result<String, Diagnostic> {
    let mut lanes = Vec::new();
    for lane in 0..4 {
        let i = at.plus(lane);
        let value = load(e, &i.at_most(len - 1))?;
        let beyond = i.high() >= len;
        lanes.push(if beyond { format!("select(0.0f, {value}, k + {lane}u < {len}u)") } else { value });
    }
    Ok(format!("vec4<f32>({})", lanes.join(", ")))
}
