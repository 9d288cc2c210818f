//! Functions of a library bundle: weights, dispatch order, dtypes, split tensors, copies; and what is refused.

mod common;

use common::*;
use selvedge_bundle::manifest::Access::{Read, ReadWrite};
use selvedge_bundle::manifest::{Copy, Link, Move};
use selvedge_runtime::{ErrorKind, HostTensor, LoadOptions, Progress, RuntimeError, Session, Stage};
use std::borrow::Cow;

const N: u64 = 100;

/// y = a[0]·x + a[1]·y, with `a` in f16; then z = y·y in a second dispatch.
fn saxpy() -> Program {
    let mut program = Program::new(&[(256, Read), (1536, ReadWrite)]);
    let halves: Vec<u8> = [half::f16::from_f32(2.5), half::f16::from_f32(-0.5), half::f16::from_f32(9.0)]
        .iter()
        .flat_map(|h| h.to_le_bytes())
        .collect();
    program.weight("a", "f16", &[3], halves, &[(0, region(0, 0, 6))]);
    let (x, y, z) = (region(1, 0, N * 4), region(1, 512, N * 4), region(1, 1024, N * 4));
    let padded = |r: selvedge_bundle::manifest::Region| region(r.buffer, r.offset, 512);
    let axpy = program.kernel(
        "saxpy",
        &[Read, ReadWrite, ReadWrite],
        "if (i >= 100u) { return; }
         let a = unpack2x16float(b0[0].x);
         let x = bitcast<f32>(b1[i >> 2u][i & 3u]);
         let y = bitcast<f32>(b2[i >> 2u][i & 3u]);
         b2[i >> 2u][i & 3u] = bitcast<u32>(a.x * x + a.y * y);",
    );
    let square = program.kernel(
        "square",
        &[ReadWrite, ReadWrite],
        "if (i >= 25u) { return; }
         let y = bitcast<vec4<f32>>(b0[i]);
         b1[i] = bitcast<vec4<u32>>(y * y);",
    );
    let dispatches = [
        dispatch(axpy, 2, &[region(0, 0, 256), padded(x), padded(y)], "%2 map"),
        dispatch(square, 1, &[padded(y), padded(z)], "%3 map"),
    ];
    let shape = [4, 25];
    program.function(
        "forward",
        &[port("x", "f32", &shape, &[x]), port("y", "f32", &shape, &[y])],
        &[port("sum", "f32", &shape, &[y]), port("square", "f32", &shape, &[z])],
        &dispatches,
        &[],
    );
    program
}

fn saxpy_inputs() -> selvedge_runtime::Tensors {
    let x: Vec<f32> = (0..N).map(|i| i as f32 * 0.25).collect();
    let y: Vec<f32> = (0..N).map(|i| 50.0 - i as f32).collect();
    tensors([("x", HostTensor::f32(&[4, 25], x)), ("y", HostTensor::f32(&[4, 25], y))])
}

fn saxpy_expected() -> selvedge_runtime::Tensors {
    // All values are exact in f32.
    let sum: Vec<f32> = (0..N).map(|i| 2.5 * (i as f32 * 0.25) - 0.5 * (50.0 - i as f32)).collect();
    let square = sum.iter().map(|x| x * x).collect();
    tensors([("sum", HostTensor::f32(&[4, 25], sum)), ("square", HostTensor::f32(&[4, 25], square))])
}

#[test]
fn two_dispatches_give_what_the_host_computes() {
    let mut session = saxpy().load().unwrap();
    let memory = session.memory();
    assert_eq!((memory.planned, memory.allocated), (1792, 1792));
    for _ in 0..3 {
        assert_eq!(session.call("forward", &saxpy_inputs()).unwrap(), saxpy_expected());
    }
    let once = session.memory().staging;
    session.call("forward", &saxpy_inputs()).unwrap();
    assert_eq!(session.memory().staging, once, "the readback buffer is used again");
}

#[test]
fn trusted_and_warmed_up_kernels_give_the_same() {
    let program = saxpy();
    let bytes = program.bundle().to_bytes().unwrap();
    let bundle = selvedge_bundle::read(&bytes).unwrap();
    let options = LoadOptions { trusted: true, warm_up: true, ..LoadOptions::default() };
    let mut seen: Vec<Progress> = Vec::new();
    let mut session = Session::load(&gpu(), &bundle, 0, &options, &mut |p| seen.push(p)).unwrap();
    assert_eq!(session.call("forward", &saxpy_inputs()).unwrap(), saxpy_expected());
    for (stage, total) in [(Stage::Weights, 6), (Stage::Pipelines, 2), (Stage::WarmUp, 2)] {
        let last = seen.iter().rfind(|p| p.stage == stage).unwrap();
        assert_eq!((last.done, last.total), (total, total), "{stage:?}");
    }
}

