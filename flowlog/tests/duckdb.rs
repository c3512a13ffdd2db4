//! What SQL answers, held against DuckDB on the same Parquet files.
//!
//! DuckDB is taken from its registry package, in a virtual environment at `target/python`. Where that is not there, the test says so and
//! passes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use flowlog::log_service::query::{Engine, EngineConfig, QueryRequest};
use flowlog::log_service::store::{Snapshot, Store, StoreConfig};
use flowlog::log_service::types::{Log, LogBatch, LogstoreKey};
use serde_json::{Value, json};

#[path = "duckdb/questions.rs"]
mod questions;

/// How many records are asked about.
const RECORDS: u32 = 12_000;
/// A midnight; the records are of the day after it.
const MIDNIGHT: u32 = 1_795_305_600;

/// Numbers that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

fn records() -> Vec<Log> {
    let mut numbers = Numbers(7);
    (0..RECORDS)
        .map(|index| record(index, &mut numbers))
        .collect()
}

fn record(index: u32, numbers: &mut Numbers) -> Log {
    let eni = 1 + numbers.below(6);
    let start = MIDNIGHT + (index * 7) / 60 * 60;
    let mut fields = vec![
        ("version", "1".to_owned()),
        ("vswitch-id", format!("vsw-{}", eni % 2)),
        (
            "vm-id",
            if eni == 6 {
                "-".to_owned()
            } else {
                format!("i-{eni}")
            },
        ),
        ("vpc-id", "vpc-1".to_owned()),
        ("account-id", "1".to_owned()),
        ("eni-id", format!("eni-{eni}")),
        ("start", start.to_string()),
        ("end", (start + 60).to_string()),
    ];
    let status = match numbers.below(50) {
        0 => "NODATA",
        1 => "SKIPDATA",
        _ => "OK",
    };
    fields.push(("log-status", status.to_owned()));
    if status != "NODATA" {
        let packets = 1 + numbers.below(100);
        fields.push(("direction", numbers.one_of(&["in", "out"]).to_owned()));
        fields.push(("packets", packets.to_string()));
        fields.push(("bytes", (packets * (40 + numbers.below(1460))).to_string()));
    }
    if status == "OK" {
        let scans = numbers.below(60) == 0;
        let six = !scans && numbers.below(5) == 0;
        let mut address = || match (six, numbers.below(8)) {
            (true, _) => format!("fd00:{}::{:x}", numbers.below(2) + 1, numbers.below(20) + 1),
            (false, 0) => format!("203.0.113.{}", numbers.below(9) + 1),
            (false, _) => format!("10.0.{}.{}", numbers.below(3) + 1, numbers.below(12) + 1),
        };
        // One that scans, and is always refused.
        fields.push((
            "srcaddr",
            if scans {
                "198.51.100.7".to_owned()
            } else {
                address()
            },
        ));
        fields.push((
            "dstaddr",
            if scans {
                "10.0.1.1".to_owned()
            } else {
                address()
            },
        ));
        let tcp = numbers.below(3) > 0;
        fields.push((
            "srcport",
            numbers
                .one_of(&["22", "53", "80", "443", "40000", "40001"])
                .to_owned(),
        ));
        fields.push((
            "dstport",
            numbers
                .one_of(&["22", "23", "53", "80", "443", "3306", "40000", "40001"])
                .to_owned(),
        ));
        fields.push(("protocol", if tcp { "6" } else { "17" }.to_owned()));
        if tcp {
            fields.push((
                "tcp-flags",
                numbers.one_of(&["2", "18", "19", "27", "6"]).to_owned(),
            ));
        }
        fields.push(("type", if six { "IPv6" } else { "IPv4" }.to_owned()));
        let action = if scans {
            "REJECT"
        } else {
            numbers.one_of(&["ACCEPT", "ACCEPT", "ACCEPT", "REJECT"])
        };
        fields.push(("action", action.to_owned()));
    }
    let contents = fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    Log {
        time: start + 60,
        time_ns: None,
        contents,
    }
}

/// The virtual environment's interpreter, if it has DuckDB.
fn python() -> Option<PathBuf> {
    let targets = [
        std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from),
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")),
    ];
    let python = targets
        .into_iter()
        .flatten()
        .map(|target| target.join("python/bin/python"))
        .find(|python| python.exists())?;
    let import = Command::new(&python)
        .args(["-c", "import duckdb"])
        .stderr(Stdio::null())
        .status()
        .ok()?;
    import.success().then_some(python)
}

