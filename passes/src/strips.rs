//! `strips`: a convolutional decoder row strip by row strip, so that no full-size activation is ever stored.

use crate::Pass;
use selvedge_ir::func::{Builder, Target};
use selvedge_ir::ops::{Broadcast, Concat, GroupNorm, Map, Reduce, ReduceKind, Reshape, Slice};
use selvedge_ir::scalar::{Binary, Body, Unary};
use selvedge_ir::{DType, Def, Diagnostic, Function, Module, Op, Shape, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Computes the end of a function (of pointwise operators, convolutions of stride 1, group norms and upsampling on
/// [N, C, rows, columns]) in strips of rows, each with the halo that it needs.
///
/// The statistics of a norm are those of the whole picture: for each norm in turn, the strips up to it give means and
/// squared deviations, which are combined without cancellation (Chan, Golub & LeVeque 1979); then all strips are computed
/// with all statistics. The result equals the untiled one up to rounding. Work before a norm is done again for each later
/// one: memory is bought with time.
pub struct Strips {
    /// The function.
    pub function: String,
    /// Number of strips.
    pub strips: usize,
}

/// The value that is stored whole before the strips is at most the largest one behind it divided by this.
const SHARE: usize = 4;

impl Pass for Strips {
    fn name(&self) -> &'static str {
        "strips"
    }
    fn summary(&self) -> &'static str {
        "computes a convolutional decoder in row strips, with the norms' statistics of the whole picture"
    }
    /// The module is unchanged if the function does not end in such operators, or in fewer rows than strips.
    fn run(&self, mut module: Module) -> Result<Module, Diagnostic> {
        let Some(function) = module.functions.iter_mut().find(|f| f.name == self.function) else { return Ok(module) };
        if let Some(region) = Region::find(function)
            && self.strips > 1
            && rows(function, region.end).is_some_and(|n| n >= 2 * self.strips)
        {
            *function = Striping::new(function, region, self.strips).run()?;
        }
        Ok(module)
    }
}

/// Rows of a value on [N, C, rows, …].
fn rows(function: &Function, id: ValueId) -> Option<usize> {
    let sizes = function.ty(id).shape.get()?;
    if sizes.len() >= 4 { Some(sizes[2]) } else { None }
}

/// What is computed in strips: the values between `cut`, which is stored whole, and `end`.
struct Region {
    cut: ValueId,
    end: ValueId,
    inside: BTreeSet<ValueId>,
}

impl Region {
    fn find(function: &Function) -> Option<Region> {
        let [returned] = function.returns.as_slice() else { return None };
        // What a later operator does to the picture as a whole stays after the strips.
        let mut end = returned.value;
        while striped_operands(function, end).is_none() {
            end = *function.op(end)?.1.first()?;
        }
        let (mut frontier, mut inside) = (BTreeSet::from([end]), BTreeSet::new());
        let (mut largest, mut chosen) = (0, None);
        while let Some(last) = frontier.pop_last() {
            let bytes = function.ty(last).elements()?;
            if frontier.is_empty() && last != end && function.ty(last).rank() == 4 {
                chosen = Some((last, inside.clone()));
                if bytes * SHARE <= largest {
                    break;
                }
            }
            let Some(operands) = striped_operands(function, last) else { break };
            largest = largest.max(bytes);
            inside.insert(last);
            frontier.extend(operands);
        }
        let (cut, inside) = chosen?;
        inside.contains(&end).then_some(Region { cut, end, inside })
    }
}

/// How a value's rows follow from its first operand's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The same rows of all operands.
    Pointwise,
    /// A convolution: some rows more.
    Window,
    /// The same rows, and statistics of all.
    Norm,
    /// The same for all rows: a vector along another axis.
    Constant,
    /// The same rows, repeated along other axes.
    Repeat,
    /// Axes split, or joined so that each row of the operand becomes several.
    Reshape,
}

