//! The order of rows in a file: by ten minutes of `__time__`, then `eni_id`, `__time__` and `__seq__`.
//!
//! So a range of time and an ENI both are a few pages of a file: within ten minutes, the rows of an ENI are together. Rows of one ENI and
//! one time, such as a window's, stay in their order of arrival, which is that of the flows' keys: neighbours are alike, and
//! `__seq__` costs next to nothing.
use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use arrow::{
    array::{Array as _, AsArray as _, Int64Array, RecordBatch, StringArray},
    datatypes::Int64Type,
    error::ArrowError,
};
use flowlog_model::field::Field;

use super::schema::{SEQUENCE, TIME, column_name};

/// What the first part of the order counts in, in seconds; a divisor of an hour.
const BUCKET_SECONDS: i64 = 600;
const HOUR_SECONDS: i64 = 3600;

/// The columns that say where a row belongs.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    time: Int64Array,
    eni: StringArray,
    sequence: Int64Array,
}

impl Keys {
    pub(super) fn of(batch: &RecordBatch) -> Result<Self, ArrowError> {
        let missing =
            |name: &str| ArrowError::SchemaError(format!("there is no column {name} of its type"));
        let numbers = |name: &str| {
            batch
                .column_by_name(name)
                .and_then(|column| column.as_primitive_opt::<Int64Type>())
                .cloned()
                .ok_or_else(|| missing(name))
        };
        let eni = column_name(Field::EniId);
        Ok(Self {
            time: numbers(TIME)?,
            eni: batch
                .column_by_name(&eni)
                .and_then(|column| column.as_string_opt::<i32>())
                .cloned()
                .ok_or_else(|| missing(&eni))?,
            sequence: numbers(SEQUENCE)?,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.time.len()
    }

    pub(super) fn time(&self, row: usize) -> i64 {
        self.time.value(row)
    }

    pub(super) fn sequence(&self, row: usize) -> i64 {
        self.sequence.value(row)
    }

    fn eni(&self, row: usize) -> Option<&str> {
        self.eni.is_valid(row).then(|| self.eni.value(row))
    }

    fn bucket(&self, row: usize) -> i64 {
        self.time(row) / BUCKET_SECONDS
    }

    /// Whether a row comes before or after a row of another batch.
    pub(super) fn compare(&self, row: usize, other: &Self, other_row: usize) -> Ordering {
        self.bucket(row)
            .cmp(&other.bucket(other_row))
            .then_with(|| self.eni(row).cmp(&other.eni(other_row)))
            .then_with(|| self.time(row).cmp(&other.time(other_row)))
            .then_with(|| self.sequence(row).cmp(&other.sequence(other_row)))
    }
}

/// Rows in the order of files: batch and row of each.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sorted {
    pub(super) rows: Vec<(usize, usize)>,
    /// The hours, counted from 1970, and where in `rows` each is.
    pub(super) hours: Vec<(u32, Range<usize>)>,
}

/// Sorts the rows of batches that are in their order of arrival.
pub(super) fn sort(batches: &[RecordBatch]) -> Result<Sorted, ArrowError> {
    let keys = batches
        .iter()
        .map(Keys::of)
        .collect::<Result<Vec<_>, _>>()?;
    let mut enis = BTreeSet::new();
    for keys in &keys {
        let mut last = None;
        for row in 0..keys.len() {
            let eni = keys.eni(row);
            if last != Some(eni) {
                enis.insert(eni);
                last = Some(eni);
            }
        }
    }
    let ranks: HashMap<Option<&str>, u32> = enis.into_iter().zip(0..).collect();
    let mut order = Vec::with_capacity(keys.iter().map(Keys::len).sum());
    for (batch, keys) in keys.iter().enumerate() {
        let mut last = None;
        for row in 0..keys.len() {
            let eni = keys.eni(row);
            let rank = match last {
                Some((known, rank)) if known == eni => rank,
                _ => ranks.get(&eni).copied().unwrap_or_default(),
            };
            last = Some((eni, rank));
            // Batch and row stand for the order of arrival.
            order.push((keys.bucket(row), rank, keys.time(row), batch, row));
        }
    }
    order.sort_unstable();
    let mut hours: Vec<(u32, Range<usize>)> = Vec::new();
    for (at, &(bucket, ..)) in order.iter().enumerate() {
        let hour = u32::try_from(bucket / (HOUR_SECONDS / BUCKET_SECONDS)).unwrap_or_default();
        match hours.last_mut() {
            Some((last, range)) if *last == hour => range.end = at + 1,
            _ => hours.push((hour, at..at + 1)),
        }
    }
    Ok(Sorted {
        rows: order
            .into_iter()
            .map(|(_, _, _, batch, row)| (batch, row))
            .collect(),
        hours,
    })
}
