//! Operations and layers against formulas written by hand in f64.

use selvedge_ir::{Interpreter, Precision};
use selvedge_model::nn::{
    AdaLnModulation, Attention, Conv, Embedding, GroupNorm, LayerNorm, Linear, Mlp, PatchEmbed, RmsNorm, Sinusoid,
    TimestepEmbedding, modulate, unpatchify,
};
use selvedge_model::{DType, Graph, ModuleBuilder, Tensor, WindowOptions, concat, map, nn::Activation, stack};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Row-major values with a shape.
#[derive(Clone, Debug)]
struct Array {
    shape: Vec<usize>,
    at: Vec<f64>,
}

impl Array {
    /// The element at an index.
    fn get(&self, index: &[usize]) -> f64 {
        let flat = index.iter().zip(&self.shape).fold(0, |flat, (i, n)| flat * n + i);
        self.at[flat]
    }
}

/// Varied values in about −1..1 that depend on the name only.
fn values(name: &str, shape: &[usize]) -> Array {
    let count = shape.iter().product();
    let seed = name.bytes().fold(7.0, |s, b| (s * 31.0 + f64::from(b)) % 1000.0);
    Array { shape: shape.to_vec(), at: (0..count).map(|i| (seed + 1.7 * i as f64).sin()).collect() }
}

/// The value of input `name` in [`evaluate`]: as [`values`].
fn input(g: &Graph, name: &str, shape: &[usize]) -> Tensor {
    g.input(name, DType::F32, shape)
}

/// Evaluates a function of one output in f64; inputs and weights have [`values`] by their names (integers: 0, 1, 2 …).
fn evaluate(define: impl FnOnce(&Graph) -> Tensor) -> Array {
    let mut builder = ModuleBuilder::new("test");
    builder.function("f", |g| g.output("y", &define(g)));
    let module = builder.build().unwrap_or_else(|e| panic!("{e}"));
    let tensor = |name: &str, ty: &selvedge_ir::TensorType| {
        let shape = ty.shape.sizes();
        let array = match ty.dtype {
            DType::I32 | DType::U32 => (0..shape.iter().product()).map(|i: usize| i as f64).collect(),
            _ => values(name, &shape).at,
        };
        selvedge_ir::Tensor::from_f64(ty.clone(), &array, Precision::F64)
    };
    let weights: BTreeMap<String, Arc<selvedge_ir::Tensor>> =
        module.weights.iter().map(|w| (w.name.clone(), Arc::new(tensor(&w.name, &w.ty)))).collect();
    let f = module.function("f").expect("it was added");
    let args: Vec<selvedge_ir::Tensor> = f.params().into_iter().map(|(name, id)| tensor(name, f.ty(id))).collect();
    let interpreter = Interpreter::new(&module, &weights).precision(Precision::F64);
    let y = interpreter.call("f", &args, &mut BTreeMap::new()).expect("it evaluates").remove(0).1;
    Array { shape: y.sizes(), at: y.to_f64() }
}

/// Compares with a formula for the element at each index.
fn check(got: &Array, shape: &[usize], want: impl Fn(&[usize]) -> f64) {
    assert_eq!(got.shape, shape);
    for flat in 0..got.at.len() {
        let mut index = vec![0; shape.len()];
        let mut rest = flat;
        for axis in (0..shape.len()).rev() {
            index[axis] = rest % shape[axis];
            rest /= shape[axis];
        }
        let want = want(&index);
        assert!((got.at[flat] - want).abs() <= 1e-9 * (1.0 + want.abs()), "at {index:?}: {} for {want}", got.at[flat]);
    }
}

fn sum(n: usize, f: impl Fn(usize) -> f64) -> f64 {
    (0..n).map(f).sum()
}
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

#[test]
fn arithmetic_broadcasts_as_numpy() {
    let (a, b) = (values("a", &[2, 1, 3]), values("b", &[4, 1]));
    let y = evaluate(|g| {
        let (a, b) = (input(g, "a", &[2, 1, 3]), input(g, "b", &[4, 1]));
        (1.0 - &a) * &b + -(&a / 2.0) - b.maximum(0.25)
    });
    check(&y, &[2, 4, 3], |i| {
        let (a, b) = (a.get(&[i[0], 0, i[2]]), b.get(&[i[1], 0]));
        (1.0 - a) * b - a / 2.0 - b.max(0.25)
    });
}

