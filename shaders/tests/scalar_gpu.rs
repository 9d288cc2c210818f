//! Scalar bodies on the device against f64 formulas, extremes included.

mod common;

use common::gpu::{input, output, run};
use selvedge_ir::DType;
use selvedge_ir::dtype::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use selvedge_ir::scalar::{Binary, Body, Scalar, Unary};
use selvedge_shaders::kernels::map::Map;
use selvedge_shaders::memory::{self, Layout};
use selvedge_shaders::scalar::emit;

/// The words that a body gives for the words of its arguments.
fn map(body: &Body, args: &[(DType, Vec<u32>)]) -> Vec<u32> {
    let dtypes: Vec<DType> = args.iter().map(|(d, _)| *d).collect();
    let result = *body.infer(&dtypes).expect("well-typed").last().expect("a body has a result");
    let mut lines: Vec<String> = dtypes
        .iter()
        .enumerate()
        .map(|(i, &d)| format!("let x{i} = {};", memory::load(i as u32, d, Layout::Words, "i")))
        .collect();
    let names: Vec<String> = (0..dtypes.len()).map(|i| format!("x{i}")).collect();
    let mut count = 0;
    let mut fresh = || {
        count += 1;
        format!("t{count}")
    };
    let value = emit(body, &names, &dtypes, &mut fresh, &mut lines);
    lines.push(memory::store(args.len() as u32, result, "i", &value));
    let hook = format!("fn element(i: u32) {{\n    {}\n}}", lines.join("\n    "));
    let len = args[0].1.len();
    let mut buffers: Vec<_> = args.iter().map(|(_, words)| input(words)).collect();
    buffers.push(output(&vec![0xdead_beefu32; len]));
    run(&Map::new(len as u32), &hook, &buffers)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Floats of all sizes and both signs, with the extremes.
fn floats() -> Vec<f32> {
    let mut out = vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, f32::MIN_POSITIVE];
    for i in 0..400 {
        let x = 1.117f32.powi(i - 200) * 1.2345;
        out.extend([x, -x]);
    }
    for i in -64..=64 {
        out.push(i as f32 * 0.25);
    }
    for i in 0..2000 {
        let x = (i as f32 * 0.0171) - 17.1;
        out.extend([x, x * 5.3]);
    }
    out
}

/// Distance in units of the last place of the exact value, for finite normal results.
fn assert_close(name: &str, x: f32, got: f32, want: f64, relative: f64, absolute: f64) {
    close(name, x, got, want, relative, absolute).unwrap_or_else(|e| panic!("{e}"));
}

/// What [`assert_close`] asserts, or what is wrong.
fn close(name: &str, x: f32, got: f32, want: f64, relative: f64, absolute: f64) -> Result<(), String> {
    let rounded = want as f32;
    let holds = |right: bool, wrong: String| if right { Ok(()) } else { Err(wrong) };
    if want.is_nan() {
        holds(got.is_nan(), format!("{name}({x:e}) = {got:e}, not NaN"))
    } else if rounded.is_infinite() || got.is_infinite() {
        // Within the tolerance of the largest float either answer is right.
        let edge = want.is_finite() && (want.abs() / f32::MAX as f64 - 1.0).abs() < 1e-5;
        holds(got == rounded || edge, format!("{name}({x:e}) = {got:e}, expected {want:e}"))
    } else {
        let error = (got as f64 - want).abs();
        // Results below the normal range may be flushed to zero.
        let tiny = f32::MIN_POSITIVE as f64;
        let slack = if want.abs() < 2.0 * tiny { tiny } else { 0.0 };
        let share = error / want.abs();
        holds(
            error <= relative * want.abs() + absolute + slack,
            format!("{name}({x:e}) = {got:e}, expected {want:e}, relative error {share:e}"),
        )
    }
}

fn check_unary(op: Unary, inputs: &[f32], want: impl Fn(f64) -> f64, relative: f64, absolute: f64) {
    let got = map(&Body::unary(op), &[(DType::F32, bits(inputs))]);
    let mut worst = 0.0f64;
    for (&x, &word) in inputs.iter().zip(&got) {
        let (got, want) = (f32::from_bits(word), want(x as f64));
        assert_close(op.text(), x, got, want, relative, absolute);
        if want.is_finite() && want.abs() > 1e-37 && got.is_finite() {
            worst = worst.max((got as f64 - want).abs() / want.abs());
        }
    }
    println!("{}: worst relative error {worst:e}", op.text());
}

