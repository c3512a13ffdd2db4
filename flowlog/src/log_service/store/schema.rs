//! The columns of a logstore, in memory and in Parquet.
//!
//! | column | type | what it is |
//! |---|---|---|
//! | `__time__` | Int64 | time of the log, in Unix seconds |
//! | `__time_ns_part__` | Int32, or null | what the time leaves out, in nanoseconds below a second |
//! | `__topic__`, `__source__` | Utf8 | of the batch; empty where there is none |
//! | `version`, `srcport`, `dstport`, `protocol`, `tcp_flags` | Int32, or null | the record's field |
//! | `packets`, `bytes`, `start`, `end` | Int64, or null | the record's field |
//! | the other fields of a record, with underscores: `eni_id` | Utf8, or null | the record's field |
//! | `__other__` | Map of Utf8 to Utf8, or null | every key that is no field of a record; a tag `k` as `__tag__:k` |
//! | `__seq__` | Int64 | which log of its logstore it is, counted from 0 in order of arrival |
//!
//! What does not apply (`-`) is null. Numbers are signed, so that a difference of two can be below 0 in SQL. A number column has only
//! what is written the way it would be given back: `protocol: tcp` and `srcport: 080` are in `__other__`, under the field's own name. A
//! key of `__other__` is there once: of a key that a log has twice, the last value counts.
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field as Column, Fields, Schema, SchemaRef};
use flowlog_model::field::Field;

/// Name of the column with a log's time.
pub const TIME: &str = "__time__";
/// Name of the column with a time's nanoseconds.
pub const TIME_NS: &str = "__time_ns_part__";
/// Name of the column with the topic.
pub const TOPIC: &str = "__topic__";
/// Name of the column with the source.
pub const SOURCE: &str = "__source__";
/// Name of the column with what is no field of a record.
pub const OTHER: &str = "__other__";
/// Name of the column with the order of arrival.
pub const SEQUENCE: &str = "__seq__";
/// What a tag's key has before it in [`OTHER`].
pub const TAG_PREFIX: &str = "__tag__:";

/// Where the columns of a record's fields begin; they are in the order of [`Field::ALL`].
pub(super) const FIRST_FIELD: usize = 4;

/// The type of a record field's column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Utf8.
    Text,
    /// Int32.
    Int32,
    /// Int64.
    Int64,
}

/// The type of a field's column.
#[must_use]
pub const fn kind(field: Field) -> Kind {
    match field {
        Field::Version | Field::SrcPort | Field::DstPort | Field::Protocol | Field::TcpFlags => {
            Kind::Int32
        }
        Field::Packets | Field::Bytes | Field::Start | Field::End => Kind::Int64,
        Field::VSwitchId
        | Field::VmId
        | Field::VpcId
        | Field::AccountId
        | Field::EniId
        | Field::SrcAddr
        | Field::DstAddr
        | Field::Direction
        | Field::LogStatus
        | Field::Action
        | Field::Region
        | Field::RejectReason
        | Field::SecurityGroupRuleId
        | Field::Type
        | Field::BatchId => Kind::Text,
    }
}

/// The name of a field's column: the field's, with underscores.
#[must_use]
pub fn column_name(field: Field) -> String {
    field.as_str().replace('-', "_")
}

/// The columns of a logstore.
#[must_use]
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let mut columns = contents();
        columns.push(Column::new(SEQUENCE, DataType::Int64, false));
        Arc::new(Schema::new(columns))
    });
    Arc::clone(&SCHEMA)
}

/// The columns of logs whose order is not known yet: all but the last.
pub(super) fn contents_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| Arc::new(Schema::new(contents())));
    Arc::clone(&SCHEMA)
}

/// Key and value of the column [`OTHER`].
pub(super) fn entry() -> (Column, Column) {
    (
        Column::new("key", DataType::Utf8, false),
        Column::new("value", DataType::Utf8, false),
    )
}

fn contents() -> Vec<Column> {
    let mut columns = vec![
        Column::new(TIME, DataType::Int64, false),
        Column::new(TIME_NS, DataType::Int32, true),
        Column::new(TOPIC, DataType::Utf8, false),
        Column::new(SOURCE, DataType::Utf8, false),
    ];
    columns.extend(Field::ALL.iter().map(|&field| {
        let data_type = match kind(field) {
            Kind::Text => DataType::Utf8,
            Kind::Int32 => DataType::Int32,
            Kind::Int64 => DataType::Int64,
        };
        Column::new(column_name(field), data_type, true)
    }));
    let (key, value) = entry();
    let entries = DataType::Struct(Fields::from(vec![key, value]));
    let entries = Arc::new(Column::new("key_value", entries, false));
    columns.push(Column::new(OTHER, DataType::Map(entries, false), true));
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_record_has_its_column_where_it_is_looked_for() {
        for (index, &field) in Field::ALL.iter().enumerate() {
            let schema = schema();
            assert_eq!(
                schema.field(FIRST_FIELD + index).name(),
                &column_name(field)
            );
        }
        assert_eq!(schema().fields().len(), FIRST_FIELD + Field::ALL.len() + 2);
        assert_eq!(
            schema().fields()[..schema().fields().len() - 1],
            contents_schema().fields()[..]
        );
    }
}
