//! The device computes what the interpreter computes, operator by operator, under targets with different limits.

mod common;

use selvedge_ir::parse::parse;

/// Checks a module's functions under every target.
fn check(text: &str) {
    let module = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    for (i, target) in common::device_targets().iter().enumerate() {
        common::check(&module, target, 7 + i as u64);
    }
}

/// One function of one statement list: `inputs`, then `body`, which defines `%y`.
fn function(inputs: &str, result: &str, body: &str) {
    let weights: String = body
        .lines()
        .filter_map(|l| l.split_once("= weight "))
        .map(|(_, declared)| format!("weight {declared}\n"))
        .collect();
    check(&format!("{weights}\nfn @f({inputs}) -> {result} {{\n{body}\n  return y=%y\n}}\n"));
}

#[test]
fn maps_and_views_fuse() {
    function(
        "%x: f32[6,8], %b: f32[8]",
        "f32[3,16]",
        "  %r = broadcast %b axes=[1] shape=[6,8] : f32[6,8]
  %s = map %x, %r body={x, y| x * sigmoid(y) + 1.0} : f32[6,8]
  %t = transpose %s perm=[1,0] : f32[8,6]
  %u = reshape %t shape=[3,16] : f32[3,16]
  %y = map %u body={x| tanh(x)} : f32[3,16]",
    );
}

#[test]
fn slices_pads_and_concats_select() {
    function(
        "%x: f32[5,7], %z: f32[3,7]",
        "f32[9,9]",
        "  %c = concat %x, %z axis=0 : f32[8,7]
  %s = slice %c start=[1,0] end=[8,7] step=[1,2] : f32[7,4]
  %p = pad %s padding=[1:1,2:3] value=0.5 : f32[9,9]
  %y = map %p body={x| x + x} : f32[9,9]",
    );
    function("%x: i32[9]", "i32[9]", "  %y = map %x body={x| x / 3i} : i32[9]");
    function(
        "%x: bool[6,4]",
        "bool[4,6]",
        "  %n = map %x body={x| not(x)} : bool[6,4]
  %y = transpose %n perm=[1,0] : bool[4,6]",
    );
}

#[test]
fn narrow_floats_round() {
    for dtype in ["f16", "bf16"] {
        function(
            &format!("%x: {dtype}[33], %z: {dtype}[33]"),
            &format!("{dtype}[33]"),
            &format!(
                "  %w = weight \"w\" : {dtype}[33]
  %m = map %x, %z body={{x, y| x * y}} : {dtype}[33]
  %y = map %m, %w body={{x, y| x + y}} : {dtype}[33]"
            ),
        );
    }
}

#[test]
fn leaves_are_read() {
    function(
        "%x: f32[4,6]",
        "f32[4,6]",
        "  %i = iota axis=1 : f32[4,6]
  %c = const [0.5, 1.5, -2.0, 3.0, 4.0, 5.0] : f32[6]
  %d = broadcast %c axes=[1] shape=[4,6] : f32[4,6]
  %s = const [2.0] : f32[1]
  %e = broadcast %s axes=[0] shape=[4,6] : f32[4,6]
  %y = map %x, %i, %d, %e body={x, y, z, w| x + y * z * w} : f32[4,6]",
    );
    check(
        "fn @f(%x: f32[4]) -> f32[4], f32[2,2] {\n  %r = reshape %x shape=[2,2] : f32[2,2]\n  return a=%x, b=%r\n}\n",
    );
}

#[test]
fn reductions_keep_their_rows() {
    for kind in ["sum", "prod", "max", "min"] {
        function("%x: f32[3,50,4]", "f32[3,4]", &format!("  %y = reduce %x kind={kind} axes=[1] : f32[3,4]"));
        function("%x: i32[300,5]", "i32[300]", &format!("  %y = reduce %x kind={kind} axes=[1] : i32[300]"));
    }
    for kind in ["argmax", "argmin"] {
        function("%x: f32[3,700]", "i32[3]", &format!("  %y = reduce %x kind={kind} axes=[1] : i32[3]"));
        function("%x: i32[300,7]", "i32[300]", &format!("  %y = reduce %x kind={kind} axes=[1] : i32[300]"));
    }
    function("%x: bool[5,6]", "bool[6]", "  %y = reduce %x kind=max axes=[0] : bool[6]");
    function(
        "%x: f32[4,90]",
        "f32[4]",
        "  %m = reduce %x kind=sum axes=[1] : f32[4]
  %y = map %m body={x| rsqrt(x * x + 1.0)} : f32[4]",
    );
}

