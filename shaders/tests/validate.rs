//! Every family and every scalar primitive gives WGSL that naga accepts.

mod common;

use common::{hooks::of_stubs, validate};
use selvedge_ir::DType;
use selvedge_ir::scalar::{Binary, Body, Scalar, Unary};
use selvedge_shaders::catalogue;
use selvedge_shaders::kernel::{Kernel, Limits};
use selvedge_shaders::kernels::argreduce::{ArgreduceGroup, ArgreduceLane, Search};
use selvedge_shaders::kernels::attention::{Attention, KeyDelivery, Window};
use selvedge_shaders::kernels::column::ColumnReduce;
use selvedge_shaders::kernels::contract::{BOrder, Capabilities, Choice, Contract, Product, candidates, choose};
use selvedge_shaders::kernels::contract_cooperative::ContractCooperative;
use selvedge_shaders::kernels::contract_shared::ContractShared;
use selvedge_shaders::kernels::contract_subgroup::ContractSubgroup;
use selvedge_shaders::kernels::map::Map;
use selvedge_shaders::kernels::reduce::{Combine, ReduceGroup, ReduceLane, Reduction};
use selvedge_shaders::kernels::row::{Lanes, Phase, RowNorm, RowReduce, RowSoftmax};
use selvedge_shaders::kernels::scan::Scan;
use selvedge_shaders::kernels::scatter::{Scatter, Write};
use selvedge_shaders::kernels::topk::{Topk, TopkSelect};
use selvedge_shaders::memory::{self, Layout};
use selvedge_shaders::scalar::{self, emit};
use selvedge_shaders::source::{Access, Element};

const GENERATED: [&str; 23] = [
    "key_of",
    "combine",
    "combine4",
    "all_combined",
    "neutral",
    "precedes",
    "written",
    "step",
    "advance",
    "places",
    "take_rows",
    "stage_b",
    "tile_a",
    "tile_b",
    "load_matrix_a",
    "load_matrix_b",
    "all_sum",
    "all_max",
    "exp_of",
    "query_of",
    "push",
    "take",
    "attend",
];

#[test]
fn skeletons_validate_with_their_stubs() {
    for family in catalogue() {
        validate(&format!("{}\n{}", family.stubs, family.skeleton));
    }
}

fn check(kernel: &dyn Kernel) {
    let limits = Limits { invocations: 1024, ..Limits::PORTABLE };
    kernel.check(&limits).unwrap_or_else(|e| panic!("{e}"));
    let hooks = of_stubs(kernel.family().stubs, &GENERATED);
    validate(&kernel.source().functions(hooks).text());
}

#[test]
fn parameter_corners_validate() {
    for count in [1, 64, 65, 5_000_000, 1 << 31] {
        check(&Map::new(count));
    }
    for element in Element::ALL {
        for kind in Combine::ALL {
            for (rows, len) in [(1, 0), (1, 1), (7, 33), (70_000, 5)] {
                check(&ReduceLane::new(Reduction::new(rows, len, kind, element)));
                check(&ReduceGroup::new(Reduction::new(rows, len, kind, element)));
            }
            check(&ReduceLane::new(Reduction { from: 10, to: 20, ..Reduction::new(3, 33, kind, element) }));
            for (reverse, exclusive) in [(false, false), (false, true), (true, false), (true, true)] {
                check(&Scan { reverse, exclusive, ..Scan::new(3, 5, kind, element) });
                check(&Scan { reverse, exclusive, from: 2, to: 4, ..Scan::new(3, 5, kind, element) });
            }
        }
        for largest in [false, true] {
            check(&ArgreduceLane::new(Search::new(3, 33, largest, element)));
            check(&ArgreduceGroup::new(Search { from: 10, to: 20, ..Search::new(3, 33, largest, element) }));
            check(&Topk::new(3, 33, 33, largest, element));
            check(&Topk { from: 10, to: 20, ..Topk::new(3, 33, 1, largest, element) });
        }
        for kind in [Write::Add, Write::Set] {
            check(&Scatter::new(70, 0, kind, element));
            check(&Scatter { from: 1, to: 2, ..Scatter::new(70, 3, kind, element) });
        }
    }
}

