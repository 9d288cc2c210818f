//! Passes by name, for `//! pass NAME`.

use selvedge_ir::Module;
use selvedge_passes::saturate::{Saturate, Strategy, exhaust};
use selvedge_passes::{
    CanonicalContract, Canonicalize, DeadCode, ExpandComposites, HalfActivations, MergeMaps, Options, Pass,
    QuantizeWeights, SplitMaps, UnpackWeights, passes, pipeline,
};
use std::collections::BTreeMap;

/// Runs the pass of a name, or all of them in order for `pipeline`. Extents of symbols follow the name: `specialize B=2`.
///
/// # Errors
/// There is no such pass, or it fails.
pub fn run(command: &str, module: &Module) -> Result<Module, String> {
    let mut words = command.split_whitespace();
    let name = words.next().unwrap_or("");
    let extent = |word: &str| {
        let (symbol, n) = word.split_once('=')?;
        Some((symbol.to_string(), n.parse().ok()?))
    };
    let symbols = words.map(extent).collect::<Option<BTreeMap<String, usize>>>();
    let symbols = symbols.ok_or_else(|| format!("`{command}`: symbols are given as `B=2`"))?;
    let options = Options { symbols, ..Options::default() };
    if name == "pipeline" {
        return pipeline(module.clone(), &options, &mut |_, _| {}).map_err(|d| d.to_string());
    }
    if name == "discover" {
        return discover(module, &options);
    }
    let all = all(&options);
    let Some(pass) = all.iter().find(|p| p.name() == name) else {
        let names: Vec<&str> = all.iter().map(|p| p.name()).collect();
        return Err(format!("there is no pass `{name}`; there are {}", names.join(", ")));
    };
    pass.run(module.clone()).map_err(|d| d.to_string())
}

/// What the pipeline does from primitives on: composites are forgotten, bodies split, and everything found again.
///
/// # Errors
/// A pass fails.
pub fn discover(module: &Module, options: &Options) -> Result<Module, String> {
    let passes: [Box<dyn Pass>; 9] = [
        Box::new(ExpandComposites::default()),
        Box::new(Canonicalize),
        Box::new(SplitMaps),
        Box::new(CanonicalContract),
        Box::new(Canonicalize),
        Box::new(Saturate::new(options.rates, Strategy::Saturate)),
        Box::new(MergeMaps),
        Box::new(Canonicalize),
        Box::new(DeadCode),
    ];
    passes.iter().try_fold(module.clone(), |module, pass| pass.run(module)).map_err(|d| d.to_string())
}

/// Applications of one rule in a file test; a rule that goes on is caught by its expectation.
const MOST_STEPS: usize = 64;

/// Applies one rewrite rule, and nothing else, wherever it applies.
///
/// # Errors
/// There is no such rule, or it is at fault.
pub fn rule(name: &str, module: &Module) -> Result<Module, String> {
    let rules = selvedge_passes::rules::all();
    let rule = rules.iter().find(|r| r.name == name).ok_or_else(|| {
        let names: Vec<&str> = rules.iter().map(|r| r.name).collect();
        format!("there is no rule `{name}`; there are {}", names.join(", "))
    })?;
    let mut module = module.clone();
    for function in &mut module.functions {
        *function = exhaust(function, rule, MOST_STEPS).map_err(|d| d.to_string())?;
    }
    Ok(module)
}

/// The names of all passes.
pub fn names() -> Vec<&'static str> {
    all(&Options::default()).iter().map(|p| p.name()).collect()
}

/// The passes of the pipeline, then the normal forms that its saturation is made of, and what is run on demand.
fn all(options: &Options) -> Vec<Box<dyn Pass>> {
    let mut all = passes(options);
    all.extend([Box::new(SplitMaps) as Box<dyn Pass>, Box::new(CanonicalContract), Box::new(MergeMaps)]);
    all.extend([
        Box::new(HalfActivations::default()) as Box<dyn Pass>,
        Box::new(QuantizeWeights { bits: 8 }),
        Box::new(UnpackWeights),
    ]);
    all
}
