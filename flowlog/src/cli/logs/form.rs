//! Answers as a table, JSON, CSV or Arrow.
use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};
use serde_json::{Map, Number, Value};
use time::OffsetDateTime;

use super::answer::{ColumnType, Logs, text, visible};
use super::record;

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum AnswerForm {
    /// A table for people; of a search, records in short.
    #[default]
    Table,
    /// A JSON object for each row, in a line of its own.
    Json,
    /// Comma-separated values (RFC 4180), with a header.
    Csv,
    /// Arrow's streaming format.
    Arrow,
}

/// Writes the answer. Where there is a terminal, `width` says how many characters a line of it has.
///
/// # Errors
/// That it cannot be written.
pub(super) fn write(
    logs: &Logs,
    form: AnswerForm,
    width: Option<usize>,
    out: &mut impl Write,
) -> io::Result<()> {
    match form {
        AnswerForm::Table => write_table(logs, width, out),
        AnswerForm::Json => {
            let columns = logs.columns();
            logs.data
                .iter()
                .try_for_each(|row| writeln!(out, "{}", object(row, &columns)))
        }
        AnswerForm::Csv => {
            let columns = logs.columns();
            if columns.is_empty() {
                return Ok(());
            }
            // What is written is what was answered: a number that is a text stays as it is spelled.
            let texts = columns
                .into_iter()
                .map(|(name, _)| (name, ColumnType::Text));
            let batch = batch(logs, texts.collect()).map_err(io::Error::other)?;
            arrow::csv::Writer::new(out)
                .write(&batch)
                .map_err(io::Error::other)
        }
        AnswerForm::Arrow => {
            let batch = batch(logs, logs.columns()).map_err(io::Error::other)?;
            let mut writer =
                StreamWriter::try_new(out, &batch.schema()).map_err(io::Error::other)?;
            writer
                .write(&batch)
                .and_then(|()| writer.finish())
                .map_err(io::Error::other)
        }
    }
}

fn write_table(logs: &Logs, width: Option<usize>, out: &mut impl Write) -> io::Result<()> {
    if logs.data.is_empty() {
        return writeln!(out, "Nothing was found.");
    }
    if !logs.meta.has_sql && logs.data.iter().all(record::is_record) {
        return write_lines(&records(logs), out);
    }
    // What no row has is not worth a column.
    let has_any = |column: &str| {
        let mut rows = logs.data.iter();
        rows.any(|row| text(row.get(column)).is_some_and(|text| !text.is_empty()))
    };
    let mut columns = logs.columns();
    columns.retain(|(column, _)| logs.meta.has_sql || has_any(column));
    let table = rows(logs, &columns);
    let is_too_wide = |width| {
        table
            .lines()
            .any(|line| line.trim_end().chars().count() > width)
    };
    if width.is_some_and(is_too_wide) {
        write_facts(logs, &columns, out)
    } else {
        write_lines(&table, out)
    }
}

fn write_lines(table: &Table, out: &mut impl Write) -> io::Result<()> {
    table
        .lines()
        .try_for_each(|line| writeln!(out, "{}", line.trim_end()))
}

fn table() -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn align_right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// Records in short.
fn records(logs: &Logs) -> Table {
    let mut dates = logs
        .data
        .iter()
        .filter_map(record::time)
        .map(OffsetDateTime::date);
    let first = dates.next();
    let with_date = dates.any(|date| Some(date) != first);
    let mut table = table();
    table.set_header(record::HEADER);
    for row in &logs.data {
        table.add_row(record::cells(row, with_date));
    }
    for column in record::NUMBERS {
        align_right(&mut table, column);
    }
    table
}

/// The rows as they are.
fn rows(logs: &Logs, columns: &[(&str, ColumnType)]) -> Table {
    let mut table = table();
    table.set_header(columns.iter().map(|(column, _)| visible(column)));
    for row in &logs.data {
        table.add_row(columns.iter().map(|(column, _)| shown(row, column)));
    }
    for (index, (_, column_type)) in columns.iter().enumerate() {
        if matches!(column_type, ColumnType::BigInt | ColumnType::Double) {
            align_right(&mut table, index);
        }
    }
    table
}

/// Each row as lines of name and value, because the table would be wider than the terminal.
fn write_facts(
    logs: &Logs,
    columns: &[(&str, ColumnType)],
    out: &mut impl Write,
) -> io::Result<()> {
    for (number, row) in logs.data.iter().enumerate() {
        writeln!(out, "── {} ──", number + 1)?;
        let mut table = table();
        for (column, _) in columns {
            if row.get(*column).is_some_and(|value| !value.is_null()) {
                table.add_row([visible(column), shown(row, column)]);
            }
        }
        write_lines(&table, out)?;
    }
    Ok(())
}

fn shown(row: &Map<String, Value>, column: &str) -> String {
    text(row.get(column)).map_or_else(|| "-".to_owned(), |text| visible(&text))
}

/// The row with numbers where the columns have numbers, and null where SQL gave NULL.
pub(super) fn object(row: &Map<String, Value>, columns: &[(&str, ColumnType)]) -> Value {
    let typed = |(name, column_type): &(&str, ColumnType)| {
        let value = row.get(*name)?;
        let typed = text(Some(value)).and_then(|text| match column_type {
            ColumnType::BigInt => Some(Value::from(text.parse::<i64>().ok()?)),
            ColumnType::Double => Number::from_f64(text.parse().ok()?).map(Value::Number),
            ColumnType::Boolean => Some(Value::from(text.parse::<bool>().ok()?)),
            ColumnType::Text => None,
        });
        Some(((*name).to_owned(), typed.unwrap_or_else(|| value.clone())))
    };
    Value::Object(columns.iter().filter_map(typed).collect())
}

/// The rows as columns of these types.
fn batch(logs: &Logs, columns: Vec<(&str, ColumnType)>) -> Result<RecordBatch, ArrowError> {
    if columns.is_empty() {
        return Ok(RecordBatch::new_empty(Arc::new(Schema::empty())));
    }
    let arrays = columns.into_iter().map(|(column, column_type)| {
        let values = logs.data.iter().map(|row| text(row.get(column)));
        (
            column,
            array(&values.collect::<Vec<_>>(), column_type),
            true,
        )
    });
    RecordBatch::try_from_iter_with_nullable(arrays)
}

/// The values as an array of the type, or of texts if one of them is not of the type.
fn array(values: &[Option<String>], column_type: ColumnType) -> ArrayRef {
    let array: Option<ArrayRef> = match column_type {
        ColumnType::BigInt => parsed(values).map(|values| Arc::new(Int64Array::from(values)) as _),
        ColumnType::Double => {
            parsed(values).map(|values| Arc::new(Float64Array::from(values)) as _)
        }
        ColumnType::Boolean => {
            parsed(values).map(|values| Arc::new(BooleanArray::from(values)) as _)
        }
        ColumnType::Text => None,
    };
    array.unwrap_or_else(|| Arc::new(values.iter().map(Option::as_deref).collect::<StringArray>()))
}

/// The values as those of a type; none if one is not.
fn parsed<T: std::str::FromStr>(values: &[Option<String>]) -> Option<Vec<Option<T>>> {
    values
        .iter()
        .map(|value| value.as_deref().map(str::parse).transpose().ok())
        .collect()
}

#[cfg(test)]
mod tests;
