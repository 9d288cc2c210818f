//! What the instance generator is told about single rules: bodies, dtypes and values that their laws are about.

use selvedge_ir::DType;

/// What a variable stands for where it is drawn.
#[derive(Clone, Copy)]
pub enum Leaf {
    /// An input of one of these dtypes.
    Input(&'static [DType]),
    /// One value everywhere.
    Repeated,
    /// A constant: known at load.
    Constant,
    /// Key ≤ query, of two index axes.
    Causal,
    /// An f32 input that is repeated along some axes.
    Mask,
    /// An instance of one of these patterns.
    Of(&'static [&'static str]),
}

/// See the module.
#[derive(Clone, Copy)]
pub struct Hint {
    /// For a searcher written by hand: patterns that it should find.
    pub patterns: &'static [&'static str],
    leaves: &'static [(&'static str, Leaf)],
    bodies: &'static [(&'static str, &'static [&'static str])],
    /// Inputs that are positive.
    pub positive: &'static [&'static str],
    /// In a map, operands that are operators are drawn first and decide its shape.
    pub operators_first: bool,
    /// Contractions whose dtype is not written give f16.
    pub narrow_results: bool,
    /// Attention is of one head.
    pub heads_alone: bool,
}

impl Hint {
    /// What a variable stands for.
    pub fn leaf(&self, name: &str) -> Leaf {
        self.leaves.iter().find(|(n, _)| *n == name).map_or(Leaf::Input(&[DType::F32]), |(_, leaf)| *leaf)
    }
    /// The bodies that a bound body is drawn from.
    pub fn bodies(&self, name: &str) -> &'static [&'static str] {
        self.bodies.iter().find(|(n, _)| *n == name).map_or(SCALES, |(_, bodies)| bodies)
    }
}

const NONE: Hint = Hint {
    patterns: &[],
    leaves: &[],
    bodies: &[],
    positive: &[],
    operators_first: false,
    narrow_results: false,
    heads_alone: false,
};
const SCALES: &[&str] = &["{x| x * 0.5}", "{x| x * -1.75}", "{x| x * 3.0}"];
const OFFSETS: &[&str] = &["{x| x + 0.125}", "{x| x + 0.5}"];
const RECIPROCALS: &[&str] = &["{x| 1.0 / x}", "{x| 2.5 / x}"];
/// One divided by the extents that instances have.
const MEANS: &[&str] = &[
    "{x| x * 0.5}",
    "{x| x * 0.3333333333333333}",
    "{x| x * 0.25}",
    "{x| x * 0.16666666666666666}",
    "{x| x * 0.08333333333333333}",
    "{x| x * 0.1111111111111111}",
];
const SELECT: &[&str] = &["{x, y| select(x, y, -1e30)}"];
const WIDEN: &[&str] = &["{x| f32(x)}"];
const NARROW: Leaf = Leaf::Input(&[DType::F16]);
const BOOL: Leaf = Leaf::Input(&[DType::Bool]);

