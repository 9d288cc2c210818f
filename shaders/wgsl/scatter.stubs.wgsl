alias A = f32;
const COUNT: u32 = 3u;
const UPDATES: u32 = 4u;
const FROM: u32 = 0u;
const TO: u32 = 4u;
const WG: u32 = 64u;
const GROUPS_X: u32 = 1u;

// `old` after an update with `other`.
fn written(old: A, other: A) -> A { return old + other; }

// Result `i` before the updates FROM..TO.
fn initial(i: u32) -> A { return A(0); }
// Update `j` goes to result `i`.
fn hits(i: u32, j: u32) -> bool { return i == j; }
// The value of update `j` for result `i`, which it hits.
fn update(i: u32, j: u32) -> A { return A(j); }
// Takes result `i` after the updates 0..TO.
fn store(i: u32, value: A) {}
