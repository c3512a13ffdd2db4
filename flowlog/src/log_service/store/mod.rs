//! The store: durable ingest, Parquet files, retention. What is on the disk, and after a crash at each step, is in `ARCHITECTURE.md`.
//!
//! ```text
//!  put ──▶ queue ──▶ writer ──▶ segment ──▶ memory ──▶ answer        one flush to the disk for all that is queued
//!                                   ▲           │ a generation is frozen
//!                                   │           ▼
//!                            removed when ◀── flush ──▶ Parquet files, manifest ──▶ compaction ──▶ retention
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `config`, `error` | the limits; what can go wrong |
//! | [`schema`], `columns` | the columns; from logs to columns and back |
//! | `prepare` | the logs of a put, ready to be written |
//! | `frame`, `segment`, `identities` | the write-ahead segments; what was stored already |
//! | `writer` | the one thread through which all puts go |
//! | `memory`, `shared` | rows that are in no file yet; what the parts have in common |
//! | `order`, `files`, `merge`, `manifest` | the order of rows, Parquet files, and which of them count |
//! | `maintenance` | flush, compaction, retention |
//! | `pull` | reading in order of arrival |
//! | `recovery` | what becomes of what is found on the disk |
//! | `durable`, `failpoint` | files that are there as a whole or not at all; where tests kill the store |
use std::{
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::SystemTime,
};

use arrow::array::RecordBatch;
use nix::fcntl::{Flock, FlockArg};
use object_store::ObjectStore;
use tokio::sync::oneshot;

mod columns;
mod config;
mod durable;
mod error;
mod failpoint;
mod files;
mod frame;
mod identities;
mod maintenance;
mod manifest;
mod memory;
mod merge;
mod order;
mod prepare;
mod pull;
mod recovery;
pub mod schema;
mod segment;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

pub use columns::to_batches;
pub use config::StoreConfig;
pub use error::{PutError, StoreError};
pub use manifest::DataFile;
pub use prepare::{Gathered, Prepared, ROW_OCTETS};
pub use schema::schema;

use self::{
    files::Files,
    identities::Identities,
    manifest::Manifests,
    segment::Segments,
    shared::Shared,
    writer::{Put, Request, Writer},
};
use super::types::{LogBatch, LogstoreKey};

/// Most logs of one [`Store::pull`].
pub const MAX_PULL: usize = 100_000;
/// Puts of fewer logs are made columns of where they are.
const SMALL_PUT: usize = 64;

/// A place in a logstore's order of arrival: a `__seq__`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

/// Where a cursor is to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Before the oldest log that is still there.
    Begin,
    /// Behind the newest log.
    End,
    /// Before the first log that arrived at this time or later, in Unix seconds. Perhaps some that arrived before are behind it too: of
    /// the last minutes, and of the last hours where it is long ago.
    Arrived(u32),
}

/// All logs of a logstore within a range of time, each once, as they were at one moment. Its files are there as long as it is.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Rows that are in no file yet, with the columns of [`schema`], in order of arrival. They may be outside the range of time too.
    pub batches: Vec<RecordBatch>,
    /// Files with rows within the range of time, and perhaps outside it too.
    pub files: Vec<Arc<DataFile>>,
    /// Where the files are.
    pub objects: Arc<dyn ObjectStore>,
}

/// What the store has in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// Octets of rows in memory.
    pub memory_octets: u64,
    /// How many Parquet files there are.
    pub files: usize,
    /// Octets of these.
    pub file_octets: u64,
    /// How many logs they have.
    pub file_rows: u64,
}

/// The right to replace manifests, with the time of the last flush for age, in Unix seconds.
type LastFlush = tokio::sync::OwnedMutexGuard<Option<u32>>;

/// The store. Dropping it ends its writer, after what is queued is written.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    /// Held by whatever replaces manifests; with the time of the last flush for age.
    maintenance: Arc<tokio::sync::Mutex<Option<u32>>>,
}

