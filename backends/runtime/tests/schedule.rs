//! Runs of a schedule: every stage, carried values, tables, states, traces; and runs that fall sick.

mod common;

use common::*;
use selvedge_bundle::manifest::Access::ReadWrite;
use selvedge_bundle::manifest::{Copy, PlanSchedule};
use selvedge_runtime::{ErrorKind, Health, HostTensor, LoadOptions, RunRequest, RuntimeError, Session};

/// A sampling program in small, all tensors of 4 floats but the table's rows (2 × 4):
///
/// - prepare: p = 10
/// - condition: c = label + p
/// - step 0 ("step"): x' = x·row[0] + row[1] + c;  s' = s + x';  noise = x·2
/// - step 1 ("half"): x' = x·0.5 + s;              s' = s;       noise = row[0]
/// - decode: picture = x + s
///
/// x' and s' are computed beside their homes and copied there after the pass.
fn program() -> Program {
    let at = |slot: u64| region(0, slot * 256, 16);
    let whole = region(0, 0, 10 * 256);
    let [label, p, c, x, x_next, s, s_next, row, noise, picture] = std::array::from_fn(|i| at(i as u64));
    let row = region(0, row.offset, 32);
    let mut program = Program::new(&[(10 * 256, ReadWrite)]);
    // A slot is 16 vectors of 4 words.
    let v = |slot: u32| format!("bitcast<vec4<f32>>(b0[{}u])", slot * 16);
    let set = |slot: u32, value: String| format!("b0[{}u] = bitcast<vec4<u32>>({value});", slot * 16);
    let mut kernel =
        |name: &str, body: String| program.kernel(name, &[ReadWrite], &format!("if (i > 0u) {{ return; }}\n  {body}"));
    let row1 = "bitcast<vec4<f32>>(b0[113u])";
    let k_prepare = kernel("prepare", set(1, "vec4<f32>(10.0)".to_string()));
    let k_condition = kernel("condition", set(2, format!("{} + {}", v(0), v(1))));
    let k_noise = kernel("noise", set(8, format!("{} * 2.0", v(3))));
    let k_step = kernel("step", set(4, format!("{} * {} + {row1} + {}", v(3), v(7), v(2))));
    let k_state = kernel("state", set(6, format!("{} + {}", v(5), v(4))));
    let k_half = kernel("half", set(4, format!("{} * 0.5 + {}", v(3), v(5))) + &set(6, v(5)) + &set(8, v(7)));
    let k_decode = kernel("decode", set(9, format!("{} + {}", v(3), v(5))));

    let f = |name: &str, r| port(name, "f32", &[4], &[r]);
    let table = port("row", "f32", &[2, 4], &[row]);
    let one = |kernel, label: &str| dispatch(kernel, 1, &[whole], label);
    let homes = [Copy { source: x_next, destination: x }, Copy { source: s_next, destination: s }];
    program.function("prepare", &[], &[f("p", p)], &[one(k_prepare, "%p")], &[]);
    program.function("condition", &[f("label", label)], &[f("c", c)], &[one(k_condition, "%c")], &[]);
    let inputs = [f("x", x), f("s", s), table.clone(), f("c", c)];
    let outputs = [f("x", x_next), f("s", s_next), f("noise", noise)];
    let dispatches = [one(k_noise, "%noise"), one(k_step, "%x map"), one(k_state, "%s map")];
    program.function("step", &inputs, &outputs, &dispatches, &homes);
    program.function("half", &inputs, &outputs, &[one(k_half, "%half")], &homes);
    program.function("decode", &[f("x", x)], &[f("picture", picture)], &[one(k_decode, "%d")], &[]);
    program.plan().schedule = Some(PlanSchedule {
        inputs: vec![f("label", label)],
        prepare: Some("prepare".to_string()),
        condition: Some("condition".to_string()),
        steps: vec!["step".to_string(), "half".to_string()],
        tables: vec![table],
        tabulate: None,
        carry: vec![f("x", x)],
        trace: vec![f("noise", noise)],
        decode: Some("decode".to_string()),
        states: vec![f("s", s)],
    });
    program
}

/// Row k: factors (1 + k/4 …) and offsets (k …), exact in f32.
fn table(steps: usize) -> Vec<f32> {
    (0..steps * 8)
        .map(|i| if i % 8 < 4 { 1.0 + (i / 8) as f32 * 0.25 } else { (i % 8) as f32 - i as f32 / 8.0 })
        .collect()
}

fn request(steps: &[u32]) -> RunRequest {
    RunRequest {
        inputs: tensors([
            ("label", HostTensor::f32(&[4], vec![1.0, 2.0, 3.0, 4.0])),
            ("x", HostTensor::f32(&[4], vec![0.5, -1.0, 2.0, 0.0])),
        ]),
        steps: steps.to_vec(),
        tables: tensors([("row", HostTensor::f32(&[steps.len() as u64, 2, 4], table(steps.len())))]),
        trace: vec!["noise".to_string(), "x".to_string()],
        ..RunRequest::default()
    }
}

