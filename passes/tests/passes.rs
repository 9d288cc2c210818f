//! What each pass does, on small texts.

use selvedge_ir::parse::parse;
use selvedge_ir::print::print;
use selvedge_ir::verify::verify;
use selvedge_ir::{Module, Place};
use selvedge_passes::{
    Canonicalize, DeadCode, ExpandComposites, FoldConstants, InlineCalls, Optimizer, Options, Pass, Specialize,
    StoreWeights,
};

fn read(text: &str) -> Module {
    parse(text).unwrap_or_else(|e| panic!("{e}"))
}

/// The pass' result, printed without the blank lines between items.
fn check(pass: &dyn Pass, text: &str, want: &str) {
    let after = pass.run(read(text)).unwrap_or_else(|e| panic!("{e}"));
    verify(&after).unwrap_or_else(|e| panic!("{e}\n{after}"));
    assert_eq!(print(&after), print(&read(want)), "{}", pass.name());
}

fn specialize(symbols: &[(&str, usize)]) -> Specialize {
    Specialize { symbols: symbols.iter().map(|(s, n)| (s.to_string(), *n)).collect() }
}

#[test]
fn specialize_replaces_symbols_everywhere() {
    check(
        &specialize(&[("B", 2), ("N", 3)]),
        "state \"s\" : f32[B]
fn @f(%x: f32[B,N,4]) {
  %i = iota axis=0 : i32[B]
  %y = reshape %x shape=[B*N,4] : f32[B*N,4]
  %z = slice %x start=[0,0,1] end=[1099511627775,1099511627775,3] step=[1,1,1] : f32[B,N,2]
  %s = state \"s\" : f32[B]
  %a, %b = call @g(%z) : f32[B,N,2], f32[B]
  return i=%i, y=%y, a=%a, b=%b, s=%s
}
fn @g(%x: f32[B,N,2]) {
  %s = reduce %x kind=sum axes=[1,2] : f32[B]
  return x=%x, s=%s
}",
        "state \"s\" : f32[2]
fn @f(%x: f32[2,3,4]) {
  %i = iota axis=0 : i32[2]
  %y = reshape %x shape=[6,4] : f32[6,4]
  %z = slice %x start=[0,0,1] end=[2,3,3] step=[1,1,1] : f32[2,3,2]
  %s = state \"s\" : f32[2]
  %a, %b = call @g(%z) : f32[2,3,2], f32[2]
  return i=%i, y=%y, a=%a, b=%b, s=%s
}
fn @g(%x: f32[2,3,2]) {
  %s = reduce %x kind=sum axes=[1,2] : f32[2]
  return x=%x, s=%s
}",
    );
}

#[test]
fn specialize_says_which_symbols_are_left() {
    let module = read("fn @f(%x: f32[B,M-4]) {\n  return x=%x\n}");
    let error = specialize(&[("B", 1)]).run(module.clone()).unwrap_err();
    assert!(
        error.message.contains("still has symbols") && error.help.as_deref() == Some("give a number for M"),
        "{error}"
    );
    assert_eq!(error.place, Some(Place::Text { line: 1, column: 7 }));
    let error = specialize(&[("B", 1), ("M", 3)]).run(module).unwrap_err();
    assert!(error.message.contains("negative extent"), "{error}");
}

#[test]
fn expansions_keep_places() {
    let text = "fn @f(%x: f32[2,4]) {
  %y = softmax %x axis=1 : f32[2,4]
  return y=%y
}";
    let after = ExpandComposites::default().run(read(text)).unwrap();
    for value in &after.functions[0].values[1..] {
        assert_eq!(value.places, [Place::Text { line: 2, column: 3 }]);
    }
    assert!(print(&after).contains("%y = map"), "the result keeps its name\n{after}");
}