#[test]
fn contraction_tiles_validate() {
    for b_order in [BOrder::KContiguous, BOrder::NContiguous] {
        for (m, n, k) in [(1, 1, 1), (5, 6, 7), (64, 64, 64), (1000, 65, 33)] {
            let product = Product::new(2, m, n, k, b_order);
            for (rm, rn) in [(1, 4), (3, 4), (8, 8), (8, 16), (16, 8), (5, 12)] {
                check(&Contract { rm, rn, ..Contract::new(product) });
            }
            for (rm, rn, bk, wg_m, wg_n) in [(8, 8, 16, 8, 8), (1, 4, 4, 2, 16), (5, 12, 20, 1, 4)] {
                check(&ContractShared { rm, rn, bk, wg_m, wg_n, slices: 1, product });
            }
            for (rm, rn, bk, wg_m, wg_n, slices) in [(2, 4, 32, 1, 8, 8), (5, 12, 24, 1, 4, 3), (1, 4, 64, 2, 2, 16)] {
                check(&ContractShared { rm, rn, bk, wg_m, wg_n, slices, product });
            }
            for (size, rm, rn, bk, sg_m, sg_n) in [(8, 4, 4, 32, 1, 1), (16, 2, 1, 16, 2, 2), (8, 1, 3, 8, 1, 2)] {
                check(&ContractCooperative { rm, rn, bk, sg_m, sg_n, ..ContractCooperative::new(product, size, 8) });
            }
            for width in [4, 8, 16, 32, 64] {
                for (rm, rn) in [(1, 4), (3, 4), (16, 8), (32, 4), (32, 8), (64, 4)] {
                    check(&ContractSubgroup { rm, rn, ..ContractSubgroup::new(product, width) });
                }
            }
        }
        check(&ContractSubgroup { fours: 2, ..ContractSubgroup::new(Product::new(2, 9, 70, 24, b_order), 8) });
        check(&Contract::new(Product { from: 4, to: 8, ..Product::new(1, 9, 9, 33, b_order) }));
        check(&Contract::new(Product { from: 32, to: 33, ..Product::new(1, 9, 9, 33, b_order) }));
    }
}

#[test]
fn row_kernels_validate() {
    for lanes in
        [Lanes::One { wg: 64 }, Lanes::Subgroup { width: 4 }, Lanes::Subgroup { width: 32 }, Lanes::Group { wg: 64 }]
    {
        for (rows, len) in [(1, 1), (3, 6), (70_000, 384)] {
            check(&RowSoftmax { rows, len, lanes, rolled: len % 2 == 0 });
            let norm = RowNorm {
                rows,
                len,
                centred: true,
                eps: 1e-6,
                chunks: 1,
                phase: Phase::Both,
                lanes,
                rolled: len % 2 == 0,
            };
            check(&norm);
            check(&RowNorm { centred: false, ..norm });
            for element in Element::ALL {
                for kind in Combine::ALL {
                    let reduction = Reduction::new(rows, len, kind, element);
                    check(&RowReduce { reduction, lanes, rolled: len % 2 == 0 });
                    let reduction = Reduction { from: 8, to: 30, ..Reduction::new(rows, len + 33, kind, element) };
                    check(&RowReduce { reduction, lanes, rolled: false });
                    let reduction = Reduction { from: 7, to: 30, ..Reduction::new(rows * 4, len + 33, kind, element) };
                    check(&ColumnReduce { reduction, lanes, rolled: len % 2 == 0 });
                }
                if !matches!(lanes, Lanes::One { .. }) {
                    let largest = len % 4 == 0;
                    check(&TopkSelect { rows, len, k: len.min(9), largest, element, lanes, rolled: largest });
                }
            }
        }
        let chunked = RowNorm {
            rows: 32,
            len: 1 << 18,
            centred: true,
            eps: 1e-6,
            chunks: 16,
            phase: Phase::Figures,
            lanes,
            rolled: true,
        };
        check(&chunked);
        check(&RowNorm { phase: Phase::Apply, ..chunked });
    }
}

/// Attention of 100 queries and keys with 40 elements.
fn attention(delivery: KeyDelivery) -> Attention {
    Attention {
        indexed: delivery == KeyDelivery::Broadcast,
        batch: 3,
        n: 100,
        m: 100,
        d: 40,
        e: 40,
        scale: 0.25,
        causal: false,
        masked: false,
        biased: false,
        window: None,
        delivery,
        ql: 2,
        kb: 4,
        kl: 4,
        wg: 8,
    }
}

#[test]
fn attention_validates() {
    for delivery in [KeyDelivery::Uniform, KeyDelivery::Shared { keys: 16 }, KeyDelivery::Broadcast] {
        let plain = attention(delivery);
        for (d, e, ql, kb, wg) in [(40, 40, 2, 4, 8), (72, 64, 1, 1, 64), (7, 5, 3, 2, 4), (256, 256, 1, 4, 32)] {
            if d < 256 || delivery == KeyDelivery::Broadcast {
                for kl in [1, kb] {
                    check(&Attention { d, e, ql, kb, kl, wg, ..plain });
                }
            }
        }
        for (causal, masked, biased) in [(true, false, false), (false, true, true), (true, true, true)] {
            check(&Attention { causal, masked, biased, m: 97, ..plain });
        }
        let window = Window { text: 7, height: 9, width: 11, radius: 3, square: false, tile_height: 4, tile_width: 4 };
        if !matches!(delivery, KeyDelivery::Shared { .. }) {
            check(&Attention { n: 99, m: 106, window: Some(window), ..plain });
        }
    }
}

