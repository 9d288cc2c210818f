const BATCH: u32 = 1u;
const M: u32 = 5u;
const N: u32 = 6u;
const K: u32 = 7u;
const FROM: u32 = 0u;
const TO: u32 = 7u;
const TILES_M: u32 = 1u;
const TILES_N: u32 = 1u;
const RM: u32 = 1u;
const RN: u32 = 4u;
const WIDTH: u32 = 8u;
const FOURS: u32 = 1u;
const GROUPS_X: u32 = 1u;
const LAST_N: u32 = N - 1u;

alias Tile = array<vec4<f32>, 1>;
alias Rows = array<vec4<f32>, 1>;
const TAKEN: u32 = 1u;
// What the hooks want to know of the tile's rows and columns.
struct Places { a0: u32, b00: u32 }
fn places(batch: u32, m: u32, n: u32, lane: u32) -> Places { return Places(row_a(batch, m), column_b(batch, n)); }
// Adds FOURS fours of K, the first k..k+3, to the tile whose first row is `m`; its fours of columns start at n, n + STRIDE_N, …
fn advance(c: ptr<function, Tile>, places: Places, batch: u32, m: u32, n: u32, k: u32, lane: u32) {
    (*c)[0] += load_a(places.a0, batch, m, k).x * load_b(places.b00, batch, k, n);
}
// Gives the tile's first TAKEN rows and moves the others up.
fn take_rows(c: ptr<function, Tile>) -> Rows { return Rows((*c)[0]); }

// What load_a wants to know of row m < M whatever k: computed once.
fn row_a(batch: u32, m: u32) -> u32 { return 0u; }
// Elements k..k+3 of row m < M, 0 beyond K; k is a multiple of 4, row is row_a(batch, m).
fn load_a(row: u32, batch: u32, m: u32, k: u32) -> vec4<f32> { return vec4<f32>(); }
// What load_b wants to know of column n < N whatever k: computed once.
fn column_b(batch: u32, n: u32) -> u32 { return 0u; }
// Column is column_b(batch, n).
// K-contiguous: elements k..k+3 of column n < N, 0 beyond K; k is a multiple of 4.
// N-contiguous: columns n..n+3 (n < N a multiple of 4) of row k, 0 for k ≥ K.
fn load_b(column: u32, batch: u32, k: u32, n: u32) -> vec4<f32> { return vec4<f32>(); }
// Takes columns n..n+3 of row m, each row and four once; m < M, n < N is a multiple of 4, and columns beyond N are dropped.
fn store(batch: u32, m: u32, n: u32, value: vec4<f32>) {}
// Their sums over 0..FROM; called only if FROM > 0.
fn partial(batch: u32, m: u32, n: u32) -> vec4<f32> { return vec4<f32>(); }
