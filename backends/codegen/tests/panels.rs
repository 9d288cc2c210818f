//! Weights that products alone read lie in panels, and products are what the interpreter says.

mod common;

use selvedge_bundle::Panels;
use selvedge_codegen::{Options, Subgroups, Target, compile};
use selvedge_ir::parse::parse;

/// Targets whose subgroups have one width: as they are, by pairs of words, and in windows of 8 KiB.
fn targets() -> Vec<Target> {
    let facts = common::gpu();
    let width = facts.facts().subgroup.filter(|(min, max)| min == max).map(|(min, max)| Subgroups { min, max });
    let subgroup = Some(width.expect("software drivers have one width of subgroups"));
    let base = Target { name: "subgroups".to_string(), subgroup, ..Target::portable() };
    let small = Target { max_binding_bytes: 8 << 10, max_buffer_bytes: 16 << 10, ..base.clone() };
    let wide = Target { wide: facts.facts().int64, ..base.clone() };
    vec![base, Target { wide: facts.facts().int64, ..small.clone() }, small, wide]
}

/// The panels of the weights of a module that was compared with the interpreter; `None` for weights as they are.
fn checked(weights: &[(&str, &str)], x: &str, y: &str, body: &str) -> Vec<Option<Panels>> {
    let declared: String = weights.iter().map(|(name, ty)| format!("weight \"{name}\" : {ty}\n")).collect();
    let values: String = weights.iter().map(|(name, ty)| format!("  %{name} = weight \"{name}\" : {ty}\n")).collect();
    let text = format!("{declared}\nfn @f(%x: {x}) -> {y} {{\n{values}{body}  return y=%y\n}}\n");
    let module = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    for target in targets() {
        common::check(&module, &target, 47);
    }
    let eight = Target { subgroup: Some(Subgroups { min: 8, max: 8 }), ..Target::portable() };
    let compiled = compile(&module, &eight, &Options::default()).expect("it compiles");
    compiled.plan().weights.iter().map(|slot| slot.panels).collect()
}

fn linear(dtype: &str, n: u64, k: u64) -> Vec<Option<Panels>> {
    let cast = format!("  %v = map %w body={{x| f32(x)}} : f32[{n},{k}]\n");
    let (cast, operand) = if dtype == "f32" { ("", "%w") } else { (&cast[..], "%v") };
    let product = format!("  %y = contract %x, {operand} spec=[ik,jk->ij] dtype=f32 : f32[37,{n}]\n");
    let body = format!("{cast}{product}");
    checked(&[("w", &format!("{dtype}[{n},{k}]"))], &format!("f32[37,{k}]"), &format!("f32[37,{n}]"), &body)
}

fn panels(rows: u64, channels: u64, taps: u64) -> Option<Panels> {
    Some(Panels { rows, channels, taps })
}

#[test]
fn linear_layers_lie_in_the_largest_whole_panels() {
    for (n, k, rows) in [(96, 64, 32), (80, 36, 16), (40, 20, 8), (44, 8, 4), (2, 132, 2)] {
        assert_eq!(linear("f32", n, k), [panels(rows, k, 1)], "{n} {k}");
    }
    for dtype in ["f16", "bf16"] {
        assert_eq!(linear(dtype, 96, 64), [panels(32, 64, 1)], "{dtype}");
        assert_eq!(linear(dtype, 44, 20), [panels(4, 20, 1)], "{dtype}");
    }
    // Single rows, and rows of no whole fours.
    assert_eq!(linear("f32", 33, 64), [None]);
    assert_eq!(linear("f16", 32, 30), [None]);
}

/// Sums longer than a loop may be, and weights larger than a binding (see the targets).
#[test]
fn panels_are_read_in_chunks() {
    assert_eq!(linear("f32", 8, 4096), [panels(8, 4096, 1)]);
    assert_eq!(linear("f16", 160, 72), [panels(32, 72, 1)]);
}

#[test]
fn views_of_a_weight_are_looked_through() {
    let heads = "  %v = reshape %w shape=[4,8,24] : f32[4,8,24]
  %y = contract %x, %v spec=[ik,hdk->hid] dtype=f32 : f32[4,9,8]\n";
    assert_eq!(checked(&[("w", "f32[32,24]")], "f32[9,24]", "f32[4,9,8]", heads), [panels(32, 24, 1)]);
    let experts = "  %y = contract %x, %w spec=[eik,ejk->eij] dtype=f32 : f32[3,9,8]\n";
    assert_eq!(checked(&[("w", "f32[3,8,24]")], "f32[3,9,24]", "f32[3,9,8]", experts), [panels(8, 24, 1)]);
    // Its rows are not what is summed.
    let other = "  %y = contract %x, %w spec=[ik,kj->ij] dtype=f32 : f32[9,32]\n";
    assert_eq!(checked(&[("w", "f32[24,32]")], "f32[9,24]", "f32[9,32]", other), [None]);
}

