//! The store's files as they are, read by pyarrow, by DuckDB and by Polars.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flowlog::log_service::{
    store::{Store, StoreConfig},
    types::{Log, LogBatch, LogstoreKey},
};
use serde_json::{Value, json};

mod skip;

/// 2026-11-22 00:00 UTC.
const MIDNIGHT: u32 = 1_795_305_600;

/// The interpreter that has all of them; none with the reason printed.
fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python");
    let has_all = Command::new(&python)
        .args(["-c", "import duckdb, polars, pyarrow"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_all {
        skip::skip(
            "store_parquet",
            "there is no target/python with duckdb, polars and pyarrow: run `cargo xtask setup`",
        );
    }
    has_all.then_some(python)
}

fn log(time: u32, contents: &[(&str, &str)]) -> Log {
    Log {
        time,
        time_ns: None,
        contents: contents
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn stored(folder: &Path) {
    let key = LogstoreKey {
        project: "tests".parse().unwrap(),
        logstore: "records".parse().unwrap(),
    };
    let flow = [
        ("version", "1"),
        ("eni-id", "eni-1"),
        ("srcaddr", "10.0.0.1"),
        ("srcport", "53870"),
        ("dstaddr", "fd00::1"),
        ("dstport", "80"),
        ("protocol", "6"),
        ("direction", "in"),
        ("packets", "3"),
        ("bytes", "9000000000"),
        ("start", "1795305600"),
        ("end", "1795306200"),
        ("log-status", "OK"),
        ("action", "ACCEPT"),
        ("name", "a flow"),
    ];
    let nothing = [
        ("version", "1"),
        ("eni-id", "eni-1"),
        ("srcaddr", "-"),
        ("srcport", "-"),
        ("packets", "-"),
        ("log-status", "NODATA"),
    ];
    let logs = vec![
        log(MIDNIGHT, &flow),
        log(MIDNIGHT + 3600, &nothing),
        log(
            MIDNIGHT + 3601,
            &[("srcport", "http"), ("name", "not ours")],
        ),
    ];
    let batches = vec![LogBatch {
        topic: "flow_log".into(),
        source: "10.0.0.9".into(),
        tags: vec![("host".into(), "h1".into())],
        logs,
    }];
    let now: SystemTime = UNIX_EPOCH + Duration::from_secs(MIDNIGHT.into());
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let store = Store::open(StoreConfig {
                free_octets: 0,
                ..StoreConfig::new(folder)
            })
            .await
            .unwrap();
            store.put(&key, batches, None, now).await.unwrap();
            store.flush(now).await.unwrap();
        });
}

#[test]
fn pyarrow_duckdb_and_polars_read_the_files_with_types_and_nulls() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    stored(folder.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/read_parquet.py");
    let output = Command::new(python)
        .arg(script)
        .arg(folder.path().join("logs"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (column, arrow, duckdb, polars) in [
        ("__time__", "int64", "BIGINT", "Int64"),
        ("__time_ns_part__", "int32", "INTEGER", "Int32"),
        ("__topic__", "string", "VARCHAR", "String"),
        ("version", "int32", "INTEGER", "Int32"),
        ("eni_id", "string", "VARCHAR", "String"),
        ("srcaddr", "string", "VARCHAR", "String"),
        ("srcport", "int32", "INTEGER", "Int32"),
        ("packets", "int64", "BIGINT", "Int64"),
        ("tcp_flags", "int32", "INTEGER", "Int32"),
        ("start", "int64", "BIGINT", "Int64"),
        (
            "__other__",
            "map<string, string>",
            "MAP(VARCHAR, VARCHAR)",
            "Map(String, String)",
        ),
        ("__seq__", "int64", "BIGINT", "Int64"),
    ] {
        let arrow_type = seen["arrow"][column].as_str().unwrap();
        assert!(
            arrow_type.starts_with(arrow.trim_end_matches('>')),
            "{column}: {arrow_type}"
        );
        assert_eq!(seen["duckdb"][column], duckdb, "{column}");
        assert_eq!(seen["polars"][column], polars, "{column}");
    }
    for rows in ["arrow_rows", "duckdb_rows", "polars_rows"] {
        let row = |index: usize, column: &str| seen[rows][index][column].clone();
        assert_eq!(seen[rows].as_array().unwrap().len(), 3);
        assert_eq!(row(0, "bytes"), json!(9_000_000_000_u64));
        assert_eq!(
            (row(0, "srcport"), row(0, "dstaddr")),
            (json!(53_870), json!("fd00::1"))
        );
        assert_eq!(row(0, "tcp_flags"), Value::Null);
        for column in ["srcaddr", "srcport", "packets", "bytes", "action"] {
            assert_eq!(row(1, column), Value::Null, "{column}");
        }
        assert_eq!(row(2, "srcport"), Value::Null);
        assert_eq!(
            (row(2, "__time__"), row(2, "__seq__")),
            (json!(MIDNIGHT + 3601), json!(2))
        );
        assert_eq!(
            (row(2, "project"), row(2, "logstore")),
            (json!("tests"), json!("records"))
        );
    }
    assert_eq!(seen["duckdb_rows"][0]["name"], json!("a flow"));
    assert_eq!(seen["duckdb_rows"][1]["name"], Value::Null);
    assert_eq!(
        seen["arrow_rows"][2]["__other__"],
        json!([
            ["__tag__:host", "h1"],
            ["name", "not ours"],
            ["srcport", "http"]
        ])
    );
    assert_eq!(seen["total"], json!([9_000_000_000_u64, 2, 1]));
    assert!(
        seen["statistics"]
            .as_array()
            .unwrap()
            .contains(&json!("eni_id"))
    );
    assert_eq!(seen["compression"], json!(["ZSTD"]));
}
