//! Core operators but windows: hand-computed cases, laws, and plain loops written independently of `eval`.

mod common;
use common::*;
use selvedge_ir::attr::Literal;
use selvedge_ir::ops::*;
use selvedge_ir::scalar::{Binary, Body, F64, Scalar, Unary};
use selvedge_ir::spec::ContractSpec;
use selvedge_ir::{DType, Data, Precision, Shape, Tensor, TensorType};

#[test]
fn constants_and_iota() {
    let ty = TensorType::new(DType::F16, [2]);
    let data = Literal(vec![0x00, 0x3c, 0x00, 0xc0].into());
    assert_eq!(eval(Const { data: data.clone(), ty }, &[]).to_f64(), [1.0, -2.0]);
    let short = Const { data, ty: TensorType::new(DType::F16, [3]) };
    assert_eq!(refused(short, &[]), 1);
    let iota = |axis| eval(Iota { axis, ty: TensorType::new(DType::I32, [2, 3]) }, &[]);
    assert_eq!(iota(0).data, Data::I32(vec![0, 0, 0, 1, 1, 1]));
    assert_eq!(iota(1).data, Data::I32(vec![0, 1, 2, 0, 1, 2]));
    assert_eq!(refused(Iota { axis: 2, ty: TensorType::new(DType::I32, [2, 3]) }, &[]), 1);
    assert_eq!(refused(Iota { axis: 0, ty: TensorType::new(DType::Bool, [2]) }, &[]), 2);
}

fn unary(op: Unary, x: &Tensor) -> Tensor {
    eval(Map { body: Body::unary(op) }, &[x])
}
fn binary(op: Binary, x: &Tensor, y: &Tensor) -> Tensor {
    eval(Map { body: Body::binary(op) }, &[x, y])
}
fn cast(dtype: DType, x: &Tensor) -> Tensor {
    eval(Map { body: Body::cast(dtype) }, &[x])
}

#[test]
fn integers_wrap_and_never_trap() {
    let x = Tensor::i32(&[4], vec![i32::MIN, i32::MAX, -7, 7]);
    let y = Tensor::i32(&[4], vec![-1, 1, 0, -2]);
    let want = |v: [i32; 4]| Data::I32(v.to_vec());
    assert_eq!(binary(Binary::Add, &x, &y).data, want([i32::MAX, i32::MIN, -7, 5]));
    assert_eq!(binary(Binary::Div, &x, &y).data, want([i32::MIN, i32::MAX, 0, -3]));
    assert_eq!(binary(Binary::Rem, &x, &y).data, want([0, 0, 0, 1]));
    assert_eq!(unary(Unary::Neg, &x).data, want([i32::MIN, -i32::MAX, 7, -7]));
    assert_eq!(unary(Unary::Abs, &x).data, want([i32::MIN, i32::MAX, 7, 7]));
    let shifts = Tensor::i32(&[4], vec![33, 31, 1, -31]);
    assert_eq!(binary(Binary::Shl, &x, &shifts).data, want([0, i32::MIN, -14, 14]));
    assert_eq!(binary(Binary::Shr, &x, &shifts).data, want([i32::MIN >> 1, 0, -4, 3]));
}

#[test]
fn casts_truncate_and_saturate() {
    let x = Tensor::f32(&[6], vec![2.9, -2.9, 3e9, -3e9, f32::NAN, 0.0]);
    assert_eq!(cast(DType::I32, &x).data, Data::I32(vec![2, -2, i32::MAX, i32::MIN, 0, 0]));
    assert_eq!(cast(DType::U32, &x).data, Data::U32(vec![2, 0, 3_000_000_000, 0, 0, 0]));
    let y = Tensor::f32(&[2], vec![2049.0, 0.1]);
    assert_eq!(cast(DType::F16, &y).to_f64(), [2048.0, 0.0999755859375]);
    assert_eq!(cast(DType::BF16, &y).to_f64(), [2048.0, 0.10009765625]);
    let wide = y.in_precision(Precision::F64);
    let exact = eval_in(Map { body: Body::cast(DType::F16) }, &[&wide], Precision::F64);
    assert_eq!(exact.to_f64(), wide.to_f64(), "f64 evaluation never rounds");
}

