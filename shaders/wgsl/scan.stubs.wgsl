alias A = f32;
const ROWS: u32 = 3u;
const LEN: u32 = 40u;
const FROM: u32 = 0u;
const TO: u32 = 40u;
const REVERSE: bool = false;
const EXCLUSIVE: bool = false;
const WG: u32 = 64u;
const GROUPS_X: u32 = 1u;

fn combine(a: A, b: A) -> A { return a + b; }
fn neutral() -> A { return A(0); }

// Element `k` of a row.
fn load(row: u32, k: u32) -> A { return A(k); }
// Takes result `k` of a row.
fn store(row: u32, k: u32, value: A) {}
// The result at place FROM − 1; called only if FROM > 0.
fn partial(row: u32) -> A { return A(0); }