#[test]
fn convolutions_read_channels_by_fours() {
    let plane = |inputs: u64, outputs: u64, groups: u64, dtype: &str| {
        let kernel = format!("{dtype}[{outputs},{},3,3]", inputs / groups);
        let cast = format!("  %v = map %w body={{x| f32(x)}} : f32[{outputs},{},3,3]\n", inputs / groups);
        let (cast, operand) = if dtype == "f32" { ("", "%w") } else { (&cast[..], "%v") };
        let body = format!(
            "{cast}  %y = window %x, {operand} kind=conv size=[3,3] stride=[1,1] padding=[1:1,1:1] dilation=[1,1] \
             groups={groups} : f32[2,{outputs},5,7]\n"
        );
        checked(&[("w", &kernel)], &format!("f32[2,{inputs},5,7]"), &format!("f32[2,{outputs},5,7]"), &body)
    };
    assert_eq!(plane(8, 16, 1, "f32"), [panels(16, 8, 9)]);
    assert_eq!(plane(8, 16, 1, "f16"), [panels(16, 8, 9)]);
    assert_eq!(plane(12, 20, 1, "bf16"), [panels(4, 12, 9)]);
    assert_eq!(plane(8, 24, 2, "f32"), [panels(8, 4, 9)]);
    assert_eq!(plane(6, 16, 1, "f32"), [None]);
    let line = "  %y = window %x, %w kind=conv size=[4] stride=[2] padding=[1:2] dilation=[1] groups=1 : f32[1,8,9]\n";
    assert_eq!(checked(&[("w", "f32[8,4,4]")], "f32[1,4,17]", "f32[1,8,9]", line), [panels(8, 4, 4)]);
    let one = "  %y = window %x, %w kind=conv size=[1,1] stride=[1,1] padding=[0:0,0:0] dilation=[1,1] groups=1 \
               : f32[1,8,3,5]\n";
    assert_eq!(checked(&[("w", "f32[8,12,1,1]")], "f32[1,12,3,5]", "f32[1,8,3,5]", one), [panels(8, 12, 1)]);
}

#[test]
fn whoever_else_reads_a_weight_finds_it_as_it_is() {
    let weights = [("w", "f32[32,24]")];
    let twice = "  %a = contract %x, %w spec=[ik,jk->ij] dtype=f32 : f32[9,32]
  %b = contract %a, %a spec=[ik,jk->ij] dtype=f32 : f32[9,9]
  %c = contract %b, %x spec=[ik,kj->ij] dtype=f32 : f32[9,24]
  %y = contract %c, %w spec=[ik,jk->ij] dtype=f32 : f32[9,32]\n";
    assert_eq!(checked(&weights, "f32[9,24]", "f32[9,32]", twice), [panels(32, 24, 1)]);
    let both_ways = "  %a = contract %x, %w spec=[ik,jk->ij] dtype=f32 : f32[9,32]
  %y = contract %a, %w spec=[ij,jk->ik] dtype=f32 : f32[9,24]\n";
    assert_eq!(checked(&weights, "f32[9,24]", "f32[9,24]", both_ways), [None]);
    let summed = "  %a = contract %x, %w spec=[ik,jk->ij] dtype=f32 : f32[9,32]
  %s = reduce %w kind=sum axes=[1] : f32[32]
  %b = broadcast %s axes=[1] shape=[9,32] : f32[9,32]
  %y = map %a, %b body={x, y| x + y} : f32[9,32]\n";
    assert_eq!(checked(&weights, "f32[9,24]", "f32[9,32]", summed), [None]);
    let copied = "  %a = contract %x, %w spec=[ik,jk->ij] dtype=f32 : f32[9,32]
  %y = concat %a, %w axis=1 : f32[9,56]\n";
    let square = [("w", "f32[9,24]")];
    let copied = copied.replace("f32[9,32]", "f32[9,9]").replace("f32[9,56]", "f32[9,33]");
    assert_eq!(checked(&square, "f32[9,24]", "f32[9,33]", &copied), [None]);
}

#[test]
fn joined_weights_have_whole_panels_each() {
    let joined = |a: u64, b: u64| {
        let n = a + b;
        let body = format!(
            "  %j = concat %v, %w axis=0 : f32[{n},24]
  %y = contract %x, %j spec=[ik,jk->ij] dtype=f32 : f32[9,{n}]\n"
        );
        let weights = [("v", format!("f32[{a},24]")), ("w", format!("f32[{b},24]"))];
        let weights: Vec<(&str, &str)> = weights.iter().map(|(name, ty)| (*name, &ty[..])).collect();
        checked(&weights, "f32[9,24]", &format!("f32[9,{n}]"), &body)
    };
    assert_eq!(joined(64, 32), [panels(32, 24, 1); 2]);
    assert_eq!(joined(32, 8), [panels(8, 24, 1); 2]);
    assert_eq!(joined(31, 1), [None; 2]);
}

/// Where nothing is known to gain, weights stay as the checkpoint has them.
#[test]
fn gpus_and_drivers_without_subgroups_read_rows() {
    let text = "weight \"w\" : f32[32,24]\n\nfn @f(%x: f32[9,24]) -> f32[9,32] {
  %w = weight \"w\" : f32[32,24]
  %y = contract %x, %w spec=[ik,jk->ij] dtype=f32 : f32[9,32]
  return y=%y\n}\n";
    let module = parse(text).expect("it is well formed");
    let gpu = Target { gpu: true, subgroup: Some(Subgroups { min: 32, max: 32 }), ..Target::portable() };
    for target in [Target::portable(), gpu] {
        let compiled = compile(&module, &target, &Options::default()).expect("it compiles");
        assert_eq!(compiled.plan().weights[0].panels, None);
    }
}
