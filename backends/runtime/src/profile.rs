//! Measuring: the time of each dispatch, and of a whole function.

use crate::error::RuntimeError;
use crate::load::Session;
use selvedge_bundle::manifest::Step;
use std::time::Instant;

/// Queries that a query set may hold, by WebGPU's limit.
const QUERIES: usize = 4096;

/// Device time of each dispatch of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The function.
    pub function: String,
    /// True if the times are the device's own; otherwise they are wall time around submit and wait, overhead included.
    pub timestamps: bool,
    /// In order.
    pub dispatches: Vec<DispatchTime>,
    /// What is moved between them, in order.
    pub moves: Vec<DispatchTime>,
}

/// What times of moves have for a kernel.
const COPY: &str = "copy";

/// The time of a dispatch or a move.
#[derive(Clone, Debug, PartialEq)]
pub struct DispatchTime {
    /// Value and operators: `%12 contract+map`.
    pub label: String,
    /// The kernel's name.
    pub kernel: String,
    /// Distinct kernels have distinct numbers; all moves have one.
    pub index: u32,
    /// Where the compiler had a choice: key and candidate.
    pub choice: String,
    /// Call sites of the model code.
    pub origins: Vec<String>,
    /// Milliseconds from the first dispatch's start.
    pub start_ms: f64,
    /// Milliseconds.
    pub ms: f64,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written, each once.
    pub bytes: u64,
}

/// Wall times of a function around submit and wait, in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Bench {
    /// The first run, not among the samples: drivers may compile in it.
    pub first: f64,
    /// All further runs, in order.
    pub samples: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// Their least.
    pub min: f64,
    /// Their spread: the distance between the quartiles.
    pub spread: f64,
}

/// Number of a dispatch or a move.
#[derive(Clone, Copy, Debug)]
enum Place {
    Dispatch(usize),
    Move(usize),
}

impl Session {
    /// Runs a function on what its regions hold, each dispatch in a pass of its own, and times the passes.
    ///
    /// # Errors
    /// An unknown function or device trouble.
    pub fn profile(&mut self, function: &str) -> Result<Profile, RuntimeError> {
        let index = self.function_index(function)?;
        self.enter_for(function)?;
        let timestamps = self.gpu.facts().timestamps;
        let places = self.places(index);
        let count = places.len();
        let mut times = Vec::with_capacity(count);
        if timestamps {
            for start in (0..count).step_by(QUERIES / 2) {
                let end = count.min(start + QUERIES / 2);
                times.extend(self.time_on_device(index, &places[start..end])?);
            }
        } else {
            let first = Instant::now();
            let now = || first.elapsed().as_secs_f64() * 1e3;
            for place in &places {
                let begin = now();
                self.run_passes(index, std::slice::from_ref(place), None)?;
                times.push((begin, now()));
            }
        }
        let mut encoder = self.encoder("profile");
        self.encode_copies(&mut encoder, index);
        let submission = self.gpu.submit(Some(encoder.finish()), "profiling")?;
        self.gpu.wait(Some(submission), "profiling")?;
        let first = times.first().map_or(0.0, |t| t.0);
        let (mut dispatches, mut moves) = (Vec::new(), Vec::new());
        for (place, (start, end)) in places.iter().zip(&times) {
            let (start_ms, ms) = (start - first, end - start);
            match *place {
                Place::Dispatch(i) => {
                    let dispatch = &self.plan.functions[index].dispatches[i];
                    let kernel = &self.kernels[dispatch.kernel as usize];
                    dispatches.push(DispatchTime {
                        label: dispatch.label.clone(),
                        kernel: kernel.name.clone(),
                        index: dispatch.kernel,
                        choice: kernel.choice.clone(),
                        origins: dispatch.origins.clone(),
                        start_ms,
                        ms,
                        flops: dispatch.flops,
                        bytes: dispatch.bytes,
                    });
                }
                Place::Move(i) => {
                    let step = &self.plan.functions[index].moves[i];
                    moves.push(DispatchTime {
                        label: step.label.clone(),
                        kernel: COPY.to_string(),
                        index: u32::MAX,
                        choice: String::new(),
                        origins: step.origins.clone(),
                        start_ms,
                        ms,
                        flops: 0,
                        bytes: step.bytes,
                    });
                }
            }
        }
        Ok(Profile { function: function.to_string(), timestamps, dispatches, moves })
    }

