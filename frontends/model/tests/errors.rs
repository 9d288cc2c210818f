//! Mistakes in model code: where they point, what they say, and that they are reported once.

use selvedge_model::nn::{Attention, Linear, PatchEmbed, split_heads};
use selvedge_model::{DType, Diagnostic, Graph, ModuleBuilder, concat};

/// The only diagnostic of a graph.
fn only(graph: &Graph) -> Diagnostic {
    let all = graph.finish().expect_err("the graph has a mistake").0;
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().expect("one was counted")
}

/// It happened on `line` of this file, and says all of `parts`.
fn check(diagnostic: &Diagnostic, line: u32, parts: &[&str]) {
    let text = diagnostic.to_string();
    assert!(text.contains(&format!("errors.rs:{line}:")), "{text}\nshould point at line {line}");
    for part in parts {
        assert!(text.contains(part), "{text}\nshould say {part}");
    }
}

#[test]
fn operators_point_at_the_caller_and_say_both_shapes() {
    let g = Graph::new("f");
    let (a, b) = (g.input("a", DType::F32, [2, 3]), g.input("b", DType::F32, [2, 4]));
    let line = line!() + 1;
    let _ = &a + &b;
    check(&only(&g), line, &["[2,3]", "[2,4]", "broadcast"]);
}

#[test]
fn products_say_both_shapes() {
    let g = Graph::new("f");
    let (a, b) = (g.input("a", DType::F32, [2, 3]), g.input("b", DType::F32, [4, 5]));
    let line = line!() + 1;
    let _ = a.matmul(&b);
    check(&only(&g), line, &["f32[2,3]", "f32[4,5]", "contract"]);

    let g = Graph::new("f");
    let (a, b) = (g.input("a", DType::F32, [7, 2, 3]), g.input("b", DType::F32, [6, 3, 5]));
    let line = line!() + 1;
    let _ = a.matmul(&b);
    check(&only(&g), line, &["[7,2,3]", "[6,3,5]"]);
}

#[test]
fn layers_point_at_the_model_code() {
    let g = Graph::new("f");
    let x = g.input("x", DType::F32, [2, 16, 48]);
    let layer = Linear::new(&g.weights().sub("fc1"), 64, 128);
    let line = line!() + 1;
    let _ = layer.forward(&x);
    check(&only(&g), line, &["fc1", "[..,64]", "[2,16,48]"]);

    let g = Graph::new("f");
    let x = g.input("x", DType::F32, [2, 16, 48]);
    let layer = Attention::fused(&g.weights().sub("attn"), 48, 5);
    let line = line!() + 1;
    let _ = layer.forward(&x);
    let all = g.finish().expect_err("48 features have no 5 heads").0;
    check(&all[0], line, &["5 heads", "[2,16,48]"]);

    let g = Graph::new("f");
    let x = g.input("x", DType::F32, [2, 4, 9, 8]);
    let layer = PatchEmbed::new(&g.weights().sub("proj"), 2, 4, 32);
    let line = line!() + 1;
    let _ = layer.forward(&x);
    check(&only(&g), line, &["2×2", "[2,4,9,8]"]);
}

#[test]
fn a_poisoned_tensor_spreads_silently() {
    let g = Graph::new("f");
    let x = g.input("x", DType::F32, [2, 3]);
    let bad = x.reshape([7]);
    assert!(bad.id().is_none());
    let worse = (&bad * 2.0 + &x).softmax(-1).matmul(&x).sum([0, 1]).permute([5, 6]).unsqueeze(9);
    let [a, b, c] = bad.chunk::<3>(-1);
    let heads = split_heads(&concat(&[&a, &b, &c, &worse], 4), 3);
    g.output("y", &heads.topk(3, -1).0.max_keepdim(-1));
    let text = only(&g).to_string();
    assert!(text.contains("reshape") && text.contains("[2,3]") && text.contains("[7]"), "{text}");
}

#[test]
fn all_mistakes_of_all_functions_are_reported() {
    let mut module = ModuleBuilder::new("m");
    let first = module.function("first", |g| {
        let x = g.input("x", DType::F32, [2, 3]);
        g.output("y", &x.reshape([5]));
        g.output("z", &(&x + g.input("i", DType::I32, [2, 3])));
    });
    module.function("second", |g| {
        let x = g.input("x", DType::F32, [2, 3]);
        let results = g.call(&first, &[&x]); // poisoned without another report
        g.output("y", &results.into_iter().fold(x.sum(2), |a, b| a + b));
    });
    module.function("third", |g| {
        g.input("x", DType::F32, [1]);
    });
    let text = module.build().expect_err("four mistakes").to_string();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(
        text.contains("f32 and i32") && text.contains("no axis 2") && text.contains("`third` returns nothing"),
        "{text}"
    );
}

#[test]
fn other_mistakes_are_named() {
    let text = |f: &dyn Fn(&Graph)| {
        let g = Graph::new("f");
        f(&g);
        only(&g).to_string()
    };
    let x = |g: &Graph| g.input("x", DType::F32, [2, 6]);
    let i = |g: &Graph| g.input("i", DType::I32, [2, 6]);
    type Mistake<'a> = &'a dyn Fn(&Graph);
    let cases: [(Mistake, &str); 9] = [
        (&|g| drop(x(g).chunk::<4>(-1)), "4 equal parts"),
        (&|g| drop(x(g).split(-1, &[2, 3])), "do not fill axis -1"),
        (&|g| drop(i(g) + 0.5), "0.5 is not a value of i32"),
        (&|g| drop(i(g) * x(g)), "one type, found i32 and f32"),
        (&|g| drop((x(g), x(g))), "two inputs are named `x`"),
        (&|g| drop(g.constant(DType::F32, [2], &[1.0])), "one value an element"),
        (&|g| drop(x(g).einsum("ij->j", &x(&Graph::new("other")))), "`ij->j`"),
        (&|g| drop(x(g) + x(&Graph::new("other"))), "used in another"),
        (&|g| drop((g.weights().weight("w", [2]), g.weights().weight("w", [3]))), "weight `w` is used with two types"),
    ];
    for (f, part) in cases {
        let text = text(f);
        assert!(text.contains(part), "{text}\nshould say {part}");
    }
}
