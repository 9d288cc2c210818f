//! Every family on the device against plain loops.

#[path = "../common/mod.rs"]
mod common;
mod products;
mod reductions;
mod selections;
mod sequences;

use common::gpu::{output, run};
use selvedge_shaders::kernels::map::Map;

/// Reproducible words.
fn words(count: usize, seed: u32) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let x = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
        (x >> 22) ^ x
    };
    (0..count).map(|_| next()).collect()
}

/// Floats in -1..1.
fn floats(count: usize, seed: u32) -> Vec<f32> {
    words(count, seed).into_iter().map(|w| (w >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Small integers, with many ties.
fn small(count: usize, seed: u32) -> Vec<i32> {
    words(count, seed).into_iter().map(|w| (w % 7) as i32 - 3).collect()
}

fn as_floats(words: &[u32]) -> Vec<f32> {
    words.iter().map(|&w| f32::from_bits(w)).collect()
}

#[test]
fn grids_larger_than_one_dimension_fold() {
    let count = 65_535 * 3 + 2;
    let hook = "fn element(i: u32) { b0[i >> 2u][i & 3u] = i * 3u; }";
    let got = run(&Map { count, wg: 1 }, hook, &[output(&vec![0u32; count as usize])]);
    assert!(got.iter().enumerate().all(|(i, &x)| x == i as u32 * 3));
}
