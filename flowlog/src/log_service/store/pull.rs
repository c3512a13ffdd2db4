//! Reading in order of arrival.
use std::{ops::Range, sync::Arc};

use arrow::{
    array::{AsArray as _, RecordBatch, UInt32Array},
    compute::{concat_batches, take_record_batch},
    datatypes::Int64Type,
};
use bytes::Bytes;
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection},
};
use parquet::file::metadata::PageIndexPolicy;

use super::{
    StoreError,
    maintenance::blocking,
    manifest::DataFile,
    schema::{SEQUENCE, schema},
    shared::Shared,
};
use crate::log_service::types::LogstoreKey;

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
            .map(|file| file.min_sequence.max(start))
            .min();
        let first_of_rows = rows
            .iter()
            .find(|rows| rows.end() > start)
            .map(|rows| rows.first.max(start));
        let Some(first) = first_of_files.into_iter().chain(first_of_rows).min() else {
            return Ok((RecordBatch::new_empty(schema()), start));
        };
        let range = first..first.saturating_add(count);
        let mut batches = Vec::new();
        for file in files
            .iter()
            .filter(|file| file.min_sequence < range.end && file.max_sequence >= range.start)
        {
            batches.extend(read(shared, file, &range).await?);
        }
        for rows in rows
            .iter()
            .filter(|rows| rows.first < range.end && rows.end() > range.start)
        {
            let skipped = range.start.saturating_sub(rows.first);
            let taken = rows.end().min(range.end) - rows.first - skipped;
            batches.push(rows.batch.slice(index(skipped), index(taken)));
        }
        let found = concat_batches(&schema(), &batches)?;
        if found.num_rows() > 0 {
            let (sorted, end) = in_order(&found)?;
            return Ok((sorted, end));
        }
        start = range.end;
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The rows of a file whose sequence numbers are in the range, in the file's order.
async fn read(
    shared: &Shared,
    file: &DataFile,
    range: &Range<u64>,
) -> Result<Vec<RecordBatch>, StoreError> {
    let octets = shared.files.read(file).await?;
    let range = range.clone();
    blocking(move || read_rows(&octets, &range)).await
}

fn read_rows(octets: &Bytes, range: &Range<u64>) -> Result<Vec<RecordBatch>, StoreError> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let open =
        || ParquetRecordBatchReaderBuilder::try_new_with_options(octets.clone(), options.clone());
    let builder = open()?;
    let rows =
        index(u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default());
    let mask = ProjectionMask::columns(builder.parquet_schema(), [SEQUENCE]);
    let mut selected: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        for &sequence in sequences(&batch)?.values() {
            if u64::try_from(sequence).is_ok_and(|sequence| range.contains(&sequence)) {
                match selected.last_mut() {
                    Some(last) if last.end == at => last.end += 1,
                    _ => selected.push(at..at + 1),
                }
            }
            at += 1;
        }
    }
    let selection = RowSelection::from_consecutive_ranges(selected.into_iter(), rows);
    let reader = open()?.with_row_selection(selection).build()?;
    Ok(reader.collect::<Result<_, _>>()?)
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
