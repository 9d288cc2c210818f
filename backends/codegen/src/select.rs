//! Which values are written to memory, and which are computed inside a kernel that needs them.
//!
//! A **unit** is one kernel (or a chain of chunked ones): a heavy operator with the maps behind it, or a map or
//! view that must lie in memory. Everything else is emitted where it is read. The cost model is small: views and
//! cheap maps are computed again for every reader; a map with transcendental work or many loads is stored when
//! more than one unit reads it, or when its reader reads each element many times.

use selvedge_ir::op::OpClass;
use selvedge_ir::ops::{Const, Map};
use selvedge_ir::scalar::{Binary, Body, Scalar, Unary};
use selvedge_ir::{DType, Function, Op, ValueId};
use std::collections::{BTreeSet, HashMap};

/// Loads that one kernel may make for one element.
pub const MAX_LOADS: usize = 48;
/// Scalar operations that one kernel may do for one element; bounds the size of a shader.
pub const MAX_OPS: usize = 300;
/// Loads up to which an operand is computed again at every use.
const CHEAP_LOADS: usize = 2;
/// Scalar operations up to which an operand that is read many times is computed again.
const CHEAP_OPS: usize = 12;
/// Loads that an epilogue may add to a kernel.
const EPILOGUE_LOADS: usize = 16;

/// One kernel's work: a root and the values behind it that are computed from each of its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// From the root (a heavy operator, or a stored map or view) along maps, reshapes and transposes to what is stored.
    pub path: Vec<ValueId>,
}

impl Unit {
    /// The heavy operator; for a map unit, the stored value.
    pub fn root(&self) -> ValueId {
        self.path[0]
    }
    /// The stored value.
    pub fn result(&self) -> ValueId {
        *self.path.last().expect("a path has a root")
    }
}

/// What is stored, and the units in an order that respects dependencies.
#[derive(Clone, Debug)]
pub struct Selection {
    /// For each value: it lies in memory (leaves that do are among them).
    pub stored: Vec<bool>,
    /// The kernels' work, in order.
    pub units: Vec<Unit>,
}

/// What computing one element takes, besides what is stored.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    loads: usize,
    ops: usize,
    transcendental: bool,
}

/// The units that would compute a value inside themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    None,
    One(ValueId),
    Many,
}

impl Readers {
    fn join(self, other: Readers) -> Readers {
        match (self, other) {
            (Readers::None, x) | (x, Readers::None) => x,
            (Readers::One(a), Readers::One(b)) if a == b => self,
            (Readers::One(_) | Readers::Many, _) => Readers::Many,
        }
    }
}

/// True if the value is itself data in memory: a parameter, weight, state or large constant.
pub fn is_data(function: &Function, id: ValueId) -> bool {
    match function.op(id) {
        Some((Op::Input(_) | Op::Weight(_) | Op::State(_), _)) => true,
        Some((Op::Const(c), _)) => splat(c).is_none(),
        Some(_) | None => false,
    }
}

/// The bytes of the one element that a constant repeats; such a constant is part of a kernel's text.
pub fn splat(constant: &Const) -> Option<&[u8]> {
    let bytes: &[u8] = &constant.data.0;
    let width = match constant.ty.dtype {
        DType::Bool => 1,
        dtype => dtype.bits() / 8,
    };
    let first = bytes.get(..width)?;
    bytes.chunks_exact(width).all(|c| c == first).then_some(first)
}

/// The value whose memory a reshape shares: reshapes are looked through.
pub fn base(function: &Function, mut id: ValueId) -> ValueId {
    while let Some((Op::Reshape(_), args)) = function.op(id) {
        id = args[0];
    }
    id
}