#[test]
fn bad_inputs_say_what_is_expected() {
    let mut session = saxpy().load().unwrap();
    let mut refused = |function: &str, inputs| match session.call(function, &inputs) {
        Err(error @ RuntimeError::BadInput(_)) => {
            assert_eq!(error.kind(), ErrorKind::Input);
            error.to_string()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(refused("backward", saxpy_inputs()), "there is no function `backward`; the plan has forward");
    let mut inputs = saxpy_inputs();
    let y = inputs.remove("y").unwrap();
    inputs.insert("z".to_string(), y);
    assert_eq!(refused("forward", inputs), "inputs: missing `y`, unknown `z`; expected `x`, `y`");
    let mut inputs = saxpy_inputs();
    inputs.insert("x".to_string(), HostTensor::f32(&[100], vec![0.0; 100]));
    assert_eq!(refused("forward", inputs), "input `x`: expected shape [4, 25], found [100]");
    let mut inputs = saxpy_inputs();
    inputs.insert("x".to_string(), HostTensor::i32(&[4, 25], vec![0; 100]));
    assert_eq!(refused("forward", inputs), "input `x`: expected elements for dtype f32, found i32");
    let mut inputs = saxpy_inputs();
    inputs.insert("x".to_string(), HostTensor::f32(&[4, 25], vec![0.0; 99]));
    assert_eq!(refused("forward", inputs), "input `x`: shape [4, 25] with 99 elements");
    assert_eq!(session.call("forward", &saxpy_inputs()).unwrap(), saxpy_expected(), "and it works on");
}

#[test]
fn every_dtype_goes_in_and_out() {
    let mut program = Program::new(&[(6 * 256, ReadWrite)]);
    let mut ports = Vec::new();
    for (i, dtype) in ["f32", "f16", "bf16", "i32", "u32", "bool"].iter().enumerate() {
        ports.push(port(dtype, dtype, &[3], &[region(0, i as u64 * 256, 12)]));
    }
    program.function("identity", &ports, &ports, &[], &[]);
    let values = vec![1.00001f32, -70000.0, 3.0];
    let floats = || HostTensor::f32(&[3], values.clone());
    let inputs = tensors([
        ("f32", floats()),
        ("f16", floats()),
        ("bf16", floats()),
        ("i32", HostTensor::i32(&[3], vec![-1, i32::MIN, 7])),
        ("u32", HostTensor::u32(&[3], vec![0, u32::MAX, 7])),
        ("bool", HostTensor::u32(&[3], vec![0, 1, 7])),
    ]);
    let mut expected = inputs.clone();
    expected.insert("f16".to_string(), HostTensor::f32(&[3], vec![1.0, f32::NEG_INFINITY, 3.0]));
    expected.insert("bf16".to_string(), HostTensor::f32(&[3], vec![1.0, -70144.0, 3.0]));
    expected.insert("bool".to_string(), HostTensor::u32(&[3], vec![0, 1, 1]));
    assert_eq!(program.load().unwrap().call("identity", &inputs).unwrap(), expected);
}

#[test]
fn a_tensor_and_a_weight_may_lie_in_several_regions() {
    // x (2 rows of 64) in two buffers; w (2 rows of 64) in two buffers; y = x + w, one dispatch for each row.
    let mut program = Program::new(&[(256, Read), (512, Read), (512, ReadWrite), (512, ReadWrite)]);
    let w: Vec<f32> = (0..128).map(|i| i as f32).collect();
    let bytes = w.iter().flat_map(|x| x.to_le_bytes()).collect();
    program.weight("w", "f32", &[2, 64], bytes, &[(256, region(1, 256, 256)), (0, region(0, 0, 256))]);
    let add = program.kernel(
        "add",
        &[Read, ReadWrite, ReadWrite],
        "let x = bitcast<vec4<f32>>(b1[i >> 2u]); let w = bitcast<vec4<f32>>(b0[i >> 2u]);
         b2[i >> 2u][i & 3u] = bitcast<u32>(x[i & 3u] + w[i & 3u]);",
    );
    let (x, y) = ([region(2, 256, 256), region(3, 0, 256)], [region(2, 0, 256), region(3, 256, 256)]);
    program.function(
        "add",
        &[port("x", "f32", &[2, 64], &x)],
        &[port("y", "f32", &[2, 64], &y)],
        &[
            dispatch(add, 1, &[region(0, 0, 256), x[0], y[0]], "row 0"),
            dispatch(add, 1, &[region(1, 256, 256), x[1], y[1]], "row 1"),
        ],
        &[],
    );
    let x: Vec<f32> = (0..128).map(|i| 0.5 - i as f32 * 3.0).collect();
    let expected = HostTensor::f32(&[2, 64], x.iter().zip(&w).map(|(x, w)| x + w).collect());
    let outputs = program.load().unwrap().call("add", &tensors([("x", HostTensor::f32(&[2, 64], x))])).unwrap();
    assert_eq!(outputs, tensors([("y", expected)]));
}

#[test]
fn copies_within_a_buffer_and_readback_of_any_size() {
    // 40 MiB: more than one piece of the detour and of the staging buffer, and no multiple of either.
    let words = (40 << 18) + 3u64;
    let padded = (words * 4).next_multiple_of(256);
    let mut program = Program::new(&[(2 * padded, ReadWrite)]);
    let (x, y) = (region(0, 0, words * 4), region(0, padded, words * 4));
    let copy = Copy { source: x, destination: y };
    program.function("copy", &[port("x", "u32", &[words], &[x])], &[port("y", "u32", &[words], &[y])], &[], &[copy]);
    let data: Vec<u32> = (0..words as u32).map(|i| i.wrapping_mul(2654435761)).collect();
    let inputs = tensors([("x", HostTensor::u32(&[words], data.clone()))]);
    let outputs = program.load().unwrap().call("copy", &inputs).unwrap();
    assert!(outputs["y"] == HostTensor::u32(&[words], data), "the copy differs");
}

/// A move after so many dispatches.
fn moved(after: u32, copies: &[Copy]) -> Move {
    let (label, origins) = (format!("%move{after}"), Vec::new());
    Move { after, copies: copies.to_vec(), label, origins, bytes: 8, weight_bytes: 0 }
}

#[test]
fn moves_run_between_dispatches() {
    let mut program = Program::new(&[(1024, ReadWrite), (256, ReadWrite)]);
    let double = program.kernel(
        "double",
        &[ReadWrite],
        "if (i >= 64u) { return; }
         b0[i >> 2u][i & 3u] = bitcast<u32>(2.0 * bitcast<f32>(b0[i >> 2u][i & 3u]));",
    );
    let (x, y, z) = (region(0, 0, 256), region(0, 256, 256), region(1, 0, 256));
    program.function(
        "f",
        &[port("x", "f32", &[64], &[x])],
        &[port("y", "f32", &[64], &[y]), port("z", "f32", &[64], &[z])],
        &[dispatch(double, 1, &[x], "%1 map"), dispatch(double, 1, &[y], "%2 map")],
        &[],
    );
    let copy = |source, destination| Copy { source, destination };
    program.manifest.plans[0].functions[0].moves = vec![
        moved(0, &[copy(x, z)]),
        // In words, turned around: two copies within a buffer, of which one begins in the middle of a binding.
        moved(1, &[copy(region(0, 4, 252), y_at(0, 252)), copy(region(0, 0, 4), y_at(252, 4))]),
        moved(2, &[copy(region(0, 256, 8), region(1, 8, 8))]),
    ];
    let data: Vec<f32> = (0..64).map(|i| i as f32 - 7.5).collect();
    let inputs = tensors([("x", HostTensor::f32(&[64], data.clone()))]);
    let turned: Vec<f32> = (0..64).map(|i| 4.0 * data[(i + 1) % 64]).collect();
    let mut z: Vec<f32> = data.clone();
    z[2..4].copy_from_slice(&turned[..2]);
    let expected = tensors([("y", HostTensor::f32(&[64], turned)), ("z", HostTensor::f32(&[64], z))]);
    // In one submit, and in a submit for each dispatch.
    for longest in [0.0, 1e-9] {
        let options = LoadOptions { submit_ms: longest, ..LoadOptions::default() };
        let mut session = program.load_with(&options).unwrap();
        assert_eq!(session.call("f", &inputs).unwrap(), expected);
        let profile = session.profile("f").unwrap();
        assert_eq!((profile.dispatches.len(), profile.moves.len()), (2, 3));
        let labels: Vec<&str> = profile.moves.iter().map(|m| m.label.as_str()).collect();
        assert_eq!(labels, ["%move0", "%move1", "%move2"]);
        assert_eq!(session.call("f", &inputs).unwrap(), expected);
    }
    // The second doubling overflows, of what was moved there.
    let mut large = vec![1.0; 64];
    large[5] = 1e38;
    let inputs = tensors([("x", HostTensor::f32(&[64], large))]);
    let found = program.load().unwrap().first_bad_dispatch("f", &inputs).unwrap().unwrap();
    assert_eq!((found.index, found.label.as_str()), (1, "%2 map"));
}

/// A part of the second 256 bytes.
fn y_at(offset: u64, bytes: u64) -> selvedge_bundle::manifest::Region {
    region(0, 256 + offset, bytes)
}

#[test]
fn moves_within_a_buffer_are_longer_than_the_detour() {
    let words = (18 << 18) + 5u64;
    let padded = (words * 4).next_multiple_of(256);
    let mut program = Program::new(&[(2 * padded, ReadWrite)]);
    let (x, y) = (region(0, 0, words * 4), region(0, padded, words * 4));
    program.function("f", &[port("x", "u32", &[words], &[x])], &[port("y", "u32", &[words], &[y])], &[], &[]);
    let (first, rest) = (12 << 20, words * 4 - (12 << 20));
    let copies = [
        Copy { source: region(0, 0, first), destination: region(0, padded + rest, first) },
        Copy { source: region(0, first, rest), destination: region(0, padded, rest) },
    ];
    program.manifest.plans[0].functions[0].moves = vec![moved(0, &copies)];
    let data: Vec<u32> = (0..words as u32).map(|i| i.wrapping_mul(2654435761)).collect();
    let inputs = tensors([("x", HostTensor::u32(&[words], data.clone()))]);
    let outputs = program.load().unwrap().call("f", &inputs).unwrap();
    let turned = [&data[first as usize / 4..], &data[..first as usize / 4]].concat();
    assert!(outputs["y"] == HostTensor::u32(&[words], turned), "the copies differ");
}

#[test]
fn a_refused_kernel_is_named() {
    let refused = |text: &str| {
        let mut program = Program::new(&[(256, ReadWrite)]);
        let kernel = program.source("contract 8x8", &[ReadWrite], [1, 1, 1], text);
        program.function("f", &[], &[], &[dispatch(kernel, 1, &[region(0, 0, 256)], "%1")], &[]);
        match program.load() {
            Err(error @ RuntimeError::Validation { .. }) => {
                assert_eq!(error.kind(), ErrorKind::Device);
                error.to_string()
            }
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("loaded"),
        }
    };
    for text in [
        "this is no WGSL",
        "@compute @workgroup_size(1) fn main() { undefined(); }",
        "@group(0) @binding(1) var<storage, read> b1: array<u32>;
         @group(0) @binding(0) var<storage, read_write> b0: array<u32>;
         @compute @workgroup_size(1) fn main() { b0[0] = b1[0]; }",
    ] {
        let message = refused(text);
        assert!(message.starts_with("kernel `contract 8x8` was refused: "), "{message}");
    }
}

#[test]
fn changed_and_linked_weights_are_checked() {
    let program = saxpy();
    let mut bytes = program.bundle().to_bytes().unwrap();
    let text = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let first = 8 + text(&bytes); // the weight comes first
    bytes[first] ^= 1;
    let bundle = selvedge_bundle::read(&bytes).expect("weights are checked when they are used");
    let error = Session::load(&gpu(), &bundle, 0, &LoadOptions::default(), &mut |_| {}).err().unwrap();
    assert!(error.to_string().contains("weight `a`: its bytes were changed"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Input);

    let mut linked = saxpy();
    linked.manifest.weights[0].link = Some(Link { file: "a.safetensors".to_string(), offset: 100, bytes: 6 });
    let error = linked.load().err().unwrap();
    assert!(error.to_string().starts_with("linked weight `a`: it is in a.safetensors"), "{error}");
    let good = linked.weights[0].1.clone();
    let with = |bytes: Result<Vec<u8>, String>| {
        let source = move |weight: &selvedge_bundle::manifest::Weight, link: &Link| {
            assert_eq!((weight.name.as_str(), link.offset), ("a", 100));
            bytes.clone().map(Cow::Owned)
        };
        linked.load_with(&LoadOptions { linked: Some(&source), ..LoadOptions::default() })
    };
    assert_eq!(with(Ok(good)).unwrap().call("forward", &saxpy_inputs()).unwrap(), saxpy_expected());
    let error = with(Ok(vec![0; 6])).err().unwrap();
    assert!(error.to_string().contains("weight `a`: its bytes were changed"), "{error}");
    let error = with(Ok(vec![0; 5])).err().unwrap();
    assert!(error.to_string().contains("weight `a`: 5 bytes"), "{error}");
    let error = with(Err("a.safetensors is gone".to_string())).err().unwrap();
    assert_eq!(error.to_string(), "linked weight `a`: a.safetensors is gone");
}

#[test]
fn profiles_and_benches_cover_every_dispatch() {
    let mut session = saxpy().load().unwrap();
    session.call("forward", &saxpy_inputs()).unwrap();
    let profile = session.profile("forward").unwrap();
    assert_eq!(profile.timestamps, session.gpu().facts().timestamps);
    let rows: Vec<_> = profile.dispatches.iter().map(|d| (d.label.as_str(), d.kernel.as_str(), d.flops)).collect();
    assert_eq!(rows, [("%2 map", "saxpy", 2), ("%3 map", "square", 2)]);
    assert!(profile.dispatches.iter().all(|d| d.ms.is_finite() && d.ms >= 0.0), "{profile:?}");
    let bench = session.bench("forward", 5).unwrap();
    assert_eq!(bench.samples.len(), 5);
    assert!(bench.min <= bench.median && bench.spread >= 0.0 && bench.first > 0.0, "{bench:?}");
    assert!(session.profile("backward").is_err());
}

/// Kernels are warmed up while weights are on their way. Each binds a part of the weights that nothing has touched yet, and wgpu
/// clears what of it was never written: what arrives at the same time must stay.
#[test]
fn weights_that_arrive_during_warm_up_stay() {
    const KERNELS: u64 = 24;
    const PIECES: u64 = 64; // of each kernel's part
    const BYTES: u64 = 512; // of a piece
    const PART: u64 = PIECES * BYTES;
    let mut program = Program::new(&[(KERNELS * PART, Read), (KERNELS * PART, ReadWrite)]);
    // Every part gets its pieces bit by bit, so that some are on their way whenever a kernel runs.
    for piece in 0..PIECES {
        for part in 0..KERNELS {
            let words: Vec<u32> =
                (0..BYTES as u32 / 4).map(|i| 1 + i + 1000 * (piece * KERNELS + part) as u32).collect();
            let slot = (0, region(0, part * PART + piece * BYTES, BYTES));
            program.weight(
                &format!("{piece}.{part}"),
                "u32",
                &[BYTES / 4],
                words.iter().flat_map(|w| w.to_le_bytes()).collect(),
                &[slot],
            );
        }
    }
    let mut dispatches = Vec::new();
    for part in 0..KERNELS {
        let kernel = program.kernel(&format!("add {part}"), &[Read, ReadWrite], &format!("b1[i] = b0[i] + {part}u;"));
        let windows = [region(0, part * PART, PART), region(1, part * PART, PART)];
        dispatches.push(dispatch(kernel, (PART / 16 / 64) as u32, &windows, "%1 map"));
    }
    let all = port("y", "u32", &[KERNELS * PART / 4], &[region(1, 0, KERNELS * PART)]);
    program.function("f", &[], &[all], &dispatches, &[]);
    let want = (0..KERNELS * PART / 4).map(|word| {
        let (part, piece, i) = (word * 4 / PART, word * 4 % PART / BYTES, word % (BYTES / 4));
        (1 + i + 1000 * (piece * KERNELS + part) + part) as u32
    });
    let want = tensors([("y", HostTensor::u32(&[KERNELS * PART / 4], want.collect()))]);

    let (gpu, bundle) = (gpu(), program.bundle());
    for load in 0..8 {
        let options = LoadOptions { warm_up: true, ..LoadOptions::default() };
        let mut session = Session::load(&gpu, &bundle, 0, &options, &mut |_| {}).unwrap();
        let got = session.call("f", &tensors([])).unwrap();
        assert!(got == want, "load {load}");
    }
}
