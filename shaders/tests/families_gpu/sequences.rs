//! What takes its elements one after the other: scans and scatters.

use crate::common::gpu::{input, output, run};
use crate::{as_floats, floats, small, words};
use selvedge_shaders::kernels::reduce::Combine;
use selvedge_shaders::kernels::scan::Scan;
use selvedge_shaders::kernels::scatter::{Scatter, Write};
use selvedge_shaders::source::Element;

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
