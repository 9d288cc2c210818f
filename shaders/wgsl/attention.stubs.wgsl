const BATCH: u32 = 1u;
const N: u32 = 5u;
const TILES: u32 = 1u;
const QL: u32 = 2u;
const D_QUADS: u32 = 2u;
const E_QUADS: u32 = 2u;
const WG: u32 = 8u;
const GROUPS_X: u32 = 1u;
const INDEXED: bool = false;

alias Queries = array<vec4<f32>, 4>;
alias Results = array<vec4<f32>, 4>;
alias States = array<vec2<f32>, 2>;
alias Taken = array<vec4<f32>, 2>;
const TAKEN: u32 = 2u;
// The query that a lane's place `j` stands for; N or more for none.
fn query_of(tile: u32, lane: u32, j: u32) -> u32 { return (tile * QL + j) * WG + lane; }
// Puts a value at `at`; called for 0, 1, … in turn.
fn push(q: ptr<function, Queries>, at: u32, value: vec4<f32>) {}
// Gives TAKEN values from `at` on, a divisor of E_QUADS; called for 0, TAKEN, … in turn.
fn take(c: ptr<function, Results>, at: u32) -> Taken { return Taken((*c)[0], (*c)[1]); }
// Runs over the keys: results without the division by the sum, and (maximum, sum) of each query.
fn attend(q: ptr<function, Queries>, c: ptr<function, Results>, state: ptr<function, States>, batch: u32, tile: u32, lane: u32) {}

// Elements 4·quad to 4·quad + 3 of a query, key or value; 0 beyond the head size.
fn load_q(batch: u32, n: u32, quad: u32) -> vec4<f32> { return vec4<f32>(); }
fn load_k(batch: u32, m: u32, quad: u32) -> vec4<f32> { return vec4<f32>(); }
fn load_v(batch: u32, m: u32, quad: u32) -> vec4<f32> { return vec4<f32>(); }
// Takes elements of a result; those beyond the head size do not count.
fn store(batch: u32, n: u32, quad: u32, value: vec4<f32>) {}
// Query n may look at key m; called only by kernels that are masked.
fn seen(batch: u32, n: u32, m: u32) -> bool { return true; }
// What is added to a score; called only by kernels that are biased.
fn bias(batch: u32, n: u32, m: u32) -> f32 { return 0.0; }
