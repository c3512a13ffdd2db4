//! The writer: one thread through which all puts go, so that they have an order and share their flushes to the disk (group commit).
//!
//! It takes what is queued, appends it to the segment, waits once until all of it is on the disk, adds it to memory, and answers.
use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, mpsc},
};

use arrow::array::RecordBatch;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    PutError, StoreError, columns, durable, failpoint,
    frame::{self, Head},
    identities::Identity,
    memory::Rows,
    segment::Segment,
    shared::Shared,
};
use crate::log_service::types::LogstoreKey;

/// Octets that are written with one flush to the disk, at most by one put more.
const GROUP_OCTETS: usize = 16 << 20;

/// What the writer is asked for.
pub(super) enum Request {
    Put(Put),
    /// To freeze the generation if it has anything.
    Freeze(oneshot::Sender<()>),
    /// To remove a logstore.
    Drop(LogstoreKey, oneshot::Sender<Result<(), StoreError>>),
}

/// Logs to be stored.
pub(super) struct Put {
    pub(super) key: LogstoreKey,
    pub(super) contents: RecordBatch,
    /// `contents` as a frame has it.
    pub(super) logs: Vec<u8>,
    pub(super) identity: Option<String>,
    /// In Unix seconds.
    pub(super) arrived: u32,
    /// Its place in the queue.
    pub(super) room: OwnedSemaphorePermit,
    pub(super) done: oneshot::Sender<Result<(), PutError>>,
}

/// A put that has its place in the order.
struct Placed {
    put: Put,
    identity: Option<Identity>,
    rows: Rows,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    segment: Segment,
    generation: u64,
    /// Octets of memory when the generation began.
    memory_before: u64,
}

impl Writer {
    /// Begins a generation of its own.
    pub(super) fn new(
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
        generation: u64,
    ) -> io::Result<Self> {
        let segment = shared.segments.create(generation)?;
        shared.state().generation = generation;
        Ok(Self {
            memory_before: shared.in_memory(),
            shared,
            requests,
            segment,
            generation,
        })
    }

    /// Serves until nobody can ask any more.
    pub(super) fn run(mut self) {
        while let Ok(first) = self.requests.recv() {
            let (mut group, mut octets) = (Vec::new(), 0);
            let mut next = Some(first);
            let mut other = None;
            while let Some(request) = next.take() {
                match request {
                    Request::Put(put) => {
                        octets += put.logs.len();
                        group.push(put);
                    }
                    request => other = Some(request),
                }
                if other.is_none() && octets < GROUP_OCTETS {
                    next = self.requests.try_recv().ok();
                }
            }
            if !group.is_empty() {
                self.commit(group);
            }
            match other {
                Some(Request::Freeze(done)) => {
                    self.freeze();
                    let _ = done.send(());
                }
                Some(Request::Drop(key, done)) => {
                    let _ = done.send(self.remove(&key));
                }
                Some(Request::Put(_)) | None => {}
            }
        }
    }

    /// Stores a group of puts, all or none of them.
    fn commit(&mut self, group: Vec<Put>) {
        if self.segment.is_broken() {
            self.freeze();
        }
        let (placed, repeated) = self.place(group);
        let stored = self.append(&placed);
        if let Err(error) = &stored {
            tracing::warn!(
                "{} logs are refused: {error}",
                placed.iter().map(|placed| placed.rows.len()).sum::<usize>()
            );
        }
        failpoint::reached("put-written");
        let mut answers = Vec::with_capacity(placed.len() + repeated.len());
        {
            let mut state = self.shared.state();
            let mut identities = self.shared.identities();
            for Placed {
                put,
                identity,
                rows,
            } in placed
            {
                let logstore = state.logstores.entry(put.key).or_default();
                if stored.is_ok() {
                    if let Some(identity) = identity {
                        identities.insert(identity, put.arrived);
                    }
                    self.shared.grow(logstore.push(rows));
                } else {
                    // Perhaps they are on the disk all the same: no other logs may have their numbers.
                    logstore.next = logstore.next.max(rows.end());
                }
                answers.push((put.done, put.room));
            }
        }
        answers.extend(repeated.into_iter().map(|put| (put.done, put.room)));
        for (done, room) in answers {
            drop(room);
            let _ = done.send(stored.clone());
        }
        let grown = self.shared.in_memory().saturating_sub(self.memory_before);
        let config = &self.shared.config;
        if grown >= config.generation_octets || self.segment.octets() >= config.generation_octets {
            self.freeze();
            self.shared.frozen.notify_one();
        }
    }

