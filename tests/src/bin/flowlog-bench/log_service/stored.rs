//! A logstore with the records of a day, put through the store's own API.
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use flowlog::log_service::{
    store::{PutError, Snapshot, Store, StoreConfig, StoreStatus},
    types::LogstoreKey,
};
use flowlog_model::log_group::{GroupView, LogGroupError};
use tokio::task::JoinSet;

use super::traffic::{Traffic, WINDOW_SECONDS};

/// 2026-11-22 00:00 UTC.
pub(crate) const MIDNIGHT: u64 = 1_795_305_600;
/// Seconds of a day.
pub(crate) const DAY: u64 = 86_400;

/// Records of a put. More than an agent sends, so that there are fewer flushes to the disk.
const PUT: usize = 16_384;
/// Puts at once.
const AT_ONCE: usize = 4;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn key() -> Result<LogstoreKey> {
    Ok(LogstoreKey {
        project: "bench".parse()?,
        logstore: "records".parse()?,
    })
}

/// Where the records are that are asked for.
pub(crate) struct Stored {
    /// Held, for it is the snapshot's.
    _store: Store,
    pub(crate) snapshot: Snapshot,
    pub(crate) status: StoreStatus,
}

impl Stored {
    /// Opens a store in the folder; where it is empty, it gets about so many records of a day first.
    pub(crate) async fn open(folder: &Path, records: usize) -> Result<Self> {
        let store = Arc::new(Store::open(StoreConfig::new(folder)).await?);
        if store.status().files == 0 {
            fill(&store, records).await?;
        }
        let status = store.status();
        let from = u32::try_from(MIDNIGHT)?;
        let snapshot = store.snapshot(&key()?, from, from + u32::try_from(DAY)?);
        ensure!(
            snapshot.batches.is_empty() && status.file_rows > 0,
            "not all is in files"
        );
        Ok(Self {
            _store: Arc::into_inner(store).context("nobody else has the store")?,
            snapshot,
            status,
        })
    }
}

async fn fill(store: &Arc<Store>, records: usize) -> Result<()> {
    let mut traffic = Traffic::new();
    let windows = DAY / WINDOW_SECONDS;
    for window in 0..windows {
        // A log's time is the end of its window: that of the last is within the day too.
        let start = MIDNIGHT + window * WINDOW_SECONDS - WINDOW_SECONDS;
        let now = at(start + WINDOW_SECONDS);
        let mut puts = JoinSet::new();
        for group in traffic.groups(start, records / usize::try_from(windows)?, PUT) {
            if puts.len() == AT_ONCE {
                puts.join_next().await.context("a put")???;
            }
            let store = Arc::clone(store);
            puts.spawn(async move { put(&store, group, now).await });
        }
        while let Some(done) = puts.join_next().await {
            done??;
        }
        store.maintain(now, |_| None).await?;
    }
    store.flush(at(MIDNIGHT + DAY)).await?;
    // Every hour is over and quiet by then.
    let much_later = at(MIDNIGHT + 2 * DAY);
    let mut before = None;
    while before != Some(store.status().files) {
        before = Some(store.status().files);
        store.maintain(much_later, |_| None).await?;
    }
    Ok(())
}

async fn put(store: &Arc<Store>, group: Vec<u8>, now: SystemTime) -> Result<()> {
    let gathering = Arc::clone(store);
    let prepare = move || -> Result<_> {
        let view = GroupView::read(&group)?;
        let mut gathered = gathering.gather(view.logs());
        gathered.begin(view.topic, view.source, view.tags.iter().copied());
        view.each_log(|log| -> Result<(), Failed> {
            let text = |value| std::str::from_utf8(value).unwrap_or_default();
            let contents = log
                .contents
                .iter()
                .map(|&(key, value)| (key, text(value).into()));
            Ok(gathered.add(log.time, log.time_ns, contents)?)
        })?;
        Ok(gathered.prepare()?)
    };
    let prepared = tokio::task::spawn_blocking(prepare).await??;
    store.put_prepared(&key()?, prepared, None, now).await?;
    Ok(())
}

/// Why a group cannot be gathered.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Group(#[from] LogGroupError),
    #[error(transparent)]
    Put(#[from] PutError),
}
