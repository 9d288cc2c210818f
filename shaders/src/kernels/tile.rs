//! The unrolled register tile that both contract families share.

use crate::kernel::Check;
use crate::kernels::contract::{BOrder, Product};
use std::fmt::Write;

/// How an invocation gets the elements of A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It loads all rows of its tile.
    Direct,
    /// Each of `width` lanes loads its share of the rows, and hands it out by broadcast.
    Broadcast {
        /// Lanes of a subgroup.
        width: u32,
    },
    /// The workgroup has staged it, and B too: `tile_a` and `tile_b` give elements of what is staged.
    Shared,
}

/// `register-tile`, where an invocation loads or finds all rows itself.
pub(crate) fn constraint(check: &mut Check, rm: u32, rn: u32) {
    let legal = (1..=16).contains(&rm) && (4..=16).contains(&rn) && rn.is_multiple_of(4) && rm * rn <= 128;
    let expected = "1..=16 rows x 4, 8, 12 or 16 columns, at most 128 elements";
    check.that(legal, "register-tile", expected, format!("{rm} x {rn}"));
}

/// Rows that leave a tile at a time.
pub(crate) const TAKEN: u32 = 4;

/// An upper bound of the iterations of the loops that finish a tile.
pub(crate) fn finishing(rm: u32, rn: u32) -> u64 {
    (rm.next_multiple_of(TAKEN) * (1 + rn / 4)) as u64
}

