//! A device that is lost in the middle of a run, and the run that goes on.

use selvedge::gpu::Gpu;
use selvedge::open::Opened;
use selvedge::sample::{Images, Order, plan, sample};
use selvedge::{Device, Event};

/// One picture of a seven in four steps, and the notes of the run. The device is lost when so many steps are done.
fn picture(lost_after: Option<u64>) -> (Images, Vec<String>) {
    let device = Device::Gpu(Box::new(Gpu::open(None).expect("these tests need a GPU driver")));
    let source = Opened::open("digits").expect("shipped").source(1, None).expect("it builds");
    let mut session = source.session(&device, &Default::default(), &mut |_| {}).expect("it loads");
    let order = Order { count: 1, labels: vec![7], steps: Some(4), ..Order::default() };
    let loaded = session.as_gpu().expect("it is on an adapter").device().clone();
    let mut notes = Vec::new();
    let planned = plan(source.info(), &Default::default(), &order).expect("a label and steps");
    let images = sample(&mut session, source.info(), &planned, &mut |event| match event {
        Event::Steps { done, .. } if Some(done) == lost_after => loaded.destroy(),
        Event::Note(note) => notes.push(note),
        _ => {}
    });
    (images.expect("it runs to its end"), notes)
}

#[test]
fn a_lost_device_does_not_change_the_picture() {
    let (whole, notes) = picture(None);
    assert!(notes.is_empty(), "{notes:?}");
    for lost_after in [1, 3] {
        let (resumed, notes) = picture(Some(lost_after));
        assert_eq!(resumed, whole, "lost after step {lost_after}");
        assert!(notes.len() == 1 && notes[0].contains("the device was lost"), "{notes:?}");
    }
}
