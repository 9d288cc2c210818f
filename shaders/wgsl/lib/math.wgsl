// Scalar functions that WGSL lacks, leaves undefined somewhere, or lets drivers compute coarsely.
// A blank line separates functions; a shader gets those that it names. Relative errors are below 3e-7 unless stated,
// and a NaN gives a NaN. Comparisons that decide about a NaN look at bits: drivers may assume that there are none.

// The float of some bits; a way to infinities and NaNs, which WGSL refuses as constants.
fn float_bits(bits: u32) -> f32 {
    return bitcast<f32>(bits);
}

fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// The whole number n, |n| < 2^21. A conversion does not do: it saturates, which software drivers do lane by lane.
fn int_of(n: f32) -> i32 {
    return bitcast<i32>(n + 12582912.0) - 0x4b400000;
}

// 2^n · x for -252 ≤ n ≤ 254: in two factors, each a normal number.
fn scale_by_power(x: f32, n: i32) -> f32 {
    let half = n >> 1u;
    return x * bitcast<f32>(u32(half + 127) << 23u) * bitcast<f32>(u32(n - half + 127) << 23u);
}

// e^r for |r| ≤ 0.35.
fn exp_near_zero(r: f32) -> f32 {
    let p = ((((1.9875691500e-4 * r + 1.3981999507e-3) * r + 8.3334519073e-3) * r + 4.1665795894e-2) * r
        + 1.6666665459e-1) * r + 5.0000001201e-1;
    return p * r * r + r + 1.0;
}

fn exp_of(x: f32) -> f32 {
    let low = select(x, -110.0, x < -110.0);
    let y = select(low, 90.0, low > 90.0);
    let n = round(y * 1.44269504);
    return scale_by_power(exp_near_zero((y - n * 0.693359375) - n * -2.12194440e-4), int_of(n));
}

fn exp2_of(x: f32) -> f32 {
    let low = select(x, -160.0, x < -160.0);
    let y = select(low, 130.0, low > 130.0);
    let n = round(y);
    return scale_by_power(exp_near_zero((y - n) * 0.693147181), int_of(n));
}

// 2^x for x ≤ 0 and 2^-126 from there down: for sums of exponentials, where that is nothing.
fn exp2_nonpositive(x: f32) -> f32 {
    let y = select(x, -126.0, x < -126.0);
    let n = round(y);
    let r = y - n;
    let p = (((((1.535336188e-4 * r + 1.339887440e-3) * r + 9.618437357e-3) * r + 5.550332471e-2) * r
        + 2.402264791e-1) * r + 6.931472028e-1) * r + 1.0;
    return p * bitcast<f32>(u32(int_of(n) + 127) << 23u);
}

// x = m · 2^e with m from √½ to √2: (m - 1, e); x positive and finite.
fn split_log(x: f32) -> vec2<f32> {
    let tiny = x < 1.17549435e-38;
    let bits = bitcast<u32>(select(x, x * 16777216.0, tiny)) - 0x3f3504f3u;
    let e = (bitcast<i32>(bits) >> 23u) - select(0, 24, tiny);
    return vec2(bitcast<f32>((bits & 0x7fffffu) + 0x3f3504f3u) - 1.0, f32(e));
}

// ln(1 + f) - f + f²/2 for f from √½ - 1 to √2 - 1.
fn log_tail(f: f32) -> f32 {
    let p = (((((((7.0376836292e-2 * f - 1.1514610310e-1) * f + 1.1676998740e-1) * f - 1.2420140846e-1) * f
        + 1.4249322787e-1) * f - 1.6668057665e-1) * f + 2.0000714765e-1) * f - 2.4999993993e-1) * f + 3.3333331174e-1;
    return p * f * f * f;
}

// What a logarithm is where `value` does not hold: -∞ at 0, NaN below, ∞ at ∞, NaN at NaN.
fn log_limits(x: f32, value: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let size = bits & 0x7fffffffu;
    let below = select(value, float_bits(0x7fc00000u), bits > 0x80000000u);
    // A device may take a subnormal for zero in products; then its logarithm is that of zero.
    let zero = select(below, float_bits(0xff800000u), x * 16777216.0 == 0.0);
    return select(zero, x, size > 0x7f800000u || bits == 0x7f800000u);
}

