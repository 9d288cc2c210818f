//! Moving bytes: uploads, copies between regions, and reading back through staging buffers that are kept.

use crate::device::Gpu;
use crate::error::RuntimeError;
use crate::load::Session;
use selvedge_bundle::manifest::{Copy, Region};
use std::sync::mpsc;
use std::time::Duration;

/// Most bytes moved at once; also the largest staging buffer of a plain readback.
pub(crate) const CHUNK: u64 = 16 << 20;

/// Longest wait for a mapping's callback once the device is idle.
const CALLBACK: Duration = Duration::from_secs(10);

/// Uploaded bytes after which the queue is drained, since every upload holds host memory until it is done.
const PENDING: u64 = 64 << 20;

/// Writes to buffers through the queue, without letting its staging memory grow.
pub(crate) struct Upload<'g> {
    gpu: &'g Gpu,
    pending: u64,
}

impl<'g> Upload<'g> {
    pub fn new(gpu: &'g Gpu) -> Upload<'g> {
        Upload { gpu, pending: 0 }
    }

    /// Writes `bytes` at an offset that is a multiple of 4; the tail is padded with zeros to whole words.
    /// `progress` gets the number of bytes of each piece.
    pub fn write(
        &mut self,
        buffer: &wgpu::Buffer,
        offset: u64,
        bytes: &[u8],
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), RuntimeError> {
        let mut offset = offset;
        for piece in bytes.chunks(CHUNK as usize) {
            let whole = piece.len() / 4 * 4;
            if whole > 0 {
                self.gpu.write(buffer, offset, &piece[..whole]);
            }
            if whole < piece.len() {
                let mut word = [0u8; 4];
                word[..piece.len() - whole].copy_from_slice(&piece[whole..]);
                self.gpu.write(buffer, offset + whole as u64, &word);
            }
            offset += piece.len() as u64;
            self.pending += piece.len() as u64;
            progress(piece.len() as u64);
            if self.pending >= PENDING {
                self.flush()?;
            }
        }
        self.gpu.check("uploading")
    }

    /// Waits until everything has arrived.
    pub fn flush(&mut self) -> Result<(), RuntimeError> {
        self.pending = 0;
        let submission = self.gpu.submit(None, "uploading")?;
        self.gpu.wait(Some(submission), "uploading")
    }
}

/// What a mapping that was asked for will say.
pub(crate) type Outcome = mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>;

/// Waits for a mapping behind a submission that was waited for.
pub(crate) fn mapped(gpu: &Gpu, outcome: &Outcome, action: &str) -> Result<(), RuntimeError> {
    // The submission is done, so the callback has run or is running: in another thread's poll, perhaps.
    match outcome.recv_timeout(CALLBACK) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            gpu.check(action)?;
            Err(refused(action, error))
        }
        Err(_) => Err(refused(action, "the buffer is not mapped though its submission is done")),
    }
}

/// A mapping that wgpu refuses.
pub(crate) fn refused(action: &str, problem: impl ToString) -> RuntimeError {
    RuntimeError::Validation { place: action.to_string(), message: problem.to_string() }
}

/// A staging buffer on its way to the host.
pub(crate) struct Reading {
    buffer: wgpu::Buffer,
    bytes: u64,
    outcome: Outcome,
}

/// Buffers that the host can map, kept for the next time.
#[derive(Default)]
pub(crate) struct Staging {
    free: Vec<wgpu::Buffer>,
    /// Bytes of all buffers made, in use or not.
    pub bytes: u64,
}

