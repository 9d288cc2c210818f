//! The unrolled parts of attention: a block of keys for a register tile of queries, and the loops over blocks.

use crate::kernels::attention::{Attention, KeyDelivery, Window};
use std::fmt::Write;
use std::ops::Range;

const XYZW: [&str; 4] = ["x", "y", "z", "w"];

/// All functions that the skeleton takes as generated.
pub(crate) fn functions(a: &Attention) -> String {
    let mut out = String::new();
    let (queries, results) = (a.ql * a.d_quads(), a.ql * a.e_quads());
    let log2e = std::f32::consts::LOG2_E;
    let held = match a.indexed {
        // An array each: compilers relate all loads and stores of one to each other, which takes the square of their number.
        true => {
            let arrays: Vec<String> = (0..a.ql).map(|j| format!("r{j}: array<vec4<f32>, {}>", a.e_quads())).collect();
            format!("struct Results {{ {} }}", arrays.join(", "))
        }
        false => format!("alias Results = array<vec4<f32>, {results}>;"),
    };
    let _ = writeln!(
        out,
        "alias Queries = array<vec4<f32>, {queries}>;
{held}
alias States = array<vec2<f32>, {}>;
const M: u32 = {}u;
const SCALE: f32 = {:?}f;
const LOG2_E: f32 = {log2e:?}f;",
        a.ql,
        a.m,
        a.scale * log2e
    );
    out += &ends(a);
    out += &step(a);
    match a.window {
        Some(window) => out += &windowed(a, window),
        None => out += &full(a),
    }
    out
}

/// Element `quad` of the results of query `j`, both known.
fn result(a: &Attention, j: u32, quad: u32) -> String {
    match a.indexed {
        true => format!("(*c).r{j}[{quad}]"),
        false => format!("(*c)[{}]", j * a.e_quads() + quad),
    }
}

/// Fours of results that are taken at a time, at most.
const TAKEN: u32 = 4;

/// `Taken` and `TAKEN`.
fn taken(fours: u32) -> String {
    format!("alias Taken = array<vec4<f32>, {fours}>;\nconst TAKEN: u32 = {fours}u;\n")
}

/// `push` and `take`.
fn ends(a: &Attention) -> String {
    const PUSH: &str = "fn push(q: ptr<function, Queries>, at: u32, value: vec4<f32>)";
    const TAKE: &str = "fn take(c: ptr<function, Results>, at: u32) -> Taken";
    if a.indexed {
        let mut out = format!("{}{PUSH} {{ (*q)[at] = value * SCALE; }}\n{TAKE} {{\n", taken(1));
        out += "    let quad = at % E_QUADS;\n    var value = (*c).r0[quad];\n";
        for j in 1..a.ql {
            let _ = writeln!(out, "    if at / E_QUADS == {j}u {{ value = (*c).r{j}[quad]; }}");
        }
        return out + "    return Taken(value);\n}\n";
    }
    // Arrays are only ever indexed by constants, without which they would not stay in registers.
    let (queries, results) = (a.ql * a.d_quads(), a.ql * a.e_quads());
    // All others move up: so the more are taken at once, the fewer moves.
    let most = (1..=TAKEN).rev().find(|n| a.e_quads().is_multiple_of(*n)).unwrap_or(1);
    let mut out = format!("{}{PUSH} {{\n", taken(most));
    for i in 1..queries {
        let _ = writeln!(out, "    (*q)[{}] = (*q)[{i}];", i - 1);
    }
    let _ = writeln!(out, "    (*q)[{}] = value * SCALE;\n}}", queries - 1);
    let first: Vec<String> = (0..most).map(|i| format!("(*c)[{i}]")).collect();
    let _ = writeln!(out, "{TAKE} {{\n    let first = Taken({});", first.join(", "));
    for i in most..results {
        let _ = writeln!(out, "    (*c)[{}] = (*c)[{i}];", i - most);
    }
    out + "    return first;\n}\n"
}

