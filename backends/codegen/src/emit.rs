//! The emitter: an element of a value becomes straight-line WGSL.
//!
//! Values that are stored are loaded; everything between them and the element asked for (views, maps, gathers,
//! counters, scalar constants) turns into index arithmetic and `let`s, each (value, index) once. Padding and joins
//! load at clamped indices and select, so every load is in bounds whatever the data.

use crate::access::{Access, LANES};
use crate::index::{Index, linear};
use crate::panels;
use crate::select::splat;
use crate::tensor::{Tensor, TensorId};
use crate::views::behind;
use selvedge_ir::dtype::{bf16_to_f32, f16_to_f32};
use selvedge_ir::ops::Const;
use selvedge_ir::scalar::Body;
use selvedge_ir::{DType, Diagnostic, Function, Op, ValueId};
use selvedge_shaders::memory::{self, Layout};
use selvedge_shaders::scalar;
use std::collections::{HashMap, HashSet};

/// What emitters of one function share.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Without calls and composites.
    pub function: &'a Function,
    /// The tensor of each stored value.
    pub homes: &'a HashMap<ValueId, TensorId>,
}

impl Context<'_> {
    /// Extents of a value.
    pub fn sizes(&self, id: ValueId) -> Vec<u64> {
        self.function.ty(id).shape.sizes().into_iter().map(|s| s as u64).collect()
    }
    /// Element type of a value.
    pub fn dtype(&self, id: ValueId) -> DType {
        self.function.ty(id).dtype
    }
}

/// Writes the body of one WGSL function.
pub struct Emitter<'a, 'b, 'c> {
    context: Context<'a>,
    access: &'c mut Access<'b>,
    /// Computed here though it is stored: the value that this kernel writes.
    computing: Option<ValueId>,
    /// Values held by a name already, unrounded: the root's element in an epilogue.
    given: HashMap<ValueId, String>,
    lines: Vec<Line>,
    names: usize,
    known: HashMap<(ValueId, Vec<Index>), String>,
    bound: HashMap<String, String>,
    quads: HashMap<(TensorId, Index), usize>,
    words: HashMap<(TensorId, Index), String>,
    pairs: HashSet<String>,
}

enum Line {
    Text(String),
    /// A 16-byte load of which the components in use have names.
    Quad {
        text: String,
        name: String,
        lanes: [bool; 4],
    },
}

impl<'a, 'b, 'c> Emitter<'a, 'b, 'c> {
    /// An empty function body.
    pub fn new(context: Context<'a>, access: &'c mut Access<'b>) -> Self {
        Emitter {
            context,
            access,
            computing: None,
            given: HashMap::new(),
            lines: Vec::new(),
            names: 0,
            known: HashMap::new(),
            bound: HashMap::new(),
            quads: HashMap::new(),
            words: HashMap::new(),
            pairs: HashSet::new(),
        }
    }
    /// Computes `value` here instead of loading it.
    pub fn computing(mut self, value: ValueId) -> Self {
        self.computing = Some(value);
        self
    }
    /// Takes a value's element from a register that holds it unrounded, whatever the index, from here on.
    pub fn give(&mut self, value: ValueId, register: &str) {
        self.given.insert(value, register.to_string());
    }
    /// Adds a statement.
    pub fn line(&mut self, text: impl Into<String>) {
        self.lines.push(Line::Text(text.into()));
    }
    /// What the statements cost, in loads and a fraction for everything else.
    pub fn cost(&self) -> usize {
        let quad = |l: &Line| if matches!(l, Line::Quad { .. }) { 12 } else { 1 };
        self.lines.iter().map(quad).sum::<usize>() + 12 * self.words.len() + 6 * self.pairs.len()
    }
    /// The statements so far, indented.
    pub fn finish(self) -> String {
        let mut out = String::new();
        for line in self.lines {
            match line {
                Line::Text(text) => out.push_str(&format!("    {text}\n")),
                Line::Quad { text, name, lanes } => {
                    let used: Vec<&str> = LANES.iter().zip(lanes).filter(|(_, used)| *used).map(|(l, _)| *l).collect();
                    match used[..] {
                        [lane] => out.push_str(&format!("    let {name}{lane} = {text}.{lane};\n")),
                        _ => {
                            out.push_str(&format!("    let {name} = {text};\n"));
                            for lane in used {
                                out.push_str(&format!("    let {name}{lane} = {name}.{lane};\n"));
                            }
                        }
                    }
                }
            }
        }
        out
    }