#[test]
fn contractions_take_any_order_of_axes() {
    for (a, b, spec, out) in [
        ("f32[5,12]", "f32[12,9]", "ik,kj->ij", "f32[5,9]"),
        ("f32[5,12]", "f32[9,12]", "ik,jk->ij", "f32[5,9]"),
        ("f32[5,13]", "f32[11,13]", "ik,jk->ij", "f32[5,11]"),
        ("f32[5,13]", "f32[13,11]", "ik,kj->ji", "f32[11,5]"),
        ("f32[2,3,20,8]", "f32[2,3,24,8]", "bhnd,bhmd->bhnm", "f32[2,3,20,24]"),
        ("f32[2,20,3,8]", "f32[2,20,3,8]", "bnhd,bmhd->bhnm", "f32[2,3,20,20]"),
        ("f32[4,6]", "f32[5]", "ab,c->cab", "f32[5,4,6]"),
        ("f32[4,6,2]", "f32[6,2,3]", "abc,bcd->ad", "f32[4,3]"),
        ("f32[7]", "f32[7]", "a,a->", "f32[]"),
        ("f32[70,65]", "f32[65,130]", "ik,kj->ij", "f32[70,130]"),
    ] {
        function(&format!("%a: {a}, %b: {b}"), out, &format!("  %y = contract %a, %b spec=[{spec}] dtype=f32 : {out}"));
    }
    function(
        "%a: f32[2,2000]",
        "f32[2,3]",
        "  %w = weight \"w\" : f16[3,2000]
  %y = contract %a, %w spec=[ik,jk->ij] dtype=f32 : f32[2,3]",
    );
}

#[test]
fn epilogues_and_prologues_join_contractions() {
    function(
        "%x: f32[6,16], %r: f32[6,2,6], %g: f32[12]",
        "f32[6,2,6]",
        "  %w = weight \"w\" : bf16[12,16]
  %b = weight \"b\" : bf16[12]
  %s = map %x body={x| x * 2.0} : f32[6,16]
  %c = contract %s, %w spec=[ik,jk->ij] dtype=f32 : f32[6,12]
  %bf = map %b body={x| f32(x)} : f32[12]
  %bb = broadcast %bf axes=[1] shape=[6,12] : f32[6,12]
  %gb = broadcast %g axes=[1] shape=[6,12] : f32[6,12]
  %d = map %c, %bb, %gb body={x, y, z| (x + y) * z} : f32[6,12]
  %e = reshape %d shape=[6,2,6] : f32[6,2,6]
  %y = map %e, %r body={x, y| x * sigmoid(x) + y} : f32[6,2,6]",
    );
}

#[test]
fn windows_slide() {
    for (x, kernel, attributes, out) in [
        ("f32[2,3,9,10]", "f32[5,3,3,3]", "stride=[1,1] padding=[1:1,1:1] dilation=[1,1] groups=1", "f32[2,5,9,10]"),
        ("f32[2,4,9,10]", "f32[6,2,3,3]", "stride=[2,1] padding=[0:1,2:0] dilation=[1,2] groups=2", "f32[2,6,4,8]"),
        ("f32[1,4,8,8]", "f32[4,1,3,3]", "stride=[1,1] padding=[1:1,1:1] dilation=[1,1] groups=4", "f32[1,4,8,8]"),
        ("f32[2,3,8,8]", "f32[16,3,2,2]", "stride=[2,2] padding=[0:0,0:0] dilation=[1,1] groups=1", "f32[2,16,4,4]"),
        ("f32[2,8,6,6]", "f32[9,8,1,1]", "stride=[1,1] padding=[0:0,0:0] dilation=[1,1] groups=1", "f32[2,9,6,6]"),
    ] {
        let size = if kernel.ends_with("3,3]") {
            "3,3"
        } else if kernel.ends_with("2,2]") {
            "2,2"
        } else {
            "1,1"
        };
        function(
            &format!("%x: {x}, %k: {kernel}"),
            out,
            &format!("  %y = window %x, %k kind=conv size=[{size}] {attributes} : {out}"),
        );
    }
    for kind in ["sum", "max"] {
        function(
            "%x: f32[2,3,9,8]",
            "f32[2,3,5,4]",
            &format!(
                "  %y = window %x kind={kind} size=[3,2] stride=[2,2] padding=[1:1,0:0] dilation=[1,1] groups=1 : f32[2,3,5,4]"
            ),
        );
    }
    function(
        "%x: f32[2,3,9], %k: f32[4,3,4]",
        "f32[2,4,8]",
        "  %y = window %x, %k kind=conv size=[4] stride=[1] padding=[1:1] dilation=[1] groups=1 : f32[2,4,8]",
    );
}