/// Key and four of value `first + lane`, of `quads` a key, for a `lane` below `lanes`. Without divisions where that is easy: a driver
/// may do them lane by lane at every step.
fn place(lane: &str, lanes: u32, first: u32, quads: u32) -> (String, String) {
    let (key, quad) = (first / quads, first % quads);
    if quads.is_power_of_two() || lanes > quads {
        return (format!("({lane} + {first}u) / {quads}u"), format!("({lane} + {first}u) % {quads}u"));
    }
    if quad + lanes <= quads {
        return (format!("{key}u"), format!("({lane} + {quad}u)"));
    }
    let next = format!("{lane} >= {}u", quads - quad);
    let quad_there = format!("{lane} + select({quad}u, {}u, {next})", quad.wrapping_sub(quads));
    (format!("select({key}u, {}u, {next})", key + 1), quad_there)
}

const POINTERS: &str = "q: ptr<function, Queries>, c: ptr<function, Results>, state: ptr<function, States>";

/// `step`: keys m to m + kb − 1, of which those from `end` on do not count.
fn step(a: &Attention) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str("    ");
        out.push_str(&text);
        out.push('\n');
    };
    let (dq, eq, kb, ql) = (a.d_quads(), a.e_quads(), a.kb, a.ql);
    // Keys beyond the end are read at the last key and count nothing.
    let whole = a.window.is_none() && a.m.is_multiple_of(kb) && !a.causal;
    let guarded = !whole || a.masked || a.causal || a.window.is_some();
    let window = a.window.is_some();
    for j in 0..ql {
        line(format!("let n{j} = min(query_of(tile, lane, {j}u), N - 1u);"));
    }
    for c in 0..kb {
        let m = format!("m + {c}u");
        line(match whole {
            true => format!("let m{c} = {m};"),
            false => format!("let m{c} = min({m}, end - 1u);"),
        });
    }
    let broadcast = a.delivery == KeyDelivery::Broadcast;
    // A part of `keys` keys from `from` on: what each lane loads of them.
    let fetch = |line: &mut dyn FnMut(String), what: &str, quads: u32, from: &str, keys: u32| {
        if !broadcast {
            return;
        }
        let values = keys * quads;
        for i in 0..values.div_ceil(a.wg) {
            let first = i * a.wg;
            let lane = match values - first < a.wg {
                true => format!("min(lane, {}u)", values - first - 1),
                false => "lane".to_string(),
            };
            let (key, quad) = place(&lane, a.wg.min(values - first), first, quads);
            let key = format!("{from} + {key}");
            let key = if whole { key } else { format!("min({key}, end - 1u)") };
            line(format!("let {what}part{i} = load_{what}(batch, {key}, {quad});"));
        }
    };
    let deliver = |what: &str, c: u32, quad: u32, quads: u32| match a.delivery {
        KeyDelivery::Uniform => format!("load_{what}(batch, m{c}, {quad}u)"),
        KeyDelivery::Shared { .. } => format!("shared_{what}[(m{c} - start) * {quads}u + {quad}u]"),
        KeyDelivery::Broadcast => {
            let i = c * quads + quad;
            format!("subgroupBroadcast({what}part{}, {}u)", i / a.wg, i % a.wg)
        }
    };
    for j in 0..ql {
        for c in 0..kb {
            line(format!("var s{j}_{c} = 0.0f;"));
        }
    }
    // Adds the products of these keys, which `fetch` or `deliver` know by these numbers, to their scores.
    let products = |line: &mut dyn FnMut(String), keys: u32, score: &str| {
        // What is handed out stays in few registers key by key, what is loaded is loaded four by four.
        let order: Vec<(u32, Range<u32>)> = match broadcast {
            true => (0..keys).flat_map(|c| (0..dq).map(move |quad| (quad, c..c + 1))).collect(),
            false => (0..dq).map(|quad| (quad, 0..keys)).collect(),
        };
        for (quad, keys) in order {
            for c in keys.clone() {
                line(format!("let k{quad}_{c} = {};", deliver("k", c, quad, dq)));
            }
            for j in 0..ql {
                let q = format!("(*q)[{}]", j * dq + quad);
                for c in keys.clone() {
                    let terms: String = XYZW.iter().map(|x| format!(" + {q}.{x} * k{quad}_{c}.{x}")).collect();
                    line(format!("{score}{j}_{c} = {score}{j}_{c}{terms};"));
                }
            }
        }
    };
    if a.looped() {
        let keys = a.kl;
        line(format!("for (var key = m; key < m + {kb}u; key += {keys}u) {{"));
        fetch(&mut line, "k", dq, "key", keys);
        for j in 0..ql {
            for c in 0..keys {
                line(format!("var t{j}_{c} = 0.0f;"));
            }
        }
        products(&mut line, keys, "t");
        // Scores move up, so that no register is chosen by the counter.
        for j in 0..ql {
            for c in keys..kb {
                line(format!("s{j}_{} = s{j}_{c};", c - keys));
            }
            for c in 0..keys {
                line(format!("s{j}_{} = t{j}_{c};", kb - keys + c));
            }
        }
        line("}".into());
        fetch(&mut line, "v", eq, "m", kb);
    } else {
        // Loads of keys and values stand together: each takes long, and they wait beside each other.
        fetch(&mut line, "k", dq, "m", kb);
        fetch(&mut line, "v", eq, "m", kb);
        products(&mut line, kb, "s");
    }
    for j in 0..ql {
        for c in 0..kb {
            if a.biased {
                line(format!("s{j}_{c} = s{j}_{c} + bias(batch, n{j}, m{c}) * LOG2_E;"));
            }
            if guarded {
                let mut tests = Vec::new();
                if !whole {
                    tests.push(format!("(m + {c}u < end)"));
                }
                if a.causal {
                    tests.push(format!("(m{c} <= n{j})"));
                }
                if window {
                    tests.push(format!("near(n{j}, m{c})"));
                }
                if a.masked {
                    tests.push(format!("seen(batch, n{j}, m{c})"));
                }
                // Not `&&`, which is a branch: SwiftShader's compiler runs out of memory on a hundred of them.
                line(format!("let r{j}_{c} = {};", tests.join(" & ")));
                // Below whatever a bias makes of a key that is there.
                line(format!("s{j}_{c} = select(-3.4028234e38f, s{j}_{c}, r{j}_{c});"));
            }
        }
        let top = (0..kb).fold(format!("(*state)[{j}].x"), |top, c| format!("max({top}, s{j}_{c})"));
        line(format!("let top{j} = {top};"));
        line(format!("let f{j} = exp2_nonpositive((*state)[{j}].x - top{j});"));
        for c in 0..kb {
            let p = format!("exp2_nonpositive(s{j}_{c} - top{j})");
            line(match guarded {
                true => format!("let p{j}_{c} = select(0.0f, {p}, r{j}_{c});"),
                false => format!("let p{j}_{c} = {p};"),
            });
        }
        let sum: Vec<String> = (0..kb).map(|c| format!("p{j}_{c}")).collect();
        line(format!("(*state)[{j}] = vec2(top{j}, (*state)[{j}].y * f{j} + ({}));", sum.join(" + ")));
    }
    // Handed out, values are added query by query; loaded, they are used where they are loaded.
    let together = if broadcast { eq } else { 1 };
    for first in (0..eq).step_by(together as usize) {
        let quads = first..first + together;
        for quad in quads.clone() {
            for c in 0..kb {
                line(format!("let v{quad}_{c} = {};", deliver("v", c, quad, eq)));
            }
        }
        for j in 0..ql {
            for quad in quads.clone() {
                let at = result(a, j, quad);
                let terms: String = (0..kb).map(|c| format!(" + p{j}_{c} * v{quad}_{c}")).collect();
                line(format!("{at} = {at} * f{j}{terms};"));
            }
        }
    }
    let start = if matches!(a.delivery, KeyDelivery::Shared { .. }) { ", start: u32" } else { "" };
    format!("fn step({POINTERS}, batch: u32, tile: u32, lane: u32, m: u32, end: u32{start}) {{\n{out}}}\n")
}

