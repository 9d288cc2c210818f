enable f16;
enable wgpu_cooperative_matrix;
const BATCH: u32 = 1u;
const M: u32 = 5u;
const N: u32 = 6u;
const K: u32 = 7u;
const FROM: u32 = 0u;
const TO: u32 = 7u;
const TILES_M: u32 = 1u;
const TILES_N: u32 = 1u;
const T: u32 = 8u;
const WIDTH: u32 = 8u;
const RM: u32 = 1u;
const RN: u32 = 1u;
const BK: u32 = 8u;
const SG_M: u32 = 1u;
const SG_N: u32 = 1u;
const GROUPS_X: u32 = 1u;
const LAST_N: u32 = N - 1u;

alias MatrixA = coop_mat8x8<f16, A>;
alias MatrixB = coop_mat8x8<f16, B>;
alias MatrixC = coop_mat8x8<f32, C>;
// The matrix of staged rows of A, or columns of B, that starts at an element.
fn load_matrix_a(at: u32) -> MatrixA { return coopLoadT<coop_mat8x8<f16, A>>(&a_staged[at], BK); }
fn load_matrix_b(at: u32) -> MatrixB { return coopLoad<coop_mat8x8<f16, B>>(&b_staged[at], BK); }
// Stages four i of B; the first column is `first`, the first of K is `k`.
fn stage_b(i: u32, batch: u32, first: u32, k: u32) {
    let kk = i % (BK / 4u) * 4u;
    let column = i / (BK / 4u);
    var value = vec4<f32>();
    if k + kk < TO {
        let n = min(first + column, LAST_N);
        value = load_b(column_b(batch, n), batch, k + kk, n);
    }
    for (var j = 0u; j < 4u; j++) {
        b_staged[column * BK + kk + j] = f16(value[j]);
    }
}

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
