//! The store on a disk that is full, and has room again. Needs root, for a file system of its own.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]
use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flowlog::log_service::{
    store::{Position, PutError, Store, StoreConfig},
    types::{Log, LogBatch, LogstoreKey},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

mod skip;

const NOW: u32 = 1_795_305_600;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW.into())
}

/// A file system of 24 MiB which this thread and those that it starts see, and nobody else.
fn small_disk(folder: &Path) -> Result<(), nix::Error> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )?;
    mount(
        Some("tmpfs"),
        folder,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=24m"),
    )
}

fn key() -> LogstoreKey {
    LogstoreKey {
        project: "tests".parse().unwrap(),
        logstore: "logstore".parse().unwrap(),
    }
}

/// Logs that do not compress well.
fn logs(put: u32) -> Vec<LogBatch> {
    let log = |number: u32| {
        let mut seed = u64::from(put) << 32 | u64::from(number) | 1;
        let noise: String = (0..32)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                format!("{seed:016x}")
            })
            .collect();
        Log {
            time: NOW,
            time_ns: None,
            contents: vec![
                ("name".into(), format!("{put}-{number}")),
                ("noise".into(), noise),
            ],
        }
    };
    vec![LogBatch {
        logs: (0..64).map(log).collect(),
        ..LogBatch::default()
    }]
}

async fn names(store: &Store) -> Vec<String> {
    let mut names = Vec::new();
    let mut cursor = store.cursor(&key(), Position::Begin);
    loop {
        let (batches, next) = store.pull(&key(), cursor, 100_000).await.unwrap();
        if batches.is_empty() {
            return names;
        }
        names.extend(
            batches
                .iter()
                .flat_map(|batch| &batch.logs)
                .map(|log| log.contents[0].1.clone()),
        );
        cursor = next;
    }
}

/// Puts until the disk is full; gives the puts that were stored.
async fn fill(store: &Store, first: u32) -> Vec<u32> {
    let mut stored = Vec::new();
    for put in first..first + 10_000 {
        match store.put(&key(), logs(put), None, now()).await {
            Ok(()) => stored.push(put),
            Err(PutError::DiskFull { .. }) => return stored,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the disk does not fill");
}

fn expected(puts: &[u32]) -> Vec<String> {
    puts.iter()
        .flat_map(|put| (0..64).map(move |number| format!("{put}-{number}")))
        .collect()
}

fn on_a_small_disk(free_octets: u64) {
    let folder = tempfile::tempdir().unwrap();
    if let Err(error) = small_disk(folder.path()) {
        skip::skip(
            "store_disk_full",
            &format!("a file system of its own cannot be mounted: {error}"),
        );
        return;
    }
    let ballast = folder.path().join("ballast");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let config = StoreConfig {
            free_octets,
            ..StoreConfig::new(folder.path().join("store"))
        };
        fs::write(&ballast, vec![0; 4 << 20]).unwrap();
        let store = Store::open(config.clone()).await.unwrap();
        let mut stored = fill(&store, 0).await;
        assert!(stored.len() > 10);
        assert_eq!(names(&store).await, expected(&stored));
        // A store that is opened on a full disk has what was acknowledged, and goes on when there is room.
        drop(store);
        let store = match Store::open(config.clone()).await {
            Ok(store) => store,
            Err(error) => {
                assert!(error.to_string().contains("No space left"), "{error}");
                fs::remove_file(&ballast).unwrap();
                Store::open(config.clone()).await.unwrap()
            }
        };
        assert_eq!(names(&store).await, expected(&stored));
        let _ = fs::remove_file(&ballast);
        let more = fill(&store, 20_000).await;
        assert!(!more.is_empty());
        stored.extend(more);
        // Maintenance does what it can, and loses nothing.
        let flushed = store.flush(now()).await;
        assert_eq!(names(&store).await, expected(&stored));
        if free_octets == 0 {
            // Without room of its own it cannot even say that something is gone.
            return;
        }
        flushed.unwrap();
        store.maintain(now(), |_| None).await.ok();
        assert_eq!(names(&store).await, expected(&stored));
        // Retention makes room.
        let later = now() + Duration::from_secs(3 * 86_400);
        store.drop_logstore(&key()).await.unwrap();
        store.maintain(later, |_| Some(1)).await.unwrap();
        assert!(names(&store).await.is_empty());
        let last = fill(&store, 40_000).await;
        assert!(last.len() > 10);
        assert_eq!(names(&store).await, expected(&last));
    });
}

#[test]
fn a_full_disk_refuses_puts_and_loses_nothing() {
    on_a_small_disk(12 << 20);
}

#[test]
fn a_disk_that_is_full_to_the_last_octet_loses_nothing() {
    on_a_small_disk(0);
}