/// The head of `attend`: every query starts with the lowest maximum.
fn head(a: &Attention) -> String {
    let mut out = format!("fn attend({POINTERS}, batch: u32, tile: u32, lane: u32) {{\n");
    for j in 0..a.ql {
        let _ = writeln!(out, "    (*state)[{j}] = vec2(-3.4028234e38f, 0.0f);");
    }
    out
}

/// `query_of` and `attend` over all keys.
fn full(a: &Attention) -> String {
    let mut out =
        "fn query_of(tile: u32, lane: u32, j: u32) -> u32 { return (tile * QL + j) * WG + lane; }\n".to_string();
    if let KeyDelivery::Shared { keys } = a.delivery {
        let _ = writeln!(out, "var<workgroup> shared_k: array<vec4<f32>, {}>;", keys * a.d_quads());
        let _ = writeln!(out, "var<workgroup> shared_v: array<vec4<f32>, {}>;", keys * a.e_quads());
    }
    out += &head(a);
    // No query of the tile sees keys behind its last query's.
    let end = if a.causal { "min(M, (tile + 1u) * (QL * WG))" } else { "M" };
    let _ = writeln!(out, "    let end = {end};");
    let kb = a.kb;
    match a.delivery {
        KeyDelivery::Uniform | KeyDelivery::Broadcast => {
            let _ = writeln!(
                out,
                "    for (var m = 0u; m < end; m += {kb}u) {{\n        step(q, c, state, batch, tile, lane, m, end);\n    }}"
            );
        }
        KeyDelivery::Shared { keys } => {
            let _ = writeln!(out, "    for (var start = 0u; start < end; start += {keys}u) {{");
            for (what, quads) in [("k", a.d_quads()), ("v", a.e_quads())] {
                let _ = writeln!(
                    out,
                    "        for (var i = lane; i < {}u; i += WG) {{
            shared_{what}[i] = load_{what}(batch, min(start + i / {quads}u, M - 1u), i % {quads}u);
        }}",
                    keys * quads
                );
            }
            let _ = writeln!(
                out,
                "        workgroupBarrier();
        let stop = min(start + {keys}u, end);
        for (var m = start; m < stop; m += {kb}u) {{
            step(q, c, state, batch, tile, lane, m, stop, start);
        }}
        workgroupBarrier();
    }}"
            );
        }
    }
    out + "}\n"
}