#[test]
fn illegal_parameters_name_their_constraint() {
    let of = |kernel: &dyn Kernel| kernel.check(&Limits::PORTABLE).expect_err("illegal").constraint;
    let reduction = Reduction::new(4, 1000, Combine::Sum, Element::F32);
    let product = Product::new(1, 8, 8, 8, BOrder::KContiguous);
    assert_eq!(of(&Map::new(0)), "not-empty");
    assert_eq!(of(&Map { count: 5, wg: 512 }), "workgroup-invocations");
    assert_eq!(of(&Map { count: 5, wg: 0 }), "workgroup-invocations");
    assert_eq!(of(&ReduceLane::new(Reduction { from: 5, to: 5, ..reduction })), "chunk");
    assert_eq!(of(&ReduceLane::new(Reduction::new(4, 60_000, Combine::Sum, Element::F32))), "loop-iterations");
    assert_eq!(of(&ReduceGroup { reduction, wg: 48 }), "power-of-two");
    let lanes = Lanes::Group { wg: 32 };
    let row = RowReduce { reduction, lanes, rolled: false };
    assert_eq!(of(&RowReduce { reduction: Reduction { from: 6, ..reduction }, ..row }), "chunk-multiple");
    assert_eq!(of(&RowReduce { lanes: Lanes::Group { wg: 48 }, ..row }), "power-of-two");
    assert_eq!(of(&ColumnReduce { reduction: Reduction { rows: 6, ..reduction }, lanes, rolled: false }), "columns");
    assert_eq!(of(&RowReduce { reduction: Reduction::new(4, 0, Combine::Sum, Element::F32), ..row }), "not-empty");
    assert_eq!(of(&Contract::new(Product { to: 6, ..product })), "chunk-multiple");
    assert_eq!(of(&Contract { rm: 0, ..Contract::new(product) }), "register-tile");
    assert_eq!(of(&Contract { rn: 6, ..Contract::new(product) }), "register-tile");
    assert_eq!(of(&ContractSubgroup::new(product, 12)), "subgroup-width");
    assert_eq!(of(&ContractSubgroup { rm: 64, rn: 8, ..ContractSubgroup::new(product, 8) }), "register-tile");
    let odd = Product { to: 4, ..product };
    assert_eq!(of(&ContractSubgroup { fours: 2, ..ContractSubgroup::new(odd, 8) }), "fours");
    assert_eq!(of(&ContractShared { slices: 8, ..ContractShared::new(product) }), "slices");
    assert_eq!(of(&ContractShared { bk: 6, ..ContractShared::new(product) }), "staging");
    assert_eq!(of(&ContractShared { bk: 64, ..ContractShared::new(product) }), "workgroup-memory");
    assert_eq!(of(&ContractCooperative::new(product, 12, 8)), "matrix-size");
    assert_eq!(of(&ContractCooperative { bk: 24, ..ContractCooperative::new(product, 16, 8) }), "staging");
    assert_eq!(of(&ContractCooperative { rm: 9, rn: 8, ..ContractCooperative::new(product, 8, 8) }), "matrices");
    assert_eq!(of(&Topk::new(1, 3, 4, true, Element::F32)), "k");
    let select = TopkSelect { rows: 1, len: 99, k: 3, largest: true, element: Element::F32, lanes, rolled: false };
    assert_eq!(of(&TopkSelect { k: 100, ..select }), "k");
    assert_eq!(of(&TopkSelect { lanes: Lanes::One { wg: 64 }, ..select }), "lanes");
    assert_eq!(of(&TopkSelect { len: 5000, k: 5000, ..select }), "workgroup-memory");
    let error = Map::new(0).check(&Limits::PORTABLE).expect_err("illegal").to_string();
    assert_eq!(error, "kernel `map`, constraint `not-empty`: expected count of at least 1, found 0");
}

#[test]
fn large_grids_fold() {
    assert_eq!(Map::new(64 * 65_535).grid(), [65_535, 1, 1]);
    assert_eq!(Map::new(64 * 65_535 + 1).grid(), [65_535, 2, 1]);
}