#[test]
fn pointwise_functions_and_selection() {
    let x = values("x", &[12]);
    let y = evaluate(|g| {
        let x = input(g, "x", &[12]);
        let parts = [x.silu(), x.gelu_tanh(), x.relu(), x.clamp(-0.5, 0.25), x.gt(0.0).select(&x.exp(), &x.cos())];
        stack(&parts.iter().collect::<Vec<_>>(), 0)
    });
    check(&y, &[5, 12], |i| {
        let x = x.at[i[1]];
        [x * sigmoid(x), gelu_tanh(x), x.max(0.0), x.clamp(-0.5, 0.25), if x > 0.0 { x.exp() } else { x.cos() }][i[0]]
    });
    let gelu = evaluate(|g| input(g, "x", &[12]).gelu());
    check(&gelu, &[12], |i| {
        let x = x.at[i[0]];
        // Φ by Simpson's rule on the density.
        let (n, density) = (2000, |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt());
        let h = x / n as f64;
        let weight = |k: usize| if k == 0 || k == n { 1.0 } else { 2.0 + 2.0 * (k % 2) as f64 };
        x * (0.5 + h / 3.0 * sum(n + 1, |k| weight(k) * density(k as f64 * h)))
    });
    let custom = evaluate(|g| {
        let (x, w) = (input(g, "x", &[12]), g.weights().weight("w", [1]));
        map(&[&x, &w], |b, a| b.binary(selvedge_ir::scalar::Binary::Mul, a[0], a[1]))
    });
    check(&custom, &[12], |i| x.at[i[0]] * values("w", &[1]).at[0]);
}

#[test]
fn reductions_and_norms() {
    let x = values("x", &[2, 3, 4]);
    let mean = evaluate(|g| input(g, "x", &[2, 3, 4]).mean_keepdim([0, -1]));
    check(&mean, &[1, 3, 1], |i| sum(8, |k| x.get(&[k / 4, i[1], k % 4])) / 8.0);
    let argmax = evaluate(|g| input(g, "x", &[2, 3, 4]).argmax(-1));
    check(&argmax, &[2, 3], |i| {
        let row: Vec<f64> = (0..4).map(|k| x.get(&[i[0], i[1], k])).collect();
        row.iter().position(|v| *v == row.iter().copied().fold(f64::MIN, f64::max)).expect("the largest is there")
            as f64
    });
    let cumsum = evaluate(|g| input(g, "x", &[2, 3, 4]).cumsum(1));
    check(&cumsum, &[2, 3, 4], |i| sum(i[1] + 1, |k| x.get(&[i[0], k, i[2]])));
    let softmax = evaluate(|g| input(g, "x", &[2, 3, 4]).softmax(1));
    check(&softmax, &[2, 3, 4], |i| x.get(i).exp() / sum(3, |k| x.get(&[i[0], k, i[2]]).exp()));

    let (scale, bias) = (values("n.weight", &[4]), values("n.bias", &[4]));
    let layer = evaluate(|g| LayerNorm::new(&g.weights().sub("n"), 4, 1e-3).forward(&input(g, "x", &[2, 3, 4])));
    check(&layer, &[2, 3, 4], |i| {
        let at = |k| x.get(&[i[0], i[1], k]);
        let mean = sum(4, at) / 4.0;
        let variance = sum(4, |k| (at(k) - mean).powi(2)) / 4.0;
        (at(i[2]) - mean) / (variance + 1e-3).sqrt() * scale.at[i[2]] + bias.at[i[2]]
    });
    let rms = evaluate(|g| RmsNorm::new(&g.weights().sub("n"), 4, 1e-3).forward(&input(g, "x", &[2, 3, 4])));
    check(&rms, &[2, 3, 4], |i| {
        let square = sum(4, |k| x.get(&[i[0], i[1], k]).powi(2)) / 4.0;
        x.get(i) / (square + 1e-3).sqrt() * scale.at[i[2]]
    });
    let image = values("image", &[2, 4, 3]);
    let group = evaluate(|g| GroupNorm::new(&g.weights().sub("n"), 2, 4, 1e-3).forward(&input(g, "image", &[2, 4, 3])));
    check(&group, &[2, 4, 3], |i| {
        let at = |k: usize| image.get(&[i[0], i[1] / 2 * 2 + k / 3, k % 3]);
        let mean = sum(6, at) / 6.0;
        let variance = sum(6, |k| (at(k) - mean).powi(2)) / 6.0;
        (image.get(i) - mean) / (variance + 1e-3).sqrt() * scale.at[i[1]] + bias.at[i[1]]
    });
}

