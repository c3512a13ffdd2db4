//! The spool: what was drained and not yet delivered, on the disk.
mod compact;
mod cursor;
mod reader;
mod types;
mod window;
mod writer;

pub use compact::{Compacted, CompactionJob};
pub use cursor::{Cursor, CursorFile};
pub use reader::WindowReader;
pub use types::*;
pub use window::StoredWindow;
pub use writer::DrainWriter;

use std::{collections::BTreeSet, sync::Arc};

/// A spool. It has its folder for itself.
#[derive(Debug)]
pub struct Spool {
    next_drain: u64,
}

impl Spool {
    /// Opens the spool, or makes it.
    ///
    /// # Errors
    ///
    /// If somebody else uses it, if its folder cannot be used, or if another version has written it.
    pub fn open(_config: SpoolConfig) -> Result<(Self, Recovered), SpoolError> {
        Ok((Self { next_drain: 1 }, Recovered::default()))
    }

    /// Begins a drain. Nothing of it is to be seen until [`DrainWriter::commit`]; if that fails or is not called, nothing has happened.
    ///
    /// # Errors
    ///
    /// None yet.
    pub fn begin_drain(&mut self) -> Result<DrainWriter<'_>, SpoolError> {
        Ok(DrainWriter::new(self))
    }

    /// Sequence number that the next drain will have. A window that opens now begins with it.
    #[must_use]
    pub fn next_drain(&self) -> u64 {
        self.next_drain
    }

    /// Closes a window: durably, when this returns. It has the drains from its first to the newest.
    ///
    /// # Errors
    ///
    /// If it cannot be written; the window is still open then.
    pub fn close_window(
        &mut self,
        _closing: &Closing<'_>,
    ) -> Result<Arc<StoredWindow>, SpoolError> {
        Ok(Arc::new(StoredWindow::default()))
    }

    /// Saves the state, in place of the one before. To be called before the first drain, and whenever windows were opened or closed.
    ///
    /// # Errors
    ///
    /// If it cannot be written; the one before is still there then.
    pub fn save_state(&mut self, _state: &State) -> Result<(), SpoolError> {
        Ok(())
    }

    /// The windows that are to be delivered to a flow log, in order.
    #[must_use]
    pub fn pending(&self, _flow_log: &str) -> Vec<Arc<StoredWindow>> {
        Vec::new()
    }

    /// The flow logs that the spool knows: those that have windows to be delivered, or have had.
    #[must_use]
    pub fn flow_logs(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Where the flow log's sink notes how far it is; for the sink's thread.
    #[must_use]
    pub fn cursor(&self, flow_log: &str) -> CursorFile {
        CursorFile::new(flow_log)
    }

    /// The flow log has this window and all before it.
    pub fn delivered(&mut self, _flow_log: &str, _window: u64) {}

    /// The flow log is no longer configured: its windows are dropped. Gives how many were pending for it.
    pub fn forget_flow_log(&mut self, _flow_log: &str) -> u64 {
        0
    }

    /// Gives up what is too old or too much; makes the reserve again if it was used up.
    pub fn sweep(&mut self, _now_wall_seconds: u64) -> GivenUp {
        GivenUp::default()
    }

    /// How full it is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage::default()
    }

    /// Drains that should be merged, if there are such. The job is to be run on another thread, one at a time.
    pub fn compaction_due(&mut self) -> Option<CompactionJob> {
        None
    }

    /// Takes the outcome of a job over.
    pub fn compacted(&mut self, _outcome: Compacted) {}
}
