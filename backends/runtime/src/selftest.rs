//! Running a bundle's self-tests on a driver, before its kernels are relied on.

use crate::device::Gpu;
use crate::error::{ErrorKind, RuntimeError};
use crate::host::{HostData, HostTensor, Tensors};
use crate::load::{LoadOptions, Session};
use selvedge_bundle::selftest::Vector;
use std::sync::Arc;

/// Runs a self-test: the bytes of one of `Bundle::selftests`. `trusted` as in [`LoadOptions`].
///
/// # Errors
/// [`RuntimeError::SelfTest`] names the kernel family that this driver does not compute, or refuses; bytes that are no
/// self-test, or that need what the device lacks.
pub fn self_test(gpu: &Arc<Gpu>, bytes: &[u8], trusted: bool) -> Result<(), RuntimeError> {
    let bundle = selvedge_bundle::read(bytes)?;
    let test = bundle.self_test()?;
    let failed = |problem: String| {
        let (family, device) = (test.family.clone(), gpu.facts().to_string());
        RuntimeError::SelfTest { family, device, problem }
    };
    let blame = |e: RuntimeError| if e.kind() == ErrorKind::Device { failed(e.to_string()) } else { e };
    let options = LoadOptions { trusted, ..LoadOptions::default() };
    let mut session = Session::load(gpu, &bundle, 0, &options, &mut |_| {}).map_err(blame)?;
    let inputs: Tensors = test.inputs.iter().map(|v| (v.name.clone(), tensor(v))).collect();
    let outputs = session.call(&test.function, &inputs).map_err(blame)?;
    for want in &test.outputs {
        let Some(got) = outputs.get(&want.name) else {
            return Err(RuntimeError::BadInput(format!("the self-test of `{}` has no `{}`", test.family, want.name)));
        };
        if let Some(problem) = differs(&want.name, &got.data, &tensor(want).data, want.bound) {
            return Err(failed(problem));
        }
    }
    Ok(())
}

fn tensor(v: &Vector) -> HostTensor {
    let data = match v.dtype.as_str() {
        "i32" => HostData::I32(v.words.iter().map(|w| *w as i32).collect()),
        "u32" | "bool" => HostData::U32(v.words.clone()),
        _ => HostData::F32(v.words.iter().map(|w| f32::from_bits(*w)).collect()),
    };
    HostTensor { shape: v.shape.clone(), data }
}

/// The first element that is further from what is wanted than the bound.
fn differs(name: &str, got: &HostData, want: &HostData, bound: f64) -> Option<String> {
    let numbers = |data: &HostData| -> Vec<f64> {
        match data {
            HostData::F32(v) => v.iter().map(|x| *x as f64).collect(),
            HostData::I32(v) => v.iter().map(|x| *x as f64).collect(),
            HostData::U32(v) => v.iter().map(|x| *x as f64).collect(),
        }
    };
    let (got, want) = (numbers(got), numbers(want));
    if got.len() != want.len() {
        return Some(format!("`{name}` has {} elements where {} are wanted", got.len(), want.len()));
    }
    // A NaN is within no bound.
    let near = |(g, w): (&f64, &f64)| g == w || (g - w).abs() <= bound;
    let at = got.iter().zip(&want).position(|pair| !near(pair))?;
    Some(format!("element {at} of `{name}` is {} where {} ± {bound:.1e} is wanted", got[at], want[at]))
}