impl Store {
    /// Opens the store, and brings back what was in memory when it ended.
    ///
    /// # Errors
    /// If its folder cannot be used, another process uses it, or what is in it is damaged.
    pub async fn open(config: StoreConfig) -> Result<Self, StoreError> {
        let folder = config.folder.clone();
        let io = |error| StoreError::io("cannot use the store's folder", &folder, error);
        durable::make_folder(&folder).map_err(io)?;
        let file = durable::create(&folder.join("lock")).map_err(io)?;
        let lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(
                |(_, error)| match error {
                    nix::errno::Errno::EWOULDBLOCK => StoreError::InUse(folder.clone()),
                    error => io(error.into()),
                },
            )?;
        let shared = Arc::new(Shared::new(
            config.clone(),
            lock,
            Segments::open(folder.join("wal")).map_err(io)?,
            Manifests::open(folder.join("manifests")).map_err(io)?,
            Files::open(folder.join("logs"))?,
            Identities::new(config.identities, config.identity_seconds),
        ));
        let recovering = Arc::clone(&shared);
        let generation = maintenance::blocking(move || recovery::recover(&recovering)).await?;
        let (requests, received) = mpsc::channel();
        let writer = Writer::new(Arc::clone(&shared), received, generation).map_err(io)?;
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(io)?;
        Ok(Self {
            shared,
            requests: Some(requests),
            writer: Some(writer),
            maintenance: Arc::default(),
        })
    }

    /// Stores logs. They are on the disk when this returns; what has an identity that the logstore has seen is not stored again.
    /// `now` is when they arrived.
    ///
    /// # Errors
    /// [`PutError`].
    pub async fn put(
        &self,
        key: &LogstoreKey,
        batches: Vec<LogBatch>,
        identity: Option<&str>,
        now: SystemTime,
    ) -> Result<(), PutError> {
        let logs = batches.iter().map(|batch| batch.logs.len()).sum();
        let mut gathered = self.gather(logs);
        let prepare = move || {
            gathered.add_batches(&batches)?;
            gathered.prepare()
        };
        let prepared = if logs < SMALL_PUT {
            prepare()?
        } else {
            let failed = |error: tokio::task::JoinError| PutError::Failed(error.to_string());
            tokio::task::spawn_blocking(prepare)
                .await
                .map_err(failed)??
        };
        self.put_prepared(key, prepared, identity, now).await
    }

    /// To gather about so many logs of a put.
    #[must_use]
    pub fn gather(&self, logs: usize) -> Gathered {
        Gathered::new(logs, self.shared.config.put_octets)
    }

    /// As [`Self::put`].
    ///
    /// # Errors
    /// [`PutError`].
    pub async fn put_prepared(
        &self,
        key: &LogstoreKey,
        prepared: Prepared,
        identity: Option<&str>,
        now: SystemTime,
    ) -> Result<(), PutError> {
        if prepared.contents.num_rows() == 0 {
            return Ok(());
        }
        let kib = u32::try_from(prepared.octets.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.shared.room)
            .try_acquire_many_owned(kib)
            .map_err(|_| PutError::Overloaded)?;
        if self.shared.in_memory() >= self.shared.config.memory_octets {
            self.shared.frozen.notify_one();
            return Err(PutError::Overloaded);
        }
        let (done, answer) = oneshot::channel();
        let put = Put {
            key: key.clone(),
            contents: prepared.contents,
            logs: prepared.frame,
            identity: identity.map(str::to_owned),
            arrived: maintenance::seconds(now),
            room,
            done,
        };
        let closed = || PutError::Failed("the store is closed".into());
        self.ask(Request::Put(put)).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    fn ask(&self, request: Request) -> Result<(), StoreError> {
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        requests.send(request).map_err(|_| StoreError::Closed)
    }

    /// All logs of a logstore with `from <= __time__ < to`, in Unix seconds. What was put before is in it.
    #[must_use]
    pub fn snapshot(&self, key: &LogstoreKey, from: u32, to: u32) -> Snapshot {
        let (batches, files) = self
            .shared
            .state()
            .logstores
            .get(key)
            .map(|logstore| logstore.within(from, to))
            .unwrap_or_default();
        Snapshot {
            batches,
            files,
            objects: Arc::clone(&self.shared.files.objects),
        }
    }

    /// The cursor at a position.
    #[must_use]
    pub fn cursor(&self, key: &LogstoreKey, position: Position) -> Cursor {
        let state = self.shared.state();
        let Some(logstore) = state.logstores.get(key) else {
            return Cursor(0);
        };
        let oldest = logstore
            .manifest
            .files
            .iter()
            .map(|file| file.min_sequence)
            .chain(logstore.rows.first().map(|rows| rows.first))
            .min()
            .unwrap_or(logstore.next);
        Cursor(match position {
            Position::Begin => oldest,
            Position::End => logstore.next,
            Position::Arrived(time) => {
                let in_files = logstore.manifest.arrivals.iter().copied();
                let in_memory = logstore.rows.iter().map(|rows| (rows.arrived, rows.first));
                // The last note before the time: those behind it may have arrived then. If there is none, all did.
                in_files
                    .chain(in_memory)
                    .take_while(|&(arrived, _)| arrived < time)
                    .last()
                    .map_or(oldest, |(_, sequence)| sequence)
                    .max(oldest)
            }
        })
    }

    /// Logs from the cursor on in their order of arrival, and the cursor behind them: at most `count` and [`MAX_PULL`], and fewer where
    /// retention has removed some. There are none only if there are none behind the cursor at all.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub async fn pull(
        &self,
        key: &LogstoreKey,
        cursor: Cursor,
        count: usize,
    ) -> Result<(Vec<LogBatch>, Cursor), StoreError> {
        let count = count.clamp(1, MAX_PULL) as u64;
        let (rows, end) = pull::pull(&self.shared, key, cursor.0, count).await?;
        Ok((to_batches(&rows)?, Cursor(end)))
    }

