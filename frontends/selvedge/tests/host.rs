//! The host's kernels against the reference interpreter, with tolerances from its f32-f64 gap.

use selvedge::host::Host;
use selvedge_ir::func::Target;
use selvedge_ir::generate::{self, Options, Rng};
use selvedge_ir::interp::{HostKernels, Interpreter, Precision};
use selvedge_ir::ops::*;
use selvedge_ir::scalar::{Binary, Body, F64, Unary};
use selvedge_ir::spec::ContractSpec;
use selvedge_ir::{DType, Op, Tensor, TensorType};
use std::collections::BTreeMap;

/// The distance from the f64 value may be 8 times that of the reference, plus a few roundings of the largest element.
fn close(got: &Tensor, reference: &Tensor, exact: &Tensor) -> Result<(), String> {
    let (got, reference, exact) = (got.to_f64(), reference.to_f64(), exact.to_f64());
    let size = exact.iter().fold(0f64, |m, x| if x.is_finite() { m.max(x.abs()) } else { m });
    let gap = reference.iter().zip(&exact).map(|(r, e)| (r - e).abs()).filter(|d| d.is_finite()).fold(0f64, f64::max);
    let allowed = 8.0 * gap + 16.0 * size * f32::EPSILON as f64;
    for (i, (g, r)) in got.iter().zip(&reference).enumerate() {
        let same = g == r || (g.is_nan() && r.is_nan());
        if !same && (g - r).abs() > allowed {
            return Err(format!("element {i}: host {g}, reference {r}, allowed difference {allowed:e}"));
        }
        if !same && (g - r).is_nan() {
            return Err(format!("element {i}: host {g}, reference {r}"));
        }
    }
    Ok(())
}

#[test]
fn random_modules_agree_with_the_reference() {
    let full = std::env::var_os("SELVEDGE_FULL").is_some();
    for seed in 0..if full { 2000 } else { 200 } {
        let options = Options {
            weights: true,
            empty: seed % 5 == 0,
            dtypes: vec![DType::F32, DType::I32, DType::Bool],
            ..Options::default()
        };
        let module = generate::module(seed, &options);
        let weights = generate::weights(seed, &module);
        let inputs = generate::inputs(seed, module.function("main").expect("generated"));
        let call = |interpreter: Interpreter| {
            let results = interpreter.call("main", &inputs, &mut BTreeMap::new()).expect("a generated module runs");
            results.into_iter().filter(|(t, _)| matches!(t, Target::Output(_))).map(|(_, v)| v).collect::<Vec<_>>()
        };
        let host = call(Interpreter::new(&module, &weights).kernels(&Host));
        let reference = call(Interpreter::new(&module, &weights));
        let exact = call(Interpreter::new(&module, &weights).precision(Precision::F64));
        for ((h, r), e) in host.iter().zip(&reference).zip(&exact) {
            assert_eq!(h.ty, r.ty);
            close(h, r, e).unwrap_or_else(|problem| panic!("seed {seed}: {problem}\n{module}"));
        }
    }
}

/// One operator on random operands: the host has a kernel for it, and it agrees.
fn check(op: impl Into<Op>, args: &[TensorType]) {
    let op = op.into();
    let mut rng = Rng::new(7);
    let tensors: Vec<Tensor> = args.iter().map(|ty| generate::tensor(&mut rng, ty)).collect();
    let operands: Vec<&Tensor> = tensors.iter().collect();
    let out = op.infer(&args.iter().collect::<Vec<_>>()).expect("well-typed");
    let got = Host.eval(&op, &operands, &out).expect("the host has a kernel for this");
    let of = |precision| {
        let operands: Vec<Tensor> = tensors.iter().map(|t| t.clone().in_precision(precision)).collect();
        let operands: Vec<&Tensor> = operands.iter().collect();
        evaluate(&op, &operands, &out, precision)
    };
    close(&got, &of(Precision::F32), &of(Precision::F64)).unwrap_or_else(|problem| panic!("{op:?}: {problem}"));
}

/// The reference value, composites by their expansion.
fn evaluate(op: &Op, args: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
    let mut b = selvedge_ir::Builder::new("f");
    let ids: Vec<_> = args.iter().enumerate().map(|(i, a)| b.input(format!("x{i}"), a.ty.clone())).collect();
    let value = b.push(op.clone(), &ids).expect("well-typed");
    b.output("out", value);
    let mut module = selvedge_ir::Module::new("m");
    module.add_function(b.finish()).expect("one function");
    let args: Vec<Tensor> = args.iter().map(|t| (*t).clone()).collect();
    let weights = BTreeMap::new();
    let results = Interpreter::new(&module, &weights).precision(precision).call("f", &args, &mut BTreeMap::new());
    let value = results.expect("it runs").remove(0).1;
    assert_eq!(value.ty, *out);
    value
}

fn f32s(shape: &[usize]) -> TensorType {
    TensorType::new(DType::F32, shape)
}

