//! Where the time of a function goes: distinct kernels with counts, beside what the device can do at most.

use crate::compile::parts;
use crate::error::Error;
use crate::gpu::{Gpu, GpuSession};
use selvedge_codegen::probe;
use selvedge_runtime::{DispatchTime, Profile};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Runs of which a dispatch's time is the median.
const RUNS: usize = 5;

/// All dispatches of one kernel in a function.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelRow {
    /// The family.
    pub kernel: String,
    /// Where the compiler had a choice: key and candidate.
    pub choice: String,
    /// Operators of the first dispatch: `contract+map`.
    pub operators: String,
    /// Dispatches.
    pub count: usize,
    /// Milliseconds of all of them.
    pub ms: f64,
    /// Floating-point operations of all of them.
    pub flops: u64,
    /// Bytes of all of them, each operand read and each result written once.
    pub bytes: u64,
}

/// The most that probes of the device reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// 10⁹ multiplications and additions a second, in registers, f32.
    pub gflops: f64,
    /// 10⁹ bytes a second read and written by a copy.
    pub gb_per_s: f64,
}

/// The time of a function by kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// By time, the longest first.
    pub rows: Vec<KernelRow>,
    /// The device's ceilings.
    pub ceilings: Ceilings,
    /// The device's own timestamps; else wall time around single dispatches.
    pub timestamps: bool,
}

impl KernelRow {
    /// 10⁹ operations a second.
    pub fn gflops(&self) -> f64 {
        self.flops as f64 / 1e6 / self.ms
    }
    /// 10⁹ bytes a second.
    pub fn gb_per_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.ms
    }
    /// The larger of the shares of both ceilings: how near the kernel is to what limits it at least.
    pub fn share(&self, ceilings: &Ceilings) -> f64 {
        (self.gflops() / ceilings.gflops).max(self.gb_per_s() / ceilings.gb_per_s)
    }
}

impl Table {
    /// Milliseconds of all dispatches.
    pub fn total_ms(&self) -> f64 {
        self.rows.iter().map(|r| r.ms).sum()
    }
    /// `{"timestamps", "ceiling_gflop_per_s", "ceiling_gb_per_s", "kernels": [{"kernel", "choice", "operators", "count", "ms",
    /// "gflop_per_s", "gb_per_s", "share"}, …]}`
    pub fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|r| {
            json!({
                "kernel": r.kernel, "choice": r.choice, "operators": r.operators, "count": r.count, "ms": r.ms,
                "gflop_per_s": r.gflops(), "gb_per_s": r.gb_per_s(), "share": r.share(&self.ceilings),
            })
        });
        json!({
            "timestamps": self.timestamps, "ceiling_gflop_per_s": self.ceilings.gflops,
            "ceiling_gb_per_s": self.ceilings.gb_per_s, "kernels": rows.collect::<Vec<Value>>(),
        })
    }
    /// Lines for people.
    pub fn lines(&self) -> Vec<String> {
        let total = self.total_ms();
        let c = self.ceilings;
        let clock = if self.timestamps { "timestamps" } else { "wall time of single dispatches" };
        let mut lines = vec![
            format!("kernels by {clock}; ceilings {:.1} GFLOP/s, {:.1} GB/s", c.gflops, c.gb_per_s),
            format!("{:>10} {:>6} {:>5} {:>9} {:>8} {:>6}  kernel", "ms", "share", "count", "GFLOP/s", "GB/s", "limit"),
        ];
        for r in &self.rows {
            let what = if r.choice.is_empty() { &r.kernel } else { &r.choice };
            lines.push(format!(
                "{:>10.3} {:>5.1}% {:>5} {:>9.2} {:>8.2} {:>5.0}%  {what} ({})",
                r.ms,
                100.0 * r.ms / total,
                r.count,
                r.gflops(),
                r.gb_per_s(),
                100.0 * r.share(&c),
                r.operators
            ));
        }
        lines.push(format!("{total:>10.3} ms in {} dispatches", self.rows.iter().map(|r| r.count).sum::<usize>()));
        lines
    }
}

/// Median times of the dispatches of a function, and of what is moved between them, on what its inputs hold.
pub(super) fn dispatches(session: &mut GpuSession, function: &str) -> Result<(Vec<DispatchTime>, bool), Error> {
    let profiles = (0..RUNS).map(|_| session.profile(function)).collect::<Result<Vec<_>, _>>()?;
    let all = |p: &Profile| -> Vec<DispatchTime> { p.dispatches.iter().chain(&p.moves).cloned().collect() };
    let every: Vec<Vec<DispatchTime>> = profiles.iter().map(all).collect();
    let mut times = every[0].clone();
    for (i, time) in times.iter_mut().enumerate() {
        let mut samples: Vec<f64> = every.iter().map(|times| times[i].ms).collect();
        samples.sort_by(f64::total_cmp);
        time.ms = samples[RUNS / 2];
    }
    Ok((times, profiles[0].timestamps))
}

/// Groups dispatches by kernel.
pub(super) fn rows(dispatches: &[DispatchTime]) -> Vec<KernelRow> {
    let mut rows: Vec<KernelRow> = Vec::new();
    let mut known: HashMap<u32, usize> = HashMap::new();
    for d in dispatches {
        let place = *known.entry(d.index).or_insert_with(|| {
            let operators = d.label.split_once(' ').map_or(d.label.as_str(), |(_, ops)| ops).to_string();
            let (kernel, choice) = (d.kernel.clone(), d.choice.clone());
            rows.push(KernelRow { kernel, choice, operators, count: 0, ms: 0.0, flops: 0, bytes: 0 });
            rows.len() - 1
        });
        let row = &mut rows[place];
        row.count += 1;
        row.ms += d.ms;
        row.flops += d.flops;
        row.bytes += d.bytes;
    }
    rows.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    rows
}

/// Measures the ceilings of a device: the best of some runs.
pub(super) fn ceilings(gpu: &Gpu) -> Result<Ceilings, Error> {
    let probe = probe::plan();
    let bundle = parts(probe.manifest, probe.kernels)?;
    let mut session = GpuSession::load(gpu, &bundle, &Default::default(), true, &mut |_| {})?;
    let mut best = |function: &str| -> Result<DispatchTime, Error> {
        let mut best: Option<DispatchTime> = None;
        for _ in 0..RUNS {
            let profile = session.profile(function)?;
            for time in profile.dispatches {
                if best.as_ref().is_none_or(|b| time.ms < b.ms) {
                    best = Some(time);
                }
            }
        }
        best.ok_or_else(|| Error::device("probe", "the probe has no dispatch"))
    };
    let (arithmetic, copy) = (best(probe::ARITHMETIC)?, best(probe::COPY)?);
    let rate = |x: u64, ms: f64| x as f64 / 1e6 / ms.max(1e-6);
    Ok(Ceilings { gflops: rate(arithmetic.flops, arithmetic.ms), gb_per_s: rate(copy.bytes, copy.ms) })
}
