//! Matrix products by strides: the safe face of the `gemm` crate, and the only `unsafe` of this crate.
#![allow(unsafe_code)]

use gemm::Parallelism;
use rayon::prelude::*;

/// An outer axis of a batched product: its extent and its strides in the result and the operands.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// Number of products along the axis.
    pub size: usize,
    /// Strides in elements: result, first operand, second operand. The result's is not 0.
    pub strides: [usize; 3],
}

/// `c[i, j] (+)= Σ_k a[i, k] · b[k, j]`, all indices by strides, repeated along outer axes.
#[derive(Clone, Debug)]
pub struct Product {
    /// Extents: rows, columns, summed.
    pub m: usize,
    /// Columns.
    pub n: usize,
    /// Summed.
    pub k: usize,
    /// Row and column strides of the result.
    pub c: (usize, usize),
    /// Strides of the first operand along rows and the summed axis.
    pub a: (usize, usize),
    /// Strides of the second operand along the summed axis and columns.
    pub b: (usize, usize),
    /// Outer axes.
    pub outer: Vec<Outer>,
    /// Adds to the result rather than overwriting it.
    pub accumulate: bool,
}

#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: tasks write disjoint elements (`Product::disjoint` is checked before any runs).
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}
impl Shared {
    fn get(self) -> *mut f32 {
        self.0
    }
}

impl Product {
    /// Computes the product into `c`.
    ///
    /// # Panics
    /// If an index leaves its slice or two elements of the result coincide: both are errors of the caller.
    pub fn run(&self, c: &mut [f32], a: &[f32], b: &[f32]) {
        self.run_with(c, a, b, Parallelism::Rayon(0));
    }
    /// As [`Product::run`], on this thread only: for use inside a parallel loop.
    ///
    /// # Panics
    /// As [`Product::run`].
    pub fn run_alone(&self, c: &mut [f32], a: &[f32], b: &[f32]) {
        self.run_with(c, a, b, Parallelism::None);
    }

    fn run_with(&self, c: &mut [f32], a: &[f32], b: &[f32], inner: Parallelism) {
        let batches: usize = self.outer.iter().map(|o| o.size).product();
        if self.m == 0 || self.n == 0 || batches == 0 {
            return;
        }
        let last = |i: usize, x: (usize, usize), y: (usize, usize)| {
            let outer: usize = self.outer.iter().map(|o| (o.size - 1) * o.strides[i]).sum();
            outer + (x.0.max(1) - 1) * x.1 + (y.0.max(1) - 1) * y.1
        };
        assert!(last(0, (self.m, self.c.0), (self.n, self.c.1)) < c.len(), "result out of bounds");
        if self.k > 0 {
            assert!(last(1, (self.m, self.a.0), (self.k, self.a.1)) < a.len(), "first operand out of bounds");
            assert!(last(2, (self.k, self.b.0), (self.n, self.b.1)) < b.len(), "second operand out of bounds");
        }
        assert!(self.disjoint(), "elements of the result coincide");
        let out = Shared(c.as_mut_ptr());
        let one = |batch: usize, parallelism: Parallelism| {
            let mut at = [0usize; 3];
            let mut rest = batch;
            for o in self.outer.iter().rev() {
                let i = rest % o.size;
                rest /= o.size;
                at.iter_mut().zip(o.strides).for_each(|(at, stride)| *at += i * stride);
            }
            // SAFETY: the asserts above bound every index this product touches, elements of the result are
            // distinct within and between batches, and `c` is borrowed mutably for the whole call.
            unsafe {
                gemm::gemm(
                    self.m,
                    self.n,
                    self.k,
                    out.get().add(at[0]),
                    self.c.1 as isize,
                    self.c.0 as isize,
                    self.accumulate,
                    a.as_ptr().add(if self.k > 0 { at[1] } else { 0 }),
                    self.a.1 as isize,
                    self.a.0 as isize,
                    b.as_ptr().add(if self.k > 0 { at[2] } else { 0 }),
                    self.b.1 as isize,
                    self.b.0 as isize,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    parallelism,
                );
            }
        };
        if matches!(inner, Parallelism::Rayon(_)) && batches >= 2 * rayon::current_num_threads() {
            (0..batches).into_par_iter().for_each(|batch| one(batch, Parallelism::None));
        } else {
            (0..batches).for_each(|batch| one(batch, inner));
        }
    }

    /// Every index tuple reaches its own element: each stride exceeds the span of all smaller ones.
    fn disjoint(&self) -> bool {
        let mut axes: Vec<(usize, usize)> = self.outer.iter().map(|o| (o.strides[0], o.size)).collect();
        axes.extend([(self.c.0, self.m), (self.c.1, self.n)]);
        axes.retain(|&(_, size)| size > 1);
        axes.sort_unstable();
        let mut span = 0;
        axes.into_iter().all(|(stride, size)| {
            let apart = stride > span;
            span += (size - 1) * stride;
            apart
        })
    }
}
