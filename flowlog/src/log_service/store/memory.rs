//! What is in memory of a logstore: the rows that are in no file yet, and the manifest that says what is.
use std::sync::Arc;

use arrow::{
    array::{AsArray as _, RecordBatch},
    compute::{concat_batches, max, min},
    datatypes::Int64Type,
    error::ArrowError,
};

use super::manifest::{DataFile, Manifest};
use super::schema::schema;

/// Most rows that small puts are joined to.
const JOINED_ROWS: usize = 2048;

/// Rows in their order of arrival.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// With the columns of [`schema`].
    pub(super) batch: RecordBatch,
    /// The write-ahead segment that has them.
    pub(super) generation: u64,
    /// Sequence number of the first.
    pub(super) first: u64,
    /// When the first of them arrived, in Unix seconds.
    pub(super) arrived: u32,
    min_time: i64,
    max_time: i64,
    octets: usize,
}

impl Rows {
    pub(super) fn new(batch: RecordBatch, generation: u64, first: u64, arrived: u32) -> Self {
        let time = batch.column(0).as_primitive_opt::<Int64Type>();
        Self {
            min_time: time.and_then(min).unwrap_or_default(),
            max_time: time.and_then(max).unwrap_or(i64::MAX),
            octets: batch.get_array_memory_size(),
            batch,
            generation,
            first,
            arrived,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Sequence number behind the last.
    pub(super) fn end(&self) -> u64 {
        self.first + self.len() as u64
    }

    fn join(&self, next: &Self) -> Result<Self, ArrowError> {
        let batch = concat_batches(&schema(), [&self.batch, &next.batch])?;
        Ok(Self::new(batch, self.generation, self.first, self.arrived))
    }
}

/// A logstore.
#[derive(Debug, Default)]
pub(super) struct Logstore {
    pub(super) manifest: Arc<Manifest>,
    /// Sequence number of the next log.
    pub(super) next: u64,
    /// In their order of arrival. Those of older generations come first.
    pub(super) rows: Vec<Rows>,
}

impl Logstore {
    pub(super) fn new(manifest: Manifest) -> Self {
        Self {
            next: manifest.flushed,
            manifest: Arc::new(manifest),
            rows: Vec::new(),
        }
    }

    /// Adds rows; gives by how many octets what is in memory has grown, perhaps below 0.
    ///
    /// A row in a batch of its own costs as much as a hundred in one, so neighbours that are small are joined, each time with one of
    /// about the same size: then a row is copied a few times only, however small the puts are.
    pub(super) fn push(&mut self, mut rows: Rows) -> i64 {
        let mut grown = signed(rows.octets);
        self.next = self.next.max(rows.end());
        while let Some(last) = self.rows.last()
            && last.generation == rows.generation
            && last.end() == rows.first
            && last.len() <= rows.len() * 2
            && last.len() + rows.len() <= JOINED_ROWS
            && let Ok(joined) = last.join(&rows)
        {
            grown += signed(joined.octets) - signed(last.octets) - signed(rows.octets);
            rows = joined;
            self.rows.pop();
        }
        self.rows.push(rows);
        grown
    }

    /// The rows of the generations below this one.
    pub(super) fn frozen(&self, generation: u64) -> &[Rows] {
        let count = self
            .rows
            .partition_point(|rows| rows.generation < generation);
        &self.rows[..count]
    }

    /// Takes over a manifest, and forgets the rows that its files have; gives how many octets they were.
    pub(super) fn take_over(&mut self, manifest: Manifest) -> i64 {
        let gone = self
            .rows
            .partition_point(|rows| rows.end() <= manifest.flushed);
        self.manifest = Arc::new(manifest);
        self.rows
            .drain(..gone)
            .map(|rows| signed(rows.octets))
            .sum()
    }

    /// What of memory and files may have logs with `from <= __time__ < to`.
    pub(super) fn within(&self, from: u32, to: u32) -> (Vec<RecordBatch>, Vec<Arc<DataFile>>) {
        let rows = self
            .rows
            .iter()
            .filter(|rows| rows.min_time < to.into() && rows.max_time >= from.into())
            .map(|rows| rows.batch.clone())
            .collect();
        let files = self
            .manifest
            .files
            .iter()
            .filter(|file| file.min_time < to && file.max_time >= from)
            .cloned()
            .collect();
        (rows, files)
    }
}

fn signed(octets: usize) -> i64 {
    i64::try_from(octets).unwrap_or(i64::MAX)
}
