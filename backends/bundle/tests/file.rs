//! Files: what is written is read again, by us and by the safetensors crate, and a failed write harms nothing.

mod common;

use common::*;
use selvedge_bundle::Panels;
use selvedge_bundle::manifest::{Copy, FORMAT, Weight, WeightSlot};
use selvedge_bundle::{Bundle, BundleError, UNHASHED, WeightBytes, read};
use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.selvedge");
    let size = sample().write(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, size);
    assert_eq!(bytes, sample().to_bytes().unwrap(), "the same contents give the same bytes");

    let bundle = read(&bytes).unwrap();
    assert_eq!(*bundle.manifest(), manifest());
    assert_eq!([bundle.kernel(0), bundle.kernel(1)], KERNELS.map(Some));
    assert_eq!(bundle.kernel(2), None);
    assert_eq!(bundle.module(), MODULE);
    assert_eq!(bundle.selftests().collect::<Vec<_>>(), [("map", &[1u8, 2, 3][..])]);
    assert!(matches!(bundle.weight(0), Ok(WeightBytes::Here(b)) if b == half_bytes()));
    assert!(matches!(bundle.weight(1), Ok(WeightBytes::Here(b)) if b == full_bytes()));
    assert!(matches!(bundle.weight(2), Ok(WeightBytes::Linked(link)) if link.offset == 80));
    assert!(bundle.weight(3).is_err());
    assert!(bundle.check_weight(2, &full_bytes()).is_ok());
    assert!(bundle.check_weight(2, &[0; 8]).is_err());
    assert_eq!(bundle.to_bytes().unwrap(), bytes, "a bundle that was read is written alike");
}

