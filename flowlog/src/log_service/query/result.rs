//! What a query found.
use std::collections::BTreeSet;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value};

use super::search::field;
use crate::log_service::store::schema::{OTHER, SEQUENCE};

/// How times are written, in UTC.
const TIMES: &str = "%Y-%m-%d %H:%M:%S%.3f";

/// What a query found.
#[derive(Clone, Debug)]
pub struct QueryResult {
    /// Whether the query had an SQL.
    pub has_sql: bool,
    /// Where in the query it begins, in octets, after the `|`.
    pub sql: Option<usize>,
    /// Whether this is all: false if there was more than a result may have.
    pub complete: bool,
    /// The rows. Of a search without SQL, with the columns of the store.
    pub batches: Vec<RecordBatch>,
    /// Their columns.
    pub schema: SchemaRef,
    /// What the columns are called for people, in the schema's order.
    pub(super) names: Vec<String>,
}

impl QueryResult {
    /// How many rows there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The names of the columns in their order. Of a search, those of the client's own fields that any row has come last.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        let of_their_own = (0..self.names.len())
            .filter(|index| self.is_shown(*index))
            .map(|index| self.names[index].clone());
        let own: BTreeSet<String> = self.others().map(|(_, key, _)| key).collect();
        of_their_own.chain(own).collect()
    }

    /// The types of the columns in the product's words, in the order of [`Self::columns`].
    #[must_use]
    pub fn column_types(&self) -> Vec<&'static str> {
        let shown = (0..self.names.len()).filter(|index| self.is_shown(*index));
        let mut types: Vec<_> = shown
            .map(|index| product_type(self.schema.field(index).data_type()))
            .collect();
        // The client's own fields are texts.
        types.resize(self.columns().len(), product_type(&DataType::Utf8));
        types
    }

    /// The rows as objects whose values are texts. What a row of a search does not have is left out; in SQL, NULL is null.
    ///
    /// # Errors
    /// None in fact: every type can be written.
    pub fn rows(&self) -> Result<Vec<Map<String, Value>>, ArrowError> {
        let options = FormatOptions::new().with_timestamp_format(Some(TIMES));
        let mut rows = Vec::with_capacity(self.count());
        for batch in &self.batches {
            let shown: Vec<usize> = (0..batch.num_columns())
                .filter(|index| self.is_shown(*index))
                .collect();
            let formatters: Vec<ArrayFormatter<'_>> = shown
                .iter()
                .map(|index| ArrayFormatter::try_new(batch.column(*index).as_ref(), &options))
                .collect::<Result<_, _>>()?;
            for row in 0..batch.num_rows() {
                let mut object = Map::new();
                for (formatter, &index) in formatters.iter().zip(&shown) {
                    let value = if batch.column(index).is_null(row) {
                        if !self.has_sql {
                            continue;
                        }
                        Value::Null
                    } else {
                        Value::String(formatter.value(row).try_to_string()?)
                    };
                    object.insert(self.names[index].clone(), value);
                }
                rows.push(object);
            }
        }
        for (row, key, value) in self.others() {
            rows[row].entry(key).or_insert(Value::String(value));
        }
        Ok(rows)
    }

    /// Whether the column is a column of the rows.
    fn is_shown(&self, index: usize) -> bool {
        self.has_sql || ![OTHER, SEQUENCE].contains(&self.schema.field(index).name().as_str())
    }

    /// The client's own fields: which row, key, value.
    fn others(&self) -> impl Iterator<Item = (usize, String, String)> {
        let mut first = 0;
        let batches: &[RecordBatch] = if self.has_sql {
            &[]
        } else {
            self.batches.as_slice()
        };
        batches.iter().flat_map(move |batch| {
            let before = first;
            first += batch.num_rows();
            let column = batch
                .column_by_name(OTHER)
                .and_then(|column| column.as_map_opt());
            column.into_iter().flat_map(move |map| {
                (0..map.len())
                    .filter(|row| map.is_valid(*row))
                    .flat_map(move |row| {
                        let entries = map.value(row);
                        let texts = |index: usize| -> Vec<String> {
                            entries
                                .column(index)
                                .as_string_opt::<i32>()
                                .into_iter()
                                .flatten()
                                .map(|text| text.unwrap_or_default().to_owned())
                                .collect()
                        };
                        texts(0)
                            .into_iter()
                            .zip(texts(1))
                            .map(move |(key, value)| (before + row, key, value))
                            .collect::<Vec<_>>()
                    })
            })
        })
    }
}

/// What a type is called in the product.
fn product_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "boolean",
        DataType::Timestamp(..) => "timestamp",
        integer if integer.is_integer() => "bigint",
        number if number.is_numeric() => "double",
        _ => "varchar",
    }
}

/// What the columns of a schema are called in the product: record fields with hyphens.
pub(super) fn product_names(schema: &SchemaRef) -> Vec<String> {
    schema
        .fields()
        .iter()
        .map(|column| {
            field::of(column.name()).map_or_else(|| column.name().clone(), |known| known.key)
        })
        .collect()
}
