//! What a step no longer does.

use crate::work;
use selvedge_ir::op::OpClass;
use selvedge_ir::{DType, Function, Module, Op, ValueId};
use std::fmt;

/// What hoisting took out of a step; of several step functions, the sums. Work that tables take instead is subtracted, shared out
/// over the rows of a chunk; what runs once is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Savings {
    /// Operators that compute (no leaves, no views).
    pub operators: usize,
    /// Floating-point operations a step; a transcendental function counts as one.
    pub flops: i64,
    /// Floating-point operations that left the step: those that tables take instead, too.
    pub moved_flops: i64,
    /// Bytes of operands and results a step, each operator by itself; rows that are copied count against it.
    pub bytes: i64,
    /// Operators of a step before.
    pub operators_before: usize,
    /// Floating-point operations of a step before.
    pub flops_before: i64,
    /// Rows of a chunk; 0 without tables.
    pub rows: usize,
    /// Bytes of all tables.
    pub table_bytes: u64,
}

impl fmt::Display for Savings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.moved_flops as f64 / self.flops_before.max(1) as f64;
        write!(
            f,
            "hoisted {} of {} operators out of the step: {:.3} MFLOP ({share:.2} %) leave it, {:.3} MFLOP and {:.3} MB a step are saved",
            self.operators,
            self.operators_before,
            self.moved_flops as f64 / 1e6,
            self.flops as f64 / 1e6,
            self.bytes as f64 / 1e6,
        )?;
        match self.rows {
            0 => Ok(()),
            rows => write!(f, "; tables of {rows} rows, {:.3} MB, do the rest", self.table_bytes as f64 / 1e6),
        }
    }
}

/// The work of a program's steps.
pub(super) struct Census {
    operators: usize,
    flops: i64,
    bytes: i64,
}

impl Census {
    pub(super) fn of(module: &Module) -> Census {
        let mut census = Census { operators: 0, flops: 0, bytes: 0 };
        for function in module.schedule.steps.iter().flat_map(|s| &s.functions) {
            if let Some(function) = module.function(function) {
                census.add(function);
            }
        }
        census
    }

    fn add(&mut self, function: &Function) {
        let mut live = vec![false; function.values.len()];
        function.returns.iter().for_each(|r| live[r.value.0 as usize] = true);
        for id in function.ids().rev() {
            if live[id.0 as usize] {
                function.reads(id).iter().for_each(|a| live[a.0 as usize] = true);
            }
        }
        let mut operands: Vec<ValueId> = Vec::new();
        for id in function.ids().filter(|id| live[id.0 as usize]) {
            let Some((op, args)) = function.op(id) else { continue };
            if matches!(op.class(), OpClass::Leaf | OpClass::View) {
                continue;
            }
            self.operators += 1;
            self.flops += work::flops(function, id) as i64;
            operands.clear();
            for arg in args {
                let behind = stored(function, *arg);
                if !operands.contains(&behind) {
                    operands.push(behind);
                }
            }
            self.bytes += operands.iter().chain([&id]).map(|v| bytes(function, *v)).sum::<i64>();
        }
    }

    /// What `after` does less; `None` if the module has no steps or nothing was moved.
    pub(super) fn savings(self, after: &Module) -> Option<Savings> {
        let steps = after.schedule.steps.as_ref()?;
        let now = Census::of(after);
        let mut savings = Savings {
            operators: self.operators.saturating_sub(now.operators),
            flops: self.flops - now.flops,
            moved_flops: self.flops - now.flops,
            bytes: self.bytes - now.bytes,
            operators_before: self.operators,
            flops_before: self.flops,
            rows: 0,
            table_bytes: 0,
        };
        if let Some((tabulate, function)) =
            steps.tabulate.as_ref().and_then(|t| Some((t, after.function(&t.function)?)))
        {
            let mut table = Census { operators: 0, flops: 0, bytes: 0 };
            table.add(function);
            let held: i64 = function.outputs().iter().map(|(_, id)| bytes(function, *id)).sum();
            let rows = tabulate.rows.max(1) as i64;
            savings.flops -= table.flops / rows;
            savings.bytes -= (table.bytes + 2 * held) / rows;
            savings.rows = tabulate.rows;
            savings.table_bytes = held as u64;
        }
        (savings.operators > 0).then_some(savings)
    }
}

/// The value whose memory a view reads.
fn stored(function: &Function, mut id: ValueId) -> ValueId {
    while let Some((Op::Transpose(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Slice(_), args)) = function.op(id) {
        id = args[0];
    }
    id
}

/// Bytes of a value: of weights as stored, of everything else in words.
fn bytes(function: &Function, id: ValueId) -> i64 {
    let ty = function.ty(id);
    let elements = ty.elements().unwrap_or(0) as i64;
    match (function.op(id), ty.dtype) {
        (Some((Op::Weight(_), _)), DType::F16 | DType::BF16) => 2 * elements,
        (Some((Op::Iota(_), _)), _) => 0,
        _ => 4 * elements,
    }
}