fn log_of(x: f32) -> f32 {
    let s = split_log(x);
    let tail = log_tail(s.x) + s.y * -2.12194440e-4 - 0.5 * s.x * s.x;
    return log_limits(x, (s.x + tail) + s.y * 0.693359375);
}

// log2(1 + f) as a sum of a part with 12 significant bits and the rest.
fn log2_parts(f: f32) -> vec2<f32> {
    let tail = log_tail(f) - 0.5 * f * f;
    let high = bitcast<f32>(bitcast<u32>(f + tail) & 0xfffff000u);
    let low = (f - high) + tail;
    // log2 e = 1.4423828125 + 3.122295e-4, the first with 11 bits.
    let rest = low * 1.44269504 + high * 3.1222950e-4;
    let product = high * 1.4423828125;
    let top = bitcast<f32>(bitcast<u32>(product + rest) & 0xfffff000u);
    return vec2(top, (product - top) + rest);
}

fn log2_of(x: f32) -> f32 {
    let s = split_log(x);
    let l = log2_parts(s.x);
    return log_limits(x, s.y + (l.x + l.y));
}

// x^y as C's powf: 1 for y = 0 or x = 1, NaN for negative x and fractional y.
fn pow_of(x: f32, y: f32) -> f32 {
    let a = abs(x);
    let whole = trunc(y) == y;
    // Beyond 2^24 every float is even.
    let odd = whole && abs(y) < 16777216.0 && (i32(clamp(y, -16777216.0, 16777216.0)) & 1) == 1;
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    if is_nan(x) || is_nan(y) {
        return float_bits(0x7fc00000u);
    }
    let sign = select(0u, 0x80000000u, odd && (bitcast<u32>(x) >> 31u) == 1u);
    let infinite = bitcast<u32>(a) == 0x7f800000u;
    let steep = (bitcast<u32>(y) & 0x7fffffffu) == 0x7f800000u;
    // A device may take a subnormal for zero in products, but not in comparisons.
    if a * 16777216.0 == 0.0 || infinite || (steep && a != 1.0) {
        let large = (a > 1.0) == (y > 0.0);
        return float_bits(sign | select(0u, 0x7f800000u, large));
    }
    if steep {
        return 1.0;
    }
    if x < 0.0 && !whole {
        return float_bits(0x7fc00000u);
    }
    let s = split_log(a);
    let l = log2_parts(s.x);
    // y · (e + l) with the large products exact: 12 bits of y times at most 8 of e, 12 of l.
    let limited = clamp(y, -1.0e12, 1.0e12);
    let high = bitcast<f32>(bitcast<u32>(limited) & 0xfffff000u);
    let low = limited - high;
    let first = high * s.y;
    let second = high * l.x;
    let n = round(clamp(first + second, -400.0, 400.0));
    let size = limited * (s.y + l.x);
    let fraction = clamp(((first - n) + second) + (low * s.y + (low * l.x + limited * l.y)), -1.0, 1.0);
    if abs(size) > 300.0 {
        return float_bits(sign | select(0u, 0x7f800000u, size > 0.0));
    }
    let value = scale_by_power(exp_near_zero(fraction * 0.693147181), clamp(int_of(n), -250, 250));
    return bitcast<f32>(bitcast<u32>(value) | sign);
}

fn sigmoid_of(x: f32) -> f32 {
    let t = exp_of(-abs(x));
    return select(t, 1.0, x >= 0.0) / (1.0 + t);
}