#[test]
fn contractions_in_every_layout() {
    for (spec, a, b) in [
        ("ik,kj->ij", vec![70, 33], vec![33, 50]),
        ("ki,jk->ji", vec![33, 70], vec![50, 33]),
        ("bnhd,bmhd->bhnm", vec![2, 9, 3, 8], vec![2, 11, 3, 8]),
        ("bhnm,bmhd->bnhd", vec![2, 3, 9, 11], vec![2, 11, 3, 8]),
        ("bnhd,hde->bne", vec![2, 9, 3, 8], vec![3, 8, 17]),
        ("bhnd,ehd->ben", vec![2, 3, 9, 8], vec![17, 3, 8]),
        ("aibk,kbj->jai", vec![3, 4, 5, 6], vec![6, 5, 7]),
        ("i,j->ij", vec![40], vec![30]),
        ("k,k->", vec![1000], vec![1000]),
        ("ik,k->i", vec![1, 64], vec![64]),
    ] {
        let spec = ContractSpec::parse(spec).expect("well-formed");
        check(Contract { spec: spec.clone(), dtype: DType::F32 }, &[f32s(&a), f32s(&b)]);
        let half = TensorType::new(DType::F16, a.clone());
        check(Contract { spec, dtype: DType::BF16 }, &[half, f32s(&b)]);
    }
}

#[test]
fn convolutions_with_stride_padding_dilation_and_groups() {
    let conv = |size: &[usize], stride: &[usize], padding: &[(usize, usize)], dilation: &[usize], groups| Window {
        kind: WindowKind::Conv,
        size: size.to_vec(),
        stride: stride.to_vec(),
        padding: padding.to_vec(),
        dilation: dilation.to_vec(),
        groups,
    };
    check(conv(&[3, 3], &[1, 1], &[(1, 1), (1, 1)], &[1, 1], 1), &[f32s(&[2, 3, 40, 41]), f32s(&[5, 3, 3, 3])]);
    check(conv(&[2, 2], &[2, 2], &[(0, 0), (0, 0)], &[1, 1], 1), &[f32s(&[2, 4, 28, 28]), f32s(&[16, 4, 2, 2])]);
    check(conv(&[3, 2], &[2, 1], &[(2, 0), (0, 1)], &[2, 3], 2), &[f32s(&[1, 4, 17, 19]), f32s(&[6, 2, 3, 2])]);
    check(conv(&[5], &[1], &[(2, 2)], &[1], 4), &[f32s(&[3, 4, 100]), f32s(&[4, 1, 5])]);
    // Wider than one block of unfolded patches.
    check(conv(&[3, 3], &[1, 1], &[(1, 1), (1, 1)], &[1, 1], 1), &[f32s(&[1, 64, 32, 32]), f32s(&[8, 64, 3, 3])]);
}

#[test]
fn composites_in_one_pass() {
    let eps = F64(1e-6);
    check(Softmax { axis: 2 }, &[f32s(&[3, 5, 77])]);
    check(LayerNorm { eps }, &[f32s(&[40, 65])]);
    check(LayerNorm { eps }, &[f32s(&[40, 65]), f32s(&[65]), f32s(&[65])]);
    check(RmsNorm { eps }, &[f32s(&[40, 65]), f32s(&[65])]);
    let qkv = [f32s(&[2, 3, 130, 24]), f32s(&[2, 3, 90, 24]), f32s(&[2, 3, 90, 16])];
    check(Attention { scale: F64(0.2), causal: false }, &qkv);
    check(Attention { scale: F64(0.2), causal: true }, &qkv);
}

#[test]
fn large_maps_and_reductions_are_split() {
    let big = f32s(&[33, 50, 41]);
    check(Map { body: Body::binary(Binary::Mul) }, &[big.clone(), big.clone()]);
    check(Map { body: Body::binary(Binary::Lt) }, &[big.clone(), big.clone()]);
    // GELU's shape: every kind of float node; then one that only the reference has.
    let gelu = Body::build(2, |b| {
        let (x, y, half) = (b.arg(0), b.arg(1), b.float(0.5));
        let t = b.unary(Unary::Tanh, x);
        let s = b.unary(Unary::Sigmoid, y);
        let sum = b.binary(Binary::Add, t, s);
        let scaled = b.binary(Binary::Mul, sum, half);
        b.cast(DType::BF16, scaled)
    });
    check(Map { body: gelu }, &[big.clone(), big.clone()]);
    check(Map { body: Body::unary(Unary::Erf) }, std::slice::from_ref(&big));
    for kind in [ReduceKind::Sum, ReduceKind::Max, ReduceKind::Min] {
        for axes in [vec![2], vec![0], vec![1], vec![0, 2], vec![0, 1, 2]] {
            check(Reduce { kind, axes }, std::slice::from_ref(&big));
        }
    }
}

#[test]
fn views_move_the_right_elements() {
    let ty = f32s(&[7, 11, 13]);
    check(Transpose { perm: vec![2, 0, 1] }, std::slice::from_ref(&ty));
    check(Slice { start: vec![1, 0, 2], end: vec![6, 11, 13], step: vec![2, 3, 1] }, std::slice::from_ref(&ty));
    check(Slice { start: vec![7, 0, 2], end: vec![7, 11, 13], step: vec![1, 1, 1] }, std::slice::from_ref(&ty));
    check(Pad { padding: vec![(1, 0), (0, 2), (3, 1)], value: F64(0.5) }, std::slice::from_ref(&ty));
    check(Broadcast { shape: [7, 4, 11, 13].into(), axes: vec![0, 2, 3] }, std::slice::from_ref(&ty));
    check(Broadcast { shape: [7, 11, 13].into(), axes: vec![1, 2] }, &[f32s(&[1, 13])]);
    check(Concat { axis: 1 }, &[ty.clone(), f32s(&[7, 2, 13]), f32s(&[7, 0, 13])]);
    check(Reshape { shape: [77, 13].into() }, &[ty]);
}