#[test]
fn float_primitives() {
    let x = Tensor::f32(&[4], vec![-2.5, -0.5, 0.5, 2.5]);
    assert_eq!(unary(Unary::Round, &x).to_f64(), [-2.0, 0.0, 0.0, 2.0]);
    assert_eq!(unary(Unary::Sign, &x).to_f64(), [-1.0, -1.0, 1.0, 1.0]);
    assert_eq!(unary(Unary::Trunc, &x).to_f64(), [-2.0, 0.0, 0.0, 2.0]);
    close(&unary(Unary::Sigmoid, &x), &x.to_f64().iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect::<Vec<_>>(), 1e-6);
    let y = Tensor::f32(&[4], vec![2.0; 4]);
    assert_eq!(binary(Binary::Rem, &x, &y).to_f64(), [-0.5, -0.5, 0.5, 0.5]);
    let less = Map { body: Body::binary(Binary::Lt) };
    assert_eq!(eval(less, &[&x, &y]).data, Data::Bool(vec![true, true, true, false]));
}

#[test]
fn a_map_rounds_once_at_its_dtype() {
    // In f16, 2048 + 1 + 1 is 2048 when every step rounds and 2050 when only the result does.
    let body = Body::build(1, |b| {
        let (x, one) = (b.arg(0), b.float(1.0));
        let y = b.binary(Binary::Add, x, one);
        b.binary(Binary::Add, y, one)
    });
    let x = Tensor::new(TensorType::new(DType::F16, [1]), Data::F32(vec![2048.0]));
    assert_eq!(eval(Map { body }, &[&x]).to_f64(), [2050.0]);
}

#[test]
fn maps_are_chunked_without_seams() {
    let n = 1300;
    let x = Tensor::f32(&[n], (0..n).map(|i| i as f32).collect());
    let body = Body::build(1, |b| {
        let x = b.arg(0);
        let half = b.float(650.0);
        let c = b.binary(Binary::Lt, x, half);
        let bits = b.add(Scalar::Bits(DType::U32, x));
        let back = b.add(Scalar::Bits(DType::F32, bits));
        let neg = b.unary(Unary::Neg, x);
        b.select(c, back, neg)
    });
    let want: Vec<f64> = (0..n).map(|i| if i < 650 { i as f64 } else { -(i as f64) }).collect();
    assert_eq!(eval(Map { body }, &[&x]).to_f64(), want);
}

#[test]
fn map_constraints() {
    let (x, y) = (random(&[2, 3], 1), random(&[2, 1], 2));
    assert_eq!(refused(Map { body: Body::binary(Binary::Add) }, &[&x, &y]), 1);
    assert_eq!(refused(Map { body: Body::binary(Binary::Add) }, &[&x]), 2);
    assert_eq!(refused(Map { body: Body::unary(Unary::Not) }, &[&x]), 2);
}

