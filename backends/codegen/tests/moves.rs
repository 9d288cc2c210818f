//! What only moves data is copied, between dispatches, and is what the interpreter says.

mod common;

use selvedge_codegen::{Compiled, Options, Target, compile};
use selvedge_ir::Module;
use selvedge_ir::parse::parse;

fn module(text: &str) -> Module {
    parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Dispatches, moves, and copies of all moves of the first function.
fn counts(compiled: &Compiled) -> [usize; 3] {
    let function = &compiled.plan().functions[0];
    [function.dispatches.len(), function.moves.len(), function.moves.iter().map(|m| m.copies.len()).sum()]
}

/// A function's counts for the portable target, when it was compared with the interpreter for all targets.
fn checked(text: &str) -> [usize; 3] {
    let module = module(text);
    for target in common::device_targets() {
        common::check(&module, &target, 31);
    }
    counts(&compile(&module, &Target::portable(), &Options::default()).expect("it compiles"))
}

#[test]
fn neighbours_of_a_stored_value_are_copied() {
    for dtype in ["f32", "f16", "bf16", "i32", "u32", "bool"] {
        let rows = format!(
            "fn @f(%x: {dtype}[7,5,3]) -> {dtype}[3,5,3] {{
  %y = slice %x start=[2,0,0] end=[5,5,3] step=[1,1,1] : {dtype}[3,5,3]
  return y=%y\n}}\n"
        );
        assert_eq!(checked(&rows), [0, 1, 1], "{dtype}");
        let part = format!(
            "fn @f(%x: {dtype}[7,9]) -> {dtype}[5] {{
  %s = slice %x start=[3,2] end=[4,7] step=[1,1] : {dtype}[1,5]
  %y = reshape %s shape=[5] : {dtype}[5]
  return y=%y\n}}\n"
        );
        assert_eq!(checked(&part), [0, 1, 1], "{dtype}");
    }
}

/// Tensors in several pieces, where buffers are small: copies end where a piece of either ends.
#[test]
fn pieces_are_copied_one_after_the_other() {
    let text = "fn @f(%x: f32[900,9], %z: f32[700,9]) -> f32[1300,9] {
  %s = slice %x start=[201,0] end=[801,9] step=[1,1] : f32[600,9]
  %y = concat %s, %z axis=0 : f32[1300,9]
  return y=%y\n}\n";
    assert_eq!(checked(text), [0, 1, 2]);
    let windows = common::targets().into_iter().find(|t| t.name == "windows").expect("it is listed");
    let [dispatches, moves, copies] =
        counts(&compile(&module(text), &windows, &Options::default()).expect("it compiles"));
    assert!(dispatches == 0 && moves == 1 && copies > 4, "{copies}");
}

#[test]
fn joins_are_copied_block_by_block() {
    let text = |axis: usize, shape: &str| {
        format!(
            "fn @f(%x: f32[3,4,5], %z: f32[3,4,5]) -> f32[{shape}] {{
  %y = concat %x, %z axis={axis} : f32[{shape}]
  return y=%y\n}}\n"
        )
    };
    assert_eq!(checked(&text(0, "6,4,5")), [0, 1, 2]);
    assert_eq!(checked(&text(1, "3,8,5")), [0, 1, 6]);
    // Twenty-four copies are too many.
    assert_eq!(checked(&text(2, "3,4,10")), [1, 0, 0]);
}

#[test]
fn what_does_not_lie_as_its_source_is_computed() {
    for (ty, body) in [
        ("f32[7,4]", "slice %x start=[0,0] end=[7,4] step=[1,1] : f32[7,4]"),
        ("f32[4,9]", "slice %x start=[0,0] end=[7,9] step=[2,1] : f32[4,9]"),
        ("f32[9,7]", "transpose %x perm=[1,0] : f32[9,7]"),
        ("f32[7,9]", "map %x body={x| x + 1.0} : f32[7,9]"),
        ("f32[8,9]", "pad %x padding=[0:1,0:0] value=0.0 : f32[8,9]"),
        ("f32[2,7,9]", "broadcast %x axes=[1,2] shape=[2,7,9] : f32[2,7,9]"),
    ] {
        let text = format!("fn @f(%x: f32[7,9]) -> {ty} {{\n  %y = {body}\n  return y=%y\n}}\n");
        assert_eq!(checked(&text), [1, 0, 0], "{body}");
    }
}

/// Three products, joined for a fourth: the move stands between them. Halves lie two to a word where their kernels write fours.
#[test]
fn moves_stand_between_dispatches() {
    for (dtype, n, wanted) in
        [("f32", 8, [4, 1, 3]), ("f16", 8, [4, 1, 3]), ("bf16", 4, [4, 1, 3]), ("f16", 3, [4, 1, 3])]
    {
        let text = format!(
            "fn @f(%x: {dtype}[5,6], %a: {dtype}[6,{n}], %b: {dtype}[{n},4]) -> {dtype}[15,4] {{
  %p = contract %x, %a spec=[ik,kj->ij] dtype={dtype} : {dtype}[5,{n}]
  %u = map %x body={{x| x * 0.5}} : {dtype}[5,6]
  %q = contract %u, %a spec=[ik,kj->ij] dtype={dtype} : {dtype}[5,{n}]
  %v = map %x body={{x| x * 0.25}} : {dtype}[5,6]
  %r = contract %v, %a spec=[ik,kj->ij] dtype={dtype} : {dtype}[5,{n}]
  %j = concat %p, %q, %r axis=0 : {dtype}[15,{n}]
  %y = contract %j, %b spec=[ik,kj->ij] dtype={dtype} : {dtype}[15,4]
  return y=%y\n}}\n"
        );
        assert_eq!(checked(&text), wanted, "{dtype} {n}");
        let compiled = compile(&module(&text), &Target::portable(), &Options::default()).expect("it compiles");
        assert_eq!(compiled.plan().functions[0].moves[0].after, 3);
        let text = selvedge_codegen::text::plan(&compiled.manifest, compiled.plan());
        let [product, copy] = ["%r contract", "%j concat // copied"].map(|what| text.find(what).expect(what));
        assert!(product < copy && copy < text.find("%y contract").expect("the last product"), "{text}");
    }
}

#[test]
fn gpus_copy_within_a_buffer_by_kernels() {
    let text = "fn @f(%x: f32[7,5]) -> f32[3,5] {
  %y = slice %x start=[2,0] end=[5,5] step=[1,1] : f32[3,5]
  return y=%y\n}\n";
    let gpu = Target { gpu: true, ..Target::portable() };
    let compiled = compile(&module(text), &gpu, &Options::default()).expect("it compiles");
    assert_eq!(counts(&compiled), [1, 0, 0]);
    let weight = "weight \"w\" : f32[7,5]\n\nfn @f() -> f32[3,5] {
  %w = weight \"w\" : f32[7,5]
  %y = slice %w start=[2,0] end=[5,5] step=[1,1] : f32[3,5]
  return y=%y\n}\n";
    let compiled = compile(&module(weight), &gpu, &Options::default()).expect("it compiles");
    assert_eq!(counts(&compiled), [0, 1, 1]);
    assert_eq!(checked(weight), [0, 1, 1]);
}