/// x, picture, and for each step noise and x, on the host.
type Expected = (Vec<f32>, Vec<f32>, Vec<(Vec<f32>, Vec<f32>)>);

fn expected(steps: &[u32]) -> Expected {
    let rows = table(steps.len());
    let c = [11.0f32, 12.0, 13.0, 14.0];
    let (mut x, mut s) = (vec![0.5f32, -1.0, 2.0, 0.0], vec![0.0f32; 4]);
    let mut trace = Vec::new();
    for (k, step) in steps.iter().enumerate() {
        let row = &rows[k * 8..];
        let noise: Vec<f32> = (0..4).map(|i| if *step == 0 { x[i] * 2.0 } else { row[i] }).collect();
        for i in 0..4 {
            if *step == 0 {
                x[i] = x[i] * row[i] + row[4 + i] + c[i];
                s[i] += x[i];
            } else {
                x[i] = x[i] * 0.5 + s[i];
            }
        }
        trace.push((noise, x.clone()));
    }
    let picture = x.iter().zip(&s).map(|(x, s)| x + s).collect();
    (x, picture, trace)
}

fn run_and_compare(session: &mut Session, steps: &[u32], health: Health) {
    let mut seen = Vec::new();
    let request = RunRequest { health, ..request(steps) };
    let result = session.run(&request, &mut |report| {
        assert_eq!(report.total, steps.len());
        assert!(report.trace.contains_key("noise") && report.trace.contains_key("x"));
        seen.push(report.step);
    });
    let result = result.unwrap();
    assert_eq!(seen, (0..steps.len()).collect::<Vec<_>>());
    let (x, picture, trace) = expected(steps);
    let f = |data: &[f32]| HostTensor::f32(&[4], data.to_vec());
    assert_eq!(result.outputs, tensors([("x", f(&x)), ("picture", f(&picture))]));
    let traced: Vec<_> = trace.iter().map(|(noise, x)| tensors([("noise", f(noise)), ("x", f(x))])).collect();
    assert_eq!(result.trace, traced);
}

#[test]
fn a_run_goes_through_every_stage() {
    let mut session = program().load().unwrap();
    // Again and again, longer and shorter: states start at zero and no table row is left over.
    for health in [Health::EachStep, Health::End, Health::Off] {
        for steps in [&[0][..], &[0, 0, 1, 0, 1, 1], &[1, 0]] {
            run_and_compare(&mut session, steps, health);
        }
    }
    let memory = session.memory();
    assert_eq!((memory.planned, memory.allocated), (2560, 2560));
}