    fn fresh(&mut self) -> String {
        self.names += 1;
        format!("t{}", self.names - 1)
    }
    /// A name for an expression without side effects; equal expressions share it.
    pub fn bind(&mut self, text: String) -> String {
        if let Some(name) = self.bound.get(&text) {
            return name.clone();
        }
        let name = self.fresh();
        self.line(format!("let {name} = {text};"));
        self.bound.insert(text, name.clone());
        name
    }
    /// An index as an expression.
    pub fn index(&mut self, index: &Index) -> String {
        index.wgsl(&mut |part| self.bind(part))
    }
    /// Runs an access with this emitter's names.
    fn accessing(&mut self, f: impl FnOnce(&mut Access<'b>, &mut dyn FnMut(String) -> String) -> String) -> String {
        let Emitter { access, lines, names, bound, .. } = self;
        f(access, &mut |text| {
            bound
                .entry(text)
                .or_insert_with_key(|text| {
                    let name = format!("t{names}");
                    *names += 1;
                    lines.push(Line::Text(format!("let {name} = {text};")));
                    name
                })
                .clone()
        })
    }

    /// One 32-bit word of a tensor; neighbours in a quad share a 16-byte load.
    fn word(&mut self, tensor: TensorId, word: &Index) -> String {
        let Some(lane) = word.known_rem(4) else {
            if let Some(lane) = word.known_rem(2) {
                let text = self.accessing(|a, bind| a.pair(tensor, &word.div(2), bind));
                let pair = self.bind(text);
                self.pairs.insert(pair.clone());
                return format!("{pair}.{}", LANES[lane as usize]);
            }
            let key = (tensor, word.clone());
            if let Some(name) = self.words.get(&key) {
                return name.clone();
            }
            let text = self.accessing(|a, bind| a.word(tensor, word, bind));
            let name = self.bind(text);
            self.words.insert(key, name.clone());
            return name;
        };
        let quad = word.div(4);
        let key = (tensor, quad);
        let at = match self.quads.get(&key) {
            Some(at) => *at,
            None => {
                let text = self.accessing(|a, bind| a.quad(tensor, &key.1, bind));
                let name = self.fresh();
                self.lines.push(Line::Quad { text, name, lanes: [false; 4] });
                self.quads.insert(key, self.lines.len() - 1);
                self.lines.len() - 1
            }
        };
        let Line::Quad { name, lanes, .. } = &mut self.lines[at] else { unreachable!("quads are at quad lines") };
        lanes[lane as usize] = true;
        format!("{name}{}", LANES[lane as usize])
    }
    /// Element `e` of a tensor, in its register type.
    pub fn load(&mut self, tensor: TensorId, e: &Index) -> String {
        let Tensor { dtype, layout, panels, .. } = self.access.tensors[tensor];
        let e = &panels.map_or_else(|| e.clone(), |panels| panels::place(panels, e));
        match (dtype, layout) {
            (DType::F16 | DType::BF16, Layout::Packed) => {
                let word = self.word(tensor, &e.div(2));
                let half = match e.known_rem(2) {
                    Some(half) => format!("{half}u"),
                    None => self.index(e),
                };
                let load = if dtype == DType::F16 { "load_f16" } else { "load_bf16" };
                self.bind(format!("{load}({word}, {half})"))
            }
            (DType::F32 | DType::F16 | DType::BF16, _) => format!("bitcast<f32>({})", self.word(tensor, e)),
            (DType::I32, _) => format!("bitcast<i32>({})", self.word(tensor, e)),
            (DType::U32, _) => self.word(tensor, e),
            (DType::Bool, _) => format!("({} != 0u)", self.word(tensor, e)),
            (DType::Packed(_), _) => unreachable!("quantised weights are refused when tensors are made"),
        }
    }
    /// The word that holds a register's value, rounded to the tensor's dtype.
    fn packed(&self, tensor: TensorId, value: &str) -> String {
        let dtype = self.access.tensors[tensor].dtype;
        match dtype {
            DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_) => {
                format!("bitcast<u32>({})", memory::round(dtype, value))
            }
            DType::I32 => format!("bitcast<u32>({value})"),
            DType::U32 => value.to_string(),
            DType::Bool => format!("select(0u, 1u, {value})"),
        }
    }
    /// Stores element `e` of an arena tensor that takes a word an element.
    pub fn store(&mut self, tensor: TensorId, e: &Index, value: &str) {
        let word = self.packed(tensor, value);
        let text = self.accessing(|a, bind| a.set_word(tensor, e, &word, bind));
        self.line(text);
    }
    /// As [`Emitter::store`], with everything the statement needs inside it: it may stand in a branch.
    pub fn store_here(&mut self, tensor: TensorId, e: &Index, value: &str) {
        let word = self.packed(tensor, value);
        let text = self.access.set_word(tensor, e, &word, &mut |part| format!("({part})"));
        self.line(text);
    }
    /// Stores elements 4·q to 4·q + 3 of an arena tensor.
    pub fn store4(&mut self, tensor: TensorId, q: &Index, values: &[String; 4]) {
        let Tensor { dtype, layout, .. } = self.access.tensors[tensor];
        if matches!((dtype, layout), (DType::F16 | DType::BF16, Layout::Packed)) {
            let [low, high] = [0, 2].map(|i| memory::pack(dtype, &values[i], &values[i + 1]));
            let value = self.bind(format!("vec2<u32>({low}, {high})"));
            let text = self.accessing(|a, bind| a.set_pair(tensor, q, &value, bind));
            return self.line(text);
        }
        let words: Vec<String> = values.iter().map(|v| self.packed(tensor, v)).collect();
        let value = format!("vec4<u32>({})", words.join(", "));
        let text = self.accessing(|a, bind| a.set_quad(tensor, q, &value, bind));
        self.line(text);
    }

