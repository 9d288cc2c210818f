//! The places of the best: argmax, argmin and top-k, ties and NaNs among them.

use crate::common::gpu::{gpu, input, output, run};
use crate::{small, words};
use selvedge_shaders::kernels::argreduce::{ArgreduceGroup, ArgreduceLane, Search};
use selvedge_shaders::kernels::row::Lanes;
use selvedge_shaders::kernels::topk::{Topk, TopkSelect};
use selvedge_shaders::source::Element;

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
