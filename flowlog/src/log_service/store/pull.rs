//! Reading in order of arrival.
use std::{ops::Range, pin::Pin, sync::Arc};

use arrow::{
    array::{AsArray as _, RecordBatch, UInt32Array},
    compute::{concat_batches, take_record_batch},
    datatypes::Int64Type,
};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path as ObjectPath};
use parquet::arrow::{
    ParquetRecordBatchStreamBuilder, ProjectionMask,
    arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection},
    async_reader::AsyncFileReader,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use super::{
    StoreError,
    manifest::DataFile,
    schema::{SEQUENCE, schema},
    shared::Shared,
};
use crate::log_service::types::LogstoreKey;

/// A file of at most so many octets is read as a whole, which is quicker than its parts one by one.
const SMALL_OCTETS: u64 = 1 << 20;
/// Rows that are decoded at a time, of the sequence numbers of a file.
const CHUNK_ROWS: usize = 8192;

/// The rows with the least sequence numbers from `from` on, in their order: those of the first range of `count` numbers that has any. So
/// there are at most `count`, and fewer where logs of the range are gone.
pub(super) async fn pull(
    shared: &Arc<Shared>,
    key: &LogstoreKey,
    from: u64,
    count: u64,
) -> Result<(RecordBatch, u64), StoreError> {
    let (rows, files) = match shared.state().logstores.get(key) {
        Some(logstore) => (logstore.rows.clone(), logstore.manifest.files.clone()),
        None => return Ok((RecordBatch::new_empty(schema()), from)),
    };
    let mut start = from;
    loop {
        // Where the next range begins: holes are what retention has removed.
        let first_of_files = files
            .iter()
            .filter(|file| file.max_sequence >= start)
            .map(|file| file.min_sequence.max(start));
        let first_of_rows = rows
            .iter()
            .filter(|rows| rows.end() > start)
            .map(|rows| rows.first.max(start));
        let Some(first) = first_of_files.chain(first_of_rows).min() else {
            return Ok((RecordBatch::new_empty(schema()), start));
        };
        let range = first..first.saturating_add(count);
        let mut found = Found::default();
        for file in &files {
            if file.min_sequence >= range.end {
                found.is_behind(file.min_sequence);
            } else if file.max_sequence >= range.start {
                read(shared, file, &range, &mut found).await?;
            }
        }
        for rows in &rows {
            if rows.first >= range.end {
                found.is_behind(rows.first);
            } else if rows.end() > range.start {
                let skipped = range.start.saturating_sub(rows.first);
                let taken = rows.end().min(range.end) - rows.first - skipped;
                let part = rows.batch.slice(index(skipped), index(taken));
                found.batches.push(part);
                if rows.end() > range.end {
                    found.is_behind(range.end);
                }
            }
        }
        let all = concat_batches(&schema(), &found.batches)?;
        if all.num_rows() > 0 {
            return in_order(&all);
        }
        // A hole in the middle of a file may be as long as a day: it is not gone through range by range.
        match found.behind {
            Some(behind) => start = behind,
            None => return Ok((RecordBatch::new_empty(schema()), start)),
        }
    }
}

/// What there is of a range.
#[derive(Default)]
struct Found {
    /// In any order.
    batches: Vec<RecordBatch>,
    /// The least sequence number behind the range.
    behind: Option<u64>,
}

impl Found {
    fn is_behind(&mut self, sequence: u64) {
        self.behind = Some(self.behind.map_or(sequence, |least| least.min(sequence)));
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Adds the rows of a file whose sequence numbers are in the range, in the file's order. Of the file, all sequence numbers are read, which
/// take next to nothing, and the pages with those rows.
async fn read(
    shared: &Shared,
    file: &DataFile,
    range: &Range<u64>,
    found: &mut Found,
) -> Result<(), StoreError> {
    let whole = if file.octets <= SMALL_OCTETS {
        Some(shared.files.read(file).await?)
    } else {
        None
    };
    let reader = || Parts {
        objects: Arc::clone(&shared.files.objects),
        path: file.path.clone(),
        octets: file.octets,
        whole: whole.clone(),
    };
    let metadata =
        ArrowReaderMetadata::load_async(&mut reader(), ArrowReaderOptions::new()).await?;
    let open = || ParquetRecordBatchStreamBuilder::new_with_metadata(reader(), metadata.clone());
    let builder = open().with_batch_size(CHUNK_ROWS);
    let mask = ProjectionMask::columns(builder.parquet_schema(), [SEQUENCE]);
    let mut numbers = builder.with_projection(mask).build()?;
    let mut selected: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while let Some(batch) = numbers.try_next().await? {
        for &sequence in sequences(&batch)?.values() {
            let sequence = u64::try_from(sequence).unwrap_or_default();
            if range.contains(&sequence) {
                match selected.last_mut() {
                    Some(last) if last.end == at => last.end += 1,
                    _ => selected.push(at..at + 1),
                }
            } else if sequence >= range.end {
                found.is_behind(sequence);
            }
            at += 1;
        }
    }
    if selected.is_empty() {
        return Ok(());
    }
    let selection = RowSelection::from_consecutive_ranges(selected.into_iter(), at);
    let rows = open().with_row_selection(selection).build()?;
    found.batches.extend(rows.try_collect::<Vec<_>>().await?);
    Ok(())
}

/// A file of which parts are read.
struct Parts {
    objects: Arc<dyn ObjectStore>,
    path: ObjectPath,
    octets: u64,
    /// All of it, if it is small.
    whole: Option<Bytes>,
}

/// What the reader of Parquet waits for.
type Reading<'a, T> = Pin<Box<dyn Future<Output = Result<T, ParquetError>> + Send + 'a>>;

impl AsyncFileReader for Parts {
    fn get_bytes(&mut self, range: Range<u64>) -> Reading<'_, Bytes> {
        Box::pin(async move {
            if let Some(whole) = &self.whole {
                let (start, end) = (index(range.start), index(range.end));
                let outside = || ParquetError::EOF(format!("{} is too short", self.path));
                let is_inside = start <= end && end <= whole.len();
                return is_inside
                    .then(|| whole.slice(start..end))
                    .ok_or_else(outside);
            }
            let read = self.objects.get_range(&self.path, range).await;
            read.map_err(|error| ParquetError::External(Box::new(error)))
        })
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> Reading<'a, Arc<ParquetMetaData>> {
        Box::pin(async move {
            let octets = self.octets;
            let reader =
                ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
            Ok(Arc::new(reader.load_and_finish(self, octets).await?))
        })
    }
}

fn sequences(batch: &RecordBatch) -> Result<&arrow::array::Int64Array, arrow::error::ArrowError> {
    batch
        .column_by_name(SEQUENCE)
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| {
            arrow::error::ArrowError::SchemaError(format!("there is no column {SEQUENCE}"))
        })
}

/// The rows in their order of arrival, and the number behind the last.
fn in_order(rows: &RecordBatch) -> Result<(RecordBatch, u64), StoreError> {
    let sequences = sequences(rows)?.values();
    let mut order: Vec<u32> = (0..).take(rows.num_rows()).collect();
    order.sort_unstable_by_key(|&row| sequences[row as usize]);
    let end = order.last().map_or(0, |&row| sequences[row as usize] + 1);
    let sorted = take_record_batch(rows, &UInt32Array::from(order))?;
    Ok((sorted, u64::try_from(end).unwrap_or_default()))
}
