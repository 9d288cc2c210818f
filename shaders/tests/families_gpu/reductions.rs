//! Sums, products and extremes of rows and columns.

use crate::common::gpu::{gpu, input, output, run};
use crate::{as_floats, floats, words};
use selvedge_shaders::kernel::Kernel;
use selvedge_shaders::kernels::column::ColumnReduce;
use selvedge_shaders::kernels::reduce::{Combine, ReduceGroup, ReduceLane, Reduction};
use selvedge_shaders::kernels::row::{Lanes, RowReduce};
use selvedge_shaders::source::Element;

/// A word as the register type `A`, and back.
const FROM_F32: (&str, &str) = ("bitcast<f32>", "bitcast<u32>");
const FROM_I32: (&str, &str) = ("bitcast<i32>", "bitcast<u32>");
const FROM_U32: (&str, &str) = ("u32", "u32");

/// `load`, `store` and `partial` of a reduction from b0 into b1.
fn reduction_hooks(len: u32, (from, to): (&str, &str)) -> String {
    format!(
        "fn load(row: u32, k: u32) -> A {{ let i = row * {len}u + k; return {from}(b0[i >> 2u][i & 3u]); }}
         fn store(row: u32, value: A) {{ b1[row >> 2u][row & 3u] = {to}(value); }}
         fn partial(row: u32) -> A {{ return {from}(b1[row >> 2u][row & 3u]); }}"
    )
}

/// As [`reduction_hooks`], by fours.
fn fours_hooks(len: u32, (from, to): (&str, &str)) -> String {
    let hooks = reduction_hooks(len, (from, to)).replace("fn load(", "fn word(");
    let word = |lane: u32| format!("word(row, min(quad * 4u + {lane}u, {len}u - 1u))");
    format!(
        "{hooks}\nfn load(row: u32, quad: u32) -> vec4<A> {{ return vec4<A>({}, {}, {}, {}); }}",
        word(0),
        word(1),
        word(2),
        word(3)
    )
}

/// Every kernel that reduces rows which are not empty, and the hooks of each.
fn reducers(reduction: Reduction, convert: (&str, &str)) -> Vec<(Box<dyn Kernel>, String)> {
    let words = reduction_hooks(reduction.len, convert);
    let mut all: Vec<(Box<dyn Kernel>, String)> =
        vec![(Box::new(ReduceLane::new(reduction)), words.clone()), (Box::new(ReduceGroup::new(reduction)), words)];
    let mut lanes = vec![Lanes::One { wg: 64 }, Lanes::Group { wg: 32 }, Lanes::Group { wg: 1 }];
    lanes.extend(gpu().subgroup.map(|width| Lanes::Subgroup { width }));
    for (i, lanes) in lanes.into_iter().enumerate() {
        let kernel = RowReduce { reduction, lanes, rolled: i % 2 == 0 };
        all.push((Box::new(kernel), fours_hooks(reduction.len, convert)));
    }
    all
}

#[test]
fn float_reductions_match_f64() {
    for (rows, len) in [(1, 1), (5, 33), (130, 7), (3, 1152), (2, 20_000)] {
        let data = floats((rows * len) as usize, len);
        for kind in Combine::ALL {
            let reduction = Reduction::new(rows, len, kind, Element::F32);
            for (kernel, hooks) in reducers(reduction, FROM_F32) {
                let buffers = [input(&data), output(&vec![0u32; rows as usize])];
                let got = as_floats(&run(&*kernel, &hooks, &buffers));
                for (row, &got) in data.chunks(len as usize).zip(&got) {
                    let exact = row.iter().map(|&x| x as f64);
                    let (want, bound) = match kind {
                        Combine::Sum => (exact.sum(), row.iter().map(|x| x.abs() as f64).sum::<f64>() * 1e-6),
                        Combine::Prod => (exact.product(), row.len() as f64 * 1e-7),
                        Combine::Max => (exact.fold(f64::NEG_INFINITY, f64::max), 0.0),
                        Combine::Min => (exact.fold(f64::INFINITY, f64::min), 0.0),
                    };
                    assert!((got as f64 - want).abs() <= bound, "{kind:?} of {rows} x {len}: {got} {want}");
                }
            }
        }
    }
}

#[test]
fn sums_of_many_equal_values_stay_accurate() {
    let len = 50_000u32;
    let data = vec![0.1f32; len as usize];
    let reduction = Reduction::new(1, len, Combine::Sum, Element::F32);
    for (kernel, hooks) in reducers(reduction, FROM_F32) {
        let got = run(&*kernel, &hooks, &[input(&data), output(&[0u32])]);
        let (got, want) = (f32::from_bits(got[0]) as f64, 0.1f32 as f64 * len as f64);
        assert!((got / want - 1.0).abs() < 3e-5, "{got} {want}");
    }
}

