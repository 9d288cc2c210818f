//! Rows of tables: those of the host, and those that the device computes a chunk at a time.

use crate::error::RuntimeError;
use crate::load::Session;
use selvedge_bundle::manifest::{PlanSchedule, PlanTabulate, Port, Region};

impl Session {
    /// Records what a step reads of tables: the copies of its rows to their ports and, before the first step of a chunk, the
    /// function that computes the chunk's rows. The host waits for nothing. `fresh`: nothing of the chunk is there yet, since
    /// the run begins or goes on with this step.
    pub(crate) fn encode_rows(
        &self,
        mut encoder: wgpu::CommandEncoder,
        schedule: &PlanSchedule,
        (step, fresh, steps): (usize, bool, usize),
        place: &str,
    ) -> Result<wgpu::CommandEncoder, RuntimeError> {
        let (steps, step) = (steps as u64, step as u64);
        for port in &schedule.tables {
            self.encode_given(&mut encoder, schedule, steps, &port.name, step..step + 1, &port.regions);
        }
        let Some(tabulate) = &schedule.tabulate else { return Ok(encoder) };
        let at = step % tabulate.chunk;
        if at == 0 || fresh {
            let rows = step - at..step - at + tabulate.chunk;
            for port in &tabulate.inputs {
                self.encode_given(&mut encoder, schedule, steps, &port.name, rows.clone(), &port.regions);
            }
            encoder = self.encode_function(encoder, self.function_index(&tabulate.function)?, place)?;
        }
        self.encode_computed(&mut encoder, tabulate, at);
        Ok(encoder)
    }

    /// Copies rows of a table of the host to the regions of a port; behind the last row it is repeated.
    fn encode_given(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        schedule: &PlanSchedule,
        steps: u64,
        name: &str,
        rows: std::ops::Range<u64>,
        to: &[Region],
    ) {
        let Some(tables) = &self.tables else { return };
        let bytes = |port: &Port| port.regions.iter().map(|r| r.bytes).sum::<u64>();
        let mut table = 0;
        for port in &schedule.tables {
            let row = bytes(port);
            if port.name == name {
                for (i, k) in rows.clone().enumerate() {
                    let mut source = table + k.min(steps - 1) * row;
                    for part in part(to, i as u64 * row, row) {
                        let buffer = &self.buffers[part.buffer as usize];
                        encoder.copy_buffer_to_buffer(tables, source, buffer, part.offset, part.bytes);
                        source += part.bytes;
                    }
                }
            }
            table += steps * row;
        }
    }

    /// Copies row `at` of each computed table to its port.
    fn encode_computed(&self, encoder: &mut wgpu::CommandEncoder, tabulate: &PlanTabulate, at: u64) {
        for (rows, port) in tabulate.rows.iter().zip(&tabulate.ports) {
            let row: u64 = port.regions.iter().map(|r| r.bytes).sum();
            let mut done = 0;
            for to in &port.regions {
                let mut offset = to.offset;
                for from in part(&rows.regions, at * row + done, to.bytes) {
                    let to = Region { buffer: to.buffer, offset, bytes: from.bytes };
                    self.encode_copy(encoder, &from, &to);
                    offset += from.bytes;
                }
                done += to.bytes;
            }
        }
    }
}

/// Where bytes `start` to `start + bytes` of a tensor lie, whose parts are these regions in order.
fn part(regions: &[Region], start: u64, bytes: u64) -> Vec<Region> {
    let (mut parts, mut before) = (Vec::new(), 0);
    for region in regions {
        let low = start.max(before);
        let high = (start + bytes).min(before + region.bytes);
        if low < high {
            parts.push(Region { buffer: region.buffer, offset: region.offset + low - before, bytes: high - low });
        }
        before += region.bytes;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::part;
    use selvedge_bundle::manifest::Region;

    #[test]
    fn a_part_may_lie_in_several_regions() {
        let region = |buffer, offset, bytes| Region { buffer, offset, bytes };
        let regions = [region(0, 256, 12), region(1, 0, 12)];
        assert_eq!(part(&regions, 0, 8), [region(0, 256, 8)]);
        assert_eq!(part(&regions, 8, 8), [region(0, 264, 4), region(1, 0, 4)]);
        assert_eq!(part(&regions, 12, 12), [region(1, 0, 12)]);
    }
}