/// Chooses. `force` lists values that must be stored besides (to shrink a kernel that binds too much).
pub fn select(function: &Function, force: &[ValueId]) -> Selection {
    let count = function.values.len();
    let mut live = vec![false; count];
    function.returns.iter().for_each(|r| live[r.value.0 as usize] = true);
    for id in function.ids().rev() {
        if live[id.0 as usize] {
            function.reads(id).iter().for_each(|a| live[a.0 as usize] = true);
        }
    }
    let mut s = Selecting {
        function,
        live,
        stored: vec![false; count],
        absorbed: vec![None; count],
        cost: vec![Cost::default(); count],
        users: vec![Vec::new(); count],
    };
    for r in &function.returns {
        let value = base(function, r.value);
        s.stored[value.0 as usize] = true;
    }
    force.iter().for_each(|id| s.stored[id.0 as usize] = true);
    for id in function.ids().filter(|id| s.live[id.0 as usize]) {
        s.stored[id.0 as usize] |= is_data(function, id);
        for arg in function.reads(id) {
            if !s.users[arg.0 as usize].contains(&id) {
                s.users[arg.0 as usize].push(id);
            }
        }
    }
    let mut units = s.epilogues();
    let readers = s.readers();
    s.costs(&readers);
    for id in function.ids().filter(|id| s.live[id.0 as usize] && s.stored[id.0 as usize]) {
        let i = id.0 as usize;
        if s.absorbed[i].is_none() && !is_heavy(function, id) && !is_data(function, id) {
            units.push(Unit { path: vec![id] });
        }
    }
    units.sort_by_key(Unit::result);
    Selection { stored: s.stored, units }
}

/// The values to force so that every operator has a kernel of its own; views and what lies in memory have none.
pub fn separate(function: &Function) -> Vec<ValueId> {
    let has_kernel = |id: &ValueId| match function.op(*id) {
        Some((op, _)) => match op {
            Op::Transpose(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Slice(_) => false,
            Op::Input(_) | Op::Weight(_) | Op::State(_) | Op::Const(_) | Op::Iota(_) => false,
            Op::Map(_)
            | Op::Pad(_)
            | Op::Concat(_)
            | Op::Gather(_)
            | Op::Reduce(_)
            | Op::Contract(_)
            | Op::Window(_)
            | Op::Scan(_)
            | Op::Scatter(_)
            | Op::Topk(_)
            | Op::Softmax(_)
            | Op::LayerNorm(_)
            | Op::RmsNorm(_)
            | Op::GroupNorm(_)
            | Op::Attention(_)
            | Op::LocalAttention(_)
            | Op::Rope(_)
            | Op::PoolTokens(_)
            | Op::Resize(_) => true,
        },
        None => false,
    };
    function.ids().filter(has_kernel).collect()
}

/// A value inside a unit that would take about half of what the unit reads with it, were it stored.
pub fn divide(function: &Function, selection: &Selection, unit: &Unit) -> Option<ValueId> {
    let mut leaves: HashMap<ValueId, BTreeSet<ValueId>> = HashMap::new();
    let mut all = BTreeSet::new();
    for id in &unit.path {
        for arg in function.reads(*id).iter().filter(|a| !unit.path.contains(a)) {
            all.extend(below(function, selection, *arg, &mut leaves));
        }
    }
    let inside =
        leaves.into_iter().filter(|(id, l)| !selection.stored[id.0 as usize] && (2..all.len()).contains(&l.len()));
    inside.min_by_key(|(id, l)| ((2 * l.len()).abs_diff(all.len()), *id)).map(|(id, _)| id)
}

/// The stored values that an element of a value is computed from.
fn below(
    function: &Function,
    selection: &Selection,
    id: ValueId,
    known: &mut HashMap<ValueId, BTreeSet<ValueId>>,
) -> BTreeSet<ValueId> {
    if let Some(found) = known.get(&id) {
        return found.clone();
    }
    let mut found = BTreeSet::new();
    if selection.stored[id.0 as usize] {
        found.insert(id);
    } else {
        for arg in function.reads(id) {
            found.extend(below(function, selection, *arg, known));
        }
    }
    known.insert(id, found.clone());
    found
}

struct Selecting<'a> {
    function: &'a Function,
    live: Vec<bool>,
    stored: Vec<bool>,
    /// The heavy operator whose unit computes this value.
    absorbed: Vec<Option<ValueId>>,
    cost: Vec<Cost>,
    users: Vec<Vec<ValueId>>,
}

