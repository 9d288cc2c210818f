//! Composites in one kernel: what they compute on the device, and into how many dispatches they go.

mod common;

use common::Random;
use selvedge_codegen::{Options, Subgroups, Target, compile};
use selvedge_ir::parse::parse;

fn module(text: &str) -> selvedge_ir::Module {
    parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Checks one function under every target.
fn check(inputs: &str, result: &str, body: &str) {
    let module = module(&format!("fn @f({inputs}) -> {result} {{\n{body}\n  return y=%y\n}}\n"));
    for (i, target) in common::device_targets().iter().enumerate() {
        common::check(&module, target, 17 + i as u64);
    }
}

/// Kernel families of a function's dispatches, with subgroups of 8 and without.
fn families(text: &str) -> [Vec<String>; 2] {
    let module = module(text);
    let vectors = Target { subgroup: Some(Subgroups { min: 8, max: 8 }), ..Target::portable() };
    [vectors, Target::portable()].map(|target| {
        let compiled = compile(&module, &target, &Options::default()).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let kernels = &compiled.manifest.kernels;
        let dispatches = &compiled.plan().functions[0].dispatches;
        dispatches.iter().map(|d| kernels[d.kernel as usize].name.clone()).collect()
    })
}

fn pick<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[random.next() as usize % of.len()]
}

#[test]
fn norms_and_softmax_of_any_shape() {
    let mut random = Random(1);
    for _ in 0..24 {
        let dtype = pick(&mut random, &["f32", "f32", "f16", "bf16"]);
        let (rows, len) = (pick(&mut random, &[1, 3, 17, 70]), pick(&mut random, &[1, 2, 5, 8, 33, 40, 130, 384]));
        let ty = format!("{dtype}[2,{rows},{len}]");
        let norm = pick(&mut random, &["layer_norm", "rms_norm"]);
        let vectors = random.next() % if norm == "rms_norm" { 2 } else { 3 };
        let names = ["%x", "%x, %s", "%x, %s, %b"][vectors as usize];
        check(
            &format!("%x: {ty}, %s: {dtype}[{len}], %b: {dtype}[{len}]"),
            &ty,
            &format!("  %y = {norm} {names} eps=0.00001 : {ty}"),
        );
        let axis = random.next() % 3;
        check(&format!("%x: {ty}"), &ty, &format!("  %y = softmax %x axis={axis} : {ty}"));
    }
}

#[test]
fn group_norms_of_small_and_large_maps() {
    for (shape, groups) in
        [("2,6,5,5", 3), ("1,32,8,8", 32), ("3,4", 2), ("1,8,65,64", 2), ("2,4,7", 1), ("1,4,90,91", 1)]
    {
        for dtype in ["f32", "f16"] {
            let channels = shape.split(',').nth(1).expect("a channel axis");
            let ty = format!("{dtype}[{shape}]");
            let text = format!(
                "fn @f(%x: {ty}, %s: {dtype}[{channels}], %b: {dtype}[{channels}]) -> {ty} {{
  %g = group_norm %x, %s, %b groups={groups} eps=0.00001 : {ty}
  %y = map %g body={{x| x * sigmoid(x)}} : {ty}
  return y=%y
}}
"
            );
            // A large map's row is more than the narrow windows of one target hold.
            let module = module(&text);
            let large = module.functions[0].ty(selvedge_ir::ValueId(0)).elements().expect("concrete") > 10_000;
            for target in common::device_targets().iter().filter(|t| !large || t.max_binding_bytes > 1 << 20) {
                common::check(&module, target, 23);
            }
        }
    }
}

#[test]
fn extremes_stay_finite_and_right() {
    let ty = "f32[5,200]";
    for (factor, offset) in [("10000.0", "0.0"), ("1.0", "10000.0"), ("0.00001", "-3.0"), ("60000.0", "60000.0")] {
        let large = format!("  %z = map %x body={{x| x * {factor} + {offset}}} : {ty}\n");
        for op in ["softmax %z axis=1", "layer_norm %z eps=0.000001", "rms_norm %z eps=0.000001"] {
            check(&format!("%x: {ty}"), ty, &format!("{large}  %y = {op} : {ty}"));
        }
        let heads = "f32[1,2,9,8]";
        check(
            &format!("%x: {heads}, %k: {heads}, %v: {heads}"),
            heads,
            &format!(
                "  %q = map %x body={{x| x * {factor} + {offset}}} : {heads}
  %y = attention %q, %k, %v scale=0.25 causal=false : {heads}"
            ),
        );
    }
}