/// A map over arena words of each argument's dtype that stores the body's value.
fn map_shader(body: &Body, dtypes: &[DType]) -> String {
    let result = *body.infer(dtypes).expect("well-typed").last().expect("a body has a result");
    let mut lines: Vec<String> = dtypes
        .iter()
        .enumerate()
        .map(|(i, &d)| format!("let x{i} = {};", memory::load(i as u32, d, Layout::Words, "i")))
        .collect();
    let args: Vec<String> = (0..dtypes.len()).map(|i| format!("x{i}")).collect();
    let mut count = 0;
    let mut fresh = || {
        count += 1;
        format!("t{count}")
    };
    let value = emit(body, &args, dtypes, &mut fresh, &mut lines);
    lines.push(memory::store(dtypes.len() as u32, result, "i", &value));
    let mut source = Map::new(7).source();
    for _ in dtypes {
        source = source.binding(Access::Read);
    }
    let hook = format!("fn element(i: u32) {{\n    {}\n}}", lines.join("\n    "));
    source.binding(Access::ReadWrite).functions(hook).text()
}

#[test]
fn every_primitive_validates_on_every_dtype() {
    let mut count = 0;
    for dtype in DType::PLAIN {
        for &op in Unary::ALL.iter().filter(|op| op.accepts(dtype.class())) {
            validate(&map_shader(&Body::unary(op), &[dtype]));
            count += 1;
        }
        for &op in Binary::ALL.iter().filter(|op| op.accepts(dtype.class())) {
            validate(&map_shader(&Body::binary(op), &[dtype, dtype]));
            count += 1;
        }
        for to in DType::PLAIN {
            validate(&map_shader(&Body::cast(to), &[dtype]));
        }
        let select = Body::build(3, |b| {
            let (c, x, y) = (b.arg(0), b.arg(1), b.arg(2));
            b.add(Scalar::Select(c, x, y))
        });
        validate(&map_shader(&select, &[DType::Bool, dtype, dtype]));
    }
    for from in [DType::F32, DType::I32, DType::U32] {
        for to in [DType::F32, DType::I32, DType::U32] {
            let bits = Body::build(1, |b| {
                let x = b.arg(0);
                b.add(Scalar::Bits(to, x))
            });
            validate(&map_shader(&bits, &[from]));
        }
    }
    assert!(count > 100);
}

#[test]
fn constant_expressions_are_left_to_the_device() {
    // naga refuses overflow, division by zero, and infinities in constant expressions.
    let bodies = [
        Body::build(0, |b| {
            let (x, y) = (b.add(Scalar::Int(i32::MIN)), b.add(Scalar::Int(-1)));
            b.binary(Binary::Div, x, y)
        }),
        Body::build(0, |b| {
            let (x, y) = (b.add(Scalar::Int(i32::MAX)), b.add(Scalar::Int(1)));
            b.binary(Binary::Add, x, y)
        }),
        Body::build(0, |b| {
            let (x, y) = (b.add(Scalar::Uint(1)), b.add(Scalar::Uint(40)));
            b.binary(Binary::Shl, x, y)
        }),
        Body::build(0, |b| {
            let (x, y) = (b.float(1.0), b.float(0.0));
            b.binary(Binary::Div, x, y)
        }),
        Body::build(0, |b| {
            let x = b.float(f64::NEG_INFINITY);
            b.unary(Unary::Exp, x)
        }),
        Body::build(0, |b| {
            let (x, y) = (b.float(1e38), b.float(1e38));
            b.binary(Binary::Mul, x, y)
        }),
        Body::build(0, |b| {
            let x = b.add(Scalar::Uint(0x7fc0_0000));
            b.add(Scalar::Bits(DType::F32, x))
        }),
        Body::build(0, |b| {
            let x = b.float(-0.0);
            let y = b.unary(Unary::Neg, x);
            b.unary(Unary::Log, y)
        }),
    ];
    for body in bodies {
        validate(&map_shader(&body, &[]));
    }
}

#[test]
fn float_literals_are_exact() {
    assert_eq!(scalar::float(0.1), "0.1f");
    assert_eq!(scalar::float(-1e-45), "-1e-45f");
    assert_eq!(scalar::float(1e39), "float_bits(0x7f800000u)");
    let mut seed = 1u32;
    for _ in 0..1000 {
        seed = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let x = f32::from_bits(seed);
        if x.is_finite() {
            let text = scalar::float(x as f64);
            let module = validate(&format!("const X: f32 = {text};"));
            let (_, constant) = module.constants.iter().next().expect("one constant");
            let naga::Expression::Literal(naga::Literal::F32(got)) = module.global_expressions[constant.init] else {
                panic!("{text} is a literal");
            };
            assert_eq!(got.to_bits(), x.to_bits(), "{text}");
        }
    }
}

