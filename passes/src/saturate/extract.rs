//! Extraction: the cheapest program of a saturated graph, by the cost of its whole plan.
//!
//! A first guess takes for each class the node with the cheapest set of classes below it (shared classes count once).
//! From there, and from the program as it was, single nodes are exchanged while the plan gets cheaper. Cycles are
//! never chosen; ties are broken by what a term is, never by the graph's numbers.

use super::analysis::{Binding, Classes};
use super::cost::{self, Item, Plan, Rates};
use super::encode::Encoded;
use super::language::Node;
use egg::Id;
use selvedge_ir::{Def, Function, Op, TensorType};
use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Values that the plans of one extraction may have, all together: bounds its work.
const MOST_VISITS: usize = 2_000_000;
/// Passes over all classes that the first guess may take.
const MOST_PASSES: usize = 40;
/// What fusion may save of an exchange that looks dearer: this share of what goes out and of a dispatch.
const FUSION: f64 = 1.0;
/// An exchange must save this share of a plan.
const LEAST_GAIN: f64 = 1e-9;

/// One way to compute a class.
pub struct Alt {
    /// The operator; none for a value from outside.
    pub op: Option<Op>,
    /// Operands, as places in the space.
    pub args: Vec<usize>,
    /// What must come before: the operands; of a call's result the call's arguments.
    needs: Vec<usize>,
    /// The node, canonical.
    pub node: Node,
    own: f64,
    flops: f64,
}

/// The classes that results depend on, with their alternatives.
pub struct Space<'g> {
    /// The canonical class of each place.
    pub ids: Vec<Id>,
    /// The place of each canonical class.
    pub index: HashMap<Id, usize>,
    /// Alternatives, in an order that the graph's numbers have no part in.
    pub alts: Vec<Vec<Alt>>,
    types: Vec<&'g TensorType>,
    bindings: Vec<Binding>,
    roots: Vec<usize>,
    rates: Rates,
}

/// A program: an alternative for each class that it needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// For each place the alternative; of places that the program does not need, a good one all the same.
    pub alts: Vec<usize>,
    /// The places it needs, operands first.
    pub order: Vec<usize>,
    /// Seconds by the cost model.
    pub seconds: f64,
    /// Kernels by the cost model.
    pub kernels: usize,
}

/// What an exchange at one class would give.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The class, as a place.
    pub class: usize,
    /// The other alternative.
    pub alt: usize,
    /// The program; none if it would depend on itself.
    pub chosen: Option<Chosen>,
}

/// The best program, and what was next to it.
pub struct Extraction {
    /// The best.
    pub best: Chosen,
    /// Every single exchange at a class of the best.
    pub trials: Vec<Trial>,
}

