//! How a kernel reaches tensors: which it touches and where, the bindings that follow, and the WGSL of each access.
//!
//! A kernel is emitted twice with the same code. The first time nothing is known of memory and the touched range of
//! each tensor is collected; the second time the ranges have become windows (bindings of at most the target's size)
//! and the text names them. A tensor in one window is addressed from the window's start, so that equal kernels on
//! other memory have equal texts.

use crate::index::Index;
use crate::target::Target;
use crate::tensor::{Tensor, TensorId, padded};
use selvedge_bundle::manifest::{ALIGN, Access as Usage, Region};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The range of 16-byte quads of a tensor that a kernel touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Which tensor.
    pub tensor: TensorId,
    /// First quad.
    pub low: u64,
    /// Last quad.
    pub high: u64,
    /// Some access reads.
    pub read: bool,
    /// Some access writes.
    pub written: bool,
    /// Some access is of a quad or a pair of words.
    pub by_quads: bool,
    /// Some access writes a single word.
    pub sets_words: bool,
}

/// Part of a tensor behind a binding; quads `low..high` of the tensor start at quad `start` of the binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    low: u64,
    high: u64,
    binding: usize,
    start: u64,
    wide: bool,
    /// A pair is loaded with its quad: on GPUs, which load that as fast as a word.
    whole: bool,
}

/// The bindings of a kernel.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    /// What is bound, by binding number.
    pub bindings: Vec<(Region, Usage)>,
    /// Which bindings are read and written by pairs of words.
    pub wide: Vec<bool>,
    spans: BTreeMap<TensorId, Vec<Span>>,
}

impl Windows {
    /// Windows for the touched ranges; `None` if the target has too few storage buffers.
    pub fn new(touches: &[Touch], tensors: &[Tensor], usages: &[Usage], target: &Target) -> Option<Windows> {
        let limit = target.max_binding_bytes / ALIGN * ALIGN;
        // (tensor, first byte in the tensor, region)
        let mut parts: Vec<(TensorId, u64, Region)> = Vec::new();
        for touch in touches {
            let mut first = 0;
            for piece in &tensors[touch.tensor].pieces {
                let padded = padded(piece.bytes);
                let low = (touch.low * 16).max(first);
                let high = (touch.high * 16 + 16).min(first + padded);
                if low < high {
                    // The whole piece if it fits: then the offset is 0 in every kernel.
                    let (mut start, end) = if padded <= limit {
                        (first, first + padded)
                    } else {
                        (low / ALIGN * ALIGN, high.div_ceil(ALIGN) * ALIGN)
                    };
                    while start < end {
                        let bytes = (end - start).min(limit);
                        let offset = piece.offset + (start - first);
                        parts.push((touch.tensor, start, Region { buffer: piece.buffer, offset, bytes }));
                        start += bytes;
                    }
                }
                first += padded;
            }
        }
        let mut regions: Vec<Region> = Vec::new();
        for (_, _, region) in &parts {
            if !regions.contains(region) {
                regions.push(*region);
            }
        }
        if regions.len() > target.storage_buffers as usize {
            regions = merged(regions, limit);
            if regions.len() > target.storage_buffers as usize {
                return None;
            }
        }
        let bindings = regions.iter().map(|r| (*r, usages[r.buffer as usize])).collect();
        let holder = |part: &Region| {
            let holds = |r: &Region| {
                r.buffer == part.buffer && r.offset <= part.offset && part.offset + part.bytes <= r.offset + r.bytes
            };
            regions.iter().position(holds).expect("every part lies in a binding")
        };
        // A wide binding is worth it where quads are moved, and possible where no single word is written.
        let mut wide = vec![false; regions.len()];
        let mut narrow = vec![!target.wide; regions.len()];
        for (tensor, _, part) in &parts {
            let touch = touches.iter().find(|t| t.tensor == *tensor).expect("parts are of touched tensors");
            wide[holder(part)] |= touch.by_quads;
            narrow[holder(part)] |= touch.sets_words;
        }
        wide.iter_mut().zip(narrow).for_each(|(wide, narrow)| *wide &= !narrow);
        let mut windows = Windows { bindings, wide: wide.clone(), spans: BTreeMap::new() };
        for (tensor, first, part) in parts {
            let binding = holder(&part);
            let start = (part.offset - regions[binding].offset) / 16;
            let wide = wide[binding];
            let span =
                Span { low: first / 16, high: (first + part.bytes) / 16, binding, start, wide, whole: target.gpu };
            windows.spans.entry(tensor).or_default().push(span);
        }
        Some(windows)
    }
}

