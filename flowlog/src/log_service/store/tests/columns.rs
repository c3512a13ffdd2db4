use std::collections::BTreeMap;

use flowlog_model::field::Field;
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

fn contents() -> impl Strategy<Value = Vec<(String, String)>> {
    let keys: Vec<&str> = Field::ALL
        .iter()
        .map(|field| field.as_str())
        .chain(["a", "eni_id", "__time__", "", "键"])
        .collect();
    let value = prop_oneof![
        "[a-z0-9.]{0,12}",
        any::<i64>().prop_map(|number| number.to_string()),
        (-3_i32..70_000).prop_map(|number| number.to_string()),
        select(vec![
            "-",
            "",
            "007",
            "+7",
            "-0",
            "0",
            "9223372036854775808",
            "ACCEPT",
            "值"
        ])
        .prop_map(str::to_owned),
    ];
    vec((select(keys).prop_map(str::to_owned), value), 0..30)
}

fn log() -> impl Strategy<Value = Log> {
    let time = prop_oneof![1 => any::<u32>(), 9 => MIDNIGHT..MIDNIGHT + 7200];
    (time, option::of(0..1_000_000_000_u32), contents()).prop_map(|(time, time_ns, contents)| Log {
        time,
        time_ns,
        contents,
    })
}

fn batches() -> impl Strategy<Value = Vec<LogBatch>> {
    let tags = vec(("[a-c]", "[a-z]{0,3}"), 0..3);
    let batch = ("[a-z]{0,3}", "[a-z]{0,3}", tags, vec(log(), 0..5));
    vec(
        batch.prop_map(|(topic, source, tags, logs)| LogBatch {
            topic,
            source,
            tags,
            logs,
        }),
        0..4,
    )
}

/// A log with its batch, as it must come back: the last value of a key counts, and a record's field that does not apply is not there.
type Expected = (
    u32,
    Option<u32>,
    String,
    String,
    BTreeMap<String, String>,
    BTreeMap<String, String>,
);

fn expected(batches: &[LogBatch]) -> Vec<Expected> {
    let mut logs = Vec::new();
    for batch in batches {
        for log in &batch.logs {
            let mut contents: BTreeMap<_, _> = log.contents.iter().cloned().collect();
            contents.retain(|key, value| value != "-" || key.parse::<Field>().is_err());
            let tags = batch.tags.iter().cloned().collect();
            logs.push((
                log.time,
                log.time_ns,
                batch.topic.clone(),
                batch.source.clone(),
                tags,
                contents,
            ));
        }
    }
    logs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn logs_come_back_from_columns_and_from_frames(batches in batches()) {
        let contents = contents_of(&batches).unwrap();
        let rows = super::super::columns::with_sequence(&contents, 7).unwrap();
        prop_assert_eq!(expected(&to_batches(&rows).unwrap()), expected(&batches));
        let head = frame::Head { key: &key("logstore"), first: 7, arrived: 9, identity: None };
        let mut octets = Vec::new();
        frame::append(&mut octets, &head, &frame::encode(&contents).unwrap());
        let (bodies, lost) = frame::split(&octets);
        prop_assert_eq!(lost, 0);
        let frames: Vec<_> = bodies.into_iter().map(frame::decode).collect();
        let sent = frame::Frame { key: key("logstore"), first: 7, arrived: 9, identity: None, contents };
        prop_assert_eq!(frames, vec![Some(sent)]);
    }

    #[test]
    fn a_file_has_the_rows_of_each_hour_in_order_with_their_bounds(batches in batches()) {
        let contents = contents_of(&batches).unwrap();
        let rows = super::super::columns::with_sequence(&contents, 7).unwrap();
        let encoded = merge::encode(std::slice::from_ref(&rows)).unwrap();
        prop_assert_eq!(encoded.iter().map(|encoded| encoded.file.rows).sum::<u64>(), rows.num_rows() as u64);
        for encoded in encoded {
            let reader = ParquetRecordBatchReaderBuilder::try_new(encoded.octets.clone()).unwrap().build().unwrap();
            let read: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
            let read = arrow::compute::concat_batches(&schema(), &read).unwrap();
            let keys = order::Keys::of(&read).unwrap();
            for row in 0..keys.len() {
                prop_assert_eq!(keys.time(row) / 3600, i64::from(encoded.file.hour));
                prop_assert!((i64::from(encoded.file.min_time)..=i64::from(encoded.file.max_time)).contains(&keys.time(row)));
                prop_assert!(row == 0 || keys.compare(row - 1, &keys, row).is_lt());
            }
            // One file merged with none is itself.
            let again = merge::merge(encoded.file.hour, vec![encoded.octets], 8192).unwrap();
            prop_assert_eq!(again.file, encoded.file);
        }
    }
}

#[test]
fn what_does_not_fit_its_column_is_kept_beside_it() {
    use arrow::array::{Array as _, AsArray as _};
    use arrow::datatypes::{Int32Type, Int64Type};
    let contents = [
        ("srcport", "080"),
        ("dstport", "80"),
        ("protocol", "tcp"),
        ("bytes", "-"),
        ("packets", "5"),
        ("eni-id", "-"),
    ];
    let log = Log {
        time: 1,
        time_ns: None,
        contents: contents
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
    };
    let rows = contents_of(&batch(vec![log])).unwrap();
    let column = |name: &str| rows.column_by_name(name).unwrap();
    assert!(
        column("srcport").is_null(0)
            && column("protocol").is_null(0)
            && column("bytes").is_null(0)
            && column("eni_id").is_null(0)
    );
    assert_eq!(column("dstport").as_primitive::<Int32Type>().value(0), 80);
    assert_eq!(column("packets").as_primitive::<Int64Type>().value(0), 5);
    let other = column("__other__").as_map();
    let entries: Vec<_> = other
        .keys()
        .as_string::<i32>()
        .iter()
        .flatten()
        .zip(other.values().as_string::<i32>().iter().flatten())
        .collect();
    assert_eq!(entries, [("protocol", "tcp"), ("srcport", "080")]);
}
