use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::log_service::types::Log;

mod columns;
mod failures;
mod frames;
mod maintenance;
mod manifest;
mod puts;

/// 2026-11-22 00:00 UTC.
pub(super) const MIDNIGHT: u32 = 1_795_305_600;

pub(super) fn at(seconds: u32) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.into())
}

pub(super) fn key(logstore: &str) -> LogstoreKey {
    LogstoreKey {
        project: "tests".parse().unwrap(),
        logstore: logstore.parse().unwrap(),
    }
}

/// A store that keeps no room free: the disk of tests may be small.
pub(super) fn config(folder: &Path) -> StoreConfig {
    StoreConfig {
        free_octets: 0,
        ..StoreConfig::new(folder)
    }
}

pub(super) async fn open(folder: &Path) -> Store {
    Store::open(config(folder)).await.unwrap()
}

/// A log of an ENI, named so that it can be found again.
pub(super) fn log(time: u32, eni: &str, name: &str) -> Log {
    let contents = [
        ("eni-id", eni),
        ("srcaddr", "10.0.0.1"),
        ("dstport", "443"),
        ("packets", "7"),
        ("action", "ACCEPT"),
        ("name", name),
    ];
    Log {
        time,
        time_ns: None,
        contents: contents
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
    }
}

pub(super) fn batch(logs: Vec<Log>) -> Vec<LogBatch> {
    vec![LogBatch {
        topic: "flow_log".into(),
        logs,
        ..LogBatch::default()
    }]
}

/// The batches' logs as columns.
pub(super) fn contents_of(batches: &[LogBatch]) -> Result<RecordBatch, PutError> {
    let mut gathered = Gathered::new(0, usize::MAX);
    gathered.add_batches(batches)?;
    Ok(gathered.prepare()?.contents)
}

pub(super) fn names_of(batches: &[LogBatch]) -> Vec<String> {
    batches
        .iter()
        .flat_map(|batch| &batch.logs)
        .map(|log| {
            log.contents
                .iter()
                .find(|(key, _)| key == "name")
                .unwrap()
                .1
                .clone()
        })
        .collect()
}

/// Everything that a snapshot has.
pub(super) async fn rows(snapshot: &Snapshot) -> RecordBatch {
    use object_store::ObjectStoreExt as _;
    let mut batches = snapshot.batches.clone();
    for file in &snapshot.files {
        let octets = snapshot
            .objects
            .get(&file.path)
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        assert_eq!(octets.len() as u64, file.octets);
        let reader = ParquetRecordBatchReaderBuilder::try_new(octets)
            .unwrap()
            .build()
            .unwrap();
        let read: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        assert_eq!(
            read.iter().map(RecordBatch::num_rows).sum::<usize>() as u64,
            file.rows
        );
        batches.extend(read);
    }
    arrow::compute::concat_batches(&schema(), &batches).unwrap()
}

/// The names of all logs of a logstore by a snapshot, sorted; held against those by pulling, which are in order of arrival.
pub(super) async fn names(store: &Store, key: &LogstoreKey) -> Vec<String> {
    let mut names = names_of(&to_batches(&rows(&store.snapshot(key, 0, u32::MAX)).await).unwrap());
    names.sort();
    let mut pulled = pulled(store, key, 3).await;
    pulled.sort();
    assert_eq!(names, pulled);
    names
}

/// The names of all logs in order of arrival, pulled `count` at a time.
pub(super) async fn pulled(store: &Store, key: &LogstoreKey, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut cursor = store.cursor(key, Position::Begin);
    loop {
        let (batches, next) = store.pull(key, cursor, count).await.unwrap();
        if batches.is_empty() {
            assert_eq!(next, store.cursor(key, Position::End));
            return names;
        }
        assert!(next > cursor);
        names.extend(names_of(&batches));
        cursor = next;
    }
}
