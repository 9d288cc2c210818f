alias A = f32;
const ROWS: u32 = 3u;
const LEN: u32 = 40u;
const FROM: u32 = 0u;
const TO: u32 = 40u;
const WG: u32 = 64u;
const GROUPS_X: u32 = 1u;

fn combine(a: A, b: A) -> A { return a + b; }
fn neutral() -> A { return A(0); }

// Element `k` of a row, FROM ≤ k < TO.
fn load(row: u32, k: u32) -> A { return A(k); }
// Takes the row's value (over 0..TO).
fn store(row: u32, value: A) {}
// The row's value over 0..FROM; called only if FROM > 0.
fn partial(row: u32) -> A { return A(0); }