impl<'g> Space<'g> {
    /// Collects the alternatives below a function's results.
    pub fn new(function: &Function, encoded: &'g Encoded, rates: &Rates) -> Space<'g> {
        let graph = &encoded.graph;
        let find = |id: &Id| graph.find(*id);
        let mut roots: Vec<Id> = function.returns.iter().map(|r| find(&encoded.ids[r.value.0 as usize])).collect();
        let arguments: Vec<Vec<Id>> =
            function.calls.iter().map(|c| c.args.iter().map(|a| find(&encoded.ids[a.0 as usize])).collect()).collect();
        roots.extend(arguments.iter().flatten());
        // The call of each value from outside, by its number.
        let calls = function.values.iter().filter_map(|v| match v.def {
            Def::Result { call, .. } => Some(call.0 as usize),
            Def::Op { .. } => None,
        });
        let calls: Vec<usize> = calls.collect();
        let mut space = Space {
            ids: Vec::new(),
            index: HashMap::new(),
            alts: Vec::new(),
            types: Vec::new(),
            bindings: Vec::new(),
            roots: Vec::new(),
            rates: *rates,
        };
        let classes = Classes(graph);
        for root in &roots {
            space.place(*root);
        }
        let mut next = 0;
        while next < space.ids.len() {
            let id = space.ids[next];
            let fact = classes.tensor(id);
            space.types.push(&fact.ty);
            space.bindings.push(fact.binding);
            let mut alts: Vec<Alt> = Vec::new();
            for node in &graph[id].nodes {
                let (op, operands, needs) = match node {
                    Node::Param(number) => (None, Vec::new(), arguments[calls[*number as usize]].clone()),
                    _ => match classes.op(node) {
                        Some((op, operands)) => {
                            let operands: Vec<Id> = operands.iter().map(find).collect();
                            (Some(op), operands.clone(), operands)
                        }
                        None => continue,
                    },
                };
                let args: Vec<usize> = operands.iter().map(|o| space.place(*o)).collect();
                let needs: Vec<usize> = needs.iter().map(|o| space.place(*o)).collect();
                let types: Vec<&TensorType> = operands.iter().map(|o| classes.ty(*o)).collect();
                let own = op.as_ref().map_or(0.0, |op| cost::alone(op, &types, &fact.ty, fact.binding, rates));
                let flops = op.as_ref().map_or(0.0, |op| cost::flops(op, &types, &fact.ty));
                alts.push(Alt { op, args, needs, node: node.clone(), own, flops });
            }
            // What comes from outside is there anyway.
            if let Some(given) = alts.iter().position(|a| matches!(a.op, None | Some(Op::Input(_)))) {
                alts = vec![alts.swap_remove(given)];
            }
            space.alts.push(alts);
            next += 1;
        }
        space.roots = roots.iter().map(|r| space.index[r]).collect();
        space
    }

    fn place(&mut self, id: Id) -> usize {
        *self.index.entry(id).or_insert_with(|| {
            self.ids.push(id);
            self.ids.len() - 1
        })
    }

    /// The program as it was before saturation.
    fn original(&self, function: &Function, encoded: &Encoded, guess: &[usize]) -> Vec<usize> {
        let mut alts = guess.to_vec();
        let mut set = vec![false; alts.len()];
        for id in function.ids() {
            let class = encoded.graph.find(encoded.ids[id.0 as usize]);
            let Some(&place) = self.index.get(&class) else { continue };
            let Some((op, args)) = function.op(id) else { continue };
            let args: Vec<Option<&usize>> =
                args.iter().map(|a| self.index.get(&encoded.graph.find(encoded.ids[a.0 as usize]))).collect();
            let same = |a: &Alt| a.op.as_ref() == Some(op) && a.args.iter().map(Some).eq(args.iter().copied());
            if let (false, Some(alt)) = (set[place], self.alts[place].iter().position(same)) {
                alts[place] = alt;
                set[place] = true;
            }
        }
        alts
    }

    /// For each class, the node with the cheapest set of classes below it.
    ///
    /// Sorts alternatives by what they are on the way.
    fn guess(&mut self) -> Vec<usize> {
        let count = self.ids.len();
        let words = count.div_ceil(64);
        let mut best: Vec<Option<Best>> = (0..count).map(|_| None).collect();
        let mut own = vec![0.0; count];
        for _ in 0..MOST_PASSES {
            let mut changed = false;
            // Places were given from the results down, so operands mostly come later.
            for class in (0..count).rev() {
                for (i, alt) in self.alts[class].iter().enumerate() {
                    let Some(found) = self.below(class, i, alt, &best, &own, words) else { continue };
                    let better = match &best[class] {
                        None => true,
                        Some(b) if b.alt == i => found.total != b.total || found.hash != b.hash,
                        Some(b) => (found.total, found.hash) < (b.total, b.hash),
                    };
                    if better {
                        changed = true;
                        own[class] = self.alts[class][i].own;
                        best[class] = Some(found);
                    }
                }
            }
            if !changed {
                break;
            }
        }
        let hashes: Vec<u64> = best.iter().map(|b| b.as_ref().map_or(0, |b| b.hash)).collect();
        let mut guess = Vec::with_capacity(count);
        for (alts, best) in self.alts.iter_mut().zip(&best) {
            let key = |alt: &Alt| alt.needs.iter().map(|n| hashes[*n]).collect::<Vec<u64>>();
            let mut sorted: Vec<(usize, Alt)> = std::mem::take(alts).into_iter().enumerate().collect();
            sorted.sort_by(|(_, a), (_, b)| a.op.cmp(&b.op).then_with(|| key(a).cmp(&key(b))));
            let first = best.as_ref().map_or(0, |b| b.alt);
            guess.push(sorted.iter().position(|(i, _)| *i == first).unwrap_or(0));
            *alts = sorted.into_iter().map(|(_, alt)| alt).collect();
        }
        guess
    }

    fn below(
        &self,
        class: usize,
        number: usize,
        alt: &Alt,
        best: &[Option<Best>],
        own: &[f64],
        words: usize,
    ) -> Option<Best> {
        let mut set = vec![0u64; words];
        let mut hasher = DefaultHasher::new();
        alt.op.hash(&mut hasher);
        for &need in &alt.needs {
            let b = best[need].as_ref()?;
            set.iter_mut().zip(&b.set).for_each(|(a, b)| *a |= b);
            b.hash.hash(&mut hasher);
        }
        if set[class / 64] >> (class % 64) & 1 == 1 {
            return None;
        }
        let mut total = alt.own;
        for (w, word) in set.iter().enumerate() {
            let mut bits = *word;
            while bits != 0 {
                total += own[w * 64 + bits.trailing_zeros() as usize];
                bits &= bits - 1;
            }
        }
        set[class / 64] |= 1 << (class % 64);
        Some(Best { set, total, alt: number, hash: hasher.finish() })
    }

    /// The plan of a choice; none if it depends on itself.
    pub fn evaluate(&self, alts: Vec<usize>) -> Option<Chosen> {
        let order = self.order(&alts)?;
        let plan = self.plan(&alts, &order);
        Some(Chosen { seconds: plan.seconds, kernels: plan.kernels.len(), alts, order })
    }

    /// The kernels of a choice whose order is known.
    fn plan(&self, alts: &[usize], order: &[usize]) -> Plan {
        let mut at = vec![usize::MAX; self.ids.len()];
        order.iter().enumerate().for_each(|(i, class)| at[*class] = i);
        let items: Vec<Item> = order
            .iter()
            .map(|&class| {
                let alt = &self.alts[class][alts[class]];
                let args = alt.args.iter().map(|a| at[*a]).collect();
                Item {
                    op: alt.op.as_ref(),
                    args,
                    ty: self.types[class],
                    binding: self.bindings[class],
                    flops: alt.flops,
                }
            })
            .collect();
        let roots: Vec<usize> = self.roots.iter().map(|r| at[*r]).collect();
        cost::plan(&items, &roots, &self.rates)
    }

    /// The classes that a choice needs, operands first.
    fn order(&self, alts: &[usize]) -> Option<Vec<usize>> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.ids.len()];
        let mut order = Vec::new();
        let mut stack: Vec<(usize, usize)> = Vec::new();
        for &root in &self.roots {
            if marks[root] == Mark::New {
                marks[root] = Mark::Open;
                stack.push((root, 0));
            }
            while let Some((class, next)) = stack.pop() {
                let alt = self.alts[class].get(alts[class])?;
                match alt.needs.get(next) {
                    None => {
                        marks[class] = Mark::Done;
                        order.push(class);
                    }
                    Some(&need) => {
                        stack.push((class, next + 1));
                        match marks[need] {
                            Mark::Open => return None,
                            Mark::Done => {}
                            Mark::New => {
                                marks[need] = Mark::Open;
                                stack.push((need, 0));
                            }
                        }
                    }
                }
            }
        }
        Some(order)
    }

    /// Exchanges single nodes while the plan gets cheaper.
    fn improve(&self, mut at: Chosen, visits: &mut usize) -> Chosen {
        loop {
            let mut improved = false;
            let mut readers = self.readers(&at);
            for class in at.order.clone().into_iter().rev() {
                for alt in 0..self.alts[class].len() {
                    let wanted = at.alts[class] != alt && self.may_pay(&at.alts, &readers, class, alt);
                    if !wanted || *visits > MOST_VISITS {
                        continue;
                    }
                    *visits += at.order.len();
                    let mut alts = at.alts.clone();
                    alts[class] = alt;
                    let Some(trial) = self.evaluate(alts) else { continue };
                    if trial.seconds < at.seconds * (1.0 - LEAST_GAIN) {
                        at = trial;
                        readers = self.readers(&at);
                        improved = true;
                    }
                }
            }
            if !improved || *visits > MOST_VISITS {
                return at;
            }
        }
    }

    /// For each place, how many times the program needs it.
    fn readers(&self, at: &Chosen) -> Vec<u32> {
        let mut readers = vec![0; self.ids.len()];
        self.roots.iter().for_each(|r| readers[*r] += 1);
        for &class in &at.order {
            self.alts[class][at.alts[class]].needs.iter().for_each(|n| readers[*n] += 1);
        }
        readers
    }

    /// Whether exchanging a node can pay: what comes in costs, in kernels of its own, at most what goes out and what
    /// fusion may save, and it is not views alone. Looks at what changes, not at the whole program.
    fn may_pay(&self, alts: &[usize], readers: &[u32], class: usize, alt: usize) -> bool {
        let (old, new) = (&self.alts[class][alts[class]], &self.alts[class][alt]);
        let mut changed: HashMap<usize, i64> = HashMap::new();
        let (mut gone, mut come) = (old.own, new.own);
        let mut open: Vec<usize> = new.needs.clone();
        while let Some(need) = open.pop() {
            let change = changed.entry(need).or_default();
            *change += 1;
            if readers[need] == 0 && *change == 1 {
                let below = &self.alts[need][alts[need]];
                come += below.own;
                open.extend(&below.needs);
            }
        }
        let mut open: Vec<usize> = old.needs.clone();
        while let Some(need) = open.pop() {
            let change = changed.entry(need).or_default();
            *change -= 1;
            if i64::from(readers[need]) + *change == 0 {
                let below = &self.alts[need][alts[need]];
                gone += below.own;
                open.extend(&below.needs);
            }
        }
        let views_alone = gone.max(come) < self.rates.dispatch_seconds * 1e-2;
        !views_alone && come <= gone + FUSION * (gone + self.rates.dispatch_seconds)
    }

    /// The best program that is found.
    pub fn extract(&mut self, function: &Function, encoded: &Encoded) -> Option<Extraction> {
        let guess = self.guess();
        let original = self.original(function, encoded, &guess);
        let mut visits = 0;
        let starts = [guess, original].into_iter().filter_map(|alts| self.evaluate(alts));
        let start = starts.reduce(|a, b| if b.seconds < a.seconds { b } else { a })?;
        let best = self.improve(start, &mut visits);
        let mut trials = Vec::new();
        visits = 0;
        for &class in &best.order {
            for alt in (0..self.alts[class].len()).filter(|a| *a != best.alts[class]) {
                let dear = |alt: &Alt| alt.own > self.rates.dispatch_seconds * 1e-2;
                let known = dear(&self.alts[class][alt]) || dear(&self.alts[class][best.alts[class]]);
                if !known || visits > MOST_VISITS {
                    continue;
                }
                visits += best.order.len();
                let mut alts = best.alts.clone();
                alts[class] = alt;
                trials.push(Trial { class, alt, chosen: self.evaluate(alts) });
            }
        }
        Some(Extraction { best, trials })
    }
}

impl Extraction {
    /// The best programs by exclusion of one node of the very best: at most `k`, best first, with different costs.
    pub fn best(&self, k: usize) -> Vec<&Chosen> {
        let mut sorted: Vec<&Chosen> = self.trials.iter().filter_map(|t| t.chosen.as_ref()).collect();
        sorted.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let mut costs: BTreeSet<u64> = BTreeSet::from([self.best.seconds.to_bits()]);
        let others = sorted.into_iter().filter(|c| costs.insert(c.seconds.to_bits()));
        std::iter::once(&self.best).chain(others).take(k).collect()
    }
}

/// The cheapest set found for a class.
struct Best {
    set: Vec<u64>,
    total: f64,
    alt: usize,
    hash: u64,
}