#[test]
fn norms_take_modulation_along() {
    let text = "fn @f(%x: f32[2,9,40], %m: f32[2,80]) -> f32[2,9,40] {
  %n = layer_norm %x eps=0.000001 : f32[2,9,40]
  %a = slice %m start=[0,0] end=[2,40] step=[1,1] : f32[2,40]
  %b = slice %m start=[0,40] end=[2,80] step=[1,1] : f32[2,40]
  %one = map %b body={x| x + 1.0} : f32[2,40]
  %s = broadcast %one axes=[0,2] shape=[2,9,40] : f32[2,9,40]
  %t = broadcast %a axes=[0,2] shape=[2,9,40] : f32[2,9,40]
  %p = map %n, %s body={x, y| x * y} : f32[2,9,40]
  %y = map %p, %t body={x, y| x + y} : f32[2,9,40]
  return y=%y
}
";
    for plan in families(text) {
        assert_eq!(plan, ["row_norm"]);
    }
    common::device_targets().iter().for_each(|target| common::check(&module(text), target, 3));
}

#[test]
fn attention_of_any_shape_and_mask() {
    let mut random = Random(2);
    for case in 0..40 {
        let dtype = pick(&mut random, &["f32", "f32", "f32", "f16", "bf16"]);
        let (b, h) = (pick(&mut random, &[1, 2]), pick(&mut random, &[1, 3]));
        let (n, m) = (pick(&mut random, &[1, 7, 16, 33, 50]), pick(&mut random, &[1, 4, 9, 33, 77]));
        let d = pick(&mut random, &[4, 8, 40, 72, 5]);
        let e = if random.next().is_multiple_of(4) { pick(&mut random, &[3, 8, 64]) } else { d };
        let causal = random.next().is_multiple_of(3);
        let mask = match random.next() % 3 {
            0 => None,
            other => {
                let dims = [b, h, n, m].map(|x| if random.next().is_multiple_of(2) { x } else { 1 });
                let dtype = if other == 1 { "bool" } else { dtype };
                Some(format!("{dtype}[{},{},{},{}]", dims[0], dims[1], dims[2], dims[3]))
            }
        };
        let (input, name) = match &mask {
            Some(ty) => (format!(", %mask: {ty}"), ", %mask"),
            None => (String::new(), ""),
        };
        let out = format!("{dtype}[{b},{h},{n},{e}]");
        let body = format!("  %y = attention %q, %k, %v{name} scale=0.35 causal={causal} : {out}");
        let inputs =
            format!("%q: {dtype}[{b},{h},{n},{d}], %k: {dtype}[{b},{h},{m},{d}], %v: {dtype}[{b},{h},{m},{e}]{input}");
        let module = module(&format!("fn @f({inputs}) -> {out} {{\n{body}\n  return y=%y\n}}\n"));
        let targets = common::device_targets();
        // The targets with tight limits expand it.
        common::check(
            &module,
            &targets[if case % 4 == 3 { case / 4 % targets.len() } else { 3 * (case % 2) }],
            case as u64,
        );
    }
}

/// Heads too large for a kernel: blocks of queries, each through contractions; and no tensor of all scores.
#[test]
fn attention_with_large_heads_goes_in_blocks() {
    let name = "blocks".to_string();
    // 32 KiB of scores: 64 rows of 2 x 64 keys.
    let target = Target { name, max_binding_bytes: 64 << 10, max_buffer_bytes: 256 << 10, ..Target::portable() };
    for (n, m, mask) in [(100, 64, ""), (130, 64, "bool[1,1,130,64]"), (200, 70, "f32[2,1,1,70]")] {
        let (input, name) = if mask.is_empty() { (String::new(), "") } else { (format!(", %mask: {mask}"), ", %mask") };
        let (q, k, v) = (format!("f32[2,1,{n},260]"), format!("f32[2,1,{m},260]"), format!("f32[2,1,{m},12]"));
        let text = format!(
            "fn @f(%q: {q}, %k: {k}, %v: {v}{input}) -> f32[2,1,{n},12] {{
  %y = attention %q, %k, %v{name} scale=0.06 causal=false : f32[2,1,{n},12]
  return y=%y
}}
"
        );
        common::check(&module(&text), &target, n);
    }
    // 16384 tokens of an autoencoder at 1024x1024: the scores alone would be 1 GiB.
    let ty = "f32[1,1,16384,512]";
    let text = format!(
        "fn @f(%q: {ty}, %k: {ty}, %v: {ty}) -> {ty} {{
  %y = attention %q, %k, %v scale=0.04 causal=false : {ty}
  return y=%y
}}
"
    );
    let compiled = compile(&module(&text), &Target::portable(), &Options::default()).expect("it compiles");
    let peak = compiled.plan().peak_bytes();
    assert!(peak < 400 << 20, "{} MiB: operands and result take 128", peak >> 20);
}