/// The functions `places`, which asks the hooks once for what they want to know of the tile's rows and columns (with addresses
/// at every step a software driver did 22.0 instead of 23.5 GFLOP/s a core, docs/PERFORMANCE.md); `step`, which adds 4 consecutive k to an invocation's tile; and
/// `take_rows`, which gives the tile's first rows and moves the others up: so the tile is only ever indexed by constants,
/// without which it would not stay in registers.
///
/// The tile is `rm` rows of `rn / 4` vec4, row by row. Columns of B are loaded first and rows of A where they are used:
/// loaded all at once they would take the registers that the tile needs.
pub(crate) fn step(rm: u32, rn: u32, product: &Product, delivery: Delivery) -> String {
    let (order, quads) = (product.b_order, rn / 4);
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments| {
        out.write_fmt(text).expect("writing to a string");
        out.push('\n');
    };
    line(format_args!("alias Tile = array<vec4<f32>, {}>;", rm * quads));
    line(format_args!("alias Rows = array<vec4<f32>, {}>;", TAKEN * quads));
    line(format_args!("const TAKEN: u32 = {TAKEN}u;"));
    // What is staged has all its columns, and needs no places.
    let staged = delivery == Delivery::Shared;
    let column = |text: String| if staged { text } else { format!("min({text}, LAST_N)") };
    let columns: Vec<(String, String)> = match order {
        BOrder::NContiguous => (0..quads).map(|q| (format!("{q}"), column(format!("n + {q}u * STRIDE_N")))).collect(),
        BOrder::KContiguous => (0..quads)
            .flat_map(|q| (0..4).map(move |c| (q, c)))
            .map(|(q, c)| {
                // Whole fours of columns: that a column's place is odd or even is known where its quad is shared.
                let text = match !staged && product.n.is_multiple_of(4) {
                    true => format!("min(n + {q}u * STRIDE_N, N - 4u) + {c}u"),
                    false => column(format!("n + {q}u * STRIDE_N + {c}u")),
                };
                (format!("{q}{c}"), text)
            })
            .collect(),
    };
    let rows: Vec<String> = match delivery {
        Delivery::Shared => Vec::new(),
        Delivery::Direct => (0..rm).map(|i| format!("min(m + {i}u, M - 1u)")).collect(),
        Delivery::Broadcast { width } => (0..rm.div_ceil(width))
            .map(|part| {
                let first = part * width;
                let row = if rm - first < width { format!("min(lane, {}u)", rm - first - 1) } else { "lane".into() };
                format!("min(m + {first}u + {row}, M - 1u)")
            })
            .collect(),
    };
    let (lane, places) = match delivery {
        Delivery::Shared => ("", ""),
        Delivery::Direct => ("", "places: Places, "),
        Delivery::Broadcast { .. } => (", lane: u32", "places: Places, "),
    };
    if !staged {
        let names = (0..rows.len()).map(|i| format!("a{i}")).chain(columns.iter().map(|(c, _)| format!("b{c}")));
        let fields: Vec<String> = names.map(|name| format!("{name}: u32")).collect();
        let of_rows = rows.iter().map(|m| format!("row_a(batch, {m})"));
        let of_columns = columns.iter().map(|(_, n)| format!("column_b(batch, {n})"));
        let values: Vec<String> = of_rows.chain(of_columns).collect();
        line(format_args!("struct Places {{ {} }}", fields.join(", ")));
        line(format_args!("fn places(batch: u32, m: u32, n: u32{lane}) -> Places {{"));
        line(format_args!("    return Places({});", values.join(", ")));
        line(format_args!("}}"));
    }
    line(format_args!("fn step(c: ptr<function, Tile>, {places}batch: u32, m: u32, n: u32, k: u32{lane}) {{"));
    if matches!(delivery, Delivery::Broadcast { .. }) {
        for (part, row) in rows.iter().enumerate() {
            line(format_args!("    let part{part} = load_a(places.a{part}, batch, {row}, k);"));
        }
    }
    let load_b = |name: &str, k: &str, n: &str| match staged {
        true => format!("tile_b(batch, {k}, {n})"),
        false => format!("load_b(places.b{name}, batch, {k}, {n})"),
    };
    match order {
        BOrder::NContiguous => {
            for (q, n) in &columns {
                line(format_args!("    let n{q} = {n};"));
                for kk in 0..4 {
                    line(format_args!("    let b{q}{kk} = {};", load_b(q, &format!("k + {kk}u"), &format!("n{q}"))));
                }
            }
        }
        BOrder::KContiguous => {
            for (column, n) in &columns {
                line(format_args!("    let t{column} = {};", load_b(column, "k", n)));
            }
            for q in 0..quads {
                for (kk, x) in ["x", "y", "z", "w"].iter().enumerate() {
                    line(format_args!("    let b{q}{kk} = vec4(t{q}0.{x}, t{q}1.{x}, t{q}2.{x}, t{q}3.{x});"));
                }
            }
        }
    }
    for i in 0..rm {
        match delivery {
            Delivery::Direct => {
                line(format_args!("    let a{i} = load_a(places.a{i}, batch, {}, k);", rows[i as usize]))
            }
            Delivery::Shared => line(format_args!("    let a{i} = tile_a(batch, m + {i}u, k);")),
            Delivery::Broadcast { width } => {
                line(format_args!("    let a{i} = subgroupBroadcast(part{}, {}u);", i / width, i % width));
            }
        }
        for q in 0..quads {
            let at = i * quads + q;
            line(format_args!(
                "    (*c)[{at}] = (*c)[{at}] + a{i}.x * b{q}0 + a{i}.y * b{q}1 + a{i}.z * b{q}2 + a{i}.w * b{q}3;"
            ));
        }
    }
    line(format_args!("}}"));
    line(format_args!("fn take_rows(c: ptr<function, Tile>) -> Rows {{"));
    let taken = TAKEN * quads;
    for at in 0..taken {
        // A tile of fewer rows repeats its last; those are not stored.
        line(format_args!("    let four{at} = (*c)[{}];", at.min(rm * quads - 1)));
    }
    for at in 0..(rm * quads).saturating_sub(taken) {
        line(format_args!("    (*c)[{at}] = (*c)[{}];", at + taken));
    }
    let fours: Vec<String> = (0..taken).map(|at| format!("four{at}")).collect();
    line(format_args!("    return Rows({});", fours.join(", ")));
    line(format_args!("}}"));
    match order {
        BOrder::NContiguous => line(format_args!("const LAST_N: u32 = (N - 1u) / 4u * 4u;")),
        BOrder::KContiguous => line(format_args!("const LAST_N: u32 = N - 1u;")),
    }
    out
}
