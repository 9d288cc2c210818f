//! What the models' own composites say is found again from primitives: expanded, split and saturated, every module of the
//! fixtures has as many attentions and norms as its author wrote, or its graph had them and a cheaper program was taken
//! (the root of a norm goes into the `concat` behind it); and it still meets the recorded outputs.

use selvedge_import::cases;
use selvedge_ir::{Interpreter, Module, OpKind, Tensor};
use selvedge_passes::saturate::{Rates, Saturate, Strategy};
use selvedge_passes::{
    CanonicalContract, Canonicalize, DeadCode, ExpandComposites, FoldConstants, MergeMaps, Notes, Options, Pass,
    SplitMaps,
};
use std::path::Path;

/// Composites, each with the beginning of the names of the rules that find it.
const KINDS: [(OpKind, &str); 4] = [
    (OpKind::Attention, "attention"),
    (OpKind::LayerNorm, "layer-norm"),
    (OpKind::RmsNorm, "rms-norm"),
    (OpKind::GroupNorm, "group-norm"),
];

fn discovered(module: &Module, notes: &mut Notes) -> Module {
    let passes: [Box<dyn Pass>; 10] = [
        Box::new(ExpandComposites::default()),
        Box::new(Canonicalize),
        Box::new(FoldConstants { limit: Options::default().fold_limit }),
        Box::new(SplitMaps),
        Box::new(CanonicalContract),
        Box::new(Canonicalize),
        Box::new(Saturate::new(Rates::default(), Strategy::Saturate)),
        Box::new(MergeMaps),
        Box::new(Canonicalize),
        Box::new(DeadCode),
    ];
    let run = |m: Module, pass: &dyn Pass, notes: &mut Notes| {
        pass.run_noting(m, notes).unwrap_or_else(|e| panic!("{}: {e}", pass.name()))
    };
    passes.iter().fold(module.clone(), |m, pass| run(m, pass.as_ref(), notes))
}

fn counts(module: &Module) -> [usize; 4] {
    let kinds: Vec<OpKind> =
        module.functions.iter().flat_map(|f| f.ids().filter_map(|id| Some(f.op(id)?.0.kind()))).collect();
    KINDS.map(|(kind, _)| kinds.iter().filter(|k| **k == kind).count())
}

/// How often rules found each kind.
fn applied(notes: &Notes) -> [usize; 4] {
    KINDS.map(|(_, begin)| {
        let rules = notes.saturation.iter().flat_map(|f| &f.rules);
        rules.filter(|r| r.name.starts_with(begin)).map(|r| r.applied).sum()
    })
}

fn distance(got: &Tensor, want: &Tensor) -> f64 {
    let (g, w) = (got.to_f64(), want.to_f64());
    let square = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let (gap, norm) = (square(&mut g.iter().zip(&w).map(|(g, w)| g - w)), square(&mut w.iter().copied()));
    if norm > 0.0 { gap / norm } else { gap }
}

fn fixture(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    let case = cases::open(&folder).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut composites = 0;
    for run in &case.runs {
        // Equal values once, on both sides of the comparison.
        let before = DeadCode.run(Canonicalize.run(run.module.clone()).unwrap()).unwrap();
        let mut notes = Notes::default();
        let after = discovered(&run.module, &mut notes);
        let (wrote, kept, found) = (counts(&before), counts(&after), applied(&notes));
        composites += wrote.iter().sum::<usize>();
        for (i, (kind, _)) in KINDS.iter().enumerate() {
            assert!(
                kept[i] == wrote[i] || found[i] >= wrote[i] && *kind == OpKind::RmsNorm,
                "{name} {}: {} {}, of which {} are left, after {} applications",
                run.name,
                wrote[i],
                kind.text(),
                kept[i],
                found[i]
            );
        }
        let output = Interpreter::new(&after, &run.weights)
            .run(&run.run, &mut |_| {})
            .unwrap_or_else(|e| panic!("{name} {}: {e}", run.name));
        for expected in &run.expected {
            let gap = distance(&run.got(expected, &output).unwrap(), &expected.want);
            assert!(gap <= expected.tolerance, "{name} {}: rel_l2 {gap:.2e}", expected.name);
        }
    }
    assert!(composites > 0, "{name} has nothing to find");
}

#[test]
fn transformers_of_labels() {
    fixture("dit");
    fixture("dit-original");
}
#[test]
fn transformers_of_text() {
    fixture("pixart-sigma");
    fixture("sd3");
    fixture("flux");
}
#[test]
fn autoencoders() {
    fixture("vae");
    fixture("vae-no-attention");
    fixture("vavae-f16d32");
}
#[test]
fn text_encoders() {
    fixture("clip-text");
    fixture("t5-encoder");
}