#[test]
fn memory_access_validates() {
    for dtype in DType::PLAIN {
        for layout in [Layout::Words, Layout::Packed] {
            let mut body = format!("let x = {};", memory::load(0, dtype, layout, "i + 1u"));
            body.push_str(&memory::store(1, dtype, "i + 1u", "x"));
            if dtype.is_float() {
                body.push_str(&format!("let y = {};", memory::load4(0, dtype, layout, "i * 4u")));
                body.push_str(&memory::store4(1, dtype, "i * 4u", "y"));
            }
            let hook = format!("fn element(i: u32) {{ {body} }}");
            let source = Map::new(7).source().binding(Access::Read).binding(Access::ReadWrite);
            validate(&source.functions(hook).text());
        }
    }
}

#[test]
fn library_functions_are_found_and_valid() {
    let functions = selvedge_shaders::library_functions();
    assert!(functions.len() > 30);
    let all: Vec<&str> = functions.iter().map(|(_, text)| *text).collect();
    for (name, text) in &functions {
        assert_eq!(text.matches("fn ").count(), 1, "{name}: a blank line separates functions");
    }
    validate(&all.join("\n"));
}

#[test]
fn chosen_contractions_are_legal_and_waste_little() {
    for b_order in [BOrder::KContiguous, BOrder::NContiguous] {
        for (i, subgroup) in [None, Some(4), Some(8), Some(8), Some(32), Some(64)].into_iter().enumerate() {
            let (gpu, wide, avx512) = (i > 3, i == 2, i == 3);
            let of = Capabilities { subgroup, gpu, wide, avx512, cooperative: vec![8, 16], ..Capabilities::PORTABLE };
            for (m, n, k) in
                [(1, 1, 1), (1, 1152, 1152), (2, 6912, 1152), (77, 64, 5), (1024, 1152, 4608), (5000, 30, 9)]
            {
                let product = Product::new(3, m, n, k, b_order);
                let halves = k > 9;
                let choice = choose(product, halves, &of);
                let all = candidates(product, halves, &of);
                let cooperative = all.iter().any(|c| matches!(c, Choice::Cooperative(_)));
                assert_eq!(cooperative, halves && subgroup.is_some(), "{product:?}");
                let names: std::collections::BTreeSet<String> = all.iter().map(ToString::to_string).collect();
                assert!(all[0] == choice && names.len() == all.len() && all.len() <= 12, "{names:?}");
                for candidate in &all {
                    candidate.kernel().check(&Limits::PORTABLE).unwrap_or_else(|e| panic!("{candidate}: {e}"));
                }
                let kernel = choice.kernel();
                kernel.check(&Limits::PORTABLE).unwrap_or_else(|e| panic!("{e}"));
                let tile = match choice {
                    Choice::Direct(c) => c.rm * c.rn,
                    Choice::Subgroup(c) => c.rm * c.rn,
                    Choice::Shared(c) => c.rm * c.rn,
                    Choice::Cooperative(c) => c.rm * c.rn * c.size * c.size / c.width,
                };
                let lanes: u64 = kernel.groups() * kernel.workgroup().iter().map(|&x| x as u64).product::<u64>();
                let padded = lanes * tile as u64;
                let exact = 3 * m as u64 * n as u64;
                assert!(
                    padded <= exact * 2 || n < 4 * 64 || m < 8 || (gpu && m < 128),
                    "{choice:?}: {padded} of {exact} elements"
                );
            }
        }
    }
    let few = Product::new(1, 2, 1152, 4608, BOrder::KContiguous);
    let large = Product::new(1, 1024, 1152, 4608, BOrder::KContiguous);
    let with = |subgroup, gpu| Capabilities { subgroup, gpu, cooperative: vec![16], ..Capabilities::PORTABLE };
    assert!(matches!(choose(large, false, &with(Some(8), false)), Choice::Subgroup(_)));
    assert!(matches!(choose(large, true, &with(Some(8), false)), Choice::Subgroup(_)));
    assert!(matches!(choose(large, false, &with(None, false)), Choice::Direct(_)));
    assert!(matches!(choose(large, false, &with(None, true)), Choice::Shared(c) if c.slices == 1));
    // Too few tiles to fill a GPU: several invocations share each.
    assert!(matches!(choose(few, false, &with(Some(32), true)), Choice::Shared(c) if c.slices > 1));
    assert!(matches!(choose(large, true, &with(Some(32), true)), Choice::Cooperative(_)));
}