impl Selecting<'_> {
    fn live_ids(&self) -> Vec<ValueId> {
        self.function.ids().filter(|id| self.live[id.0 as usize]).collect()
    }

    /// Extends each heavy operator by the maps that only it feeds.
    fn epilogues(&mut self) -> Vec<Unit> {
        let mut units = Vec::new();
        for root in self.live_ids().into_iter().filter(|id| is_heavy(self.function, *id)) {
            let (mut at, mut end, mut loads) = (root, root, 0);
            let mut path = vec![root];
            while !self.stored[at.0 as usize] {
                let [user] = self.users[at.0 as usize][..] else { break };
                if self.absorbed[user.0 as usize].is_some() {
                    break;
                }
                match self.function.op(user) {
                    // Halves are stored as halves; their readers widen them.
                    Some((Op::Map(map), _)) if widens(self.function, at, map) => break,
                    Some((Op::Map(_), args)) => {
                        loads += args.len() - 1;
                        if loads > EPILOGUE_LOADS {
                            break;
                        }
                        path.push(user);
                        (at, end) = (user, user);
                    }
                    Some((Op::Reshape(_) | Op::Transpose(_), _)) => {
                        path.push(user);
                        at = user;
                        // A view that is returned is stored as it is.
                        if self.stored[user.0 as usize] {
                            end = user;
                        }
                    }
                    Some(_) | None => break,
                }
            }
            let length = path.iter().position(|v| *v == end).expect("the end is on the path") + 1;
            path.truncate(length);
            path.iter().for_each(|v| self.absorbed[v.0 as usize] = Some(root));
            self.stored[end.0 as usize] = true;
            units.push(Unit { path });
        }
        units
    }

    /// For each value, the units that would compute it if nothing more were stored.
    fn readers(&self) -> Vec<Readers> {
        let mut readers = vec![Readers::None; self.function.values.len()];
        for id in self.live_ids().into_iter().rev() {
            readers[id.0 as usize] = self.users[id.0 as usize].iter().fold(Readers::None, |all, user| {
                let u = user.0 as usize;
                all.join(match self.absorbed[u] {
                    Some(root) => Readers::One(root),
                    None if is_heavy(self.function, *user) || self.stored[u] => Readers::One(*user),
                    None => readers[u],
                })
            });
        }
        readers
    }

    /// Computes costs in order and stores what is not worth computing again.
    fn costs(&mut self, readers: &[Readers]) {
        for id in self.live_ids() {
            let i = id.0 as usize;
            let Some((op, args)) = self.function.op(id) else { continue };
            let args = args.to_vec();
            match op.class() {
                OpClass::Contract | OpClass::Window => args.iter().for_each(|a| self.settle(*a)),
                OpClass::Composite => {
                    // Keys and values are read by every tile of queries: one load each.
                    let most = if matches!(op, Op::Attention(_) | Op::LocalAttention(_)) { 1 } else { CHEAP_LOADS };
                    args.iter().for_each(|a| self.settle_to(*a, most));
                }
                OpClass::Index => {
                    for arg in &args {
                        let gathers = matches!(op, Op::Gather(_));
                        if !gathers || self.elements(id) >= 4 * self.elements(*arg) {
                            self.settle(*arg);
                        }
                    }
                }
                OpClass::View => {
                    let ratio = self.elements(id) / self.elements(args[0]).max(1);
                    if ratio >= 4 {
                        self.settle(args[0]);
                    }
                }
                OpClass::Leaf | OpClass::Map | OpClass::Reduce | OpClass::Scan => {}
            }
            let mut cost = self.sum(op, &args);
            while cost.loads > MAX_LOADS || cost.ops > MAX_OPS {
                // Store the dearest operand; it has a cost of its own, or the sum could not be so high.
                let dear = args.iter().filter(|a| !self.stored[a.0 as usize]).max_by_key(|a| {
                    let c = self.cost[a.0 as usize];
                    c.loads * 8 + c.ops
                });
                let Some(dear) = dear.copied() else { break };
                self.store(dear);
                cost = self.sum(op, &args);
            }
            self.cost[i] = cost;
            let shared = readers[i] == Readers::Many && !self.stored[i] && self.absorbed[i].is_none();
            if shared && matches!(op, Op::Map(_)) && (cost.transcendental || cost.loads > CHEAP_LOADS) {
                self.store(id);
            }
            if self.stored[i] {
                self.cost[i] = Cost { loads: 1, ops: 0, transcendental: false };
            }
        }
    }

    fn elements(&self, id: ValueId) -> usize {
        self.function.ty(id).elements().unwrap_or(usize::MAX)
    }

    fn store(&mut self, id: ValueId) {
        let i = id.0 as usize;
        // A scalar or an index counter is cheaper than any load.
        if self.cost[i].loads == 0 && !self.cost[i].transcendental {
            return;
        }
        self.stored[i] = true;
        self.cost[i] = Cost { loads: 1, ops: 0, transcendental: false };
    }

    /// Makes an operand that is read many times cheap: the map behind its views is stored, or the operand itself.
    fn settle(&mut self, id: ValueId) {
        self.settle_to(id, CHEAP_LOADS);
    }

    /// As [`Selecting::settle`], where `loads` are cheap.
    fn settle_to(&mut self, id: ValueId, loads: usize) {
        let cost = self.cost[id.0 as usize];
        let cheap = cost.loads <= loads && cost.ops <= CHEAP_OPS && !cost.transcendental;
        if cheap || self.stored[id.0 as usize] {
            return;
        }
        match self.function.op(id) {
            Some((Op::Transpose(_) | Op::Reshape(_) | Op::Slice(_) | Op::Broadcast(_), args)) => {
                let arg = args[0];
                self.settle_to(arg, loads);
                self.cost[id.0 as usize] = self.cost[arg.0 as usize];
            }
            Some((Op::Map(map), args)) if widens(self.function, args[0], map) => {
                let arg = args[0];
                self.settle_to(arg, loads);
                self.cost[id.0 as usize] = self.cost[arg.0 as usize];
            }
            Some(_) | None => self.store(id),
        }
    }

    fn sum(&self, op: &Op, args: &[ValueId]) -> Cost {
        let mut total = Cost::default();
        for (i, arg) in args.iter().enumerate() {
            if args[..i].contains(arg) {
                continue;
            }
            let cost = self.cost[arg.0 as usize];
            total.loads += cost.loads;
            total.ops += cost.ops;
            total.transcendental |= cost.transcendental;
        }
        match op {
            Op::Map(map) => {
                for node in map.body.nodes() {
                    let (ops, transcendental) = node_cost(*node);
                    total.ops += ops;
                    total.transcendental |= transcendental;
                }
            }
            Op::Pad(_) | Op::Concat(_) => total.ops += 3 * args.len(),
            Op::Gather(_) => total.ops += 2,
            _ if op.class() == OpClass::View => {}
            // Leaves cost nothing unless stored; heavy operators are always stored or absorbed.
            _ => total = Cost::default(),
        }
        total
    }
}

