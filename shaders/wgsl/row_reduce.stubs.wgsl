alias A = f32;
const ROWS: u32 = 3u;
const LEN: u32 = 42u;
const FROM: u32 = 0u;
const TO: u32 = 42u;
const LANES: u32 = 1u;
const BLOCK: u32 = 32u;
const ROLLED: bool = true;
const WG: u32 = 64u;
const GROUPS_X: u32 = 1u;

fn combine(a: A, b: A) -> A { return a + b; }
fn combine4(a: vec4<A>, b: vec4<A>) -> vec4<A> { return a + b; }
fn neutral() -> A { return A(0); }
// The combined value of the lanes of a row, in all of them.
fn all_combined(x: A, lane: u32) -> A { return x; }

// Elements 4·quad to 4·quad + 3 of a row; what lies outside FROM..TO may be anything.
fn load(row: u32, quad: u32) -> vec4<A> { return vec4<A>(); }
// Takes the row's value (over 0..TO).
fn store(row: u32, value: A) {}
// The row's value over 0..FROM; called only if FROM > 0.
fn partial(row: u32) -> A { return A(0); }
