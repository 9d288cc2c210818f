//! Devices: what is listed, what is chosen, what is refused.

mod common;

use common::*;
use selvedge_bundle::manifest::Access::ReadWrite;
use selvedge_runtime::{DeviceChoice, ErrorKind, Gpu, RuntimeError, devices};

#[test]
fn the_list_shows_limits_that_every_adapter_has() {
    let list = devices();
    assert!(!list.is_empty(), "these tests need a GPU driver; Debian: apt install mesa-vulkan-drivers");
    for (i, facts) in list.iter().enumerate() {
        println!("{facts}\n  {facts:?}");
        assert_eq!(facts.index, i);
        assert!(!facts.name.is_empty());
        // WebGPU's defaults are the least there is.
        assert!(facts.max_binding_bytes >= 128 << 20 && facts.max_buffer_bytes >= 256 << 20);
        assert!(facts.storage_buffers >= 8 && facts.invocations >= 256 && facts.workgroup_bytes >= 16 << 10);
        assert!(facts.binding_alignment <= 256 && facts.max_groups >= 65_535);
    }
}

#[test]
fn devices_are_chosen_by_name_or_index() {
    for facts in devices() {
        let gpu = Gpu::open(&DeviceChoice::Index(facts.index)).unwrap();
        assert_eq!(*gpu.facts(), facts);
        let part: String = facts.name.chars().take(5).collect::<String>().to_uppercase();
        let gpu = Gpu::open(&part.parse().unwrap()).unwrap();
        assert!(gpu.facts().name.to_uppercase().contains(&part));
    }
    assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
    assert_eq!("gpu".parse(), Ok(DeviceChoice::Auto));
    assert_eq!("1".parse(), Ok(DeviceChoice::Index(1)));
    assert_eq!("llvmpipe".parse(), Ok(DeviceChoice::Name("llvmpipe".to_string())));
}

#[test]
fn an_unknown_device_lists_the_known() {
    for name in ["quantum", "99"] {
        let error = Gpu::open(&name.parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        let text = error.to_string();
        assert!(text.starts_with(&format!("no device matches `{name}`; there are:\n  0: ")), "{text}");
        for facts in devices() {
            assert!(text.contains(&facts.name), "{text}");
        }
    }
}

#[test]
fn a_bundle_that_needs_more_says_everything_it_lacks() {
    let mut program = Program::new(&[(256, ReadWrite)]);
    let target = &mut program.manifest.target;
    target.name = "big".to_string();
    target.features = vec!["ray-tracing".to_string()];
    target.subgroup_size = Some(128);
    target.max_binding_bytes = 1 << 50;
    target.storage_buffers = 1 << 20;
    target.workgroup_bytes = 1 << 30;
    let error = program.load().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Input);
    let RuntimeError::Unsupported { missing, target, .. } = &error else { panic!("{error:?}") };
    assert_eq!(target, "big");
    let what: Vec<_> = missing.iter().map(|m| m.what.as_str()).collect();
    assert_eq!(
        what,
        [
            "ray-tracing",
            "subgroup width",
            "maxStorageBufferBindingSize",
            "maxStorageBuffersPerShaderStage",
            "maxComputeWorkgroupStorageSize"
        ]
    );
    let text = error.to_string();
    assert!(text.contains("\n  maxStorageBufferBindingSize: 1125899906842624 required, "), "{text}");
    // A plan that the bundle does not have.
    program.manifest.plans.clear();
    let error = program.load().err().unwrap();
    assert_eq!(error.to_string(), "the bundle has no plan 0; it has 0 ()");
}

/// Drivers are found through the environment, which only another process can change safely.
#[test]
#[cfg(target_os = "linux")]
fn no_driver_is_an_error_of_its_own() {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "without_a_driver", "--ignored"]);
    child.env("VK_DRIVER_FILES", "/absent.json").env("VK_ICD_FILENAMES", "/absent.json");
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by no_driver_is_an_error_of_its_own"]
fn without_a_driver() {
    assert_eq!(devices(), []);
    let error = Gpu::open(&DeviceChoice::Auto).unwrap_err();
    assert!(matches!(error, RuntimeError::NoAdapter), "{error}");
    assert_eq!(error.kind(), ErrorKind::Device);
    // Nothing could match, so it is no question of the name.
    assert!(matches!(Gpu::open(&DeviceChoice::Index(0)), Err(RuntimeError::NoAdapter)));
}
