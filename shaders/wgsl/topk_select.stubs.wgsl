alias A = f32;
const ROWS: u32 = 3u;
const LEN: u32 = 42u;
const QUADS: u32 = 11u;
const PICKED: u32 = 2u;
const PLACE_BITS: u32 = 6u;
const LANES: u32 = 64u;
const ROLLED: bool = true;
const WG: u32 = 64u;
const GROUPS_X: u32 = 1u;

// Larger the better the element is; equal for elements of equal rank.
fn key_of(x: A) -> u32 { return bitcast<u32>(x); }
// The sum over the lanes of a row, in all of them.
fn all_sum(x: vec3<u32>, lane: u32) -> vec3<u32> { return x; }

// Elements 4·quad to 4·quad + 3 of a row; what lies beyond LEN may be anything.
fn load(row: u32, quad: u32) -> vec4<A> { return vec4<A>(); }
// Takes the index of the element of a rank < PICKED.
fn store(row: u32, rank: u32, index: i32) {}