    /// Writes what is in memory to files, makes large files of small ones, and removes what is older than its logstore's retention, in
    /// days; none keeps it for ever. Called about every second, and when [`Self::flush_wanted`], by one task.
    ///
    /// # Errors
    /// The first, after all has been tried. Nothing is lost by it: what was not done is tried again the next time.
    pub async fn maintain(
        &self,
        now: SystemTime,
        ttl_days: impl Fn(&LogstoreKey) -> Option<u32>,
    ) -> Result<(), StoreError> {
        let keys: Vec<_> = self.shared.state().logstores.keys().cloned().collect();
        let keys = keys.into_iter().map(|key| (ttl_days(&key), key)).collect();
        let now = maintenance::seconds(now);
        let requests = self.requests.clone().ok_or(StoreError::Closed)?;
        let shared = Arc::clone(&self.shared);
        self.whole(|mut flushed| async move {
            let last = *flushed.get_or_insert(now);
            if now.abs_diff(last) >= shared.config.flush_seconds {
                freeze(&requests).await?;
                *flushed = Some(now);
            }
            maintenance::all(&shared, keys, now).await
        })
        .await
    }

    /// Writes all that is in memory to files.
    ///
    /// # Errors
    /// If that is not possible. Nothing is lost by it.
    pub async fn flush(&self, now: SystemTime) -> Result<(), StoreError> {
        let requests = self.requests.clone().ok_or(StoreError::Closed)?;
        let shared = Arc::clone(&self.shared);
        self.whole(|held| async move {
            let _held = held;
            freeze(&requests).await?;
            maintenance::flush(&shared, maintenance::seconds(now)).await
        })
        .await
    }

    /// Does what replaces manifests, one at a time, and to its end also if nobody waits for it any more: half of it would leave what is in
    /// memory behind what is on the disk.
    async fn whole<F>(&self, work: impl FnOnce(LastFlush) -> F) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let last = Arc::clone(&self.maintenance).lock_owned().await;
        tokio::spawn(work(last))
            .await
            .unwrap_or(Err(StoreError::Closed))
    }

    /// Waits until there is so much in memory that [`Self::maintain`] should be called at once.
    pub async fn flush_wanted(&self) {
        self.shared.frozen.notified().await;
    }

    /// Removes a logstore's logs. A logstore of that name can be used again at once, and has none of them.
    ///
    /// # Errors
    /// If the manifest that says so cannot be written. Then nothing is removed.
    pub async fn drop_logstore(&self, key: &LogstoreKey) -> Result<(), StoreError> {
        let requests = self.requests.clone().ok_or(StoreError::Closed)?;
        let (shared, key) = (Arc::clone(&self.shared), key.clone());
        self.whole(|held| async move {
            let _held = held;
            let (done, dropped) = oneshot::channel();
            let request = Request::Drop(key, done);
            requests.send(request).map_err(|_| StoreError::Closed)?;
            dropped.await.map_err(|_| StoreError::Closed)??;
            maintenance::remove_obsolete(&shared).await
        })
        .await
    }

    /// What the store has in hand.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        let state = self.shared.state();
        let files = || {
            state
                .logstores
                .values()
                .flat_map(|logstore| &logstore.manifest.files)
        };
        StoreStatus {
            memory_octets: self.shared.in_memory(),
            files: files().count(),
            file_octets: files().map(|file| file.octets).sum(),
            file_rows: files().map(|file| file.rows).sum(),
        }
    }
}

async fn freeze(requests: &mpsc::Sender<Request>) -> Result<(), StoreError> {
    let (done, frozen) = oneshot::channel();
    requests
        .send(Request::Freeze(done))
        .map_err(|_| StoreError::Closed)?;
    frozen.await.map_err(|_| StoreError::Closed)
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}