/// The form of a value that can be computed row by row; `None` for others.
fn form(function: &Function, id: ValueId) -> Option<Form> {
    let ty = function.ty(id);
    let sizes = ty.shape.get()?;
    let (op, args) = function.op(id)?;
    let image = |id: ValueId| function.ty(id).shape.get().filter(|s| s.len() == 4 || s.len() == 6);
    let form = |holds: bool, form: Form| holds.then_some(form);
    match op {
        Op::Map(_) => form(sizes.len() == 4, Form::Pointwise),
        Op::Window(w) => form(sizes.len() == 4 && w.stride == [1, 1] && args.len() == 2, Form::Window),
        Op::GroupNorm(_) => form(sizes.len() == 4 && ty.dtype == DType::F32, Form::Norm),
        Op::Broadcast(b) if flat_along_rows(function, &b.axes, args[0]) => form(sizes.len() == 4, Form::Constant),
        Op::Broadcast(b) => {
            let from = image(args[0])?;
            let along = b.axes.get(2) == Some(&2) && from[2] == sizes[2] && from.len() == sizes.len();
            form(along, Form::Repeat)
        }
        Op::Reshape(_) => {
            let from = image(args[0])?;
            let split = from.len() == 4 && sizes.len() == 6 && sizes[2..] == [from[2], 1, from[3], 1];
            let joined = from.len() == 6 && sizes.len() == 4 && sizes[2..] == [from[2] * from[3], from[4] * from[5]];
            form(from[..2] == sizes[..2] && (split || joined), Form::Reshape)
        }
        Op::Input(_)
        | Op::Weight(_)
        | Op::State(_)
        | Op::Const(_)
        | Op::Iota(_)
        | Op::Reduce(_)
        | Op::Contract(_)
        | Op::Scan(_)
        | Op::Transpose(_)
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Concat(_)
        | Op::Gather(_)
        | Op::Scatter(_)
        | Op::Topk(_)
        | Op::Softmax(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::Attention(_)
        | Op::LocalAttention(_)
        | Op::Rope(_)
        | Op::PoolTokens(_)
        | Op::Resize(_) => None,
    }
}

/// A broadcast's operand is the same for all rows: it has no such axis, or one of extent 1.
fn flat_along_rows(function: &Function, axes: &[usize], operand: ValueId) -> bool {
    let sizes = function.ty(operand).shape.get().unwrap_or_default();
    axes.iter().position(|&axis| axis == 2).is_none_or(|i| sizes.get(i) == Some(&1))
}

/// The operands whose rows a value is computed from; `None` if it cannot be computed row by row.
fn striped_operands(function: &Function, id: ValueId) -> Option<Vec<ValueId>> {
    let form = form(function, id)?;
    let args = function.op(id)?.1;
    Some(match form {
        Form::Pointwise => args.to_vec(),
        Form::Window | Form::Norm | Form::Repeat | Form::Reshape => vec![args[0]],
        Form::Constant => Vec::new(),
    })
}

/// A value's rows in the new function, and which they are.
type Piece = (ValueId, Range<usize>);

/// What a norm subtracts and multiplies by, [N, C] each, and its bias [C].
#[derive(Clone)]
struct Statistics {
    mean: ValueId,
    factor: ValueId,
    bias: Option<ValueId>,
}

struct Striping<'f> {
    from: &'f Function,
    region: Region,
    strips: usize,
    to: Builder,
    /// Stand-ins of values outside the region.
    map: Vec<Option<ValueId>>,
    norms: BTreeMap<ValueId, Statistics>,
}

