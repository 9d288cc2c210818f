//! Every kernel family over shapes, each candidate of each kernel against the interpreter, on whatever driver is there.
//!
//! `scripts/test` runs this on three drivers. `contractions` has the products.

mod common;

use common::Random;
use selvedge_codegen::Target;
use selvedge_ir::parse::parse;
use std::fmt::Write;

/// Functions of one family as a module; each case gives inputs, the result's type and a body that defines `%y`.
fn module(cases: impl IntoIterator<Item = [String; 3]>) -> String {
    let mut text = String::new();
    for (i, [inputs, result, body]) in cases.into_iter().enumerate() {
        let _ = writeln!(text, "fn @f{i}({inputs}) -> {result} {{\n{body}\n  return y=%y\n}}\n");
    }
    text
}

fn pick<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[random.next() as usize % of.len()]
}

/// Cases of a family; `SELVEDGE_FULL` draws four times as many.
fn draws(count: usize) -> usize {
    if std::env::var_os("SELVEDGE_FULL").is_some() { 4 * count } else { count }
}

/// Checks all candidates under the device's own target and by words, the defaults without subgroups, and that the families ran.
fn check(text: &str, wanted: &[&str]) {
    let module = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let device = common::device();
    let plain = Target { subgroup: None, cooperative: Vec::new(), wide: false, ..device.clone() };
    let families = common::check_candidates(&module, &device, 11);
    common::check(&module, &plain, 12);
    if device.wide {
        common::check_candidates(&module, &Target { wide: false, avx512: true, ..device.clone() }, 13);
    }
    for family in wanted {
        assert!(families.contains(*family), "{family} did not run: {families:?}\n{text}");
    }
}

fn sizes(random: &mut Random, rank: usize) -> Vec<usize> {
    (0..rank).map(|_| pick(random, &[1, 2, 3, 4, 7, 8, 13, 20])).collect()
}

fn ty(dtype: &str, sizes: &[usize]) -> String {
    let list: Vec<String> = sizes.iter().map(usize::to_string).collect();
    format!("{dtype}[{}]", list.join(","))
}

#[test]
fn softmax_and_norms() {
    let mut random = Random(21);
    let mut cases = Vec::new();
    for _ in 0..draws(4) {
        let dtype = pick(&mut random, &["f32", "f16", "bf16"]);
        let shape =
            [pick(&mut random, &[1, 3, 17]), pick(&mut random, &[1, 5]), pick(&mut random, &[1, 6, 33, 384, 2100])];
        let (x, len) = (ty(dtype, &shape), shape[2]);
        let map = format!("  %y = map %n body={{x| x * sigmoid(x)}} : {x}");
        for norm in ["layer_norm %x, %s, %b", "rms_norm %x, %s", "layer_norm %x"] {
            let inputs = format!("%x: {x}, %s: {dtype}[{len}], %b: {dtype}[{len}]");
            cases.push([inputs, x.clone(), format!("  %n = {norm} eps=0.00001 : {x}\n{map}")]);
        }
        let axis = random.next() % 3;
        cases.push([format!("%x: {x}"), x.clone(), format!("  %n = softmax %x axis={axis} : {x}\n{map}")]);
    }
    check(&module(cases), &["row_norm", "row_softmax"]);
}

#[test]
fn group_norms() {
    let cases = [("f32", "2,6,5,5", 3), ("f16", "1,32,4,6", 32), ("bf16", "3,4", 2), ("f32", "1,4,90,91", 1)];
    let case = |(dtype, shape, groups): (&str, &str, usize)| {
        let (x, channels) = (format!("{dtype}[{shape}]"), shape.split(',').nth(1).expect("channels"));
        let inputs = format!("%x: {x}, %s: {dtype}[{channels}], %b: {dtype}[{channels}]");
        [inputs, x.clone(), format!("  %y = group_norm %x, %s, %b groups={groups} eps=0.00001 : {x}")]
    };
    check(&module(cases.map(case)), &["row_norm"]);
}

#[test]
fn attentions() {
    let mut random = Random(22);
    let mut cases = Vec::new();
    for case in 0..draws(3) {
        let dtype = ["f32", "f16", "bf16"][case % 3];
        let (b, h) = (pick(&mut random, &[1, 2]), pick(&mut random, &[1, 3]));
        let (n, m) = (pick(&mut random, &[1, 7, 33, 50]), pick(&mut random, &[1, 9, 33, 77]));
        let d = [8, 72, 5][case % 3];
        let e = pick(&mut random, &[d, 8]);
        let causal = case % 2 == 1;
        let mask = [format!(", %mask: bool[{b},1,{n},{m}]"), format!(", %mask: {dtype}[1,{h},1,{m}]"), String::new()];
        let mask = &mask[case % 3];
        let name = if mask.is_empty() { "" } else { ", %mask" };
        let out = format!("{dtype}[{b},{h},{n},{e}]");
        cases.push([
            format!("%q: {dtype}[{b},{h},{n},{d}], %k: {dtype}[{b},{h},{m},{d}], %v: {dtype}[{b},{h},{m},{e}]{mask}"),
            out.clone(),
            format!("  %y = attention %q, %k, %v{name} scale=0.35 causal={causal} : {out}"),
        ]);
    }
    check(&module(cases), &["attention"]);
}