impl Windows {
    /// All that text written through these windows depends on: how each touched tensor lies in its bindings.
    pub fn shape(&self, touches: &[Touch]) -> Vec<u64> {
        let mut shape = Vec::new();
        for ((_, usage), wide) in self.bindings.iter().zip(&self.wide) {
            shape.push(2 * u64::from(*usage == Usage::ReadWrite) + u64::from(*wide));
        }
        for touch in touches {
            let spans = self.spans.get(&touch.tensor).map_or(&[][..], |s| s);
            shape.push(spans.len() as u64);
            spans.iter().for_each(|s| shape.extend([s.low, s.high, s.binding as u64, s.start, u64::from(s.wide)]));
        }
        shape
    }
}

/// Whether windows for the touched ranges can be expected to fit the target, before memory is planned: large tensors
/// need as many windows as their range is long, the others may share one.
pub fn may_fit(touches: &[Touch], tensors: &[Tensor], target: &Target) -> bool {
    let limit = (target.max_binding_bytes / ALIGN * ALIGN).max(ALIGN);
    let (mut windows, mut shared) = (0, 0);
    for touch in touches {
        if padded(tensors[touch.tensor].bytes()) <= limit {
            shared = 1;
        } else {
            windows += ((touch.high - touch.low + 1) * 16 + ALIGN).div_ceil(limit);
        }
    }
    windows + shared <= target.storage_buffers as u64
}

/// The fewest intervals of at most `limit` bytes that cover the regions.
fn merged(mut regions: Vec<Region>, limit: u64) -> Vec<Region> {
    regions.sort_by_key(|r| (r.buffer, r.offset));
    let mut all: Vec<Region> = Vec::new();
    for r in regions {
        match all.last_mut() {
            Some(last) if last.buffer == r.buffer && r.offset + r.bytes - last.offset <= limit => {
                last.bytes = last.bytes.max(r.offset + r.bytes - last.offset);
            }
            Some(_) | None => all.push(r),
        }
    }
    all
}

/// Collects touched ranges, and writes accesses.
pub struct Access<'a> {
    /// The plan's tensors.
    pub tensors: &'a [Tensor],
    touches: Vec<Touch>,
    windows: Option<Windows>,
    helpers: BTreeSet<(TensorId, Helper)>,
    fixed: Option<Fixed>,
}

/// What of a quad's place a hook is told instead of computing it.
struct Fixed {
    /// The variables that a loop around the hook does not change.
    names: &'static [&'static str],
    /// The hook's parameter.
    parameter: &'static str,
    /// Its value: 0 until a place has such a part. Places with another part are computed whole.
    part: Index,
}

/// Functions for a tensor that lies in several windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Helper {
    Quad,
    Pair,
    Word,
    SetQuad,
    SetPair,
    SetWord,
}

impl Helper {
    fn name(self) -> &'static str {
        match self {
            Helper::Quad => "quad",
            Helper::Pair => "pair",
            Helper::Word => "word",
            Helper::SetQuad => "set_quad",
            Helper::SetPair => "set_pair",
            Helper::SetWord => "set_word",
        }
    }
}