#[test]
fn scans_run_both_ways() {
    for (kind, reverse, exclusive) in
        [("sum", false, false), ("sum", true, true), ("prod", false, true), ("max", true, false), ("min", false, true)]
    {
        for dtype in ["f32", "i32"] {
            function(
                &format!("%x: {dtype}[3,400,2]"),
                &format!("{dtype}[3,400,2]"),
                &format!(
                    "  %y = scan %x kind={kind} axis=1 reverse={reverse} exclusive={exclusive} : {dtype}[3,400,2]"
                ),
            );
        }
    }
}

#[test]
fn indices_are_data() {
    function("%x: f32[9,4], %i: i32[3,2]", "f32[3,2,4]", "  %y = gather %x, %i axis=0 batch=0 : f32[3,2,4]");
    function(
        "%x: f32[3,9,4], %i: u32[3,5]",
        "f32[3,5,4]",
        "  %g = gather %x, %i axis=1 batch=1 : f32[3,5,4]
  %y = map %g body={x| x * 3.0} : f32[3,5,4]",
    );
    for kind in ["add", "set"] {
        function(
            "%x: f32[9,4], %i: i32[7], %u: f32[7,4]",
            "f32[9,4]",
            &format!("  %y = scatter %x, %i, %u kind={kind} axis=0 batch=0 : f32[9,4]"),
        );
        function(
            "%x: i32[2,3,5], %i: u32[2,400], %u: i32[2,3,400]",
            "i32[2,3,5]",
            &format!("  %y = scatter %x, %i, %u kind={kind} axis=2 batch=1 : i32[2,3,5]"),
        );
    }
    function("%x: f32[3,20,2]", "i32[3,4,2]", "  %y = topk %x k=4 axis=1 largest=true : i32[3,4,2]");
    function("%x: i32[2,400]", "i32[2,7]", "  %y = topk %x k=7 axis=1 largest=false : i32[2,7]");
}

#[test]
fn composites_compute() {
    function("%x: f32[6,40]", "f32[6,40]", "  %y = softmax %x axis=1 : f32[6,40]");
    function(
        "%x: f32[2,7,24], %s: f32[24], %b: f32[24]",
        "f32[2,7,24]",
        "  %y = layer_norm %x, %s, %b eps=0.000001 : f32[2,7,24]",
    );
    function("%x: f32[2,6,5,5]", "f32[2,6,5,5]", "  %y = group_norm %x groups=3 eps=0.00001 : f32[2,6,5,5]");
    function(
        "%q: f32[2,3,10,8], %k: f32[2,3,12,8], %v: f32[2,3,12,6]",
        "f32[2,3,10,6]",
        "  %y = attention %q, %k, %v scale=0.35 causal=false : f32[2,3,10,6]",
    );
    function("%x: f32[1,2,4,4]", "f32[1,2,8,8]", "  %y = resize %x kind=linear size=[8,8] : f32[1,2,8,8]");
}

#[test]
fn halves_lie_two_to_a_word_where_fours_are_written() {
    for dtype in ["f16", "bf16"] {
        // A map, a contraction and a convolution make halves that others read: by fours, one by one, and shifted.
        function(
            "%x: f32[6,16], %z: f32[1,2,6,8]",
            "f32[6,12]",
            &format!(
                "  %w = weight \"w\" : {dtype}[12,16]
  %v = weight \"v\" : {dtype}[12,12]
  %k = weight \"k\" : f32[3,2,3,3]
  %wf = map %w body={{x| f32(x)}} : f32[12,16]
  %vf = map %v body={{x| f32(x)}} : f32[12,12]
  %c = contract %x, %wf spec=[ik,jk->ij] dtype=f32 : f32[6,12]
  %h = map %c body={{x| {dtype}(x * 3.0)}} : {dtype}[6,12]
  %hf = map %h body={{x| f32(x)}} : f32[6,12]
  %d = contract %hf, %vf spec=[ik,jk->ij] dtype=f32 : f32[6,12]
  %u = window %z, %k kind=conv size=[3,3] stride=[1,1] padding=[1:1,1:1] dilation=[1,1] groups=1 : f32[1,3,6,8]
  %g = map %u body={{x| {dtype}(x)}} : {dtype}[1,3,6,8]
  %gf = map %g body={{x| f32(x)}} : f32[1,3,6,8]
  %gs = slice %gf start=[0,1,0,1] end=[1,3,6,7] step=[1,1,1,1] : f32[1,2,6,6]
  %gt = transpose %gs perm=[0,2,1,3] : f32[1,6,2,6]
  %gr = reshape %gt shape=[6,12] : f32[6,12]
  %y = map %d, %gr, %hf body={{x, y, z| x + y * z}} : f32[6,12]"
            ),
        );
    }
}
