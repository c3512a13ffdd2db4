//! What can go wrong.
use std::{
    io,
    path::{Path, PathBuf},
};

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

/// Why the store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system.
    #[error("{what}: {error}")]
    Io {
        /// What was to be done, and where.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
    /// Somebody else uses the folder.
    #[error("the store {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Columns.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// A Parquet file.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// The object store.
    #[error(transparent)]
    Objects(#[from] object_store::Error),
    /// What was written has its name, and may have lost it after a loss of power.
    #[error(
        "the disk has failed in {what}, so that no segment and no file is removed until the service is started again"
    )]
    InDoubt {
        /// What was written.
        what: String,
    },
    /// The writer has ended.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(super) fn io(what: &str, path: &Path, error: io::Error) -> Self {
        Self::Io {
            what: format!("{what} {}", path.display()),
            error,
        }
    }
}

/// Why logs were not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// There is too much in hand; the same will be taken later. Nothing was stored.
    #[error("the store has as much in hand as it may: try again later")]
    Overloaded,
    /// The disk is full. Nothing was stored.
    #[error(
        "the disk of the store has less than {free_octets} bytes left: logs are refused until there is room again"
    )]
    DiskFull {
        /// What is kept free, in octets.
        free_octets: u64,
    },
    /// What was sent is over a limit, or cannot be. Nothing was stored.
    #[error("{0}")]
    Invalid(String),
    /// The disk, or the store itself, has failed. After a restart the logs may be there.
    #[error("the logs could not be stored: {0}")]
    Failed(String),
}
