//! Windows and cursors as the spool keeps them.
use std::{io, sync::Arc};

use flowlog_model::{flow_log::FlowLog, record::Record};

use super::{
    cursor::{Cursor, CursorStore},
    delivery::{Delivery, WindowIdentity},
};
use crate::{
    route,
    spool::{self, Cursors, Spool, SpoolError, StoredWindow},
    window::Window,
};

/// A closed window.
pub(crate) struct StoredDelivery {
    identity: WindowIdentity,
    window: Arc<StoredWindow>,
}

impl StoredDelivery {
    /// A window of the spool.
    #[must_use]
    pub(crate) fn new(spool: &Spool, window: Arc<StoredWindow>) -> Self {
        Self {
            identity: WindowIdentity {
                spool: spool.id().to_owned(),
                window: window.id(),
                length_seconds: window.length_seconds(),
            },
            window,
        }
    }
}

impl Delivery for StoredDelivery {
    fn identity(&self) -> &WindowIdentity {
        &self.identity
    }

    fn label(&self) -> Window {
        self.window.label()
    }

    fn render(&self, flow_log: &FlowLog, each: &mut dyn FnMut(&Record<'_>)) -> io::Result<u64> {
        let window = self.window.read().map_err(|error| match error {
            SpoolError::Damaged { .. } => io::Error::new(io::ErrorKind::InvalidData, error),
            error => io::Error::other(error),
        })?;
        Ok(route::records(&window, flow_log, each))
    }
}

/// The cursors of flow logs, each in a file of the spool.
pub(crate) struct StoredCursors(Cursors);

impl StoredCursors {
    /// The spool's.
    #[must_use]
    pub(crate) fn new(spool: &Spool) -> Self {
        Self(spool.cursors())
    }
}

/// Windows have numbers from 1, so that 0 is before the first.
const BEFORE_THE_FIRST: u64 = 0;

impl CursorStore for StoredCursors {
    fn load(&self, flow_log: &str) -> io::Result<Option<Cursor>> {
        let cursor = self.0.of(flow_log).read().map_err(io::Error::other)?;
        Ok(cursor.map(|cursor| Cursor {
            window: Some(cursor.window).filter(|window| *window != BEFORE_THE_FIRST),
            position: serde_json::from_value(cursor.position).unwrap_or_else(|error| {
                tracing::warn!(
                    flow_log,
                    "the position in its destination cannot be read: {error}"
                );
                super::cursor::Position::Nothing
            }),
        }))
    }

    fn store(&self, flow_log: &str, cursor: &Cursor) -> io::Result<()> {
        let cursor = spool::Cursor {
            window: cursor.window.unwrap_or(BEFORE_THE_FIRST),
            position: serde_json::to_value(&cursor.position)?,
        };
        self.0.of(flow_log).write(&cursor).map_err(io::Error::other)
    }
}
