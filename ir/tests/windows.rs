//! Windows against a plain loop over taps, and what they refuse.

mod common;
use common::*;
use selvedge_ir::Tensor;
use selvedge_ir::ops::*;

fn window(kind: WindowKind, size: [usize; 2]) -> Window {
    let [s, p, d] = [vec![1, 1], vec![0, 0], vec![1, 1]];
    Window {
        kind,
        size: size.to_vec(),
        stride: s,
        padding: p.iter().map(|&p| (p, p)).collect(),
        dilation: d,
        groups: 1,
    }
}

/// Every result element by its definition: one loop a tap, with the padding tested for each.
fn naive_window(op: &Window, x: &Tensor, kernel: Option<&Tensor>) -> Vec<f64> {
    let infer: Vec<_> = [Some(x), kernel].into_iter().flatten().map(|t| &t.ty).collect();
    let out = Op::from(op.clone()).infer(&infer).unwrap().shape.sizes();
    let (xs, values) = (x.sizes(), x.to_f64());
    let mut y = Vec::new();
    for index in indices(&out) {
        let per_group = xs[1] / op.groups;
        let channels = match op.kind {
            WindowKind::Conv => {
                let group = index[1] / (out[1] / op.groups);
                group * per_group..(group + 1) * per_group
            }
            WindowKind::Sum | WindowKind::Max => index[1]..index[1] + 1,
        };
        let mut total = if op.kind == WindowKind::Max { f64::NEG_INFINITY } else { 0.0 };
        for c in channels.clone() {
            for tap in indices(&op.size) {
                let at: Vec<i64> = (0..op.size.len())
                    .map(|a| (index[a + 2] * op.stride[a] + tap[a] * op.dilation[a]) as i64 - op.padding[a].0 as i64)
                    .collect();
                if (0..at.len()).any(|a| at[a] < 0 || at[a] >= xs[a + 2] as i64) {
                    continue;
                }
                let mut from = vec![index[0], c];
                from.extend(at.iter().map(|&i| i as usize));
                let value = values[flat(&xs, &from)];
                match kernel {
                    Some(kernel) => {
                        let mut w = vec![index[1], c - channels.start];
                        w.extend(&tap);
                        total += value * kernel.to_f64()[flat(&kernel.sizes(), &w)];
                    }
                    None if op.kind == WindowKind::Max => total = total.max(value),
                    None => total += value,
                }
            }
        }
        y.push(total);
    }
    y
}

#[test]
fn windows_equal_plain_loops() {
    let x = random(&[2, 4, 7, 6], 3);
    let variants = [
        (vec![1, 1], vec![(0, 0), (0, 0)], vec![1, 1]),
        (vec![2, 3], vec![(1, 0), (0, 1)], vec![1, 1]),
        (vec![1, 2], vec![(2, 2), (1, 1)], vec![2, 2]),
    ];
    for (stride, padding, dilation) in variants {
        for (kind, groups) in [
            (WindowKind::Conv, 1),
            (WindowKind::Conv, 2),
            (WindowKind::Conv, 4),
            (WindowKind::Sum, 1),
            (WindowKind::Max, 1),
        ] {
            let (stride, padding, dilation) = (stride.clone(), padding.clone(), dilation.clone());
            let op = Window { kind, size: vec![3, 2], stride, padding, dilation, groups };
            if kind == WindowKind::Conv {
                let kernel = random(&[8, 4 / groups, 3, 2], 4);
                close(&eval(op.clone(), &[&x, &kernel]), &naive_window(&op, &x, Some(&kernel)), 1e-5);
            } else {
                close(&eval(op.clone(), &[&x]), &naive_window(&op, &x, None), 1e-6);
            }
        }
    }
    // One spatial axis and three.
    let line = Window {
        stride: vec![2],
        padding: vec![(1, 1)],
        dilation: vec![1],
        size: vec![3],
        ..window(WindowKind::Sum, [1, 1])
    };
    let x = random(&[1, 2, 8], 5);
    close(&eval(line.clone(), &[&x]), &naive_window(&line, &x, None), 1e-6);
    let cube = Window {
        kind: WindowKind::Conv,
        size: vec![2, 1, 2],
        stride: vec![1, 2, 1],
        padding: vec![(0, 1); 3],
        dilation: vec![1; 3],
        groups: 1,
    };
    let (x, kernel) = (random(&[1, 2, 3, 4, 3], 6), random(&[3, 2, 2, 1, 2], 7));
    close(&eval(cube.clone(), &[&x, &kernel]), &naive_window(&cube, &x, Some(&kernel)), 1e-5);
}

#[test]
fn window_constraints() {
    let (x, kernel) = (random(&[1, 4, 5, 5], 1), random(&[2, 4, 3, 3], 2));
    let conv = window(WindowKind::Conv, [3, 3]);
    assert_eq!(refused(Window { stride: vec![1], ..conv.clone() }, &[&x, &kernel]), 1);
    assert_eq!(refused(conv.clone(), &[&x]), 2);
    assert_eq!(refused(window(WindowKind::Max, [3, 3]), &[&x, &kernel]), 2);
    assert_eq!(refused(Window { size: vec![3, 2], ..conv.clone() }, &[&x, &kernel]), 2);
    assert_eq!(refused(Window { groups: 2, ..conv.clone() }, &[&x, &kernel]), 3);
    assert_eq!(refused(Window { groups: 3, ..conv.clone() }, &[&x, &kernel]), 3);
    assert_eq!(refused(Window { stride: vec![0, 1], ..conv.clone() }, &[&x, &kernel]), 4);
    assert_eq!(refused(Window { dilation: vec![3, 1], ..conv }, &[&x, &kernel]), 4);
    let wide = Window { padding: vec![(3, 0), (0, 0)], ..window(WindowKind::Max, [3, 3]) };
    assert_eq!(refused(wide, &[&x]), 5);
}
