//! Sending inputs: through one buffer that the host writes and that is kept, so that a call touches no fresh memory.
//!
//! `Queue::write_buffer` takes new staging memory for every write, which the system first has to clear: a tenth of the time
//! of an attention of 1024 tokens on a software driver.

use crate::device::Gpu;
use crate::error::RuntimeError;
use crate::transfer::{CHUNK, Outcome, mapped, refused};
use std::sync::mpsc;

/// What error messages call it.
const ACTION: &str = "sending inputs";

/// What goes to one buffer of the device: its place, and whole words.
pub(crate) struct Parcel<'a> {
    pub buffer: &'a wgpu::Buffer,
    pub offset: u64,
    pub bytes: &'a [u8],
}

/// The buffer, and its way back from the last copy.
#[derive(Default)]
pub(crate) struct Sending {
    buffer: Option<(wgpu::Buffer, Option<Mapping>)>,
}

/// A mapping that was asked for behind a submission.
struct Mapping {
    submission: wgpu::SubmissionIndex,
    outcome: Outcome,
}

impl Sending {
    /// Bytes of the buffer.
    pub fn bytes(&self) -> u64 {
        self.buffer.as_ref().map_or(0, |(buffer, _)| buffer.size())
    }

    /// Copies all parcels to where they belong, before whatever is submitted later.
    pub fn send(&mut self, gpu: &Gpu, parcels: &[Parcel<'_>]) -> Result<(), RuntimeError> {
        let total: u64 = parcels.iter().map(|p| p.bytes.len() as u64).sum();
        if total == 0 {
            return Ok(());
        }
        let (buffer, mut mapping) = self.take(gpu, total.min(CHUNK))?;
        let size = buffer.size();
        let mut rest: Vec<Parcel<'_>> =
            parcels.iter().rev().map(|p| Parcel { buffer: p.buffer, offset: p.offset, bytes: p.bytes }).collect();
        while !rest.is_empty() {
            if let Some(Mapping { submission, outcome }) = mapping.take() {
                gpu.wait(Some(submission), ACTION)?;
                mapped(gpu, &outcome, ACTION)?;
            }
            let label = wgpu::CommandEncoderDescriptor { label: Some("inputs") };
            let mut encoder = gpu.device.create_command_encoder(&label);
            {
                let mut view = buffer.get_mapped_range_mut(..).map_err(|e| refused(ACTION, e))?;
                let mut used = 0;
                while let Some(parcel) = rest.pop() {
                    let room = (size - used).min(parcel.bytes.len() as u64);
                    let (now, later) = parcel.bytes.split_at(room as usize);
                    if !now.is_empty() {
                        view.slice(used as usize..(used + room) as usize).copy_from_slice(now);
                        encoder.copy_buffer_to_buffer(&buffer, used, parcel.buffer, parcel.offset, room);
                        used += room;
                    }
                    if !later.is_empty() {
                        rest.push(Parcel { buffer: parcel.buffer, offset: parcel.offset + room, bytes: later });
                        break;
                    }
                }
            }
            buffer.unmap();
            let submission = gpu.submit(Some(encoder.finish()), ACTION)?;
            let (sink, outcome) = mpsc::channel();
            buffer.map_async(wgpu::MapMode::Write, .., move |result| {
                // Nobody listens any more if the session is gone.
                let _ = sink.send(result);
            });
            mapping = Some(Mapping { submission, outcome });
        }
        self.buffer = Some((buffer, mapping));
        Ok(())
    }

    /// The kept buffer if it is large enough, else a new one, which is mapped.
    fn take(&mut self, gpu: &Gpu, bytes: u64) -> Result<(wgpu::Buffer, Option<Mapping>), RuntimeError> {
        match self.buffer.take() {
            Some(kept) if kept.0.size() >= bytes => Ok(kept),
            Some(_) | None => {
                let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
                let descriptor =
                    wgpu::BufferDescriptor { label: Some("inputs"), size: bytes, usage, mapped_at_creation: true };
                let buffer = gpu.scoped("allocating `inputs`", bytes, || gpu.device.create_buffer(&descriptor))?;
                Ok((buffer, None))
            }
        }
    }
}