#[test]
fn products() {
    let (a, b) = (values("a", &[2, 1, 3, 4]), values("b", &[5, 4, 6]));
    let y = evaluate(|g| input(g, "a", &[2, 1, 3, 4]).matmul(&input(g, "b", &[5, 4, 6])));
    check(&y, &[2, 5, 3, 6], |i| sum(4, |k| a.get(&[i[0], 0, i[2], k]) * b.get(&[i[1], k, i[3]])));
    let (m, v) = (values("m", &[5, 4]), values("v", &[4]));
    let y = evaluate(|g| input(g, "m", &[5, 4]).matmul(&input(g, "v", &[4])));
    check(&y, &[5], |i| sum(4, |k| m.get(&[i[0], k]) * v.at[k]));
    let y = evaluate(|g| input(g, "a", &[2, 1, 3, 4]).matmul(&input(g, "m", &[5, 4]).transpose(0, 1)));
    check(&y, &[2, 1, 3, 5], |i| sum(4, |k| a.get(&[i[0], 0, i[2], k]) * m.get(&[i[3], k])));

    let x = values("x", &[3, 4]);
    let mlp = evaluate(|g| {
        let w = g.weights();
        let layers = (Linear::new(&w.sub("fc1"), 4, 5), Linear::with_bias(&w.sub("fc2"), 5, 2, false));
        Mlp::new(layers.0, layers.1, Activation::GeluTanh).forward(&input(g, "x", &[3, 4]))
    });
    let (w1, b1, w2) = (values("fc1.weight", &[5, 4]), values("fc1.bias", &[5]), values("fc2.weight", &[2, 5]));
    check(&mlp, &[3, 2], |i| {
        let hidden = |h: usize| gelu_tanh(sum(4, |k| x.get(&[i[0], k]) * w1.get(&[h, k])) + b1.at[h]);
        sum(5, |h| hidden(h) * w2.get(&[i[1], h]))
    });
}

#[test]
fn attention_is_softmax_of_scaled_products() {
    let (tokens, hidden, heads) = (3, 6, 2);
    let d = hidden / heads;
    let x = values("x", &[2, tokens, hidden]);
    let [q, k, v, o] =
        ["to_q", "to_k", "to_v", "to_out.0"].map(|n| values(&format!("a.{n}.weight"), &[hidden, hidden]));
    let [bq, bk, bv, bo] = ["to_q", "to_k", "to_v", "to_out.0"].map(|n| values(&format!("a.{n}.bias"), &[hidden]));
    let y = evaluate(|g| {
        Attention::separate(&g.weights().sub("a"), hidden, heads, true).forward(&input(g, "x", &[2, tokens, hidden]))
    });
    let project = |w: &Array, b: &Array, i: usize, n: usize, f: usize| {
        sum(hidden, |c| x.get(&[i, n, c]) * w.get(&[f, c])) + b.at[f]
    };
    check(&y, &[2, tokens, hidden], |i| {
        let mixed = |f: usize| {
            let head = f / d;
            let score = |m: usize| {
                let dot =
                    sum(d, |c| project(&q, &bq, i[0], i[1], head * d + c) * project(&k, &bk, i[0], m, head * d + c));
                (dot / (d as f64).sqrt()).exp()
            };
            sum(tokens, |m| score(m) * project(&v, &bv, i[0], m, f)) / sum(tokens, score)
        };
        sum(hidden, |f| mixed(f) * o.get(&[i[2], f])) + bo.at[i[2]]
    });

    // The fused layout is the same with q, k and v rows one after another.
    let qkv = values("b.qkv.weight", &[3 * hidden, hidden]);
    let bias = values("b.qkv.bias", &[3 * hidden]);
    let fused = evaluate(|g| {
        Attention::fused(&g.weights().sub("b"), hidden, heads).forward(&input(g, "x", &[2, tokens, hidden]))
    });
    let by_hand = evaluate(|g| {
        let x = input(g, "x", &[2, tokens, hidden]);
        let part = |i: usize| {
            let rows = qkv.at[i * hidden * hidden..(i + 1) * hidden * hidden].to_vec();
            let weight = g.weights().weight("b.qkv.weight", [3 * hidden, hidden]).narrow(0, i * hidden, hidden);
            let bias = g.weights().weight("b.qkv.bias", [3 * hidden]).narrow(0, i * hidden, hidden);
            assert_eq!(rows.len(), hidden * hidden);
            x.matmul(&weight.transpose(0, 1)) + bias
        };
        let heads = |t: Tensor| t.reshape([2, tokens, heads, d]).transpose(1, 2);
        let (q, k, v) = (heads(part(0)), heads(part(1)), heads(part(2)));
        let weights = (q.matmul(&k.transpose(-1, -2)) / (d as f64).sqrt()).softmax(-1);
        let mixed = weights.matmul(&v).transpose(1, 2).flatten(2, 3);
        Linear::new(&g.weights().sub("b.proj"), hidden, hidden).forward(&mixed)
    });
    assert_eq!(bias.at.len(), 3 * hidden);
    check(&fused, &by_hand.shape.clone(), |i| by_hand.get(i));
}

