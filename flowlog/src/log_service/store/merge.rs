//! Making files of rows in memory, and larger files of small ones.
use std::{cmp::Ordering, cmp::Reverse, collections::BinaryHeap};

use arrow::{array::RecordBatch, compute::interleave_record_batch};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::{
    StoreError,
    files::{Encoded, Encoder},
    order::{self, Keys},
};

/// Rows that are gathered before they are encoded, at most.
const CHUNK_ROWS: usize = 8192;
/// Octets of rows that are gathered before they are encoded, about: a log may have a megabyte.
const CHUNK_OCTETS: u64 = 8 << 20;

/// How many rows of so many octets are gathered.
pub(super) fn chunk_rows(row_octets: u64) -> usize {
    let rows = CHUNK_OCTETS / row_octets.max(1);
    usize::try_from(rows)
        .unwrap_or(usize::MAX)
        .clamp(1, CHUNK_ROWS)
}

/// Makes a file for each hour of rows in memory, which are in their order of arrival.
pub(super) fn encode(batches: &[RecordBatch]) -> Result<Vec<Encoded>, StoreError> {
    let sorted = order::sort(batches)?;
    let batches: Vec<&RecordBatch> = batches.iter().collect();
    let mut files = Vec::with_capacity(sorted.hours.len());
    for (hour, range) in sorted.hours {
        let mut encoder = Encoder::new(hour, range.len())?;
        for rows in sorted.rows[range].chunks(CHUNK_ROWS) {
            encoder.write(&interleave_record_batch(&batches, rows)?)?;
        }
        files.push(encoder.finish()?);
    }
    Ok(files)
}

/// A file that is being read.
struct Input {
    reader: ParquetRecordBatchReader,
    batch: RecordBatch,
    keys: Keys,
    row: usize,
}

impl Input {
    /// None if the file has no rows.
    fn open(
        reader: ParquetRecordBatchReaderBuilder<Bytes>,
        chunk_rows: usize,
    ) -> Result<Option<Self>, StoreError> {
        let mut reader = reader.with_batch_size(chunk_rows).build()?;
        let Some(batch) = reader.next().transpose()? else {
            return Ok(None);
        };
        Ok(Some(Self {
            reader,
            keys: Keys::of(&batch)?,
            batch,
            row: 0,
        }))
    }

    /// Goes on to the next batch; false if there is none.
    fn advance(&mut self) -> Result<bool, StoreError> {
        let Some(batch) = self.reader.next().transpose()? else {
            return Ok(false);
        };
        self.keys = Keys::of(&batch)?;
        self.batch = batch;
        self.row = 0;
        Ok(true)
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.keys.compare(self.row, &other.keys, other.row)
    }
}

/// An input whose place in the heap is that of its next row.
struct Head(Input);

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.compare(&other.0)
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// Makes one file of several of the same hour, which are each in order. In memory are the files as they are on the disk, and `chunk_rows` rows
/// of each.
pub(super) fn merge(
    hour: u32,
    files: Vec<Bytes>,
    chunk_rows: usize,
) -> Result<Encoded, StoreError> {
    let mut heads = BinaryHeap::new();
    let mut rows = 0;
    for octets in files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(octets)?;
        rows += usize::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or_default();
        heads.extend(Input::open(reader, chunk_rows)?.map(|input| Reverse(Head(input))));
    }
    let mut encoder = Encoder::new(hour, rows)?;
    // Runs of rows that are waiting to be written: slices of their batches.
    let mut runs: Vec<RecordBatch> = Vec::new();
    let mut waiting = 0;
    while let Some(Reverse(Head(mut input))) = heads.pop() {
        let start = input.row;
        let next = heads.peek().map(|Reverse(Head(next))| next);
        while input.row < input.keys.len()
            && next.is_none_or(|next| input.compare(next) == Ordering::Less)
        {
            input.row += 1;
        }
        // Of equal rows, which there are none of, one must go on.
        input.row = input.row.max(start + 1);
        runs.push(input.batch.slice(start, input.row - start));
        waiting += input.row - start;
        if waiting >= chunk_rows {
            write_runs(&mut encoder, &mut runs)?;
            waiting = 0;
        }
        if input.row < input.keys.len() || input.advance()? {
            heads.push(Reverse(Head(input)));
        }
    }
    write_runs(&mut encoder, &mut runs)?;
    Ok(encoder.finish()?)
}

fn write_runs(encoder: &mut Encoder, runs: &mut Vec<RecordBatch>) -> Result<(), StoreError> {
    if let Some(first) = runs.first() {
        let rows = arrow::compute::concat_batches(&first.schema(), runs.iter())?;
        encoder.write(&rows)?;
    }
    runs.clear();
    Ok(())
}