#[test]
fn reductions() {
    let x = Tensor::f32(&[2, 3], vec![1.0, 5.0, 5.0, -2.0, 0.0, -2.0]);
    let reduce = |kind, axes: &[usize]| eval(Reduce { kind, axes: axes.to_vec() }, &[&x]);
    assert_eq!(reduce(ReduceKind::Sum, &[1]).to_f64(), [11.0, -4.0]);
    assert_eq!(reduce(ReduceKind::Sum, &[0]).to_f64(), [-1.0, 5.0, 3.0]);
    assert_eq!(reduce(ReduceKind::Sum, &[0, 1]).to_f64(), [7.0]);
    assert_eq!(reduce(ReduceKind::Prod, &[1]).to_f64(), [25.0, 0.0]);
    assert_eq!(reduce(ReduceKind::Max, &[0]).to_f64(), [1.0, 5.0, 5.0]);
    assert_eq!(reduce(ReduceKind::Min, &[1]).to_f64(), [1.0, -2.0]);
    assert_eq!(reduce(ReduceKind::Argmax, &[1]).data, Data::I32(vec![1, 1]), "ties go to the lowest index");
    assert_eq!(reduce(ReduceKind::Argmin, &[1]).data, Data::I32(vec![0, 0]));
    let empty = Tensor::f32(&[2, 0], vec![]);
    assert_eq!(eval(Reduce { kind: ReduceKind::Sum, axes: vec![1] }, &[&empty]).to_f64(), [0.0, 0.0]);
    assert_eq!(eval(Reduce { kind: ReduceKind::Prod, axes: vec![1] }, &[&empty]).to_f64(), [1.0, 1.0]);
    assert_eq!(refused(Reduce { kind: ReduceKind::Max, axes: vec![1] }, &[&empty]), 3);
    assert_eq!(refused(Reduce { kind: ReduceKind::Argmax, axes: vec![0, 1] }, &[&x]), 3);
    assert_eq!(refused(Reduce { kind: ReduceKind::Sum, axes: vec![1, 0] }, &[&x]), 1);
    let b = Tensor::new(TensorType::new(DType::Bool, [2]), Data::Bool(vec![true, false]));
    assert_eq!(eval(Reduce { kind: ReduceKind::Max, axes: vec![0] }, &[&b]).data, Data::Bool(vec![true]));
    assert_eq!(refused(Reduce { kind: ReduceKind::Sum, axes: vec![0] }, &[&b]), 2);
    let i = Tensor::i32(&[2], vec![i32::MAX, 1]);
    assert_eq!(eval(Reduce { kind: ReduceKind::Sum, axes: vec![0] }, &[&i]).data, Data::I32(vec![i32::MIN]));
}

#[test]
fn half_sums_accumulate_wide() {
    let n = 4096;
    let x = Tensor::new(TensorType::new(DType::F16, [n]), Data::F32(vec![1.0; n]));
    assert_eq!(eval(Reduce { kind: ReduceKind::Sum, axes: vec![0] }, &[&x]).to_f64(), [4096.0]);
}

#[test]
fn contractions_equal_plain_loops() {
    for (seed, text) in ["ij,jk->ik", "bij,bkj->bik", "ji,kj->ki", "i,j->ji", "ij,ij->", "abij,bcj->bcia", "i,i->i"]
        .into_iter()
        .enumerate()
    {
        let spec = ContractSpec::parse(text).unwrap();
        let extent = |l: u8| 2 + l as usize;
        let sizes = |letters: &[u8]| letters.iter().map(|&l| extent(l)).collect::<Vec<_>>();
        let (a, b) = (random(&sizes(&spec.a), seed as u64), random(&sizes(&spec.b), 100 + seed as u64));
        let letters = 1 + spec.a.iter().chain(&spec.b).max().unwrap();
        let all: Vec<usize> = (0..letters).map(extent).collect();
        let out = sizes(&spec.out);
        let mut want = vec![0.0; out.iter().product()];
        for index in indices(&all) {
            let at =
                |letters: &[u8]| flat(&sizes(letters), &letters.iter().map(|&l| index[l as usize]).collect::<Vec<_>>());
            want[at(&spec.out)] += a.to_f64()[at(&spec.a)] * b.to_f64()[at(&spec.b)];
        }
        close(&eval(Contract { spec, dtype: DType::F32 }, &[&a, &b]), &want, 1e-6);
    }
}

#[test]
fn contract_constraints() {
    let (a, b) = (random(&[2, 3], 1), random(&[4, 5], 2));
    let spec = |t| ContractSpec::parse(t).unwrap();
    assert_eq!(refused(Contract { spec: spec("ij,jk->ik"), dtype: DType::F32 }, &[&a, &b]), 3);
    assert_eq!(refused(Contract { spec: spec("ij,kl->ijkl"), dtype: DType::I32 }, &[&a, &b]), 4);
    assert_eq!(refused(Contract { spec: spec("i,jk->ijk"), dtype: DType::F32 }, &[&a, &b]), 3);
    let bad = ContractSpec { a: vec![0, 0], b: vec![1, 2], out: vec![0, 1, 2] };
    assert_eq!(refused(Contract { spec: bad, dtype: DType::F32 }, &[&a, &b]), 1);
    let bad = ContractSpec { a: vec![0, 1], b: vec![2, 3], out: vec![0, 2, 3] };
    assert_eq!(refused(Contract { spec: bad, dtype: DType::F32 }, &[&a, &b]), 2);
}