#[test]
fn convolutions_and_pools() {
    let x = values("x", &[1, 4, 5, 6]);
    let (w, b) = (values("c.weight", &[6, 2, 3, 2]), values("c.bias", &[6]));
    let options = || WindowOptions::new().stride(&[2, 1]).padding(&[1, 0]).dilation(&[1, 2]).groups(2);
    let y =
        evaluate(|g| Conv::new(&g.weights().sub("c"), 4, 6, &[3, 2], options()).forward(&input(g, "x", &[1, 4, 5, 6])));
    check(&y, &[1, 6, 3, 4], |i| {
        let tap = |c: usize, r: usize, s: usize| {
            let (row, column) = (2 * i[2] + r, i[3] + 2 * s);
            if !(1..6).contains(&row) {
                return 0.0;
            }
            x.get(&[0, i[1] / 3 * 2 + c, row - 1, column]) * w.get(&[i[1], c, r, s])
        };
        sum(2, |c| sum(3, |r| sum(2, |s| tap(c, r, s)))) + b.at[i[1]]
    });
    let pooled = evaluate(|g| input(g, "x", &[1, 4, 5, 6]).avg_pool(&[5, 3], &WindowOptions::new().stride(&[1, 3])));
    check(&pooled, &[1, 4, 1, 2], |i| sum(15, |k| x.get(&[0, i[1], k / 3, 3 * i[3] + k % 3])) / 15.0);
}

#[test]
fn patches_are_a_strided_convolution_and_return() {
    let shape = [2, 3, 4, 6];
    let tokens = evaluate(|g| PatchEmbed::new(&g.weights().sub("p"), 2, 3, 5).forward(&input(g, "x", &shape)));
    let conv = evaluate(|g| {
        let y = Conv::new(&g.weights().sub("p"), 3, 5, &[2, 2], WindowOptions::new().stride(&[2]))
            .forward(&input(g, "x", &shape));
        y.flatten(2, 3).transpose(1, 2)
    });
    check(&tokens, &[2, 6, 5], |i| conv.get(i));
    let t = values("t", &[2, 6, 12]);
    let image = evaluate(|g| unpatchify(&input(g, "t", &[2, 6, 12]), (2, 3), 2));
    check(&image, &[2, 3, 4, 6], |i| t.get(&[i[0], i[2] / 2 * 3 + i[3] / 2, (i[2] % 2 * 2 + i[3] % 2) * 3 + i[1]]));
}