#[test]
fn the_safetensors_crate_reads_it() {
    let bytes = sample().to_bytes().unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names = tensors.names();
    names.sort();
    let kernel = |i: usize| format!("kernel:{}", manifest().kernels[i].hash);
    let mut expected =
        [kernel(0), kernel(1), "module".into(), "selftest:map".into(), "weight:full".into(), "weight:half".into()];
    expected.sort();
    assert_eq!(names, expected);
    let full = tensors.tensor("weight:full").unwrap();
    assert_eq!((full.dtype(), full.shape(), full.data()), (safetensors::Dtype::F32, &[2, 1][..], &full_bytes()[..]));
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    assert_eq!(metadata["format"], FORMAT.to_string());
    let text = &metadata["selvedge"];
    let start = format!(r#"{{"format":{FORMAT},"kernels":[{{"bindings":["read","read-write"],"hash":"#);
    assert!(text.starts_with(&start), "{text}");
    assert!(text.contains(r#""pipeline":{"alpha":{"a":"label \"7\"","b":true},"zeta":[1,2.5,null]}"#), "{text}");
}

#[test]
fn a_failed_write_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.selvedge");
    std::fs::write(&path, "precious").unwrap();
    let kernels = KERNELS.map(str::to_string);
    // The size is right and the hash is not: found while writing.
    let error = selvedge_bundle::write(&path, &manifest(), &kernels, MODULE, |weight| {
        Ok(Cow::Owned(if weight.name == "half" { vec![9; 6] } else { full_bytes() }))
    });
    assert!(matches!(error, Err(BundleError::Corrupt { ref place, .. }) if place == "weight `half`"), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");

    sample().write(&path).unwrap();
    assert!(read(&std::fs::read(&path).unwrap()).is_ok(), "a good write replaces it");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent");
    let error = sample().write(&absent.join("model.selvedge")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot write {}: there is no folder {}", absent.join("model.selvedge").display(), absent.display())
    );
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(sample().write(&file.join("model.selvedge")), Err(BundleError::NoFolder { .. })));
    // A folder in the file's place.
    let error = sample().write(folder.path()).unwrap_err();
    assert!(matches!(error, BundleError::Io { .. }), "{error}");
    // The kernel's own file system refuses new files, whoever asks.
    let error = sample().write(std::path::Path::new("/proc/self/model.selvedge"));
    if cfg!(target_os = "linux") {
        assert!(error.unwrap_err().to_string().starts_with("cannot create a file next to /proc/self/model.selvedge"));
    }
}

#[test]
fn contents_that_do_not_fit_are_refused() {
    let refused = |change: fn(&mut selvedge_bundle::manifest::Manifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        match bundle_of(manifest) {
            Err(BundleError::Invalid { place, problem }) => format!("{place}: {problem}"),
            other => panic!("{other:?}"),
        }
    };
    let step = "plans[0].functions[0]";
    assert_eq!(
        refused(|m| m.plans[0].functions[0].dispatches[0].kernel = 2),
        format!("{step}.dispatches[0]: kernel 2 where there are 2")
    );
    assert_eq!(
        refused(|m| m.plans[0].functions[0].dispatches[0].bindings.truncate(1)),
        format!("{step}.dispatches[0]: 1 bindings where kernel `map` has 2")
    );
    assert_eq!(
        refused(|m| m.plans[0].functions[0].dispatches[0].groups[1] = 65_536),
        format!("{step}.dispatches[0]: groups [1, 65536, 1] are not all 1 to 65535")
    );
    assert_eq!(
        refused(|m| m.plans[0].functions[0].dispatches[0].bindings[0] = region(1, 0, 256)),
        format!("{step}.dispatches[0].bindings[1]: buffer 1 is bound read-only and read-write in one dispatch")
    );
    assert_eq!(
        refused(|m| m.plans[0].functions[0].dispatches[0].bindings[1] = region(0, 0, 256)),
        format!("{step}.dispatches[0].bindings[1]: buffer 0 is read-only and written")
    );
    assert_eq!(
        refused(|m| m.plans[0].functions[0].inputs[0].regions[0].offset = 128),
        format!("{step}.inputs[0] `x`: region 128+16 of buffer 1 does not start at a multiple of 256")
    );
    assert_eq!(
        refused(|m| m.plans[0].functions[0].outputs[0].shape = vec![5]),
        format!("{step}.outputs[0] `y`: its regions hold 16 bytes, its shape [5] needs 20")
    );
    assert_eq!(
        refused(|m| m.plans[0].functions[0].outputs[0].shape = vec![u64::MAX, 2]),
        format!("{step}.outputs[0] `y`: shape [18446744073709551615, 2] exceeds 64 bits")
    );
    assert_eq!(
        refused(|m| m.plans[0].functions[0].copies[0].destination.offset = u64::MAX - 255),
        format!(
            "{step}.copies[0]: region 18446744073709551360+16 of buffer 1 reaches over the end of the buffer, which has 1024 bytes"
        )
    );
    let moves = format!("{step}.moves[0]");
    assert_eq!(
        refused(|m| m.plans[0].functions[0].moves[0].after = 2),
        format!("{moves}: it is after 2 of 1 dispatches, the one before after 0")
    );
    assert_eq!(
        refused(|m| m.plans[0].functions[0].moves[0].copies[0].source.offset = 262),
        format!("{moves}.copies[0]: region 262+8 of buffer 1 does not start at a multiple of 4")
    );
    assert_eq!(
        refused(|m| m.plans[0].functions[0].moves[0].copies[0].destination = region(0, 0, 8)),
        format!("{moves}.copies[0]: buffer 0 is read-only and written")
    );
    assert_eq!(
        refused(|m| {
            let copy = Copy { source: region(1, 512, 8), destination: region(1, 768, 8) };
            m.plans[0].functions[0].moves[0].copies.push(copy)
        }),
        format!("{moves}.copies[0]: region 512+8 of buffer 1 is copied over a source")
    );
    assert_eq!(
        refused(|m| m.plans[0].weights[1].region.offset = 0),
        "plans[0].weights: two weights share region 0+8 of buffer 0"
    );
    assert_eq!(
        refused(|m| m.plans[0].weights[1].panels = Some(Panels { rows: 2, channels: 4, taps: 1 })),
        "plans[0].weights[1]: `full` has 2 elements, which are no panels of 2 rows, 4 channels and 1 taps"
    );
    assert_eq!(
        refused(|m| {
            m.weights[0].shape = vec![8];
            let slot = |start, offset, panels| WeightSlot { weight: 0, start, region: region(0, offset, 4), panels };
            let panels = Some(Panels { rows: 1, channels: 8, taps: 1 });
            m.plans[0].weights = vec![slot(0, 0, panels), slot(4, 256, None)];
        }),
        "plans[0].weights[1]: `half` has another order in another slot"
    );
    assert_eq!(
        refused(|m| m.plans[0].buffers[0].bytes = 100),
        "plans[0].buffers[0]: 100 bytes is not a positive multiple of 256"
    );
    assert_eq!(
        refused(|m| m.plans[0].schedule.as_mut().unwrap().decode = Some("absent".into())),
        "plans[0].schedule.decode: there is no function `absent`"
    );
    assert_eq!(refused(|m| m.weights[1].name = "half".into()), "weights: `half` is there twice");
    assert_eq!(
        refused(|m| m.weights[0].dtype = "f64".into()),
        "weights[0] `half`: cannot hold dtype f64 with shape [3]"
    );
    assert!(refused(|m| m.kernels[1].hash = "0".repeat(64)).contains("its text has hash"));
    assert!(refused(|m| m.kernels[1].workgroup = [16, 17, 1]).contains("not 1 to 256 invocations"));
}

#[test]
fn a_streamed_bundle_asks_for_weights_one_at_a_time_and_writes_the_same_file() {
    let kernels = KERNELS.map(str::to_string).to_vec();
    let bytes_of = |w: &Weight| Ok(Cow::Owned(if w.name == "half" { half_bytes() } else { full_bytes() }));
    let asked = AtomicUsize::new(0);
    let counted = |w: &Weight| {
        asked.fetch_add(1, Ordering::Relaxed);
        bytes_of(w)
    };
    let mut streamed = Bundle::streamed(manifest(), kernels.clone(), MODULE.to_string(), counted).unwrap();
    streamed.add_selftest("map", vec![1, 2, 3]);
    assert_eq!(asked.load(Ordering::Relaxed), 0, "nothing is made before it is wanted");
    assert_eq!(streamed.to_bytes().unwrap(), sample().to_bytes().unwrap());
    // Without hashes its maker reads it, and it cannot be written.
    let mut unhashed = manifest();
    unhashed.weights.iter_mut().for_each(|w| w.hash = UNHASHED.to_string());
    let mut broken = unhashed.clone();
    let unhashed = Bundle::streamed(unhashed, kernels.clone(), MODULE.to_string(), bytes_of).unwrap();
    assert!(matches!(unhashed.weight(0), Ok(WeightBytes::Here(b)) if b == half_bytes()));
    assert!(unhashed.to_bytes().is_err());
    // Bytes of another size are refused, hashed or not.
    broken.weights[1].shape = vec![1, 1];
    broken.plans[0].weights[1].region.bytes = 4;
    let broken = Bundle::streamed(broken, kernels, MODULE.to_string(), bytes_of).unwrap();
    assert!(broken.weight(0).is_ok() && broken.weight(1).is_err());
}
