alias A = f32;
const ROWS: u32 = 3u;
const LEN: u32 = 40u;
const FROM: u32 = 0u;
const TO: u32 = 40u;
const WG: u32 = 64u;
const GROUPS_X: u32 = 1u;

// `a` is strictly better than `b`.
fn precedes(a: A, b: A) -> bool { return a > b; }

// Element `k` of a row, k < TO.
fn load(row: u32, k: u32) -> A { return A(k); }
// Takes the index of the row's best element in 0..TO.
fn store(row: u32, index: i32) {}
// The index of the best element in 0..FROM; called only if FROM > 0.
fn partial(row: u32) -> i32 { return 0; }
