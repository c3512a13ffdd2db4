//! How far a flow log's sink is.
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    SpoolError,
    durable::{self, Folder, Unreadable, is_full},
    names,
};

/// How far a flow log's sink is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// Newest window that is delivered.
    pub window: u64,
    /// Where that has left the destination; the sink's own.
    pub position: serde_json::Value,
}

/// A cursor as it is written.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) flow_log: String,
    /// The flow log is not configured any more, and nothing is pending for it.
    pub(super) forgotten: bool,
    pub(super) cursor: Cursor,
}

/// The cursors of all flow logs.
#[derive(Clone, Debug)]
pub struct Cursors(Arc<Folder>);

impl Cursors {
    pub(super) fn new(folder: &Arc<Folder>) -> Self {
        Self(Arc::clone(folder))
    }

    /// That of a flow log.
    #[must_use]
    pub fn of(&self, flow_log: &str) -> CursorFile {
        CursorFile::new(&self.0, flow_log)
    }
}

/// The file of a flow log's cursor. The sink writes it from its own thread; if the sink does not, the spool does when it is told of
/// what was delivered.
#[derive(Clone, Debug)]
pub struct CursorFile {
    folder: Arc<Folder>,
    flow_log: String,
    name: String,
}

impl CursorFile {
    pub(super) fn new(folder: &Arc<Folder>, flow_log: &str) -> Self {
        Self {
            folder: Arc::clone(folder),
            flow_log: flow_log.to_owned(),
            name: names::cursor(flow_log),
        }
    }

    /// The cursor; none if nothing was delivered yet, or if the file is damaged, which is logged.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read(&self) -> Result<Option<Cursor>, SpoolError> {
        let path = || self.folder.file(&self.name);
        match durable::read::<Stored>(&self.folder, &self.name) {
            Ok((stored, _)) if stored.flow_log == self.flow_log => {
                Ok((!stored.forgotten).then_some(stored.cursor))
            }
            Ok(_) | Err(Unreadable::Missing) => Ok(None),
            Err(Unreadable::Damaged(reason)) => {
                tracing::error!(
                    "{} is damaged ({reason}): what the flow log has been given already is not known",
                    path().display()
                );
                Ok(None)
            }
            Err(unreadable) => Err(SpoolError::unreadable(path(), unreadable)),
        }
    }

    /// Sets the cursor: durably, when this returns.
    ///
    /// # Errors
    ///
    /// If the file cannot be written; the cursor is as before then.
    pub fn write(&self, cursor: &Cursor) -> Result<(), SpoolError> {
        self.store(cursor.clone(), false)
    }

    /// Notes that the flow log is not configured any more.
    pub(super) fn forget(&self, newest_window: u64) -> Result<(), SpoolError> {
        let cursor = Cursor {
            window: newest_window,
            position: serde_json::Value::Null,
        };
        self.store(cursor, true)
    }

    fn store(&self, cursor: Cursor, forgotten: bool) -> Result<(), SpoolError> {
        let stored = Stored {
            flow_log: self.flow_log.clone(),
            forgotten,
            cursor,
        };
        let write = || durable::write(&self.folder, &self.name, &stored);
        let written = match write() {
            // What is delivered makes room: this must not wait for it.
            Err(error) if is_full(&error) && self.folder.release_reserve() => write(),
            result => result,
        };
        written.map_err(|source| SpoolError::Io {
            what: "write",
            path: self.folder.file(&self.name),
            source,
        })?;
        Ok(())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}