impl<'a> Access<'a> {
    /// Collects ranges; the text is not used.
    pub fn collecting(tensors: &'a [Tensor]) -> Access<'a> {
        Access { tensors, touches: Vec::new(), windows: None, helpers: BTreeSet::new(), fixed: None }
    }
    /// Writes accesses through windows.
    pub fn through(tensors: &'a [Tensor], windows: Windows) -> Access<'a> {
        Access { windows: Some(windows), ..Access::collecting(tensors) }
    }
    /// What was touched, in order of the first touch.
    pub fn touches(&self) -> &[Touch] {
        &self.touches
    }

    fn touch(&mut self, tensor: TensorId, (low, high): (u64, u64), helper: Helper) {
        let (write, word) = match helper {
            Helper::Quad | Helper::Pair => (false, false),
            Helper::Word => (false, true),
            Helper::SetQuad | Helper::SetPair => (true, false),
            Helper::SetWord => (true, true),
        };
        let sets_words = write && word;
        match self.touches.iter_mut().find(|t| t.tensor == tensor) {
            Some(t) => {
                (t.low, t.high) = (t.low.min(low), t.high.max(high));
                t.read |= !write;
                t.written |= write;
                t.by_quads |= !word;
                t.sets_words |= sets_words;
            }
            None => {
                let (read, written, by_quads) = (!write, write, !word);
                self.touches.push(Touch { tensor, low, high, read, written, by_quads, sets_words });
            }
        }
    }
    /// The spans that hold a range of quads.
    fn spans(&self, tensor: TensorId, (low, high): (u64, u64)) -> Vec<Span> {
        let all = match &self.windows {
            Some(windows) => windows.spans.get(&tensor).cloned().unwrap_or_default(),
            None => vec![Span { low: 0, high: u64::MAX, binding: 0, start: 0, wide: false, whole: false }],
        };
        all.into_iter().filter(|s| s.low <= high && low < s.high).collect()
    }
    fn helper(&mut self, tensor: TensorId, helper: Helper) -> String {
        self.helpers.insert((tensor, helper));
        format!("{}_{}", helper.name(), self.number(tensor))
    }
    fn number(&self, tensor: TensorId) -> usize {
        self.touches.iter().position(|t| t.tensor == tensor).expect("a touched tensor")
    }

    /// From here on, what of a quad's place depends on no other variables than `names` is given by `parameter`.
    pub fn fix(&mut self, names: &'static [&'static str], parameter: &'static str) {
        self.fixed = Some(Fixed { names, parameter, part: Index::constant(0) });
    }
    /// Ends [`Access::fix`], and says what the parameter must be.
    pub fn fixed(&mut self) -> Index {
        self.fixed.take().map_or(Index::constant(0), |f| f.part)
    }
    fn told(&mut self, place: Index) -> Index {
        let Some(fixed) = &mut self.fixed else { return place };
        let (part, rest) = place.apart(fixed.names);
        if part.get() == Some(0) || (fixed.part.get() != Some(0) && fixed.part != part) {
            return place;
        }
        let told = Index::var(fixed.parameter, part.high() + 1).add(&rest);
        fixed.part = part;
        told
    }

    /// An expression of quad `q` (`vec4<u32>`).
    pub fn quad(&mut self, tensor: TensorId, q: &Index, bind: &mut dyn FnMut(String) -> String) -> String {
        self.touch(tensor, q.range(), Helper::Quad);
        match self.spans(tensor, q.range())[..] {
            [span] => span.quad(&self.told(span.place(q, 1)).wgsl(bind)),
            _ => format!("{}({})", self.helper(tensor, Helper::Quad), q.wgsl(bind)),
        }
    }
    /// An expression of word `w` (`u32`).
    pub fn word(&mut self, tensor: TensorId, w: &Index, bind: &mut dyn FnMut(String) -> String) -> String {
        let quads = quads(w);
        self.touch(tensor, quads, Helper::Word);
        match self.spans(tensor, quads)[..] {
            [span] => span.word(w, bind),
            _ => format!("{}({})", self.helper(tensor, Helper::Word), w.wgsl(bind)),
        }
    }
    /// An expression of words 2·p and 2·p + 1 (`vec2<u32>`).
    pub fn pair(&mut self, tensor: TensorId, p: &Index, bind: &mut dyn FnMut(String) -> String) -> String {
        let quads = p.div(2).range();
        self.touch(tensor, quads, Helper::Pair);
        match self.spans(tensor, quads)[..] {
            [span] => span.pair(&name(&span.place(p, 2), bind)),
            _ => format!("{}({})", self.helper(tensor, Helper::Pair), p.wgsl(bind)),
        }
    }
    /// A statement that sets words 2·p and 2·p + 1 to the components of `value`, a name.
    pub fn set_pair(
        &mut self,
        tensor: TensorId,
        p: &Index,
        value: &str,
        bind: &mut dyn FnMut(String) -> String,
    ) -> String {
        let quads = p.div(2).range();
        self.touch(tensor, quads, Helper::SetPair);
        match self.spans(tensor, quads)[..] {
            [span] => span.set_pair(&name(&span.place(p, 2), bind), value),
            _ => format!("{}({}, {value});", self.helper(tensor, Helper::SetPair), p.wgsl(bind)),
        }
    }
    /// A statement that sets quad `q`.
    pub fn set_quad(
        &mut self,
        tensor: TensorId,
        q: &Index,
        value: &str,
        bind: &mut dyn FnMut(String) -> String,
    ) -> String {
        self.touch(tensor, q.range(), Helper::SetQuad);
        match self.spans(tensor, q.range())[..] {
            [span] => span.set_quad(&span.place(q, 1).wgsl(bind), value),
            _ => format!("{}({}, {value});", self.helper(tensor, Helper::SetQuad), q.wgsl(bind)),
        }
    }
    /// A statement that sets word `w`.
    pub fn set_word(
        &mut self,
        tensor: TensorId,
        w: &Index,
        value: &str,
        bind: &mut dyn FnMut(String) -> String,
    ) -> String {
        let quads = quads(w);
        self.touch(tensor, quads, Helper::SetWord);
        match self.spans(tensor, quads)[..] {
            [span] => format!("{} = {value};", span.word(w, bind)),
            _ => format!("{}({}, {value});", self.helper(tensor, Helper::SetWord), w.wgsl(bind)),
        }
    }

    /// The functions that accesses call.
    pub fn helpers(&self) -> String {
        let mut out = String::new();
        for (tensor, helper) in &self.helpers {
            let spans = self.windows.as_ref().and_then(|w| w.spans.get(tensor)).map_or(&[][..], |s| s);
            let (parameters, result) = match helper {
                Helper::Quad => ("i: u32", " -> vec4<u32>"),
                Helper::Pair => ("i: u32", " -> vec2<u32>"),
                Helper::Word => ("i: u32", " -> u32"),
                Helper::SetQuad => ("i: u32, value: vec4<u32>", ""),
                Helper::SetPair => ("i: u32, value: vec2<u32>", ""),
                Helper::SetWord => ("i: u32, value: u32", ""),
            };
            let unit = match helper {
                Helper::Quad | Helper::SetQuad => 1,
                Helper::Pair | Helper::SetPair => 2,
                Helper::Word | Helper::SetWord => 4,
            };
            let _ = writeln!(out, "fn {}_{}({parameters}){result} {{", helper.name(), self.number(*tensor));
            for (n, span) in spans.iter().enumerate() {
                let place = span.place(&Index::var("i", span.high * unit), unit).to_string();
                let statement = match helper {
                    Helper::Quad => format!("return {};", span.quad(&place)),
                    Helper::Pair => format!("return {};", span.pair(&place)),
                    Helper::Word => format!("return {};", span.any_word(&place)),
                    Helper::SetQuad => format!("{} return;", span.set_quad(&place, "value")),
                    Helper::SetPair => format!("{} return;", span.set_pair(&place, "value")),
                    Helper::SetWord => format!("{} = value; return;", span.any_word(&place)),
                };
                // The last window needs no test: an index beyond it does not occur.
                let _ = match n + 1 < spans.len() {
                    true => writeln!(out, "    if i < {}u {{ {statement} }}", span.high * unit),
                    false => writeln!(out, "    {statement}"),
                };
            }
            out.push_str("}\n");
        }
        out
    }
}

impl Span {
    /// The index in the binding, in units of a quad (1) or word (4).
    fn place(&self, i: &Index, unit: u64) -> Index {
        match self.start.checked_sub(self.low) {
            Some(shift) => i.plus(shift * unit),
            None => i.less((self.low - self.start) * unit),
        }
    }
    fn quad(&self, place: &str) -> String {
        let quad = format!("b{}[{place}]", self.binding);
        if self.wide { format!("quad_words({quad})") } else { quad }
    }
    fn pair(&self, place: &str) -> String {
        let quad = format!("b{}[({place}) >> 1u]", self.binding);
        match self.wide {
            true => format!("pair_words({quad}[({place}) & 1u])"),
            false if self.whole => format!("select({quad}.xy, {quad}.zw, (({place}) & 1u) > 0u)"),
            false => format!("vec2<u32>({quad}[(({place}) & 1u) * 2u], {quad}[(({place}) & 1u) * 2u + 1u])"),
        }
    }
    fn set_pair(&self, place: &str, value: &str) -> String {
        let quad = format!("b{}[({place}) >> 1u]", self.binding);
        match self.wide {
            true => format!("{quad}[({place}) & 1u] = words_pair({value});"),
            false => {
                let first = format!("(({place}) & 1u) * 2u");
                format!("{quad}[{first}] = {value}.x; {quad}[{first} + 1u] = {value}.y;")
            }
        }
    }
    fn set_quad(&self, place: &str, value: &str) -> String {
        let value = if self.wide { format!("words_quad({value})") } else { value.to_string() };
        format!("b{}[{place}] = {value};", self.binding)
    }
    /// Word `w`; of a narrow binding, also as what is assigned to.
    fn word(&self, w: &Index, bind: &mut dyn FnMut(String) -> String) -> String {
        let place = self.place(w, 4);
        if let Some(lane) = place.known_rem(4) {
            let (quad, lane) = (format!("b{}[{}]", self.binding, place.div(4).wgsl(bind)), lane as usize);
            return match self.wide {
                true => format!("pair_word({quad}.{}, {}u)", LANES[lane / 2], lane % 2),
                false => format!("{quad}.{}", LANES[lane]),
            };
        }
        self.any_word(&name(&place, bind))
    }
    /// The word at a place that is repeated.
    fn any_word(&self, place: &str) -> String {
        let b = self.binding;
        match self.wide {
            true => format!("pair_word(b{b}[({place}) >> 2u][(({place}) >> 1u) & 1u], {place})"),
            false => format!("b{b}[({place}) >> 2u][({place}) & 3u]"),
        }
    }
}

/// An index as an expression that may be repeated.
fn name(place: &Index, bind: &mut dyn FnMut(String) -> String) -> String {
    let text = place.wgsl(bind);
    if place.is_simple() { text } else { bind(text) }
}

/// Names of a vector's components.
pub const LANES: [&str; 4] = ["x", "y", "z", "w"];

fn quads(w: &Index) -> (u64, u64) {
    let (low, high) = w.range();
    (low / 4, high / 4)
}
