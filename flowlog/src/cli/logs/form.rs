//! Answers as a table, JSON, CSV or Arrow.
use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};

use super::answer::{Logs, text};

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum AnswerForm {
    /// A table for people.
    #[default]
    Table,
    /// A JSON object for each row, in a line of its own; values are texts.
    Json,
    /// Comma-separated values (RFC 4180), with a header.
    Csv,
    /// Arrow's streaming format; columns of which every value is a number have numbers.
    Arrow,
}

/// Writes the answer.
pub(super) fn write(logs: &Logs, form: AnswerForm, out: &mut impl Write) -> io::Result<()> {
    match form {
        AnswerForm::Table => write_table(logs, out),
        AnswerForm::Json => logs
            .data
            .iter()
            .try_for_each(|row| writeln!(out, "{}", serde_json::Value::Object(row.clone()))),
        AnswerForm::Csv if logs.columns().is_empty() => Ok(()),
        AnswerForm::Csv => {
            let batch = batch(logs, false).map_err(io::Error::other)?;
            arrow::csv::Writer::new(out)
                .write(&batch)
                .map_err(io::Error::other)
        }
        AnswerForm::Arrow => {
            let batch = batch(logs, true).map_err(io::Error::other)?;
            let mut writer =
                StreamWriter::try_new(out, &batch.schema()).map_err(io::Error::other)?;
            writer
                .write(&batch)
                .and_then(|()| writer.finish())
                .map_err(io::Error::other)
        }
    }
}

fn write_table(logs: &Logs, out: &mut impl Write) -> io::Result<()> {
    if logs.data.is_empty() {
        return writeln!(out, "Nothing was found.");
    }
    let columns = logs.columns();
    // What no row has is not worth a column.
    let columns: Vec<&str> = columns
        .into_iter()
        .filter(|column| {
            logs.data
                .iter()
                .any(|row| text(row.get(*column)).is_some_and(|text| !text.is_empty()))
        })
        .collect();
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns.iter().map(|column| visible(column)));
    for row in &logs.data {
        table.add_row(columns.iter().map(|column| {
            text(row.get(*column)).map_or_else(|| "-".to_owned(), |text| visible(&text))
        }));
    }
    for (index, column) in columns.iter().enumerate() {
        let numbers = logs
            .data
            .iter()
            .filter_map(|row| text(row.get(*column)))
            .all(|text| text.parse::<f64>().is_ok());
        if let Some(column) = table.column_mut(index).filter(|_| numbers) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
        .lines()
        .try_for_each(|line| writeln!(out, "{}", line.trim_end()))
}

/// A text of somebody else's, as it can be shown in a line.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The rows as columns; as numbers where they are, if that is asked for.
fn batch(logs: &Logs, typed: bool) -> Result<RecordBatch, ArrowError> {
    let columns = logs.columns().into_iter().map(|column| {
        let values: Vec<Option<String>> =
            logs.data.iter().map(|row| text(row.get(column))).collect();
        (column, array(&values, typed), true)
    });
    let columns: Vec<(&str, ArrayRef, bool)> = columns.collect();
    if columns.is_empty() {
        return Ok(RecordBatch::new_empty(Arc::new(
            arrow::datatypes::Schema::empty(),
        )));
    }
    RecordBatch::try_from_iter_with_nullable(columns)
}

fn array(values: &[Option<String>], typed: bool) -> ArrayRef {
    if typed && values.iter().any(Option::is_some) {
        if let Some(numbers) = parsed::<i64>(values) {
            return Arc::new(Int64Array::from(numbers));
        }
        if let Some(numbers) = parsed::<f64>(values) {
            return Arc::new(Float64Array::from(numbers));
        }
    }
    Arc::new(values.iter().map(Option::as_deref).collect::<StringArray>())
}

/// The values as numbers; none if one is no number.
fn parsed<T: std::str::FromStr>(values: &[Option<String>]) -> Option<Vec<Option<T>>> {
    values
        .iter()
        .map(|value| value.as_deref().map(str::parse).transpose().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array as _, AsArray as _};
    use arrow::datatypes::{Float64Type, Int64Type};
    use arrow::ipc::reader::StreamReader;
    use serde_json::json;

    use super::*;

    fn logs() -> Logs {
        let answer = json!({
            "meta": {"progress": "Complete", "hasSQL": true, "keys": ["srcaddr", "p", "share", "gone"]},
            "data": [
                {"srcaddr": "10.0.0.1", "p": "5", "share": "0.5", "gone": null},
                {"srcaddr": "a,\"b\"\n\u{1b}[31m", "p": null, "share": "1", "gone": null},
                {"srcaddr": "fd00::1", "p": "1234", "share": "0.25", "late": ""},
            ],
        });
        serde_json::from_value(answer).unwrap()
    }

    fn written(logs: &Logs, form: AnswerForm) -> Vec<u8> {
        let mut out = Vec::new();
        write(logs, form, &mut out).unwrap();
        out
    }

    #[test]
    fn a_table_has_no_empty_columns_and_no_escape_sequences() {
        let table = String::from_utf8(written(&logs(), AnswerForm::Table)).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(
            lines[0].contains("srcaddr")
                && !lines[0].contains("gone")
                && !lines[0].contains("late")
        );
        assert!(
            lines[3].contains(" 1234 ")
                && lines[1].contains("    5 ")
                && lines[2].contains("    - "),
            "{table}"
        );
        assert!(!table.contains('\u{1b}'));
        assert_eq!(
            written(&Logs::default(), AnswerForm::Table),
            b"Nothing was found.\n"
        );
    }

    #[test]
    fn csv_is_quoted_where_it_has_to_be() {
        let csv = String::from_utf8(written(&logs(), AnswerForm::Csv)).unwrap();
        assert_eq!(csv, "srcaddr,p,share,gone,late\n10.0.0.1,5,0.5,,\n\"a,\"\"b\"\"\n\u{1b}[31m\",,1,,\nfd00::1,1234,0.25,,\"\"\n".replace(",\"\"\n", ",\n"));
        assert_eq!(written(&Logs::default(), AnswerForm::Csv), b"");
    }

    #[test]
    fn json_has_a_line_for_each_row() {
        let text = String::from_utf8(written(&logs(), AnswerForm::Json)).unwrap();
        let rows: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            rows[0],
            json!({"srcaddr": "10.0.0.1", "p": "5", "share": "0.5", "gone": null})
        );
        assert_eq!(rows.len(), 3);
    }

    #[test]
    fn arrow_has_numbers_where_all_are() {
        let octets = written(&logs(), AnswerForm::Arrow);
        let batches: Vec<RecordBatch> = StreamReader::try_new(octets.as_slice(), None)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let batch = &batches[0];
        assert_eq!(
            batch
                .column_by_name("p")
                .unwrap()
                .as_primitive::<Int64Type>()
                .value(2),
            1234
        );
        assert!(batch.column_by_name("p").unwrap().is_null(1));
        assert_eq!(
            batch
                .column_by_name("share")
                .unwrap()
                .as_primitive::<Float64Type>()
                .value(1),
            1.0
        );
        assert_eq!(
            batch
                .column_by_name("srcaddr")
                .unwrap()
                .as_string::<i32>()
                .value(2),
            "fd00::1"
        );
        assert!(
            StreamReader::try_new(
                written(&Logs::default(), AnswerForm::Arrow).as_slice(),
                None
            )
            .is_ok()
        );
    }
}