/// The hint of a rule.
pub fn hint(rule: &str) -> Hint {
    match rule {
        "neutral-number" => Hint { bodies: &[("f", &["{x| x * 1.0}", "{x| x + 0.0}", "{x| x / 1.0}"])], ..NONE },
        "divide-by-number" => Hint { bodies: &[("f", &["{x| x / 3.0}", "{x| x / -8.0}"])], ..NONE },
        "offset-of-offset" => Hint { bodies: &[("f", OFFSETS), ("g", OFFSETS)], ..NONE },
        "multiply-by-reciprocal" => Hint { bodies: &[("f", RECIPROCALS)], positive: &["b"], ..NONE },
        "multiply-by-repeated-reciprocal" | "divide-by-root" | "divide-by-repeated-root" => {
            Hint { positive: &["b"], ..NONE }
        }
        "power-by-number" => {
            const POWERS: &[&str] = &["{x| pow(x, 2.0)}", "{x| pow(x, 0.5)}", "{x| pow(x, -0.5)}", "{x| pow(x, -1.0)}"];
            Hint { bodies: &[("f", POWERS)], positive: &["x"], ..NONE }
        }
        "scale-of-one-plus-tanh" | "scaled-times-one-plus-tanh" => {
            Hint { bodies: &[("f", &["{x| x * 0.5}", "{x| x * -3.0}"]), ("g", &["{x| x + 1.0}"])], ..NONE }
        }
        "reciprocal-of-root" => Hint { bodies: &[("f", RECIPROCALS)], positive: &["x"], ..NONE },
        "variance-from-moments" => Hint { bodies: &[("f", MEANS)], ..NONE },
        "rms-norm" => Hint { bodies: &[("inv", MEANS), ("eps", OFFSETS)], ..NONE },
        "layer-norm" | "layer-norm-of-several-axes" => Hint { bodies: &[("inv", MEANS)], ..NONE },
        "norm-scale" => Hint {
            patterns: &[
                "(map {*} (layer_norm ?e ?v) (broadcast ?s ?r ?w))",
                "(map {*} (broadcast ?s ?r ?w) (rms_norm ?e ?v))",
                "(map {*} (group_norm ?g ?e ?v) (broadcast ?s ?r ?w))",
            ],
            operators_first: true,
            ..NONE
        },
        "norm-bias" => Hint {
            patterns: &[
                "(map {+} (layer_norm ?e ?v ?u) (broadcast ?s ?r ?w))",
                "(map {+} (group_norm ?g ?e ?v ?u) (broadcast ?s ?r ?w))",
            ],
            operators_first: true,
            ..NONE
        },
        "map-of-transposes" => Hint {
            patterns: &[
                "(map {exp} (transpose ?p ?x))",
                "(map {-} (transpose ?p ?x) (transpose ?p ?y))",
                "(map {-} (transpose ?p ?x) (broadcast ?s ?r ?y))",
            ],
            operators_first: true,
            ..NONE
        },
        "map-of-reshapes" => Hint {
            patterns: &[
                "(map {exp} (reshape ?s ?x))",
                "(map {-} (reshape ?s ?x) (reshape ?s ?y))",
                "(map {-} (reshape ?s ?x) (reshape ?s (map {exp} ?x)))",
            ],
            ..NONE
        },
        "map-of-broadcasts" => Hint {
            patterns: &["(map {exp} (broadcast ?s ?r ?x))", "(map {-} (broadcast ?s ?r ?x) (broadcast ?t ?q ?y))"],
            ..NONE
        },
        "concat-of-slices" => Hint {
            patterns: &[
                "(concat 0 (slice [0,0] [1,2] [1,1] ?x) (slice [1,0] [3,2] [1,1] ?x))",
                "(concat 1 (slice [0,0] [2,1] [1,1] ?x) (slice [0,1] [2,2] [1,1] ?x))",
                "(concat 0 (slice [0] [1] [1] ?x) (slice [1] [2] [1] ?x) (slice [2] [3] [1] ?x))",
            ],
            ..NONE
        },
        "concat-of-heads" => Hint {
            patterns: &[
                "(concat ?axis (reshape ?s (slice [0,0] [3,1] [1,1] ?x)) (reshape ?s (slice [0,1] [3,2] [1,1] ?x)))",
                "(concat ?axis (reshape ?s (slice [0,0] [1,2] [1,1] ?x)) (reshape ?s (slice [1,0] [2,2] [1,1] ?x)))",
                "(concat ?axis (reshape ?s (slice [0,0] [3,2] [1,1] ?x)) (reshape ?s (slice [0,2] [3,4] [1,1] ?x)))",
            ],
            ..NONE
        },
        "contract-with-one-value" => Hint { leaves: &[("y", Leaf::Repeated)], ..NONE },
        "chain-of-contractions" | "sum-of-contractions" => {
            Hint { leaves: &[("a", Leaf::Constant), ("b", Leaf::Constant)], ..NONE }
        }
        "scale-into-weight" => Hint { leaves: &[("w", Leaf::Constant)], ..NONE },
        "softmax-of-kept" => Hint { leaves: &[("k", BOOL)], bodies: &[("f", SELECT)], ..NONE },
        "softmax-of-selected" => Hint { leaves: &[("k", BOOL)], bodies: &[("f", SELECT)], ..NONE },
        "attention-with-mask" | "attention-of-scaled-with-mask" => {
            const HIDING: Leaf = Leaf::Of(&[
                "(map {x| x * 1.0} ?some)",
                "(map {x| select(x, 0.0, -1e30)} ?seen)",
                "(broadcast ?bs ?br ?few)",
            ]);
            Hint {
                leaves: &[("mask", HIDING), ("seen", Leaf::Causal), ("some", Leaf::Mask)],
                operators_first: true,
                ..NONE
            }
        }
        "attention-causal" => {
            Hint { leaves: &[("keep", Leaf::Causal)], bodies: &[("g", SELECT)], operators_first: true, ..NONE }
        }
        "attention-of-kept" => {
            const KEPT: Leaf =
                Leaf::Of(&["(map {&} ?m1 ?m2)", "(map {not} ?m1)", "(map {&} ?seen ?m2)", "(broadcast ?bs ?br ?m1)"]);
            Hint {
                leaves: &[("keep", KEPT), ("m1", BOOL), ("m2", BOOL), ("seen", Leaf::Causal)],
                bodies: &[("g", SELECT)],
                operators_first: true,
                ..NONE
            }
        }
        "concat-of-attentions" => Hint {
            patterns: &[
                "(concat ?axis (reshape ?s (attention 0.5 false ?q0 ?k0 ?v0)) (reshape ?s (attention 0.5 false ?q1 ?k1 ?v1)))",
                "(concat ?axis (attention 0.5 true ?q0 ?k0 ?v0) (attention 0.5 true ?q1 ?k1 ?v1))",
            ],
            heads_alone: true,
            ..NONE
        },
        "cast-to-itself" => Hint { bodies: &[("f", WIDEN)], ..NONE },
        "cast-of-widened" => Hint {
            leaves: &[("x", Leaf::Input(&[DType::F16, DType::BF16]))],
            bodies: &[("f", WIDEN), ("g", &["{x| f16(x)}", "{x| bf16(x)}", "{x| i32(x)}"])],
            ..NONE
        },
        "cast-of-contract" => Hint { bodies: &[("f", &["{x| f16(x)}", "{x| bf16(x)}"])], ..NONE },
        "contract-of-widened-left" | "contract-of-widened-right" => {
            Hint { leaves: &[("x", NARROW)], bodies: &[("f", WIDEN)], ..NONE }
        }
        "rounded-softmax" => {
            Hint { leaves: &[("x", NARROW)], bodies: &[("f", WIDEN), ("g", &["{x| f16(x)}"])], ..NONE }
        }
        "rounded-norm" => Hint {
            patterns: &[
                "(map {x| f16(x)} (layer_norm ?e (map {x| f32(x)} ?v)))",
                "(map {x| f16(x)} (rms_norm ?e (map {x| f32(x)} ?v) ?u))",
            ],
            leaves: &[("v", NARROW)],
            ..NONE
        },
        "norm-of-widened-vectors" => Hint { leaves: &[("w", NARROW)], ..NONE },
        "sum-that-was-rounded" => Hint { narrow_results: true, ..NONE },
        "weights-that-were-rounded" => Hint { bodies: &[("f", &["{x| f16(x)}"])], ..NONE },
        _ => NONE,
    }
}
