//! How far the deliveries of a flow log have come, as it is remembered over restarts.
use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};

/// What a destination must know of the last complete delivery to go back to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub(crate) enum Position {
    /// Nothing: it cannot go back, or needs no help for it.
    #[default]
    Nothing,
    /// The end of what a rotating file has of it.
    File {
        /// The file that is written to; another path is another file.
        path: PathBuf,
        /// Inode number of the file that was written to then; it may have been rotated away since.
        inode: u64,
        /// That file's length, in bytes.
        length: u64,
    },
}

/// How far the deliveries of a flow log have come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Cursor {
    /// Number of the last window that is delivered; none before the first.
    pub window: Option<u64>,
    /// Where its destination stood then.
    pub position: Position,
}

/// Where cursors are kept, by the name of the flow log.
pub(crate) trait CursorStore: Send + Sync {
    /// The cursor that was stored last; none if none was.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn load(&self, flow_log: &str) -> io::Result<Option<Cursor>>;

    /// Stores a cursor in the place of the earlier one, so that after a crash there is the one or the other.
    ///
    /// # Errors
    ///
    /// If it is not certain to be there after a crash.
    fn store(&self, flow_log: &str, cursor: &Cursor) -> io::Result<()>;
}
