const ROWS: u32 = 3u;
const LEN: u32 = 42u;
const QUADS: u32 = 11u;
const CHUNKS: u32 = 1u;
const CHUNK_QUADS: u32 = 11u;
const LANES: u32 = 1u;
const ROLLED: bool = true;
const CENTRED: bool = true;
const EPS: f32 = 0.00001f;
const PHASE: u32 = 0u;
const WG: u32 = 64u;
const GROUPS_X: u32 = 1u;

// The sum over the lanes of a row, in all of them.
fn all_sum(x: f32, lane: u32) -> f32 { return x; }

// Elements 4·quad to 4·quad + 3 of a row; what lies beyond LEN may be anything.
fn load(row: u32, quad: u32) -> vec4<f32> { return vec4<f32>(); }
// Takes normalised elements 4·quad to 4·quad + 3, of which those below LEN count.
fn store(row: u32, quad: u32, value: vec4<f32>) {}
// Takes a chunk's mean and its sum of squared distances from it (of squares, if not CENTRED); PHASE 1.
fn keep(row: u32, chunk: u32, mean: f32, squares: f32) {}
// What was kept; PHASE 2.
fn kept(row: u32, chunk: u32) -> vec2<f32> { return vec2<f32>(); }