/// The largest heads, which have kernels of their own: longer to compile, one query a lane on some processors.
#[test]
fn attention_with_heads_of_200() {
    let x = |m: usize| format!("f32[1,1,{m},200]");
    let parameters = format!("%q: {}, %k: {}, %v: {}", x(9), x(13), x(13));
    let body = format!("  %y = attention %q, %k, %v scale=0.07 causal=true : {}", x(9));
    check(&module([[parameters, x(9), body]]), &["attention"]);
}

#[test]
fn local_attentions() {
    let cases =
        [("f32", 0, 6, 7, 3, "circle", 8), ("f16", 5, 9, 5, 2, "square", 12), ("bf16", 2, 3, 3, 100, "square", 5)];
    let case = |(dtype, text, height, width, radius, shape, d): (&str, usize, usize, usize, usize, &str, usize)| {
        let x = format!("{dtype}[1,2,{},{d}]", text + height * width);
        let grid = format!("text={text} height={height} width={width} radius={radius} shape={shape}");
        let body = format!("  %y = local_attention %q, %k, %v scale=0.35 {grid} : {x}");
        [format!("%q: {x}, %k: {x}, %v: {x}"), x.clone(), body]
    };
    check(&module(cases.map(case)), &["attention"]);
}

#[test]
fn reductions_and_searches() {
    let mut random = Random(23);
    let mut cases = Vec::new();
    for case in 0..draws(8) {
        let mut shape = sizes(&mut random, 3);
        shape[case % 3] = pick(&mut random, &[1, 5, 64, 1153]);
        let axes: Vec<usize> = if case % 4 == 3 { vec![0, 2] } else { vec![case % 3] };
        let rest: Vec<usize> = (0..3).filter(|a| !axes.contains(a)).map(|a| shape[a]).collect();
        let listed: Vec<String> = axes.iter().map(usize::to_string).collect();
        let dtype = ["f32", "f16", "i32", "u32"][case % 4];
        let kind = pick(&mut random, &["sum", "max", "min"]);
        let (x, out) = (ty(dtype, &shape), ty(dtype, &rest));
        let body = format!("  %y = reduce %x kind={kind} axes=[{}] : {out}", listed.join(","));
        cases.push([format!("%x: {x}"), out, body]);
        if axes.len() == 1 {
            let kind = pick(&mut random, &["argmax", "argmin"]);
            let out = ty("i32", &rest);
            let body = format!("  %y = reduce %x kind={kind} axes=[{}] : {out}", listed.join(","));
            cases.push([format!("%x: {x}"), out, body]);
        }
    }
    // Few long rows go to workgroups.
    for (kind, dtype) in [("sum", "f32"), ("max", "i32"), ("argmax", "i32")] {
        let body = format!("  %y = reduce %x kind={kind} axes=[1] : {dtype}[3]");
        let x = if kind == "argmax" { "f32" } else { dtype };
        cases.push([format!("%x: {x}[3,5000]"), format!("{dtype}[3]"), body]);
        cases.push([
            format!("%x: {x}[500,3]"),
            format!("{dtype}[3]"),
            format!("  %y = reduce %x kind={kind} axes=[0] : {dtype}[3]"),
        ]);
    }
    // Neighbouring elements are read by fours: rows of any length, behind maps and views, over several axes.
    for (i, len) in [17, 64, 383, 2052].into_iter().enumerate() {
        let dtype = ["f32", "bf16", "f16", "u32"][i];
        let kind = ["prod", "sum", "min", "max"][i];
        let body = format!("  %y = reduce %x kind={kind} axes=[1,2] : {dtype}[7]");
        cases.push([format!("%x: {dtype}[7,3,{len}]"), format!("{dtype}[7]"), body]);
        let body = format!(
            "  %t = transpose %x perm=[1,0] : {dtype}[7,{len}]
  %m = map %t body={{x| x * x}} : {dtype}[7,{len}]
  %y = reduce %m kind=sum axes=[1] : {dtype}[7]"
        );
        cases.push([format!("%x: {dtype}[{len},7]"), format!("{dtype}[7]"), body]);
    }
    // Neighbouring columns are computed by fours: few and many, behind maps and views, over several axes.
    for (i, (len, columns)) in [(5, 4), (300, 8), (77, 260), (1100, 36)].into_iter().enumerate() {
        let dtype = ["f32", "i32", "f16", "bf16"][i];
        let kind = ["sum", "max", "min", "sum"][i];
        let body = format!("  %y = reduce %x kind={kind} axes=[0] : {dtype}[{columns}]");
        cases.push([format!("%x: {dtype}[{len},{columns}]"), format!("{dtype}[{columns}]"), body]);
        let body = format!(
            "  %m = map %x body={{x| x * x}} : f32[3,{len},2,{columns}]
  %s = reduce %m kind=sum axes=[1] : f32[3,2,{columns}]
  %h = map %s body={{x| x * 0.5}} : f32[3,2,{columns}]
  %y = transpose %h perm=[0,2,1] : f32[3,{columns},2]"
        );
        cases.push([format!("%x: f32[3,{len},2,{columns}]"), format!("f32[3,{columns},2]"), body]);
    }
    let body = "  %m = reduce %x kind=max axes=[1] : bool[5]\n  %y = map %m body={x| not(x)} : bool[5]";
    cases.push(["%x: bool[5,77]".to_string(), "bool[5]".to_string(), body.to_string()]);
    check(
        &module(cases),
        &["row_reduce", "column_reduce", "reduce_lane", "reduce_group", "argreduce_lane", "argreduce_group"],
    );
}

