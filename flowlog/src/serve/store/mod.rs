//! The service's state on the disk: one SQLite file.
//!
//! - Write-ahead log with `synchronous = FULL`: what was answered is on the disk.
//! - One connection, so that changes are serialised; every change is one transaction, which takes the write lock as it begins.
//! - `schema` has the versioned migrations. A file of a later version is refused.
mod schema;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, ffi};

use super::error::ApiError;
use super::secrets::write_owner_only;
use super::service::presence;

/// The file, in the data folder.
pub const STATE_FILE: &str = "flowlog.sqlite";

/// How long a statement waits for another process, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// All pages at once: a write between two steps, by another connection, would have the backup begin anew, under a steady load for ever.
/// The service writes on meanwhile: with a write-ahead log, nobody waits for who reads.
const ALL_PAGES: i32 = -1;

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's word.
    #[error("the state {}: {source}", .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A file of a later version of this program.
    #[error(
        "the state {} has version {found}, and this program knows versions up to {known}: use the newer program",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The latest version that is known.
        known: usize,
    },
    /// A file that cannot be made.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The state.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
}

impl Store {
    /// Opens the state in the data folder, makes it where there is none, and brings it to the latest version.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(STATE_FILE);
        let connection = open(&path).map_err(|source| StoreError::Sqlite {
            path: path.clone(),
            source,
        })?;
        schema::migrate(connection, &path).map(|connection| Self {
            connection: Arc::new(Mutex::new(connection)),
        })
    }

    /// Makes a change, or none where it fails. It goes on to its end also where nobody waits for it any more.
    ///
    /// # Errors
    /// The change's own, and [`ApiError::internal`] for SQLite's.
    pub async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.write_here(change))
            .await
            .map_err(ApiError::internal)?
    }

    /// As [`Self::write`], on this thread.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_here<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        // A change that panicked was rolled back: the connection is as good as before.
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = change(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    /// Reads, from one state.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Transaction<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let store = self.clone();
        let read = move || {
            let mut connection = store
                .connection
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            read(&transaction)
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(ApiError::internal)?
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.execute_batch(presence::TABLE)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Copies the state to a new file, owner-only, also while the service runs: the copy is the state of one moment.
///
/// # Errors
/// Where there is no state, or where the file exists or cannot be written.
pub fn backup(folder: &Path, to: &Path) -> Result<(), StoreError> {
    let path = folder.join(STATE_FILE);
    let sqlite = |source| StoreError::Sqlite {
        path: path.clone(),
        source,
    };
    // SQLite would only say that it cannot be opened.
    fs::metadata(&path).map_err(|source| StoreError::File {
        path: path.clone(),
        source,
    })?;
    let from =
        Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
    from.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    write_owner_only(to, b"").map_err(|source| StoreError::File {
        path: to.to_owned(),
        source,
    })?;
    copy(&from, to).map_err(|source| {
        // What is not whole is of no use, and would be in the way of the next try.
        if let Err(error) = fs::remove_file(to) {
            tracing::warn!("{} is left, and is no backup: {error}", to.display());
        }
        sqlite(source)
    })
}

fn copy(from: &Connection, to: &Path) -> rusqlite::Result<()> {
    let mut to = Connection::open(to)?;
    match Backup::new(from, &mut to)?.step(ALL_PAGES)? {
        StepResult::Done => Ok(()),
        // Longer than the busy timeout.
        _ => Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_BUSY),
            None,
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;
    use crate::serve::error::Code;

    #[tokio::test]
    async fn a_change_that_fails_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let insert = "INSERT INTO meta (name, value) VALUES ('a', 1)";
        let failed: Result<(), ApiError> = store
            .write(move |state| {
                state.execute(insert, [])?;
                Err(ApiError::internal("no"))
            })
            .await;
        assert!(failed.is_err());
        let count = |store: Store| async move {
            store
                .read(|state| {
                    Ok(state.query_row(
                        "SELECT count(*) FROM meta WHERE name = 'a'",
                        [],
                        |row| row.get::<_, i64>(0),
                    )?)
                })
                .await
                .unwrap()
        };
        assert_eq!(count(store.clone()).await, 0);
        store
            .write(move |state| Ok(state.execute(insert, [])?))
            .await
            .unwrap();
        drop(store);
        assert_eq!(count(Store::open(folder.path()).unwrap()).await, 1);
    }

    #[test]
    fn a_disk_that_is_full_refuses_changes_and_harms_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let fill = |from: i64, to: i64| {
            store.write_here(|state| {
                for number in from..to {
                    let row = (format!("{number} {}", "x".repeat(1000)), number);
                    state.execute("INSERT INTO meta (name, value) VALUES (?, ?)", row)?;
                }
                Ok(())
            })
        };
        let limit = |pages: u32| {
            let connection = store.connection.lock().unwrap();
            connection
                .pragma_update(None, "max_page_count", pages)
                .unwrap();
        };
        let count = || {
            let read = |state: &Transaction<'_>| {
                let count = "SELECT count(*) FROM meta";
                Ok(state.query_row(count, [], |row| row.get::<_, i64>(0))?)
            };
            store.write_here(read).unwrap()
        };
        fill(0, 10).unwrap();
        // No smaller than the file is: no page can be added.
        limit(1);
        let error = fill(10, 1000).unwrap_err();
        assert_eq!(error.kind(), Code::ServiceUnavailable, "{error}");
        assert_eq!(count(), 10, "all of a change, or nothing");
        limit(1_000_000);
        fill(10, 1000).unwrap();
        assert_eq!(count(), 1000);
    }

    #[test]
    fn a_later_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        let connection = Connection::open(folder.path().join(STATE_FILE)).unwrap();
        connection.pragma_update(None, "user_version", 999).unwrap();
        drop(connection);
        let error = Store::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("has version 999"), "{error}");
    }

    #[test]
    fn a_backup_is_the_state_and_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let insert = "INSERT INTO meta (name, value) VALUES ('a', 1)";
        store
            .write_here(|state| Ok(state.execute(insert, [])?))
            .unwrap();
        let copy = folder.path().join("copy");
        backup(folder.path(), &copy).unwrap();
        let count = |connection: &Connection| {
            connection
                .query_row("SELECT count(*) FROM meta WHERE name = 'a'", [], |row| {
                    row.get::<_, i64>(0)
                })
                .unwrap()
        };
        assert_eq!(count(&Connection::open(&copy).unwrap()), 1);
        assert!(backup(folder.path(), &copy).is_err(), "the file exists");
        assert!(backup(&folder.path().join("none"), &copy).is_err());
    }

    #[test]
    fn a_backup_ends_while_the_service_writes_and_is_the_state_of_one_moment() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let row = "INSERT INTO meta (name, value) VALUES (?, ?)";
        // Several thousand pages.
        store
            .write_here(|state| {
                for number in 0..2000 {
                    state.execute(row, (format!("{number} {}", "x".repeat(8000)), number))?;
                }
                Ok(())
            })
            .unwrap();
        let copy = folder.path().join("copy");
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0.. {
                    if ended.load(Ordering::SeqCst) {
                        break;
                    }
                    // Two by two.
                    let write = |state: &Transaction<'_>| {
                        state.execute(row, (format!("a{number}"), 1))?;
                        Ok(state.execute(row, (format!("b{number}"), 1))?)
                    };
                    store.write_here(write).unwrap();
                }
            });
            let made = backup(folder.path(), &copy);
            ended.store(true, Ordering::SeqCst);
            made.unwrap();
        });
        let copy = Connection::open(&copy).unwrap();
        let count = |name: &str| {
            let count = "SELECT count(*) FROM meta WHERE name GLOB ?";
            copy.query_row(count, [name], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!(count("* *"), 2000);
        assert_eq!(count("a*"), count("b*"));
    }

    #[test]
    fn a_backup_that_fails_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(STATE_FILE), "x".repeat(4096)).unwrap();
        let copy = folder.path().join("copy");
        let error = backup(folder.path(), &copy).unwrap_err().to_string();
        assert!(error.contains("not a database"), "{error}");
        assert!(!copy.exists());
    }
}
