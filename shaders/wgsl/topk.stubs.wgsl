alias A = f32;
const ROWS: u32 = 3u;
const LEN: u32 = 40u;
const PICKED: u32 = 2u;
const FROM: u32 = 0u;
const TO: u32 = 40u;
const WG: u32 = 64u;
const GROUPS_X: u32 = 1u;

// `a` is strictly better than `b`.
fn precedes(a: A, b: A) -> bool { return a > b; }

// Element `k` of a row.
fn load(row: u32, k: u32) -> A { return A(k); }
// Takes the index of the element of a rank < PICKED.
fn store(row: u32, rank: u32, index: i32) {}
// How many of the elements 0..FROM come before element `i`; called only if FROM > 0.
fn partial(row: u32, i: u32) -> u32 { return 0u; }
// Takes how many of the elements 0..TO come before element `i`; called only if TO < LEN.
fn carry(row: u32, i: u32, count: u32) {}