/// `query_of`, `near` and `attend` for a window on a grid: text keys, then the union of the tile's windows, row by row.
fn windowed(a: &Attention, w: Window) -> String {
    let (th, tw, kb) = (w.tile_height, w.tile_width, a.kb);
    let tiles_x = w.width.div_ceil(tw);
    let distance = match w.square {
        true => "(abs(dy) < RADIUS) & (abs(dx) < RADIUS)",
        false => "dy * dy + dx * dx < RADIUS * RADIUS",
    };
    let mut out = format!(
        "const TEXT: u32 = {}u;
const HEIGHT: u32 = {}u;
const WIDTH: u32 = {}u;
const RADIUS: i32 = i32({});
const REACH: u32 = {}u;
fn query_of(tile: u32, lane: u32, j: u32) -> u32 {{
    let place = j * WG + lane;
    let y = tile / {tiles_x}u * {th}u + place / {tw}u;
    let x = tile % {tiles_x}u * {tw}u + place % {tw}u;
    return select(N, y * WIDTH + x, y < HEIGHT && x < WIDTH);
}}
fn near(n: u32, m: u32) -> bool {{
    let at = max(m, TEXT) - TEXT;
    let dy = i32(n / WIDTH) - i32(at / WIDTH);
    let dx = i32(n % WIDTH) - i32(at % WIDTH);
    return (m < TEXT) | ({distance});
}}
",
        w.text,
        w.height,
        w.width,
        w.radius.min(1 << 14),
        w.radius.saturating_sub(1)
    );
    out += &head(a);
    let _ = writeln!(
        out,
        "    for (var m = 0u; m < TEXT; m += {kb}u) {{
        step(q, c, state, batch, tile, lane, m, TEXT);
    }}
    let top = tile / {tiles_x}u * {th}u;
    let left = tile % {tiles_x}u * {tw}u;
    let first = max(left, REACH) - REACH;
    let last = min(left + {}u + REACH, WIDTH - 1u);
    for (var y = max(top, REACH) - REACH; y <= min(top + {}u + REACH, HEIGHT - 1u); y++) {{
        let row = TEXT + y * WIDTH;
        for (var m = row + first; m <= row + last; m += {kb}u) {{
            step(q, c, state, batch, tile, lane, m, row + last + 1u);
        }}
    }}
}}",
        tw - 1,
        th - 1
    );
    out
}
