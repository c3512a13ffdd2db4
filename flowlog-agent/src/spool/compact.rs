//! Compaction.

/// Drains that are to be merged into one.
#[derive(Debug)]
pub struct CompactionJob {}

/// The outcome of a job.
#[derive(Debug)]
pub struct Compacted {}

impl CompactionJob {
    /// Merges. Reads and writes files, and no more.
    #[must_use]
    pub fn run(self) -> Compacted {
        Compacted {}
    }
}
