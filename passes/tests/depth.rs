//! What optimising takes must not grow with the number of blocks: no times, but the sizes of what is worked on.

use selvedge_ir::{Function, Module};
use selvedge_passes::{Notes, Options, passes};

/// A network of `blocks` blocks, each modulated by a product of its own weights with one vector.
fn network(blocks: usize) -> Module {
    let weights: String = (0..blocks)
        .flat_map(|i| [format!("weight \"m{i}\" : f32[24,16]\n"), format!("weight \"w{i}\" : f32[24,24]\n")])
        .collect();
    let body: String = (0..blocks)
        .map(|i| {
            let x = if i == 0 { "%x".to_string() } else { format!("%x{i}") };
            let next = i + 1;
            format!(
                "  %m{i} = weight \"m{i}\" : f32[24,16]
  %w{i} = weight \"w{i}\" : f32[24,24]
  %c{i} = contract %c, %m{i} spec=[i,ji->j] dtype=f32 : f32[24]
  %b{i} = broadcast %c{i} shape=[10,24] axes=[1] : f32[10,24]
  %s{i} = map {x}, %b{i} body={{x, y| x * y}} : f32[10,24]
  %p{i} = contract %s{i}, %w{i} spec=[ik,jk->ij] dtype=f32 : f32[10,24]
  %h{i} = reduce %p{i} kind=max axes=[1] : f32[10]
  %hb{i} = broadcast %h{i} shape=[10,24] axes=[0] : f32[10,24]
  %e{i} = map %p{i}, %hb{i} body={{x, y| exp(x - y)}} : f32[10,24]
  %z{i} = reduce %e{i} kind=sum axes=[1] : f32[10]
  %zb{i} = broadcast %z{i} shape=[10,24] axes=[0] : f32[10,24]
  %x{next} = map {x}, %e{i}, %zb{i} body={{x, y, z| x + y / z}} : f32[10,24]\n"
            )
        })
        .collect();
    let text =
        format!("{weights}\nfn @f(%x: f32[10,24], %c: f32[16]) -> f32[10,24] {{\n{body}  return y=%x{blocks}\n}}\n");
    selvedge_ir::parse::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The module after all passes, and the nodes of each function's graph.
fn optimised(blocks: usize) -> (Module, Vec<usize>) {
    let mut notes = Notes::default();
    let all = passes(&Options::default());
    let module = all.iter().try_fold(network(blocks), |m, pass| pass.run_noting(m, &mut notes)).expect("it is legal");
    (module, notes.saturation.iter().map(|report| report.nodes).collect())
}

#[test]
fn graphs_do_not_grow_with_depth() {
    let (shallow, nodes) = optimised(6);
    let (deep, same) = optimised(30);
    assert!(nodes.len() > 1, "the blocks are a function");
    assert_eq!(nodes, same);
    // The blocks are rewritten to the same function, and called as often as there are blocks.
    let callees = |module: &Module| -> Vec<Function> {
        module.functions.iter().filter(|f| f.calls.is_empty()).cloned().collect()
    };
    assert_eq!(callees(&shallow), callees(&deep));
    let calls = |module: &Module| module.functions.iter().map(|f| f.calls.len()).sum::<usize>();
    assert_eq!(calls(&deep) - calls(&shallow), 24);
}