    /// Gives each put its place in its logstore; and the puts that are stored already, or are twice in the group.
    fn place(&self, group: Vec<Put>) -> (Vec<Placed>, Vec<Put>) {
        let (mut placed, mut repeated) = (Vec::with_capacity(group.len()), Vec::new());
        let mut next: HashMap<LogstoreKey, u64> = HashMap::new();
        let mut seen = HashSet::new();
        let state = self.shared.state();
        let identities = self.shared.identities();
        for put in group {
            let (incarnation, after) = state.logstores.get(&put.key).map_or((0, 0), |logstore| {
                (logstore.manifest.incarnation, logstore.next)
            });
            let identity = put
                .identity
                .as_deref()
                .map(|identity| Identity::new(&put.key, incarnation, identity));
            if identity
                .is_some_and(|identity| identities.contains(identity) || !seen.insert(identity))
            {
                repeated.push(put);
                continue;
            }
            let first = next.entry(put.key.clone()).or_insert(after);
            // Below 2^63 for as long as anybody will live.
            let sequence = i64::try_from(*first).unwrap_or(i64::MAX);
            let Ok(batch) = columns::with_sequence(&put.contents, sequence) else {
                let _ = put.done.send(Err(PutError::Failed(
                    "its columns are not those of the store".into(),
                )));
                continue;
            };
            let rows = Rows::new(batch, self.generation, *first, put.arrived);
            *first = rows.end();
            placed.push(Placed {
                put,
                identity,
                rows,
            });
        }
        (placed, repeated)
    }

    fn append(&mut self, placed: &[Placed]) -> Result<(), PutError> {
        if placed.is_empty() {
            return Ok(());
        }
        let mut frames = Vec::with_capacity(
            placed
                .iter()
                .map(|placed| placed.put.logs.len() + 256)
                .sum(),
        );
        for Placed {
            put,
            identity,
            rows,
        } in placed
        {
            let head = Head {
                key: &put.key,
                first: rows.first,
                arrived: rows.arrived,
                identity: *identity,
            };
            frame::append(&mut frames, &head, &put.logs);
        }
        let full = PutError::DiskFull {
            free_octets: self.shared.config.free_octets,
        };
        let free = durable::free_octets(self.shared.segments.folder())
            .map_err(|error| PutError::Failed(error.to_string()))?;
        if free
            < self
                .shared
                .config
                .free_octets
                .saturating_add(frames.len() as u64)
        {
            return Err(full);
        }
        self.segment
            .append(&frames)
            .map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full,
                _ => PutError::Failed(error.to_string()),
            })
    }

    /// Begins another generation, if this one has anything. If that is not possible, it goes on with this one.
    fn freeze(&mut self) {
        if self.segment.octets() == 0 && !self.segment.is_broken() {
            return;
        }
        match self.shared.segments.create(self.generation + 1) {
            Ok(segment) => {
                self.segment = segment;
                self.generation += 1;
                self.memory_before = self.shared.in_memory();
                self.shared.state().generation = self.generation;
                failpoint::reached("generation-frozen");
            }
            Err(error) => tracing::warn!(
                "cannot begin a write-ahead segment in {}: {error}",
                self.shared.segments.folder().display()
            ),
        }
    }

    fn remove(&self, key: &LogstoreKey) -> Result<(), StoreError> {
        let (manifest, files) = match self.shared.state().logstores.get(key) {
            Some(logstore) => (
                logstore.manifest.removed(logstore.next),
                logstore.manifest.files.clone(),
            ),
            None => return Ok(()),
        };
        self.shared
            .manifests
            .save(key, &manifest)
            .map_err(|error| StoreError::Io {
                what: format!("cannot remove the logstore {key}"),
                error: error.into(),
            })?;
        failpoint::reached("logstore-removed");
        if let Some(logstore) = self.shared.state().logstores.get_mut(key) {
            self.shared.grow(-logstore.take_over(manifest));
        }
        self.shared.obsolete().extend(files);
        Ok(())
    }
}