impl Staging {
    /// A buffer of at least that size.
    pub fn take(&mut self, gpu: &Gpu, bytes: u64) -> Result<wgpu::Buffer, RuntimeError> {
        let fit = |(_, b): &(usize, &wgpu::Buffer)| b.size() >= bytes;
        let best = self.free.iter().enumerate().filter(fit).min_by_key(|(_, b)| b.size()).map(|(i, _)| i);
        if let Some(i) = best {
            return Ok(self.free.swap_remove(i));
        }
        let buffer = new_buffer(gpu, "readback", bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
        self.bytes += bytes;
        Ok(buffer)
    }

    /// Asks for the first `bytes` of a buffer, once what was submitted before is done.
    pub fn map(&self, buffer: wgpu::Buffer, bytes: u64) -> Reading {
        let (sink, outcome) = mpsc::channel();
        buffer.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
            // Nobody listens any more if the reading was given up.
            let _ = sink.send(result);
        });
        Reading { buffer, bytes, outcome }
    }

    /// The words, after the submission before `map` was waited for. The buffer is free again.
    pub fn finish(&mut self, gpu: &Gpu, reading: Reading) -> Result<Vec<u32>, RuntimeError> {
        let mut words = Vec::new();
        self.append(gpu, reading, &mut words)?;
        Ok(words)
    }

    /// As [`Staging::finish`], behind the words that are there.
    fn append(&mut self, gpu: &Gpu, reading: Reading, words: &mut Vec<u32>) -> Result<(), RuntimeError> {
        let Reading { buffer, bytes, outcome } = reading;
        mapped(gpu, &outcome, "reading back")?;
        {
            let view = buffer.get_mapped_range(..bytes).map_err(|e| refused("reading back", e))?;
            match bytemuck::try_cast_slice::<u8, u32>(&view) {
                Ok(all) => words.extend_from_slice(all),
                Err(_) => words.extend(bytemuck::allocation::pod_collect_to_vec::<u8, u32>(&view)),
            }
        }
        buffer.unmap();
        self.free.push(buffer);
        Ok(())
    }
}

/// Creates a buffer; out of memory is an error.
pub(crate) fn new_buffer(
    gpu: &Gpu,
    label: &str,
    bytes: u64,
    usage: wgpu::BufferUsages,
) -> Result<wgpu::Buffer, RuntimeError> {
    if bytes > gpu.facts().max_buffer_bytes {
        let message = format!("{bytes} bytes where the device allows {}", gpu.facts().max_buffer_bytes);
        return Err(RuntimeError::Validation { place: format!("buffer `{label}`"), message });
    }
    gpu.scoped(&format!("allocating `{label}`"), bytes, || {
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size: bytes, usage, mapped_at_creation: false };
        gpu.device.create_buffer(&descriptor)
    })
}

impl Session {
    /// Records copies of which none reads what another writes.
    pub(crate) fn encode_all(&self, encoder: &mut wgpu::CommandEncoder, copies: &[Copy]) {
        let within = |copy: &&Copy| copy.source.buffer == copy.destination.buffer;
        for copy in copies.iter().filter(|copy| !within(copy)) {
            self.encode_copy(encoder, &copy.source, &copy.destination);
        }
        let Some(bounce) = &self.bounce else { return };
        // As many as the detour's buffer holds go there together, so that they wait for each other twice and not each time.
        let (mut held, mut used) = (Vec::new(), 0);
        for Copy { source, destination } in copies.iter().filter(within) {
            let mut done = 0;
            while done < source.bytes {
                if used == bounce.size() {
                    self.encode_back(encoder, bounce, &mut held);
                    used = 0;
                }
                let bytes = (source.bytes - done).min(bounce.size() - used);
                let from = &self.buffers[source.buffer as usize];
                encoder.copy_buffer_to_buffer(from, source.offset + done, bounce, used, bytes);
                held.push((used, Region { offset: destination.offset + done, bytes, ..*destination }));
                done += bytes;
                used += bytes;
            }
        }
        self.encode_back(encoder, bounce, &mut held);
    }

    /// Records copies from places in the detour's buffer to where they go.
    fn encode_back(&self, encoder: &mut wgpu::CommandEncoder, bounce: &wgpu::Buffer, held: &mut Vec<(u64, Region)>) {
        for (place, to) in held.drain(..) {
            encoder.copy_buffer_to_buffer(bounce, place, &self.buffers[to.buffer as usize], to.offset, to.bytes);
        }
    }