#[test]
fn scans() {
    let x = Tensor::f32(&[2, 3], vec![1.0, 2.0, 3.0, 4.0, -5.0, 6.0]);
    let scan = |kind, axis, reverse, exclusive, x: &Tensor| eval(Scan { kind, axis, reverse, exclusive }, &[x]);
    assert_eq!(scan(ScanKind::Sum, 1, false, false, &x).to_f64(), [1.0, 3.0, 6.0, 4.0, -1.0, 5.0]);
    assert_eq!(scan(ScanKind::Sum, 1, true, true, &x).to_f64(), [5.0, 3.0, 0.0, 1.0, 6.0, 0.0]);
    assert_eq!(scan(ScanKind::Sum, 0, false, false, &x).to_f64(), [1.0, 2.0, 3.0, 5.0, -3.0, 9.0]);
    assert_eq!(scan(ScanKind::Prod, 1, false, true, &x).to_f64(), [1.0, 1.0, 2.0, 1.0, 4.0, -20.0]);
    assert_eq!(scan(ScanKind::Max, 1, false, false, &x).to_f64(), [1.0, 2.0, 3.0, 4.0, 4.0, 6.0]);
    assert_eq!(scan(ScanKind::Min, 1, false, true, &x).to_f64()[0], f32::MAX as f64);
    let x = random(&[3, 5, 2], 9);
    for kind in [ScanKind::Sum, ScanKind::Prod, ScanKind::Max, ScanKind::Min] {
        for exclusive in [false, true] {
            let flipped = scan(kind, 1, false, exclusive, &flip(&x, 1));
            assert_eq!(scan(kind, 1, true, exclusive, &x), flip(&flipped, 1), "reverse = flip ∘ scan ∘ flip");
        }
    }
    assert_eq!(refused(Scan { kind: ScanKind::Sum, axis: 3, reverse: false, exclusive: false }, &[&x]), 1);
}

/// Reverses an axis by gathering.
fn flip(x: &Tensor, axis: usize) -> Tensor {
    let n = x.sizes()[axis] as i32;
    let back = Tensor::i32(&[n as usize], (0..n).rev().collect());
    eval(Gather { axis, batch: 0 }, &[x, &back])
}