/// erf in f64 by its series and continued fraction.
fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let a = x.abs();
    if a > 6.0 {
        return x.signum();
    }
    if a < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * sum.abs() {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    let mut fraction = 0.0;
    for n in (1..60).rev() {
        fraction = n as f64 / 2.0 / (a + fraction);
    }
    x.signum() * (1.0 - (-a * a).exp() / ((a + fraction) * std::f64::consts::PI.sqrt()))
}

const EPS: f64 = f32::EPSILON as f64;

#[test]
fn float_functions_are_accurate_everywhere() {
    let all = floats();
    check_unary(Unary::Exp, &all, f64::exp, 3.0 * EPS, 0.0);
    check_unary(Unary::Exp2, &all, f64::exp2, 3.0 * EPS, 0.0);
    check_unary(Unary::Log, &all, f64::ln, 2.0 * EPS, 0.0);
    check_unary(Unary::Log2, &all, f64::log2, 2.0 * EPS, 0.0);
    check_unary(Unary::Sqrt, &all, f64::sqrt, 2.0 * EPS, 0.0);
    check_unary(Unary::Rsqrt, &all, |x| 1.0 / x.sqrt(), 4.0 * EPS, 0.0);
    check_unary(Unary::Tanh, &all, f64::tanh, 3.0 * EPS, 0.0);
    check_unary(Unary::Sigmoid, &all, |x| 1.0 / (1.0 + (-x).exp()), 4.0 * EPS, 0.0);
    check_unary(Unary::Erf, &all, erf, 2.0 * EPS, 0.0);
    let angles: Vec<f32> = all.iter().copied().filter(|x| x.abs() < 8000.0).collect();
    check_unary(Unary::Sin, &angles, f64::sin, 2.0 * EPS, 2.0 * EPS);
    check_unary(Unary::Cos, &angles, f64::cos, 2.0 * EPS, 2.0 * EPS);
}

#[test]
fn roundings_are_exact() {
    let mut all = floats();
    all.extend([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 8388608.5, 8388607.5, -8388607.5, 3e9, 2147483648.0]);
    check_unary(Unary::Floor, &all, f64::floor, 0.0, 0.0);
    check_unary(Unary::Ceil, &all, f64::ceil, 0.0, 0.0);
    check_unary(Unary::Round, &all, f64::round_ties_even, 0.0, 0.0);
    check_unary(Unary::Trunc, &all, f64::trunc, 0.0, 0.0);
    check_unary(Unary::Neg, &all, |x| -x, 0.0, 0.0);
    check_unary(Unary::Abs, &all, f64::abs, 0.0, 0.0);
}