fn tanh_of(x: f32) -> f32 {
    let z = x * x;
    let near = ((((-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2) * z + 1.33314422036e-1) * z
        - 3.33332819422e-1) * z * x + x;
    let a = abs(x);
    let far = 1.0 - 2.0 / (exp_of(2.0 * a) + 1.0);
    return select(select(far, -far, x < 0.0), near, a < 0.625);
}

fn erf_of(x: f32) -> f32 {
    let a = abs(x);
    let s = x * x;
    var near = -5.96761703e-4;
    near = near * s + 4.99119423e-3;
    near = near * s - 2.67681349e-2;
    near = near * s + 1.12819925e-1;
    near = near * s - 3.76125336e-1;
    near = near * s + 1.28379166e-1;
    near = near * x + x;
    // 1 - erf(4) is below half a unit in the last place of 1.
    let t = select(a, 4.0, a > 4.0);
    let u = t * t;
    var far = -1.72853470e-5 * t + 3.83197126e-4;
    far = far * u + (-3.88396438e-3 * t + 2.42546219e-2);
    far = far * t - 1.06777877e-1;
    far = far * t - 6.34846687e-1;
    far = far * t - 1.28717512e-1;
    far = 1.0 - exp_of(far * t - t);
    return select(select(far, -far, x < 0.0), near, a < 0.927734375);
}

// x - n · π/2 for the nearest n, and n modulo 4; good to 1e-7 up to |x| = 8000.
fn quarter_turns(x: f32) -> vec2<f32> {
    let n = round(x * 0.636619772);
    let r = ((x - n * 1.5703125) - n * 4.837512969970703e-4) - n * 7.549789948768648e-8;
    return vec2(r, n - 4.0 * floor(n * 0.25));
}

fn sin_near_zero(r: f32) -> f32 {
    let z = r * r;
    return ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r;
}

fn cos_near_zero(r: f32) -> f32 {
    let z = r * r;
    return ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1.0;
}

fn sin_of(x: f32) -> f32 {
    let q = quarter_turns(x);
    let value = select(sin_near_zero(q.x), cos_near_zero(q.x), q.y == 1.0 || q.y == 3.0);
    return select(value, -value, q.y >= 2.0);
}

fn cos_of(x: f32) -> f32 {
    let q = quarter_turns(x);
    let value = select(cos_near_zero(q.x), sin_near_zero(q.x), q.y == 1.0 || q.y == 3.0);
    return select(value, -value, q.y == 1.0 || q.y == 2.0);
}

fn sign_of(x: f32) -> f32 {
    return select(select(x, -1.0, x < 0.0), 1.0, x > 0.0);
}

// The larger; of a number and a NaN the number.
fn max_of(x: f32, y: f32) -> f32 {
    return select(select(x, y, x < y), y, is_nan(x));
}

fn min_of(x: f32, y: f32) -> f32 {
    return select(select(x, y, y < x), y, is_nan(x));
}

// Truncates and saturates; a NaN gives 0.
fn f32_to_i32(x: f32) -> i32 {
    let inside = i32(clamp(x, -2147483648.0, 2147483520.0));
    let high = select(inside, i32(2147483647), x >= 2147483648.0);
    return select(high, 0, is_nan(x));
}

fn f32_to_u32(x: f32) -> u32 {
    let inside = u32(clamp(x, 0.0, 4294967040.0));
    let high = select(inside, 0xffffffffu, x >= 4294967296.0);
    return select(high, 0u, is_nan(x));
}

// Integer quotient and remainder: by zero 0, wrapping at the one overflow.
fn i32_div(x: i32, y: i32) -> i32 {
    let safe = select(y, 1, y == 0 || (y == -1 && x == i32(-2147483648)));
    return select(x / safe, 0, y == 0);
}

fn i32_rem(x: i32, y: i32) -> i32 {
    let safe = select(y, 1, y == 0 || y == -1);
    return x - x / safe * safe;
}

fn u32_div(x: u32, y: u32) -> u32 {
    return select(x / max(y, 1u), 0u, y == 0u);
}

fn u32_rem(x: u32, y: u32) -> u32 {
    return select(x % max(y, 1u), 0u, y == 0u);
}

// Remainder with the sign of x, as C's fmodf; exact for quotients below 2^23, 0 beyond.
fn f32_rem(x: f32, y: f32) -> f32 {
    let a = abs(x);
    let b = abs(y);
    if is_nan(x) || is_nan(y) || b == 0.0 || bitcast<u32>(a) == 0x7f800000u {
        return float_bits(0x7fc00000u);
    }
    if a < b {
        return x;
    }
    let q = trunc(a / b);
    if q >= 8388608.0 {
        return 0.0 * x;
    }
    // a - q · b from products of halves with at most 12 bits, which are exact.
    let b1 = bitcast<f32>(bitcast<u32>(b) & 0xfffff000u);
    let q1 = bitcast<f32>(bitcast<u32>(q) & 0xfffff000u);
    let b2 = b - b1;
    let q2 = q - q1;
    var r = (((a - q1 * b1) - q1 * b2) - q2 * b1) - q2 * b2;
    // The quotient may have been rounded up to the next whole number.
    r = select(r, r + b, r < 0.0);
    return bitcast<f32>(bitcast<u32>(r) | (bitcast<u32>(x) & 0x80000000u));
}