#[test]
fn scans_topk_gather_and_scatter() {
    let mut random = Random(24);
    let mut cases = Vec::new();
    for case in 0..draws(6) {
        let shape = sizes(&mut random, 3);
        let axis = case % 3;
        let x = ty(["f32", "i32", "f16"][case % 3], &shape);
        let dtype = ["f32", "i32", "f16"][case % 3];
        let kind = pick(&mut random, &["sum", "max", "min"]);
        let (reverse, exclusive) = (case % 2 == 0, kind == "sum" && case % 4 < 2);
        let body = format!("  %y = scan %x kind={kind} axis={axis} reverse={reverse} exclusive={exclusive} : {x}");
        cases.push([format!("%x: {x}"), x.clone(), body]);

        let mut best = shape.clone();
        best[axis] = 1 + random.next() as usize % shape[axis];
        let out = ty("i32", &best);
        let body = format!("  %y = topk %x k={} axis={axis} largest={} : {out}", best[axis], case % 2 == 0);
        cases.push([format!("%x: {x}"), out, body]);

        // Indices are drawn from -4..12: some are out of range.
        let mut taken = shape.clone();
        taken[axis] = pick(&mut random, &[1, 5, 16]);
        let (i, out) = (ty("i32", &[taken[axis]]), ty(dtype, &taken));
        let body = format!("  %y = gather %x, %i axis={axis} batch=0 : {out}");
        cases.push([format!("%x: {x}, %i: {i}"), out.clone(), body]);
        let body = format!("  %y = scatter %x, %i, %u kind={} axis={axis} batch=0 : {x}", ["add", "set"][case % 2]);
        cases.push([format!("%x: {x}, %i: {i}, %u: {out}"), x, body]);
    }
    // Longer rows are searched: of any length, with ties, next to each other or apart, behind maps.
    for (i, (len, k)) in [(33, 1), (64, 64), (385, 30), (1024, 100)].into_iter().enumerate() {
        let dtype = ["i32", "f32", "bf16", "f16"][i];
        let largest = i % 2 == 0;
        let body = format!(
            "  %m = map %x body={{x| x * x}} : {dtype}[5,{len}]\n  %y = topk %m k={k} axis=1 largest={largest} : i32[5,{k}]"
        );
        cases.push([format!("%x: {dtype}[5,{len}]"), format!("i32[5,{k}]"), body]);
        let body = format!("  %y = topk %x k={k} axis=0 largest={largest} : i32[{k},2,3]");
        cases.push([format!("%x: {dtype}[{len},2,3]"), format!("i32[{k},2,3]"), body]);
    }
    check(&module(cases), &["scan", "topk", "topk_select", "scatter", "map"]);
}

