//! Words of operator tests.
#![allow(dead_code)] // each test binary uses some of them

use selvedge_ir::{Op, Precision, Tensor, TensorType};

/// The value in f32, of the inferred type.
pub fn eval(op: impl Into<Op>, args: &[&Tensor]) -> Tensor {
    eval_in(op, args, Precision::F32)
}

/// The value in a precision.
pub fn eval_in(op: impl Into<Op>, args: &[&Tensor], precision: Precision) -> Tensor {
    let op = op.into();
    let types: Vec<&TensorType> = args.iter().map(|a| &a.ty).collect();
    let out = op.infer(&types).unwrap_or_else(|e| panic!("{op:?}: {e:?}"));
    let result = op.eval(args, &out, precision);
    assert_eq!(result.ty, out);
    result
}

/// The number of the constraint that the operands violate.
pub fn refused(op: impl Into<Op>, args: &[&Tensor]) -> u32 {
    let types: Vec<&TensorType> = args.iter().map(|a| &a.ty).collect();
    let op = op.into();
    op.infer(&types).map(|t| panic!("{op:?} gives {t}")).unwrap_err().constraint
}

/// Every multi-index of a shape, row-major.
pub fn indices(sizes: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for &n in sizes {
        all = all.iter().flat_map(|i| (0..n).map(move |j| [i.clone(), vec![j]].concat())).collect();
    }
    all
}

/// Row-major position of a multi-index.
pub fn flat(sizes: &[usize], index: &[usize]) -> usize {
    sizes.iter().zip(index).fold(0, |at, (n, i)| at * n + i)
}

/// f32 values in [-1, 1).
pub fn random(sizes: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let values = (0..sizes.iter().product()).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    });
    Tensor::f32(sizes, values.collect())
}

/// |got − want| ≤ tol · max(1, |want|), element by element.
pub fn close(got: &Tensor, want: &[f64], tol: f64) {
    let values = got.to_f64();
    assert_eq!(values.len(), want.len());
    for (i, (g, w)) in values.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tol * w.abs().max(1.0), "element {i} of {}: got {g}, want {w}", got.ty);
    }
}