#[test]
fn integer_reductions_are_exact_and_chunks_continue() {
    let (rows, len) = (5u32, 77u32);
    let data = words((rows * len) as usize, 3);
    for kind in Combine::ALL {
        let fold = |row: &[u32], signed: bool| -> u32 {
            let combine = |a: u32, b: u32| match (kind, signed) {
                (Combine::Sum, _) => a.wrapping_add(b),
                (Combine::Prod, _) => a.wrapping_mul(b),
                (Combine::Max, false) => a.max(b),
                (Combine::Min, false) => a.min(b),
                (Combine::Max, true) => (a as i32).max(b as i32) as u32,
                (Combine::Min, true) => (a as i32).min(b as i32) as u32,
            };
            row.iter().copied().reduce(combine).expect("not empty")
        };
        for (element, convert) in [(Element::I32, FROM_I32), (Element::U32, FROM_U32)] {
            let want: Vec<u32> = data.chunks(len as usize).map(|r| fold(r, element == Element::I32)).collect();
            let parts = |split: &[u32]| -> Vec<Reduction> {
                let whole = Reduction::new(rows, len, kind, element);
                split.windows(2).map(|part| Reduction { from: part[0], to: part[1], ..whole }).collect()
            };
            let count = reducers(Reduction::new(rows, len, kind, element), convert).len();
            for i in 0..count {
                let mut result = vec![0u32; rows as usize];
                // Fours begin at multiples of 4.
                for reduction in parts(if i < 2 { &[0, 13, 76, 77] } else { &[0, 12, 36, 76, 77] }) {
                    let (kernel, hooks) = reducers(reduction, convert).swap_remove(i);
                    result = run(&*kernel, &hooks, &[input(&data), output(&result)]);
                }
                assert_eq!(result, want, "{kind:?} {element:?}");
            }
        }
    }
}

#[test]
fn empty_rows_give_the_neutral_element() {
    let hooks = reduction_hooks(0, FROM_F32);
    for (kind, want) in [(Combine::Sum, 0.0f32), (Combine::Prod, 1.0)] {
        let reduction = Reduction::new(3, 0, kind, Element::F32);
        let buffers = [input(&[0u32]), output(&[7u32; 3])];
        assert_eq!(as_floats(&run(&ReduceLane::new(reduction), &hooks, &buffers)), [want; 3]);
        assert_eq!(as_floats(&run(&ReduceGroup::new(reduction), &hooks, &buffers)), [want; 3]);
    }
}

#[test]
fn columns_match_plain_loops_and_chunks_continue() {
    let mut all = vec![Lanes::One { wg: 64 }, Lanes::Group { wg: 32 }, Lanes::Group { wg: 1 }];
    all.extend(gpu().subgroup.map(|width| Lanes::Subgroup { width }));
    for (columns, len) in [(4u32, 1u32), (8, 77), (260, 5), (36, 3000)] {
        let data = floats((columns * len) as usize, len);
        let integers = words(data.len(), 9);
        let hooks = |a: &str| {
            format!(
                "fn load(quad: u32, k: u32) -> vec4<A> {{ return bitcast<vec4<{a}>>(b0[k * {}u + quad]); }}
                 fn store(quad: u32, value: vec4<A>) {{ b1[quad] = bitcast<vec4<u32>>(value); }}
                 fn partial(quad: u32) -> vec4<A> {{ return bitcast<vec4<{a}>>(b1[quad]); }}",
                columns / 4
            )
        };
        let bounds = if len > 40 { vec![0, 13, 40, len] } else { vec![0, len] };
        for (i, kind) in Combine::ALL.into_iter().enumerate() {
            for (j, lanes) in all.iter().copied().enumerate() {
                let over = |element, data: &[u32]| {
                    let mut result = vec![0u32; columns as usize];
                    for part in bounds.windows(2) {
                        let whole = Reduction::new(columns, len, kind, element);
                        let reduction = Reduction { from: part[0], to: part[1], ..whole };
                        let kernel = ColumnReduce { reduction, lanes, rolled: (i + j) % 2 == 0 };
                        result = run(&kernel, &hooks(element.wgsl()), &[input(data), output(&result)]);
                    }
                    result
                };
                let bits: Vec<u32> = data.iter().map(|x| x.to_bits()).collect();
                let got = as_floats(&over(Element::F32, &bits));
                let exact = over(Element::U32, &integers);
                for c in 0..columns as usize {
                    let column = || data.iter().skip(c).step_by(columns as usize).map(|&x| x as f64);
                    let (want, bound) = match kind {
                        Combine::Sum => (column().sum(), column().map(f64::abs).sum::<f64>() * 1e-6),
                        Combine::Prod => (column().product(), len as f64 * 1e-7),
                        Combine::Max => (column().fold(f64::NEG_INFINITY, f64::max), 0.0),
                        Combine::Min => (column().fold(f64::INFINITY, f64::min), 0.0),
                    };
                    let far = (got[c] as f64 - want).abs();
                    assert!(far <= bound, "{kind:?} of {columns} x {len}, {lanes}: {} {want}", got[c]);
                    let column = integers.iter().skip(c).step_by(columns as usize).copied();
                    let want = match kind {
                        Combine::Sum => column.reduce(u32::wrapping_add),
                        Combine::Prod => column.reduce(u32::wrapping_mul),
                        Combine::Max => column.max(),
                        Combine::Min => column.min(),
                    };
                    assert_eq!(Some(exact[c]), want, "{kind:?} of {columns} x {len}, {lanes}");
                }
            }
        }
    }
}
