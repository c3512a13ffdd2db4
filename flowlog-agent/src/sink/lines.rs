//! Records as lines, in chunks.
use std::io;

use flowlog_model::{field::Field, flow_log::FlowLog, format::Format, record::Record};

use super::{
    Written,
    delivery::{Batches, Delivery},
};

/// Octets that are gathered before they are written.
const CHUNK: usize = 64 * 1024;

/// Writes chunks of whole lines.
pub(super) type WriteLines<'w> = dyn FnMut(&[u8]) -> io::Result<()> + 'w;

/// Writes the window's records as lines.
pub(super) fn write(
    delivery: &dyn Delivery,
    flow_log: &FlowLog,
    format: &Format,
    write_lines: &mut WriteLines<'_>,
) -> io::Result<Written> {
    let mut lines = LineWriter {
        format,
        batches: format
            .fields()
            .any(|field| field == Field::BatchId)
            .then(|| Batches::new(flow_log, delivery.identity())),
        write_lines,
        buffer: Vec::with_capacity(CHUNK + 1024),
        written: Written::default(),
        result: Ok(()),
    };
    let rendered = delivery.render(flow_log, &mut |record| lines.write(record));
    lines.finish(rendered)
}

/// Renders records and writes them chunk by chunk; each chunk ends with a line.
struct LineWriter<'w> {
    format: &'w Format,
    /// If records are to name their batch.
    batches: Option<Batches>,
    write_lines: &'w mut WriteLines<'w>,
    buffer: Vec<u8>,
    written: Written,
    result: io::Result<()>,
}

impl LineWriter<'_> {
    /// Adds a record. After an error, the others are let go.
    fn write(&mut self, record: &Record<'_>) {
        if self.result.is_err() {
            return;
        }
        match &mut self.batches {
            None => self.format.write(record, &mut self.buffer),
            Some(batches) => {
                let batch_id = Some(batches.of_next());
                let record = Record {
                    batch_id,
                    ..*record
                };
                self.format.write(&record, &mut self.buffer);
            }
        }
        self.written.records += 1;
        if self.buffer.len() >= CHUNK {
            self.write_chunk();
        }
    }

    /// Writes what is left, if all was rendered.
    fn finish(mut self, rendered: io::Result<u64>) -> io::Result<Written> {
        if self.result.is_ok() && rendered.is_ok() && !self.buffer.is_empty() {
            self.write_chunk();
        }
        self.written.dropped_late = self.result.and(rendered)?;
        Ok(self.written)
    }

    fn write_chunk(&mut self) {
        self.result = (self.write_lines)(&self.buffer);
        self.written.bytes += self.buffer.len() as u64;
        self.buffer.clear();
    }
}