    /// What a function does, in order.
    fn places(&self, index: usize) -> Vec<Place> {
        let mut moves = 0..;
        let place = |step| match step {
            Step::Dispatch(i, _) => Place::Dispatch(i),
            Step::Move(_) => Place::Move(moves.next().unwrap_or(0)),
        };
        self.plan.functions[index].steps().map(place).collect()
    }

    /// Runs a function on what its regions hold: milliseconds from its submit to its end.
    ///
    /// # Errors
    /// An unknown function or device trouble.
    pub fn once(&mut self, function: &str) -> Result<f64, RuntimeError> {
        let index = self.function_index(function)?;
        let begin = Instant::now();
        self.run_function(index)?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }

    /// Runs a function once and then `repeats` times (at least once) on what its regions hold.
    ///
    /// # Errors
    /// An unknown function or device trouble.
    pub fn bench(&mut self, function: &str, repeats: usize) -> Result<Bench, RuntimeError> {
        self.enter_for(function)?;
        let first = self.once(function)?;
        let samples = (0..repeats.max(1)).map(|_| self.once(function)).collect::<Result<Vec<_>, _>>()?;
        Ok(Bench::new(first, samples))
    }

    /// Start and end of some dispatches and moves in milliseconds of the device's clock, by timestamps at the ends of passes.
    fn time_on_device(&mut self, index: usize, places: &[Place]) -> Result<Vec<(f64, f64)>, RuntimeError> {
        let count = places.len() as u32 * 2;
        let bytes = u64::from(count) * 8;
        let (queries, resolved) = self.gpu.scoped("timestamps", bytes, || {
            let queries = self.gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("profile"),
                ty: wgpu::QueryType::Timestamp,
                count,
            });
            let resolved = self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("profile"),
                size: bytes,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            (queries, resolved)
        })?;
        self.run_passes(index, places, Some(&queries))?;
        let staging = self.staging.take(&self.gpu, bytes)?;
        let mut encoder = self.encoder("timestamps");
        encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, bytes);
        let submission = self.gpu.submit(Some(encoder.finish()), "profiling")?;
        let reading = self.staging.map(staging, bytes);
        self.gpu.wait(Some(submission), "profiling")?;
        let words = self.staging.finish(&self.gpu, reading)?;
        let ticks: Vec<u64> = words.chunks_exact(2).map(|w| u64::from(w[0]) | u64::from(w[1]) << 32).collect();
        let period = self.gpu.timestamp_period();
        let ms = |ticks: u64| ticks as f64 * period * 1e-6;
        Ok(ticks.chunks_exact(2).map(|t| (ms(t[0]), ms(t[1].max(t[0])))).collect())
    }

    /// Runs dispatches in passes of their own, and moves between empty passes, and waits; number k writes queries 2k and 2k + 1.
    fn run_passes(&self, index: usize, places: &[Place], queries: Option<&wgpu::QuerySet>) -> Result<(), RuntimeError> {
        let mut encoder = self.encoder("profile");
        for (k, place) in (0..).zip(places) {
            let writes = |begin, end| {
                let timestamp_writes = queries.map(|query_set| wgpu::ComputePassTimestampWrites {
                    query_set,
                    beginning_of_pass_write_index: begin,
                    end_of_pass_write_index: end,
                });
                wgpu::ComputePassDescriptor { label: None, timestamp_writes }
            };
            match *place {
                Place::Dispatch(i) => {
                    let mut pass = encoder.begin_compute_pass(&writes(Some(2 * k), Some(2 * k + 1)));
                    pass.set_pipeline(self.pipeline(self.plan.functions[index].dispatches[i].kernel));
                    self.encode_dispatch(&mut pass, index, i);
                }
                Place::Move(i) => {
                    drop(encoder.begin_compute_pass(&writes(None, Some(2 * k))));
                    self.encode_move(&mut encoder, index, i);
                    drop(encoder.begin_compute_pass(&writes(Some(2 * k + 1), None)));
                }
            }
        }
        let submission = self.gpu.submit(Some(encoder.finish()), "profiling")?;
        self.gpu.wait(Some(submission), "profiling")
    }
}

impl Bench {
    fn new(first: f64, samples: Vec<f64>) -> Bench {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let quantile = |q: f64| {
            let place = q * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        let (median, min, spread) = (quantile(0.5), quantile(0.0), quantile(0.75) - quantile(0.25));
        Bench { first, samples, median, min, spread }
    }
}
