//! The store's limits.
use std::path::PathBuf;

use flowlog_model::log_group::MAX_RAW_BYTES;

/// What the store may use.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Folder for all that the store keeps; made if there is none.
    pub folder: PathBuf,
    /// Most octets of the keys and values in a put.
    pub put_octets: usize,
    /// Most KiB of keys and values that wait to be written; what is beyond is [`PutError::Overloaded`].
    pub queue_kib: u32,
    /// Octets of rows in memory, or of a write-ahead segment, at which they are to become files.
    pub generation_octets: u64,
    /// Octets of rows in memory at which puts are [`PutError::Overloaded`].
    pub memory_octets: u64,
    /// How long rows stay in memory at most, in seconds.
    pub flush_seconds: u32,
    /// Octets of the disk that are left free for flush and compaction: below, puts are [`PutError::DiskFull`].
    pub free_octets: u64,
    /// Most logs that compaction puts in one file.
    pub file_rows: u64,
    /// How many identities of puts are remembered at most.
    pub identities: usize,
    /// How long they are remembered at most, in seconds.
    pub identity_seconds: u32,
}

impl StoreConfig {
    /// The defaults, in `folder`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            put_octets: MAX_RAW_BYTES,
            queue_kib: 64 << 10,
            generation_octets: 96 << 20,
            memory_octets: 384 << 20,
            flush_seconds: 60,
            free_octets: 256 << 20,
            file_rows: 4 << 20,
            identities: 1 << 18,
            identity_seconds: 7 * 86_400,
        }
    }
}
