use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::ipc::reader::StreamReader;
use serde_json::json;

use super::*;

fn logs() -> Logs {
    let answer = json!({
        "meta": {
            "progress": "Complete", "hasSQL": true, "keys": ["srcaddr", "p", "share", "gone", "known"],
            "columnTypes": ["varchar", "bigint", "double", "bigint", "boolean"],
        },
        "data": [
            {"srcaddr": "10.0.0.1", "p": "5", "share": "0.5", "gone": null, "known": "true"},
            {"srcaddr": "a,\"b\"\n\u{1b}[31m", "p": null, "share": "1", "gone": null, "known": null},
            {"srcaddr": "fd00::1", "p": "1234", "share": "0.25", "gone": null, "known": "false"},
        ],
    });
    serde_json::from_value(answer).unwrap()
}

fn records(times: [u32; 2]) -> Logs {
    let row = |time: u32| {
        json!({
            "__time__": time.to_string(), "__source__": "host-1", "eni-id": "eni-1", "log-status": "NODATA",
        })
    };
    let data = times.map(row);
    let keys = ["__time__", "__source__", "eni-id", "packets", "log-status"];
    let types = ["bigint", "varchar", "varchar", "bigint", "varchar"];
    let meta = json!({"progress": "Complete", "keys": keys, "columnTypes": types});
    serde_json::from_value(json!({"meta": meta, "data": data})).unwrap()
}

fn written_within(logs: &Logs, form: AnswerForm, width: Option<usize>) -> Vec<u8> {
    let mut out = Vec::new();
    write(logs, form, width, &mut out).unwrap();
    out
}

fn written(logs: &Logs, form: AnswerForm) -> Vec<u8> {
    written_within(logs, form, None)
}

fn lines(octets: Vec<u8>) -> Vec<String> {
    let text = String::from_utf8(octets).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_table_has_no_escape_sequences_and_numbers_to_the_right() {
    let lines = lines(written(&logs(), AnswerForm::Table));
    assert_eq!(lines.len(), 4, "{lines:?}");
    // NULL is an answer of SQL: its column is there.
    assert!(lines[0].contains("srcaddr") && lines[0].contains("gone"));
    assert!(
        lines[1].contains("    5 ") && lines[2].contains("    - ") && lines[3].contains(" 1234 "),
        "{lines:?}"
    );
    assert!(!lines.concat().contains('\u{1b}'));
    let nothing = written(&Logs::default(), AnswerForm::Table);
    assert_eq!(nothing, b"Nothing was found.\n");
}

#[test]
fn records_of_a_search_are_shown_in_short() {
    let day = lines(written(&records([1_795_356_575; 2]), AnswerForm::Table));
    assert!(day[0].contains("TIME") && day[0].contains("DESTINATION"));
    assert!(
        day[1].starts_with(" 14:09:35  eni-1  -    NODATA"),
        "{day:?}"
    );
    // From more than a day, the date is needed.
    let days = records([1_795_356_575, 1_795_442_975]);
    let days = lines(written(&days, AnswerForm::Table));
    assert!(days[1].starts_with(" 2026-11-22 14:09:35"), "{days:?}");
    assert!(days[2].starts_with(" 2026-11-23 14:09:35"), "{days:?}");
}

#[test]
fn other_logs_are_shown_as_they_are_without_columns_that_none_has() {
    let mut other = records([1, 2]);
    other.data[0] = Map::from_iter([("colour".to_owned(), json!("red"))]);
    let lines = lines(written(&other, AnswerForm::Table));
    assert!(lines[0].contains("__source__") && lines[0].contains("colour"));
    assert!(!lines[0].contains("packets"), "{lines:?}");
}

#[test]
fn what_is_wider_than_the_terminal_has_a_line_for_each_value() {
    let table = lines(written(&logs(), AnswerForm::Table));
    let width = table.iter().map(|line| line.chars().count()).max();
    let same = written_within(&logs(), AnswerForm::Table, width);
    assert_eq!(lines(same), table);
    let narrow = width.map(|width| width - 1);
    let facts = lines(written_within(&logs(), AnswerForm::Table, narrow));
    assert_eq!(facts[0], "── 1 ──");
    assert!(facts[1].starts_with(" srcaddr  10.0.0.1"), "{facts:?}");
    // What is null is left out.
    assert!(!facts.concat().contains("gone"));
    assert_eq!(facts.len(), 4 + 1 + 2 + 1 + 4 + 1);
}

#[test]
fn csv_is_quoted_where_it_has_to_be() {
    let csv = String::from_utf8(written(&logs(), AnswerForm::Csv)).unwrap();
    assert_eq!(
        csv,
        "srcaddr,p,share,gone,known\n10.0.0.1,5,0.5,,true\n\"a,\"\"b\"\"\n\u{1b}[31m\",,1,,\nfd00::1,1234,0.25,,false\n"
    );
    assert_eq!(written(&Logs::default(), AnswerForm::Csv), b"");
}

#[test]
fn json_has_a_line_for_each_row_with_numbers_where_the_column_has() {
    let rows: Vec<Value> = lines(written(&logs(), AnswerForm::Json))
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        rows[0],
        json!({"srcaddr": "10.0.0.1", "p": 5, "share": 0.5, "gone": null, "known": true})
    );
    assert_eq!(rows.len(), 3);
    // What a log does not have is not there.
    let found = lines(written(&records([1, 2]), AnswerForm::Json));
    let found: Value = serde_json::from_str(&found[0]).unwrap();
    assert_eq!(
        found,
        json!({"__time__": 1, "__source__": "host-1", "eni-id": "eni-1", "log-status": "NODATA"})
    );
}

#[test]
fn arrow_has_the_types_of_the_columns_also_where_all_is_null() {
    let octets = written(&logs(), AnswerForm::Arrow);
    let batches: Vec<RecordBatch> = StreamReader::try_new(octets.as_slice(), None)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let batch = &batches[0];
    let column = |name| batch.column_by_name(name).unwrap();
    assert_eq!(column("p").as_primitive::<Int64Type>().value(2), 1234);
    assert!(column("p").is_null(1));
    assert_eq!(column("share").as_primitive::<Float64Type>().value(1), 1.0);
    assert!(column("known").as_boolean().value(0));
    assert_eq!(column("gone").data_type(), &DataType::Int64);
    assert_eq!(column("srcaddr").as_string::<i32>().value(2), "fd00::1");
    // What is not of its column's type makes texts of it.
    let mut logs = logs();
    logs.data[0].insert("p".to_owned(), json!("18446744073709551615"));
    let octets = written(&logs, AnswerForm::Arrow);
    let schema = StreamReader::try_new(octets.as_slice(), None)
        .unwrap()
        .schema();
    assert_eq!(schema.field(1).data_type(), &DataType::Utf8);
    let nothing = written(&Logs::default(), AnswerForm::Arrow);
    assert!(StreamReader::try_new(nothing.as_slice(), None).is_ok());
}