#[test]
fn powers_follow_powf() {
    let bases = [
        0.0f32,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        2.0,
        -2.0,
        3.7,
        -3.7,
        1e-3,
        1e4,
        1e30,
        1e-30,
        1.0001,
        0.9999,
        1e-40,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        1.4,
        0.7,
    ];
    let exponents = [
        0.0f32,
        -0.0,
        1.0,
        -1.0,
        2.0,
        -2.0,
        3.0,
        -3.0,
        0.5,
        -0.5,
        1.5,
        0.333,
        7.0,
        20.0,
        21.0,
        100.0,
        -101.0,
        1e4,
        16777216.0,
        16777215.0,
        1e30,
        -1e30,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1e-10,
        -1e-40,
    ];
    let pairs: Vec<(f32, f32)> = bases.iter().flat_map(|&x| exponents.iter().map(move |&y| (x, y))).collect();
    let xs: Vec<f32> = pairs.iter().map(|p| p.0).collect();
    let ys: Vec<f32> = pairs.iter().map(|p| p.1).collect();
    let got = map(&Body::binary(Binary::Pow), &[(DType::F32, bits(&xs)), (DType::F32, bits(&ys))]);
    for (&(x, y), &word) in pairs.iter().zip(&got) {
        let got = f32::from_bits(word);
        let follows = |x: f32, y: f32| {
            let want = (x as f64).powf(y as f64);
            // The exponent's own rounding grows with the size of the result's logarithm.
            let size = (y as f64 * (x as f64).abs().ln()).abs();
            let relative = EPS * (4.0 + if size.is_finite() { size.min(200.0) } else { 0.0 });
            close(&format!("pow(_, {y:e})"), x, got, want, relative, 0.0)?;
            let sign = want != 0.0 || got.is_sign_negative() == want.is_sign_negative();
            if sign { Ok(()) } else { Err(format!("sign of pow({x}, {y})")) }
        };
        // WGSL lets a device take a subnormal operand for zero (section 15.7.1), and Mesa 26's lavapipe does.
        let flushed = |x: f32| if x.is_subnormal() { 0.0f32.copysign(x) } else { x };
        let either = follows(x, y).or_else(|e| {
            follows(flushed(x), y)
                .or_else(|_| follows(x, flushed(y)))
                .or_else(|_| follows(flushed(x), flushed(y)))
                .map_err(|_| e)
        });
        either.unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn float_arithmetic_and_comparisons() {
    let values = [
        0.0f32,
        -0.0,
        1.0,
        -1.5,
        3.25,
        -7.0,
        0.1,
        1234.567,
        -77.77,
        99999.9,
        1e30,
        3e30,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    let pairs: Vec<(f32, f32)> = values.iter().flat_map(|&x| values.iter().map(move |&y| (x, y))).collect();
    let xs: Vec<f32> = pairs.iter().map(|p| p.0).collect();
    let ys: Vec<f32> = pairs.iter().map(|p| p.1).collect();
    let all = |op| map(&Body::binary(op), &[(DType::F32, bits(&xs)), (DType::F32, bits(&ys))]);
    let float = |op: Binary, f: fn(f32, f32) -> f32| {
        for (&(x, y), word) in pairs.iter().zip(all(op)) {
            let (got, want) = (f32::from_bits(word), f(x, y));
            assert!(
                got == want || (got.is_nan() && want.is_nan()),
                "{x:?} {} {y:?} = {got:?}, not {want:?}",
                op.text()
            );
        }
    };
    float(Binary::Add, |x, y| x + y);
    float(Binary::Sub, |x, y| x - y);
    float(Binary::Mul, |x, y| x * y);
    float(Binary::Div, |x, y| x / y);
    float(Binary::Max, f32::max);
    float(Binary::Min, f32::min);
    float(Binary::Rem, |x, y| if x.is_finite() && (x / y).abs() >= 8388608.0 && y != 0.0 { 0.0 } else { x % y });
    let compare = |op: Binary, f: fn(f32, f32) -> bool| {
        for (&(x, y), got) in pairs.iter().zip(all(op)) {
            assert_eq!(got, f(x, y) as u32, "{x:?} {} {y:?}", op.text());
        }
    };
    compare(Binary::Lt, |x, y| x < y);
    compare(Binary::Le, |x, y| x <= y);
    compare(Binary::Gt, |x, y| x > y);
    compare(Binary::Ge, |x, y| x >= y);
    compare(Binary::Eq, |x, y| x == y);
    compare(Binary::Ne, |x, y| x != y);
}

#[test]
fn integers_wrap_and_never_trap() {
    let values = [0i32, 1, -1, 2, -2, 7, -7, 31, 32, 33, 1000, -1000, i32::MAX, i32::MIN, i32::MIN + 1];
    let pairs: Vec<(i32, i32)> = values.iter().flat_map(|&x| values.iter().map(move |&y| (x, y))).collect();
    let xs: Vec<u32> = pairs.iter().map(|p| p.0 as u32).collect();
    let ys: Vec<u32> = pairs.iter().map(|p| p.1 as u32).collect();
    let signed = |op: Binary, f: fn(i32, i32) -> i32| {
        let got = map(&Body::binary(op), &[(DType::I32, xs.clone()), (DType::I32, ys.clone())]);
        for (&(x, y), word) in pairs.iter().zip(got) {
            assert_eq!(word as i32, f(x, y), "i32 {x} {} {y}", op.text());
        }
    };
    signed(Binary::Add, i32::wrapping_add);
    signed(Binary::Sub, i32::wrapping_sub);
    signed(Binary::Mul, i32::wrapping_mul);
    signed(Binary::Div, |x, y| if y == 0 { 0 } else { x.wrapping_div(y) });
    signed(Binary::Rem, |x, y| if y == 0 { 0 } else { x.wrapping_rem(y) });
    signed(Binary::Min, i32::min);
    signed(Binary::Max, i32::max);
    signed(Binary::And, |x, y| x & y);
    signed(Binary::Or, |x, y| x | y);
    signed(Binary::Xor, |x, y| x ^ y);
    signed(Binary::Shl, |x, y| x.wrapping_shl(y as u32));
    signed(Binary::Shr, |x, y| x.wrapping_shr(y as u32));
    let unsigned = |op: Binary, f: fn(u32, u32) -> u32| {
        let got = map(&Body::binary(op), &[(DType::U32, xs.clone()), (DType::U32, ys.clone())]);
        for ((&x, &y), word) in xs.iter().zip(&ys).zip(got) {
            assert_eq!(word, f(x, y), "u32 {x} {} {y}", op.text());
        }
    };
    unsigned(Binary::Add, u32::wrapping_add);
    unsigned(Binary::Sub, u32::wrapping_sub);
    unsigned(Binary::Mul, u32::wrapping_mul);
    unsigned(Binary::Div, |x, y| x.checked_div(y).unwrap_or(0));
    unsigned(Binary::Rem, |x, y| x.checked_rem(y).unwrap_or(0));
    unsigned(Binary::Min, u32::min);
    unsigned(Binary::Max, u32::max);
    unsigned(Binary::Shl, |x, y| x.wrapping_shl(y));
    unsigned(Binary::Shr, |x, y| x.wrapping_shr(y));
    unsigned(Binary::Lt, |x, y| (x < y) as u32);
    let one = |op: Unary, f: fn(i32) -> i32| {
        for (&x, word) in xs.iter().zip(map(&Body::unary(op), &[(DType::I32, xs.clone())])) {
            assert_eq!(word as i32, f(x as i32), "{}({})", op.text(), x as i32);
        }
    };
    one(Unary::Neg, i32::wrapping_neg);
    one(Unary::Abs, i32::wrapping_abs);
    one(Unary::Sign, i32::signum);
    one(Unary::Not, |x| !x);
    let one = |op: Unary, f: fn(u32) -> u32| {
        for (&x, word) in xs.iter().zip(map(&Body::unary(op), &[(DType::U32, xs.clone())])) {
            assert_eq!(word, f(x), "{}({x})", op.text());
        }
    };
    one(Unary::Neg, u32::wrapping_neg);
    one(Unary::Abs, |x| x);
    one(Unary::Sign, |x| x.min(1));
    one(Unary::Not, |x| !x);
}

#[test]
fn conversions_saturate_and_round_to_even() {
    let mut all = floats();
    all.extend([2147483648.0, 2147483520.0, -2147483648.0, -2147483904.0, 4294967296.0, 4294967040.0, -0.5, -1.0]);
    all.extend([65504.0, 65519.9, 65520.0, 2049.0, 2051.0, 6e-8, 2e-8, 3e-8, 6.1e-5, 6.0e-5, 1e-6, -1e-6, 1.003_906_2]);
    let cast = |to| map(&Body::cast(to), &[(DType::F32, bits(&all))]);
    for (&x, word) in all.iter().zip(cast(DType::I32)) {
        assert_eq!(word as i32, x as i32, "i32({x:e})");
    }
    for (&x, word) in all.iter().zip(cast(DType::U32)) {
        assert_eq!(word, x as u32, "u32({x:e})");
    }
    for (&x, word) in all.iter().zip(cast(DType::Bool)) {
        assert_eq!(word, (x != 0.0) as u32, "bool({x:e})");
    }
    for (&x, word) in all.iter().zip(cast(DType::F16)) {
        let (got, want) = (f32::from_bits(word), f16_to_f32(f32_to_f16(x)));
        assert!(
            got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
            "f16({x:e}) = {got:e}, not {want:e}"
        );
    }
    for (&x, word) in all.iter().zip(cast(DType::BF16)) {
        let (got, want) = (f32::from_bits(word), bf16_to_f32(f32_to_bf16(x)));
        // Denormals may be flushed.
        let same =
            got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()) || (got == 0.0 && want.abs() < 1.2e-38);
        assert!(same, "bf16({x:e}) = {got:e}, not {want:e}");
    }
    let ints = [0i32, 1, -1, 77, i32::MAX, i32::MIN, 16_777_217];
    let words: Vec<u32> = ints.iter().map(|&x| x as u32).collect();
    let from = |dtype, to| map(&Body::cast(to), &[(dtype, words.clone())]);
    for (i, &x) in ints.iter().enumerate() {
        assert_eq!(f32::from_bits(from(DType::I32, DType::F32)[i]), x as f32);
        assert_eq!(f32::from_bits(from(DType::U32, DType::F32)[i]), x as u32 as f32);
        assert_eq!(from(DType::I32, DType::U32)[i], x as u32);
        assert_eq!(from(DType::U32, DType::I32)[i], x as u32);
        assert_eq!(from(DType::I32, DType::Bool)[i], (x != 0) as u32);
        assert_eq!(f32::from_bits(from(DType::Bool, DType::F32)[i]), (x != 0) as u32 as f32);
    }
}

#[test]
fn packed_weights_are_read_exactly() {
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    let words: Vec<u32> = halves.chunks(2).map(|h| h[0] as u32 | (h[1] as u32) << 16).collect();
    let buffers = [input(&words), output(&vec![0u32; halves.len()])];
    let widen = [(DType::F16, f16_to_f32 as fn(u16) -> f32), (DType::BF16, bf16_to_f32)];
    for (dtype, widen) in widen {
        let one = format!(
            "fn element(i: u32) {{ let x = {}; {} }}",
            memory::load(0, dtype, Layout::Packed, "i"),
            memory::store(1, DType::F32, "i", "x")
        );
        let four = format!(
            "fn element(j: u32) {{ let i = j * 4u; let x = {}; {} }}",
            memory::load4(0, dtype, Layout::Packed, "i"),
            memory::store4(1, DType::F32, "i", "x")
        );
        for (hook, count) in [(one, halves.len()), (four, halves.len() / 4)] {
            let got = run(&Map::new(count as u32), &hook, &buffers);
            for (&h, &word) in halves.iter().zip(&got) {
                let (got, want) = (f32::from_bits(word), widen(h));
                assert!(
                    got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                    "{dtype} {h:#x}: {got} {want}"
                );
            }
        }
    }
}

#[test]
fn packing_rounds_to_nearest() {
    // Every half and the midpoint to the next, with their neighbours in f32; what overflows, and NaN.
    let mut values: Vec<f32> = Vec::new();
    for dtype in [DType::F16, DType::BF16] {
        let widen = if dtype == DType::F16 { f16_to_f32 } else { bf16_to_f32 };
        for h in 0..=u16::MAX {
            for x in [widen(h), (widen(h) + widen(h.wrapping_add(1))) / 2.0] {
                let bits = x.to_bits();
                values.extend([bits, bits.wrapping_add(1), bits.wrapping_sub(1)].map(f32::from_bits));
            }
        }
    }
    values.extend([65519.0, 65519.996, 65520.0, 65536.0, 1e30, -1e30, f32::INFINITY, 3e-8, 2.9e-8, 5.9e-8]);
    values.extend([0x7f80_0001, 0x7fff_ffff, 0xff80_0001, 0xffff_ffff, 0x7fc0_0000, 0x7f80_2000].map(f32::from_bits));
    values.resize(values.len().next_multiple_of(8), 0.0);
    let words: Vec<u32> = values.iter().map(|x| x.to_bits()).collect();
    let buffers = [input(&words), output(&vec![0u32; values.len() / 2])];
    for dtype in [DType::F16, DType::BF16] {
        let hook = format!(
            "fn element(i: u32) {{ let v = bitcast<vec2<f32>>(select(b0[i >> 1u].xy, b0[i >> 1u].zw, (i & 1u) > 0u));
             b1[i >> 2u][i & 3u] = {}; }}",
            memory::pack(dtype, "v.x", "v.y")
        );
        let packed = run(&Map::new(values.len() as u32 / 2), &hook, &buffers);
        for (i, &x) in values.iter().enumerate() {
            let half = (packed[i / 2] >> (i % 2 * 16)) as u16;
            let (got, want) = match dtype {
                DType::F16 => (f16_to_f32(half), f16_to_f32(f32_to_f16(x))),
                _ => (bf16_to_f32(half), bf16_to_f32(f32_to_bf16(x))),
            };
            // Denormals of f32 may be flushed.
            let flushed = got == 0.0 && want.abs() < 1.2e-38;
            let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()) || flushed;
            assert!(same, "{dtype}({x:e}) = {got:e}, not {want:e}");
        }
    }
}

#[test]
fn bool_operations() {
    let (x, y) = (vec![0, 0, 1, 1], vec![0, 1, 0, 1]);
    let both = |op| map(&Body::binary(op), &[(DType::Bool, x.clone()), (DType::Bool, y.clone())]);
    assert_eq!(both(Binary::And), [0, 0, 0, 1]);
    assert_eq!(both(Binary::Or), [0, 1, 1, 1]);
    assert_eq!(both(Binary::Xor), [0, 1, 1, 0]);
    assert_eq!(both(Binary::Eq), [1, 0, 0, 1]);
    assert_eq!(both(Binary::Ne), [0, 1, 1, 0]);
    assert_eq!(map(&Body::unary(Unary::Not), &[(DType::Bool, x.clone())]), [1, 1, 0, 0]);
    let select = Body::build(3, |b| {
        let (c, x, y) = (b.arg(0), b.arg(1), b.arg(2));
        b.add(Scalar::Select(c, x, y))
    });
    let args = [(DType::Bool, x), (DType::I32, vec![5, 6, 7, 8]), (DType::I32, vec![1, 2, 3, 4])];
    assert_eq!(map(&select, &args), [1, 2, 7, 8]);
}
