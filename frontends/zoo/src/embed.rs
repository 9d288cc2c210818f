//! Position tables.

use selvedge_model::{DType, Graph, Tensor, concat};

/// The sin-cos table of a token grid as f32 [1, height·width, hidden]: the first half of the channels encodes the column,
/// the second the row, each as sin(p·ω) then cos(p·ω) with ω = 10000^(−i/(hidden/4)).
///
/// Positions are stretched so that `base_size` tokens span a side and divided by `scale`, as diffusers'
/// `get_2d_sincos_pos_embed` does; pass the grid's own side and 1 for plain indices. `hidden` is a multiple of 4, which a
/// configuration checks.
pub fn sincos_2d(
    graph: &Graph,
    hidden: usize,
    (height, width): (usize, usize),
    base_size: usize,
    scale: f64,
) -> Tensor {
    let half = hidden / 2;
    // One small table a side; the grid is a broadcast of both. Sines are taken in f64 as the reference does.
    let columns =
        graph.constant(DType::F32, [1, 1, width, half], &sincos_1d(half, width, base_size, scale)).named("columns");
    let rows =
        graph.constant(DType::F32, [1, height, 1, half], &sincos_1d(half, height, base_size, scale)).named("rows");
    let grid = [1, height, width, half];
    concat(&[&columns.broadcast_to(grid), &rows.broadcast_to(grid)], -1).flatten(1, 2).named("pos_embed")
}

/// [count, channels] row by row: sin(p·ω) then cos(p·ω) for positions p = i / (count / base_size) / scale in f32.
fn sincos_1d(channels: usize, count: usize, base_size: usize, scale: f64) -> Vec<f64> {
    let waves = channels / 2;
    let mut table = Vec::with_capacity(count * channels);
    for i in 0..count {
        let position = f64::from(i as f32 / (count as f64 / base_size as f64) as f32 / scale as f32);
        let angle = |w: usize| position / 10000f64.powf(w as f64 / waves as f64);
        table.extend((0..waves).map(|w| angle(w).sin()));
        table.extend((0..waves).map(|w| angle(w).cos()));
    }
    table
}