    /// Records a copy between regions of equal size that do not overlap.
    pub(crate) fn encode_copy(&self, encoder: &mut wgpu::CommandEncoder, source: &Region, destination: &Region) {
        let (from, to) = (&self.buffers[source.buffer as usize], &self.buffers[destination.buffer as usize]);
        match &self.bounce {
            // WebGPU refuses copies within one buffer: they take a detour.
            Some(bounce) if source.buffer == destination.buffer => {
                let mut done = 0;
                while done < source.bytes {
                    let piece = bounce.size().min(source.bytes - done);
                    encoder.copy_buffer_to_buffer(from, source.offset + done, bounce, 0, piece);
                    encoder.copy_buffer_to_buffer(bounce, 0, to, destination.offset + done, piece);
                    done += piece;
                }
            }
            Some(_) | None => {
                encoder.copy_buffer_to_buffer(from, source.offset, to, destination.offset, source.bytes);
            }
        }
    }

    /// Bytes that the detour needs: the largest copy within one buffer, or those of a move together, up to a limit.
    pub(crate) fn bounce_bytes(plan: &selvedge_bundle::manifest::Plan) -> Option<u64> {
        let within = |c: &&Copy| c.source.buffer == c.destination.buffer;
        let copies = plan.functions.iter().flat_map(|f| &f.copies).filter(within).map(|c| c.source.bytes);
        let moves = plan.functions.iter().flat_map(|f| &f.moves);
        let moved = moves.map(|m| m.copies.iter().filter(within).map(|c| c.source.bytes).sum());
        copies.chain(moved).map(|bytes: u64| bytes.min(CHUNK)).max().filter(|bytes| *bytes > 0)
    }

    /// Records copies of regions to a staging buffer, one after the other.
    pub(crate) fn encode_readback<'r>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        regions: impl IntoIterator<Item = &'r Region>,
        staging: &wgpu::Buffer,
    ) {
        let mut place = 0;
        for region in regions {
            let from = &self.buffers[region.buffer as usize];
            encoder.copy_buffer_to_buffer(from, region.offset, staging, place, region.bytes);
            place += region.bytes;
        }
    }

    /// The words of some regions, one after the other; waits for everything submitted.
    pub(crate) fn read(&mut self, regions: &[Region]) -> Result<Vec<u32>, RuntimeError> {
        let mut pieces = Vec::new();
        for region in regions {
            let mut done = 0;
            while done < region.bytes {
                let bytes = CHUNK.min(region.bytes - done);
                pieces.push(Region { buffer: region.buffer, offset: region.offset + done, bytes });
                done += bytes;
            }
        }
        let mut words = Vec::with_capacity(regions.iter().map(|r| r.bytes as usize / 4).sum());
        let mut rest = &pieces[..];
        while !rest.is_empty() {
            let mut total = 0;
            let fits = |piece: &&Region| {
                total += piece.bytes;
                total <= CHUNK
            };
            let count = rest.iter().take_while(fits).count();
            let (batch, after) = rest.split_at(count);
            rest = after;
            let bytes = batch.iter().map(|r| r.bytes).sum();
            let staging = self.staging.take(&self.gpu, bytes)?;
            let mut encoder = self.encoder("readback");
            self.encode_readback(&mut encoder, batch, &staging);
            let submission = self.gpu.submit(Some(encoder.finish()), "reading back")?;
            let reading = self.staging.map(staging, bytes);
            self.gpu.wait(Some(submission), "reading back")?;
            self.staging.append(&self.gpu, reading, &mut words)?;
        }
        Ok(words)
    }

    pub(crate) fn encoder(&self, label: &str) -> wgpu::CommandEncoder {
        self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(label) })
    }
}