#[test]
fn inline_calls_replaces_calls_of_calls() {
    check(
        &InlineCalls,
        "fn @f(%x: f32[2]) {
  %a = call @g(%x) : f32[2]
  %b = call @g(%a) : f32[2]
  return y=%b
}
fn @g(%x: f32[2]) {
  %p, %q = call @h(%x) : f32[2], f32[2]
  return y=%q
}
fn @h(%x: f32[2]) {
  %y = map %x body={x| exp(x)} : f32[2]
  return x=%x, y=%y
}",
        "fn @f(%x: f32[2]) {
  %y = map %x body={x| exp(x)} : f32[2]
  %y_1 = map %y body={x| exp(x)} : f32[2]
  return y=%y_1
}
fn @g(%x: f32[2]) {
  %y = map %x body={x| exp(x)} : f32[2]
  return y=%y
}
fn @h(%x: f32[2]) {
  %y = map %x body={x| exp(x)} : f32[2]
  return x=%x, y=%y
}",
    );
    let error = InlineCalls.run(read("fn @f(%x: f32[]) {\n  %y = call @f(%x) : f32[]\n  return y=%y\n}")).unwrap_err();
    assert!(error.message.contains("calls itself"), "{error}");
}

#[test]
fn fold_constants_keeps_views_and_large_values() {
    check(
        &FoldConstants { limit: 4 },
        "fn @f(%x: f32[3]) {
  %c = const [1.0, 2.0, 3.0] : f32[3]
  %i = iota axis=0 : f32[3]
  %s = map %c, %i body={x, y| x * y} : f32[3]
  %w = broadcast %s shape=[2,3] axes=[1] : f32[2,3]
  %e = map %w body={x| x + 1.0} : f32[2,3]
  %y = map %x, %s body={x, y| x + y} : f32[3]
  return e=%e, y=%y
}",
        "fn @f(%x: f32[3]) {
  %c = const [1.0, 2.0, 3.0] : f32[3]
  %i = iota axis=0 : f32[3]
  %s = const [0.0, 2.0, 6.0] : f32[3]
  %w = broadcast %s shape=[2,3] axes=[1] : f32[2,3]
  %e = map %w body={x| x + 1.0} : f32[2,3]
  %y = map %x, %s body={x, y| x + y} : f32[3]
  return e=%e, y=%y
}",
    );
}

#[test]
fn dead_code_keeps_what_the_schedule_reaches() {
    check(
        &DeadCode,
        "weight \"used\" : f32[2]
weight \"unused\" : f32[2]
state \"kept\" : f32[2]
state \"gone\" : f32[2]
fn @step(%x: f32[2], %unread: f32[]) {
  %w = weight \"used\" : f32[2]
  %u = weight \"unused\" : f32[2]
  %d = map %u body={x| exp(x)} : f32[2]
  %a, %b = call @pair(%x) : f32[2], f32[2]
  %c, %e = call @pair(%d) : f32[2], f32[2]
  %y = map %b, %w body={x, y| x + y} : f32[2]
  return x=%y, state \"kept\"=%x
}
fn @pair(%x: f32[2]) {
  return a=%x, b=%x
}
fn @nobody(%x: f32[2]) {
  %s = state \"gone\" : f32[2]
  return a=%s
}
schedule {
  steps @step carry(x)
}",
        "weight \"used\" : f32[2]
state \"kept\" : f32[2]
fn @step(%x: f32[2], %unread: f32[]) {
  %w = weight \"used\" : f32[2]
  %a, %b = call @pair(%x) : f32[2], f32[2]
  %y = map %b, %w body={x, y| x + y} : f32[2]
  return x=%y, state \"kept\"=%x
}
fn @pair(%x: f32[2]) {
  return a=%x, b=%x
}
schedule {
  steps @step carry(x)
}",
    );
}

#[test]
fn canonicalize_merges_views_and_equal_values() {
    check(
        &Canonicalize,
        "fn @f(%x: f32[2,3,4]) {
  %a = transpose %x perm=[1,2,0] : f32[3,4,2]
  %b = transpose %a perm=[1,2,0] : f32[4,2,3]
  %c = transpose %b perm=[1,2,0] : f32[2,3,4]
  %d = reshape %b shape=[8,3] : f32[8,3]
  %e = reshape %d shape=[24] : f32[24]
  %v = reshape %x shape=[24] : f32[24]
  %w = broadcast %v shape=[2,24] axes=[1] : f32[2,24]
  %z = broadcast %w shape=[2,5,24] axes=[0,2] : f32[2,5,24]
  %p = map %c body={x| exp(x)} : f32[2,3,4]
  %q = map %x body={x| exp(x)} : f32[2,3,4]
  %r = map %p, %q, %x body={x, y, z| x * y} : f32[2,3,4]
  %s = map %r body={x| f32(x)} : f32[2,3,4]
  return e=%e, z=%z, s=%s
}",
        "fn @f(%x: f32[2,3,4]) {
  %a = transpose %x perm=[1,2,0] : f32[3,4,2]
  %b = transpose %x perm=[2,0,1] : f32[4,2,3]
  %d = reshape %b shape=[8,3] : f32[8,3]
  %e = reshape %b shape=[24] : f32[24]
  %v = reshape %x shape=[24] : f32[24]
  %w = broadcast %v shape=[2,24] axes=[1] : f32[2,24]
  %z = broadcast %v shape=[2,5,24] axes=[2] : f32[2,5,24]
  %p = map %x body={x| exp(x)} : f32[2,3,4]
  %r = map %p body={x| x * x} : f32[2,3,4]
  return e=%e, z=%z, s=%r
}",
    );
}