#[test]
fn timesteps_and_modulation() {
    let frequency = |i: usize, half: usize, shift: f64| (-(10000f64.ln()) * i as f64 / (half as f64 - shift)).exp();
    for (cos_first, freq_shift) in [(true, 0.0), (false, 1.0)] {
        let sinusoid = Sinusoid { dim: 7, cos_first, freq_shift, max_period: 10000.0 };
        let y = evaluate(|g| sinusoid.forward(&input(g, "t", &[2])));
        let t = values("t", &[2]);
        assert_eq!(y.shape, [2, 7]);
        for n in 0..2 {
            for i in 0..3 {
                let angle = t.at[n] * frequency(i, 3, freq_shift);
                let (cos, sin) = if cos_first { (i, i + 3) } else { (i + 3, i) };
                // Frequencies are f32 constants, as the reference's are.
                assert!((y.get(&[n, cos]) - angle.cos()).abs() < 1e-6);
                assert!((y.get(&[n, sin]) - angle.sin()).abs() < 1e-6);
            }
            assert_eq!(y.get(&[n, 6]), 0.0);
        }
    }
    let (x, c) = (values("x", &[2, 3, 4]), values("c", &[2, 4]));
    let (w, b) = (values("m.weight", &[8, 4]), values("m.bias", &[8]));
    let y = evaluate(|g| {
        let [shift, scale] = AdaLnModulation::new(&g.weights().sub("m"), 4, 2).forward(&input(g, "c", &[2, 4]));
        modulate(&input(g, "x", &[2, 3, 4]), &shift, &scale)
    });
    check(&y, &[2, 3, 4], |i| {
        let part = |f: usize| sum(4, |k| c.get(&[i[0], k]) * sigmoid(c.get(&[i[0], k])) * w.get(&[f, k])) + b.at[f];
        x.get(i) * (1.0 + part(4 + i[2])) + part(i[2])
    });
    let e = evaluate(|g| {
        let embed = TimestepEmbedding::new(&g.weights().sub("t"), ["mlp.0", "mlp.2"], 4, Sinusoid::dit());
        embed.forward(&input(g, "t", &[2]))
    });
    assert_eq!(e.shape, [2, 4]);
}

#[test]
fn views_and_indices() {
    let x = values("x", &[4, 6]);
    let y = evaluate(|g| {
        let x = input(g, "x", &[4, 6]);
        let [a, b] = x.chunk(1);
        concat(&[&b.slice(0, 1, 4, 2), &a.narrow(0, 0, 1)], 0).pad(&[(0, 0), (1, 0)], 9.0).flip(0)
    });
    check(&y, &[3, 4], |i| match (2 - i[0], i[1]) {
        (_, 0) => 9.0,
        (2, k) => x.get(&[0, k - 1]),
        (r, k) => x.get(&[2 * r + 1, k + 2]),
    });
    let (values_and_indices, rows) = (
        evaluate(|g| {
            let (v, i) = input(g, "x", &[4, 6]).topk(2, 0);
            concat(&[&v, &i.cast(DType::F32)], 0)
        }),
        |column: usize| {
            let mut order: Vec<usize> = (0..4).collect();
            order.sort_by(|&a, &b| x.get(&[b, column]).total_cmp(&x.get(&[a, column])));
            order
        },
    );
    check(&values_and_indices, &[4, 6], |i| {
        let row = rows(i[1])[i[0] % 2];
        if i[0] < 2 { x.get(&[row, i[1]]) } else { row as f64 }
    });
    let table = values("e.weight", &[5, 3]);
    let y = evaluate(|g| Embedding::new(&g.weights().sub("e"), 5, 3).forward(&g.input("i", DType::I32, [2, 2])));
    check(&y, &[2, 2, 3], |i| table.get(&[i[0] * 2 + i[1], i[2]]));
    let y = evaluate(|g| {
        let indices = g.constant(DType::I32, [3], &[1.0, 0.0, 1.0]);
        input(g, "x", &[4, 6]).scatter_add(&indices, &input(g, "u", &[3, 6]), 0, 0)
    });
    let u = values("u", &[3, 6]);
    check(&y, &[4, 6], |i| x.get(i) + sum(3, |k| if [1, 0, 1][k] == i[0] { u.get(&[k, i[1]]) } else { 0.0 }));
}

#[test]
fn stored_halves_are_used_as_stored() {
    let mut builder = ModuleBuilder::new("m").stored_as(|name| name.starts_with("h.").then_some(DType::F16));
    builder.function("f", |g| {
        let w = g.weights();
        let x = g.input("x", DType::F32, [2, 4]);
        let y = Linear::new(&w.sub("h.fc"), 4, 4).forward(&x) * w.weight("h.gain", [4]) + w.weight("shift", [4]);
        assert_eq!(y.dtype(), DType::F32);
        g.output("y", &LayerNorm::new(&w.sub("h.norm"), 4, 1e-6).forward(&y));
    });
    let module = builder.build().expect("halves mix with f32");
    for weight in &module.weights {
        let want = if weight.name == "shift" { DType::F32 } else { DType::F16 };
        assert_eq!(weight.ty.dtype, want, "{}", weight.name);
    }
}