#[test]
fn views_move_elements() {
    let x = Tensor::f32(&[2, 3], (0..6).map(|i| i as f32).collect());
    let transposed = eval(Transpose { perm: vec![1, 0] }, &[&x]);
    assert_eq!(transposed.to_f64(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let slice = Slice { start: vec![0, 1], end: vec![2, 3], step: vec![1, 2] };
    assert_eq!(eval(slice, &[&x]).to_f64(), [1.0, 4.0]);
    let empty = Slice { start: vec![1, 0], end: vec![1, 3], step: vec![1, 1] };
    assert_eq!(eval(empty, &[&x]).sizes(), [0, 3]);
    let pad = Pad { padding: vec![(1, 0), (0, 1)], value: F64(9.0) };
    assert_eq!(eval(pad, &[&x]).to_f64(), [9.0, 9.0, 9.0, 9.0, 0.0, 1.0, 2.0, 9.0, 3.0, 4.0, 5.0, 9.0]);
    assert_eq!(eval(Concat { axis: 0 }, &[&x, &x]).to_f64()[5..8], [5.0, 0.0, 1.0]);
    assert_eq!(eval(Concat { axis: 1 }, &[&x, &transposed_to(&x, [2, 1])]).to_f64(), [0., 1., 2., 0., 3., 4., 5., 1.]);
    let v = Tensor::f32(&[3], vec![1.0, 2.0, 3.0]);
    let rows = eval(Broadcast { shape: Shape::new(&[2, 3]), axes: vec![1] }, &[&v]);
    assert_eq!(rows.to_f64(), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
    let columns = eval(Broadcast { shape: Shape::new(&[3, 2]), axes: vec![0] }, &[&v]);
    assert_eq!(columns.to_f64(), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
    let scalar = eval(Reshape { shape: Shape::new(&[]) }, &[&Tensor::f32(&[1, 1], vec![7.0])]);
    let all = eval(Broadcast { shape: Shape::new(&[2, 2]), axes: vec![] }, &[&scalar]);
    assert_eq!(all.to_f64(), [7.0; 4]);
}

/// The first elements under another shape.
fn transposed_to(x: &Tensor, sizes: [usize; 2]) -> Tensor {
    Tensor::f32(&sizes, x.to_f32()[..sizes[0] * sizes[1]].to_vec())
}

#[test]
fn transposing_back_is_the_identity() {
    let x = random(&[2, 3, 1, 4], 4);
    for perm in [vec![3, 1, 0, 2], vec![0, 1, 2, 3], vec![2, 3, 1, 0]] {
        let inverse = (0..4).map(|i| perm.iter().position(|&p| p == i).unwrap()).collect();
        let there = eval(Transpose { perm: perm.clone() }, &[&x]);
        for index in indices(&there.sizes()) {
            let mut from = [0; 4];
            (0..4).for_each(|i| from[perm[i]] = index[i]);
            assert_eq!(there.to_f64()[flat(&there.sizes(), &index)], x.to_f64()[flat(&x.sizes(), &from)]);
        }
        assert_eq!(eval(Transpose { perm: inverse }, &[&there]), x);
    }
}

#[test]
fn view_constraints() {
    let x = random(&[2, 3], 1);
    assert_eq!(refused(Transpose { perm: vec![0, 0] }, &[&x]), 1);
    assert_eq!(refused(Reshape { shape: Shape::new(&[5]) }, &[&x]), 1);
    assert_eq!(refused(Broadcast { shape: Shape::new(&[2, 3]), axes: vec![1, 0] }, &[&x]), 1);
    assert_eq!(refused(Broadcast { shape: Shape::new(&[2, 4]), axes: vec![0, 1] }, &[&x]), 2);
    assert_eq!(refused(Slice { start: vec![0], end: vec![2], step: vec![1] }, &[&x]), 1);
    assert_eq!(refused(Slice { start: vec![0, 0], end: vec![3, 3], step: vec![1, 1] }, &[&x]), 2);
    assert_eq!(refused(Slice { start: vec![0, 0], end: vec![2, 3], step: vec![1, 0] }, &[&x]), 2);
    assert_eq!(refused(Pad { padding: vec![(0, 0)], value: F64(0.0) }, &[&x]), 1);
    let i = Tensor::i32(&[1], vec![1]);
    assert_eq!(refused(Pad { padding: vec![(1, 0)], value: F64(0.5) }, &[&i]), 2);
    assert_eq!(refused(Concat { axis: 0 }, &[&x, &i]), 1);
    assert_eq!(refused(Concat { axis: 0 }, &[]), 0);
}

#[test]
fn symbolic_extents_are_inferred() {
    let ty = |dims: &[&str]| TensorType {
        dtype: DType::F32,
        shape: Shape(dims.iter().map(|d| d.parse::<usize>().map_or((*d).into(), Into::into)).collect()),
    };
    let infer = |op: Op, args: &[&TensorType]| op.infer(args).map(|t| t.to_string());
    let x = ty(&["B", "N", "8"]);
    assert_eq!(infer(Transpose { perm: vec![1, 0, 2] }.into(), &[&x]).unwrap(), "f32[N,B,8]");
    let flat = Shape(vec![&x.shape.0[0] * &x.shape.0[1], 2.into(), 4.into()]);
    assert_eq!(infer(Reshape { shape: flat }.into(), &[&x]).unwrap(), "f32[B*N,2,4]");
    let slice = Slice::of_axis(&x, 2, 2, 5);
    assert_eq!(infer(slice.into(), &[&x]).unwrap(), "f32[B,N,3]");
    let cut = Slice { start: vec![0; 3], end: vec![1, Slice::WHOLE, 8], step: vec![1; 3] };
    assert_eq!(cut.clone().start.len(), 3);
    assert_eq!(Op::from(cut).infer(&[&x]).unwrap_err().constraint, 2);
    assert_eq!(infer(Concat { axis: 1 }.into(), &[&x, &x]).unwrap(), "f32[B,2*N,8]");
    let patches = Window {
        kind: WindowKind::Sum,
        size: vec![2, 2],
        stride: vec![2, 2],
        padding: vec![(0, 0); 2],
        dilation: vec![1, 1],
        groups: 1,
    };
    let image = ty(&["B", "3", "16", "N"]);
    assert!(infer(patches.clone().into(), &[&image]).is_err(), "N/2 is no sum of products");
    let mut even = image.clone();
    even.shape.0[3] = &selvedge_ir::Dim::new(2) * &"W".into();
    assert_eq!(infer(patches.into(), &[&even]).unwrap(), "f32[B,3,8,W]");
    let norm = LayerNorm { eps: F64(1e-6) };
    assert_eq!(infer(norm.into(), &[&x]).unwrap(), "f32[B,N,8]");
    let q = ty(&["B", "4", "N", "8"]);
    let attention = Attention { scale: F64(0.5), causal: true };
    assert_eq!(infer(attention.into(), &[&q, &q, &q]).unwrap(), "f32[B,4,N,8]");
    let rope = Rope { interleaved: true };
    let table = ty(&["N", "8"]);
    assert_eq!(infer(rope.into(), &[&q, &table, &table]).unwrap(), "f32[B,4,N,8]");
    let norm = GroupNorm { groups: 2, eps: F64(1e-6) };
    assert_eq!(infer(norm.into(), &[&ty(&["B", "4", "H", "W"])]).unwrap(), "f32[B,4,H,W]");
}

#[test]
fn gathers_clamp_and_scatters_drop() {
    let x = Tensor::f32(&[3, 2], (0..6).map(|i| i as f32).collect());
    let rows = Tensor::i32(&[4], vec![2, -1, 7, 0]);
    assert_eq!(eval(Gather { axis: 0, batch: 0 }, &[&x, &rows]).to_f64(), [4.0, 5.0, 0.0, 1.0, 4.0, 5.0, 0.0, 1.0]);
    let each = Tensor::i32(&[3, 1], vec![1, 0, 1]);
    let picked = eval(Gather { axis: 1, batch: 1 }, &[&x, &each]);
    assert_eq!((picked.sizes(), picked.to_f64()), (vec![3, 1], vec![1.0, 2.0, 5.0]));
    let updates = Tensor::f32(&[4, 2], vec![10.0, 10.0, 20.0, 20.0, 30.0, 30.0, 40.0, 40.0]);
    let scatter = |kind| eval(Scatter { kind, axis: 0, batch: 0 }, &[&x, &rows, &updates]).to_f64();
    assert_eq!(scatter(ScatterKind::Add), [40.0, 41.0, 2.0, 3.0, 14.0, 15.0]);
    assert_eq!(scatter(ScatterKind::Set), [40.0, 40.0, 2.0, 3.0, 10.0, 10.0]);
    let twice = Tensor::i32(&[4], vec![1, 1, 1, 1]);
    let set = eval(Scatter { kind: ScatterKind::Set, axis: 0, batch: 0 }, &[&x, &twice, &updates]);
    assert_eq!(set.to_f64()[2..4], [40.0, 40.0], "the last update wins");
}

#[test]
fn scatter_mirrors_gather() {
    // Setting at distinct indices what was gathered there changes nothing.
    let x = random(&[2, 3, 5, 2], 8);
    let at = Tensor::i32(&[2, 3], vec![4, 0, 2, 1, 3, 0]);
    for (axis, batch) in [(2, 1), (2, 0), (3, 1)] {
        let indices = if axis == 3 { Tensor::i32(&[2, 2], vec![1, 0, 0, 1]) } else { at.clone() };
        let gathered = eval(Gather { axis, batch }, &[&x, &indices]);
        if batch == 1 {
            let back = eval(Scatter { kind: ScatterKind::Set, axis, batch }, &[&x, &indices, &gathered]);
            assert_eq!(back, x);
        }
        let mut want = Vec::new();
        let (xs, is) = (x.sizes(), indices.sizes());
        for index in self::indices(&gathered.sizes()) {
            // result = x[..axis] ++ indices[batch..] ++ x[axis+1..]
            let mut i = index[..batch].to_vec();
            i.extend(&index[axis..axis + is.len() - batch]);
            let mut from = index[..axis].to_vec();
            from.push(indices.to_f64()[flat(&is, &i)] as usize);
            from.extend(&index[axis + is.len() - batch..]);
            want.push(x.to_f64()[flat(&xs, &from)]);
        }
        assert_eq!(gathered.to_f64(), want);
    }
}

#[test]
fn index_constraints() {
    let (x, i) = (random(&[3, 2], 1), Tensor::i32(&[2], vec![0, 1]));
    assert_eq!(refused(Gather { axis: 2, batch: 0 }, &[&x, &i]), 1);
    assert_eq!(refused(Gather { axis: 1, batch: 1 }, &[&x, &i]), 1);
    assert_eq!(refused(Gather { axis: 0, batch: 0 }, &[&x, &random(&[2], 2)]), 2);
    let scatter = Scatter { kind: ScatterKind::Add, axis: 0, batch: 0 };
    assert_eq!(refused(scatter.clone(), &[&x, &i, &random(&[2, 3], 3)]), 2);
    assert_eq!(refused(scatter, &[&x, &random(&[2], 2), &random(&[2, 2], 3)]), 3);
    assert_eq!(refused(Topk { k: 4, axis: 0, largest: true }, &[&x]), 1);
}

#[test]
fn topk_ties_go_to_the_lowest_index() {
    let x = Tensor::f32(&[2, 4], vec![1.0, 3.0, 3.0, 2.0, 0.0, -0.0, -1.0, -1.0]);
    let topk = |k, axis, largest| eval(Topk { k, axis, largest }, &[&x]).data;
    assert_eq!(topk(3, 1, true), Data::I32(vec![1, 2, 3, 0, 1, 2]));
    assert_eq!(topk(2, 1, false), Data::I32(vec![0, 3, 2, 3]));
    assert_eq!(topk(1, 0, true), Data::I32(vec![0, 0, 0, 0]));
    let u = Tensor::new(TensorType::new(DType::U32, [3]), Data::U32(vec![u32::MAX, 5, u32::MAX - 1]));
    assert_eq!(eval(Topk { k: 2, axis: 0, largest: true }, &[&u]).data, Data::I32(vec![0, 2]));
}

#[test]
fn a_nan_loses_against_numbers() {
    let nan = f32::NAN;
    let x = Tensor::f32(&[2, 3], vec![nan, -1.0, 2.0, nan, nan, nan]);
    let reduce = |kind| eval(Reduce { kind, axes: vec![1] }, &[&x]);
    assert_eq!(reduce(ReduceKind::Max).to_f64(), [2.0, f64::NEG_INFINITY]);
    assert_eq!(reduce(ReduceKind::Min).to_f64(), [-1.0, f64::INFINITY]);
    assert_eq!(reduce(ReduceKind::Argmax).data, Data::I32(vec![2, 0]));
    assert_eq!(reduce(ReduceKind::Argmin).data, Data::I32(vec![1, 0]));
    assert_eq!(eval(Topk { k: 3, axis: 1, largest: true }, &[&x]).data, Data::I32(vec![2, 1, 0, 0, 1, 2]));
    let one = Tensor::f32(&[2], vec![nan, 1.0]);
    let two = Tensor::f32(&[2], vec![1.0, nan]);
    for op in [Binary::Max, Binary::Min] {
        assert_eq!(binary(op, &one, &two).to_f64(), [1.0, 1.0]);
    }
    assert!(unary(Unary::Sign, &one).to_f64()[0].is_nan());
}