#[test]
fn requests_that_do_not_fit_are_refused() {
    let mut session = program().load().unwrap();
    let mut refused = |change: &dyn Fn(&mut RunRequest)| {
        let mut request = request(&[0, 1]);
        change(&mut request);
        match session.run(&request, &mut |_| {}) {
            Err(error @ RuntimeError::BadInput(_)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&|r| r.steps.clear()), "a run needs at least one step");
    assert_eq!(refused(&|r| r.steps[1] = 2), "step function 2 where the schedule has 2");
    assert_eq!(refused(&|r| r.steps.push(0)), "input `row`: expected shape [3, 2, 4], found [2, 2, 4]");
    assert_eq!(refused(&|r| r.tables.clear()), "tables: missing `row`, unknown none; expected `row`");
    assert_eq!(refused(&|r| drop(r.inputs.remove("x"))), "inputs: missing `x`, unknown none; expected `label`, `x`");
    assert_eq!(refused(&|r| r.trace.push("p".to_string())), "`p` cannot be traced; what can is: noise, x");
    assert_eq!(
        refused(&|r| drop(r.inputs.insert("x".to_string(), HostTensor::f32(&[4], vec![0.0, f32::NAN, 0.0, 0.0])))),
        "input `x` has 1 values that are not finite"
    );
    run_and_compare(&mut session, &[0, 1], Health::EachStep);

    let mut library = program();
    library.plan().schedule = None;
    let error = library.load().unwrap().run(&request(&[0]), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("no schedule"), "{error}");
}

#[test]
fn a_sick_run_names_the_step_and_the_dispatch() {
    let mut session = program().load().unwrap();
    // Step 3 multiplies x, which is above 2 by then, by nearly the largest float.
    let mut sick = request(&[0, 0, 1, 0, 0]);
    let mut rows = table(5);
    rows[3 * 8 + 2] = 3e38;
    sick.tables = tensors([("row", HostTensor::f32(&[5, 2, 4], rows))]);
    for health in [Health::EachStep, Health::End] {
        let mut steps = 0;
        let request = RunRequest { health, ..sick.clone() };
        let error = session.run(&request, &mut |_| steps += 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Result);
        assert_eq!(
            error.to_string(),
            "step 4 of 5 (`step`): `x` has 1 of 4 values that are not finite; \
             the first come from %x map (dispatch 1 of `step`, kernel step), made at model.rs:6"
        );
        let RuntimeError::Sick { step, count, total, first, .. } = error else { unreachable!("compared above") };
        assert_eq!((step, count, total), (Some(3), 1, 4));
        assert_eq!(first.unwrap().index, 1);
        if health == Health::EachStep {
            assert_eq!(steps, 3, "the steps before were reported, and no other");
        }
    }
    let unlocated = RunRequest { locate: false, ..sick.clone() };
    let error = session.run(&unlocated, &mut |_| {}).unwrap_err();
    assert!(matches!(error, RuntimeError::Sick { step: Some(3), first: None, .. }), "{error:?}");
    // Without a watch the values come out as they are, and the session is good for another run.
    let outputs = session.run(&RunRequest { health: Health::Off, ..sick }, &mut |_| {}).unwrap().outputs;
    assert!(!outputs["x"].as_f32().unwrap()[2].is_finite());
    run_and_compare(&mut session, &[0, 0, 1], Health::EachStep);
}

#[test]
fn the_first_bad_dispatch_of_a_call_is_found() {
    let mut session = program().load().unwrap();
    let f = |data: [f32; 4]| HostTensor::f32(&[4], data.to_vec());
    let mut inputs = tensors([("x", f([3e38; 4])), ("s", f([0.0; 4])), ("c", f([0.0; 4]))]);
    inputs.insert("row".to_string(), HostTensor::f32(&[2, 4], vec![1.0; 8]));
    let found = session.first_bad_dispatch("step", &inputs).unwrap().unwrap();
    assert_eq!((found.index, found.label.as_str()), (0, "%noise"));
    inputs.insert("x".to_string(), f([1.0; 4]));
    assert_eq!(session.first_bad_dispatch("step", &inputs).unwrap(), None);
}

#[test]
fn a_run_that_loses_its_device_goes_on_from_the_last_step_held() {
    let steps = [0, 1, 0, 0, 1];
    let whole = program().load().unwrap().run(&request(&steps), &mut |_| {}).unwrap();
    for lost_after in 0..steps.len() {
        let mut session = program().load().unwrap();
        let gpu = session.gpu().clone();
        let mut seen = Vec::new();
        let error = session.run(&request(&steps), &mut |report| {
            seen.push(report.step);
            if report.step == lost_after {
                gpu.destroy();
            }
        });
        let error = error.expect_err("the device is gone before the outputs are read");
        assert!(matches!(error, RuntimeError::DeviceLost(_)), "{error}");
        assert_eq!(error.kind(), ErrorKind::Device);
        let held = session.checkpoint().expect("a step was held").clone();
        assert!(held.step > lost_after && held.step <= steps.len(), "{} after {lost_after}", held.step);
        // A fresh device, and the rest of the steps.
        let mut fresh = program().load().unwrap();
        let rest = RunRequest { resume: Some(held.clone()), ..request(&steps) };
        let resumed = fresh.run(&rest, &mut |report| seen.push(report.step)).unwrap();
        assert_eq!(resumed, whole, "lost after step {lost_after}");
        assert_eq!(seen, (0..steps.len()).collect::<Vec<_>>(), "each step is reported once");
        assert_eq!(fresh.run(&request(&steps), &mut |_| {}).unwrap(), whole, "the next run starts anew");
    }
}

#[test]
fn functions_may_be_submitted_in_parts() {
    let steps = [0, 1, 0];
    let whole = program().load().unwrap().run(&request(&steps), &mut |_| {}).unwrap();
    // Every dispatch is longer than that.
    let options = LoadOptions { submit_ms: 1e-9, ..LoadOptions::default() };
    let parts = program().load_with(&options).unwrap().run(&request(&steps), &mut |_| {}).unwrap();
    assert_eq!(parts, whole);
}

#[test]
fn compiled_pipelines_can_be_kept_and_bytes_that_do_not_fit_are_not_used() {
    let program = program();
    let session = program.load().unwrap();
    let bytes = session.pipeline_cache().expect("Vulkan can keep pipelines");
    let with = |bytes: &[u8]| {
        let options = LoadOptions { pipelines: Some(bytes), warm_up: true, ..LoadOptions::default() };
        let mut session = program.load_with(&options).unwrap();
        session.run(&request(&[0, 1]), &mut |_| {}).unwrap();
        session.pipeline_cache_ignored().map(str::to_string)
    };
    assert_eq!(with(&bytes), None);
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert!(with(&changed).is_some_and(|why| why.contains("changed")));
    assert!(with(&bytes[..10]).is_some_and(|why| why.contains("cut off")));
    assert!(with(&[selvedge_bundle::hash(b"x").as_bytes(), b"x"].concat()).is_some(), "no data of wgpu's");
}
