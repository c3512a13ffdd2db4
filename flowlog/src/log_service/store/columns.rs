//! From logs to columns and back.
use std::{borrow::Cow, collections::HashMap, sync::Arc, sync::LazyLock};

use arrow::{
    array::{
        Array, ArrayRef, AsArray as _, Int32Builder, Int64Array, Int64Builder, MapBuilder,
        MapFieldNames, RecordBatch, StringBuilder,
    },
    datatypes::{Int32Type, Int64Type},
    error::ArrowError,
};
use flowlog_model::field::Field;

use super::schema::{
    FIRST_FIELD, Kind, OTHER, SOURCE, TAG_PREFIX, TIME, TIME_NS, TOPIC, contents_schema, entry,
    kind, schema,
};
use crate::log_service::types::{Log, LogBatch};

/// What a record writes for a field that does not apply.
const ABSENT: &str = "-";

static FIELDS: LazyLock<HashMap<&'static str, usize>> = LazyLock::new(|| {
    let fields = Field::ALL.iter().enumerate();
    fields
        .map(|(index, field)| (field.as_str(), index))
        .collect()
});

/// The column of a record's field as it grows.
enum FieldBuilder {
    Text(StringBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
}

impl FieldBuilder {
    fn new(field: Field, rows: usize) -> Self {
        match kind(field) {
            Kind::Text => Self::Text(StringBuilder::with_capacity(rows, rows * 8)),
            Kind::Int32 => Self::Int32(Int32Builder::with_capacity(rows)),
            Kind::Int64 => Self::Int64(Int64Builder::with_capacity(rows)),
        }
    }

    /// Appends the value; gives it back, and appends null, if the column cannot have it.
    fn append<'a>(&mut self, value: Option<&'a str>) -> Option<&'a str> {
        let value = value.filter(|&value| value != ABSENT);
        match self {
            Self::Text(column) => {
                column.append_option(value);
                None
            }
            Self::Int32(column) => {
                let number = value
                    .and_then(canonical)
                    .and_then(|n| i32::try_from(n).ok());
                column.append_option(number);
                value.filter(|_| number.is_none())
            }
            Self::Int64(column) => {
                let number = value.and_then(canonical);
                column.append_option(number);
                value.filter(|_| number.is_none())
            }
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => Arc::new(column.finish()),
            Self::Int32(column) => Arc::new(column.finish()),
            Self::Int64(column) => Arc::new(column.finish()),
        }
    }
}

/// The number that is written this way and no other: `7`, `-7`, but neither `+7` nor `07`.
fn canonical(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let one_way = match digits.as_bytes() {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    if one_way { text.parse().ok() } else { None }
}

/// Logs as columns, in their order, without [`super::schema::SEQUENCE`].
pub(super) struct Columns {
    time: Int64Builder,
    time_ns: Int32Builder,
    topic: StringBuilder,
    source: StringBuilder,
    fields: Vec<FieldBuilder>,
    other: MapBuilder<StringBuilder, StringBuilder>,
    /// Which field the key at a place of a log's contents was last: most logs have their keys in the same order.
    hints: Vec<usize>,
}

impl Columns {
    /// With room for so many.
    pub(super) fn new(rows: usize) -> Self {
        let (key, value) = entry();
        let names = MapFieldNames {
            entry: "key_value".into(),
            key: key.name().clone(),
            value: value.name().clone(),
        };
        let (keys, values) = (StringBuilder::new(), StringBuilder::new());
        Self {
            time: Int64Builder::with_capacity(rows),
            time_ns: Int32Builder::with_capacity(rows),
            topic: StringBuilder::with_capacity(rows, rows * 8),
            source: StringBuilder::with_capacity(rows, rows * 8),
            fields: Field::ALL
                .iter()
                .map(|&field| FieldBuilder::new(field, rows))
                .collect(),
            other: MapBuilder::with_capacity(Some(names), keys, values, rows)
                .with_keys_field(key)
                .with_values_field(value),
            hints: Vec::new(),
        }
    }

    /// Adds a log: seconds and nanoseconds of its time, topic and source, tags as they are in [`OTHER`], keys and values.
    ///
    /// # Errors
    /// None in fact: the map's builder has keys and values for each.
    pub(super) fn append<'a>(
        &mut self,
        (time, time_ns): (u32, Option<u32>),
        (topic, source): (&str, &str),
        tags: &[(String, String)],
        contents: impl Iterator<Item = (&'a str, Cow<'a, str>)>,
    ) -> Result<(), ArrowError> {
        self.time.append_value(time.into());
        let nanoseconds = time_ns.and_then(|ns| i32::try_from(ns).ok());
        self.time_ns.append_option(nanoseconds);
        self.topic.append_value(topic);
        self.source.append_value(source);
        let mut other: Vec<(&str, Cow<'_, str>)> = Vec::new();
        let mut values = [const { None }; Field::ALL.len()];
        for (place, (key, value)) in contents.enumerate() {
            match self.field_of(place, key) {
                Some(field) => values[field] = Some(value),
                None => other.push((key, value)),
            }
        }
        for (index, (field, value)) in self.fields.iter_mut().zip(values).enumerate() {
            if field.append(value.as_deref()).is_some()
                && let Some(value) = value
            {
                other.push((Field::ALL[index].as_str(), value));
            }
        }
        for (key, value) in tags {
            other.push((key, Cow::Borrowed(value)));
        }
        self.append_other(other)
    }

    /// Which field a key is, if it is one.
    fn field_of(&mut self, place: usize, key: &str) -> Option<usize> {
        if let Some(&hint) = self.hints.get(place)
            && Field::ALL
                .get(hint)
                .is_some_and(|field| field.as_str() == key)
        {
            return Some(hint);
        }
        let field = FIELDS.get(key).copied()?;
        if place < Field::ALL.len() {
            let places = self.hints.len().max(place + 1);
            self.hints.resize(places, usize::MAX);
            self.hints[place] = field;
        }
        Some(field)
    }

    fn append_other(&mut self, mut other: Vec<(&str, Cow<'_, str>)>) -> Result<(), ArrowError> {
        if other.is_empty() {
            return self.other.append(false);
        }
        // The sort is stable, so of equal keys the last is the one that was sent last.
        other.sort_by_key(|(key, _)| *key);
        for (index, (key, value)) in other.iter().enumerate() {
            if other.get(index + 1).is_some_and(|(next, _)| next == key) {
                continue;
            }
            self.other.keys().append_value(key);
            self.other.values().append_value(value);
        }
        self.other.append(true)
    }

    /// The columns.
    ///
    /// # Errors
    /// If one would be larger than 2 GiB.
    pub(super) fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.time.finish()),
            Arc::new(self.time_ns.finish()),
            Arc::new(self.topic.finish()),
            Arc::new(self.source.finish()),
        ];
        columns.extend(self.fields.iter_mut().map(FieldBuilder::finish));
        columns.push(Arc::new(self.other.finish()));
        RecordBatch::try_new(contents_schema(), columns)
    }
}

