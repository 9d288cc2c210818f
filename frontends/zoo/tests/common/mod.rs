//! Recorded cases of the reference implementations.

use safetensors::{Dtype, SafeTensors};
use selvedge_ir::{DType, Tensor, TensorType};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A configuration, its weights, and recorded inputs and outputs.
pub struct Case {
    pub name: String,
    pub config: Value,
    pub weights: BTreeMap<String, Arc<Tensor>>,
    recorded: BTreeMap<String, Arc<Tensor>>,
}

impl Case {
    /// A folder of `tests/fixtures`.
    pub fn fixture(name: &str) -> Case {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
        let read = |file: &str| std::fs::read(folder.join(file)).unwrap_or_else(|e| panic!("{name}/{file}: {e}"));
        let config = serde_json::from_slice(&read("config.json")).expect("the fixture's configuration is valid");
        Case::new(name, config, &read("model.safetensors"), &read("io.safetensors"))
    }
    /// From the files' contents.
    pub fn new(name: &str, config: Value, model: &[u8], recorded: &[u8]) -> Case {
        Case { name: name.to_string(), config, weights: tensors(model), recorded: tensors(recorded) }
    }
    /// A recorded tensor.
    pub fn tensor(&self, name: &str) -> Tensor {
        let found = self.recorded.get(name).unwrap_or_else(|| panic!("{}: no `{name}` recorded", self.name));
        Tensor::clone(found)
    }
    /// In which dtype each weight is stored.
    pub fn dtypes(&self) -> BTreeMap<String, DType> {
        self.weights.iter().map(|(name, t)| (name.clone(), t.ty.dtype)).collect()
    }
}

fn tensors(file: &[u8]) -> BTreeMap<String, Arc<Tensor>> {
    let file = SafeTensors::deserialize(file).expect("the fixture is a safetensors file");
    let tensor = |view: safetensors::tensor::TensorView| {
        let ty = |dtype| TensorType::new(dtype, view.shape());
        match view.dtype() {
            Dtype::F32 => Tensor::from_bytes(ty(DType::F32), view.data()),
            Dtype::F16 => Tensor::from_bytes(ty(DType::F16), view.data()),
            Dtype::BF16 => Tensor::from_bytes(ty(DType::BF16), view.data()),
            Dtype::I64 => {
                let long = |c: &[u8]| i64::from_le_bytes(c.try_into().expect("chunks of eight"));
                let narrow = |c| i32::try_from(long(c)).expect("a recorded index is small");
                Ok(Tensor::i32(view.shape(), view.data().chunks_exact(8).map(narrow).collect()))
            }
            other => panic!("fixtures have no {other:?}"),
        }
        .expect("the bytes fill the shape")
    };
    file.tensors().into_iter().map(|(name, view)| (name, Arc::new(tensor(view)))).collect()
}

/// ‖got − want‖ / ‖want‖.
pub fn rel_l2(got: &Tensor, want: &Tensor) -> f64 {
    let (got, want) = (got.to_f64(), want.to_f64());
    assert_eq!(got.len(), want.len());
    let square = |f: &dyn Fn(usize) -> f64| (0..want.len()).map(|i| f(i).powi(2)).sum::<f64>();
    (square(&|i| got[i] - want[i]) / square(&|i| want[i])).sqrt()
}
