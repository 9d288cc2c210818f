// Memory formats. A blank line separates functions; a shader gets those that it names.

// Element `i` of 16-bit values packed two to a word, low half first; `word` holds it.
fn load_f16(word: u32, i: u32) -> f32 {
    return unpack2x16float(word >> ((i & 1u) << 4u)).x;
}

fn load_bf16(word: u32, i: u32) -> f32 {
    return bitcast<f32>((word >> ((i & 1u) << 4u)) << 16u);
}

// Elements i..i+3 (i a multiple of 4) of packed 16-bit values; `words` holds i - i % 8 and the seven after it.
fn load4_f16(words: vec4<u32>, i: u32) -> vec4<f32> {
    let pair = select(words.xy, words.zw, (i & 4u) != 0u);
    return vec4(unpack2x16float(pair.x), unpack2x16float(pair.y));
}

fn load4_bf16(words: vec4<u32>, i: u32) -> vec4<f32> {
    let pair = select(words.xy, words.zw, (i & 4u) != 0u);
    return bitcast<vec4<f32>>(vec4(pair.x << 16u, pair.x & 0xffff0000u, pair.y << 16u, pair.y & 0xffff0000u));
}

// A quad in a wide binding, as words and back.
fn quad_words(quad: vec2<u64>) -> vec4<u32> {
    return vec4(u32(quad.x), u32(quad.x >> 32u), u32(quad.y), u32(quad.y >> 32u));
}

fn words_quad(words: vec4<u32>) -> vec2<u64> {
    return vec2(u64(words.x) | (u64(words.y) << 32u), u64(words.z) | (u64(words.w) << 32u));
}

fn pair_words(pair: u64) -> vec2<u32> {
    return vec2(u32(pair), u32(pair >> 32u));
}

fn words_pair(words: vec2<u32>) -> u64 {
    return u64(words.x) | (u64(words.y) << 32u);
}

// Word `i` of a wide binding; `pair` holds it.
fn pair_word(pair: u64, i: u32) -> u32 {
    return u32(pair >> ((i & 1u) << 5u));
}

// Rounds to binary16, to nearest even; overflow gives infinity, denormals are kept.
fn round_f16(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let sign = bits & 0x80000000u;
    let size = bits & 0x7fffffffu;
    // Below 2^-14 the spacing is 2^-24: adding 0.5 leaves the count of it in the low bits.
    let small = f32(bitcast<u32>(bitcast<f32>(size) + 0.5) - 0x3f000000u) * 5.9604644775390625e-8;
    let normal = (size + 0xfffu + ((size >> 13u) & 1u)) & 0xffffe000u;
    var rounded = select(normal, bitcast<u32>(small), size < 0x38800000u);
    rounded = select(rounded, 0x7f800000u, size >= 0x477ff000u);
    rounded = select(rounded, size, size > 0x7f800000u);
    return bitcast<f32>(sign | rounded);
}

// The bits of the nearest binary16, to even; overflow gives infinity, denormals are kept.
fn bits_f16(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let size = bits & 0x7fffffffu;
    // Whatever is 2^16 or more is infinite.
    let held = min(size, 0x47800000u);
    // 2^13 times the power of two in it, at least that of the least normal number: added, it leaves their count of spacings, 2^10 and
    // more of normal numbers, in the low bits.
    let unit = (max(held, 0x38800000u) & 0x7f800000u) + 0x06800000u;
    let count = bitcast<u32>(bitcast<f32>(held) + bitcast<f32>(unit)) - unit;
    // The exponent is another 2^10 for each power of two above the least.
    let half = select(count + (unit >> 13u) - 0x1f800u, 0x7e00u, size > 0x7f800000u);
    return ((bits >> 16u) & 0x8000u) | half;
}

fn bits_bf16(x: f32) -> u32 {
    let bits = bitcast<u32>(round_bf16(x));
    // A NaN may have bits in the lower half only.
    let quiet = select(0u, 0x40u, (bits & 0x7fffffffu) > 0x7f800000u);
    return (bits >> 16u) | quiet;
}

// Rounds to bfloat16, to nearest even.
fn round_bf16(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u;
    return bitcast<f32>(select(rounded, bits, (bits & 0x7fffffffu) > 0x7f800000u));
}

fn round4_f16(x: vec4<f32>) -> vec4<f32> {
    return vec4(round_f16(x.x), round_f16(x.y), round_f16(x.z), round_f16(x.w));
}

fn round4_bf16(x: vec4<f32>) -> vec4<f32> {
    return vec4(round_bf16(x.x), round_bf16(x.y), round_bf16(x.z), round_bf16(x.w));
}
