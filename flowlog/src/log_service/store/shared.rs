//! What the writer, the readers and the maintenance have in common.
use std::{
    collections::HashMap,
    fs::File,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use nix::fcntl::Flock;
use tokio::sync::{Notify, Semaphore};

use super::{
    StoreConfig,
    files::Files,
    identities::Identities,
    manifest::{DataFile, Manifests},
    memory::Logstore,
    segment::Segments,
};
use crate::log_service::types::LogstoreKey;

/// What is known of all logstores. Its lock is held for moments only, never while something is read or written.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) logstores: HashMap<LogstoreKey, Logstore>,
    /// The generation that puts go to; those below are frozen.
    pub(super) generation: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: StoreConfig,
    /// Held as long as anything is being done.
    _lock: Flock<File>,
    pub(super) segments: Segments,
    pub(super) manifests: Manifests,
    pub(super) files: Files,
    pub(super) identities_file: PathBuf,
    state: Mutex<State>,
    identities: Mutex<Identities>,
    /// Files that no manifest names any more, until no snapshot needs them.
    obsolete: Mutex<Vec<Arc<DataFile>>>,
    /// Octets of rows in memory.
    in_memory: AtomicU64,
    /// What the queue has room for, in KiB.
    pub(super) room: Arc<Semaphore>,
    /// A generation was frozen for its size.
    pub(super) frozen: Notify,
    /// Of a manifest that was replaced, nobody knows which one the disk has after a loss of power. Until the store is opened anew, nothing is
    /// removed that either of them needs: no segment, and no file.
    in_doubt: AtomicBool,
}

impl Shared {
    pub(super) fn new(
        config: StoreConfig,
        lock: Flock<File>,
        segments: Segments,
        manifests: Manifests,
        files: Files,
        identities: Identities,
    ) -> Self {
        Self {
            identities_file: config.folder.join("identities"),
            room: Arc::new(Semaphore::new(config.queue_kib as usize)),
            config,
            _lock: lock,
            segments,
            manifests,
            files,
            state: Mutex::default(),
            identities: Mutex::new(identities),
            obsolete: Mutex::default(),
            in_memory: AtomicU64::new(0),
            frozen: Notify::new(),
            in_doubt: AtomicBool::new(false),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn identities(&self) -> MutexGuard<'_, Identities> {
        self.identities
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn obsolete(&self) -> MutexGuard<'_, Vec<Arc<DataFile>>> {
        self.obsolete.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Relaxed)
    }

    pub(super) fn in_memory(&self) -> u64 {
        self.in_memory.load(Ordering::Relaxed)
    }

    pub(super) fn grow(&self, octets: i64) {
        if octets < 0 {
            self.shrink(octets.unsigned_abs());
        } else {
            self.in_memory
                .fetch_add(octets.unsigned_abs(), Ordering::Relaxed);
        }
    }

    pub(super) fn shrink(&self, octets: u64) {
        self.in_memory.fetch_sub(octets, Ordering::Relaxed);
    }
}