#[test]
fn masks_rotations_and_grids() {
    let (q, k, v) = (values("q", &[1, 2, 4, 6]), values("k", &[1, 2, 4, 6]), values("v", &[1, 2, 4, 3]));
    let attend = |i: &[usize], sees: &dyn Fn(usize) -> bool| {
        let score = |m: usize| {
            let dot = sum(6, |c| q.get(&[0, i[1], i[2], c]) * k.get(&[0, i[1], m, c]));
            if sees(m) { (0.5 * dot).exp() } else { 0.0 }
        };
        let total = sum(4, score);
        if total == 0.0 { 0.0 } else { sum(4, |m| score(m) * v.get(&[0, i[1], m, i[3]])) / total }
    };
    let qkv = |g: &Graph| (input(g, "q", &[1, 2, 4, 6]), input(g, "k", &[1, 2, 4, 6]), input(g, "v", &[1, 2, 4, 3]));
    let causal = evaluate(|g| {
        let (q, k, v) = qkv(g);
        q.attention_with(&k, &v, 0.5, None, true)
    });
    check(&causal, &[1, 2, 4, 3], |i| attend(i, &|m| m <= i[2]));
    // A row with nothing kept gives 0.
    let masked = evaluate(|g| {
        let (q, k, v) = qkv(g);
        let (row, column) = (g.iota(DType::I32, [1, 1, 4, 4], 2), g.iota(DType::I32, [1, 1, 4, 4], 3));
        q.attention_with(&k, &v, 0.5, Some(&column.gt(&row)), false)
    });
    check(&masked, &[1, 2, 4, 3], |i| attend(i, &|m| m > i[2]));
    // On a 2×2 grid, radius 2 in a circle (dy² + dx² < 4) sees all, radius 1 sees itself.
    for (radius, all) in [(2, true), (1, false)] {
        let local = evaluate(|g| {
            let (q, k, v) = qkv(g);
            q.local_attention(&k, &v, 0.5, 0, (2, 2), radius, selvedge_ir::ops::LocalKind::Circle)
        });
        check(&local, &[1, 2, 4, 3], |i| attend(i, &|m| all || m == i[2]));
    }

    let (cos, sin) = (values("cos", &[4, 6]), values("sin", &[4, 6]));
    for interleaved in [true, false] {
        let y = evaluate(|g| {
            let (cos, sin) = (input(g, "cos", &[4, 6]), input(g, "sin", &[4, 6]));
            input(g, "q", &[1, 2, 4, 6]).rope(&cos, &sin, interleaved)
        });
        check(&y, &[1, 2, 4, 6], |i| {
            let (first, partner) = match interleaved {
                true => (i[3] % 2 == 0, i[3] ^ 1),
                false => (i[3] < 3, (i[3] + 3) % 6),
            };
            let turned = q.get(&[0, i[1], i[2], partner]) * if first { -1.0 } else { 1.0 };
            q.get(i) * cos.get(&[i[2], i[3]]) + turned * sin.get(&[i[2], i[3]])
        });
    }

    let x = values("x", &[1, 1, 2, 3]);
    let nearest = evaluate(|g| input(g, "x", &[1, 1, 2, 3]).resize(selvedge_ir::ops::ResizeKind::Nearest, &[4, 6]));
    check(&nearest, &[1, 1, 4, 6], |i| x.get(&[0, 0, i[2] / 2, i[3] / 2]));
    let t = values("t", &[1, 8, 3]);
    let pooled = evaluate(|g| input(g, "t", &[1, 8, 3]).pool_tokens((2, 4), 2));
    check(&pooled, &[1, 2, 3], |i| sum(4, |k| t.get(&[0, k / 2 * 4 + 2 * i[1] + k % 2, i[2]])) / 4.0);
}

#[test]
fn functions_call_each_other() {
    let mut builder = ModuleBuilder::new("m");
    let double = builder.function("double", |g| g.output("y", &(input(g, "x", &[3]) * 2.0)));
    builder.function("f", |g| {
        let x = input(g, "x", &[3]);
        let once = g.call(&double, &[&x]).remove(0);
        g.output("y", &(g.call(&double, &[&once]).remove(0) + x));
    });
    let module = builder.build().expect("it is well-typed");
    let weights: BTreeMap<String, Arc<selvedge_ir::Tensor>> = BTreeMap::new();
    let x = selvedge_ir::Tensor::f32(&[3], vec![1.0, -2.0, 0.5]);
    let y =
        Interpreter::new(&module, &weights).call("f", &[x], &mut BTreeMap::new()).expect("it evaluates").remove(0).1;
    assert_eq!(y.to_f32(), [5.0, -10.0, 2.5]);
}
