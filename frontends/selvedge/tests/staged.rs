//! Text-to-image pipelines whose weights are on the device stage by stage: the same pictures, within the memory that was planned.

use selvedge::compile::{Options, Settings};
use selvedge::memory::{Residency, Usage};
use selvedge::open::{BundleFile, Opened, Source};
use selvedge::sample::{Images, Order, plan, sample};
use selvedge::target::Target;
use selvedge::{Device, DeviceChoice, Event, ProgramOptions, Session, compare};
use selvedge_ir::Tensor;
use std::path::{Path, PathBuf};

fn gpu() -> Device {
    Device::choose(&DeviceChoice::Gpu, &mut |_| {}).expect("these tests need a GPU driver")
}

fn source(name: &str, options: ProgramOptions) -> Source {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    let options = ProgramOptions { text_tokens: Some(12), ..options };
    Opened::open(&folder.display().to_string()).expect("a fixture").source_with(options, None).expect("a program")
}

fn small(name: &str) -> Source {
    source(name, ProgramOptions { size: Some([32, 32]), ..ProgramOptions::default() })
}

fn within(max_memory: u64) -> Settings {
    Settings { max_memory: Some(max_memory), ..Settings::default() }
}

/// What a plan for a target takes.
fn usage(source: &Source, target: Target, settings: Settings) -> Usage {
    let compiled = source.compile(&Options { settings, ..Options::new(target) }).expect("it compiles");
    Usage::new(compiled.manifest(), &compiled.manifest().plans[0])
}

/// Pictures of two prompts in turns, two steps each; `done` is called after so many steps.
fn pictures(session: &mut Session, source: &Source, count: usize, done: &mut dyn FnMut(u64)) -> (Images, Vec<String>) {
    let prompts = ["a red cat", "a blue hat"].map(String::from).to_vec();
    let order = Order { count, prompts, steps: Some(2), seed: 3, ..Order::default() };
    let planned = plan(source.info(), &source.tokenizers().expect("it reads text"), &order).expect("a request");
    let mut notes = Vec::new();
    let images = sample(session, source.info(), &planned, &mut |event| match event {
        Event::Steps { done: n, .. } => done(n),
        Event::Note(note) => notes.push(note),
        _ => {}
    });
    (images.expect("it runs"), notes)
}

fn distance(got: &Images, want: &Images) -> f64 {
    let tensor = |images: &Images| Tensor::f32(&[images.values.len()], images.values.clone());
    compare::compare(&tensor(got), &tensor(want), 1.0).rel_l2
}

/// Each text encoder leaves before the transformer comes; prompts are read once.
#[test]
fn pipelines_stage_by_stage() {
    let device = gpu();
    for name in ["pipeline-pixart-sigma", "pipeline-sd3"] {
        let source = small(name);
        let usage = usage(&source, device.target(), Settings::default());
        let (whole, staged) = (usage.peak(Residency::Whole), usage.peak(Residency::Staged));
        assert!(staged < whole, "{name}: {usage:?}");
        let run = |max_memory: u64| {
            let mut session = source.session(&device, &within(max_memory), &mut |_| {}).expect("it loads");
            let (images, notes) = pictures(&mut session, &source, 4, &mut |_| {});
            assert!(notes.is_empty(), "{notes:?}");
            assert_eq!(session.conditions_run(), 2, "{name}: two prompts, four pictures");
            (images, session.peak_bytes().expect("on an adapter"))
        };
        let (want, peak) = run(whole);
        assert_eq!(peak, whole, "{name}");
        let (got, peak) = run(staged);
        assert_eq!(peak, staged, "{name}");
        assert_eq!(got, want, "{name}");
        // Reading prompts once changes nothing.
        let mut host = source.session(&Device::Host, &Settings::default(), &mut |_| {}).expect("it loads");
        assert!(distance(&want, &pictures(&mut host, &source, 4, &mut |_| {}).0) < 1e-3, "{name}");
        let refused = source.session(&device, &within(staged / 4), &mut |_| {});
        let error = refused.err().map(|e| e.to_string()).expect("it cannot fit");
        assert!(error.contains("does not fit") && error.contains("what would fit"), "{name}: {error}");
    }
}

#[test]
fn a_staged_session_warms_up_and_survives_a_lost_device() {
    let (device, source) = (gpu(), small("pipeline-sd3"));
    let staged = usage(&source, device.target(), Settings::default()).peak(Residency::Staged);
    let session = || {
        let (mut warmed, mut all) = (0, 0);
        let mut events = |event: Event| {
            if let Event::WarmUp { done, total } = event {
                (warmed, all) = (done, total);
            }
        };
        let session = source.session(&gpu(), &within(staged), &mut events).expect("it loads");
        assert!(warmed == all && all > 5, "{warmed} of {all} kernels");
        session
    };
    let (want, _) = pictures(&mut session(), &source, 1, &mut |_| {});
    let mut losing = session();
    let loaded = losing.as_gpu().expect("on an adapter").device().clone();
    let (got, notes) = pictures(&mut losing, &source, 1, &mut |done| {
        if done == 1 {
            loaded.destroy();
        }
    });
    assert!(notes.len() == 1 && notes[0].contains("the device was lost"), "{notes:?}");
    assert_eq!(got, want);
}

/// A file that was compiled for little memory has its decoder in strips, and runs in that memory.
#[test]
fn compiled_files_keep_to_the_memory_they_were_compiled_for() {
    let options = ProgramOptions { size: Some([96, 64]), resolution_binning: false, ..ProgramOptions::default() };
    let (device, source) = (gpu(), source("pipeline-pixart-sigma", options));
    let whole = usage(&source, Target::portable(), Settings::default());
    let budget = whole.peak(Residency::Staged) * 4 / 5;
    let striped = usage(&source, Target::portable(), within(budget));
    assert!(striped.peak(Residency::Staged) <= budget && striped.arena < whole.arena, "{striped:?} {whole:?}");
    let settings = within(budget);
    let compiled = source.compile(&Options { settings, ..Options::new(Target::portable()) }).expect("it compiles");
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("strips.selvedge");
    std::fs::write(&path, compiled.to_bytes().expect("its weights are there")).expect("writable");
    let file = BundleFile::open(&path).expect("it is one");
    let mut session = file.session_within(&device, Some(budget), &mut |_| {}).expect("it loads");
    let got = pictures(&mut session, &source, 1, &mut |_| {}).0;
    let peak = session.peak_bytes().expect("on an adapter");
    assert!(peak <= budget, "{peak} of {budget} bytes");
    let mut whole = source.session(&Device::Host, &Settings::default(), &mut |_| {}).expect("it loads");
    let distance = distance(&got, &pictures(&mut whole, &source, 1, &mut |_| {}).0);
    assert!(distance < 1e-3, "{distance:.1e}");
}
