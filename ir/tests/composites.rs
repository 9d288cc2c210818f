//! Composites against direct formulas in f64, written element by element.

mod common;
use common::*;
use selvedge_ir::ops::*;
use selvedge_ir::scalar::F64;
use selvedge_ir::{DType, Data, Op, Precision, Tensor, TensorType};

/// Same formula in f32 and f64 evaluation; in f64 nearly to the last bit.
fn agrees(op: impl Into<Op>, args: &[&Tensor], want: &[f64]) {
    let op = op.into();
    close(&eval(op.clone(), args), want, 1e-5);
    let wide: Vec<Tensor> = args.iter().map(|a| (*a).clone().in_precision(Precision::F64)).collect();
    close(&eval_in(op, &wide.iter().collect::<Vec<_>>(), Precision::F64), want, 1e-13);
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().cloned().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
    scores.iter().map(|s| (s - max).exp() / sum).collect()
}

#[test]
fn softmax_sums_to_one_along_any_axis() {
    let x = random(&[2, 5, 3], 1);
    let v = x.to_f64();
    for axis in 0..3 {
        let sizes = [2, 5, 3];
        let mut want = vec![0.0; 30];
        for index in indices(&sizes) {
            let line = |i: usize| {
                let mut at = index.clone();
                at[axis] = i;
                flat(&sizes, &at)
            };
            let row: Vec<f64> = (0..sizes[axis]).map(|i| v[line(i)]).collect();
            want[flat(&sizes, &index)] = softmax(&row)[index[axis]];
        }
        agrees(Softmax { axis }, &[&x], &want);
    }
    let huge = Tensor::f32(&[2], vec![1e30, 1e30]);
    assert_eq!(eval(Softmax { axis: 0 }, &[&huge]).to_f64(), [0.5, 0.5]);
}

#[test]
fn norms_of_the_last_axis() {
    let (x, scale, bias) = (random(&[3, 2, 8], 2), random(&[8], 3), random(&[8], 4));
    let eps = 1e-3;
    let rows = |f: &dyn Fn(&[f64]) -> Vec<f64>| x.to_f64().chunks(8).flat_map(f).collect::<Vec<_>>();
    let (s, b) = (scale.to_f64(), bias.to_f64());
    let layer = |row: &[f64]| {
        let mean = row.iter().sum::<f64>() / 8.0;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 8.0;
        row.iter().map(|v| (v - mean) / (variance + eps).sqrt()).collect::<Vec<_>>()
    };
    let rms = |row: &[f64]| {
        let mean = row.iter().map(|v| v * v).sum::<f64>() / 8.0;
        row.iter().map(|v| v / (mean + eps).sqrt()).collect::<Vec<_>>()
    };
    let affine = |y: Vec<f64>, biased: bool| -> Vec<f64> {
        y.iter().enumerate().map(|(i, v)| v * s[i] + if biased { b[i] } else { 0.0 }).collect()
    };
    let eps = F64(eps);
    agrees(LayerNorm { eps }, &[&x], &rows(&layer));
    agrees(LayerNorm { eps }, &[&x, &scale], &rows(&|r| affine(layer(r), false)));
    agrees(LayerNorm { eps }, &[&x, &scale, &bias], &rows(&|r| affine(layer(r), true)));
    agrees(RmsNorm { eps }, &[&x], &rows(&rms));
    agrees(RmsNorm { eps }, &[&x, &scale], &rows(&|r| affine(rms(r), false)));
}

#[test]
fn half_norms_take_statistics_in_f32() {
    // The sum of squares of these overflows f16; the norm does not.
    let ty = TensorType::new(DType::F16, [1, 64]);
    let x = Tensor::new(ty, Data::F32((0..64).map(|i| if i % 2 == 0 { 300.0 } else { -300.0 }).collect()));
    for op in [Op::from(LayerNorm { eps: F64(1e-6) }), RmsNorm { eps: F64(1e-6) }.into()] {
        let y = eval(op, &[&x]);
        assert_eq!(y.ty.dtype, DType::F16);
        assert!(y.to_f64().iter().all(|v| v.abs() == 1.0), "{:?}", y.data);
    }
}