/// DuckDB's answers.
fn theirs(python: &Path, folder: &Path) -> Vec<Vec<Vec<Option<String>>>> {
    let files = folder.join("store/**/*.parquet");
    let asked: Vec<&str> = questions::QUESTIONS
        .iter()
        .map(|question| question.theirs)
        .collect();
    let mut child = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/duckdb/answer.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(
            json!({"files": files, "questions": asked})
                .to_string()
                .as_bytes(),
        )
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The logs, of which the last part is in memory for Flowlog. All are in files, for DuckDB, when this returns.
async fn snapshot(folder: &Path) -> Snapshot {
    let store = Store::open(StoreConfig::new(folder.join("store")))
        .await
        .unwrap();
    let key = LogstoreKey {
        project: "project-1".parse().unwrap(),
        logstore: "logstore-1".parse().unwrap(),
    };
    let put = async |logs: &[Log]| {
        let batch = LogBatch {
            topic: "flow_log".to_owned(),
            source: "host-1".to_owned(),
            tags: Vec::new(),
            logs: logs.to_vec(),
        };
        let put = store.put(&key, vec![batch], None, SystemTime::now());
        put.await.unwrap();
    };
    let records = records();
    let (filed, kept) = records.split_at(records.len() / 6 * 5);
    for logs in filed.chunks(1000) {
        put(logs).await;
    }
    store.flush(SystemTime::now()).await.unwrap();
    put(kept).await;
    let snapshot = store.snapshot(&key, 0, u32::MAX);
    assert!(!snapshot.batches.is_empty() && snapshot.files.len() > 1);
    store.flush(SystemTime::now()).await.unwrap();
    snapshot
}

#[test]
fn analysts_questions_are_answered_as_by_duckdb() {
    assert!(questions::QUESTIONS.len() >= 30);
    let Some(python) = python() else {
        println!("skipped: there is no DuckDB in target/python");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let threads = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let snapshot = threads.block_on(snapshot(folder.path()));
    let theirs = theirs(&python, folder.path());
    let engine = Engine::new(EngineConfig::new(folder.path().join("spill"))).unwrap();
    for (question, theirs) in questions::QUESTIONS.iter().zip(theirs) {
        let request = QueryRequest {
            to: u32::MAX,
            query: question.ours.to_owned(),
            ..QueryRequest::default()
        };
        let result = threads.block_on(engine.query("account", snapshot.clone(), request));
        let result = result.unwrap_or_else(|error| panic!("{}: {error}", question.ours));
        let columns = result.columns();
        let ours: Vec<Vec<Option<String>>> = result
            .rows()
            .unwrap()
            .iter()
            .map(|row| {
                columns
                    .iter()
                    .map(|column| row[column].as_str().map(str::to_owned))
                    .collect()
            })
            .collect();
        assert!(
            !theirs.is_empty(),
            "nothing is asked by {}",
            question.theirs
        );
        assert_eq!(ours.len(), theirs.len(), "{}", question.ours);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let same = ours.len() == theirs.len()
                && ours
                    .iter()
                    .zip(theirs)
                    .all(|(ours, theirs)| is_same(ours.as_deref(), theirs.as_deref()));
            assert!(same, "{}: {ours:?} is not {theirs:?}", question.ours);
        }
    }
}

/// Whether the values are the same; numbers with a fraction, to nine digits.
fn is_same(ours: Option<&str>, theirs: Option<&str>) -> bool {
    let fraction = |text: Option<&str>| {
        text.filter(|text| text.contains(['.', 'e']))
            .and_then(|text| text.parse::<f64>().ok())
    };
    match (fraction(ours), fraction(theirs)) {
        (Some(ours), Some(theirs)) => (ours - theirs).abs() <= theirs.abs() * 1e-9,
        _ => ours == theirs,
    }
}

/// A value that JSON has for nothing is nothing.
#[test]
fn values_are_compared_as_they_are_meant() {
    assert!(is_same(Some("0.1"), Some("0.10000000000000001")));
    assert!(!is_same(Some("1"), Some("2")) && !is_same(None, Some("1")) && is_same(None, None));
    assert_eq!(Value::Null.as_str(), None);
}
