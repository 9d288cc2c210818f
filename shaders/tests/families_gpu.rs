//! Every family on the device against plain loops.

mod common;

use common::gpu::{gpu, input, output, run};
use selvedge_shaders::kernel::Kernel;
use selvedge_shaders::kernels::argreduce::{ArgreduceGroup, ArgreduceLane, Search};
use selvedge_shaders::kernels::contract::{BOrder, Contract, Product};
use selvedge_shaders::kernels::contract_shared::ContractShared;
use selvedge_shaders::kernels::contract_subgroup::ContractSubgroup;
use selvedge_shaders::kernels::map::Map;
use selvedge_shaders::kernels::reduce::{Combine, ReduceGroup, ReduceLane, Reduction};
use selvedge_shaders::kernels::row::{Lanes, RowReduce};
use selvedge_shaders::kernels::scan::Scan;
use selvedge_shaders::kernels::scatter::{Scatter, Write};
use selvedge_shaders::kernels::topk::{Topk, TopkSelect};
use selvedge_shaders::source::Element;

/// Reproducible words.
fn words(count: usize, seed: u32) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let x = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
        (x >> 22) ^ x
    };
    (0..count).map(|_| next()).collect()
}

/// Floats in -1..1.
fn floats(count: usize, seed: u32) -> Vec<f32> {
    words(count, seed).into_iter().map(|w| (w >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Small integers, with many ties.
fn small(count: usize, seed: u32) -> Vec<i32> {
    words(count, seed).into_iter().map(|w| (w % 7) as i32 - 3).collect()
}

fn as_floats(words: &[u32]) -> Vec<f32> {
    words.iter().map(|&w| f32::from_bits(w)).collect()
}

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
fn grids_larger_than_one_dimension_fold() {
    let count = 65_535 * 3 + 2;
    let hook = "fn element(i: u32) { b0[i >> 2u][i & 3u] = i * 3u; }";
    let got = run(&Map { count, wg: 1 }, hook, &[output(&vec![0u32; count as usize])]);
    assert!(got.iter().enumerate().all(|(i, &x)| x == i as u32 * 3));
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
fn argreductions_take_the_first_of_equals() {
    for (rows, len) in [(1u32, 1u32), (9, 50), (70, 3), (2, 1000)] {
        let data = small((rows * len) as usize, rows);
        let hooks = format!(
            "fn load(row: u32, k: u32) -> A {{ let i = row * {len}u + k; return A(bitcast<i32>(b0[i >> 2u][i & 3u])); }}
             fn store(row: u32, index: i32) {{ b1[row >> 2u][row & 3u] = bitcast<u32>(index); }}
             fn partial(row: u32) -> i32 {{ return bitcast<i32>(b1[row >> 2u][row & 3u]); }}"
        );
        for largest in [true, false] {
            let best = |row: &[i32]| {
                let best = if largest { row.iter().max() } else { row.iter().min() }.expect("not empty");
                row.iter().position(|x| x == best).expect("it is there") as u32
            };
            let want: Vec<u32> = data.chunks(len as usize).map(best).collect();
            for element in [Element::F32, Element::I32] {
                for bounds in [vec![0, len], vec![0, len.div_ceil(3), len]] {
                    let (mut lane, mut group) = (vec![0u32; rows as usize], vec![0u32; rows as usize]);
                    for part in bounds.windows(2).filter(|p| p[0] < p[1]) {
                        let search = Search { from: part[0], to: part[1], ..Search::new(rows, len, largest, element) };
                        lane = run(&ArgreduceLane::new(search), &hooks, &[input(&data), output(&lane)]);
                        group = run(&ArgreduceGroup::new(search), &hooks, &[input(&data), output(&group)]);
                    }
                    assert_eq!(lane, want, "{rows} x {len}, largest {largest}");
                    assert_eq!(group, want, "{rows} x {len}, largest {largest}");
                }
            }
        }
    }
}

/// Hooks of a product: A [batch, M, K] in b0, B in b1 as its order says, C [batch, M, N] in b2. Rows of A and B are
/// padded to fours, with zeros.
fn product_hooks(p: &Product) -> String {
    let Product { m, n, k, .. } = *p;
    let b = match p.b_order {
        BOrder::KContiguous => format!("let i = (batch * {n}u + n) * {} + k;", k.next_multiple_of(4)),
        BOrder::NContiguous => {
            format!(
                "if k >= {k}u {{ return vec4<f32>(); }} let i = (batch * {k}u + k) * {} + n;",
                n.next_multiple_of(4)
            )
        }
    };
    format!(
        "fn row_a(batch: u32, m: u32) -> u32 {{ return 0u; }}
         fn column_b(batch: u32, n: u32) -> u32 {{ return 0u; }}
         fn load_a(row: u32, batch: u32, m: u32, k: u32) -> vec4<f32> {{
             let i = (batch * {m}u + m) * {} + k;
             return bitcast<vec4<f32>>(b0[i >> 2u]);
         }}
         fn load_b(column: u32, batch: u32, k: u32, n: u32) -> vec4<f32> {{ {b} return bitcast<vec4<f32>>(b1[i >> 2u]); }}
         fn store(batch: u32, m: u32, n: u32, value: vec4<f32>) {{
             for (var j = 0u; j < min(4u, {n}u - n); j++) {{
                 let i = (batch * {m}u + m) * {n}u + n + j;
                 b2[i >> 2u][i & 3u] = bitcast<u32>(value[j]);
             }}
         }}
         fn partial(batch: u32, m: u32, n: u32) -> vec4<f32> {{
             var four = vec4<f32>();
             for (var j = 0u; j < min(4u, {n}u - n); j++) {{
                 let i = (batch * {m}u + m) * {n}u + n + j;
                 four[j] = bitcast<f32>(b2[i >> 2u][i & 3u]);
             }}
             return four;
         }}",
        k.next_multiple_of(4)
    )
}

/// Rows of `len` elements with zeros up to a multiple of four.
fn padded(data: &[f32], len: u32) -> Vec<f32> {
    let mut out = Vec::new();
    for row in data.chunks(len as usize) {
        out.extend(row);
        out.resize(out.len().next_multiple_of(4), 0.0);
    }
    out
}

fn check_product(product: Product, kernel_of: &dyn Fn(Product) -> Box<dyn Kernel>, chunks: &[u32]) {
    let Product { batch, m, n, k, .. } = product;
    let a = floats((batch * m * k) as usize, m);
    let b = floats((batch * n * k) as usize, n + 1000);
    // Elements that are not stored keep this value.
    let mut c = vec![0x7fc0_0000u32; (batch * m * n) as usize];
    let (device_a, device_b) = match product.b_order {
        BOrder::KContiguous => (padded(&a, k), padded(&b, k)),
        BOrder::NContiguous => (padded(&a, k), padded(&b, n)),
    };
    for part in chunks.windows(2) {
        let kernel = kernel_of(Product { from: part[0], to: part[1], ..product });
        c = run(&*kernel, &product_hooks(&product), &[input(&device_a), input(&device_b), output(&c)]);
    }
    let (mut error, mut norm) = (0.0f64, 0.0f64);
    for (i, &word) in c.iter().enumerate() {
        let (batch, row, column) = (i as u32 / (m * n), i as u32 / n % m, i as u32 % n);
        let want: f64 = (0..k)
            .map(|kk| {
                let x = a[((batch * m + row) * k + kk) as usize] as f64;
                let at = match product.b_order {
                    BOrder::KContiguous => (batch * n + column) * k + kk,
                    BOrder::NContiguous => (batch * k + kk) * n + column,
                };
                x * b[at as usize] as f64
            })
            .sum();
        let got = f32::from_bits(word) as f64;
        error = error.max((got - want).abs());
        norm = norm.max(want.abs());
        assert!(!got.is_nan(), "{product:?}: element {i} was not stored");
    }
    assert!(error <= 1e-6 * norm.max(1.0), "{product:?}: error {error:e} of {norm}");
}

#[test]
fn contractions_match_f64() {
    let width = gpu().subgroup;
    for b_order in [BOrder::KContiguous, BOrder::NContiguous] {
        for (batch, m, n, k) in [(1, 1, 1, 1), (1, 5, 6, 7), (2, 64, 64, 32), (3, 67, 33, 50), (1, 9, 130, 200)] {
            let product = Product::new(batch, m, n, k, b_order);
            check_product(product, &|p| Box::new(Contract::new(p)), &[0, k]);
            check_product(
                product,
                &|p| Box::new(Contract { rm: 3, rn: 4, wg_m: 2, wg_n: 4, ..Contract::new(p) }),
                &[0, k],
            );
            check_product(product, &|p| Box::new(ContractShared::new(p)), &[0, k]);
            let odd = |p| -> Box<dyn Kernel> {
                Box::new(ContractShared { rm: 3, rn: 4, bk: 12, wg_m: 2, wg_n: 4, ..ContractShared::new(p) })
            };
            check_product(product, &odd, &[0, k]);
            let sliced = [(2, 4, 32, 1, 8, 8), (5, 8, 24, 1, 4, 3), (1, 4, 64, 2, 2, 16)];
            for (rm, rn, bk, wg_m, wg_n, slices) in sliced.into_iter().filter(|_| [5, 9].contains(&m)) {
                let sliced = move |product| -> Box<dyn Kernel> {
                    Box::new(ContractShared { product, rm, rn, bk, wg_m, wg_n, slices })
                };
                check_product(product, &sliced, &[0, k]);
            }
            if let Some(width) = width {
                check_product(product, &|p| Box::new(ContractSubgroup::new(p, width)), &[0, k]);
                let odd = move |p| -> Box<dyn Kernel> {
                    Box::new(ContractSubgroup { rm: 11, rn: 4, ..ContractSubgroup::new(p, width) })
                };
                check_product(product, &odd, &[0, k]);
            }
        }
        let product = Product::new(2, 19, 21, 45, b_order);
        check_product(product, &|p| Box::new(Contract::new(p)), &[0, 16, 40, 45]);
        check_product(product, &|p| Box::new(ContractShared::new(p)), &[0, 16, 40, 45]);
        let sliced = |p| -> Box<dyn Kernel> {
            Box::new(ContractShared { rm: 4, rn: 4, wg_m: 2, wg_n: 4, slices: 4, ..ContractShared::new(p) })
        };
        check_product(product, &sliced, &[0, 16, 40, 45]);
        if let Some(width) = width {
            check_product(product, &|p| Box::new(ContractSubgroup::new(p, width)), &[0, 16, 40, 45]);
            let double = move |p| -> Box<dyn Kernel> {
                Box::new(ContractSubgroup { rm: 12, fours: 2, ..ContractSubgroup::new(p, width) })
            };
            check_product(Product::new(2, 19, 70, 48, b_order), &double, &[0, 16, 40, 48]);
        }
    }
}

#[test]
fn scans_run_in_order() {
    let (rows, len) = (3usize, 29usize);
    let data = small(rows * len, 11);
    let hooks = format!(
        "fn load(row: u32, k: u32) -> A {{ let i = row * {len}u + k; return bitcast<i32>(b0[i >> 2u][i & 3u]); }}
         fn store(row: u32, k: u32, value: A) {{ let i = row * {len}u + k; b1[i >> 2u][i & 3u] = bitcast<u32>(value); }}
         fn partial(row: u32) -> A {{
             let i = row * {len}u + select(FROM - 1u, LEN - FROM, REVERSE);
             return bitcast<i32>(b1[i >> 2u][i & 3u]);
         }}"
    )
    // `FROM - 1u` must not be a constant expression that overflows.
    .replace("FROM - 1u", "max(FROM, 1u) - 1u");
    for kind in Combine::ALL {
        for (reverse, exclusive) in [(false, false), (false, true), (true, false), (true, true)] {
            let (neutral, combine): (i32, fn(i32, i32) -> i32) = match kind {
                Combine::Sum => (0, i32::wrapping_add),
                Combine::Prod => (1, i32::wrapping_mul),
                Combine::Max => (i32::MIN, i32::max),
                Combine::Min => (i32::MAX, i32::min),
            };
            let mut want = vec![0i32; rows * len];
            for row in 0..rows {
                let mut value = neutral;
                for place in 0..len {
                    let i = row * len + if reverse { len - 1 - place } else { place };
                    let after = combine(value, data[i]);
                    want[i] = if exclusive { value } else { after };
                    value = after;
                }
            }
            for bounds in [vec![0, len as u32], vec![0, 10, 28, len as u32]] {
                let mut got = vec![0u32; rows * len];
                for part in bounds.windows(2) {
                    let whole = Scan::new(rows as u32, len as u32, kind, Element::I32);
                    let scan = Scan { from: part[0], to: part[1], reverse, exclusive, ..whole };
                    got = run(&scan, &hooks, &[input(&data), output(&got)]);
                }
                let got: Vec<i32> = got.iter().map(|&x| x as i32).collect();
                assert_eq!(got, want, "{kind:?} reverse {reverse} exclusive {exclusive} {bounds:?}");
            }
        }
    }
}

#[test]
fn scatter_applies_updates_in_order() {
    let (count, updates) = (20usize, 31usize);
    let target: Vec<u32> = words(updates, 5).iter().map(|w| w % 25).collect();
    let values = floats(updates, 6);
    let first = floats(count, 7);
    let hooks = "fn initial(i: u32) -> A { return bitcast<f32>(b2[i >> 2u][i & 3u]); }
         fn hits(i: u32, j: u32) -> bool { return b0[j >> 2u][j & 3u] == i; }
         fn update(i: u32, j: u32) -> A { return bitcast<f32>(b1[j >> 2u][j & 3u]); }
         fn store(i: u32, value: A) { b2[i >> 2u][i & 3u] = bitcast<u32>(value); }";
    for kind in [Write::Add, Write::Set] {
        let mut want = first.clone();
        for (&i, &x) in target.iter().zip(&values) {
            if let Some(slot) = want.get_mut(i as usize) {
                *slot = if kind == Write::Add { *slot + x } else { x };
            }
        }
        for bounds in [vec![0, updates as u32], vec![0, 7, updates as u32]] {
            let mut got: Vec<u32> = first.iter().map(|x| x.to_bits()).collect();
            for part in bounds.windows(2) {
                let whole = Scatter::new(count as u32, updates as u32, kind, Element::F32);
                let scatter = Scatter { from: part[0], to: part[1], ..whole };
                got = run(&scatter, hooks, &[input(&target), input(&values), output(&got)]);
            }
            assert_eq!(as_floats(&got), want, "{kind:?} {bounds:?}");
        }
    }
}

#[test]
fn topk_ranks_with_ties() {
    for (rows, len, k) in [(1usize, 1usize, 1usize), (4, 37, 5), (3, 20, 20)] {
        let data = small(rows * len, 21);
        let hooks = format!(
            "fn load(row: u32, k: u32) -> A {{ let i = row * {len}u + k; return A(bitcast<i32>(b0[i >> 2u][i & 3u])); }}
             fn store(row: u32, rank: u32, index: i32) {{ let i = row * {k}u + rank; b1[i >> 2u][i & 3u] = bitcast<u32>(index); }}
             fn partial(row: u32, i: u32) -> u32 {{ let j = {at}u + row * {len}u + i; return b1[j >> 2u][j & 3u]; }}
             fn carry(row: u32, i: u32, count: u32) {{ let j = {at}u + row * {len}u + i; b1[j >> 2u][j & 3u] = count; }}",
            at = rows * k
        );
        for largest in [true, false] {
            let mut want = Vec::new();
            for row in data.chunks(len) {
                let mut order: Vec<usize> = (0..len).collect();
                order.sort_by_key(|&i| if largest { -row[i] } else { row[i] });
                want.extend(order[..k].iter().map(|&i| i as u32));
            }
            for element in [Element::F32, Element::I32] {
                for bounds in [vec![0, len as u32], vec![0, len as u32 / 3, len as u32]] {
                    let mut got = vec![9999u32; rows * k + rows * len];
                    for part in bounds.windows(2).filter(|p| p[0] < p[1]) {
                        let whole = Topk::new(rows as u32, len as u32, k as u32, largest, element);
                        let topk = Topk { from: part[0], to: part[1], ..whole };
                        got = run(&topk, &hooks, &[input(&data), output(&got)]);
                    }
                    assert_eq!(got[..rows * k], want, "{rows} x {len}, k {k}, largest {largest}");
                }
            }
        }
    }
}

/// `load` by fours of words of `b0`, and `store`, of a selection.
fn select_hooks(len: usize, k: usize, convert: &str) -> String {
    let word = |lane: u32| format!("word(row * {len}u + min(quad * 4u + {lane}u, {len}u - 1u))");
    format!(
        "fn word(i: u32) -> A {{ return {convert}(b0[i >> 2u][i & 3u]); }}
         fn load(row: u32, quad: u32) -> vec4<A> {{ return vec4<A>({}, {}, {}, {}); }}
         fn store(row: u32, rank: u32, index: i32) {{ let i = row * {k}u + rank; b1[i >> 2u][i & 3u] = bitcast<u32>(index); }}",
        word(0),
        word(1),
        word(2),
        word(3)
    )
}

/// Every way to share a row.
fn shared_lanes() -> Vec<Lanes> {
    let subgroup = gpu().subgroup.map(|width| Lanes::Subgroup { width });
    [Lanes::Group { wg: 32 }, Lanes::Group { wg: 1 }].into_iter().chain(subgroup).collect()
}

#[test]
fn selections_agree_with_sorting() {
    const ELEMENTS: [(Element, &str); 3] =
        [(Element::F32, "f32(bitcast<i32>"), (Element::I32, "(bitcast<i32>"), (Element::U32, "(")];
    let shapes = [(1usize, 1usize, 1usize), (4, 37, 5), (3, 20, 20), (5, 300, 70), (2, 1024, 64), (70, 5, 2)];
    for (i, (rows, len, k)) in shapes.into_iter().enumerate() {
        for (round, range) in [7u32, 100_000, 1].into_iter().enumerate() {
            let word = |w: u32| (w % range).wrapping_sub(range / 2);
            let data: Vec<u32> = words(rows * len, 77).into_iter().map(word).collect();
            let (element, convert) = ELEMENTS[(i + round) % 3];
            let hooks = select_hooks(len, k, convert).replace("[i & 3u]);", "[i & 3u]));");
            let value = |x: u32| if element == Element::U32 { x as i64 } else { x as i32 as i64 };
            for largest in [true, false] {
                let mut want = Vec::new();
                for row in data.chunks(len) {
                    let mut order: Vec<usize> = (0..len).collect();
                    order.sort_by_key(|&i| if largest { -value(row[i]) } else { value(row[i]) });
                    want.extend(order[..k].iter().map(|&i| i as u32));
                }
                for lanes in shared_lanes() {
                    let [rows, len, k] = [rows, len, k].map(|x| x as u32);
                    let kernel = TopkSelect { rows, len, k, largest, element, lanes, rolled: round % 2 == 0 };
                    let got = run(&kernel, &hooks, &[input(&data), output(&vec![9999u32; want.len()])]);
                    assert_eq!(got, want, "{rows} x {len}, k {k}, largest {largest}, {element:?}, {lanes}");
                }
            }
        }
    }
}

#[test]
fn selections_take_zeros_infinities_and_nans_in_order() {
    let infinity = f32::INFINITY;
    let data = [f32::NAN, 0.0, -0.0, 3.0, -f32::NAN, -infinity, infinity, -2.0, f32::MIN_POSITIVE, -infinity, f32::NAN];
    for (largest, want) in [(true, [6, 3, 8, 1, 2, 7, 0, 4, 5, 9, 10]), (false, [5, 9, 7, 1, 2, 8, 3, 0, 4, 6, 10])] {
        for lanes in shared_lanes() {
            for k in [1usize, 4, 8, 11] {
                let element = Element::F32;
                let kernel = TopkSelect { rows: 1, len: 11, k: k as u32, largest, element, lanes, rolled: true };
                let hooks = select_hooks(11, k, "bitcast<f32>");
                let got = run(&kernel, &hooks, &[input(&data), output(&vec![99u32; k])]);
                assert_eq!(got, want[..k], "largest {largest}, {lanes}");
            }
        }
    }
}

#[test]
fn nans_count_as_the_worst() {
    let data = [f32::NAN, 1.0, 3.0, f32::NAN, f32::NEG_INFINITY, 3.0, -2.0];
    let hooks = "fn load(row: u32, k: u32) -> A { return bitcast<f32>(b0[k >> 2u][k & 3u]); }
         fn store(row: u32, rank: u32, index: i32) { b1[rank >> 2u][rank & 3u] = bitcast<u32>(index); }
         fn partial(row: u32, i: u32) -> u32 { return 0u; }
         fn carry(row: u32, i: u32, count: u32) {}";
    let topk = Topk::new(1, 7, 7, true, Element::F32);
    assert_eq!(run(&topk, hooks, &[input(&data), output(&[9u32; 7])]), [2, 5, 1, 6, 0, 3, 4]);
    let hooks = "fn load(row: u32, k: u32) -> A { return bitcast<f32>(b0[k >> 2u][k & 3u]); }
         fn store(row: u32, index: i32) { b1[0][0] = bitcast<u32>(index); }
         fn partial(row: u32) -> i32 { return 0; }";
    for (largest, want) in [(true, 2), (false, 4)] {
        let search = Search::new(1, 7, largest, Element::F32);
        assert_eq!(run(&ArgreduceLane::new(search), hooks, &[input(&data), output(&[9u32])]), [want]);
        assert_eq!(run(&ArgreduceGroup::new(search), hooks, &[input(&data), output(&[9u32])]), [want]);
    }
}
