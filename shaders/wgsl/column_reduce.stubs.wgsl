alias A = f32;
const ROWS: u32 = 12u;
const LEN: u32 = 42u;
const FROM: u32 = 0u;
const TO: u32 = 42u;
const LANES: u32 = 1u;
const BLOCK: u32 = 32u;
const ROLLED: bool = true;
const WG: u32 = 64u;
const GROUPS_X: u32 = 1u;

fn combine4(a: vec4<A>, b: vec4<A>) -> vec4<A> { return a + b; }
fn neutral() -> A { return A(0); }
// The combined values of the lanes of four columns, in all of them.
fn all_combined(x: vec4<A>, lane: u32) -> vec4<A> { return x; }

// Element k of columns 4·quad to 4·quad + 3.
fn load(quad: u32, k: u32) -> vec4<A> { return vec4<A>(); }
// Takes the values of the columns (over 0..TO).
fn store(quad: u32, value: vec4<A>) {}
// The values of the columns over 0..FROM; called only if FROM > 0.
fn partial(quad: u32) -> vec4<A> { return vec4<A>(); }
