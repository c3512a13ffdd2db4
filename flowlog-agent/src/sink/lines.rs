//! Records as lines, in chunks.
use std::io;

use flowlog_model::{format::Format, record::Record};

use super::SinkWriter;

/// Octets that are gathered before they are written.
const CHUNK: usize = 64 * 1024;

/// Renders records and writes them chunk by chunk; each chunk ends with a line.
pub(super) struct LineWriter<'w> {
    format: &'w Format,
    writer: &'w mut SinkWriter,
    buffer: Vec<u8>,
    records: u64,
    result: io::Result<()>,
}

impl<'w> LineWriter<'w> {
    pub(super) fn new(format: &'w Format, writer: &'w mut SinkWriter) -> Self {
        Self {
            format,
            writer,
            buffer: Vec::with_capacity(CHUNK + 1024),
            records: 0,
            result: Ok(()),
        }
    }

    /// Adds a record. After an error, the others are let go.
    pub(super) fn write(&mut self, record: &Record<'_>) {
        if self.result.is_err() {
            return;
        }
        self.format.write(record, &mut self.buffer);
        self.records += 1;
        if self.buffer.len() >= CHUNK {
            self.write_chunk();
        }
    }

    /// Writes what is left; gives the number of records.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        if self.result.is_ok() {
            self.write_chunk();
        }
        self.result?;
        self.writer.flush()?;
        Ok(self.records)
    }

    fn write_chunk(&mut self) {
        self.result = self.writer.write_lines(&self.buffer);
        self.buffer.clear();
    }
}