/// Whether a map does nothing but widen halves.
fn widens(function: &Function, operand: ValueId, map: &Map) -> bool {
    matches!(function.ty(operand).dtype, DType::F16 | DType::BF16) && map.body == Body::cast(DType::F32)
}

/// Operators that are kernels of their own.
pub fn is_heavy(function: &Function, id: ValueId) -> bool {
    let Some((op, _)) = function.op(id) else { return false };
    match op {
        Op::Reduce(_) | Op::Contract(_) | Op::Window(_) | Op::Scan(_) | Op::Scatter(_) | Op::Topk(_) => true,
        // Those that are left in a flat function have kernels.
        Op::Softmax(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::GroupNorm(_)
        | Op::Attention(_)
        | Op::LocalAttention(_) => true,
        Op::Input(_)
        | Op::Weight(_)
        | Op::State(_)
        | Op::Const(_)
        | Op::Iota(_)
        | Op::Map(_)
        | Op::Transpose(_)
        | Op::Reshape(_)
        | Op::Broadcast(_)
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Concat(_)
        | Op::Gather(_)
        | Op::Rope(_)
        | Op::PoolTokens(_)
        | Op::Resize(_) => false,
    }
}

fn node_cost(node: Scalar) -> (usize, bool) {
    match node {
        Scalar::Arg(_) | Scalar::Float(_) | Scalar::Int(_) | Scalar::Uint(_) | Scalar::Bool(_) => (0, false),
        Scalar::Unary(op, _) => match op {
            Unary::Exp
            | Unary::Exp2
            | Unary::Log
            | Unary::Log2
            | Unary::Sin
            | Unary::Cos
            | Unary::Tanh
            | Unary::Sigmoid => (8, true),
            Unary::Erf => (24, true),
            Unary::Sqrt | Unary::Rsqrt => (4, false),
            Unary::Neg
            | Unary::Not
            | Unary::Abs
            | Unary::Sign
            | Unary::Floor
            | Unary::Ceil
            | Unary::Round
            | Unary::Trunc => (1, false),
        },
        Scalar::Binary(Binary::Pow, ..) => (16, true),
        Scalar::Binary(Binary::Div | Binary::Rem, ..) => (4, false),
        Scalar::Binary(..) | Scalar::Select(..) => (1, false),
        Scalar::Cast(..) | Scalar::Bits(..) => (2, false),
    }
}