#[test]
fn group_norm_normalises_channels_together() {
    let (x, scale, bias) = (random(&[2, 6, 3, 2], 5), random(&[6], 6), random(&[6], 7));
    let v = x.to_f64();
    let mut want = vec![0.0; v.len()];
    for (i, group) in v.chunks(2 * 6).enumerate() {
        let mean = group.iter().sum::<f64>() / 12.0;
        let variance = group.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 12.0;
        for (j, value) in group.iter().enumerate() {
            let at = i * 12 + j;
            let channel = at / 6 % 6;
            want[at] = (value - mean) / (variance + 1e-5).sqrt() * scale.to_f64()[channel] + bias.to_f64()[channel];
        }
    }
    agrees(GroupNorm { groups: 3, eps: F64(1e-5) }, &[&x, &scale, &bias], &want);
}

struct Case {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

fn case(n: usize, m: usize) -> Case {
    Case { q: random(&[2, 3, n, 4], 8), k: random(&[2, 3, m, 4], 9), v: random(&[2, 3, m, 5], 10) }
}

/// Row by row; `score` changes a score or leaves it out.
fn attention(c: &Case, scale: f64, score: impl Fn([usize; 4], f64) -> Option<f64>) -> Vec<f64> {
    let (qs, ks, vs) = (c.q.sizes(), c.k.sizes(), c.v.sizes());
    let (q, k, v) = (c.q.to_f64(), c.k.to_f64(), c.v.to_f64());
    let mut out = Vec::new();
    for at in indices(&qs[..3]) {
        let dot = |j: usize| -> f64 {
            (0..qs[3]).map(|d| q[flat(&qs, &[at[0], at[1], at[2], d])] * k[flat(&ks, &[at[0], at[1], j, d])]).sum()
        };
        let kept: Vec<(usize, f64)> =
            (0..ks[2]).filter_map(|j| Some((j, score([at[0], at[1], at[2], j], scale * dot(j))?))).collect();
        let weights = softmax(&kept.iter().map(|k| k.1).collect::<Vec<_>>());
        for e in 0..vs[3] {
            out.push(kept.iter().zip(&weights).map(|((j, _), w)| w * v[flat(&vs, &[at[0], at[1], *j, e])]).sum());
        }
    }
    out
}

#[test]
fn attention_with_every_mask() {
    let c = case(3, 4);
    let args = [&c.q, &c.k, &c.v];
    let plain = |causal| Attention { scale: F64(0.7), causal };
    agrees(plain(false), &args, &attention(&c, 0.7, |_, s| Some(s)));
    agrees(plain(true), &args, &attention(&c, 0.7, |[_, _, i, j], s| (j <= i).then_some(s)));
    // Keeps nothing in row 1 of every head.
    let keep = |i: usize, j: usize| i != 1 && (i + j).is_multiple_of(2);
    let bits = indices(&[1, 1, 3, 4]).iter().map(|at| keep(at[2], at[3])).collect();
    let mask = Tensor::new(TensorType::new(DType::Bool, [1, 1, 3, 4]), Data::Bool(bits));
    let masked = [&c.q, &c.k, &c.v, &mask];
    agrees(plain(false), &masked, &attention(&c, 0.7, |[_, _, i, j], s| keep(i, j).then_some(s)));
    agrees(plain(true), &masked, &attention(&c, 0.7, |[_, _, i, j], s| (keep(i, j) && j <= i).then_some(s)));
    let bias = random(&[2, 1, 3, 4], 11);
    let b = bias.to_f64();
    let biased = [&c.q, &c.k, &c.v, &bias];
    agrees(
        plain(false),
        &biased,
        &attention(&c, 0.7, |[n, _, i, j], s| Some(s + b[flat(&[2, 1, 3, 4], &[n, 0, i, j])])),
    );
}

#[test]
fn local_attention_sees_text_and_neighbours() {
    for (text, radius) in [(0, 2), (2, 2), (1, 1), (0, 0)] {
        for shape in [LocalKind::Circle, LocalKind::Square] {
            let (height, width) = (3, 4);
            let n = text + height * width;
            let c = case(n, n);
            let seen = |i: usize, j: usize| {
                if i < text || j < text {
                    return true;
                }
                let place = |t: usize| (((t - text) / width) as i64, ((t - text) % width) as i64);
                let ((yi, xi), (yj, xj)) = (place(i), place(j));
                let (dy, dx, r) = (yi - yj, xi - xj, radius as i64);
                match shape {
                    LocalKind::Circle => dy * dy + dx * dx < r * r,
                    LocalKind::Square => dy.abs() < r && dx.abs() < r,
                }
            };
            let want = attention(&c, 0.5, |[_, _, i, j], s| seen(i, j).then_some(s));
            let op = LocalAttention { scale: F64(0.5), text, height, width, radius, shape };
            agrees(op, &[&c.q, &c.k, &c.v], &want);
        }
    }
}

#[test]
fn half_attention_rounds_once() {
    let c = case(5, 6);
    let half = |t: &Tensor| Tensor::from_f64(t.ty.with_dtype(DType::F16), &t.to_f64(), Precision::F32);
    let h = Case { q: half(&c.q), k: half(&c.k), v: half(&c.v) };
    let got = eval(Attention { scale: F64(1.0), causal: false }, &[&h.q, &h.k, &h.v]);
    // The exact result, rounded; a value near the middle of two halves may fall to either side.
    let want: Vec<f64> =
        attention(&h, 1.0, |_, s| Some(s)).iter().map(|&v| DType::F16.round(v as f32) as f64).collect();
    let off = got.to_f64().iter().zip(&want).filter(|(g, w)| g != w).count();
    assert!(off * 100 <= want.len(), "{off} of {}", want.len());
}

#[test]
fn rope_rotates_pairs() {
    let (x, angle) = (random(&[1, 2, 3, 4], 12), random(&[3, 4], 13).to_f64());
    for interleaved in [false, true] {
        let partner = |d: usize| match (interleaved, d) {
            (true, d) if d % 2 == 0 => (d + 1, -1.0),
            (true, d) => (d - 1, 1.0),
            (false, d) if d < 2 => (d + 2, -1.0),
            (false, d) => (d - 2, 1.0),
        };
        let table = |f: fn(f64) -> f64| Tensor::f32(&[3, 4], angle.iter().map(|a| f(*a) as f32).collect());
        let (cos, sin) = (table(f64::cos), table(f64::sin));
        let v = x.to_f64();
        let want: Vec<f64> = indices(&[1, 2, 3, 4])
            .iter()
            .map(|at| {
                let (p, sign) = partner(at[3]);
                let own = v[flat(&[1, 2, 3, 4], at)];
                let other = v[flat(&[1, 2, 3, 4], &[at[0], at[1], at[2], p])];
                let t = at[2] * 4 + at[3];
                own * cos.to_f64()[t] + sign * other * sin.to_f64()[t]
            })
            .collect();
        agrees(Rope { interleaved }, &[&x, &cos, &sin], &want);
    }
}

#[test]
fn pool_tokens_averages_blocks() {
    let x = random(&[2, 4 * 6, 3], 14);
    let v = x.to_f64();
    let want: Vec<f64> = indices(&[2, 2, 3, 3])
        .iter()
        .map(|at| {
            let of_block = indices(&[2, 2]);
            let cells = of_block.iter().map(|o| {
                let (row, column) = (at[1] * 2 + o[0], at[2] * 2 + o[1]);
                v[flat(&[2, 24, 3], &[at[0], row * 6 + column, at[3]])]
            });
            cells.sum::<f64>() / 4.0
        })
        .collect();
    agrees(PoolTokens { height: 4, width: 6, block: 2 }, &[&x], &want);
}

#[test]
fn resize_nearest_and_linear() {
    let x = random(&[1, 2, 3, 4], 15);
    let v = x.to_f64();
    let at = |c: usize, y: usize, z: usize| v[flat(&[1, 2, 3, 4], &[0, c, y, z])];
    for size in [[6, 8], [2, 3], [3, 5], [1, 1]] {
        let nearest = indices(&[2, size[0], size[1]]);
        let want: Vec<f64> = nearest.iter().map(|i| at(i[0], i[1] * 3 / size[0], i[2] * 4 / size[1])).collect();
        agrees(Resize { kind: ResizeKind::Nearest, size: size.to_vec() }, &[&x], &want);
        let source = |o: usize, n: usize, m: usize| {
            let s = ((o as f64 + 0.5) * n as f64 / m as f64 - 0.5).max(0.0);
            let low = (s as usize).min(n - 1);
            (low, (low + 1).min(n - 1), (s - low as f64).min(1.0))
        };
        let want: Vec<f64> = nearest
            .iter()
            .map(|i| {
                let ((y0, y1, ty), (x0, x1, tx)) = (source(i[1], 3, size[0]), source(i[2], 4, size[1]));
                let row = |y: usize| at(i[0], y, x0) * (1.0 - tx) + at(i[0], y, x1) * tx;
                row(y0) * (1.0 - ty) + row(y1) * ty
            })
            .collect();
        // Weights are f32 constants, so f64 evaluation agrees to their rounding only.
        close(&eval(Resize { kind: ResizeKind::Linear, size: size.to_vec() }, &[&x]), &want, 1e-6);
    }
    let same = eval(Resize { kind: ResizeKind::Linear, size: vec![3, 4] }, &[&x]);
    assert_eq!(same, x);
}

#[test]
fn composites_report_their_own_constraints() {
    let x = random(&[2, 4], 1);
    let i = Tensor::i32(&[2, 4], vec![0; 8]);
    let eps = F64(1e-6);
    assert_eq!(refused(Softmax { axis: 2 }, &[&x]), 1);
    assert_eq!(refused(Softmax { axis: 0 }, &[&i]), 1);
    assert_eq!(refused(Softmax { axis: 1 }, &[&Tensor::f32(&[2, 0], vec![])]), 1);
    assert_eq!(refused(LayerNorm { eps }, &[&x, &random(&[2], 2)]), 1);
    assert_eq!(refused(RmsNorm { eps }, &[&Tensor::f32(&[], vec![1.0])]), 1);
    assert_eq!(refused(GroupNorm { groups: 3, eps }, &[&x]), 1);
    assert_eq!(refused(GroupNorm { groups: 0, eps }, &[&x]), 1);
    assert_eq!(refused(GroupNorm { groups: 2, eps }, &[&x, &random(&[2], 2)]), 1);
    let c = case(3, 4);
    let attention = Attention { scale: F64(1.0), causal: false };
    assert_eq!(refused(attention.clone(), &[&c.q, &c.k, &c.q]), 1);
    assert_eq!(refused(attention.clone(), &[&x, &c.k, &c.v]), 1);
    assert_eq!(refused(attention.clone(), &[&c.q, &c.k, &c.v, &random(&[1, 1, 2, 4], 1)]), 2);
    assert_eq!(refused(attention, &[&c.q, &c.k, &c.v, &random(&[3, 4], 1)]), 2);
    let local = LocalAttention { scale: F64(1.0), text: 0, height: 2, width: 2, radius: 1, shape: LocalKind::Circle };
    assert_eq!(refused(local.clone(), &[&c.q, &c.k, &c.v]), 1);
    assert_eq!(refused(LocalAttention { height: usize::MAX, ..local }, &[&c.q, &c.k, &c.v]), 1);
    let rope = Rope { interleaved: true };
    assert_eq!(refused(rope.clone(), &[&random(&[1, 1, 2, 3], 1), &random(&[2, 3], 1), &random(&[2, 3], 1)]), 1);
    assert_eq!(refused(rope, &[&random(&[1, 1, 2, 4], 1), &random(&[2, 2], 1), &random(&[2, 4], 1)]), 1);
    assert_eq!(refused(PoolTokens { height: 2, width: 2, block: 0 }, &[&random(&[1, 4, 3], 1)]), 1);
    assert_eq!(refused(PoolTokens { height: 2, width: 4, block: 2 }, &[&random(&[1, 4, 3], 1)]), 1);
    assert_eq!(refused(Resize { kind: ResizeKind::Nearest, size: vec![0] }, &[&random(&[1, 4, 3], 1)]), 1);
}
