//! Logs, and an engine that queries them.
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::path::Path;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::log_service::query::{Engine, EngineConfig, QueryError, QueryRequest, QueryResult};
use crate::log_service::store::schema::TIME;
use crate::log_service::store::{DataFile, Snapshot, Store, StoreConfig, schema};
use crate::log_service::types::{Log, LogBatch, LogstoreKey};

/// A log of these keys and values.
pub(super) fn log(time: u32, contents: &[(&str, &str)]) -> Log {
    let contents = contents
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Log {
        time,
        time_ns: None,
        contents,
    }
}

/// A batch of the topic that flow logs have.
pub(super) fn batch(logs: Vec<Log>) -> LogBatch {
    LogBatch {
        topic: "flow_log".to_owned(),
        source: "host-1".to_owned(),
        tags: Vec::new(),
        logs,
    }
}

/// An engine with its folder, and logs of which the first part is in a Parquet file and the rest is in memory.
pub(super) struct Fixture {
    pub(super) engine: Engine,
    pub(super) snapshot: Snapshot,
    pub(super) folder: TempDir,
    threads: tokio::runtime::Runtime,
}

impl Fixture {
    /// All of the logs may be in one file, or none.
    pub(super) fn new(batches: &[LogBatch], in_file: usize) -> Self {
        Self::with(batches, in_file, |_| {})
    }

    pub(super) fn with(
        batches: &[LogBatch],
        in_file: usize,
        change: impl FnOnce(&mut EngineConfig),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = EngineConfig::new(folder.path().join("spill"));
        config.threads = 2;
        config.time_limit = Duration::from_secs(300);
        change(&mut config);
        let threads = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let snapshot = threads.block_on(snapshot(&folder, batches, in_file));
        Self {
            engine: Engine::new(config).unwrap(),
            snapshot,
            folder,
            threads,
        }
    }

    /// All logs are in files of their hours, as the store writes them; one thread reads them.
    pub(super) fn hourly(batches: &[LogBatch]) -> Self {
        let mut fixture = Self::with(&[], 0, |config| config.threads = 1);
        let folder = fixture.folder.path().join("hourly");
        fixture.snapshot = fixture.wait(async {
            let store = Store::open(StoreConfig::new(folder)).await.unwrap();
            put(&store, &key(), batches.to_vec()).await;
            store.flush(SystemTime::now()).await.unwrap();
            store.snapshot(&key(), 0, u32::MAX)
        });
        fixture
    }

    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.threads.block_on(work)
    }

    pub(super) fn request(&self, request: QueryRequest) -> Result<QueryResult, QueryError> {
        self.wait(self.engine.query("account", self.snapshot.clone(), request))
    }

    pub(super) fn query(&self, query: &str) -> Result<QueryResult, QueryError> {
        self.request(QueryRequest {
            to: u32::MAX,
            query: query.to_owned(),
            line: 100_000,
            ..QueryRequest::default()
        })
    }

    /// The rows that the query finds.
    pub(super) fn rows(&self, query: &str) -> Vec<Map<String, Value>> {
        self.query(query)
            .unwrap_or_else(|error| panic!("{query}: {error}"))
            .rows()
            .unwrap()
    }

    /// The rows of an SQL, each with its values in the columns' order and spaces between them.
    pub(super) fn table(&self, query: &str) -> Vec<String> {
        let result = self
            .query(query)
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        let columns = result.columns();
        let value = |row: &Map<String, Value>, column: &String| match &row[column] {
            Value::Null => "NULL".to_owned(),
            Value::String(text) => text.clone(),
            other => panic!("{other} is no text"),
        };
        let line = |row: &Map<String, Value>| {
            columns
                .iter()
                .map(|column| value(row, column))
                .collect::<Vec<_>>()
                .join(" ")
        };
        result.rows().unwrap().iter().map(line).collect()
    }

    /// What is wrong with the query.
    pub(super) fn error(&self, query: &str) -> String {
        match self.query(query) {
            Ok(result) => panic!("{query}: {:?}", result.rows()),
            Err(error) => {
                assert!(matches!(error, QueryError::Wrong(_)), "{query}: {error:?}");
                error.to_string()
            }
        }
    }
}

async fn snapshot(folder: &TempDir, batches: &[LogBatch], in_file: usize) -> Snapshot {
    let store = Store::open(StoreConfig::new(folder.path().join("store")))
        .await
        .unwrap();
    let key = key();
    let (filed, kept) = split(batches, in_file);
    let mut files = Vec::new();
    if !filed.is_empty() {
        put(&store, &key, filed).await;
        let rows = concat_batches(&schema(), &store.snapshot(&key, 0, u32::MAX).batches).unwrap();
        store.flush(SystemTime::now()).await.unwrap();
        let alike = Arc::clone(&store.snapshot(&key, 0, u32::MAX).files[0]);
        files.push(Arc::new(write(folder, &rows, &alike)));
    }
    if !kept.is_empty() {
        put(&store, &key, kept).await;
    }
    Snapshot {
        batches: store.snapshot(&key, 0, u32::MAX).batches,
        files,
        objects: Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap()),
    }
}

fn key() -> LogstoreKey {
    LogstoreKey {
        project: "project-1".parse().unwrap(),
        logstore: "logstore-1".parse().unwrap(),
    }
}

async fn put(store: &Store, key: &LogstoreKey, batches: Vec<LogBatch>) {
    let put = store.put(key, batches, None, SystemTime::now());
    put.await.unwrap();
}

/// The batches with the first so many logs, and those with the others.
fn split(batches: &[LogBatch], at: usize) -> (Vec<LogBatch>, Vec<LogBatch>) {
    let mut left = at;
    let parts = batches.iter().map(|batch| {
        let (first, rest) = batch.logs.split_at(left.min(batch.logs.len()));
        left -= first.len();
        let with = |logs: &[Log]| LogBatch {
            logs: logs.to_vec(),
            ..batch.clone()
        };
        (with(first), with(rest))
    });
    let (mut first, mut rest): (Vec<_>, Vec<_>) = parts.unzip();
    first.retain(|batch| !batch.logs.is_empty());
    rest.retain(|batch| !batch.logs.is_empty());
    (first, rest)
}

/// Writes a file as the store does, but with row groups so small that there are several to prune.
fn write(folder: &TempDir, rows: &RecordBatch, alike: &DataFile) -> DataFile {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(64))
        .set_bloom_filter_enabled(true)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    let octets = writer.into_inner().unwrap();
    std::fs::write(folder.path().join("logs.parquet"), &octets).unwrap();
    let times = rows
        .column_by_name(TIME)
        .unwrap()
        .as_primitive::<Int64Type>()
        .values();
    let time = |time: Option<&i64>| u32::try_from(*time.unwrap()).unwrap();
    DataFile {
        path: Path::from("logs.parquet"),
        octets: octets.len() as u64,
        rows: rows.num_rows() as u64,
        min_time: time(times.iter().min()),
        max_time: time(times.iter().max()),
        ..alike.clone()
    }
}
