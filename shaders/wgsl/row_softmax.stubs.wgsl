const ROWS: u32 = 3u;
const LEN: u32 = 42u;
const QUADS: u32 = 11u;
const LANES: u32 = 1u;
const ROLLED: bool = true;
const WG: u32 = 64u;
const GROUPS_X: u32 = 1u;

// The sum and the largest over the lanes of a row, in all of them.
fn all_sum(x: f32, lane: u32) -> f32 { return x; }
fn all_max(x: f32, lane: u32) -> f32 { return x; }
fn exp_of(x: f32) -> f32 { return x; }

// Elements 4·quad to 4·quad + 3 of a row; what lies beyond LEN may be anything.
fn load(row: u32, quad: u32) -> vec4<f32> { return vec4<f32>(); }
// Takes results 4·quad to 4·quad + 3, of which those below LEN count.
fn store(row: u32, quad: u32, value: vec4<f32>) {}