    /// A name for what a dtype can hold of an expression.
    fn rounded(&mut self, dtype: DType, text: String) -> String {
        let rounded = memory::round(dtype, &text);
        if rounded == text { text } else { self.bind(rounded) }
    }
    /// An element of a value, as an expression of its register type that may be repeated.
    pub fn value(&mut self, id: ValueId, at: &[Index]) -> Result<String, Diagnostic> {
        if let Some(name) = self.given.get(&id) {
            let name = name.clone();
            return Ok(self.rounded(self.context.dtype(id), name));
        }
        let key = (id, at.to_vec());
        if let Some(name) = self.known.get(&key) {
            return Ok(name.clone());
        }
        let text = match self.context.homes.get(&id) {
            Some(tensor) if self.computing != Some(id) => {
                let sizes = self.context.sizes(id);
                self.load(*tensor, &linear(at, &sizes))
            }
            _ => self.compute(id, at)?,
        };
        self.known.insert(key, text.clone());
        Ok(text)
    }

    /// As [`Emitter::value`], for a store, which rounds: what is computed here is not rounded before.
    pub fn unrounded(&mut self, id: ValueId, at: &[Index]) -> Result<String, Diagnostic> {
        if let Some(name) = self.given.get(&id) {
            return Ok(name.clone());
        }
        let stored = self.computing != Some(id) && self.context.homes.contains_key(&id);
        match self.context.function.op(id) {
            Some((Op::Map(map), args)) if !stored => self.map(&map.body, args, at),
            Some((op @ (Op::Transpose(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Slice(_)), args)) if !stored => {
                let inner = self.behind(op, id, args[0], at)?;
                self.unrounded(args[0], &inner)
            }
            Some(_) | None => self.value(id, at),
        }
    }
    /// A map's element, unrounded.
    fn map(&mut self, body: &Body, args: &[ValueId], at: &[Index]) -> Result<String, Diagnostic> {
        let mut texts = Vec::with_capacity(args.len());
        for arg in args {
            let text = self.value(*arg, at)?;
            texts.push(text);
        }
        let dtypes: Vec<DType> = args.iter().map(|a| self.context.dtype(*a)).collect();
        let mut out = Vec::new();
        let mut names = self.names;
        let mut fresh = || {
            names += 1;
            format!("t{}", names - 1)
        };
        let result = scalar::emit(body, &texts, &dtypes, &mut fresh, &mut out);
        self.names = names;
        out.into_iter().for_each(|l| self.line(l));
        Ok(result)
    }
    /// The index in a view's operand of the view's element `at`.
    fn behind(&self, op: &Op, id: ValueId, operand: ValueId, at: &[Index]) -> Result<Vec<Index>, Diagnostic> {
        let (result, operand) = (self.context.sizes(id), self.context.sizes(operand));
        behind(op, at, &result, &operand).ok_or_else(|| internal("a view that is none"))
    }

    fn compute(&mut self, id: ValueId, at: &[Index]) -> Result<String, Diagnostic> {
        let function = self.context.function;
        let dtype = self.context.dtype(id);
        let Some((op, args)) = function.op(id) else {
            return Err(internal("a call is left in a flat function"));
        };
        match op {
            Op::Const(c) => Ok(literal(c)),
            Op::Iota(iota) => {
                let i = self.index(&at[iota.axis]);
                Ok(match dtype {
                    DType::U32 => format!("({i})"),
                    DType::I32 => format!("i32({i})"),
                    _ => memory::round(dtype, &format!("f32({i})")),
                })
            }
            Op::Map(map) => {
                let result = self.map(&map.body, args, at)?;
                Ok(self.rounded(dtype, result))
            }
            Op::Transpose(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Slice(_) => {
                let inner = self.behind(op, id, args[0], at)?;
                self.value(args[0], &inner)
            }
            Op::Pad(p) => {
                let sizes = self.context.sizes(args[0]);
                let bounds: Vec<(u64, u64)> =
                    p.padding.iter().zip(&sizes).map(|((before, _), size)| (*before as u64, *size)).collect();
                let fill = number(dtype, p.value.0);
                let inside = self.inside(at, &bounds);
                if inside == Inside::Never {
                    return Ok(fill);
                }
                let inner: Vec<Index> = at.iter().zip(&bounds).map(|(i, b)| clamped(i, *b)).collect();
                let value = self.value(args[0], &inner)?;
                Ok(match inside {
                    Inside::When(condition) => self.bind(format!("select({fill}, {value}, {condition})")),
                    Inside::Always | Inside::Never => value,
                })
            }
            Op::Concat(c) => {
                let mut result: Option<String> = None;
                let mut start = 0;
                for arg in args {
                    let size = self.context.sizes(*arg)[c.axis];
                    let bounds = [(start, size)];
                    start += size;
                    let inside = self.inside(&at[c.axis..=c.axis], &bounds);
                    if inside == Inside::Never || size == 0 {
                        continue;
                    }
                    let mut inner = at.to_vec();
                    inner[c.axis] = clamped(&at[c.axis], bounds[0]);
                    let value = self.value(*arg, &inner)?;
                    result = Some(match (inside, result) {
                        (Inside::When(condition), Some(before)) => {
                            self.bind(format!("select({before}, {value}, {condition})"))
                        }
                        // The first part needs no test: what lies outside is replaced by a later one.
                        (_, _) => value,
                    });
                }
                result.ok_or_else(|| internal("an index outside a concat"))
            }
            Op::Gather(g) => {
                let sizes = self.context.sizes(args[0]);
                let rank = function.ty(args[1]).rank() - g.batch;
                // Result: x[..axis] ++ indices[batch..] ++ x[axis+1..].
                let mut at_indices: Vec<Index> = at[..g.batch].to_vec();
                at_indices.extend_from_slice(&at[g.axis..g.axis + rank]);
                let index = self.value(args[1], &at_indices)?;
                let picked = self.clamped_index(&index, self.context.dtype(args[1]), sizes[g.axis]);
                let mut inner: Vec<Index> = at[..g.axis].to_vec();
                inner.push(picked);
                inner.extend_from_slice(&at[g.axis + rank..]);
                self.value(args[0], &inner)
            }
            Op::Input(_)
            | Op::Weight(_)
            | Op::State(_)
            | Op::Reduce(_)
            | Op::Contract(_)
            | Op::Window(_)
            | Op::Scan(_)
            | Op::Scatter(_)
            | Op::Topk(_) => Err(internal(format!("`{}` is not in memory", op.kind().text()))),
            Op::Softmax(_)
            | Op::LayerNorm(_)
            | Op::RmsNorm(_)
            | Op::GroupNorm(_)
            | Op::Attention(_)
            | Op::LocalAttention(_)
            | Op::Rope(_)
            | Op::PoolTokens(_)
            | Op::Resize(_) => Err(internal(format!("composite `{}` is left in a flat function", op.kind().text()))),
        }
    }

    /// A data-dependent index, clamped to an axis.
    pub fn clamped_index(&mut self, index: &str, dtype: DType, size: u64) -> Index {
        let last = size.max(1) - 1;
        let text = match dtype {
            DType::I32 => format!("u32(clamp({index}, 0, {last}))"),
            _ => format!("min({index}, {last}u)"),
        };
        let name = self.bind(text);
        Index::var(&name, size)
    }

    /// Whether indices lie in start..start+size on every axis.
    pub fn inside(&mut self, at: &[Index], bounds: &[(u64, u64)]) -> Inside {
        let mut tests = Vec::new();
        for (i, (start, size)) in at.iter().zip(bounds) {
            let (low, high) = i.range();
            if high < *start || low >= start + size {
                return Inside::Never;
            }
            if low < *start {
                let i = self.index(i);
                tests.push(format!("(({i}) >= {start}u)"));
            }
            if high >= start + size {
                let i = self.index(i);
                tests.push(format!("(({i}) < {}u)", start + size));
            }
        }
        match tests.is_empty() {
            true => Inside::Always,
            // Not `&&`, which is a branch: SwiftShader takes seconds to compile a hundred of them.
            false => Inside::When(self.bind(tests.join(" & "))),
        }
    }
}

/// The answer of [`Emitter::inside`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inside {
    /// Whatever the variables are.
    Always,
    /// For no values.
    Never,
    /// Where this condition holds.
    When(String),
}

/// The offset from `start` on an axis, moved into 0..size.
pub fn clamped(i: &Index, (start, size): (u64, u64)) -> Index {
    i.less(start).at_most(size.max(1) - 1)
}

/// An error of the compiler, not of its input.
pub fn internal(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new("codegen internal", message)
        .help("this is a fault of the compiler; please report it with the module")
}

/// A number as an expression of the dtype's register type.
pub fn number(dtype: DType, x: f64) -> String {
    match dtype {
        DType::F32 | DType::Packed(_) => scalar::float(x),
        DType::F16 | DType::BF16 => scalar::float(dtype.round(x as f32) as f64),
        DType::I32 => format!("i32({})", x as i32),
        DType::U32 => format!("{}u", x as u32),
        DType::Bool => (x != 0.0).to_string(),
    }
}

/// The element of a constant that repeats one.
fn literal(c: &Const) -> String {
    let bytes = splat(c).unwrap_or(&[]);
    let word = || u32::from_le_bytes(bytes.try_into().unwrap_or([0; 4]));
    let half = || u16::from_le_bytes(bytes.try_into().unwrap_or([0; 2]));
    match c.ty.dtype {
        DType::F32 | DType::Packed(_) => scalar::float(f32::from_bits(word()) as f64),
        DType::F16 => scalar::float(f16_to_f32(half()) as f64),
        DType::BF16 => scalar::float(bf16_to_f32(half()) as f64),
        DType::I32 => format!("i32({})", word() as i32),
        DType::U32 => format!("{}u", word()),
        DType::Bool => bytes.first().is_some_and(|b| *b != 0).to_string(),
    }
}