/// The columns with [`super::schema::SEQUENCE`], which counts on from `first`.
pub(super) fn with_sequence(contents: &RecordBatch, first: i64) -> Result<RecordBatch, ArrowError> {
    let mut columns = contents.columns().to_vec();
    let sequence = Int64Array::from_iter_values((first..).take(contents.num_rows()));
    columns.push(Arc::new(sequence));
    RecordBatch::try_new(schema(), columns)
}

/// The logs of some rows, in their order. Neighbours of the same topic, source and tags are in one batch.
///
/// Of a record's fields, those come first that have a column, in the order of [`Field::ALL`].
///
/// # Errors
/// If a column of [`schema`] is missing or of another type.
pub fn to_batches(rows: &RecordBatch) -> Result<Vec<LogBatch>, ArrowError> {
    let column = |name: &str| {
        rows.column_by_name(name)
            .ok_or_else(|| ArrowError::SchemaError(format!("there is no column {name}")))
    };
    let wrong =
        |name: &str| ArrowError::SchemaError(format!("the type of column {name} is not its own"));
    let time = column(TIME)?
        .as_primitive_opt::<Int64Type>()
        .ok_or_else(|| wrong(TIME))?;
    let time_ns = column(TIME_NS)?
        .as_primitive_opt::<Int32Type>()
        .ok_or_else(|| wrong(TIME_NS))?;
    let topic = column(TOPIC)?
        .as_string_opt::<i32>()
        .ok_or_else(|| wrong(TOPIC))?;
    let source = column(SOURCE)?
        .as_string_opt::<i32>()
        .ok_or_else(|| wrong(SOURCE))?;
    let other = column(OTHER)?.as_map_opt().ok_or_else(|| wrong(OTHER))?;
    let keys = other
        .keys()
        .as_string_opt::<i32>()
        .ok_or_else(|| wrong(OTHER))?;
    let values = other
        .values()
        .as_string_opt::<i32>()
        .ok_or_else(|| wrong(OTHER))?;
    let mut batches: Vec<LogBatch> = Vec::new();
    for row in 0..rows.num_rows() {
        let mut log = Log {
            time: u32::try_from(time.value(row)).unwrap_or_default(),
            time_ns: time_ns
                .is_valid(row)
                .then(|| time_ns.value(row))
                .and_then(|ns| ns.try_into().ok()),
            contents: Vec::new(),
        };
        for (index, field) in Field::ALL.iter().enumerate() {
            if let Some(value) = text(rows.column(FIRST_FIELD + index), row) {
                log.contents.push((field.to_string(), value));
            }
        }
        let mut tags = Vec::new();
        if other.is_valid(row) {
            let offsets = other.value_offsets();
            // Offsets are never below 0.
            let entries = usize::try_from(offsets[row]).unwrap_or_default()
                ..usize::try_from(offsets[row + 1]).unwrap_or_default();
            for entry in entries {
                let (key, value) = (keys.value(entry), values.value(entry).to_owned());
                match key.strip_prefix(TAG_PREFIX) {
                    Some(tag) => tags.push((tag.to_owned(), value)),
                    None => log.contents.push((key.to_owned(), value)),
                }
            }
        }
        match batches.last_mut() {
            Some(last)
                if last.topic == topic.value(row)
                    && last.source == source.value(row)
                    && last.tags == tags =>
            {
                last.logs.push(log);
            }
            _ => batches.push(LogBatch {
                topic: topic.value(row).to_owned(),
                source: source.value(row).to_owned(),
                tags,
                logs: vec![log],
            }),
        }
    }
    Ok(batches)
}

/// A value of a record field's column as text; none if it is null.
fn text(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    if let Some(numbers) = column.as_primitive_opt::<Int32Type>() {
        Some(numbers.value(row).to_string())
    } else if let Some(numbers) = column.as_primitive_opt::<Int64Type>() {
        Some(numbers.value(row).to_string())
    } else {
        column
            .as_string_opt::<i32>()
            .map(|texts| texts.value(row).to_owned())
    }
}
