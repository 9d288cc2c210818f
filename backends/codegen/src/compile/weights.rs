//! Weights: their tensors, their places in memory, and what of the checkpoint goes there.

use super::Compiler;
use super::prepare::Prepared;
use crate::emit::{Context, internal};
use crate::memory::Space;
use crate::names::{self, Stage};
use crate::panels::{self, Reading};
use crate::tensor::TensorId;
use selvedge_bundle::manifest::{Access as Usage, Buffer, Region, Stage as Residence, Weight, WeightSlot};
use selvedge_ir::ops::Const;
use selvedge_ir::{DType, Diagnostic, TensorType};
use std::collections::{BTreeMap, BTreeSet};

impl Compiler<'_> {
    /// The tensor of a weight, or of weights that are joined.
    pub(super) fn weight(&mut self, stage: Stage, name: &str, ty: &TensorType) -> Result<TensorId, Diagnostic> {
        let parts = match self.joins.parts(name) {
            Some(parts) => parts.to_vec(),
            None => vec![(name.to_string(), ty.clone())],
        };
        // What is called from outside may be called at any time.
        let residence = match stage {
            Stage::Prepare => vec![Residence::Prepare],
            Stage::Condition => vec![Residence::Condition],
            Stage::Tabulate | Stage::Step => vec![Residence::Steps],
            Stage::Decode => vec![Residence::Decode],
            Stage::Library => Residence::ALL.to_vec(),
        };
        // A weight lies in one place: it is joined wherever it is read, or nowhere.
        if let Some(at) = self.weight_numbers.get(&parts[0].0) {
            self.readers[*at].extend(residence);
            return Ok(self.weight_tensors[*at]);
        }
        self.tensors.push(names::weight(name, ty)?);
        let tensor = self.tensors.len() - 1;
        self.weight_tensors.push(tensor);
        self.readers.push(residence.into_iter().collect());
        let mut start = 0;
        for (name, ty) in parts {
            self.weight_numbers.insert(name.clone(), self.weight_tensors.len() - 1);
            let shape: Vec<u64> = ty.shape.sizes().into_iter().map(|s| s as u64).collect();
            let dtype = ty.dtype.to_string();
            self.weight_places.push((tensor, start));
            start += selvedge_bundle::weight_bytes(&dtype, &shape)
                .ok_or_else(|| internal(format!("weight `{name}` has no size")))?;
            self.weights.push(Weight { name, dtype, shape, hash: String::new(), link: None });
        }
        Ok(tensor)
    }

    /// A constant as a weight of its own, named by its contents.
    pub(super) fn constant(&mut self, stage: Stage, c: &Const, ty: &TensorType) -> Result<TensorId, Diagnostic> {
        // A bool takes a word on the device.
        let bytes: Vec<u8> = match ty.dtype {
            DType::Bool => c.data.0.iter().flat_map(|b| u32::from(*b != 0).to_le_bytes()).collect(),
            _ => c.data.0.to_vec(),
        };
        let hash = selvedge_bundle::hash(&bytes);
        let tensor = self.weight(stage, &format!("const:{ty}:{hash}"), ty)?;
        let index = self.weight_places.iter().position(|(t, _)| *t == tensor).expect("the weight was just found");
        self.weights[index].hash = hash;
        self.constants.insert(index as u32, bytes);
        Ok(tensor)
    }

    /// Puts weights that products alone read in panels, where that pays.
    pub(super) fn arrange(&mut self, prepared: &[Prepared]) {
        let Some(most_rows) = panels::most_rows(self.target) else { return };
        let mut readings: BTreeMap<TensorId, Option<Reading>> = BTreeMap::new();
        for p in prepared {
            let context = Context { function: &p.flat, homes: &p.homes };
            panels::note_readings(context, &mut readings);
        }
        for tensor in &self.weight_tensors {
            let Some(Some(reading)) = readings.get(tensor) else { continue };
            let of = |(at, weight): (&(TensorId, u64), &Weight)| {
                (at.0 == *tensor).then(|| weight.shape.iter().product::<u64>())
            };
            let parts: Vec<u64> = self.weight_places.iter().zip(&self.weights).filter_map(of).collect();
            self.tensors[*tensor].panels = panels::fitting(*reading, most_rows, &parts);
        }
    }

    /// Gives weights their places: those that one stage alone reads are apart, so that they can be absent at other times.
    pub(super) fn place_weights(&mut self) -> Vec<Buffer> {
        let alone = |readers: &BTreeSet<Residence>| match readers.iter().copied().collect::<Vec<_>>().as_slice() {
            [one] => Some(*one),
            _ => None,
        };
        let mut classes: BTreeSet<Option<Residence>> = self.readers.iter().map(alone).collect();
        let staged = classes.len() > 1;
        if !staged {
            classes = BTreeSet::from([None]);
        }
        let mut buffers: Vec<Buffer> = Vec::new();
        for class in classes {
            let label = match class {
                None => "weights",
                Some(Residence::Prepare) => "prepare weights",
                Some(Residence::Condition) => "condition weights",
                Some(Residence::Steps) => "step weights",
                Some(Residence::Decode) => "decode weights",
            };
            let mut space = Space::new(label, Usage::Read, buffers.len() as u32, self.target.max_buffer_bytes);
            for (tensor, readers) in self.weight_tensors.iter().zip(&self.readers) {
                if !staged || alone(readers) == class {
                    space.append(&mut self.tensors[*tensor]);
                }
            }
            buffers.extend(space.buffers().into_iter().map(|b| Buffer { stage: class, ..b }));
        }
        buffers
    }

    /// What of each weight goes where.
    pub(super) fn slots(&self) -> Result<Vec<WeightSlot>, Diagnostic> {
        let mut slots = Vec::new();
        for (index, (weight, (tensor, first))) in self.weights.iter().zip(&self.weight_places).enumerate() {
            let bytes = selvedge_bundle::weight_bytes(&weight.dtype, &weight.shape)
                .ok_or_else(|| internal(format!("weight `{}` has no size", weight.name)))?;
            // A piece holds the tensor's bytes from `start` on; the weight is those from `first` to `end`. A region is whole
            // words; the last half word of an odd number of halves is no part of the weight.
            let (mut start, end) = (0, first + bytes);
            for piece in &self.tensors[*tensor].pieces {
                let (low, high) = (start.max(*first), (start + piece.bytes).min(end));
                if low < high {
                    let region = Region { offset: piece.offset + low - start, bytes: high - low, ..*piece };
                    let panels = self.tensors[*tensor].panels;
                    slots.push(WeightSlot { weight: index as u32, start: low - first, region, panels });
                }
                start += piece.bytes;
            }
        }
        Ok(slots)
    }
}