#[test]
fn shared_values_have_all_origins() {
    let text = "fn @f(%x: f32[2]) {
  %p = map %x body={x| exp(x)} : f32[2]
  %q = map %x body={x| exp(x)} : f32[2]
  return p=%p, q=%q
}";
    let after = Canonicalize.run(read(text)).unwrap();
    let place = |line| Place::Text { line, column: 3 };
    assert_eq!(after.functions[0].values[1].places, [place(2), place(3)]);
}

#[test]
fn the_pipeline_leaves_core_operators_without_calls() {
    let text = "fn @main(%x: f32[N,8]) {
  %y = call @block(%x) : f32[N,8]
  %z = call @block(%y) : f32[N,8]
  return z=%z
}
fn @block(%x: f32[N,8]) {
  %n = layer_norm %x eps=1e-6 : f32[N,8]
  return y=%n
}
schedule {
  condition @main
}";
    let options = Options { symbols: [("N".to_string(), 3)].into(), optimizer: Optimizer::None, ..Options::default() };
    let mut names = Vec::new();
    let after = selvedge_passes::pipeline(read(text), &options, &mut |name, _| names.push(name)).unwrap();
    assert_eq!(names.first(), Some(&"specialize"));
    assert_eq!(after.functions.len(), 1);
    assert!(after.functions[0].calls.is_empty());
    assert!(!print(&after).contains("layer_norm"));
}

#[test]
fn weights_of_products_are_stored_in_half_and_the_rest_stays() {
    check(
        &StoreWeights { dtype: selvedge_ir::DType::F16 },
        "weight \"w\" : f32[3,4]
weight \"b\" : f32[4]
weight \"t\" : f32[9,4]
fn @f(%x: f32[2,3], %i: i32[2]) {
  %w = weight \"w\" : f32[3,4]
  %b = weight \"b\" : f32[4]
  %t = weight \"t\" : f32[9,4]
  %y = contract %x, %w spec=[ab,bc->ac] dtype=f32 : f32[2,4]
  %c = broadcast %b shape=[2,4] axes=[1] : f32[2,4]
  %z = map %y, %c body={y, c| y + c} : f32[2,4]
  %r = gather %t, %i axis=0 batch=0 : f32[2,4]
  %s = map %z, %r body={z, r| z + r} : f32[2,4]
  %v = map %w body={w| abs(w)} : f32[3,4]
  return s=%s, v=%v
}",
        "weight \"w\" : f16[3,4]
weight \"b\" : f32[4]
weight \"t\" : f16[9,4]
fn @f(%x: f32[2,3], %i: i32[2]) {
  %w = weight \"w\" : f16[3,4]
  %b = weight \"b\" : f32[4]
  %t = weight \"t\" : f16[9,4]
  %y = contract %x, %w spec=[ab,bc->ac] dtype=f32 : f32[2,4]
  %c = broadcast %b shape=[2,4] axes=[1] : f32[2,4]
  %z = map %y, %c body={y, c| y + c} : f32[2,4]
  %r = gather %t, %i axis=0 batch=0 : f16[2,4]
  %0 = map %r body={r| f32(r)} : f32[2,4]
  %s = map %z, %0 body={z, r| z + r} : f32[2,4]
  %1 = map %w body={w| f32(w)} : f32[3,4]
  %v = map %1 body={w| abs(w)} : f32[3,4]
  return s=%s, v=%v
}",
    );
}