#[test]
fn maps_and_copies() {
    let mut random = Random(25);
    let mut cases = Vec::new();
    for case in 0..draws(6) {
        let shape = sizes(&mut random, 3);
        let dtype = ["f32", "f16", "bf16", "i32", "bool", "u32"][case % 6];
        let x = ty(dtype, &shape);
        let turned = ty(dtype, &[shape[2], shape[0], shape[1]]);
        cases.push([format!("%x: {x}"), turned.clone(), format!("  %y = transpose %x perm=[2,0,1] : {turned}")]);
        let joined = ty(dtype, &[shape[0], 2 * shape[1], shape[2]]);
        cases.push([format!("%x: {x}, %z: {x}"), joined.clone(), format!("  %y = concat %x, %z axis=1 : {joined}")]);
        if case % 6 < 3 {
            let wide = ty(dtype, &[shape[0] + 1, shape[1], shape[2] + 3]);
            let body = format!(
                "  %m = map %x, %z body={{x, y| x * exp(y) + erf(x)}} : {x}
  %y = pad %m padding=[1:0,0:0,2:1] value=0.25 : {wide}"
            );
            cases.push([format!("%x: {x}, %z: {x}"), wide, body]);
        }
    }
    check(&module(cases), &["map"]);
}

#[test]
fn convolutions() {
    // Spatial extents, channels in and out, groups, kernel, stride, padding, dilation.
    type Case = (&'static [usize], usize, usize, usize, &'static [usize], usize, usize, usize);
    let all: [Case; 6] = [
        (&[9, 7], 3, 8, 1, &[3, 3], 1, 1, 1),
        (&[8, 10], 6, 4, 2, &[2, 2], 2, 0, 1),
        (&[7, 7], 5, 5, 5, &[3, 3], 1, 2, 2),
        (&[33], 4, 12, 1, &[5], 3, 2, 1),
        (&[4, 5, 6], 2, 3, 1, &[2, 3, 3], 1, 1, 1),
        (&[6, 6], 16, 20, 1, &[1, 1], 1, 0, 1),
    ];
    let mut cases = Vec::new();
    for (i, (spatial, channels, out, groups, size, stride, padding, dilation)) in all.into_iter().enumerate() {
        let dtype = ["f32", "f16", "bf16"][i % 3];
        let list = |x: &dyn Fn(usize) -> String| (0..spatial.len()).map(x).collect::<Vec<_>>().join(",");
        let extent = |a: usize| (spatial[a] + 2 * padding - (dilation * (size[a] - 1) + 1)) / stride + 1;
        let x = ty(dtype, &[&[2, channels], spatial].concat());
        let k = ty(dtype, &[&[out, channels / groups], size].concat());
        let extents: Vec<usize> = (0..spatial.len()).map(extent).collect();
        let y = ty(dtype, &[&[2, out], &extents[..]].concat());
        let attributes = format!(
            "size=[{}] stride=[{}] padding=[{}] dilation=[{}]",
            list(&|a| size[a].to_string()),
            list(&|_| stride.to_string()),
            list(&|_| format!("{padding}:{padding}")),
            list(&|_| dilation.to_string())
        );
        cases.push([
            format!("%x: {x}, %k: {k}"),
            y.clone(),
            format!("  %y = window %x, %k kind=conv {attributes} groups={groups} : {y}"),
        ]);
        let pooled = ty(dtype, &[&[2, channels], &extents[..]].concat());
        let kind = ["sum", "max"][i % 2];
        let body = format!("  %y = window %x kind={kind} {attributes} groups=1 : {pooled}");
        cases.push([format!("%x: {x}"), pooled, body]);
    }
    check(&module(cases), &["contract"]);
}

/// Large values in the range of each dtype: no infinity in between, and what is right stays right.
#[test]
fn extremes_of_each_dtype() {
    let mut cases = Vec::new();
    for (dtype, factor, offset) in [
        ("f32", "10000.0", "0.0"),
        ("f32", "1.0", "-10000.0"),
        ("f16", "30000.0", "0.0"),
        ("f16", "1.0", "2000.0"),
        ("f16", "0.00006", "0.0"),
        ("bf16", "10000.0", "-10000.0"),
    ] {
        let x = format!("{dtype}[3,40]");
        let large = format!("  %z = map %x body={{x| x * {factor} + {offset}}} : {x}\n");
        for op in ["softmax %z axis=1", "layer_norm %z eps=0.000001", "rms_norm %z eps=0.000001"] {
            cases.push([format!("%x: {x}"), x.clone(), format!("{large}  %y = {op} : {x}")]);
        }
        for body in ["tanh(x)", "erf(x)", "sigmoid(x)", "x * sigmoid(x)", "exp(x * 0.0001)", "exp(min(x, 0.0))"] {
            cases.push([format!("%x: {x}"), x.clone(), format!("{large}  %y = map %z body={{x| {body}}} : {x}")]);
        }
    }
    check(&module(cases), &["row_norm", "row_softmax", "map"]);
}