#[test]
fn nothing_seen_gives_nothing() {
    check(
        "%q: f32[1,1,5,8], %k: f32[1,1,6,8], %v: f32[1,1,6,8]",
        "f32[1,1,5,8]",
        "  %i = iota axis=2 : i32[1,1,5,6]
  %mask = map %i body={i| i > 2i} : bool[1,1,5,6]
  %y = attention %q, %k, %v, %mask scale=0.35 causal=false : f32[1,1,5,8]",
    );
}

/// A bias that hides every key leaves their mean, also where a block of keys is not full.
#[test]
fn everything_hidden_by_a_bias_gives_the_mean() {
    for m in [1, 5, 8] {
        check(
            &format!("%q: f32[1,2,9,8], %k: f32[1,2,{m},8], %v: f32[1,2,{m},8], %b: f32[1,1,1,{m}]"),
            "f32[1,2,9,8]",
            &format!(
                "  %mask = map %b body={{b| b * 0.0 + -1.0e30}} : f32[1,1,1,{m}]
  %y = attention %q, %k, %v, %mask scale=0.35 causal=false : f32[1,2,9,8]"
            ),
        );
    }
}

#[test]
fn heads_are_split_and_merged_by_index() {
    let text = "fn @f(%x: f32[2,19,72], %r: f32[2,19,24], %g: f32[2,24]) -> f32[2,19,24] {
  %a = slice %x start=[0,0,0] end=[2,19,24] step=[1,1,1] : f32[2,19,24]
  %b = slice %x start=[0,0,24] end=[2,19,48] step=[1,1,1] : f32[2,19,24]
  %c = slice %x start=[0,0,48] end=[2,19,72] step=[1,1,1] : f32[2,19,24]
  %qs = reshape %a shape=[2,19,3,8] : f32[2,19,3,8]
  %ks = reshape %b shape=[2,19,3,8] : f32[2,19,3,8]
  %vs = reshape %c shape=[2,19,3,8] : f32[2,19,3,8]
  %q = transpose %qs perm=[0,2,1,3] : f32[2,3,19,8]
  %k = transpose %ks perm=[0,2,1,3] : f32[2,3,19,8]
  %v = transpose %vs perm=[0,2,1,3] : f32[2,3,19,8]
  %o = attention %q, %k, %v scale=0.35 causal=false : f32[2,3,19,8]
  %t = transpose %o perm=[0,2,1,3] : f32[2,19,3,8]
  %m = reshape %t shape=[2,19,24] : f32[2,19,24]
  %gb = broadcast %g axes=[0,2] shape=[2,19,24] : f32[2,19,24]
  %y = map %m, %gb, %r body={x, g, r| x * g + r} : f32[2,19,24]
  return y=%y
}
";
    for plan in families(text) {
        assert_eq!(plan, ["attention"]);
    }
    common::device_targets().iter().for_each(|target| common::check(&module(text), target, 5));
}

#[test]
fn windows_of_tokens() {
    for (text, height, width, radius, shape) in [
        (0, 6, 7, 3, "circle"),
        (5, 9, 5, 2, "square"),
        (3, 4, 13, 1, "circle"),
        (0, 5, 5, 0, "circle"),
        (2, 3, 3, 100, "square"),
        (4, 11, 12, 4, "circle"),
    ] {
        let tokens = text + height * width;
        for dtype in ["f32", "f16"] {
            let ty = format!("{dtype}[1,2,{tokens},8]");
            check(
                &format!("%q: {ty}, %k: {ty}, %v: {ty}"),
                &ty,
                &format!(
                    "  %y = local_attention %q, %k, %v scale=0.35 text={text} height={height} width={width} radius={radius} shape={shape} : {ty}"
                ),
            );
        }
    }
}