impl<'f> Striping<'f> {
    fn new(from: &'f Function, region: Region, strips: usize) -> Striping<'f> {
        let (to, map) = (Builder::new(from.name.clone()), vec![None; from.values.len()]);
        Striping { from, region, strips, to, map, norms: BTreeMap::new() }
    }

    fn run(mut self) -> Result<Function, Diagnostic> {
        let end = self.region.end;
        for id in self.from.ids().filter(|id| *id < end) {
            let ready = self.from.reads(id).iter().all(|a| self.map[a.0 as usize].is_some());
            // What reads the inside is in it, or is read by nobody.
            if !self.region.inside.contains(&id) && ready {
                self.copy(id)?;
            }
        }
        let norms: Vec<ValueId> = self.region.inside.iter().copied().collect();
        for id in norms {
            if let Some((Op::GroupNorm(norm), args)) = self.from.op(id) {
                let (norm, args) = (norm.clone(), args.to_vec());
                let statistics = self.statistics(&norm, &args)?;
                self.norms.insert(id, statistics);
            }
        }
        let mut parts = Vec::new();
        for range in self.ranges(end) {
            let piece = self.piece(end, range.clone())?;
            parts.push(self.slice(&piece, &range)?);
        }
        let whole = self.put(Concat { axis: 2 }, &parts)?;
        self.map[end.0 as usize] = Some(whole);
        for id in self.from.ids().filter(|id| *id > end) {
            self.copy(id)?;
        }
        for r in &self.from.returns {
            let value = self.stand_in(r.value)?;
            match &r.target {
                Target::Output(name) => self.to.output(name.clone(), value),
                Target::State(name) => self.to.write_state(name.clone(), value),
            }
        }
        Ok(self.to.finish())
    }

    fn copy(&mut self, id: ValueId) -> Result<(), Diagnostic> {
        let value = self.from.value(id);
        let Def::Op { op, args } = &value.def else {
            return Err(Diagnostic::new("strips", format!("@{} calls other functions", self.from.name))
                .help("inline them first"));
        };
        let args = args.iter().map(|a| self.stand_in(*a)).collect::<Result<Vec<_>, _>>()?;
        self.to.set_place(value.places.first().copied());
        let new = self.to.try_push(op.clone(), &args)?;
        if !value.places.is_empty() {
            self.to.set_places(new, value.places.clone());
        }
        if let Some(name) = &value.name {
            self.to.set_name(new, name.clone());
        }
        self.map[id.0 as usize] = Some(new);
        Ok(())
    }
    fn stand_in(&self, id: ValueId) -> Result<ValueId, Diagnostic> {
        self.map[id.0 as usize].ok_or_else(|| {
            Diagnostic::new("strips", format!("a value of @{} is used outside its strip", self.from.name))
        })
    }
    fn put(&mut self, op: impl Into<Op>, args: &[ValueId]) -> Result<ValueId, Diagnostic> {
        self.to.try_push(op, args)
    }
    fn sizes(&self, id: ValueId) -> Vec<usize> {
        self.to.ty(id).shape.sizes()
    }

    /// A value's rows in about equal parts.
    fn ranges(&self, id: ValueId) -> Vec<Range<usize>> {
        let n = rows(self.from, id).unwrap_or(0);
        let strips = self.strips.min(n.max(1));
        (0..strips).map(|i| i * n / strips..(i + 1) * n / strips).collect()
    }

    /// Rows of a piece.
    fn slice(&mut self, (value, have): &Piece, want: &Range<usize>) -> Result<ValueId, Diagnostic> {
        if have == want {
            return Ok(*value);
        }
        let sizes = self.sizes(*value);
        let (mut start, mut end) = (vec![0; sizes.len()], sizes.clone());
        (start[2], end[2]) = (want.start - have.start, want.end - have.start);
        self.put(Slice { start, end, step: vec![1; sizes.len()] }, &[*value])
    }

    /// Rows of a value of the region, computed from the cut; at least those that are wanted.
    fn piece(&mut self, id: ValueId, want: Range<usize>) -> Result<Piece, Diagnostic> {
        // From the end: which rows of each value are read.
        let mut needs: BTreeMap<ValueId, Range<usize>> = BTreeMap::from([(id, want)]);
        let mut order = Vec::new();
        while let Some((id, want)) = needs.pop_last() {
            if id != self.region.cut {
                for operand in striped_operands(self.from, id).unwrap_or_default() {
                    let read = self.read(id, &want);
                    let known = needs.entry(operand).or_insert(read.clone());
                    *known = known.start.min(read.start)..known.end.max(read.end);
                }
            }
            order.push((id, want));
        }
        let mut made: BTreeMap<ValueId, Piece> = BTreeMap::new();
        for (id, want) in order.into_iter().rev() {
            let value = self.from.value(id);
            self.to.set_place(value.places.first().copied());
            let piece = self.make(id, want, &made)?;
            made.insert(id, piece);
        }
        made.remove(&id).ok_or_else(|| Diagnostic::new("strips", "an empty strip"))
    }

    /// The rows of the operand that rows of a value are computed from.
    fn read(&self, id: ValueId, want: &Range<usize>) -> Range<usize> {
        let (Some((op, args)), Some(form)) = (self.from.op(id), form(self.from, id)) else { return want.clone() };
        let most = rows(self.from, args[0]).unwrap_or(0);
        match (form, op) {
            (Form::Window, Op::Window(w)) => {
                let (before, reach) = (w.padding[0].0, (w.size[0] - 1) * w.dilation[0]);
                want.start.saturating_sub(before)..(want.end + reach).saturating_sub(before).min(most)
            }
            (Form::Reshape, _) => {
                let factor = self.factor(id, args[0]);
                want.start / factor..want.end.div_ceil(factor)
            }
            (Form::Window | Form::Pointwise | Form::Norm | Form::Constant | Form::Repeat, _) => want.clone(),
        }
    }

    /// Rows of a value for each row of its operand.
    fn factor(&self, id: ValueId, operand: ValueId) -> usize {
        (rows(self.from, id).unwrap_or(1) / rows(self.from, operand).unwrap_or(1).max(1)).max(1)
    }

    fn make(&mut self, id: ValueId, want: Range<usize>, made: &BTreeMap<ValueId, Piece>) -> Result<Piece, Diagnostic> {
        if id == self.region.cut {
            let whole = (self.stand_in(id)?, 0..rows(self.from, id).unwrap_or(0));
            return Ok((self.slice(&whole, &want)?, want));
        }
        let from = self.from;
        let (Some((op, args)), Some(form)) = (from.op(id), form(from, id)) else {
            return Err(Diagnostic::new("strips", "a value that has no rows is inside a strip"));
        };
        let shape = |range: &Range<usize>| {
            let mut sizes = from.ty(id).shape.sizes();
            sizes[2] = range.len();
            Shape::new(&sizes)
        };
        let operand = |this: &mut Self, i: usize, rows: &Range<usize>| this.slice(&made[&args[i]], rows);
        let read = self.read(id, &want);
        let new = match (form, op) {
            (Form::Window, Op::Window(w)) => {
                let (before, reach) = (w.padding[0].0, (w.size[0] - 1) * w.dilation[0]);
                let mut w = w.clone();
                // Zeros stand only for rows that the picture does not have.
                w.padding[0] =
                    (before.saturating_sub(want.start), (want.end + reach).saturating_sub(before + read.end));
                let operands = [operand(self, 0, &read)?, self.stand_in(args[1])?];
                self.put(w, &operands)?
            }
            (Form::Norm, _) => {
                let x = operand(self, 0, &want)?;
                let statistics = self.norms[&id].clone();
                self.normalise(x, &statistics)?
            }
            (Form::Constant, Op::Broadcast(b)) => {
                let x = self.stand_in(args[0])?;
                self.put(Broadcast { shape: shape(&want), axes: b.axes.clone() }, &[x])?
            }
            (Form::Repeat, Op::Broadcast(b)) => {
                let x = operand(self, 0, &want)?;
                self.put(Broadcast { shape: shape(&want), axes: b.axes.clone() }, &[x])?
            }
            (Form::Reshape, _) => {
                let x = operand(self, 0, &read)?;
                let factor = self.factor(id, args[0]);
                let given = read.start * factor..read.end * factor;
                return Ok((self.put(Reshape { shape: shape(&given) }, &[x])?, given));
            }
            (Form::Pointwise | Form::Window | Form::Constant | Form::Repeat, _) => {
                let operands = (0..args.len()).map(|i| operand(self, i, &want)).collect::<Result<Vec<_>, _>>()?;
                self.put(op.clone(), &operands)?
            }
        };
        Ok((new, want))
    }

    /// (x − mean)·factor (+ bias).
    fn normalise(&mut self, x: ValueId, s: &Statistics) -> Result<ValueId, Diagnostic> {
        let shape = self.to.ty(x).shape.clone();
        let mut operands = vec![x];
        for vector in [s.mean, s.factor] {
            operands.push(self.put(Broadcast { shape: shape.clone(), axes: vec![0, 1] }, &[vector])?);
        }
        if let Some(bias) = s.bias {
            operands.push(self.put(Broadcast { shape, axes: vec![1] }, &[bias])?);
        }
        let body = Body::build(operands.len(), |b| {
            let args: Vec<_> = (0..operands.len()).map(|i| b.arg(i)).collect();
            let centred = b.binary(Binary::Sub, args[0], args[1]);
            let y = b.binary(Binary::Mul, centred, args[2]);
            match args.get(3) {
                Some(&bias) => b.binary(Binary::Add, y, bias),
                None => y,
            }
        });
        self.put(Map { body }, &operands)
    }

    /// The statistics of a norm's operand over all strips.
    fn statistics(&mut self, norm: &GroupNorm, args: &[ValueId]) -> Result<Statistics, Diagnostic> {
        let sizes = self.from.ty(args[0]).shape.sizes();
        let (batch, channels, groups) = (sizes[0], sizes[1], norm.groups);
        let per_row = channels / groups * sizes[3];
        // Of each strip: number of elements, mean, and sum of squared deviations from it.
        let mut strips: Vec<(f64, ValueId, ValueId)> = Vec::new();
        for range in self.ranges(args[0]) {
            let piece = self.piece(args[0], range.clone())?;
            let x = self.slice(&piece, &range)?;
            let count = (per_row * range.len()) as f64;
            let grouped = [batch, groups, per_row * range.len()];
            let x = self.put(Reshape { shape: Shape::new(&grouped) }, &[x])?;
            let sum = self.put(Reduce { kind: ReduceKind::Sum, axes: vec![2] }, &[x])?;
            let mean = self.scaled(sum, 1.0 / count)?;
            let spread = self.put(Broadcast { shape: Shape::new(&grouped), axes: vec![0, 1] }, &[mean])?;
            let square = Body::build(2, |b| {
                let (x, mean) = (b.arg(0), b.arg(1));
                let d = b.binary(Binary::Sub, x, mean);
                b.binary(Binary::Mul, d, d)
            });
            let squares = self.put(Map { body: square }, &[x, spread])?;
            strips.push((count, mean, self.put(Reduce { kind: ReduceKind::Sum, axes: vec![2] }, &[squares])?));
        }
        let total: f64 = strips.iter().map(|s| s.0).sum();
        let mut mean: Option<ValueId> = None;
        for (count, strip, _) in &strips {
            let part = self.scaled(*strip, count / total)?;
            mean = Some(match mean {
                Some(sum) => self.put(Map { body: Body::binary(Binary::Add) }, &[sum, part])?,
                None => part,
            });
        }
        let mean = mean.ok_or_else(|| Diagnostic::new("strips", "a norm over no rows"))?;
        let mut deviation: Option<ValueId> = None;
        for (count, strip, squares) in &strips {
            // Σ(x − m)² = Σ(x − mₛ)² + n·(mₛ − m)².
            let body = Body::build(3, |b| {
                let (squares, strip, mean) = (b.arg(0), b.arg(1), b.arg(2));
                let d = b.binary(Binary::Sub, strip, mean);
                let d = b.binary(Binary::Mul, d, d);
                let n = b.float(*count);
                let d = b.binary(Binary::Mul, d, n);
                b.binary(Binary::Add, squares, d)
            });
            let part = self.put(Map { body }, &[*squares, *strip, mean])?;
            deviation = Some(match deviation {
                Some(sum) => self.put(Map { body: Body::binary(Binary::Add) }, &[sum, part])?,
                None => part,
            });
        }
        let deviation = deviation.ok_or_else(|| Diagnostic::new("strips", "a norm over no rows"))?;
        let eps = norm.eps.0;
        let rsqrt = Body::build(1, |b| {
            let (x, n, eps) = (b.arg(0), b.float(1.0 / total), b.float(eps));
            let variance = b.binary(Binary::Mul, x, n);
            let sum = b.binary(Binary::Add, variance, eps);
            b.unary(Unary::Rsqrt, sum)
        });
        let factor = self.put(Map { body: rsqrt }, &[deviation])?;
        let mean = self.of_channels(mean, channels)?;
        let mut factor = self.of_channels(factor, channels)?;
        if let Some(scale) = args.get(1) {
            let scale = self.stand_in(*scale)?;
            let shape = Shape::new(&[batch, channels]);
            let scale = self.put(Broadcast { shape, axes: vec![1] }, &[scale])?;
            factor = self.put(Map { body: Body::binary(Binary::Mul) }, &[factor, scale])?;
        }
        let bias = args.get(2).map(|b| self.stand_in(*b)).transpose()?;
        Ok(Statistics { mean, factor, bias })
    }

    /// x·factor.
    fn scaled(&mut self, x: ValueId, factor: f64) -> Result<ValueId, Diagnostic> {
        let body = Body::build(1, |b| {
            let (x, factor) = (b.arg(0), b.float(factor));
            b.binary(Binary::Mul, x, factor)
        });
        self.put(Map { body }, &[x])
    }
    /// [N, groups] to [N, channels].
    fn of_channels(&mut self, x: ValueId, channels: usize) -> Result<ValueId, Diagnostic> {
        let (batch, groups) = (self.sizes(x)[0], self.sizes(x)[1]);
        let repeated = Shape::new(&[batch, groups, channels / groups]);
        let x = self.put(Broadcast { shape: repeated, axes: vec![0, 1] }, &[x])?;
        self.put(Reshape { shape: Shape::new(&[batch, channels]) }, &[x])
    }
}
