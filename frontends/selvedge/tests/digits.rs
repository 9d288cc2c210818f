//! The shipped model against its recorded trajectory.

use selvedge::compare::compare;

use selvedge::ir::{Tensor, TensorType};
use selvedge::open::Opened;
use selvedge::zoo::{digits, program};
use selvedge::{Device, DeviceChoice};
use selvedge_import::Checkpoint;
use selvedge_import::storage::Storage;

/// The card's ten digits, from recorded noise through 20 guided steps.
fn trajectory(device: &Device, points: usize) {
    let recorded = Checkpoint::new(vec![Storage::embedded("recorded", digits::RECORDED).expect("a safetensors file")]);
    let recorded = recorded.expect("one file");
    let all: Vec<&str> = recorded.names().collect();
    let find = |part: &str| {
        let name = all.iter().find(|n| n.contains(part)).unwrap_or_else(|| panic!("no `{part}` in {all:?}"));
        recorded.tensor(name).expect("readable")
    };
    let want = find("out.trajectory");
    let source = Opened::open("digits").expect("shipped").source(10, None).expect("it builds");
    let request = program::Request { labels: (0..10).collect(), trace: vec!["latents".into()], ..Default::default() };
    let mut run = program::request(source.info(), &request).expect("ten labels fit");
    run.inputs.insert("latents".into(), find("in.latents"));
    let steps = points - 1;
    run.steps.truncate(steps);
    for table in run.tables.values_mut() {
        let mut sizes = table.sizes();
        let row: usize = sizes[1..].iter().product();
        sizes[0] = steps;
        let values = table.to_f32()[..steps * row].to_vec();
        *table = Tensor::new(TensorType::new(table.ty.dtype, sizes), selvedge::ir::Data::F32(values));
    }
    let mut session = source.session(device, &Default::default(), &mut |_| {}).expect("it loads");
    let output = session.run(&run, &mut |_| {}).expect("it runs");
    let size: usize = want.sizes()[1..].iter().product();
    for (k, got) in output.trace["latents"].iter().enumerate() {
        let point = Tensor::f32(&got.sizes(), want.to_f32()[(k + 1) * size..(k + 2) * size].to_vec());
        let c = compare(got, &point, 1e-3);
        assert!(c.ok(), "{}: after step {}: rel_l2 {:e}", device.name(), k + 1, c.rel_l2);
    }
}

#[test]
fn the_host_meets_the_recorded_trajectory() {
    trajectory(&Device::Host, 21);
}

#[test]
fn an_adapter_meets_the_recorded_trajectory() {
    let device =
        Device::choose(&DeviceChoice::Gpu, &mut |_| {}).expect("tests need an adapter: scripts/setup installs one");
    trajectory(&device, if std::env::var_os("SELVEDGE_FULL").is_some() { 21 } else { 4 });
}
